//! Once per process: engines with their linkers, and the epoch ticker of all. Knows what guests may do at all; knows no
//! component.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak, OptLevel, WasmBacktraceDetails, WasmFeatures};

use super::cache::Cache;
use super::compile::Compiler;
use super::instance::State;
use super::version::LoadRules;
use super::{http, imports, metrics, wasi};
use crate::threads;

/// How often running guests are looked at: the unit of deadlines, and the slice after which a lane lets others run.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// The same while calls are so short that none lives through a tick: a tick then ends nothing, and costs a wake-up.
pub(super) const EASY_TICK: Duration = Duration::from_millis(5);
/// Ticks that no call lived through, after which they come that seldom.
const EASY_AFTER: u32 = 8;
/// Time without any guest running after which the ticker sleeps. Long enough that light, steady load does not pay a wake-up
/// per call.
const QUIET: Duration = Duration::from_secs(1);
/// Stack that host functions need on top of the guest's, on the fibre that a call runs on. Virtual until touched.
const HOST_STACK: usize = 1 << 20;
/// Frames kept in a backtrace. More are shown to nobody, but endless recursion is recognised by them.
pub(super) const BACKTRACE_FRAMES: usize = 64;

/// What is a property of an engine, and not of a store: handlers that differ in it run on engines of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EngineRules {
    /// Bytes of the call stack inside the guest.
    pub stack: usize,
    /// Numbers that are none (NaN) have one form, or the machine's.
    pub deterministic: bool,
}

impl EngineRules {
    pub(super) fn of(rules: &LoadRules) -> Self {
        Self { stack: usize::try_from(rules.stack).unwrap_or(usize::MAX), deterministic: rules.deterministic }
    }
}

/// An engine, and what is linked for its components.
pub(super) struct Kit {
    pub rules: EngineRules,
    pub engine: Engine,
    /// What everybody gets.
    pub linker: Linker<State>,
    /// With outbound HTTP.
    pub asking: Linker<State>,
}

/// What all handlers of the process share.
pub struct Runtime {
    kits: Mutex<BTreeMap<EngineRules, Arc<Kit>>>,
    pub(super) compiler: Compiler,
    pub(super) cache: Option<Cache>,
    pulse: Arc<Pulse>,
    ticker: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Builds the engine that handlers with default limits run on, and starts the ticker thread. Components are compiled
    /// by the compiler's children, and kept in the cache if there is one.
    ///
    /// # Errors
    /// When this machine cannot run compiled WebAssembly, or a thread cannot be started.
    pub fn new(compiler: Compiler, cache: Option<Cache>) -> anyhow::Result<Arc<Self>> {
        let pulse = Arc::new(Pulse::default());
        let beat = Arc::clone(&pulse);
        let ticker = threads::spawn("plugin-ticker", move || beat.run())?;
        let runtime = Self { kits: Mutex::default(), compiler, cache, pulse, ticker: Some(ticker) };
        runtime.kit(EngineRules::of(&LoadRules::default()))?;
        Ok(Arc::new(runtime))
    }

    /// The engine for these rules, made when it is asked for first. There are as many as pipelines have different rules.
    pub(super) fn kit(&self, rules: EngineRules) -> anyhow::Result<Arc<Kit>> {
        let mut kits = self.kits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kit) = kits.get(&rules) {
            return Ok(Arc::clone(kit));
        }
        let engine = engine(rules)?;
        let unlinked = |error: wasmtime::Error| anyhow::anyhow!("host functions do not link: {error:#}");
        let linker = linker(&engine).map_err(unlinked)?;
        let mut asking = linker.clone();
        http::add_to_linker(&mut asking).map_err(unlinked)?;
        self.pulse.drive(engine.weak());
        let kit = Arc::new(Kit { rules, engine, linker, asking });
        kits.insert(rules, Arc::clone(&kit));
        Ok(kit)
    }

    pub(super) const fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.pulse.stop();
        if let Some(ticker) = self.ticker.take() {
            _ = ticker.join();
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtime")
    }
}

