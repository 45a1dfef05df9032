//! A small fuzzer: changes inputs of a corpus, and, where the build counts what runs, goes on from those that reached
//! something new. Needs nothing but a stable compiler. A finding is a panic, or an input that takes too long; it is kept in
//! a file, and named.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is fuzzed.
pub struct Fuzz<'a> {
    /// Its directory in the corpus.
    pub name: &'a str,
    /// The repository's root.
    pub root: &'a Path,
    /// Words that inputs of this kind are made of.
    pub words: &'a [&'a str],
    /// Longest input.
    pub longest: usize,
    /// Inputs of a short run.
    pub runs: u64,
}

/// An input that takes longer is a finding; after this it is not waited for any more.
const SLOW: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);

impl Fuzz<'_> {
    /// Runs every input of the corpus, then changed ones: as many as a short run has, or for as many seconds as
    /// `SLUICEBOX_FUZZ_SECONDS` says.
    pub fn run(&self, mut target: impl FnMut(&[u8])) {
        let seconds: Option<u64> = std::env::var("SLUICEBOX_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        let seed = std::env::var("SLUICEBOX_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let mut corpus = self.corpus();
        assert!(!corpus.is_empty(), "no corpus for {}", self.name);
        let (mut chance, mut coverage) = (Chance(seed), Coverage::default());
        let watch = Watch::start(self.findings());
        let begin = Instant::now();
        let fixed = corpus.len() as u64;
        let mut runs = 0;
        loop {
            let input = if runs < fixed {
                corpus[runs as usize].clone()
            } else if seconds.map_or(runs < fixed + self.runs, |seconds| begin.elapsed().as_secs() < seconds) {
                self.changed(&corpus, &mut chance)
            } else {
                break;
            };
            watch.begin(&input);
            Coverage::clear();
            let ended = catch_unwind(AssertUnwindSafe(|| target(&input)));
            let took = watch.end();
            if let Err(panic) = ended {
                eprintln!("{}: run {runs} of seed {seed} panicked, its input is {}", self.name, self.keep(&input));
                resume_unwind(panic);
            }
            assert!(took < SLOW, "{}: {took:?} for {}", self.name, self.keep(&input));
            if coverage.gained() && runs >= fixed {
                corpus.push(input);
            }
            runs += 1;
        }
        println!(
            "{}: {runs} inputs in {:.1?}, {fixed} of the corpus, {} more that reached something new{}",
            self.name,
            begin.elapsed(),
            corpus.len() as u64 - fixed,
            coverage.shown()
        );
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let directory = self.root.join("tests/fuzz/corpus").join(self.name);
        let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut files: Vec<_> = files.map(|file| file.expect("an entry").path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).expect("an input")).collect()
    }

    fn findings(&self) -> PathBuf {
        self.root.join("target/tmp/fuzz").join(self.name)
    }

    fn keep(&self, input: &[u8]) -> String {
        keep(&self.findings(), input)
    }

    /// An input of the corpus with one to a few changes.
    fn changed(&self, corpus: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
        let mut input = corpus[chance.below(corpus.len())].clone();
        for _ in 0..=chance.below(4) {
            let at = chance.below(input.len() + 1);
            let length = chance.below(input.len() - at + 1).min(1 << chance.below(8));
            match chance.below(10) {
                0 if at < input.len() => input[at] ^= 1 << chance.below(8),
                1 if at < input.len() => input[at] = chance.draw() as u8,
                2 => drop(input.drain(at..at + length)),
                3 => {
                    let part = input[at..at + length].to_vec();
                    let to = chance.below(input.len() + 1);
                    input.splice(to..to, part);
                }
                4 => input.insert(at, chance.draw() as u8),
                5 => {
                    let other = &corpus[chance.below(corpus.len())];
                    let from = chance.below(other.len() + 1);
                    input.splice(at.., other[from..].iter().copied());
                }
                6 | 7 if !self.words.is_empty() => {
                    let word = self.words[chance.below(self.words.len())].bytes();
                    input.splice(at..at + length, word);
                }
                8 if at + 4 <= input.len() => {
                    const EDGES: [u32; 9] = [0, 1, 2, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
                    let number = EDGES[chance.below(EDGES.len())];
                    input[at..at + 4].copy_from_slice(&number.to_le_bytes());
                }
                9 if at + 4 <= input.len() => {
                    let number = u32::from_le_bytes([input[at], input[at + 1], input[at + 2], input[at + 3]]);
                    let near = number.wrapping_add(chance.below(33) as u32).wrapping_sub(16);
                    input[at..at + 4].copy_from_slice(&near.to_le_bytes());
                }
                _ => {}
            }
        }
        input.truncate(self.longest);
        input
    }
}

