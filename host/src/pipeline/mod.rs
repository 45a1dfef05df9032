//! A pipeline: from its group's partitions through lanes to its outputs, and back as commits.
//!
//! - [`lane`]: the ordered path of one partition, a state machine without any edge.
//! - [`sink`]: what leaves a lane.
//! - [`outlets`], [`dead_letter`]: where that goes.
//! - [`handlers`]: threads that call handler instances; `caller`: the instance of one lane.
//! - [`port`]: what the loop needs of Kafka, of handlers and of time, as traits; `wiring`: the real ones.
//! - `run`: the loop that puts them together, on one thread per pipeline; `leave`: giving partitions back.
//! - `commits`, `figures`, `rest`: the parts of the loop that commit, that count, and that say when it has nothing to do.
//! - [`supervise`]: starts the loop, says what it waits for, starts it again; [`stop`]: asks it to end; `watch`: asks
//!   whether a cluster is back.
//! - [`control`]: telling it which version to run, and to pause; [`revision`]: what lanes run; `swap`: the part of the loop
//!   that brings lanes from one revision to another.
//! - [`status`]: what the outside sees.
//! - [`budget`]: bytes in flight of the process.

pub mod budget;
mod caller;
mod commits;
pub mod control;
pub mod dead_letter;
mod figures;
mod fill;
mod growth;
pub mod handlers;
pub mod lane;
mod leave;
mod linger;
mod names;
mod outlets;
mod outside;
mod pace;
mod pause;
mod place;
pub mod port;
mod reread;
mod rest;
pub mod revision;
mod run;
#[cfg(test)]
pub(crate) mod sim;
pub mod sink;
mod spare;
mod standstill;
pub mod status;
pub mod stop;
pub mod supervise;
mod survey;
mod swap;
mod trouble;
mod watch;
mod wiring;
