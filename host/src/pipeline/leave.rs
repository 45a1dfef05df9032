//! Giving partitions back: stop intake, drain, commit, fence, release. The same steps for a revocation and for the end of
//! the process, each with a deadline.
//!
//! *Revoked* partitions may be committed; *lost* ones may not: another member owns them.

use std::time::{Duration, Instant};

use sluicebox_frames::Trigger;

use super::names::names;
use super::port::{Edges, Event, Group, PartitionOffset};
use super::run::Run;
use super::status::State;
use crate::delivery::ticket::LaneId;
use crate::telemetry;

/// Budget for finishing what is under way when partitions are revoked. Short: until then no partition is fetched from.
const REVOKE_DRAIN: Duration = Duration::from_secs(5);
/// Budget for the same when the pipeline stops for good.
const HALT_DRAIN: Duration = Duration::from_secs(30);
/// Budget for the answer to the last commit.
const COMMIT: Duration = Duration::from_secs(5);
/// Budget for leaving the group.
const CLOSE: Duration = Duration::from_secs(5);
/// Budget for leaving the group after a failed run.
const ABANDON: Duration = Duration::from_secs(2);
/// How often a failed run looks whether it has left.
pub(super) const LEFT: Duration = Duration::from_millis(20);
/// How often a shutdown says who is still busy.
const SAY: Duration = Duration::from_secs(2);

/// Partitions on their way out.
pub(super) struct Leaving {
    lanes: Vec<LaneId>,
    /// What librdkafka asked for; `None` for a shutdown, which drains before the group is left.
    partitions: Option<Vec<PartitionOffset>>,
    step: Step,
    deadline: Instant,
    say: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// What handlers saw becomes durable.
    Drain,
    /// What is settled is committed.
    Commit,
    /// A commit was sent.
    AwaitCommit,
    /// The group is being left.
    Close,
}

/// A run that failed, on its way out.
pub(super) struct Abandoned {
    reason: String,
    deadline: Instant,
}

impl Leaving {
    /// The last step.
    fn close(now: Instant) -> Self {
        Self { lanes: Vec::new(), partitions: None, step: Step::Close, deadline: now + CLOSE, say: now + CLOSE }
    }

    /// Which leaving it is: of a revocation, or of the end.
    pub(super) fn is_of(&self) -> (bool, usize) {
        (self.partitions.is_some(), self.lanes.len())
    }

    /// True for a lane that is given back.
    pub(super) fn has(&self, lane: LaneId) -> bool {
        self.lanes.contains(&lane)
    }

    /// When it goes on though nothing happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(if self.step == Step::Drain { self.deadline.min(self.say) } else { self.deadline })
    }
}

impl<E: Edges> Run<E> {
    pub(super) fn revoked(&mut self, partitions: Vec<PartitionOffset>, lost: bool, now: Instant) -> Result<(), String> {
        let lanes: Vec<LaneId> = partitions
            .iter()
            .filter_map(|partition| {
                let ours = |id: &&LaneId| {
                    self.lanes[**id as usize].as_ref().is_some_and(|slot| {
                        *slot.lane.topic == *partition.topic && slot.lane.partition == partition.partition
                    })
                };
                self.active.iter().find(ours).copied()
            })
            .collect();
        self.refusals.over();
        let ours = |placing: &PartitionOffset| {
            partitions.iter().any(|gone| gone.topic == placing.topic && gone.partition == placing.partition)
        };
        self.placing.retain(|(_, placing)| !ours(placing));
        if lost {
            self.parts.outlets.figures.rebalances[2] += 1;
            telemetry::revoked(&self.parts.config.name, &names(&partitions), true);
            if lanes.iter().any(|id| self.lanes[*id as usize].as_ref().is_some_and(|slot| slot.lane.open() > 0)) {
                mark!(LostWithWorkOpen);
            }
            return self.release(&lanes, &partitions);
        }
        self.parts.outlets.figures.rebalances[1] += 1;
        let already = self.close_begun;
        for id in &lanes {
            if let Some(slot) = &mut self.lanes[*id as usize] {
                slot.lane.drain(if self.closing { Trigger::Shutdown } else { Trigger::Revoke });
            }
        }
        // After a shutdown's own drain there is nothing left to wait for.
        let budget = if already { Duration::ZERO } else { REVOKE_DRAIN };
        self.leaving = Some(Leaving {
            lanes,
            partitions: Some(partitions),
            step: Step::Drain,
            deadline: now + budget,
            say: now + SAY,
        });
        Ok(())
    }

    pub(super) fn begin_shutdown(&mut self, now: Instant) {
        if self.leaving.is_some() {
            return; // a revocation is under way; it has its own deadline
        }
        self.closing = true;
        if self.failure.is_none() {
            self.parts.status.set(State::Draining, self.stopped.clone());
        }
        let lanes = self.active.clone();
        for id in &lanes {
            if let Some(slot) = &mut self.lanes[*id as usize] {
                slot.lane.drain(Trigger::Shutdown);
            }
        }
        let own = if self.stopped.is_some() { HALT_DRAIN } else { REVOKE_DRAIN };
        let deadline = self.parts.stop.deadline().unwrap_or(now + own);
        self.leaving = Some(Leaving { lanes, partitions: None, step: Step::Drain, deadline, say: now + SAY });
    }

