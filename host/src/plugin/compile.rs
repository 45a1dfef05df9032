//! Compiling, where a component may be made to take for ever: in a short-lived child process with limits on CPU time and
//! memory. The child is this program itself, called with `compile-plugin`; both of its sides are here.
//!
//! The component goes in on the child's standard input, native code comes back on its standard output, the reason of a
//! refusal on its standard error. The child has no environment, runs at low priority, and dies with its parent.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::runtime::{self, EngineRules};
use super::version::{LoadError, LoadRules};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "compile-plugin";
/// Longest text of a refusal that is handed on.
const REASON: usize = 16 << 10;
/// A child that got so many times its CPU time by the wall clock is stopped: it does not run at all any more.
const PATIENCE: u32 = 5;
/// Threads that compile. More need more memory each, and the machine has other things to do.
const THREADS: usize = 4;

/// Compiles components, in children of the program that it names.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// `None`: here.
    program: Option<PathBuf>,
}

/// What a child is told by its arguments.
#[derive(Clone, Debug)]
pub struct CompileJob {
    /// Bytes of the call stack of instances.
    pub stack: u64,
    /// 1 for code of deterministic handlers, else 0.
    pub deterministic: u64,
    /// Seconds of CPU time.
    pub cpu_seconds: u64,
    /// Bytes of address space.
    pub memory: u64,
}

impl Compiler {
    /// Children are this very program: also when its file was replaced meanwhile.
    #[must_use]
    pub fn this_program() -> Self {
        if cfg!(target_os = "linux") {
            return Self::at("/proc/self/exe");
        }
        // An error here is one when it is started.
        Self::at(std::env::current_exe().unwrap_or_default())
    }

    /// Children are the program at this path, which has to be of the same build.
    #[must_use]
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()) }
    }

    /// No children, and no limits: for benchmarks, and for fuzzers, which make a hundred thousand components.
    #[must_use]
    pub const fn in_this_process() -> Self {
        Self { program: None }
    }

    /// Compiles a component for engines of these rules.
    pub(super) fn compile(&self, component: &[u8], rules: &LoadRules) -> Result<Vec<u8>, LoadError> {
        let job = CompileJob::of(rules);
        let Some(program) = &self.program else {
            return job.compile(component).map_err(|text| LoadError::Compile { text });
        };
        let mut command = Command::new(program);
        command.arg(SUBCOMMAND).args(job.to_args()).env_clear();
        // The allocator would reserve 1 GiB of addresses at its start, and the kernel counts addresses.
        command.env("RAYON_NUM_THREADS", threads().to_string()).env("MIMALLOC_ARENA_RESERVE", "0");
        // A program that counts what runs (tests/fuzz) would write a file at its end, which the child may not.
        #[cfg(fuzz_coverage)]
        command.env("LLVM_PROFILE_FILE", "/dev/null");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let cannot = |error: std::io::Error| LoadError::NoCompiler { text: error.to_string() };
        let mut child = command.spawn().map_err(cannot)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let child = Mutex::new(child);
        let (ended, watched) = sync_channel::<()>(1);
        let patience = rules.compile_time * PATIENCE;
        std::thread::scope(|scope| {
            let overdue = &child;
            let watch = scope.spawn(move || match watched.recv_timeout(patience) {
                Err(RecvTimeoutError::Timeout) => kill(overdue),
                _ => false,
            });
            let reason = scope.spawn(|| {
                let mut text = Vec::new();
                // Read to the end, or the child waits for room; kept as far as it is short.
                stderr.map(|mut pipe| pipe.read_to_end(&mut text));
                text.truncate(2 * REASON);
                text
            });
            if let Some(mut stdin) = stdin {
                // A child that ended early says why by its status.
                _ = stdin.write_all(component);
            }
            let mut code = Vec::new();
            let read = stdout.map_or(Ok(0), |pipe| pipe.take(rules.compile_memory).read_to_end(&mut code));
            if read.is_err() {
                kill(&child);
            }
            let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait();
            drop(ended);
            let gave_up = watch.join().unwrap_or_default();
            let reason = reason.join().unwrap_or_default();
            let reason = String::from_utf8_lossy(&reason);
            read.and(status).map_err(cannot).and_then(|status| judge(status, gave_up, code, reason.trim(), rules))
        })
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS)
}

/// Ends the child. True: it had not ended by itself.
fn kill(child: &Mutex<Child>) -> bool {
    child.lock().unwrap_or_else(PoisonError::into_inner).kill().is_ok()
}

