//! The log: on stderr, text on a terminal, JSON elsewhere unless it is said otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{Global, LogForm};

/// Starts the log. `SLUICEBOX_LOG` sets levels by target (as `info,librdkafka=debug`) and wins over `-v` and `-q`.
pub fn start(global: &Global, colour: bool, usual: &str) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error,handler=error",
        (_, 0) => usual,
        (_, 1) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SLUICEBOX_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let json = match global.log_format {
        LogForm::Json => true,
        LogForm::Text => false,
        LogForm::Auto => !io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        registry.with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()
    } else {
        registry
            .with(tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false).with_writer(io::stderr))
            .try_init()
    };
    if let Err(error) = started {
        eprintln!("warning: the log could not be started: {error}");
    }
}
