//! Figures of a run: bytes in flight, and what `status` shows. Looks at lanes and outlets; changes none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::Lane;
use super::port::{Edges, Group, Queue};
use super::run::Run;
use super::status::{Figures, LaneFigures};
use crate::delivery::ticket::LaneId;

/// What lanes have done with records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fates {
    settled: u64,
    dead_lettered: u64,
}

impl Fates {
    /// Records that did not fail; dropped ones count among them here.
    pub(super) const fn done(&self) -> u64 {
        self.settled.saturating_sub(self.dead_lettered)
    }

    pub(super) const fn add(&mut self, lane: &Lane) {
        self.settled += lane.settled();
        self.dead_lettered += lane.dead_lettered();
    }
}

/// Bytes in flight are counted this often.
pub(super) const COUNT: Duration = Duration::from_millis(5);
/// Figures are published this often.
const PUBLISH: Duration = Duration::from_millis(250);
/// A partition with more records than these to catch up with has a backlog.
const BACKLOG: i64 = 1_000;
/// Looks at everything this often though nobody woke it: a lost wake-up must not stop a pipeline for ever.
pub(super) const SWEEP: Duration = Duration::from_secs(1);

impl<E: Edges> Run<E> {
    /// Counts the bytes in flight.
    pub(super) fn count(&mut self, now: Instant) {
        self.last_count = now;
        let slots = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let lanes: usize = slots.map(|slot| slot.lane.bytes()).sum();
        self.parts.share.holds((lanes + self.parts.outlets.bytes()) as u64);
    }

    /// What is done once in a while. True when everything has to be looked at again.
    pub(super) fn housekeeping(&mut self, now: Instant) -> bool {
        if now >= self.last_count + COUNT {
            self.count(now);
        }
        let (sweeps, failed) = (now >= self.last_sweep + SWEEP, self.failure.is_some());
        if sweeps {
            self.last_sweep = now;
            self.look_for_deleted();
            self.parts.group.look_again();
            self.parts.outlets.look_again();
            for id in &self.active {
                if let Some(slot) = &self.lanes[*id as usize] {
                    slot.queue.look_again();
                }
            }
        }
        if now >= self.last_publish + PUBLISH {
            self.look_for_stalls(now);
            self.ask_for_ages(now);
            self.look_for_partitions(now);
            self.publish(now);
            self.parts.outlets.say_left_out();
            self.judge_canary(now);
        }
        sweeps || self.failure.is_some() != failed
    }

    pub(super) fn publish(&mut self, now: Instant) {
        self.last_publish = now;
        let mut figures: Figures = self.parts.outlets.figures.clone();
        let mut fates = self.retired.clone();
        let mut behind = false;
        for id in &self.active {
            let Some(slot) = &mut self.lanes[*id as usize] else { continue };
            let end = self.parts.group.log_end(&slot.lane.topic, slot.lane.partition);
            let done = slot.done(&self.parts.group);
            let lag = end.zip(done).map(|(end, done)| u64::try_from(end - done).unwrap_or(0));
            behind |= end.zip(slot.lane.next_offset()).is_some_and(|(end, next)| end - next > BACKLOG);
            let committed = slot.committed.or(done);
            if let (Some(next), Some(committed)) = (slot.lane.next_offset(), committed) {
                figures.uncommitted += u64::try_from(next - committed).unwrap_or(0);
            }
            figures.in_flight += slot.lane.open() as u64;
            figures.handler_memory += slot.memory;
            fates.entry(Arc::clone(&slot.lane.topic)).or_default().add(&slot.lane);
            if let Some(topic) = figures.topics.get_mut(&slot.lane.topic) {
                topic.lag += lag.unwrap_or(0);
            }
            figures.lanes.push(LaneFigures {
                topic: Arc::clone(&slot.lane.topic),
                partition: slot.lane.partition,
                state: slot.lane.state(),
                version: Arc::clone(slot.revision.digest()),
                committed: slot.committed,
                committable: slot.lane.committable(),
                open: slot.lane.open() as u64,
                lag,
                stalled: slot.stalled.clone(),
                danger: slot.danger,
            });
        }
        self.parts.group.catching_up(behind);
        for (topic, count) in fates {
            let topic = figures.topics.entry(topic).or_default();
            (topic.settled, topic.dead_lettered) = (count.settled, count.dead_lettered);
        }
        figures.lanes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        figures.outputs = self.parts.outlets.output_figures();
        figures.buffer_bytes = self.parts.share.held();
        figures.add_counters(&self.earlier);
        self.parts.status.publish(figures);
        self.publish_swap();
    }

    /// Names of the lanes that are not drained, for people.
    pub(super) fn busy(&self, lanes: &[LaneId]) -> String {
        let busy: Vec<String> = lanes
            .iter()
            .filter_map(|id| self.lanes[*id as usize].as_ref())
            .filter(|slot| !slot.lane.is_drained())
            .map(|slot| format!("{} ({} open)", slot.name(), slot.lane.open()))
            .collect();
        enumerate(&busy)
    }

    /// Lanes whose last commit was refused or is not answered.
    pub(super) fn uncommitted(&self, lanes: &[LaneId]) -> String {
        let lanes = lanes.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let dirty: Vec<String> = lanes.filter(|slot| slot.dirty().is_some()).map(|slot| slot.name()).collect();
        enumerate(&dirty)
    }
}

/// The first names of a list, and how many more there are.
fn enumerate(names: &[String]) -> String {
    if names.len() > 8 { format!("{} and {} more", names[..8].join(", "), names.len() - 8) } else { names.join(", ") }
}
