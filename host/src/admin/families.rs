//! Which metrics there are. Their names, labels and label values are a promise to dashboards and alerts: they depend on no
//! setting, a change of them is a breaking change, and `docs/metrics.md` says what they mean. Knows figures; knows nothing
//! of the text format.
//!
//! A counter is there from its pipeline's first figures on, also while it is 0: rates and alerts need its beginning.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::metrics::MetricType;

use super::metrics::{Samples, Snapshot};
use crate::config::LimitValue;
use crate::delivery::batcher::Trigger;
use crate::delivery::retention::Danger;
use crate::delivery::stall::Cause;
use crate::handler_usage::Worn;
use crate::pipeline::lane::LaneState;
use crate::pipeline::status::{GAP_BOUNDS, GapFigures, State};
use crate::plugin::FaultClass;

/// Series of single partitions in a scrape, over all pipelines. A host may own thousands of partitions, and each series
/// costs memory in the scraper for hours; the sums by topic are always complete.
const PARTITION_SERIES: usize = 200;

/// The engine that is built in; a test holds it to `Cargo.lock`.
pub const WASMTIME: &str = "48.0.8";

/// Classes of failed attempts beside those of faults.
const ANSWERS: [&str; 2] = ["retry", "reject"];

/// One metric.
pub struct Family {
    /// Its whole name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricType,
    /// One line for people.
    pub help: &'static str,
    /// Names of its labels, `pipeline` aside.
    pub labels: &'static [&'static str],
    /// Where its samples come from.
    pub of: Of,
}