/// What the end of a child means.
fn judge(
    status: ExitStatus,
    gave_up: bool,
    code: Vec<u8>,
    reason: &str,
    rules: &LoadRules,
) -> Result<Vec<u8>, LoadError> {
    // The last two are threads that get no stack.
    let no_memory = [
        "memory allocation of ",
        "Cannot allocate memory",
        "out of memory",
        "failed to spawn thread",
        "Resource temporarily unavailable",
    ];
    if status.success() {
        Ok(code)
    } else if gave_up || status.signal() == Some(libc::SIGXCPU) {
        Err(LoadError::CompileTime { limit: rules.compile_time })
    } else if no_memory.iter().any(|text| reason.contains(text)) {
        Err(LoadError::CompileMemory { limit: rules.compile_memory })
    } else if status.code() == Some(1) {
        Err(LoadError::Compile { text: reason.to_owned() })
    } else {
        Err(LoadError::Compile { text: format!("the compiler gave up ({status}): {reason}") })
    }
}

impl CompileJob {
    fn of(rules: &LoadRules) -> Self {
        Self {
            stack: rules.stack,
            deterministic: rules.deterministic.into(),
            // The kernel counts whole ones.
            cpu_seconds: u64::try_from(rules.compile_time.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1),
            memory: rules.compile_memory,
        }
    }

    fn to_args(&self) -> [String; 4] {
        [self.stack, self.deterministic, self.cpu_seconds, self.memory].map(|number| number.to_string())
    }

    fn rules(&self) -> LoadRules {
        LoadRules { stack: self.stack, deterministic: self.deterministic == 1, ..LoadRules::default() }
    }

    /// The child's side: limits itself, then reads the component and compiles it.
    ///
    /// # Errors
    /// The compiler's reasons, cut to what a report can hold.
    pub fn run(&self, input: impl std::io::Read) -> Result<Vec<u8>, String> {
        self.limit_process().map_err(|error| format!("the compiler cannot be limited: {error}"))?;
        let mut component = Vec::new();
        let read = input.take(self.memory).read_to_end(&mut component);
        read.map_err(|error| format!("the component cannot be read: {error}"))?;
        self.compile(&component)
    }

    fn compile(&self, component: &[u8]) -> Result<Vec<u8>, String> {
        let engine = runtime::engine(EngineRules::of(&self.rules())).map_err(|error| format!("{error:#}"))?;
        engine.precompile_component(component).map_err(|error| shortened(format!("{error:#}")))
    }

    fn limit_process(&self) -> std::io::Result<()> {
        let limits = [
            // The second limit ends who ignores the first.
            (libc::RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds + 1),
            (libc::RLIMIT_AS, self.memory, self.memory),
            // It writes to no file, and leaves none.
            (libc::RLIMIT_FSIZE, 0, 0),
            (libc::RLIMIT_CORE, 0, 0),
        ];
        for (what, rlim_cur, rlim_max) in limits {
            let limit = libc::rlimit { rlim_cur, rlim_max };
            // SAFETY: the pointer is to a limit that lives through the call.
            check(unsafe { libc::setrlimit(what, &raw const limit) })?;
        }
        // SAFETY: takes numbers only.
        check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) })?;
        leave_with_parent()
    }
}

#[cfg(target_os = "linux")]
fn leave_with_parent() -> std::io::Result<()> {
    // SAFETY: both calls take numbers only.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
    }
}

#[cfg(not(target_os = "linux"))]
fn leave_with_parent() -> std::io::Result<()> {
    Ok(())
}

fn check(said: i32) -> std::io::Result<()> {
    if said == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn shortened(mut text: String) -> String {
    let mut end = text.len().min(REASON);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_child_has_the_time_that_its_limit_says_in_whole_seconds() {
        let seconds = |millis: u64| {
            let rules = LoadRules { compile_time: Duration::from_millis(millis), ..LoadRules::default() };
            CompileJob::of(&rules).cpu_seconds
        };
        for (millis, expected) in [(1, 1), (999, 1), (1000, 1), (1001, 2), (59_999, 60), (60_000, 60), (60_001, 61)] {
            assert_eq!(seconds(millis), expected, "{millis} ms");
        }
    }

    #[test]
    fn the_end_of_a_child_says_which_limit_it_was() {
        let ended = |status, gave_up, reason: &str| {
            judge(ExitStatus::from_raw(status), gave_up, vec![1], reason, &LoadRules::default())
        };
        assert!(matches!(ended(0, false, ""), Ok(code) if code == [1]));
        assert!(matches!(ended(libc::SIGXCPU, false, ""), Err(LoadError::CompileTime { .. })));
        assert!(matches!(ended(libc::SIGKILL, true, ""), Err(LoadError::CompileTime { .. })));
        for (status, text) in [
            (libc::SIGABRT, "memory allocation of 70000 bytes failed"),
            (101 << 8, "ThreadPoolBuildError: Resource temporarily unavailable"),
        ] {
            assert!(matches!(ended(status, false, text), Err(LoadError::CompileMemory { .. })), "{text}");
        }
        for (status, text) in [(1 << 8, "type mismatch"), (libc::SIGSEGV, "the compiler gave up (signal: 11")] {
            let Err(LoadError::Compile { text: said }) = ended(status, false, "type mismatch") else {
                panic!("{text}")
            };
            assert!(said.contains(text), "{said}");
        }
    }
}
