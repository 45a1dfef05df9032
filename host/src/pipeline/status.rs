//! What a pipeline tells the outside: its state with the reason, and its figures. Written by the pipeline's thread a few
//! times a second, read by health checks and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lane::LaneState;
use crate::config::HandlerLimits;
use crate::delivery::retention::Danger;
use crate::delivery::stall::Cause;
use crate::handler_metrics::HandlerMetrics;
use crate::handler_usage::Usage;

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not begun.
    Starting,
    /// Cannot start, or cannot go on, for a reason outside of it; keeps trying.
    Waiting,
    /// Waits for the group's first assignment.
    Joining,
    /// Member of its group.
    Running,
    /// Member of its group, and offers nothing: most of its records fail.
    Paused,
    /// Finishes what it began.
    Draining,
    /// Ended.
    Stopped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Waiting, Self::Joining, Self::Running, Self::Paused, Self::Draining, Self::Stopped];

    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Joining => "joining",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// Figures of one input topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicFigures {
    /// Messages fetched.
    pub consumed: u64,
    /// Bytes of their keys, values and headers, framing included.
    pub consumed_bytes: u64,
    /// Records settled, dead-lettered ones included.
    pub settled: u64,
    /// Records whose dead letter is durable.
    pub dead_lettered: u64,
    /// Records given up by policy `drop`, and those whose dead letter could not be made any more.
    pub dropped: u64,
    /// Records behind the newest, as far as known.
    pub lag: u64,
}

/// Figures of one output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputFigures {
    /// Declared name; the dead-letter topic's is `dead-letter`.
    pub name: String,
    /// Records that are durable.
    pub produced: u64,
    /// Their bytes.
    pub produced_bytes: u64,
    /// Records that the broker refused for good.
    pub refused: u64,
}

/// A partition that stands still though it has something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// What keeps it.
    pub cause: Cause,
    /// The same for people.
    pub reason: String,
    /// For how long.
    pub time: Duration,
}

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneFigures {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// What it is doing.
    pub state: LaneState,
    /// Digest of the component that it runs.
    pub version: Arc<str>,
    /// Committed (next) offset.
    pub committed: Option<i64>,
    /// Everything below is settled: the oldest open record, if there is one.
    pub committable: Option<i64>,
    /// Records fetched and not settled.
    pub open: u64,
    /// Records behind the newest, as far as known.
    pub lag: Option<u64>,
    /// It has not moved for a while.
    pub stalled: Option<Stalled>,
    /// Will its oldest open record be there when somebody comes back to it?
    pub danger: Danger,
}

/// How long partitions were served by no version, when theirs changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GapFigures {
    /// Partitions by the bound that theirs was within, the last ones beyond all.
    pub counts: [u64; GAP_BOUNDS.len() + 1],
    /// All of them together, ns.
    pub nanos: u64,
}

/// Bounds of gaps, in seconds.
pub const GAP_BOUNDS: [f64; 8] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

