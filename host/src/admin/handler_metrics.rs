//! Metrics that handlers name, in the text of a scrape: after the host's own, each under a prefix that says its kind, so that
//! no pipeline can take a name from another or from the host. Bounds are `handler_metrics.rs`'s; here is one on the whole.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::handler_metrics::{Labels, MetricKind, MetricValue};
use crate::pipeline::status::PipelineStatus;

/// Series of a scrape, over all pipelines.
const SERIES: usize = 10_000;

/// Series of one metric: the pipeline, the handler's labels, the value.
type Rows<'s> = Vec<(&'s str, Labels, MetricValue)>;

/// Writes the handlers' metrics of all pipelines.
pub fn encode<'s>(
    statuses: impl Iterator<Item = &'s PipelineStatus>,
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut families: BTreeMap<(MetricKind, String), Rows<'s>> = BTreeMap::new();
    let mut left = SERIES;
    for status in statuses {
        for (kind, name, series) in status.handler_metrics.all() {
            let taken = series.len().min(left);
            left -= taken;
            if taken > 0 {
                let rows = series.into_iter().take(taken).map(|(labels, value)| (&*status.name, labels, value));
                families.entry((kind, name)).or_default().extend(rows);
            }
        }
    }
    for ((kind, name), rows) in families {
        let (prefix, metric_type) = match kind {
            MetricKind::Counter => ("counter", MetricType::Counter),
            MetricKind::Gauge => ("gauge", MetricType::Gauge),
            MetricKind::Histogram => ("histogram", MetricType::Histogram),
        };
        let name = format!("handler_{prefix}_{name}");
        let mut family = encoder.encode_descriptor(&name, "Of the handler.", None, metric_type)?;
        for (pipeline, labels, value) in rows {
            encode_value(family.encode_family(&Row { pipeline, labels: &labels })?, &value)?;
        }
    }
    Ok(())
}

fn encode_value(mut encoder: MetricEncoder<'_>, value: &MetricValue) -> fmt::Result {
    match value {
        MetricValue::Counter(count) => ConstCounter::new(*count).encode(encoder),
        MetricValue::Gauge(value) => ConstGauge::new(*value).encode(encoder),
        MetricValue::Histogram(buckets, sum) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}

struct Row<'a> {
    pipeline: &'a str,
    labels: &'a Labels,
}

impl EncodeLabelSet for Row<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("pipeline", self.pipeline).encode(encoder.encode_label())?;
        for (name, value) in self.labels {
            (name.as_str(), value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
