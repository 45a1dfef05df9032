//! What the host provides: log lines and the names that the pipeline declares. The one place that calls out; on native
//! targets a stand-in that [`testing`](crate::testing) sets up and reads.

/// A declared output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// How many partitions its topic had when the host last looked; at least 1.
    pub partitions: u32,
}

/// The declared outputs, in the order of the configuration.
#[must_use]
pub fn outputs() -> Vec<Output> {
    host::outputs()
}

/// The names of the declared batchers.
#[must_use]
pub fn batchers() -> Vec<String> {
    host::batchers()
}

#[cfg(target_arch = "wasm32")]
pub(crate) mod host {
    use super::Output;
    use crate::bindings::lifecycle::sluicebox::plugin;
    use crate::log::Level;

    fn level(level: Level) -> plugin::log::Level {
        match level {
            Level::Trace => plugin::log::Level::Trace,
            Level::Debug => plugin::log::Level::Debug,
            Level::Info => plugin::log::Level::Info,
            Level::Warn => plugin::log::Level::Warn,
            Level::Error => plugin::log::Level::Error,
        }
    }

    pub(crate) fn log(at: Level, message: &str) {
        plugin::log::log(level(at), message);
    }

    pub(crate) fn log_enabled(at: Level) -> bool {
        plugin::log::enabled(level(at))
    }

    pub(crate) fn outputs() -> Vec<Output> {
        plugin::outputs::outputs().into_iter().map(|o| Output { name: o.name, partitions: o.partitions }).collect()
    }

    pub(crate) fn batchers() -> Vec<String> {
        plugin::outputs::batchers()
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod host {
    use std::cell::RefCell;

    use super::Output;
    use crate::log::Level;

    #[derive(Default)]
    pub(crate) struct StandIn {
        pub(crate) log: Vec<(Level, String)>,
        pub(crate) outputs: Vec<Output>,
        pub(crate) batchers: Vec<String>,
    }

    thread_local! {
        pub(crate) static STAND_IN: RefCell<StandIn> = RefCell::default();
    }

    pub(crate) fn log(level: Level, message: &str) {
        STAND_IN.with_borrow_mut(|host| host.log.push((level, message.to_owned())));
    }

    pub(crate) fn log_enabled(_: Level) -> bool {
        true
    }

    pub(crate) fn outputs() -> Vec<Output> {
        STAND_IN.with_borrow(|host| host.outputs.clone())
    }

    pub(crate) fn batchers() -> Vec<String> {
        STAND_IN.with_borrow(|host| host.batchers.clone())
    }
}
