//! The host as a library, so that tests and benchmarks reach its parts. `main.rs` is the program.

pub mod plugin;
