//! The text of a scrape, written from the pipelines' status when it is asked for: there is no second set of books. Knows
//! the text format's library; which metrics there are is said in `families.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::families::{FAMILIES, Family, Of};
use crate::pipeline::status::{Figures, PipelineStatus, State};

/// The format that is written.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The older one. What is written is valid in it too: it has counters and gauges only, and the rest are comments there.
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
        registry.register_collector(Box::new(Statuses(statuses)));
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
}

#[derive(Debug)]
struct Statuses(Arc<[Arc<PipelineStatus>]>);

impl Collector for Statuses {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Taken once, so that all metrics of a scrape are of the same moment.
        let snapshots: Vec<_> = self
            .0
            .iter()
            .map(|status| Snapshot { status, state: status.state().0, figures: status.figures() })
            .collect();
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
        Ok(())
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
enum Value {
    /// A whole number.
    Count(u64),
    /// A time, in seconds.
    Time(Duration),
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

    /// Samples so far, of all pipelines.
    pub const fn written(&self) -> usize {
        self.written
    }

    fn put(&mut self, values: &[&str], value: Value) {
        assert_eq!(self.names.len(), values.len(), "each label of the family has a value");
        if self.result.is_ok() {
            self.result = self.encode(values, value);
            self.written += 1;
        }
    }

    fn encode(&mut self, values: &[&str], value: Value) -> fmt::Result {
        let labels = Labels { pipeline: self.pipeline, names: self.names, values };
        let encoder = self.encoder.encode_family(&labels)?;
        match (self.kind, value) {
            (MetricType::Counter, Value::Count(count)) => ConstCounter::new(count).encode(encoder),
            (MetricType::Counter, Value::Time(time)) => ConstCounter::new(time.as_secs_f64()).encode(encoder),
            (_, Value::Count(count)) => ConstGauge::new(count).encode(encoder),
            (_, Value::Time(time)) => ConstGauge::new(time.as_secs_f64()).encode(encoder),
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
