//! Figures of the handler's own, on the host's `/metrics` page with the pipeline's name: what is counted here is the sum
//! over all instances of the pipeline.
//!
//! ```
//! use sluicebox_sdk::metrics::{Counter, Histogram};
//!
//! static ORDERS: Counter = Counter::new("orders");
//! static AMOUNT: Histogram = Histogram::new("amount", &[10.0, 100.0, 1000.0]);
//!
//! # fn handle(amount: f64) {
//! ORDERS.inc();
//! AMOUNT.observe(amount);
//! # }
//! ```
//!
//! Names are a-z, 0-9 and single underscores. A figure that the host does not take (a name that breaks the rule, too many
//! series) is said once in the log, and counts nothing from then on: figures never fail a message.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::imports::host;

/// What a series is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// A series that is asked for when it is first used.
#[derive(Debug)]
struct Series {
    kind: Kind,
    name: &'static str,
    /// 0: not asked for; 1: refused; else its number and 2.
    number: AtomicU64,
}

impl Series {
    const fn new(kind: Kind, name: &'static str) -> Self {
        Self { kind, name, number: AtomicU64::new(0) }
    }

    fn with_labels(kind: Kind, name: &'static str, labels: &[(&str, &str)]) -> Self {
        let series = Self::new(kind, name);
        series.ask(labels);
        series
    }

    fn ask(&self, labels: &[(&str, &str)]) -> u64 {
        let number = match host::metric_series(self.kind, self.name, labels) {
            Ok(number) => u64::from(number) + 2,
            Err(reason) => {
                crate::log::warn!("no metric `{}`: {reason}", self.name);
                1
            }
        };
        self.number.store(number, Ordering::Relaxed);
        number
    }

    fn number(&self) -> Option<u32> {
        let number = match self.number.load(Ordering::Relaxed) {
            0 => self.ask(&[]),
            number => number,
        };
        u32::try_from(number.checked_sub(2)?).ok()
    }
}

/// Only grows. `NAME` is shown as `handler_counter_NAME_total`.
#[derive(Debug)]
pub struct Counter(Series);

impl Counter {
    /// Without labels; for a `static`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Series::new(Kind::Counter, name))
    }

    /// With labels; make it once and keep it.
    #[must_use]
    pub fn with_labels(name: &'static str, labels: &[(&str, &str)]) -> Self {
        Self(Series::with_labels(Kind::Counter, name, labels))
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds so many.
    pub fn add(&self, value: u64) {
        if let Some(number) = self.0.number() {
            host::metric_add(number, value);
        }
    }
}

/// Goes up and down; of all instances, what was set last is shown. `NAME` is shown as `handler_gauge_NAME`.
#[derive(Debug)]
pub struct Gauge(Series);

impl Gauge {
    /// Without labels; for a `static`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Series::new(Kind::Gauge, name))
    }

    /// With labels; make it once and keep it.
    #[must_use]
    pub fn with_labels(name: &'static str, labels: &[(&str, &str)]) -> Self {
        Self(Series::with_labels(Kind::Gauge, name, labels))
    }

    /// Sets it.
    pub fn set(&self, value: f64) {
        if let Some(number) = self.0.number() {
            host::metric_set(number, value);
        }
    }
}

/// Counts values by size. `NAME` is shown as `handler_histogram_NAME`.
#[derive(Debug)]
pub struct Histogram(Series);

impl Histogram {
    /// Without labels; for a `static`. `bounds` are the upper bounds of its buckets, ascending; empty = 0.005 to 10.
    #[must_use]
    pub const fn new(name: &'static str, bounds: &'static [f64]) -> Self {
        Self(Series::new(Kind::Histogram(bounds), name))
    }

    /// With labels; make it once and keep it.
    #[must_use]
    pub fn with_labels(name: &'static str, bounds: &'static [f64], labels: &[(&str, &str)]) -> Self {
        Self(Series::with_labels(Kind::Histogram(bounds), name, labels))
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        if let Some(number) = self.0.number() {
            host::metric_observe(number, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::take_metrics;

    static ORDERS: Counter = Counter::new("orders");

    #[test]
    fn figures_reach_the_host_by_name() {
        ORDERS.inc();
        ORDERS.add(2);
        let queue = Gauge::with_labels("queue", &[("kind", "a")]);
        queue.set(1.0);
        queue.set(2.5);
        Histogram::new("price", &[1.0]).observe(7.0);
        Histogram::new("price", &[1.0]).observe(8.0);
        let expected = [
            ("orders".to_owned(), vec![1.0, 2.0]),
            ("price".to_owned(), vec![7.0, 8.0]),
            ("queue{kind=a}".to_owned(), vec![1.0, 2.5]),
        ];
        assert_eq!(take_metrics(), expected);
    }
}
