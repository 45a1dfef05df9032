//! What a pipeline tells the outside: its state with the reason, and its figures. Written by the pipeline's thread a few
//! times a second, read by health checks and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::lane::LaneState;

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
    /// Finishes what it began.
    Draining,
    /// Ended.
    Stopped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Waiting, Self::Joining, Self::Running, Self::Draining, Self::Stopped];

    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Joining => "joining",
            Self::Running => "running",
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
    /// Records sent to the dead-letter topic.
    pub dead_lettered: u64,
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

/// One lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneFigures {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// What it is doing.
    pub state: LaneState,
    /// Committed (next) offset.
    pub committed: Option<i64>,
    /// Everything below is settled: the oldest open record, if there is one.
    pub committable: Option<i64>,
    /// Records fetched and not settled.
    pub open: u64,
    /// Records behind the newest, as far as known.
    pub lag: Option<u64>,
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
}

/// See the module's text.
#[derive(Debug)]
pub struct PipelineStatus {
    /// The pipeline.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Digest of its component.
    pub version: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    reason: Option<String>,
    since: Instant,
    figures: Figures,
}

impl PipelineStatus {
    /// A pipeline that has not begun.
    #[must_use]
    pub fn new(name: &str, group: &str, version: &str) -> Self {
        let inner = Inner { state: State::Starting, reason: None, since: Instant::now(), figures: Figures::default() };
        Self { name: name.to_owned(), group: group.to_owned(), version: version.to_owned(), inner: Mutex::new(inner) }
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