    /// Takes the next step of leaving when it is time. True when the group is left and the run is over.
    pub(super) fn go_on_leaving(&mut self, now: Instant) -> Result<bool, String> {
        loop {
            let Some(leaving) = &mut self.leaving else { return Ok(false) };
            let lanes = leaving.lanes.clone();
            match leaving.step {
                Step::Drain => {
                    if let Some(deadline) = self.parts.stop.deadline().filter(|_| leaving.partitions.is_none()) {
                        leaving.deadline = leaving.deadline.min(deadline);
                    }
                    let drained = lanes
                        .iter()
                        .all(|id| self.lanes[*id as usize].as_ref().is_none_or(|slot| slot.lane.is_drained()));
                    if !drained && now < leaving.deadline {
                        if now >= leaving.say {
                            leaving.say = now + SAY;
                            // A revocation is short; what it waits for is said when it gives up.
                            if leaving.partitions.is_none() {
                                let left = leaving.deadline - now;
                                let busy = self.busy(&lanes);
                                telemetry::still_draining(&self.parts.config.name, &busy, left);
                            }
                        }
                        return Ok(false);
                    }
                    leaving.step = Step::Commit;
                    leaving.deadline = now + COMMIT;
                    if !drained {
                        let busy = self.busy(&lanes);
                        if !busy.is_empty() {
                            mark!(DrainGaveUp);
                            if self.closing && self.failure.is_none() {
                                self.parts.status.left_unfinished();
                            }
                            telemetry::drain_gave_up(&self.parts.config.name, &busy);
                        }
                    }
                }
                Step::Commit => {
                    // A commit that was sent before has to be answered first, or it could come after this one; when it is
                    // not, what was settled since is left to the next owner, who makes it again.
                    if self.commit_in_flight && now < leaving.deadline {
                        return Ok(false);
                    }
                    if !self.commit_in_flight {
                        self.pass_gaps(&lanes);
                    }
                    let sent = self.commit_lanes(&lanes, now)?;
                    let Some(leaving) = &mut self.leaving else { return Ok(false) };
                    leaving.step = Step::AwaitCommit;
                    if !sent {
                        leaving.deadline = now;
                    }
                }
                Step::AwaitCommit => {
                    if self.commit_in_flight && now < leaving.deadline {
                        return Ok(false);
                    }
                    if self.commit_in_flight {
                        mark!(CommitGivenUp);
                    }
                    let partitions = leaving.partitions.take();
                    if let Some(partitions) = partitions {
                        let uncommitted = self.uncommitted(&lanes);
                        if !uncommitted.is_empty() {
                            if self.closing && self.failure.is_none() {
                                self.parts.status.left_unfinished();
                            }
                            telemetry::left_uncommitted(&self.parts.config.name, &uncommitted);
                        }
                        telemetry::revoked(&self.parts.config.name, &names(&partitions), false);
                        self.leaving = None;
                        self.release(&lanes, &partitions)?;
                    }
                    if !self.closing {
                        continue;
                    }
                    if self.close_begun {
                        self.leaving = Some(Leaving::close(now));
                    } else if self.leaving.is_none() {
                        mark!(RevokedInShutdown);
                        // A revocation came while a shutdown drained: that goes on with the lanes that are left.
                        self.begin_shutdown(now);
                    } else {
                        // A last revocation comes now, which takes the steps above for what is left.
                        self.close_begun = true;
                        self.leaving = Some(Leaving::close(now));
                        self.parts.group.begin_close()?;
                    }
                }
                Step::Close => {
                    let closed = self.parts.group.is_closed();
                    if !closed && now >= leaving.deadline {
                        mark!(CloseGaveUp);
                    }
                    return Ok(closed || now >= leaving.deadline);
                }
            }
        }
    }

    /// Leaves the group at once, without a commit: the run failed, and its partitions should not wait for the session to
    /// time out before somebody (this pipeline's next run) takes them over.
    pub(super) fn abandon(&mut self, reason: String, now: Instant) {
        let lanes = std::mem::take(&mut self.active);
        for id in lanes {
            self.remove(id);
        }
        // A rebalance that waits for its answer would keep the group from being left.
        if let Some(partitions) = self.leaving.take().and_then(|leaving| leaving.partitions) {
            self.give_back(&partitions);
        }
        mark!(RunAbandoned);
        let deadline = if self.parts.group.begin_close().is_ok() { now + ABANDON } else { now };
        self.abandoned = Some(Abandoned { reason, deadline });
    }

    /// Why a run failed, once it has left its group or has tried long enough.
    pub(super) fn go_on_abandoning(&mut self, now: Instant) -> Option<String> {
        while let Some(event) = self.parts.group.poll() {
            if let Event::Revoked { partitions, .. } | Event::Assigned(partitions) = event {
                self.give_back(&partitions);
            }
        }
        let closed = self.parts.group.is_closed();
        self.abandoned.take_if(|abandoned| closed || now >= abandoned.deadline).map(|abandoned| abandoned.reason)
    }

    /// Answers a rebalance of a run that failed.
    fn give_back(&mut self, partitions: &[PartitionOffset]) {
        if let Err(reason) = self.parts.group.unassign(partitions) {
            telemetry::trouble(&self.parts.config.name, &reason);
        }
    }

    /// Lets go of lanes and gives their partitions back.
    fn release(&mut self, lanes: &[LaneId], partitions: &[PartitionOffset]) -> Result<(), String> {
        for id in lanes {
            self.remove(*id);
        }
        planted!(SendAfterRelease, { return self.parts.group.unassign(partitions) });
        self.parts.outlets.forget(lanes);
        self.parts.group.unassign(partitions)
    }
}
