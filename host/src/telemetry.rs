//! Every event that the host says something about, in one place: one function per event. `warn` means "recovered or
//! trying again", `error` means that an operator has to act. Metrics are encoded in `admin/metrics.rs` from the same
//! figures.

use std::path::Path;
use std::time::Duration;

use crate::config::{LostOffset, Report};
use crate::delivery::retention::Danger;
use crate::delivery::stall::Cause;
use crate::live::admission::Refused;
use crate::live::store::StoreError;
use crate::pipeline::control::{Conflict, Progress, Stage};
use crate::pipeline::sink::Failure;
use crate::pipeline::status::State;
use crate::plugin::{CacheError, Fault, Place, TailLine};

/// A pipeline is in another state, or in the same one for another reason.
pub fn pipeline_state(pipeline: &str, state: State, reason: Option<&str>) {
    match (state, reason) {
        (State::Waiting, Some(reason)) => tracing::warn!(pipeline, "waiting: {reason}"),
        (State::Stopped, Some(reason)) => {
            tracing::error!(
                pipeline,
                "stopped: {reason}; when that is dealt with, give it another version of its handler, or restart the host"
            );
        }
        (State::Paused, Some(reason)) => tracing::error!(pipeline, "paused: {reason}"),
        (_, Some(reason)) => tracing::warn!(pipeline, "{}: {reason}", state.name()),
        (_, None) => tracing::info!(pipeline, "{}", state.name()),
    }
}

/// The component of a pipeline changed on disk.
pub fn swap_found(pipeline: &str, path: &Path, digest: &str) {
    tracing::info!(pipeline, version = digest, "{} changed: trying it", path.display());
}

/// A component that changed cannot be read; it is tried again when it changes again.
pub fn swap_unreadable(pipeline: &str, path: &Path, error: &std::io::Error) {
    tracing::warn!(pipeline, "{} changed and cannot be read: {error}; the version that runs goes on", path.display());
}

/// What came does not take the place of what runs.
pub fn swap_refused(pipeline: &str, path: &Path, digest: &str, serving: &str, why: &Refused) {
    tracing::error!(pipeline, version = digest, serving, "{} is not taken over: {why}", path.display());
}

/// Somebody else's order was faster.
pub fn swap_conflict(pipeline: &str, conflict: &Conflict) {
    tracing::warn!(pipeline, "{conflict}");
}

/// Manifests changed, and cannot be read as they are.
pub fn reload_refused(report: &Report) {
    tracing::error!(
        "a manifest changed and is not taken over, everything goes on as before:\n{}",
        report.render(false)
    );
}

/// A pipeline is new in the manifests.
pub fn reload_other(pipeline: &str) {
    tracing::warn!("pipeline `{pipeline}` is new in the manifests: it begins when the host is restarted");
}

/// Lanes have switched, or gone back.
pub fn swapped(pipeline: &str, progress: &Progress) {
    let Progress { from, to, stage, gaps, in_flight, took, prepared, .. } = progress;
    let (compile_ms, canary_ms, took_ms) = (ms(prepared.compile), ms(prepared.canary), ms(*took));
    let (gap_p50_ms, gap_p99_ms, gap_max_ms) = (ms(gaps.p50), ms(gaps.p99), ms(gaps.max));
    let (from, to, lanes) = (&**from, &**to, gaps.lanes);
    macro_rules! say {
        ($level:ident, $($text:tt)*) => {
            tracing::$level!(
                pipeline, from, to, compile_ms, canary_ms, took_ms, lanes, gap_p50_ms, gap_p99_ms, gap_max_ms, in_flight,
                $($text)*
            )
        };
    }
    match stage {
        Stage::RolledBack(reason) => say!(error, "went back to the version before: {reason}"),
        Stage::Canary => say!(info, "the canary runs the new version"),
        _ => say!(info, "swapped: every partition runs the new version"),
    }
}

/// Milliseconds, to a thousandth.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// Handlers are compiled at every start, because what was compiled cannot be kept.
pub fn no_cache(error: &CacheError) {
    tracing::warn!("{error}; until then plugins are compiled at every start");
}

/// Versions cannot be kept on disk.
pub fn no_store(error: &StoreError) {
    tracing::warn!(
        "{error}; until then nothing can be deployed or rolled back, and a restart begins with what manifests name"
    );
}

