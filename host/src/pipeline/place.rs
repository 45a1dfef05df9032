//! Where partitions begin, and what follows when a position is lost.
//!
//! A partition begins at what its group committed, or where `start` says; the group is asked before anything is read. A
//! position that is lost (retention was faster, the log was truncated, the topic is another one, librdkafka's own position
//! cannot be trusted) ends the ownership epoch of that partition and of no other: its lane takes nothing in any more, its
//! records meet their fate, and a new lane with a new epoch goes on.

use std::sync::Arc;
use std::time::Instant;

use sluicebox_frames::Trigger;

use super::lane::Lane;
use super::names::names;
use super::port::{
    BEGINNING, Code, END, Edges, Group, Handlers, PartitionOffset, Place, Queue, QueueOf, Start, Watch, problem,
};
use super::run::{Run, Slot};
use crate::config::LostOffset;
use crate::delivery::position::Next;
use crate::delivery::ticket::LaneId;
use crate::telemetry;

/// Partitions that were assigned and whose place is not known yet, with the number of the question.
pub(super) type Placing = Vec<(u64, PartitionOffset)>;

/// A lane on its way out of its epoch, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// librdkafka goes on at this offset. What the lane took in cannot be read again, so it is handled first.
    Jumped(i64),
    /// The same, and the log is another one: what was settled says nothing of it, and is not committed.
    Back(i64),
    /// librdkafka has to be told to read again from what is settled.
    Tainted,
}

/// A message that is not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) expected: i64,
    pub(super) came: i64,
    pub(super) next: Next,
}

/// The reason of a pipeline with `start = "none"` and a partition without a commit.
pub(super) fn nowhere(group: &str, partitions: &str) -> String {
    format!(
        "group {group} has no committed offset for {partitions}, and `source.start` is \"none\": commit one \
         (kafka-consumer-groups --reset-offsets), or let `source.start` say where to begin"
    )
}

impl<E: Edges> Run<E> {
    pub(super) fn assigned(&mut self, partitions: &[PartitionOffset]) -> Result<(), String> {
        let number = self.parts.group.look_up(partitions, self.parts.config.source.start)?;
        self.placing.extend(partitions.iter().map(|partition| (number, partition.clone())));
        self.parts.outlets.figures.rebalances[0] += 1;
        telemetry::assigned(&self.parts.config.name, &names(partitions));
        self.joined = true;
        self.refusals.over();
        self.cluster_works();
        Ok(())
    }