fn keep(directory: &Path, input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = directory.join(format!("{:016x}", hasher.finish()));
    let kept = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, input));
    kept.map_or_else(|error| format!("{input:?} (not kept: {error})"), |()| path.display().to_string())
}

/// splitmix64
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.draw() % end as u64) as usize
    }
}

/// When an input was begun with, and the input.
type Begun = (Instant, Vec<u8>);

/// Ends the process when an input takes for ever, keeping it first.
struct Watch {
    now: Arc<Mutex<Option<Begun>>>,
    done: Arc<AtomicBool>,
    thread: std::thread::Thread,
}

impl Watch {
    fn start(directory: PathBuf) -> Self {
        let (now, done) = (Arc::<Mutex<Option<(Instant, Vec<u8>)>>>::default(), Arc::new(AtomicBool::new(false)));
        let (watched, over) = (Arc::clone(&now), Arc::clone(&done));
        let watch = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_secs(1));
                let now = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, input)) = now.as_ref().filter(|(begun, _)| begun.elapsed() > PATIENCE) {
                    eprintln!("no end after {PATIENCE:?} with {}", keep(&directory, input));
                    std::process::abort();
                }
            }
        });
        Self { now, done, thread: watch.thread().clone() }
    }

    fn begin(&self, input: &[u8]) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), input.to_vec()));
    }

    fn end(&self) -> Duration {
        let begun = self.now.lock().unwrap_or_else(PoisonError::into_inner).take();
        begun.map_or(Duration::ZERO, |(begun, _)| begun.elapsed())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// What was reached so far: for each counter of the build the classes of how often it counted in one input, as bits.
#[derive(Default)]
struct Coverage {
    #[cfg_attr(not(fuzz_coverage), expect(dead_code, reason = "nothing counts in an ordinary build"))]
    classes: Vec<u8>,
}

#[cfg(not(fuzz_coverage))]
impl Coverage {
    fn clear() {}

    fn gained(&mut self) -> bool {
        false
    }

    fn shown(&self) -> String {
        " (this build does not count what runs)".to_owned()
    }
}

/// The counters of `-C instrument-coverage`.
#[cfg(fuzz_coverage)]
impl Coverage {
    fn counters() -> &'static [std::sync::atomic::AtomicU64] {
        unsafe extern "C" {
            fn __llvm_profile_begin_counters() -> *const std::sync::atomic::AtomicU64;
            fn __llvm_profile_end_counters() -> *const std::sync::atomic::AtomicU64;
        }
        // SAFETY: the bounds of one section of this program, which holds 64-bit counters and nothing else.
        unsafe {
            let (begin, end) = (__llvm_profile_begin_counters(), __llvm_profile_end_counters());
            std::slice::from_raw_parts(begin, end.offset_from(begin).unsigned_abs())
        }
    }

    fn clear() {
        Self::counters().iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }

    fn gained(&mut self) -> bool {
        let counters = Self::counters();
        self.classes.resize(counters.len(), 0);
        let mut gained = false;
        for (counter, classes) in counters.iter().zip(&mut self.classes) {
            let class = match counter.load(Ordering::Relaxed) {
                0 => continue,
                1 => 1,
                2..=3 => 2,
                4..=7 => 4,
                8..=31 => 8,
                32..=127 => 16,
                _ => 32,
            };
            gained |= *classes & class == 0;
            *classes |= class;
        }
        gained
    }

    fn shown(&self) -> String {
        let reached = self.classes.iter().filter(|classes| **classes != 0).count();
        format!("; {reached} of {} counters of the build", self.classes.len())
    }
}
