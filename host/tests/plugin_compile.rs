//! Compiling: in a child that cannot take more than its share, and once, as far as the cache can be trusted.

mod plugin_support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plugin_support::{burst, compiler, config, guest, leb, on_handler_thread, runtime, version};
use sluicebox::plugin::{Cache, Code, HandlerLimits, Instance, LoadError, LoadRules, Runtime, Version};

/// A component of one core module with these function bodies, each `() -> i32` with one local.
fn component_of(bodies: &[Vec<u8>]) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id][..], &leb(content.len() as u64), content].concat();
    let vector = |items: Vec<Vec<u8>>| [leb(items.len() as u64), items.concat()].concat();
    let types = section(1, &[1, 0x60, 0, 1, 0x7f]);
    let functions = section(3, &vector(vec![vec![0]; bodies.len()]));
    let code = bodies.iter().map(|body| {
        // One group of locals: one i32.
        let body = [&[1, 1, 0x7f][..], body, &[0x0b]].concat();
        [leb(body.len() as u64), body].concat()
    });
    let code = section(10, &vector(code.collect()));
    let module = [b"\0asm\x01\0\0\0".as_slice(), &types, &functions, &code].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &section(1, &module)].concat()
}

/// A body of so many bytes, about: `local 0 = local 0 * 0x55555 + ...`, which nothing folds.
fn giant(bytes: usize) -> Vec<u8> {
    let step: &[u8] = &[0x20, 0, 0x41, 0xd5, 0xaa, 0xd5, 0, 0x6c, 0x22, 0, 0x20, 0, 0x6a, 0x21, 0];
    let mut body = step.repeat(bytes / step.len());
    body.extend([0x20, 0]);
    body
}

/// Nearly the most that the engine takes for one function.
const GIANT: usize = 7 << 20;

fn load(bytes: &[u8], rules: &LoadRules) -> Result<Arc<Version>, LoadError> {
    Version::load(runtime(), bytes, rules)
}

