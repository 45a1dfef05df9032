//! Lines for the operator, tagged by the host with pipeline, version and topic-partition.
//!
//! The macros put a line together only when somebody would see it. What a handler prints goes the same way: standard
//! output as info, standard error (and a panic's text) as error.

use crate::imports::host;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// False when nobody would see a line of this level.
#[must_use]
pub fn enabled(level: Level) -> bool {
    host::log_enabled(level)
}

/// One line; longer than 4 KiB is cut, control characters are escaped.
pub fn log(level: Level, message: &str) {
    host::log(level, message);
}

#[doc(hidden)]
pub fn log_args(level: Level, message: std::fmt::Arguments<'_>) {
    match message.as_str() {
        Some(message) => log(level, message),
        None => log(level, &message.to_string()),
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($message:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::log_args($crate::log::Level::$level, ::core::format_args!($($message)+));
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($message:tt)+) => { $crate::__log!(Error, $($message)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($message:tt)+) => { $crate::__log!(Warn, $($message)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($message:tt)+) => { $crate::__log!(Info, $($message)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($message:tt)+) => { $crate::__log!(Debug, $($message)+) }; }
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace { ($($message:tt)+) => { $crate::__log!(Trace, $($message)+) }; }

pub use crate::{__log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace};
// `warn` is also a built-in attribute; under this name it is the macro.
pub use crate::__log_warn as warn;
