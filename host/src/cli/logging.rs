//! The log: on stderr, text on a terminal, JSON elsewhere unless it is said otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{Global, LogForm};

/// Who reads the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever runs a host: everything, with its time; JSON where it is collected by a program.
    Operator,
    /// Whoever writes a handler: its own lines, and what went wrong; text, because it stands among other text.
    Developer,
}

/// Starts the log. `SLUICEBOX_LOG` sets levels by target (as `info,librdkafka=debug`) and wins over `-v` and `-q`.
pub fn start(global: &Global, colour: bool, audience: Audience) {
    let level = match (global.quiet, global.verbose, audience) {
        (true, ..) => "error,handler=error",
        (_, 0, Audience::Operator) => "info",
        (_, 0, Audience::Developer) => "warn,handler=info",
        (_, 1, Audience::Developer) => "info",
        (_, 1, Audience::Operator) | (_, 2, Audience::Developer) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SLUICEBOX_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let json = match (global.log_format, audience) {
        (LogForm::Json, _) => true,
        (LogForm::Text, _) | (LogForm::Auto, Audience::Developer) => false,
        (LogForm::Auto, Audience::Operator) => !io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let text = || tracing_subscriber::fmt::layer().with_ansi(colour).with_target(false).with_writer(io::stderr);
    let started = if json {
        registry.with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()
    } else if audience == Audience::Developer {
        registry.with(text().without_time()).try_init()
    } else {
        registry.with(text()).try_init()
    };
    if let Err(error) = started {
        eprintln!("warning: the log could not be started: {error}");
    }
}