/// What a metric is about.
#[derive(Clone, Copy)]
pub enum Of {
    /// The process.
    Host(fn(&mut Samples<'_>)),
    /// A pipeline, whose name is its first label.
    Pipeline(fn(&Snapshot<'_>, &mut Samples<'_>)),
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    of: fn(&Snapshot<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind: MetricType::Counter, help, labels, of: Of::Pipeline(of) }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    of: fn(&Snapshot<'_>, &mut Samples<'_>),
) -> Family {
    Family { name, kind: MetricType::Gauge, help, labels, of: Of::Pipeline(of) }
}

/// All of them, in the order of a scrape.
pub static FAMILIES: [Family; 38] = [
    Family {
        name: "sluicebox_build_info",
        kind: MetricType::Gauge,
        help: "Versions of the host and its engine; always 1.",
        labels: &["version", "wasmtime"],
        of: Of::Host(|samples| samples.count(&[env!("CARGO_PKG_VERSION"), WASMTIME], 1)),
    },
    gauge(
        "sluicebox_pipeline_info",
        &["group", "version"],
        "Consumer group and digest of the component; always 1.",
        |of, samples| samples.count(&[&of.status.group, &of.status.version()], 1),
    ),
    gauge("sluicebox_pipeline_state", &["state"], "1 for the state that the pipeline is in, else 0.", |of, samples| {
        for state in State::ALL {
            samples.count(&[state.name()], u64::from(of.state == state));
        }
    }),
    counter("sluicebox_messages_consumed_total", &["topic"], "Messages fetched.", |of, samples| {
        for (topic, figures) in &of.figures.topics {
            samples.count(&[topic], figures.consumed);
        }
    }),
    counter("sluicebox_consumed_bytes_total", &["topic"], "Bytes of the messages fetched.", |of, samples| {
        for (topic, figures) in &of.figures.topics {
            samples.count(&[topic], figures.consumed_bytes);
        }
    }),
    counter(
        "sluicebox_messages_processed_total",
        &["topic", "outcome"],
        "Messages whose fate is settled.",
        |of, samples| {
            for ((topic, figures), ok) in of.figures.topics.iter().zip(&of.ok) {
                samples.count(&[topic, "ok"], *ok);
                samples.count(&[topic, "dead_letter"], figures.dead_lettered);
                samples.count(&[topic, "dropped"], figures.dropped);
            }
        },
    ),
    counter(
        "sluicebox_late_acks_total",
        &[],
        "Acks and fails of messages that were not held any more. They changed nothing.",
        |of, samples| samples.count(&[], of.figures.late_acks),
    ),
    counter(
        "sluicebox_late_results_total",
        &["kind"],
        "Answers of handlers and delivery reports for partitions that were given back. They changed nothing.",
        |of, samples| {
            let [answers, reports] = of.figures.late_results;
            samples.count(&["answer"], answers);
            samples.count(&["report"], reports);
        },
    ),
    counter("sluicebox_retries_total", &["error_type"], "Failed attempts that are tried again.", |of, samples| {
        for (class, count) in known_first(&of.figures.retries, &ANSWERS) {
            samples.count(&[class], count);
        }
    }),
    counter(
        "sluicebox_messages_produced_total",
        &["output", "result"],
        "Messages written to outputs.",
        |of, samples| {
            for (output, figures) in outputs(of) {
                samples.count(&[output, "ok"], figures.produced);
                samples.count(&[output, "refused"], figures.refused);
            }
        },
    ),
    counter(
        "sluicebox_produced_bytes_total",
        &["output", "result"],
        "Bytes of the messages written.",
        |of, samples| {
            for (output, figures) in outputs(of) {
                samples.count(&[output, "ok"], figures.produced_bytes);
            }
        },
    ),
    counter(
        "sluicebox_batches_closed_total",
        &["batcher", "trigger"],
        "Batches closed, by why they were.",
        |of, samples| {
            for (place, batcher) in of.figures.batchers.iter().enumerate() {
                for trigger in Trigger::ALL {
                    let (batches, _) = of.figures.batches.get(&(place, trigger.name())).copied().unwrap_or_default();
                    samples.count(&[batcher, trigger.name()], batches);
                }
            }
        },
    ),
    gauge("sluicebox_consumer_lag_messages", &["topic"], "Messages behind the newest.", |of, samples| {
        for (topic, figures) in &of.figures.topics {
            samples.count(&[topic], figures.lag);
        }
    }),
    gauge(
        "sluicebox_partition_lag_messages",
        &["topic", "partition"],
        "Messages behind the newest in one partition; the first 200 of the host.",
        partition_lag,
    ),
    gauge(
        "sluicebox_uncommitted_messages",
        &[],
        "Messages between the committed offsets and the newest fetched: what a crash would repeat at most.",
        |of, samples| samples.count(&[], of.figures.uncommitted),
    ),
    gauge("sluicebox_in_flight_messages", &[], "Messages fetched and not settled.", |of, samples| {
        samples.count(&[], of.figures.in_flight);
    }),
    gauge("sluicebox_buffer_bytes", &[], "Bytes of messages in memory.", |of, samples| {
        samples.count(&[], of.figures.buffer_bytes);
    }),
    gauge("sluicebox_partitions", &["state"], "Assigned partitions, by what their lanes do.", |of, samples| {
        let mut counts = [("running", 0), ("backing_off", 0), ("blocked", 0), ("draining", 0)];
        for lane in &of.figures.lanes {
            let place = match lane.state {
                LaneState::Running => 0,
                LaneState::BackingOff(_) => 1,
                LaneState::Blocked(_) => 2,
                LaneState::Draining => 3,
            };
            counts[place].1 += 1;
        }
        for (state, count) in counts {
            samples.count(&[state], count);
        }
    }),
    gauge(
        "sluicebox_stalled_partitions",
        &["cause"],
        "Partitions that stand still for a minute or longer though they have something to do.",
        |of, samples| {
            let stalled = || of.figures.lanes.iter().filter_map(|lane| lane.stalled.as_ref());
            for cause in Cause::ALL {
                let count = stalled().filter(|stalled| stalled.cause == cause).count();
                samples.count(&[cause.name()], count as u64);
            }
        },
    ),
    gauge(
        "sluicebox_endangered_partitions",
        &["deletion"],
        "Partitions whose oldest open message is deleted by retention, or soon will be.",
        |of, samples| {
            for (deletion, danger) in [("soon", Danger::Soon), ("done", Danger::Gone)] {
                let count = of.figures.lanes.iter().filter(|lane| lane.danger == danger).count();
                samples.count(&[deletion], count as u64);
            }
        },
    ),
    counter("sluicebox_commits_total", &["result"], "Offset commits that were answered.", |of, samples| {
        for (result, count) in ["ok", "error"].into_iter().zip(of.figures.commits) {
            samples.count(&[result], count);
        }
    }),
    counter("sluicebox_rebalances_total", &["kind"], "Changes of the assignment.", |of, samples| {
        for (kind, count) in ["assigned", "revoked", "lost"].into_iter().zip(of.figures.rebalances) {
            samples.count(&[kind], count);
        }
    }),
    counter(
        "sluicebox_lost_offset_messages_total",
        &["topic"],
        "Messages that were deleted, or skipped, before they were read.",
        |of, samples| {
            for topic in of.figures.topics.keys() {
                samples.count(&[topic], of.figures.lost_offsets.get(topic).copied().unwrap_or_default());
            }
        },
    ),
    counter(
        "sluicebox_position_resets_total",
        &[],
        "Positions in partitions that were lost: their ownership epochs ended.",
        |of, samples| samples.count(&[], of.figures.renewed),
    ),
    counter(
        "sluicebox_swaps_total",
        &["outcome"],
        "Swaps of the handler: that went through, that were taken back, that were refused before anything switched.",
        |of, samples| {
            for (outcome, count) in ["done", "rolled_back"].into_iter().zip(of.figures.swaps) {
                samples.count(&[outcome], count);
            }
            samples.count(&["refused"], of.status.refused_versions());
        },
    ),
    Family {
        name: "sluicebox_swap_gap_seconds",
        kind: MetricType::Histogram,
        help: "Time that a partition was served by no version, when its version changed.",
        labels: &[],
        of: Of::Pipeline(|of, samples| {
            let GapFigures { counts, nanos } = of.figures.gaps;
            let bounds = GAP_BOUNDS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            samples.histogram(&[], &buckets, Duration::from_nanos(nanos));
        }),
    },
    counter(
        "sluicebox_pauses_total",
        &[],
        "Times that the pipeline paused because most of its records failed.",
        |of, samples| samples.count(&[], of.figures.pauses),
    ),
    counter(
        "sluicebox_broker_errors_total",
        &["cluster", "error_type"],
        "Errors of clusters and topics that the pipeline waits out.",
        |of, samples| {
            for ((cluster, error_type), count) in &of.figures.broker_errors {
                samples.count(&[cluster, error_type], *count);
            }
        },
    ),
    counter("sluicebox_handler_traps_total", &["class"], "Calls that ended in a fault.", |of, samples| {
        for (class, count) in known_first(&of.figures.faults, &[]) {
            samples.count(&[class], count);
        }
    }),
    gauge("sluicebox_handler_memory_bytes", &[], "Memory of all handler instances.", |of, samples| {
        samples.count(&[], of.figures.handler_memory);
    }),
    counter(
        "sluicebox_handler_running_seconds_total",
        &[],
        "CPU time that handlers used, host functions that they called included.",
        |of, samples| samples.time(&[], of.status.usage.running()),
    ),
    counter(
        "sluicebox_handler_recycled_total",
        &["reason"],
        "Instances of handlers that were replaced because they were old.",
        |of, samples| {
            for (reason, name) in Worn::ALL {
                samples.count(&[name], of.status.usage.recycled_for(reason));
            }
        },
    ),
    counter("sluicebox_handler_log_lines_total", &["result"], "Lines that handlers wrote.", |of, samples| {
        samples.count(&["ok"], of.status.usage.lines());
        samples.count(&["dropped"], of.status.usage.dropped_lines());
    }),
    counter("sluicebox_handler_http_requests_total", &["result"], "Outbound requests of handlers.", |of, samples| {
        let [ok, refused, failed] = of.status.usage.asked();
        samples.count(&["ok"], ok);
        samples.count(&["refused"], refused);
        samples.count(&["failed"], failed);
    }),
    counter(
        "sluicebox_handler_metrics_refused_total",
        &[],
        "Series of the handler's own metrics that were asked for and not given.",
        |of, samples| samples.count(&[], of.status.handler_metrics.refused()),
    ),
    gauge(
        "sluicebox_handler_limit",
        &["limit"],
        "Limits of an instance: bytes, seconds, or a number.",
        |of, samples| {
            for (name, value) in of.status.limits().all() {
                match value {
                    LimitValue::Bytes(bytes) => samples.count(&[name], bytes),
                    LimitValue::Count(count) => samples.count(&[name], u64::from(count)),
                    LimitValue::Time(time) => samples.time(&[name], time),
                }
            }
        },
    ),
    counter("sluicebox_handler_calls_total", &["stage"], "Calls to handlers.", |of, samples| {
        for (stage, (calls, _)) in STAGES.into_iter().zip(of.figures.calls) {
            samples.count(&[stage], calls);
        }
    }),
    counter("sluicebox_handler_call_seconds_total", &["stage"], "Time that calls to handlers took.", |of, samples| {
        for (stage, (_, nanoseconds)) in STAGES.into_iter().zip(of.figures.calls) {
            samples.time(&[stage], Duration::from_nanos(nanoseconds));
        }
    }),
];

const STAGES: [&str; 2] = ["message", "batch"];

fn partition_lag(of: &Snapshot<'_>, samples: &mut Samples<'_>) {
    let mut known: Vec<_> =
        of.figures.lanes.iter().filter_map(|lane| Some((&*lane.topic, lane.partition, lane.lag?))).collect();
    known.sort_unstable();
    for (topic, partition, lag) in known {
        if samples.written() == PARTITION_SERIES {
            return;
        }
        samples.count(&[topic, &partition.to_string()], lag);
    }
}

/// Counts of the classes that are always there, then of what else was counted.
fn known_first<'f>(counts: &'f BTreeMap<&'static str, u64>, more: &[&'static str]) -> Vec<(&'f str, u64)> {
    let mut known = more.to_vec();
    known.extend(FaultClass::ALL.map(FaultClass::name));
    let others = counts.keys().filter(|class| !known.contains(class)).copied().collect::<Vec<_>>();
    known.extend(others);
    known.into_iter().map(|class| (class, counts.get(class).copied().unwrap_or_default())).collect()
}

#[derive(Default)]
struct Produced {
    produced: u64,
    produced_bytes: u64,
    refused: u64,
}

/// By name: a declared output may have the dead-letter topic's name, and a series must not be there twice.
fn outputs<'f>(of: &'f Snapshot<'_>) -> BTreeMap<&'f str, Produced> {
    let mut by_name: BTreeMap<&str, Produced> = BTreeMap::new();
    for output in &of.figures.outputs {
        let sum = by_name.entry(&output.name).or_default();
        sum.produced += output.produced;
        sum.produced_bytes += output.produced_bytes;
        sum.refused += output.refused;
    }
    by_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_the_one_that_is_built_in() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"\n")), "{WASMTIME}");
    }
}
