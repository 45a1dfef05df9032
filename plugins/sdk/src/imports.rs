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
    use crate::metrics::Kind;

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

    pub(crate) fn metric_series(kind: Kind, name: &str, labels: &[(&str, &str)]) -> Result<u32, String> {
        let kind = match kind {
            Kind::Counter => plugin::metrics::Kind::Counter,
            Kind::Gauge => plugin::metrics::Kind::Gauge,
            Kind::Histogram(bounds) => plugin::metrics::Kind::Histogram(bounds.to_vec()),
        };
        let labels: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        plugin::metrics::series(&kind, name, &labels)
    }

    pub(crate) fn metric_add(number: u32, value: u64) {
        plugin::metrics::add(number, value);
    }

    pub(crate) fn metric_set(number: u32, value: f64) {
        plugin::metrics::set(number, value);
    }

    pub(crate) fn metric_observe(number: u32, value: f64) {
        plugin::metrics::observe(number, value);
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
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};

    use super::Output;
    use crate::log::Level;
    use crate::metrics::Kind;

    /// Series by their numbers. Of all threads, because a `static` keeps its number.
    pub(crate) static SERIES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[derive(Default)]
    pub(crate) struct StandIn {
        /// What was added, set and observed, by the series' number.
        pub(crate) metrics: BTreeMap<u32, Vec<f64>>,
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

    pub(crate) fn metric_series(_: Kind, name: &str, labels: &[(&str, &str)]) -> Result<u32, String> {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let series = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) };
        let mut names = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
        let number = names.iter().position(|known| *known == series).unwrap_or_else(|| {
            names.push(series);
            names.len() - 1
        });
        Ok(u32::try_from(number).expect("a test has fewer series"))
    }

    #[expect(clippy::cast_precision_loss, reason = "tests count to less than 2^52")]
    pub(crate) fn metric_add(number: u32, value: u64) {
        metric_set(number, value as f64);
    }

    pub(crate) fn metric_set(number: u32, value: f64) {
        STAND_IN.with_borrow_mut(|host| host.metrics.entry(number).or_default().push(value));
    }

    pub(crate) fn metric_observe(number: u32, value: f64) {
        metric_set(number, value);
    }

    pub(crate) fn outputs() -> Vec<Output> {
        STAND_IN.with_borrow(|host| host.outputs.clone())
    }

    pub(crate) fn batchers() -> Vec<String> {
        STAND_IN.with_borrow(|host| host.batchers.clone())
    }
}