/// A restart goes on with what was deployed, not with what the manifest names.
pub fn begins_with_deployed(pipeline: &str, digest: &str, named: &str) {
    tracing::info!(
        pipeline,
        version = digest,
        "begins with the version that was deployed last; the manifest names {named}, which counts again when that file changes"
    );
}

/// A version is served and not written down.
pub fn version_not_noted(pipeline: &str, error: &StoreError) {
    tracing::error!(pipeline, "a restart would begin with the version before: {error}");
}

/// Partitions were assigned.
pub fn assigned(pipeline: &str, partitions: &str) {
    tracing::info!(pipeline, "assigned {partitions}");
}

/// Partitions were given back, or lost.
pub fn revoked(pipeline: &str, partitions: &str, lost: bool) {
    if lost {
        tracing::warn!(pipeline, "lost {partitions}: what was not committed is done again by the next owner");
    } else {
        tracing::info!(pipeline, "gave back {partitions}");
    }
}

/// The drain budget of a revocation or shutdown is used up.
pub fn drain_gave_up(pipeline: &str, who: &str) {
    tracing::warn!(pipeline, "did not finish in time and leaves its records to the next owner: {who}");
}

/// Partitions were given back, and what was done of them last is not known to be committed.
pub fn left_uncommitted(pipeline: &str, who: &str) {
    tracing::warn!(pipeline, "the last commit was not confirmed; the next owner may repeat records of {who}");
}

/// A shutdown waits for lanes.
pub fn still_draining(pipeline: &str, who: &str, left: Duration) {
    tracing::info!(pipeline, "draining, {} s left; busy: {who}", left.as_secs());
}

/// A commit failed; it is tried again.
pub fn commit_failed(pipeline: &str, reason: &str) {
    tracing::warn!(pipeline, "commit failed, it is tried again: {reason}");
}

/// A partition's position is not in its log any more.
pub fn offset_lost(pipeline: &str, what: &str, skipped: u64, policy: LostOffset) {
    let then = match policy {
        LostOffset::Earliest => "goes on at the oldest record that is there",
        LostOffset::Latest => "goes on at the next record that comes",
        LostOffset::Stop => "stops",
    };
    tracing::error!(pipeline, skipped, "{what}; {skipped} records are skipped, the pipeline {then}");
}

/// A pause because of failed records is over.
pub fn tries_again(pipeline: &str) {
    tracing::info!(pipeline, "tries again after its pause, one call at a time");
}

/// Few enough records fail again.
pub fn recovered(pipeline: &str) {
    tracing::info!(pipeline, "records go through again");
}

/// A partition stands still though it has something to do.
pub fn stands_still(pipeline: &str, partition: &str, offset: Option<i64>, time: Duration, cause: Cause, reason: &str) {
    let (at, seconds) = (offset.map_or_else(String::new, |offset| format!("@{offset}")), time.as_secs());
    tracing::warn!(pipeline, cause = cause.name(), "{partition}{at} stands still for {seconds} s: {reason}");
}

/// It does not any more.
pub fn moves_again(pipeline: &str, partition: &str) {
    tracing::info!(pipeline, "{partition} moves again");
}

/// The record at which a partition stands will not be there much longer, or is gone.
pub fn near_deletion(pipeline: &str, partition: &str, offset: i64, danger: Danger, notice: Duration) {
    match danger {
        Danger::None => {}
        Danger::Soon => tracing::error!(
            pipeline,
            "{partition}@{offset} is not done, and is deleted by its topic's retention within {} s: let the topic keep its \
             records for longer (retention.ms), or help the partition to get on",
            notice.as_secs()
        ),
        Danger::Gone => tracing::error!(
            pipeline,
            "{partition}@{offset} is not done, and is deleted from its topic: this host still has it, whoever owns the \
             partition next will not get it"
        ),
    }
}

/// Partitions were added to input topics.
pub fn new_inputs(pipeline: &str, partitions: &str) {
    tracing::warn!(
        pipeline,
        "new partitions, read from their first record on: {partitions}; keys map to others from now on"
    );
}

/// Partitions were added to a topic that is written.
pub fn topic_grew(pipeline: &str, topic: &str, before: u32, now: u32) {
    tracing::warn!(
        pipeline,
        "topic `{topic}` has {now} partitions, and had {before}: all are written to, and keys map to others from now on"
    );
}

