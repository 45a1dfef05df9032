//! What a lane shows of itself: its state, what may be committed, when it has something to do.

use std::time::Instant;

use super::batches::DueBatch;
use super::messages::Work;
use super::refused::Stuck;
use super::timer::Timer;
use super::{Lane, Running};
use crate::delivery::batcher::Batcher;
use crate::delivery::stall::Cause;
use crate::delivery::ticket::Seq;

/// What a lane is doing, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Nothing is wrong.
    Running,
    /// Waits before another attempt.
    BackingOff(String),
    /// Does not go on past a record.
    Blocked(String),
    /// Finishes what it began.
    Draining,
}

impl Lane {
    /// The next offset such that everything below is settled; in mode "receive", below which everything was taken in.
    #[must_use]
    pub fn committable(&self) -> Option<i64> {
        if self.rules.receive {
            // Messages that were given back before their commit was answered belong to the next owner.
            return match &self.pending {
                None if self.draining.is_some() => Some(self.received).filter(|offset| *offset >= 0),
                _ => self.tracker.next_offset(),
            };
        }
        self.tracker.committable()
    }

    /// A commit was sent.
    pub fn on_commit_sent(&mut self) {
        self.commit_open = true;
    }

    /// A commit up to this offset was answered.
    pub fn on_committed(&mut self, offset: i64) {
        self.received = self.received.max(offset);
        self.commit_open = false;
        self.part_from_left();
    }

    /// A commit failed, or its answer is not waited for any more.
    pub fn on_commit_over(&mut self) {
        self.commit_open = false;
        self.part_from_left();
    }

    /// Messages wait for a commit (mode "receive").
    #[must_use]
    pub fn awaits_commit(&self) -> bool {
        self.rules.receive && !self.may_offer()
    }

    /// Messages may be shown to the handler.
    pub(super) fn may_offer(&self) -> bool {
        planted!(OfferBeforeCommit, { return true });
        !self.rules.receive || self.tracker.next_offset().is_none_or(|next| next <= self.received)
    }

    /// The same of a batch: those that came after it may still wait for theirs.
    pub(super) fn may_run(&self, batch: &DueBatch) -> bool {
        planted!(OfferBeforeCommit, { return true });
        !self.rules.receive || batch.newest_offset().is_none_or(|newest| newest < self.received)
    }

    /// It will not run any more, but for the next owner.
    pub(super) fn is_left(&self, batch: &DueBatch) -> bool {
        !self.commit_open && !self.may_run(batch)
    }

