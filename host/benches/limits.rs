//! What the limits cost: the crossing of records into a guest as the host has it – running time by epochs, wall clock, memory,
//! answers, handles, turns with other pipelines, measuring – and on the engine alone, without any of that. Both in this
//! process, taking turns.
//!
//! `cargo bench --bench limits`. How much of a whole record that is: compare the difference with the CPU time per record of
//! `side_by_side`.

#[path = "shared/crossing.rs"]
mod crossing;
#[path = "../tests/support/mod.rs"]
mod support;

use crossing::{Crossing, Guest};
use sluicebox_frames::Frame;
use wasmtime::component::{Component, ComponentType, Func, Lift, Linker, Lower, ResourceTable, TypedFunc};
use wasmtime::{Config, Engine, OptLevel, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

const ROUNDS: usize = 41;
const BURSTS: usize = 500;

fn main() {
    let (mut limited, mut bare) = (Crossing::new(), Crossing::with(Bare::new()));
    // Warms caches, and the clock of the processor.
    limited.nanoseconds_per_record(2 * BURSTS);
    bare.nanoseconds_per_record(2 * BURSTS);
    let mut pairs: Vec<[f64; 2]> = (0..ROUNDS)
        .map(|round| {
            let mut with = || limited.nanoseconds_per_record(BURSTS);
            let mut without = || bare.nanoseconds_per_record(BURSTS);
            // Who begins would be the one to lose, else.
            if round % 2 == 0 {
                let with = with();
                [with, without()]
            } else {
                let without = without();
                [with(), without]
            }
        })
        .collect();
    let mut median = |of: fn(&[f64; 2]) -> f64| {
        pairs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&pairs[ROUNDS / 2])
    };
    let (with, without) = (median(|pair| pair[0]), median(|pair| pair[1]));
    let (ratio, more) = (median(|pair| pair[1] / pair[0]), median(|pair| pair[0] - pair[1]));
    println!("ns of CPU time per record, medians of {ROUNDS} pairs of {BURSTS} bursts of {}:", crossing::BURST);
    println!("with all limits {with:.1}, without any {without:.1}: {more:+.1} by pair, {ratio:.3} of the speed");
}

/// The guest `uppercase` on the engine alone.
struct Bare {
    thread: tokio::runtime::Runtime,
    store: Store<State>,
    handle: Func,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

#[derive(Clone, Copy, ComponentType, Lower)]
#[component(record)]
struct FrameRef<'a> {
    index: &'a [u8],
    payload: &'a [u8],
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct FrameOut {
    index: Vec<u8>,
    payload: Vec<u8>,
}

impl Bare {
    fn new() -> Self {
        let mut config = Config::new();
        config.concurrency_support(false).cranelift_opt_level(OptLevel::Speed);
        let engine = Engine::new(&config).expect("an engine");
        let component = Component::from_file(&engine, support::guests::guest("uppercase")).expect("the guest loads");
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI links");
        // It calls none of the host's own.
        linker.define_unknown_imports_as_traps(&component).expect("the rest links");
        let mut store = Store::new(&engine, State { wasi: WasiCtx::default(), table: ResourceTable::new() });
        // None: as much as there is.
        store.set_hostcall_fuel(usize::MAX);
        let thread = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let handle = thread.block_on(async {
            let instance = linker.instantiate_async(&mut store, &component).await.expect("the guest starts");
            let mut find = |interface: &str, name: &str| {
                let interface = format!("sluicebox:plugin/{interface}@0.1.0");
                let (_, interface) = instance.get_export(&mut store, None, &interface).expect("an interface");
                let (_, function) = instance.get_export(&mut store, Some(&interface), name).expect("a function");
                instance.get_func(&mut store, function).expect("a function")
            };
            let (init, handle) = (find("lifecycle", "init"), find("message-frames", "handle-messages"));
            let init = init.typed::<(&str,), (Result<(), String>,)>(&store).expect("init takes settings");
            init.call_async(&mut store, ("{}",)).await.expect("an answer").0.expect("it begins");
            let checked = handle.typed::<(FrameRef<'_>,), (FrameOut,)>(&store);
            checked.expect("it takes a frame and gives one");
            handle
        });
        Self { thread, store, handle }
    }
}

impl Guest for Bare {
    fn answer(&mut self, burst: &Frame) -> Frame {
        let params = (FrameRef { index: &burst.index, payload: &burst.payload },);
        // SAFETY: looked at when it was found.
        let handle: TypedFunc<_, (FrameOut,)> = unsafe { TypedFunc::new_unchecked(self.handle) };
        let called = self.thread.block_on(handle.call_async(&mut self.store, params));
        let (FrameOut { index, payload },) = called.expect("the guest answers");
        Frame { index, payload }
    }
}