/// Something is wrong with a cluster or topic; the client goes on trying.
pub fn trouble(pipeline: &str, reason: &str) {
    tracing::warn!(pipeline, "{reason}");
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Pipeline.
    pub pipeline: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// A message failed an attempt and is tried again.
pub fn retrying(at: At<'_>, attempt: u32, failure: &Failure, wait: Duration) {
    let At { pipeline, topic, partition, offset } = at;
    tracing::warn!(
        pipeline,
        topic,
        partition,
        offset,
        attempt,
        class = failure.class,
        "attempt {attempt} failed, next in {} ms: {}",
        wait.as_millis(),
        failure.reason
    );
}

/// A lane stands still at a message.
pub fn blocked(at: At<'_>, attempt: u32, failure: &Failure, wait: Duration) {
    let At { pipeline, topic, partition, offset } = at;
    tracing::error!(
        pipeline,
        topic,
        partition,
        offset,
        attempt,
        class = failure.class,
        "lane blocked at {topic}[{partition}]@{offset}, tried again every {} s or so: {}; set a dead-letter topic, or \
         deploy a handler that can take it",
        wait.as_secs(),
        failure.reason
    );
}

/// The broker refuses what was made of a message; the message follows the failure policy.
pub fn refused(at: At<'_>, reason: &str) {
    let At { pipeline, topic, partition, offset } = at;
    tracing::warn!(
        pipeline,
        topic,
        partition,
        offset,
        class = "refused",
        "a record made of this one is refused: {reason}"
    );
}

/// A record is given up, by declared policy.
pub fn dropped(at: At<'_>, attempts: u32, failure: &Failure) {
    let At { pipeline, topic, partition, offset } = at;
    let (class, reason) = (failure.class, &failure.reason);
    tracing::warn!(pipeline, topic, partition, offset, attempts, class, "dropped: {reason}");
}

/// The failure policy stops the pipeline at a record.
pub fn stopped(at: At<'_>, attempts: u32, failure: &Failure) {
    let At { pipeline, topic, partition, offset } = at;
    let (class, reason) = (failure.class, &failure.reason);
    tracing::error!(
        pipeline,
        topic,
        partition,
        offset,
        attempts,
        class,
        "the pipeline stops at {topic}[{partition}]@{offset} (errors.then = \"stop\"): {reason}; mend the handler or the \
         record, then restart the host: it begins at this record"
    );
}

/// A call that no message asks for failed.
pub fn call_failed(at: At<'_>, what: &str, attempt: u32, failure: &Failure, blocks: bool, wait: Duration) {
    let At { pipeline, topic, partition, .. } = at;
    let (class, reason, wait) = (failure.class, &failure.reason, wait.as_millis());
    if blocks {
        tracing::error!(
            pipeline,
            topic,
            partition,
            attempt,
            class,
            "lane blocked: {what} fails, tried again every {} s or so: {reason}; deploy a handler that can",
            wait / 1000
        );
    } else {
        tracing::warn!(pipeline, topic, partition, attempt, class, "{what} failed, next in {wait} ms: {reason}");
    }
}

/// Acks of messages that are not held any more.
pub fn late_acks(at: At<'_>, count: u64) {
    let At { pipeline, topic, partition, .. } = at;
    tracing::debug!(pipeline, topic, partition, "{count} acks came for messages that are not held any more");
}

/// A record is not there any more, when its dead letter should be written.
pub fn source_gone(at: At<'_>, failure: &Failure) {
    let At { pipeline, topic, partition, offset } = at;
    let (class, reason) = (failure.class, &failure.reason);
    tracing::error!(
        pipeline,
        topic,
        partition,
        offset,
        class,
        "no dead letter: the record is gone from its topic (retention, compaction or deletion): {reason}"
    );
}

/// A blocked lane goes on.
pub fn unblocked(at: At<'_>) {
    let At { pipeline, topic, partition, offset } = at;
    tracing::info!(pipeline, topic, partition, offset, "lane goes on");
}

/// A call for several messages failed.
pub fn isolating(at: At<'_>, messages: usize, failure: &Failure) {
    let At { pipeline, topic, partition, .. } = at;
    tracing::warn!(
        pipeline,
        topic,
        partition,
        class = failure.class,
        "a call for {messages} messages failed, they run by themselves now: {}",
        failure.reason
    );
}

/// A handler's call ended without an answer: all that its author and the operator need to know, in one entry.
pub fn handler_fault(pipeline: &str, version: &str, fault: &Fault, place: Option<&Place>, next: Option<&str>) {
    let class = fault.class.name();
    let report = fault_report(fault, place, version, next);
    match place {
        Some(Place { topic, partition, offsets: Some((first, last)), attempt, .. }) => tracing::warn!(
            pipeline,
            version,
            topic = &**topic,
            partition,
            offset = first,
            last_offset = last,
            attempt,
            class,
            "handler: {report}"
        ),
        Some(Place { topic, partition, .. }) => {
            tracing::warn!(pipeline, version, topic = &**topic, partition, class, "handler: {report}");
        }
        None => tracing::warn!(pipeline, version, class, "handler: {report}"),
    }
}

/// Events of single records were not written down one by one: there were too many.
pub fn records_left_out(pipeline: &str, count: u64, what: &str) {
    tracing::warn!(pipeline, "not written down one by one: {count} more {what}");
}

/// Faults were not reported one by one: there were too many.
pub fn handler_faults_left_out(pipeline: &str, version: &str, count: u64) {
    tracing::warn!(
        pipeline,
        version,
        "{count} more faults were not reported one by one; sluicebox_handler_traps_total counts all of them"
    );
}

/// Reason, place, frames, last lines, what to do; a line each.
fn fault_report(fault: &Fault, place: Option<&Place>, version: &str, next: Option<&str>) -> String {
    let mut report = format!("{}: {}", fault.class, fault.text);
    let mut line = |text: &str| {
        report.push_str("\n    ");
        report.push_str(text);
    };
    match place {
        Some(place) if place.messages > 1 => {
            line(&format!("in a call for {} messages, {place}, version {version}", place.messages));
        }
        Some(place) if place.messages == 1 => {
            line(&format!("{place}, attempt {}, version {version}", place.attempt));
        }
        Some(place) => line(&format!("{place}, version {version}")),
        None => line(&format!("version {version}")),
    }
    for frame in &fault.frames {
        line(&format!("at {frame}"));
    }
    if !fault.tail.is_empty() {
        line("it wrote last:");
        for TailLine { source, text, .. } in &fault.tail {
            line(&format!("  {}: {text}", source.name()));
        }
    }
    for text in fault.advice.iter().map(String::as_str).chain(next) {
        line(&format!("next: {text}"));
    }
    report
}

/// A record goes to the dead-letter topic.
pub fn dead_letter(at: At<'_>, attempts: u32, failure: &Failure) {
    let At { pipeline, topic, partition, offset } = at;
    tracing::warn!(
        pipeline,
        topic,
        partition,
        offset,
        attempts,
        class = failure.class,
        "dead letter: {}",
        failure.reason
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{FaultClass, LineSource, LogLevel};

    #[test]
    fn a_report_says_what_where_and_what_to_do() {
        let tail = |source, text: &str| TailLine { source, text: text.to_owned(), of_this_call: true };
        let fault = Fault {
            class: FaultClass::Panic,
            text: "panicked at src/lib.rs:41:18: invalid amount".to_owned(),
            frames: vec!["orders::parse (src/lib.rs:41)".to_owned()],
            tail: vec![tail(LineSource::Log(LogLevel::Info), "hm"), tail(LineSource::Stderr, "oh")],
            advice: Some("look".to_owned()),
        };
        let place = Place { topic: "orders".into(), partition: 7, offsets: Some((5, 5)), messages: 1, attempt: 2 };
        let report = fault_report(&fault, Some(&place), "9f3c", Some("kcat"));
        let expected = "panic: panicked at src/lib.rs:41:18: invalid amount
    orders[7]@5, attempt 2, version 9f3c
    at orders::parse (src/lib.rs:41)
    it wrote last:
      info: hm
      stderr: oh
    next: look
    next: kcat";
        assert_eq!(report, expected);
        let burst = Place { offsets: Some((5, 9)), messages: 4, ..place };
        assert!(
            fault_report(&fault, Some(&burst), "9f3c", None)
                .contains("in a call for 4 messages, orders[7]@5..9, version")
        );
    }
}