    /// The offset after the last message that came.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.tracker.next_offset()
    }

    /// Offset of the oldest record that is not settled.
    #[must_use]
    pub fn oldest_open(&self) -> Option<i64> {
        self.tracker.oldest_open()
    }

    /// Records that are not settled.
    #[must_use]
    pub fn open(&self) -> usize {
        self.tracker.open()
    }

    /// Messages that the handler holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Effects that wait for a delivery report.
    #[must_use]
    pub const fn undelivered(&self) -> usize {
        self.in_flight
    }

    /// A call is under way.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The call that is under way is for a batch.
    #[must_use]
    pub const fn is_running_batch(&self) -> bool {
        matches!(self.running, Some(Running::Batch(_)))
    }

    /// Messages of the last call that it said something about: those that it decided, and the one at which it failed. Of a call
    /// that failed as a whole, one.
    #[must_use]
    pub const fn attended(&self) -> usize {
        self.attended
    }

    /// It takes nothing in any more.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Records settled so far.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.tracker.settled()
    }

    /// Records whose dead letter is durable.
    #[must_use]
    pub const fn dead_lettered(&self) -> u64 {
        self.dead_lettered
    }

    /// Why the failure policy wants the pipeline stopped, once it does.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Bytes that the lane holds: pending and held messages, and batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.running_bytes
            + self.pending.as_ref().map_or(0, |pending| pending.frame.len())
            + self.again.values().map(|work| work.frame.len()).sum::<usize>()
            + self.held.bytes()
            + self.due.iter().map(|batch| batch.content.bytes()).sum::<usize>()
            + self.batchers.iter().map(Batcher::bytes).sum::<u64>() as usize
            + self.stuck.iter().map(Stuck::bytes).sum::<usize>()
    }

    /// Why no new message is offered, if that is so: something older has to go first.
    fn blocked_by(&self) -> Option<&str> {
        let stuck = self.stuck.front().map(|stuck| stuck.reason.as_str());
        let batch = || self.due.iter().find_map(|batch| batch.blocked.as_deref());
        let again = || self.again.values().find_map(|work| work.head.blocked());
        let timer = || self.timer.as_ref().and_then(|timer| timer.attempts.blocked());
        stuck.or_else(batch).or_else(again).or_else(timer)
    }

    /// Nothing new is offered.
    pub(super) fn is_blocked(&self) -> bool {
        !self.stuck.is_empty()
            || self.due.iter().any(DueBatch::is_blocked)
            || (!self.again.is_empty() && self.again.values().any(|work| work.head.blocked().is_some()))
            || self.timer.as_ref().is_some_and(|timer| timer.attempts.blocked().is_some())
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> LaneState {
        if let Some(reason) = &self.stopped {
            return LaneState::Blocked(reason.clone());
        }
        let pending = self.pending.as_ref().map(|work| &work.head);
        let greeting = self.greeting.as_ref();
        let blocked = self
            .blocked_by()
            .or_else(|| pending.and_then(|head| head.blocked()))
            .or_else(|| greeting.and_then(|greeting| greeting.blocked()));
        if let Some(reason) = blocked {
            return LaneState::Blocked(reason.to_owned());
        }
        if self.draining.is_some() {
            return LaneState::Draining;
        }
        let waits = (self.restart.reason())
            .or_else(|| greeting.and_then(|greeting| greeting.reason()))
            .or_else(|| pending.and_then(|head| head.reason()))
            .or_else(|| self.timer.as_ref().and_then(|timer| timer.attempts.reason()));
        match waits {
            Some(reason) => LaneState::BackingOff(reason.to_owned()),
            None => LaneState::Running,
        }
    }

    /// What keeps it from getting on, if that is its own: by kind, and for people.
    #[must_use]
    pub fn kept_by(&self) -> Option<(Cause, String)> {
        let again = || self.again.values().find_map(|work| work.head.reason());
        Some(match self.state() {
            LaneState::Blocked(reason) => (Cause::Blocked, reason),
            LaneState::BackingOff(reason) => (Cause::Retry, reason),
            _ if self.running.is_some() => (Cause::Handler, "a call to the handler is under way".to_owned()),
            _ if self.holds_oldest() => (Cause::Held, format!("the handler holds {} messages", self.held.len())),
            _ if let Some(reason) = again() => (Cause::Retry, reason.to_owned()),
            _ if self.due.iter().any(|batch| batch.not_before.is_some()) => {
                (Cause::Retry, "an item of a batch waits for its next attempt".to_owned())
            }
            _ if !self.asked.is_empty() => {
                (Cause::Source, format!("{} records are read again for their dead letters", self.asked.len()))
            }
            _ if self.in_flight > 0 => {
                (Cause::Delivery, format!("{} records wait for the brokers' acknowledgement", self.in_flight))
            }
            _ if self.tracker.open() > 0 && self.pending.is_none() => {
                (Cause::Batch, format!("{} records are in batches that are not full", self.tracker.open()))
            }
            _ => return None,
        })
    }

    /// The handler holds the oldest open record.
    fn holds_oldest(&self) -> bool {
        let oldest = self.tracker.oldest_open();
        let offset = |owner| self.record_of(owner).and_then(|seq| self.tracker.offset_of(seq));
        oldest.is_some() && self.held.owners().any(|owner| offset(owner) == oldest)
    }

    /// When the lane has something to do though nothing comes from outside.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.running.is_some() || self.stopped.is_some() {
            return None;
        }
        if self.waits_for_nothing() {
            return None;
        }
        // Only what could go on then: a time in the past that nothing can use would make the loop spin.
        if let Some(at) = self.restart.not_before() {
            let stuck = self.stuck.iter().filter_map(Stuck::due).min();
            return stuck.into_iter().chain([at]).min();
        }
        if let Some(greeting) = &self.greeting {
            return greeting.not_before.filter(|_| self.draining.is_none() || !self.due.is_empty());
        }
        let going = self.draining.is_none();
        let head = self.pending.as_ref().filter(|_| !self.is_blocked()).and_then(|work| work.head.not_before);
        let again = self.again.values().filter_map(|work| work.head.not_before).min().filter(|_| going);
        let batches = (0..self.due.len()).filter(|i| !self.is_held_back(*i)).filter_map(|i| self.due[i].not_before);
        let timer = self.timer.as_ref().filter(|_| going).map(Timer::next);
        let stuck = self.stuck.iter().filter_map(Stuck::due).min();
        head.into_iter()
            .chain(again)
            .chain(timer)
            .chain(stuck)
            .chain(self.held.deadline(self.rules.hold.timeout).filter(|_| going))
            .chain(batches)
            .chain(self.batchers.iter().filter_map(Batcher::deadline))
            .min()
    }

    /// Nothing in it has a time. Most lanes are so most of the time, and all are asked whenever their loop rests.
    #[inline]
    fn waits_for_nothing(&self) -> bool {
        self.has_nothing_to_call()
            && self.batchers.is_empty()
            && self.timer.is_none()
            && self.held.is_empty()
            && self.pending.as_ref().is_none_or(|work| work.head.not_before.is_none())
    }

    /// Nothing stands to be called, now or at a time, apart from the messages that are pending.
    #[inline]
    fn has_nothing_to_call(&self) -> bool {
        self.due.is_empty()
            && self.greeting.is_none()
            && self.again.is_empty()
            && self.stuck.is_empty()
            && self.restart.not_before().is_none()
    }

    /// Nothing in it can go on before something comes from outside, or its [`Lane::deadline`].
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        // One that may not run further ahead closes an open batch before its time.
        let ahead = !self.batchers.is_empty() && self.tracker.span() >= self.rules.max_ahead;
        self.has_nothing_to_call()
            && self.pending.is_none()
            && self.draining.is_none()
            && self.switching.is_none()
            && self.stopped.is_none()
            && !ahead
    }

    /// Number of the pending message at the head.
    pub(super) fn head_seq(&self) -> Option<Seq> {
        self.pending.as_ref().map(Work::head_seq)
    }
}