/// Proves: compiling ends at its CPU time, and at its memory, and says which key raises it.
#[test]
fn a_compile_bomb_ends_at_its_limits() {
    let bomb = component_of(&vec![giant(GIANT); 3]);
    assert!(bomb.len() > 20 << 20);
    let rules = LoadRules { compile_time: Duration::from_secs(1), ..LoadRules::default() };
    let begin = Instant::now();
    let error = load(&bomb, &rules).expect_err("it takes longer");
    assert!(matches!(error, LoadError::CompileTime { .. }), "{error}");
    assert!(error.to_string().contains("more than 1s of CPU time to compile"), "{error}");
    assert!(error.to_string().contains("raise `compile_time` in [handler.limits]"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());

    let rules = LoadRules { compile_memory: 256 << 20, ..LoadRules::default() };
    let error = load(&bomb, &rules).expect_err("it takes more");
    assert!(matches!(error, LoadError::CompileMemory { .. }), "{error}");
    assert!(error.to_string().contains("more than 256MiB of memory to compile"), "{error}");
}

/// Proves: the kernel holds a child to the very numbers that the limits say. Method: what it says of the child at work.
#[test]
fn a_child_is_held_to_its_limits() {
    let bomb = component_of(&vec![giant(GIANT); 3]);
    for memory in [(700 << 20) - 1, 700 << 20, (700 << 20) + 1] {
        let rules = LoadRules { compile_time: Duration::from_secs(3), compile_memory: memory, ..LoadRules::default() };
        std::thread::scope(|scope| {
            let compiling = scope.spawn(|| load(&bomb, &rules));
            let limited = |child: u32| {
                let limits = std::fs::read_to_string(format!("/proc/{child}/limits")).unwrap_or_default();
                let row = |name: &str| -> Vec<String> {
                    let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                    line.split_whitespace().take(2).map(str::to_owned).collect()
                };
                row("Max cpu time") == ["3", "4"]
                    && row("Max address space") == [memory.to_string(), memory.to_string()]
            };
            while !children().into_iter().any(limited) {
                assert!(!compiling.is_finished(), "no child had {memory} bytes and 3 seconds");
                std::thread::yield_now();
            }
            compiling.join().expect("no panic").expect_err("it takes more");
        });
    }
}

/// Proves: by the default limits both bombs of the catalogue end in an error, while a handler on another thread answers all
/// the time; nothing of the children stays.
#[test]
fn records_flow_while_a_bomb_is_compiled() {
    let stop = AtomicBool::new(false);
    let (answers, times) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (config, _) = config(HandlerLimits::default(), "{}");
            on_handler_thread(async {
                let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
                while !stop.load(Ordering::SeqCst) {
                    let begin = Instant::now();
                    instance.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
                    times.lock().expect("no panic").push(begin.elapsed());
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
        // Also when an assertion fails: the other thread is waited for.
        let _stop = Stop(&stop);
        let rules = LoadRules { compile_time: Duration::from_secs(5), ..LoadRules::default() };
        for bodies in [vec![giant(GIANT); 3], vec![giant(30); 100_000]] {
            let before = answers.load(Ordering::SeqCst);
            let error = load(&component_of(&bodies), &rules).expect_err("a bomb, or nothing that handles anything");
            let stopped = matches!(error, LoadError::CompileTime { .. } | LoadError::CompileMemory { .. });
            assert!(stopped || matches!(error, LoadError::WrongWorld { .. }), "{error}");
            assert!(answers.load(Ordering::SeqCst) > before + 100);
        }
        // A function that is larger than the engine takes is refused before anything is compiled.
        let error = load(&component_of(&[giant(20 << 20)]), &rules).expect_err("too large a function");
        assert!(error.to_string().contains("function body size"), "{error}");
    });
    // Not the slowest: on a machine with other work any thread may wait for a core. But the children give way.
    let mut times = times.into_inner().expect("no panic");
    times.sort_unstable();
    let most = times[times.len() * 95 / 100];
    assert!(most < Duration::from_millis(20), "95 % of {} answers within {most:?}", times.len());
    // Those of the tests beside this one end as well.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !children().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", children());
        std::thread::yield_now();
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Processes whose parent is this one.
fn children() -> Vec<u32> {
    let parent = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").expect("processes are files here");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(parent.as_str())
    };
    numbers.filter(is_child).collect()
}

fn with_cache(directory: &Path) -> Arc<Runtime> {
    Runtime::new(compiler(), Some(Cache::open(directory).expect("a cache"))).expect("an engine")
}

fn cached_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the cache");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "code")).collect()
}

async fn answers(version: &Arc<Version>) {
    let (config, _) = config(HandlerLimits::default(), "{}");
    let mut instance = Instance::start(version, &config).await.expect("it starts");
    instance.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
}

/// Proves: a second start takes the code from the cache, and it runs; other limits on compiling share it, another engine (a
/// property of code or not) is told apart by what code depends on.
#[test]
fn a_second_start_compiles_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("compiled");
    let bytes = guest("raw-frames");
    let first = Version::load(&with_cache(&directory), &bytes, &LoadRules::default()).expect("it loads");
    assert!(matches!(first.code(), Code::Compiled(_)));
    assert_eq!(cached_files(&directory).len(), 1);
    let second = Version::load(&with_cache(&directory), &bytes, &LoadRules::default()).expect("it loads");
    let Code::Cached(took) = second.code() else { panic!("{:?}", second.code()) };
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(first.digest(), second.digest());
    on_handler_thread(answers(&second));
    // One changed byte of the component is another component.
    let mut other = bytes.clone();
    other.extend([0, 2, 1, b'x']);
    let other = Version::load(&with_cache(&directory), &other, &LoadRules::default()).expect("it loads");
    assert!(matches!(other.code(), Code::Compiled(_)));
    assert_eq!(cached_files(&directory).len(), 2);
}

/// Proves: a file in the cache that anybody changed is not run: it is compiled anew, and then is right again.
#[test]
fn a_forged_file_is_compiled_anew() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("compiled");
    let bytes = guest("raw-frames");
    let load = || Version::load(&with_cache(&directory), &bytes, &LoadRules::default()).expect("it loads");
    load();
    let file = cached_files(&directory).pop().expect("a file");
    let good = std::fs::read(&file).expect("read");
    let mut flipped = good.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    // Real native code, but not signed by this directory's key.
    let elsewhere = root.path().join("elsewhere");
    Version::load(&with_cache(&elsewhere), &bytes, &LoadRules::default()).expect("it loads");
    let foreign = std::fs::read(cached_files(&elsewhere).pop().expect("a file")).expect("read");
    for forged in [flipped, foreign, good[..good.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&file, forged).expect("written");
        let version = load();
        assert!(matches!(version.code(), Code::Compiled(_)));
        on_handler_thread(answers(&version));
        assert!(matches!(load().code(), Code::Cached(_)));
    }
}

/// Proves: two hosts that start at the same time on one directory both load, and leave one file.
#[test]
fn hosts_share_a_cache() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("compiled");
    let bytes = guest("raw-frames");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let version = Version::load(&with_cache(&directory), &bytes, &LoadRules::default());
                on_handler_thread(answers(&version.expect("it loads")));
            });
        }
    });
    assert_eq!(cached_files(&directory).len(), 1);
}

/// Proves: what the compiler says against a component reaches whoever gave it.
#[test]
fn a_refusal_of_the_compiler_is_told() {
    // `i32.add` with nothing to add.
    let error = load(&component_of(&[vec![0x6a]]), &LoadRules::default()).expect_err("not valid");
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    assert!(error.to_string().contains("type mismatch"), "{error}");
}
