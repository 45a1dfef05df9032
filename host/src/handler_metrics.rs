//! Figures of a handler's own: counters, gauges and histograms that it names (`wit/metrics.wit`). Kept per pipeline, so that
//! they outlive instances and are sums over lanes; bounded in names, labels and series. Written from handler threads, read
//! by whoever asks. Knows neither guests nor a text format.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longest name of a metric or a label, bytes.
const NAME: usize = 64;
/// Longest value of a label, bytes.
const VALUE: usize = 128;
/// Labels of one series.
const LABELS: usize = 8;
/// Buckets of a histogram, besides the one for what is above all bounds.
const BOUNDS: usize = 30;
/// The bounds of a histogram that names none: those of Prometheus' clients, for seconds.
const DEFAULT_BOUNDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Labels that are the host's, or the text format's.
const RESERVED: [&str; 3] = ["pipeline", "le", "quantile"];
/// Endings that the text format gives to the series of a metric.
const ENDINGS: [&str; 6] = ["_total", "_created", "_bucket", "_sum", "_count", "_info"];

/// What a handler asks for. A histogram without bounds gets those that most use for seconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NewMetric {
    Counter,
    Gauge,
    Histogram(Vec<f64>),
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// Names and values of a series' labels, by name.
pub type Labels = Vec<(String, String)>;

/// The series of one metric.
pub type MetricSeries = Vec<(Labels, MetricValue)>;

