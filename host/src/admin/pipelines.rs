//! From what a pipeline says of itself to what the API says of it: everything that is not as it should be comes with its
//! reason and the next command. Reads a snapshot; asks nobody.

use std::time::{Duration, Instant};

use super::health::clip;
use super::view::{PartitionCounts, PartitionView, PipelineView, RecordCounts, ServedView, SwapView, Why};
use crate::delivery::retention::Danger;
use crate::pipeline::control::{Progress, Served, Stage};
use crate::pipeline::lane::LaneState;
use crate::pipeline::status::{Figures, LaneFigures, PipelineStatus, State};

/// Reasons that are listed; the others are counted.
const LISTED: usize = 100;

/// A pipeline, as it is now.
pub fn view(status: &PipelineStatus, swap: &Progress, generation: Option<u64>, now: Instant) -> PipelineView {
    let (state, reason, since) = status.state();
    let figures = status.figures();
    let mut why: Vec<Why> = whole(status, state, reason.as_deref()).into_iter().collect();
    why.extend(figures.lanes.iter().filter_map(|lane| of_lane(&status.name, lane)));
    why.extend(figures.lanes.iter().filter_map(|lane| in_danger(&status.group, lane)));
    let unlisted = why.len().saturating_sub(LISTED) as u64;
    why.truncate(LISTED);
    PipelineView {
        name: status.name.clone(),
        group: status.group.clone(),
        version: status.version().to_string(),
        state: state.name().to_owned(),
        reason: reason.as_deref().map(clip),
        since_seconds: now.saturating_duration_since(since).as_secs(),
        partitions: counts(&figures),
        lag: figures.topics.values().map(|topic| topic.lag).sum(),
        in_flight: figures.in_flight,
        uncommitted: figures.uncommitted,
        records: records(&figures),
        generation,
        swap: swapped(swap),
        why,
        unlisted,
    }
}

/// The last change of its version, if there was one.
pub fn swapped(swap: &Progress) -> Option<SwapView> {
    let (stage, reason) = match &swap.stage {
        Stage::None => return None,
        Stage::Switching => ("switching", None),
        Stage::Canary => ("canary", None),
        Stage::Done => ("done", None),
        Stage::RollingBack(reason) => ("rolling_back", Some(clip(reason))),
        Stage::RolledBack(reason) => ("rolled_back", Some(clip(reason))),
    };
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let served =
        |served: &Served| ServedView { messages: served.messages, failed: served.failed, p99_us: micros(served.p99) };
    Some(SwapView {
        from: swap.from.to_string(),
        to: swap.to.to_string(),
        stage: stage.to_owned(),
        reason,
        on_new: swap.lanes.iter().filter(|lane| lane.on_new).count(),
        switched: (swap.lanes.iter().filter(|lane| lane.switched).count(), swap.lanes.len()),
        compile_ms: millis(swap.prepared.compile),
        trial_ms: millis(swap.prepared.canary),
        gap_us: (micros(swap.gaps.p50), micros(swap.gaps.p99), micros(swap.gaps.max)),
        took_ms: millis(swap.took),
        in_flight: swap.in_flight,
        old: served(&swap.old),
        new: served(&swap.new),
    })
}

/// Its partitions.
pub fn partitions(status: &PipelineStatus) -> Vec<PartitionView> {
    status.figures().lanes.iter().map(partition).collect()
}

fn counts(figures: &Figures) -> PartitionCounts {
    let mut counts = PartitionCounts { assigned: figures.lanes.len(), ..PartitionCounts::default() };
    for lane in &figures.lanes {
        counts.stalled += usize::from(lane.stalled.is_some());
        *match lane.state {
            LaneState::Running => &mut counts.running,
            LaneState::BackingOff(_) => &mut counts.backing_off,
            LaneState::Blocked(_) => &mut counts.blocked,
            LaneState::Draining => &mut counts.draining,
        } += 1;
    }
    counts
}

fn records(figures: &Figures) -> RecordCounts {
    let mut sum = RecordCounts::default();
    for topic in figures.topics.values() {
        sum.consumed += topic.consumed;
        sum.settled += topic.settled;
        sum.dead_lettered += topic.dead_lettered;
        sum.dropped += topic.dropped;
    }
    sum
}

