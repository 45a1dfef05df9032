//! A simulation of delivery: the real loop, lanes, commits and rules over a scripted Kafka port, scripted handlers and a clock
//! that is a number. One thread and one seed; the same seed is the same story, event by event. Rules are checked at every step
//! ([`ledger`]); then everything heals, and everything has to come to its end.
//!
//! A seed that fails is named with the command that runs it again. More seeds, or one alone, with its story:
//!
//! ```text
//! SLUICEBOX_SIM_SEEDS=10000 cargo test --release --lib simulation_breaks -- --nocapture
//! SLUICEBOX_SIM_SEED=17 cargo test --release --lib simulation_breaks -- --nocapture
//! ```

pub(crate) mod bugs;
mod chance;
mod client;
mod effects;
mod group;
mod handlers;
mod hosts;
mod knobs;
mod ledger;
mod producer;
mod script;
mod source;
mod story;
#[cfg(test)]
mod tests;
mod world;
