//! When the loop has nothing to do, and for how long. Looks at everything and changes nothing.
//!
//! Whoever makes something to do later wakes the loop, or has a time that is asked for here; what a turn itself leaves to be
//! done is [`Run::has_done_all`]'s. The simulation looks whether a loop that rests had anything left.

use std::time::{Duration, Instant};

use super::figures::{COUNT, SWEEP};
use super::leave::Leaving;
use super::port::{Edges, Queue};
use super::run::{Run, Slot, Step};

/// Shorter waits are not worth their system call.
const LEAST: Duration = Duration::from_micros(100);

/// So long reports wait for the next messages, where nothing waits for them. With few messages at a time half of all wake-ups would
/// be for them; what they settle is committed once in a while anyway.
const DOZE: Duration = Duration::from_millis(5);

impl<E: Edges> Run<E> {
    /// After a turn that took in answers, reports or messages: nothing of that leaves anything for another turn. With few messages
    /// at a time most turns are such, and one that finds nothing costs half as much as one that does. Says no where it is not
    /// sure, which costs a turn.
    pub(super) fn has_done_all(&self) -> bool {
        planted!(RestTooSoon, { return true });
        let ends = self.has_to_end() || self.closing || self.leaving.is_some();
        let held_back = self.starved || self.paced || self.pauses_or_tries() || self.has_failures_to_count();
        !ends && !held_back && self.swap.is_settled() && self.slots().all(Slot::has_done_all)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot<E>> {
        self.active.iter().filter_map(|id| self.lanes[*id as usize].as_deref())
    }

    /// Until something comes, or the next thing to do by time. `worked`: in a while messages come, most likely, and reports can be
    /// taken in with them.
    pub(super) fn rest(&self, worked: bool, now: Instant) -> Step {
        let rest = self.until_next(now);
        match self.nap(now) {
            Some(nap) => Step::Nap(nap.min(rest)),
            None if worked && self.parts.outlets.only_reports_are_due() => Step::Doze(rest.min(DOZE)),
            None => Step::Rest(rest),
        }
    }

    /// How long to wait for company. Nobody waits who is waited for: a handler's answer, a stop, a partition's next owner.
    fn nap(&self, now: Instant) -> Option<Duration> {
        let wait = self.linger.wait(self.parts.config.source.linger, now)?;
        let busy = self.closing || self.leaving.is_some() || self.starved;
        let runs = || self.lanes.iter().flatten().any(|slot| slot.lane.is_running());
        (!busy && !runs()).then_some(wait)
    }

    /// How long until the next thing to do by time.
    fn until_next(&self, now: Instant) -> Duration {
        // A starved lane cannot use its deadline: it is looked at when the bytes in flight are counted again.
        // Nor can it while the pipeline pauses.
        let paused = self.pause.reason().is_some();
        let lanes = self.slots().filter(|slot| !self.starved && (!paused || slot.lane.is_draining()));
        let lanes = lanes.filter_map(|slot| slot.lane.deadline());
        let count = self.starved.then(|| self.last_count + COUNT);
        let paced = self.pace.due(now).filter(|_| self.paced);
        let commit = !self.commit_in_flight && self.leaving.is_none() && self.any_dirty();
        let commit = commit.then(|| self.next_commit());
        let leaving = self.leaving.as_ref().and_then(Leaving::deadline);
        let next = lanes
            .chain(count)
            .chain(paced)
            .chain(commit)
            .chain(leaving)
            .chain(self.parts.outlets.deadline())
            .chain(self.pause.until())
            .chain(self.swap.deadline())
            .chain([self.last_sweep + SWEEP])
            .min()
            .unwrap_or(now + SWEEP);
        next.saturating_duration_since(now).max(LEAST)
    }

    fn any_dirty(&self) -> bool {
        self.slots().any(|slot| slot.dirty().is_some())
    }
}

impl<E: Edges> Slot<E> {
    /// It waits for its handler, or for messages.
    fn has_done_all(&self) -> bool {
        let waits = self.lane.is_running() || self.lane.is_at_rest() && !self.queue.is_ready();
        waits && self.renewal.is_none()
    }
}
