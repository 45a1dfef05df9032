//! Commits of a run. Invariant: what is committed for a partition is the committable offset of the lane that owns it now.

use std::sync::Arc;
use std::time::Instant;

use super::port::{Code, Edges, Group, PartitionOffset, Queue, problem};
use super::run::{Run, Slot};
use crate::delivery::ticket::LaneId;
use crate::telemetry;

impl<E: Edges> Run<E> {
    pub(super) fn commit(&mut self, now: Instant) -> Result<(), String> {
        // With mode "receive" messages wait for it.
        let awaited = self.swap.serving().rules.receive && !self.commit_in_flight && self.any_awaits_commit();
        let due = now >= self.last_commit + self.parts.config.ack.commit_interval;
        if (due || awaited) && self.leaving.is_none() {
            let all = self.active.clone();
            self.commit_lanes(&all, now)?;
        }
        Ok(())
    }

    /// A lane has messages that may be offered once their commit was answered, and no such commit failed a moment ago.
    fn any_awaits_commit(&self) -> bool {
        let lanes = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        lanes.into_iter().any(|slot| slot.lane.awaits_commit() && slot.dirty().is_some() && !slot.commit_failed)
    }

    /// Lets lanes whose records were all handed out know how far the log has been read.
    pub(super) fn pass_gaps(&mut self, lanes: &[LaneId]) {
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
                mark!(GapPassed);
                slot.lane.skip_to(position);
            }
        }
    }

    /// Sends a commit of what is settled in these lanes. False when there was nothing to send, or when an earlier commit is
    /// not answered: while the broker is away librdkafka keeps commits and sends them again in any order, so a second one
    /// could be overtaken by the first.
    pub(super) fn commit_lanes(&mut self, lanes: &[LaneId], now: Instant) -> Result<bool, String> {
        if self.commit_in_flight {
            return Ok(false);
        }
        self.pass_gaps(lanes);
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

    pub(super) fn committed(&mut self, result: Code, partitions: &[PartitionOffset]) {
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
                if !problem::is_rebalance(code) {
                    self.troubles.add("commit", format!("commit failed: {reason}"));
                    self.show_troubles();
                }
            }
        }
    }
}
