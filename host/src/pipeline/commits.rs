//! Commits of a run. Invariant: what is committed for a partition is the committable offset of the lane that owns it now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::port::{Code, Edges, Group, PartitionOffset, Queue, problem};
use super::run::{Run, Slot};
use crate::delivery::ticket::LaneId;
use crate::telemetry;

/// How long commits wait after one that was refused as no member's. librdkafka puts its next heartbeat off by up to a second
/// (`retry.backoff.max.ms`) at each of these; commits that came faster would keep it from the very heartbeat by which it learns
/// what it is in the group.
const AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// How long a member may hear nothing else than such refusals. Whoever is still a member, or is told that it is none any more,
/// needs one heartbeat, which the refusals call for; a client that does not join again by then never will.
const REFUSED: Duration = Duration::from_secs(15);

/// Commits that the group refuses as those of no member of its.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    /// The first and the last of them, with nothing in between that would say that the member is one.
    time: Option<(Instant, Instant)>,
}

impl Refusals {
    /// A commit was taken, or the group shared its partitions out.
    pub(super) const fn over(&mut self) {
        self.time = None;
    }

    /// A commit was refused. True when that has gone on for too long.
    fn refused(&mut self, now: Instant) -> bool {
        let first = self.time.map_or(now, |(first, _)| first);
        self.time = Some((first, now));
        now.saturating_duration_since(first) >= REFUSED
    }

    /// Commits wait until then.
    fn until(self) -> Option<Instant> {
        self.time.map(|(_, last)| last + AFTER_REFUSAL)
    }
}

impl<E: Edges> Run<E> {
    /// Commits when it is time. True when that changed something for lanes.
    pub(super) fn commit(&mut self, now: Instant) -> Result<bool, String> {
        if self.commit_in_flight || self.leaving.is_some() {
            return Ok(false);
        }
        // With mode "receive" messages wait for it.
        let awaited = self.swap.serving().rules.receive && self.any_awaits_commit();
        let waits = self.refusals.until().is_some_and(|until| now < until);
        if now < self.next_commit() && (!awaited || waits) {
            return Ok(false);
        }
        let all = self.active.clone();
        let passed = self.pass_gaps(&all);
        Ok(self.commit_lanes(&all, now)? || passed)
    }

    /// When the next one is due.
    pub(super) fn next_commit(&self) -> Instant {
        let due = self.last_commit + self.parts.config.ack.commit_interval;
        self.refusals.until().map_or(due, |until| due.max(until))
    }

    /// A lane has messages that may be offered once their commit was answered, and no such commit failed a moment ago.
    fn any_awaits_commit(&self) -> bool {
        let lanes = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        lanes.into_iter().any(|slot| slot.lane.awaits_commit() && slot.dirty().is_some() && !slot.commit_failed)
    }

    /// Lets lanes whose records were all handed out know how far the log has been read. True when one did not know.
    pub(super) fn pass_gaps(&mut self, lanes: &[LaneId]) -> bool {
        let mut any = false;
        let idle: Vec<LaneId> = lanes
            .iter()
            .copied()
            .filter(|id| self.lanes[*id as usize].as_ref().is_some_and(|slot| slot.queue.is_read_up()))
            .collect();
        let places = idle.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let places: Vec<(Arc<str>, i32)> =
            places.map(|slot| (Arc::clone(&slot.lane.topic), slot.lane.partition)).collect();
        let positions = self.parts.group.positions(places.iter().map(|(topic, partition)| (&**topic, *partition)));
        for (id, position) in idle.iter().zip(positions) {
            if let (Some(slot), Some(position)) = (self.lanes[*id as usize].as_mut(), position) {
                // Where a topic was made anew, or its log was cut, librdkafka may show the old log's position for good.
                let end = self.parts.group.log_end(&slot.lane.topic, slot.lane.partition);
                if end.is_some_and(|end| position > end) {
                    continue;
                }
                mark!(GapPassed);
                let before = slot.lane.next_offset();
                slot.lane.skip_to(position);
                any |= slot.lane.next_offset() != before;
            }
        }
        any
    }

