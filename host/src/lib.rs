//! The host as a library, so that tests and benchmarks reach its parts. `main.rs` is the program.

#[macro_use]
mod marks;

pub mod admin;
pub mod app;
pub mod cli;
mod components;
pub mod config;
pub mod delivery;
pub mod dev;
mod handler_log;
pub mod handler_metrics;
pub mod handler_usage;
pub mod kafka;
pub mod live;
pub mod outbound;
pub mod pipeline;
pub mod plugin;
mod quota;
pub mod record_log;
pub mod samples;
pub mod telemetry;
mod threads;
pub mod wake;