impl GapFigures {
    /// One partition's.
    pub fn observe(&mut self, gap: Duration) {
        let place = GAP_BOUNDS.iter().position(|bound| gap.as_secs_f64() <= *bound).unwrap_or(GAP_BOUNDS.len());
        self.counts[place] += 1;
        self.nanos = self.nanos.saturating_add(u64::try_from(gap.as_nanos()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, earlier: &Self) {
        self.nanos = self.nanos.saturating_add(earlier.nanos);
        for (sum, count) in self.counts.iter_mut().zip(earlier.counts) {
            *sum += count;
        }
    }
}

/// All figures of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// By input topic.
    pub topics: BTreeMap<Arc<str>, TopicFigures>,
    /// In the order of the configuration, the dead-letter topic last.
    pub outputs: Vec<OutputFigures>,
    /// Failed attempts that are tried again, by class.
    pub retries: BTreeMap<&'static str, u64>,
    /// Acks and fails of messages that were not held any more.
    pub late_acks: u64,
    /// Of partitions that were given back: answers of handlers, delivery reports.
    pub late_results: [u64; 2],
    /// Calls that ended in a fault, by class.
    pub faults: BTreeMap<&'static str, u64>,
    /// Closed batches and their messages, by batcher and trigger.
    pub batches: BTreeMap<(usize, &'static str), (u64, u64)>,
    /// Names of the batchers.
    pub batchers: Vec<String>,
    /// Commits that were answered: without, with an error.
    pub commits: [u64; 2],
    /// Rebalances: assigned, revoked, lost.
    pub rebalances: [u64; 3],
    /// Records that were never read, because they were deleted before, by topic.
    pub lost_offsets: BTreeMap<Arc<str>, u64>,
    /// Ownership epochs that ended because a position was lost.
    pub renewed: u64,
    /// Orders to switch the handler's version: that went through, that were taken back.
    pub swaps: [u64; 2],
    /// Partitions that went over to another version, by how long they were served by none.
    pub gaps: GapFigures,
    /// Times that the pipeline paused because most of its records failed.
    pub pauses: u64,
    /// Assigned partitions.
    pub lanes: Vec<LaneFigures>,
    /// Bytes in flight.
    pub buffer_bytes: u64,
    /// Memory of all handler instances.
    pub handler_memory: u64,
    /// Records in calls, batches and the producer.
    pub in_flight: u64,
    /// Records between the committed offsets and the newest fetched: what a crash would repeat at most.
    pub uncommitted: u64,
    /// Calls to handlers and the time they took, ns: messages, batches.
    pub calls: [(u64, u64); 2],
    /// Errors of clusters and topics by cluster and type: what a pipeline waits for.
    pub broker_errors: BTreeMap<(String, String), u64>,
}

impl Figures {
    /// Everything that only grows, of an earlier run of the pipeline, is added: counters do not begin anew because a run
    /// did.
    pub fn add_counters(&mut self, earlier: &Self) {
        for (topic, figures) in &earlier.topics {
            let sum = self.topics.entry(Arc::clone(topic)).or_default();
            sum.consumed += figures.consumed;
            sum.consumed_bytes += figures.consumed_bytes;
            sum.settled += figures.settled;
            sum.dead_lettered += figures.dead_lettered;
            sum.dropped += figures.dropped;
        }
        for figures in &earlier.outputs {
            match self.outputs.iter_mut().find(|sum| sum.name == figures.name) {
                Some(sum) => {
                    sum.produced += figures.produced;
                    sum.produced_bytes += figures.produced_bytes;
                    sum.refused += figures.refused;
                }
                None => self.outputs.push(figures.clone()),
            }
        }
        self.late_acks += earlier.late_acks;
        for (sum, earlier) in self.late_results.iter_mut().zip(earlier.late_results) {
            *sum += earlier;
        }
        for (class, count) in &earlier.retries {
            *self.retries.entry(class).or_default() += count;
        }
        for (class, count) in &earlier.faults {
            *self.faults.entry(class).or_default() += count;
        }
        for (batch, (batches, messages)) in &earlier.batches {
            let sum = self.batches.entry(*batch).or_default();
            *sum = (sum.0 + batches, sum.1 + messages);
        }
        for (key, count) in &earlier.broker_errors {
            *self.broker_errors.entry(key.clone()).or_default() += count;
        }
        for (topic, count) in &earlier.lost_offsets {
            *self.lost_offsets.entry(Arc::clone(topic)).or_default() += count;
        }
        self.renewed += earlier.renewed;
        self.pauses += earlier.pauses;
        self.gaps.add(&earlier.gaps);
        for (sum, count) in self.swaps.iter_mut().zip(earlier.swaps) {
            *sum += count;
        }
        for (sum, count) in self.commits.iter_mut().zip(earlier.commits) {
            *sum += count;
        }
        for (sum, count) in self.rebalances.iter_mut().zip(earlier.rebalances) {
            *sum += count;
        }
        for (sum, (calls, nanos)) in self.calls.iter_mut().zip(earlier.calls) {
            *sum = (sum.0 + calls, sum.1 + nanos);
        }
        if self.batchers.is_empty() {
            self.batchers.clone_from(&earlier.batchers);
        }
    }

    /// Without what is true of a running pipeline only.
    #[must_use]
    pub fn at_rest(&self) -> Self {
        let mut counters = Self::default();
        counters.add_counters(self);
        counters
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct PipelineStatus {
    /// The pipeline.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// What its handler's instances used since the process began.
    pub usage: Arc<Usage>,
    /// Figures of the handler's own.
    pub handler_metrics: Arc<HandlerMetrics>,
    /// Versions that did not take the place of the one that runs, because they do not fit or start.
    refused_versions: AtomicU64,
    /// A shutdown left something to the next owner.
    unfinished: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    reason: Option<String>,
    since: Instant,
    /// Digest of the component that is served.
    version: Arc<str>,
    limits: HandlerLimits,
    figures: Figures,
}

impl PipelineStatus {
    /// Another version was refused.
    pub fn refuses_version(&self) {
        self.refused_versions.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that happened.
    pub fn refused_versions(&self) -> u64 {
        self.refused_versions.load(Ordering::Relaxed)
    }

    /// A pipeline that has not begun.
    #[must_use]
    pub fn new(name: &str, group: &str, version: &str) -> Self {
        let (version, since) = (version.into(), Instant::now());
        let (state, limits, figures) = (State::Starting, HandlerLimits::default(), Figures::default());
        let inner = Inner { state, reason: None, since, version, limits, figures };
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            usage: Arc::default(),
            handler_metrics: Arc::default(),
            refused_versions: AtomicU64::default(),
            unfinished: false.into(),
            inner: Mutex::new(inner),
        }
    }

    /// With the limits of its handler.
    #[must_use]
    pub fn with_limits(self, limits: &HandlerLimits) -> Self {
        self.inner().limits = limits.clone();
        self
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        // What is behind the lock is replaced as a whole, so a panic elsewhere leaves nothing half-written.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state. Says so in the log when it is news.
    pub fn set(&self, state: State, reason: Option<String>) {
        let mut inner = self.inner();
        if inner.state == state && inner.reason == reason {
            return;
        }
        if inner.state != state {
            inner.since = Instant::now();
        }
        inner.state = state;
        inner.reason.clone_from(&reason);
        drop(inner);
        crate::telemetry::pipeline_state(&self.name, state, reason.as_deref());
    }

    /// State, reason, and since when it is in that state.
    #[must_use]
    pub fn state(&self) -> (State, Option<String>, Instant) {
        let inner = self.inner();
        (inner.state, inner.reason.clone(), inner.since)
    }

    /// Digest of the component that is served.
    #[must_use]
    pub fn version(&self) -> Arc<str> {
        Arc::clone(&self.inner().version)
    }

    /// What an instance of the handler may use.
    #[must_use]
    pub fn limits(&self) -> HandlerLimits {
        self.inner().limits.clone()
    }

    /// Another version is served, or under other limits.
    pub fn serves(&self, digest: &Arc<str>, limits: &HandlerLimits) {
        let mut inner = self.inner();
        inner.version = Arc::clone(digest);
        inner.limits = limits.clone();
    }

    /// Says that a shutdown left something to the next owner.
    pub fn left_unfinished(&self) {
        self.unfinished.store(true, Ordering::Release);
    }

    /// True when a shutdown left something to the next owner.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Acquire)
    }

    /// Counts an error of a cluster or one of its topics.
    pub fn count_broker_error(&self, cluster: &str, error_type: &str) {
        let key = (cluster.to_owned(), error_type.to_owned());
        *self.inner().figures.broker_errors.entry(key).or_default() += 1;
    }

    /// Replaces the figures.
    pub fn publish(&self, figures: Figures) {
        self.inner().figures = figures;
    }

    /// The figures as last written.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.inner().figures.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_outlive_a_run_and_gauges_do_not() {
        let mut first = Figures { commits: [3, 1], in_flight: 7, buffer_bytes: 9, ..Figures::default() };
        first.topics.insert("t".into(), TopicFigures { consumed: 5, settled: 4, lag: 2, ..TopicFigures::default() });
        first.outputs.push(OutputFigures { name: "o".to_owned(), produced: 4, ..OutputFigures::default() });
        let rest = first.at_rest();
        assert_eq!((rest.in_flight, rest.buffer_bytes, rest.lanes.len()), (0, 0, 0));
        assert_eq!(rest.topics["t"], TopicFigures { consumed: 5, settled: 4, ..TopicFigures::default() });
        let mut second = Figures { commits: [1, 0], ..Figures::default() };
        second.outputs.push(OutputFigures { name: "o".to_owned(), produced: 6, ..OutputFigures::default() });
        second.add_counters(&rest);
        assert_eq!((second.commits, second.outputs[0].produced, second.topics["t"].consumed), ([4, 1], 10, 5));
    }
}
