//! Once per process: the engine, its epoch ticker and the linker. Knows what guests may do at all; knows no component.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak, OptLevel, WasmBacktraceDetails, WasmFeatures};

use super::instance::State;
use super::{imports, wasi};

/// How often running guests are looked at: the unit of deadlines and the longest a lane keeps its thread.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// Ticks without any guest running after which the ticker sleeps. Long enough that light, steady load does not pay a
/// wake-up per call.
const QUIET_TICKS: u32 = 100;
/// Stack of a guest. The same for all: it is part of the compiled code's contract with the engine.
pub(super) const WASM_STACK: usize = 512 << 10;
/// Stack of the fibre a call runs on: the guest's and what host functions need on top of it. Virtual until touched.
const FIBRE_STACK: usize = WASM_STACK + (1 << 20);
/// Frames kept in a backtrace. More are shown to nobody, but endless recursion is recognised by them.
pub(super) const BACKTRACE_FRAMES: usize = 64;

/// What all handlers of the process share.
pub struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    pulse: Arc<Pulse>,
    ticker: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Builds the engine and starts its ticker thread.
    ///
    /// # Errors
    /// When this machine cannot run compiled WebAssembly, or a thread cannot be started.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        let engine = Engine::new(&config()).map_err(|error| anyhow::anyhow!("no WebAssembly engine: {error:#}"))?;
        let linker = linker(&engine).map_err(|error| anyhow::anyhow!("host functions do not link: {error:#}"))?;
        let pulse = Arc::new(Pulse::default());
        let (weak, beat) = (engine.weak(), Arc::clone(&pulse));
        let ticker = std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || beat.run(&weak))?;
        Ok(Arc::new(Self { engine, linker, pulse, ticker: Some(ticker) }))
    }

    pub(super) const fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) const fn linker(&self) -> &Linker<State> {
        &self.linker
    }

    pub(super) const fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.pulse.stop();
        if let Some(ticker) = self.ticker.take() {
            // A panic of the ticker would have been seen as deadlines that never come; nothing to add here.
            drop(ticker.join());
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Runtime")
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    imports::add_to_linker(&mut linker)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

fn config() -> Config {
    let mut config = Config::new();
    config
        // Costs 0.35 µs a call and is of use to the async component model only.
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBRE_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(BACKTRACE_FRAMES.try_into().ok())
        .shared_memory(false);
    // Everything that no toolchain of ours emits, or that widens what hostile code can reach: refused at load.
    for feature in [
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
    ] {
        config.wasm_features(feature, false);
    }
    config
}

/// The epoch ticker. It ticks while guests run and sleeps when none did for a second, so that an idle host does not
/// wake up a hundred times a second for nothing.
///
/// Guests report themselves by [`Pulse::touch`] whenever they are entered or resumed, and at every tick they live
/// through. A report costs one read of a shared flag unless it is the first since the last tick. No report is missed:
/// a guest that runs is reported at least once a tick, and the ticker sleeps only after [`QUIET_TICKS`] without one.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// A guest ran since the last tick. Set by guests' threads, cleared by the ticker.
    active: AtomicBool,
    /// The ticker sleeps (or is about to). Set by the ticker, cleared by whoever wakes it.
    parked: AtomicBool,
    /// True ends the ticker.
    stop: Mutex<bool>,
    wake: Condvar,
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

    #[cold]
    fn unpark(&self) {
        let _stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        self.parked.store(false, Ordering::SeqCst);
        self.wake.notify_all();
    }

    fn stop(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    fn run(&self, engine: &EngineWeak) {
        let mut quiet = 0;
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stop {
            if quiet < QUIET_TICKS {
                (stop, _) = self.wake.wait_timeout(stop, TICK).unwrap_or_else(PoisonError::into_inner);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                quiet = if self.active.swap(false, Ordering::SeqCst) { 0 } else { quiet + 1 };
                continue;
            }
            // Announce first, look again after: a guest that reports in between sees the announcement.
            self.parked.store(true, Ordering::SeqCst);
            if !self.active.swap(false, Ordering::SeqCst) {
                while !*stop && self.parked.load(Ordering::SeqCst) {
                    stop = self.wake.wait(stop).unwrap_or_else(PoisonError::into_inner);
                }
            }
            self.parked.store(false, Ordering::SeqCst);
            quiet = 0;
        }
    }

    #[cfg(test)]
    fn is_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the ticker costs nothing when no guest runs, and is back when one does. Method: watch the flag that it
    /// announces its sleep with; wake it; watch it go.
    #[test]
    fn the_ticker_sleeps_when_nothing_runs_and_wakes_for_the_first_guest() {
        let runtime = Runtime::new().expect("an engine");
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
}
