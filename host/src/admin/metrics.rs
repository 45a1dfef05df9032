//! The text of a scrape, written from the pipelines' status when it is asked for. Nothing is counted here; [`Shown`] only
//! keeps one difference from going back. Knows the text format's library; which metrics there are, `families.rs` says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::families::{FAMILIES, Family, Of};
use super::handler_metrics;
use crate::pipeline::status::{Figures, PipelineStatus, State, TopicFigures};

/// The format that is written.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older one. What is written is valid in it too: it has counters, gauges and histograms only, and the rest are comments
/// there.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the text is called: OpenMetrics, unless the client asks for the older format only.
pub fn content_type(accept: Option<&str>) -> &'static str {
    match accept {
        Some(accept) if accept.contains("text/plain") && !accept.contains("openmetrics") => PLAIN,
        _ => OPENMETRICS,
    }
}

/// See the module's text.
pub struct Metrics(Registry);

impl Metrics {
    /// Metrics of these pipelines.
    pub fn new(statuses: Arc<[Arc<PipelineStatus>]>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Statuses { statuses, shown: Mutex::default() }));
        Self(registry)
    }

    /// All metrics, as they are now.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// A pipeline at the time of the scrape.
pub struct Snapshot<'s> {
    /// Its names.
    pub status: &'s PipelineStatus,
    /// What it is doing.
    pub state: State,
    /// Its figures.
    pub figures: Figures,
    /// Messages that were processed well, in the order of the figures' topics.
    pub ok: Vec<u64>,
}

#[derive(Debug)]
struct Statuses {
    statuses: Arc<[Arc<PipelineStatus>]>,
    /// By the pipeline's place and topic.
    shown: Mutex<BTreeMap<(usize, Arc<str>), Shown>>,
}

/// What the last scrape was told of a topic.
#[derive(Debug, Default)]
struct Shown {
    settled: u64,
    ok: u64,
}

impl Shown {
    /// Settled, and neither dead-lettered nor dropped. A record that failed may settle later than it is counted so, when
    /// something else that was made of it is still on its way; between the two this difference would go back, and a
    /// counter that does is taken for a restart and counted again from 0.
    fn ok(&mut self, figures: &TopicFigures) -> u64 {
        let ok = figures.settled.saturating_sub(figures.dead_lettered + figures.dropped);
        // The figures of a run that was started again do begin at 0.
        let least = if figures.settled < self.settled { 0 } else { self.ok };
        *self = Self { settled: figures.settled, ok: ok.max(least) };
        self.ok
    }
}

impl Statuses {
    fn snapshots(&self) -> Vec<Snapshot<'_>> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshots = Vec::with_capacity(self.statuses.len());
        for (place, status) in self.statuses.iter().enumerate() {
            let figures = status.figures();
            let topics = figures.topics.iter();
            let ok = topics.map(|(topic, figures)| shown.entry((place, Arc::clone(topic))).or_default().ok(figures));
            snapshots.push(Snapshot { status, state: status.state().0, ok: ok.collect(), figures });
        }
        snapshots
    }
}

impl Collector for Statuses {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Taken once, so that all metrics of a scrape are of the same moment.
        let snapshots = self.snapshots();
        for family in &FAMILIES {
            let Family { kind, labels: names, .. } = *family;
            let (name, unit) = parts(family);
            let encoder = encoder.encode_descriptor(name, family.help, unit.as_ref(), kind)?;
            let mut samples = Samples { encoder, kind, names, pipeline: None, written: 0, result: Ok(()) };
            match family.of {
                Of::Host(of) => of(&mut samples),
                Of::Pipeline(of) => {
                    for snapshot in &snapshots {
                        samples.pipeline = Some(&snapshot.status.name);
                        of(snapshot, &mut samples);
                    }
                }
            }
            samples.result?;
        }
        handler_metrics::encode(self.statuses.iter().map(AsRef::as_ref), &mut encoder)
    }
}

/// The name as the library wants it: without the endings that it writes itself.
fn parts(family: &Family) -> (&'static str, Option<Unit>) {
    let name = family.name.strip_suffix("_total").unwrap_or(family.name);
    for (ending, unit) in [("_bytes", Unit::Bytes), ("_seconds", Unit::Seconds)] {
        if let Some(name) = name.strip_suffix(ending) {
            return (name, Some(unit));
        }
    }
    (name, None)
}

/// The value of a sample.
enum Value<'v> {
    /// A whole number.
    Count(u64),
    /// A time, in seconds.
    Time(Duration),
    /// Times by their bounds, and their sum.
    Times(&'v [(f64, u64)], Duration),
}

/// Takes the samples of one family.
pub struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    kind: MetricType,
    names: &'static [&'static str],
    pipeline: Option<&'a str>,
    written: usize,
    result: fmt::Result,
}

impl Samples<'_> {
    /// A number with the values of the family's labels, in their order. The label `pipeline` is put before them.
    pub fn count(&mut self, labels: &[&str], count: u64) {
        self.put(labels, Value::Count(count));
    }

    /// A time with the values of the family's labels, in their order.
    pub fn time(&mut self, labels: &[&str], time: Duration) {
        self.put(labels, Value::Time(time));
    }

    /// Times by their bounds in seconds, the last of which is infinite, with their sum; for a family that is a histogram.
    pub fn histogram(&mut self, labels: &[&str], buckets: &[(f64, u64)], sum: Duration) {
        self.put(labels, Value::Times(buckets, sum));
    }

    /// Samples so far, of all pipelines.
    pub const fn written(&self) -> usize {
        self.written
    }

    fn put(&mut self, values: &[&str], value: Value<'_>) {
        assert_eq!(self.names.len(), values.len(), "each label of the family has a value");
        if self.result.is_ok() {
            self.result = self.encode(values, value);
            self.written += 1;
        }
    }

    fn encode(&mut self, values: &[&str], value: Value<'_>) -> fmt::Result {
        let labels = Labels { pipeline: self.pipeline, names: self.names, values };
        let mut encoder = self.encoder.encode_family(&labels)?;
        match (self.kind, value) {
            (MetricType::Counter, Value::Count(count)) => ConstCounter::new(count).encode(encoder),
            (MetricType::Counter, Value::Time(time)) => ConstCounter::new(time.as_secs_f64()).encode(encoder),
            (_, Value::Count(count)) => ConstGauge::new(count).encode(encoder),
            (_, Value::Time(time)) => ConstGauge::new(time.as_secs_f64()).encode(encoder),
            (_, Value::Times(buckets, sum)) => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, buckets, None)
            }
        }
    }
}

struct Labels<'a> {
    pipeline: Option<&'a str>,
    names: &'a [&'static str],
    values: &'a [&'a str],
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        if let Some(pipeline) = self.pipeline {
            ("pipeline", pipeline).encode(encoder.encode_label())?;
        }
        for (name, value) in self.names.iter().zip(self.values) {
            (*name, *value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_on_its_way_takes_nothing_back() {
        let mut shown = Shown::default();
        let mut ok =
            |settled, dead_lettered| shown.ok(&TopicFigures { settled, dead_lettered, ..TopicFigures::default() });
        assert_eq!([ok(10, 0), ok(10, 1), ok(11, 1), ok(12, 1)], [10, 10, 10, 11]);
        assert_eq!(ok(3, 0), 3, "a new run counts from 0");
    }

    #[test]
    fn the_older_format_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!([None, Some("*/*"), Some(prometheus)].map(content_type), [OPENMETRICS; 3]);
        assert_eq!(content_type(Some("text/plain")), PLAIN);
    }
}