/// A value as it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// A counter's.
    Counter(u64),
    /// A gauge's.
    Gauge(f64),
    /// A histogram's: the upper bound of each bucket with what fell into it alone, the last without bound; and the sum.
    Histogram(Vec<(f64, u64)>, f64),
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct HandlerMetrics {
    families: Mutex<Families>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Families {
    by_name: BTreeMap<(MetricKind, String), BTreeMap<Labels, Arc<Series>>>,
    /// Series as a scrape counts them: a histogram has one per bucket.
    lines: u64,
}

/// One series. Lanes on several threads write to it; values are independent of each other.
#[derive(Debug)]
pub(crate) enum Series {
    Counter(AtomicU64),
    /// The bits of the number.
    Gauge(AtomicU64),
    Histogram {
        bounds: Vec<f64>,
        /// One more than bounds.
        counts: Vec<AtomicU64>,
        /// The bits of the number.
        sum: AtomicU64,
    },
}

impl Series {
    fn new(kind: &NewMetric) -> Self {
        let zero = || AtomicU64::new(0);
        match kind {
            NewMetric::Counter => Self::Counter(zero()),
            NewMetric::Gauge => Self::Gauge(zero()),
            NewMetric::Histogram(bounds) => {
                let bounds = if bounds.is_empty() { DEFAULT_BOUNDS.to_vec() } else { bounds.clone() };
                Self::Histogram { counts: (0..=bounds.len()).map(|_| zero()).collect(), bounds, sum: zero() }
            }
        }
    }

    fn lines(&self) -> u64 {
        match self {
            Self::Counter(_) | Self::Gauge(_) => 1,
            Self::Histogram { bounds, .. } => bounds.len() as u64 + 3,
        }
    }

    fn same_bounds(&self, kind: &NewMetric) -> bool {
        match (self, Self::new(kind)) {
            (Self::Histogram { bounds, .. }, Self::Histogram { bounds: asked, .. }) => *bounds == asked,
            _ => true,
        }
    }

    /// Adds to a counter. False when it is none.
    pub(crate) fn add(&self, value: u64) -> bool {
        let Self::Counter(count) = self else { return false };
        // Wraps around after 2^64, as every counter may.
        count.fetch_add(value, Ordering::Relaxed);
        true
    }

    /// Sets a gauge. False when it is none.
    pub(crate) fn set(&self, value: f64) -> bool {
        let Self::Gauge(bits) = self else { return false };
        bits.store(value.to_bits(), Ordering::Relaxed);
        true
    }

    /// Adds a value to a histogram. False when it is none.
    pub(crate) fn observe(&self, value: f64) -> bool {
        let Self::Histogram { bounds, counts, sum } = self else { return false };
        // What is no number is above all bounds, and would make the sum none.
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        counts[bucket].fetch_add(1, Ordering::Relaxed);
        if value.is_finite() {
            let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
            // Never refused: `add` always gives something.
            _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
        true
    }

    fn value(&self) -> MetricValue {
        match self {
            Self::Counter(count) => MetricValue::Counter(count.load(Ordering::Relaxed)),
            Self::Gauge(bits) => MetricValue::Gauge(f64::from_bits(bits.load(Ordering::Relaxed))),
            Self::Histogram { bounds, counts, sum } => {
                let bounds = bounds.iter().copied().chain([f64::INFINITY]);
                let buckets = bounds.zip(counts).map(|(bound, count)| (bound, count.load(Ordering::Relaxed)));
                MetricValue::Histogram(buckets.collect(), f64::from_bits(sum.load(Ordering::Relaxed)))
            }
        }
    }
}

impl HandlerMetrics {
    /// All metrics with their series, by kind and name.
    #[must_use]
    pub fn all(&self) -> Vec<(MetricKind, String, MetricSeries)> {
        let families = self.families();
        let series = |all: &BTreeMap<Labels, Arc<Series>>| {
            all.iter().map(|(labels, series)| (labels.clone(), series.value())).collect()
        };
        families.by_name.iter().map(|((kind, name), all)| (*kind, name.clone(), series(all))).collect()
    }

    /// Series that were asked for and not given.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn families(&self) -> MutexGuard<'_, Families> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of this kind, name and labels; made if it is not there and there may be one more. What is refused is
    /// counted.
    pub(crate) fn series(
        &self,
        kind: &NewMetric,
        name: &str,
        labels: Labels,
        limit: u64,
    ) -> Result<Arc<Series>, String> {
        let found = self.find(kind, name, labels, limit);
        if found.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    fn find(&self, kind: &NewMetric, name: &str, mut labels: Labels, limit: u64) -> Result<Arc<Series>, String> {
        labels.sort_unstable();
        check_name(name, "metric")?;
        check_labels(&labels)?;
        check_bounds(kind)?;
        let key = match kind {
            NewMetric::Counter => MetricKind::Counter,
            NewMetric::Gauge => MetricKind::Gauge,
            NewMetric::Histogram(_) => MetricKind::Histogram,
        };
        let mut families = self.families();
        let Families { by_name, lines } = &mut *families;
        let family = by_name.get(&(key, name.to_owned()));
        if let Some(any) = family.and_then(|family| family.values().next())
            && !any.same_bounds(kind)
        {
            return Err(format!("the histogram `{name}` has other buckets"));
        }
        if let Some(series) = family.and_then(|family| family.get(&labels)) {
            return Ok(Arc::clone(series));
        }
        let series = Arc::new(Series::new(kind));
        if *lines + series.lines() > limit {
            return Err(format!(
                "the pipeline's handler has {lines} series of metrics, and may have {limit} (a histogram counts one per \
                 bucket and three more; `metric_series` in [handler.limits])"
            ));
        }
        *lines += series.lines();
        by_name.entry((key, name.to_owned())).or_default().insert(labels, Arc::clone(&series));
        Ok(series)
    }
}

fn check_name(name: &str, what: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || !name.bytes().all(legal) || name.len() > NAME || name.contains("__") {
        return Err(format!(
            "`{}` is no name of a {what}: a-z, 0-9 and single _, at most {NAME}, beginning with a letter",
            name.chars().take(NAME).collect::<String>().escape_debug()
        ));
    }
    match ENDINGS.iter().find(|ending| name.ends_with(**ending)) {
        Some(ending) if what == "metric" => Err(format!("`{name}`: the ending `{ending}` is the text format's own")),
        _ => Ok(()),
    }
}

fn check_labels(labels: &Labels) -> Result<(), String> {
    if labels.len() > LABELS {
        return Err(format!("{} labels, the limit is {LABELS}", labels.len()));
    }
    for (at, (name, value)) in labels.iter().enumerate() {
        check_name(name, "label")?;
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("the label `{name}` is the host's own"));
        }
        if labels[..at].iter().any(|(other, _)| other == name) {
            return Err(format!("the label `{name}` twice"));
        }
        if value.len() > VALUE {
            return Err(format!("the value of label `{name}` has {} bytes, the limit is {VALUE}", value.len()));
        }
    }
    Ok(())
}

fn check_bounds(kind: &NewMetric) -> Result<(), String> {
    let NewMetric::Histogram(bounds) = kind else { return Ok(()) };
    if bounds.len() > BOUNDS {
        return Err(format!("{} buckets, the limit is {BOUNDS}", bounds.len()));
    }
    let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || bounds.iter().any(|bound| !bound.is_finite()) {
        return Err("the bounds of buckets have to be numbers that ascend".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_series_per_kind_name_and_labels() {
        let metrics = HandlerMetrics::default();
        let series = |kind: NewMetric, pairs: &[(&str, &str)]| {
            metrics.series(&kind, "orders", labels(pairs), 100).expect("a series")
        };
        let first = series(NewMetric::Counter, &[("a", "1"), ("b", "2")]);
        assert!(Arc::ptr_eq(&first, &series(NewMetric::Counter, &[("b", "2"), ("a", "1")])));
        assert!(!Arc::ptr_eq(&first, &series(NewMetric::Counter, &[("a", "1")])));
        assert!(!Arc::ptr_eq(&first, &series(NewMetric::Gauge, &[("a", "1"), ("b", "2")])));
        let names: Vec<_> = metrics.all().into_iter().map(|(kind, name, all)| (kind, name, all.len())).collect();
        let expected = [(MetricKind::Counter, "orders".to_owned(), 2), (MetricKind::Gauge, "orders".to_owned(), 1)];
        assert_eq!(names, expected);
    }

    #[test]
    fn series_end_at_the_limit() {
        let metrics = HandlerMetrics::default();
        let ask = |kind: NewMetric, name: &str| metrics.series(&kind, name, Vec::new(), 16);
        assert!(ask(NewMetric::Counter, "a").is_ok());
        // Eleven bounds and three more: with the counter, 15 of 16.
        assert!(ask(NewMetric::Histogram(Vec::new()), "h").is_ok());
        assert!(ask(NewMetric::Histogram(vec![1.0]), "i").is_err());
        assert!(ask(NewMetric::Gauge, "b").is_ok());
        let refused = ask(NewMetric::Gauge, "c").expect_err("the seventeenth");
        assert!(refused.contains("has 16 series of metrics, and may have 16"), "{refused}");
        assert!(ask(NewMetric::Gauge, "b").is_ok(), "what is there is given");
    }

    #[test]
    fn values_fall_into_the_first_bucket_that_holds_them() {
        let series = Series::new(&NewMetric::Histogram(vec![1.0, 2.5]));
        for value in [0.5, 1.0, 2.0, 3.0, f64::NAN, f64::INFINITY, -4.0] {
            assert!(series.observe(value));
        }
        let expected = MetricValue::Histogram(vec![(1.0, 3), (2.5, 1), (f64::INFINITY, 3)], 2.5);
        assert_eq!(series.value(), expected);
        assert!(!series.add(1) && !series.set(1.0));
    }

    #[test]
    fn what_the_text_format_could_not_say_is_refused() {
        let metrics = HandlerMetrics::default();
        let long = "a".repeat(65);
        for name in ["", "A", "1a", "a-b", "a__b", "ä", "a_total", "a_bucket", "a\nb", long.as_str()] {
            assert!(metrics.series(&NewMetric::Counter, name, Vec::new(), 100).is_err(), "{name:?}");
        }
        let wide: Vec<(String, String)> = (0..9).map(|i| (format!("l{i}"), String::new())).collect();
        let value = "x".repeat(129);
        for refused in [
            labels(&[("pipeline", "p")]),
            labels(&[("le", "1")]),
            labels(&[("a", "1"), ("a", "2")]),
            labels(&[("A", "1")]),
            labels(&[("a", &value)]),
            wide,
        ] {
            assert!(metrics.series(&NewMetric::Counter, "a", refused.clone(), 100).is_err(), "{refused:?}");
        }
        for bounds in [vec![1.0, 1.0], vec![2.0, 1.0], vec![f64::NAN], vec![f64::INFINITY], vec![0.5; 31]] {
            assert!(metrics.series(&NewMetric::Histogram(bounds.clone()), "h", Vec::new(), 100).is_err(), "{bounds:?}");
        }
        assert!(metrics.series(&NewMetric::Histogram(vec![1.0]), "h", Vec::new(), 100).is_ok());
        let other = metrics.series(&NewMetric::Histogram(vec![2.0]), "h", labels(&[("a", "1")]), 100);
        assert!(other.expect_err("other buckets").contains("has other buckets"));
    }
}