/// An engine for these rules, here or in a process that only compiles.
pub(super) fn engine(rules: EngineRules) -> anyhow::Result<Engine> {
    Engine::new(&config(rules)).map_err(|error| anyhow::anyhow!("no WebAssembly engine: {error:#}"))
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    imports::add_to_linker(&mut linker)?;
    metrics::add_to_linker(&mut linker)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// Features of WebAssembly that are switched off: no toolchain of ours emits them, and each widens what hostile code can
/// reach. Advisories of the last two years were about threads and shared memory (unsound), memory64, the garbage
/// collector (heap corruption) and exceptions that come with it; the asynchronous component model is off by its own
/// switch below. Compiling is Cranelift's alone: Winch, which is not built in, had four escapes in one month.
const OFF: [WasmFeatures; 13] = [
    WasmFeatures::THREADS,
    WasmFeatures::SHARED_EVERYTHING_THREADS,
    WasmFeatures::MEMORY64,
    WasmFeatures::MULTI_MEMORY,
    WasmFeatures::RELAXED_SIMD,
    WasmFeatures::CUSTOM_PAGE_SIZES,
    WasmFeatures::WIDE_ARITHMETIC,
    WasmFeatures::STACK_SWITCHING,
    WasmFeatures::FUNCTION_REFERENCES,
    WasmFeatures::GC,
    WasmFeatures::EXCEPTIONS,
    WasmFeatures::LEGACY_EXCEPTIONS,
    WasmFeatures::MEMORY_CONTROL,
];

/// The compiler and its code know 64-bit machines only; what a guest may do was thought through for these.
const _: () = assert!(cfg!(target_pointer_width = "64"), "sluicebox runs on 64-bit machines");

fn config(rules: EngineRules) -> Config {
    let mut config = Config::new();
    config
        // Costs 0.35 µs a call and is of use to the async component model only.
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true)
        .max_wasm_stack(rules.stack)
        .async_stack_size(rules.stack + HOST_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(BACKTRACE_FRAMES.try_into().ok())
        .cranelift_nan_canonicalization(rules.deterministic)
        .shared_memory(false);
    for feature in OFF {
        config.wasm_features(feature, false);
    }
    config
}

/// The epoch ticker. It ticks while guests run, seldom where they are quick, and sleeps when none ran for a second, so that an
/// idle host does not wake up hundreds of times a second for nothing.
///
/// Guests report themselves by [`Pulse::touch`] whenever they are entered or resumed, and at every tick they live
/// through. A report costs one read of a shared flag unless it is the first since the last tick. No report is missed:
/// a guest that runs is reported at least once a tick, and the ticker sleeps only after [`QUIET`] without one.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// A guest ran since the last tick. Set by guests' threads, cleared by the ticker.
    active: AtomicBool,
    /// A call lived through a tick. Set and cleared likewise.
    long: AtomicBool,
    /// The ticker ticks seldom. Written by it alone.
    easy: AtomicBool,
    /// The ticker sleeps (or is about to). Set by the ticker, cleared by whoever wakes it.
    parked: AtomicBool,
    beats: Mutex<Beats>,
    wake: Condvar,
}

#[derive(Default)]
struct Beats {
    /// True ends the ticker.
    stop: bool,
    /// Whose epochs it advances.
    engines: Vec<EngineWeak>,
}

impl std::fmt::Debug for Beats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beats").field("stop", &self.stop).field("engines", &self.engines.len()).finish()
    }
}

impl Pulse {
    /// A guest is about to run, or runs.
    pub(super) fn touch(&self) {
        if !self.active.load(Ordering::Relaxed) {
            self.active.store(true, Ordering::SeqCst);
            if self.parked.load(Ordering::SeqCst) {
                self.unpark();
            }
        }
    }

    /// A guest was running when a tick came, and for longer than a moment.
    pub(super) fn lived(&self) {
        self.long.store(true, Ordering::Relaxed);
    }

    #[cold]
    fn unpark(&self) {
        let _beats = self.beats();
        self.parked.store(false, Ordering::SeqCst);
        self.wake.notify_all();
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, engine: EngineWeak) {
        self.beats().engines.push(engine);
    }

    fn stop(&self) {
        self.beats().stop = true;
        self.wake.notify_all();
    }

    fn run(&self) {
        let (mut quiet, mut short) = (Duration::ZERO, 0);
        let mut beats = self.beats();
        while !beats.stop {
            if quiet < QUIET {
                let easy = short >= EASY_AFTER;
                self.easy.store(easy, Ordering::Relaxed);
                let tick = if easy { EASY_TICK } else { TICK };
                (beats, _) = self.wake.wait_timeout(beats, tick).unwrap_or_else(PoisonError::into_inner);
                // What this very tick finds is seen at the next one.
                short = if self.long.swap(false, Ordering::Relaxed) { 0 } else { short.saturating_add(1) };
                beats.engines.iter().filter_map(EngineWeak::upgrade).for_each(|engine| engine.increment_epoch());
                quiet = if self.active.swap(false, Ordering::SeqCst) { Duration::ZERO } else { quiet + tick };
                continue;
            }
            // Announce first, look again after: a guest that reports in between sees the announcement.
            self.parked.store(true, Ordering::SeqCst);
            if !self.active.swap(false, Ordering::SeqCst) {
                while !beats.stop && self.parked.load(Ordering::SeqCst) {
                    beats = self.wake.wait(beats).unwrap_or_else(PoisonError::into_inner);
                }
            }
            self.parked.store(false, Ordering::SeqCst);
            quiet = Duration::ZERO;
        }
    }

    #[cfg(test)]
    fn is_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }

    #[cfg(test)]
    fn is_easy(&self) -> bool {
        self.easy.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the ticker costs nothing when no guest runs, and is back when one does. Method: watch the flag that it
    /// announces its sleep with; wake it; watch it go.
    #[test]
    fn the_ticker_sleeps_when_nothing_runs_and_wakes_for_the_first_guest() {
        let runtime = Runtime::new(Compiler::this_program(), None).expect("an engine");
        let until = |parked: bool| {
            while runtime.pulse.is_parked() != parked {
                std::thread::yield_now();
            }
        };
        until(true);
        runtime.pulse.touch();
        until(false);
        until(true);
    }

    /// Goal: quick calls cost few ticks, and one that takes long gets its turns at once. Method: as above.
    #[test]
    fn the_ticker_takes_it_easy_until_a_call_takes_long() {
        let runtime = Runtime::new(Compiler::this_program(), None).expect("an engine");
        let until = |easy: bool, beat: fn(&Pulse)| {
            while runtime.pulse.is_easy() != easy {
                beat(&runtime.pulse);
                std::thread::yield_now();
            }
        };
        until(true, Pulse::touch);
        until(false, Pulse::lived);
        until(true, Pulse::touch);
    }
}