fn partition(lane: &LaneFigures) -> PartitionView {
    let (state, reason) = match &lane.state {
        LaneState::Running => ("running", None),
        LaneState::BackingOff(reason) => ("backing_off", Some(clip(reason))),
        LaneState::Blocked(reason) => ("blocked", Some(clip(reason))),
        LaneState::Draining => ("draining", None),
    };
    let stalled = lane.stalled.as_ref();
    PartitionView {
        topic: lane.topic.to_string(),
        partition: lane.partition,
        state: state.to_owned(),
        reason: reason.or_else(|| stalled.map(|stalled| clip(&stalled.reason))),
        committed: lane.committed,
        committable: lane.committable,
        open: lane.open,
        lag: lane.lag,
        stalled_seconds: stalled.map(|stalled| stalled.time.as_secs()),
    }
}

/// What keeps the pipeline as a whole, and what follows from it.
fn whole(status: &PipelineStatus, state: State, reason: Option<&str>) -> Option<Why> {
    let PipelineStatus { name, group, .. } = status;
    let look = || format!("sluicebox status {name} --why");
    let members = || format!("kafka-consumer-groups.sh --describe --members --group {group}");
    let (reason, next) = match (state, reason) {
        (State::Running, None) => return None,
        (State::Running, Some(reason)) => (reason, vec![look()]),
        (State::Starting, reason) => (reason.unwrap_or("it was not begun yet"), vec![look()]),
        // What it waits for is outside of it, and it goes on by itself: only the reason can say what to do.
        (State::Waiting, reason) => (reason.unwrap_or("it waits to begin"), vec![look()]),
        (State::Joining, reason) => (reason.unwrap_or("it waits for its group's first assignment"), vec![members()]),
        (State::Paused, reason) => {
            let deploy = format!("sluicebox deploy {name} handler.wasm");
            (reason.unwrap_or("it was asked to"), vec![format!("sluicebox resume {name}"), deploy])
        }
        (State::Draining, reason) => (reason.unwrap_or("it finishes what it began, then it ends"), vec![look()]),
        (State::Stopped, reason) => (
            reason.unwrap_or("the host was asked to stop"),
            vec!["restart the host when that is dealt with".to_owned()],
        ),
    };
    Some(Why { cause: state.name().to_owned(), reason: clip(reason), next, ..Why::default() })
}

/// What keeps a lane.
fn of_lane(name: &str, lane: &LaneFigures) -> Option<Why> {
    let stalled = lane.stalled.as_ref();
    let seconds = stalled.map(|stalled| stalled.time.as_secs());
    let (cause, reason) = match (&lane.state, stalled) {
        (LaneState::Blocked(reason), _) => ("blocked", reason),
        (LaneState::BackingOff(reason), _) => ("retry", reason),
        (_, Some(stalled)) => (stalled.cause.name(), &stalled.reason),
        (LaneState::Running | LaneState::Draining, None) => return None,
    };
    let next = match &lane.state {
        LaneState::Blocked(_) => {
            vec![format!("sluicebox deploy {name} handler.wasm"), "set `dead_letter` under [errors]".to_owned()]
        }
        _ => vec![format!("sluicebox status {name} --partitions")],
    };
    let partition = Some(format!("{}[{}]", lane.topic, lane.partition));
    Some(Why { partition, cause: cause.to_owned(), reason: clip(reason), seconds, next })
}

/// Records that retention will not wait for.
fn in_danger(group: &str, lane: &LaneFigures) -> Option<Why> {
    let what = match lane.danger {
        Danger::None => return None,
        Danger::Soon => "will soon be",
        Danger::Gone => "is",
    };
    let topic = &lane.topic;
    Some(Why {
        partition: Some(format!("{topic}[{}]", lane.partition)),
        cause: "retention".to_owned(),
        reason: format!("the oldest open message {what} deleted by retention"),
        seconds: None,
        next: vec![
            format!("kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config retention.ms=-1"),
            format!("kafka-consumer-groups.sh --describe --group {group}"),
        ],
    })
}