    /// Sends a commit of what is settled in these lanes. False when there was nothing to send, or when an earlier commit is
    /// not answered: while the broker is away librdkafka keeps commits and sends them again in any order, so a second one
    /// could be overtaken by the first.
    pub(super) fn commit_lanes(&mut self, lanes: &[LaneId], now: Instant) -> Result<bool, String> {
        if self.commit_in_flight {
            return Ok(false);
        }
        let mut offsets = Vec::new();
        for id in lanes {
            if let Some(slot) = self.lanes[*id as usize].as_mut()
                && let Some(offset) = slot.dirty()
            {
                slot.committing = Some(offset);
                slot.commit_failed = false;
                slot.lane.on_commit_sent();
                offsets.push((Arc::clone(&slot.lane.topic), slot.lane.partition, offset));
            }
        }
        self.last_commit = now;
        if offsets.is_empty() {
            return Ok(false);
        }
        self.parts.group.commit(offsets.iter().map(|(topic, partition, offset)| (&**topic, *partition, *offset)))?;
        self.commit_in_flight = true;
        Ok(true)
    }

    pub(super) fn committed(&mut self, result: Code, partitions: &[PartitionOffset], now: Instant) {
        let mut failed = None;
        for partition in partitions {
            let ours = |slot: &&mut Box<Slot<E>>| {
                *slot.lane.topic == *partition.topic && slot.lane.partition == partition.partition
            };
            // Of the lane that owns the partition now, and that awaits it; a commit of an earlier owner's is nobody's any more.
            if let Some(slot) = self.lanes.iter_mut().flatten().find(ours)
                && let Some(offset) = slot.committing.take_if(|offset| *offset == partition.offset)
            {
                match if result == Code::RD_KAFKA_RESP_ERR_NO_ERROR { partition.error } else { result } {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                        slot.committed = Some(offset);
                        slot.lane.on_committed(offset);
                        self.refusals.over();
                    }
                    code => {
                        slot.commit_failed = true;
                        slot.lane.on_commit_over();
                        failed = Some(code);
                    }
                }
            } else {
                mark!(StaleCommitAnswer);
            }
        }
        // Also when it was of partitions that were given back meanwhile: one commit, one answer.
        self.commit_in_flight = false;
        match failed {
            None => {
                self.parts.outlets.figures.commits[0] += 1;
                self.troubles.over("commit");
                self.show_troubles();
            }
            Some(code) => {
                mark!(CommitFailed);
                self.parts.outlets.figures.commits[1] += 1;
                let reason = problem::explain(code, "");
                telemetry::commit_failed(&self.parts.config.name, &reason);
                if problem::is_no_member(code) && self.refusals.refused(now) && !self.closing {
                    mark!(RefusedForTooLong);
                    planted!(StayForgotten, { return });
                    self.refusals.over();
                    self.fail(format!(
                        "group {} refuses commits of this member since {} s, and nothing was said of a rebalance ({reason}): \
                         it joins anew",
                        self.parts.config.source.group,
                        REFUSED.as_secs()
                    ));
                } else if !problem::is_rebalance(code) {
                    self.troubles.add("commit", format!("commit failed: {reason}"));
                    self.show_troubles();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Refusals have to last: one long after another, with a commit that was taken between them, are two short ones.
    #[test]
    fn refusals_that_last_are_too_many() {
        let (start, mut refusals) = (Instant::now(), Refusals::default());
        assert!(!refusals.refused(start));
        assert!(!refusals.refused(after(start, 14)));
        assert!(refusals.refused(after(start, 15)));
        refusals.over();
        assert_eq!(refusals, Refusals::default());
        assert!(!refusals.refused(after(start, 60)), "it begins anew");
        assert!(!refusals.refused(after(start, 74)));
        assert!(refusals.refused(after(start, 90)));
    }

    /// The next commit waits after the last refusal, not after the first.
    #[test]
    fn commits_wait_after_each_refusal() {
        let (start, mut refusals) = (Instant::now(), Refusals::default());
        assert_eq!(refusals.until(), None);
        refusals.refused(start);
        assert_eq!(refusals.until(), Some(after(start, 2)));
        refusals.refused(after(start, 2));
        assert_eq!(refusals.until(), Some(after(start, 4)));
    }
}