    /// Begins with the partitions whose places are known now, unless they were given back meanwhile.
    pub(super) fn placed(&mut self, number: u64, places: &[Place], now: Instant) -> Result<(), String> {
        let mut asked = std::mem::take(&mut self.placing);
        self.placing = asked.extract_if(.., |(other, _)| *other != number).collect();
        if self.closing || asked.is_empty() && !places.is_empty() {
            mark!(PlacedTooLate);
            return Ok(());
        }
        let ours = |place: &&Place| {
            asked.iter().any(|(_, asked)| asked.topic == place.topic && asked.partition == place.partition)
        };
        let places: Vec<&Place> = places.iter().filter(ours).collect();
        let mut wanted = Vec::with_capacity(places.len());
        let mut without = Vec::new();
        for place in &places {
            let offset = match (place.committed, self.parts.config.source.start) {
                (Some(committed), _) => Some(committed),
                // It was made while the pipeline ran: everything in it is new.
                (None, _) if self.is_new(place) => Some(0),
                (None, Start::Earliest) => Some(BEGINNING),
                (None, Start::Latest | Start::At(_) | Start::Ago(_)) => Some(place.since.unwrap_or(END)),
                (None, Start::None) => None,
            };
            let at = |offset| PartitionOffset {
                topic: place.topic.clone(),
                partition: place.partition,
                offset,
                error: Code::RD_KAFKA_RESP_ERR_NO_ERROR,
            };
            match offset {
                Some(offset) => wanted.push(at(offset)),
                None => without.push(at(END)),
            }
        }
        if !without.is_empty() {
            self.fail(nowhere(&self.parts.config.source.group, &names(&without)));
            return Ok(());
        }
        let is_new = |begin: &&PartitionOffset| {
            let known = self.parts.inputs.get(&begin.topic);
            known.is_some_and(|known| begin.partition.unsigned_abs() >= *known)
        };
        let new: Vec<PartitionOffset> = wanted.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            telemetry::new_inputs(&self.parts.config.name, &names(&new));
        }
        planted!(ClearBuffersOnAssign, {
            self.lanes.iter_mut().flatten().for_each(|slot| slot.lane.lose_buffers());
        });
        let queues = self.parts.group.assign(&wanted)?;
        for ((begin, place), queue) in wanted.iter().zip(places).zip(queues) {
            self.begin(&begin.topic, begin.partition, queue, begin.offset, place.committed, now)?;
        }
        self.cluster_works();
        Ok(())
    }

    /// The topic had fewer partitions when the run began.
    fn is_new(&self, place: &Place) -> bool {
        let known = self.parts.inputs.get(&place.topic);
        known.is_some_and(|known| place.partition.unsigned_abs() >= *known)
    }

    /// A new lane in a new ownership epoch. `begin` is an offset below which nothing is to be done, or librdkafka's word
    /// for one that is not known; `committed` what the group has.
    fn begin(
        &mut self,
        topic: &str,
        partition: i32,
        queue: QueueOf<E>,
        begin: i64,
        committed: Option<i64>,
        now: Instant,
    ) -> Result<(), String> {
        let topic = Arc::clone(self.topics.entry(topic.to_owned()).or_insert_with(|| topic.into()));
        let id = LaneId::try_from(self.lanes.len()).map_err(|_| "too many assignments in one run".to_owned())?;
        let revision = self.swap.revision_of(&topic, partition, &self.parts.inputs);
        let (epoch, rules) = (self.parts.group.next_epoch(), self.swap.rules_of(&revision));
        let start = Some(begin).filter(|begin| *begin >= 0);
        let mut lane = Lane::new(id, Arc::clone(&topic), partition, epoch, rules, start, now);
        if let Some(start) = start {
            lane.skip_to(start);
        }
        if let Some(committed) = committed {
            lane.on_committed(committed);
        }
        let handle = self.parts.handlers.open(id, &revision);
        #[cfg(test)]
        self.former.push((Arc::clone(&topic), partition));
        self.lanes.push(Some(Box::new(Slot::new(queue, lane, handle, revision, begin, committed))));
        self.active.push(id);
        Ok(())
    }

    /// A message came that is not the expected one, and there is nothing before it any more that waits for the lane.
    pub(super) fn jumped(&mut self, id: LaneId, jump: Jump) {
        let policy = self.parts.config.source.on_lost_offset;
        let Some(slot) = self.lanes[id as usize].as_mut() else { return };
        let Jump { expected, came, next } = jump;
        let latest = policy == LostOffset::Latest;
        let (skipped, renewal) = match next {
            Next::InOrder => return,
            // librdkafka went on at the end of the log, so what lies between is skipped, too.
            Next::Deleted { .. } if latest => (came.abs_diff(expected), Renewal::Jumped(came)),
            Next::Deleted { skipped } => (skipped, Renewal::Jumped(came)),
            Next::Back => {
                let start = self.parts.group.log_start(&slot.lane.topic, slot.lane.partition).filter(|_| latest);
                (start.map_or(0, |start| came.saturating_sub(start).unsigned_abs()), Renewal::Back(came))
            }
        };
        let what = match next {
            Next::Back => format!(
                "{}: offset {expected} is beyond the end of the log, which goes on at {came}: it was truncated, or the \
                 topic was made anew",
                slot.name()
            ),
            _ => format!("{}: records from offset {expected} on were deleted before they were read", slot.name()),
        };
        *self.parts.outlets.figures.lost_offsets.entry(Arc::clone(&slot.lane.topic)).or_default() += skipped;
        telemetry::offset_lost(&self.parts.config.name, &what, skipped, policy);
        if policy == LostOffset::Stop {
            let skipped = if skipped > 0 { format!(" ({skipped} of them)") } else { String::new() };
            self.stopped.get_or_insert(format!("{what}{skipped}; `source.on_lost_offset` is \"stop\""));
            return;
        }
        slot.renewal = Some(renewal);
    }

    /// librdkafka reports an error in a record's place, and counts it as that record in its position: from here on it would
    /// skip one. The partition is read again from what is settled.
    pub(super) fn tainted(&mut self, id: LaneId, code: Code, text: &str) {
        mark!(ErrorInQueue);
        self.count_error(code);
        let Some(slot) = self.lanes[id as usize].as_mut() else { return };
        let reason = format!("topic `{}`: {}", slot.lane.topic, problem::explain(code, text));
        slot.lane.drain(Trigger::Revoke);
        slot.renewal = Some(Renewal::Tainted);
        if self.troubles.add("topic", reason.clone()) {
            telemetry::trouble(&self.parts.config.name, &reason);
        }
        self.parts.watch.begin();
        self.show_troubles();
    }

    /// The log begins behind what was expected, and nothing came that would show it.
    pub(super) fn look_for_deleted(&mut self) {
        if self.parts.config.source.on_lost_offset == LostOffset::Latest {
            // Where librdkafka went on shows with the next message; until then nobody knows how much is skipped.
            return;
        }
        let mut jumps = Vec::new();
        for id in &self.active {
            let Some(slot) = self.lanes[*id as usize].as_mut() else { continue };
            let start = self.parts.group.log_start(&slot.lane.topic, slot.lane.partition);
            // As it was at the last look: what was fetched before that has been taken in since, or shows as ready.
            let start = std::mem::replace(&mut slot.log_start, start);
            let idle = slot.renewal.is_none() && slot.lane.wants_messages() && !slot.queue.is_ready();
            if let (Some(expected), Some(start)) = (slot.lane.next_offset(), start)
                && idle
                && start > expected
            {
                let next = Next::Deleted { skipped: start.abs_diff(expected) };
                jumps.push((*id, Jump { expected, came: start, next }));
            }
        }
        for (id, jump) in jumps {
            self.jumped(id, jump);
        }
    }

    /// Replaces lanes whose epoch has to end, once their records have met their fate.
    pub(super) fn renew(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        let slots = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let ending: Vec<LaneId> = slots.filter(|slot| slot.renewal.is_some()).map(|slot| slot.lane.id).collect();
        for id in ending {
            let Some(slot) = self.lanes[id as usize].as_mut() else { continue };
            let Some(renewal) = slot.renewal else { continue };
            if self.leaving.as_ref().is_some_and(|leaving| leaving.has(id)) {
                continue; // it ends anyway
            }
            if renewal != Renewal::Tainted && slot.lane.open() > 0 {
                // Open batches would wait for messages that do not come.
                slot.lane.relieve();
                continue;
            }
            slot.lane.drain(Trigger::Revoke);
            if !slot.lane.is_drained() {
                continue;
            }
            any = true;
            let (topic, partition) = (Arc::clone(&slot.lane.topic), slot.lane.partition);
            let (begin, committed) = match renewal {
                Renewal::Jumped(to) => (to, slot.committed),
                Renewal::Back(to) => (to, None),
                Renewal::Tainted => (slot.lane.committable().unwrap_or(slot.begin), slot.committed),
            };
            mark!(Renewed);
            let Some(mut queue) = self.remove(id) else { continue };
            self.parts.outlets.forget(&[id]);
            if renewal == Renewal::Tainted {
                queue.restart();
                self.parts.group.seek(&topic, partition, begin)?;
            }
            self.begin(&topic, partition, queue, begin, committed, now)?;
            self.parts.outlets.figures.renewed += 1;
        }
        Ok(any)
    }
}
