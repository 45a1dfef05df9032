//! The sandbox: loads components, instantiates them, calls them under limits. The only place that names wasmtime; no
//! type of it leaves this module.
//!
//! By lifetime:
//! - per process: [`runtime`] (engine, epoch ticker, linker) with what it links: [`imports`] (log, settings, outputs), [`metrics`],
//!   [`wasi`] (the harmless part of WASI) and, where it was granted, [`http`];
//! - per component: [`version`] (load, checks against the contract in [`contract`], digest), [`grants`] (what to do about an
//!   import that is not granted), [`compile`] (in a child process), [`cache`] (of what was compiled);
//! - per store: [`instance`] (start, calls) with [`entry`] (what is run in it), [`typed`] and [`verdicts`] (the typed form
//!   behind the frame interface), [`limits`] (memory), [`meter`] (running time), [`turns`] (when it runs), [`recycle`] (when it
//!   is old), [`output`] (log lines of one handler instance), [`replay`] (deterministic ones);
//! - for people: [`fault`] (what went wrong in a call, by class) and [`place`] (which messages it was about).
//!
//! Invariants: what is not linked in `runtime` cannot be reached by a guest; every guest entry happens with a running
//! time, a wall clock, a memory limit and an answer limit armed; after a fault an instance is never entered again.

mod cache;
mod compile;
mod contract;
mod entry;
mod fault;
mod grants;
mod http;
mod imports;
mod instance;
mod limits;
mod meter;
mod metrics;
mod output;
mod place;
mod recycle;
mod replay;
mod runtime;
mod turns;
mod typed;
mod verdicts;
mod version;
mod wasi;

pub use cache::{Cache, CacheError};
pub use compile::{CompileJob, Compiler, SUBCOMMAND as COMPILE_SUBCOMMAND};
pub use fault::{Fault, FaultClass};
pub use imports::OutputInfo;
pub use instance::{Instance, InstanceConfig};
pub use limits::HandlerLimits;
pub use output::{HandlerLog, LineSource, LogLevel, TailLine};
pub use place::Place;
pub use recycle::Recycle;
pub use runtime::Runtime;
pub use version::{Code, LoadError, LoadRules, Version};
