//! Partitions that stand still though there is something to do: what keeps them; a new fetch where that may help; and
//! whether their records will outlive the wait.

use std::time::{Duration, Instant};

use super::port::{Aged, Edges, Group, Queue, Standing};
use super::run::{Run, Slot};
use super::status::Stalled;
use crate::delivery::retention::{Danger, danger};
use crate::delivery::stall::Cause;
use crate::delivery::ticket::LaneId;
use crate::telemetry;

/// How often the broker is asked how long the records have left at which partitions stand. What is near its end twice in a
/// row is warned about: a pipeline that catches up with an old topic passes such records all the time.
const AGING: Duration = Duration::from_secs(30);

/// When lanes are looked at by their records' age.
pub(super) struct AgingWatch {
    next: Instant,
    asked: bool,
}

impl AgingWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now + AGING, asked: false }
    }
}

impl<E: Edges> Run<E> {
    /// The oldest record of a lane that is not settled, if there is one that is known of.
    fn stands_at(&self, slot: &Slot<E>) -> Option<i64> {
        let start = || self.parts.group.log_start(&slot.lane.topic, slot.lane.partition);
        let done = slot.done(&self.parts.group).or_else(start);
        let end = self.parts.group.log_end(&slot.lane.topic, slot.lane.partition);
        let behind = end.is_none_or(|end| done.is_none_or(|done| done < end)) || slot.lane.open() > 0;
        behind.then_some(done.unwrap_or(-1))
    }

    /// Looks at every lane.
    pub(super) fn look_for_stalls(&mut self, now: Instant) {
        let paused = self.pause.reason().is_some();
        let (starved, trouble) = (self.starved, self.troubles.reason());
        let rate = self.pace.rate().filter(|_| self.paced);
        for id in self.active.clone() {
            let Some(slot) = &self.lanes[id as usize] else { continue };
            let idle = paused || slot.lane.is_draining() || slot.renewal.is_some();
            let at = self.stands_at(slot).filter(|_| !idle);
            let Some(slot) = &mut self.lanes[id as usize] else { continue };
            let name = &self.parts.config.name;
            let Some(still) = slot.stall.look(now, at.unwrap_or(-1), at.is_some()) else {
                if slot.stalled.take().is_some() {
                    telemetry::moves_again(name, &slot.name());
                }
                continue;
            };
            let (cause, reason) = slot.lane.kept_by().unwrap_or_else(|| match trouble.clone() {
                None if let Some(rate) = rate => {
                    (Cause::Rate, format!("no more than {rate} are taken in, of all partitions (process.rate)"))
                }
                None if starved => (Cause::Memory, "too many bytes are in flight elsewhere".to_owned()),
                None => {
                    (Cause::Broker, "nothing comes from its broker, or an open transaction is before it".to_owned())
                }
                Some(trouble) => (Cause::Broker, trouble),
            });
            if still.news {
                let offset = at.filter(|at| *at >= 0);
                telemetry::stands_still(name, &slot.name(), offset, still.time, cause, &reason);
            }
            slot.stalled = Some(Stalled { cause, reason, time: still.time });
            if still.news && cause == Cause::Broker && trouble.is_none() {
                self.fetch_again(id);
            }
        }
    }

    /// Lets librdkafka begin anew where the lane stands: its fetchers have stopped for good more than once. The position
    /// stays what it is, so the ownership epoch does, too.
    fn fetch_again(&mut self, id: LaneId) {
        let Some(slot) = &mut self.lanes[id as usize] else { return };
        if !slot.lane.wants_messages() || !slot.queue.is_read_up() {
            return;
        }
        let offset = slot.lane.next_offset().unwrap_or(slot.begin);
        slot.queue.restart();
        if let Err(reason) = self.parts.group.fetch_again(&slot.lane.topic, slot.lane.partition, offset) {
            telemetry::trouble(&self.parts.config.name, &format!("{}: {reason}", slot.name()));
        }
    }

    /// Asks, when it is time, how long the records have left at which lanes stand.
    pub(super) fn ask_for_ages(&mut self, now: Instant) {
        if self.aging.asked || now < self.aging.next {
            return;
        }
        self.aging.next = now + AGING;
        let slots = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let standing: Vec<Standing> = slots
            .filter_map(|slot| {
                let offset = self.stands_at(slot).filter(|offset| *offset >= 0)?;
                Some(Standing { topic: slot.lane.topic.to_string(), partition: slot.lane.partition, offset })
            })
            .collect();
        if standing.is_empty() {
            for slot in self.lanes.iter_mut().flatten() {
                (slot.danger_seen, slot.danger) = (Danger::None, Danger::None);
            }
            return;
        }
        match self.parts.group.ask_for_ages(standing) {
            Ok(()) => self.aging.asked = true,
            Err(reason) => telemetry::trouble(&self.parts.config.name, &reason),
        }
    }

    /// What the broker said; a lane that it was not asked for stands nowhere. Nothing at all: it could not be asked.
    pub(super) fn aged(&mut self, aged: &[Aged]) {
        self.aging.asked = false;
        if aged.is_empty() {
            return;
        }
        for slot in self.lanes.iter_mut().flatten() {
            let ours = |aged: &&Aged| *aged.topic == *slot.lane.topic && aged.partition == slot.lane.partition;
            let found = aged.iter().find(ours);
            let seen = found.map_or(Danger::None, |aged| danger(&aged.facts));
            let before = std::mem::replace(&mut slot.danger_seen, seen);
            let confirmed = if seen == before || seen == Danger::Gone { seen } else { Danger::None };
            if std::mem::replace(&mut slot.danger, confirmed) != confirmed
                && let Some(Aged { facts, notice, .. }) = found
            {
                telemetry::near_deletion(&self.parts.config.name, &slot.name(), facts.offset, confirmed, *notice);
            }
        }
    }
}
