//! Calls that no message asks for: the handler's timer, and telling it that the partition comes and goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Trigger};

use super::answer::{Route, TickAnswer, resolve};
use super::items::NewItem;
use super::messages::Work;
use super::provenance::From;
use super::{Call, CallKind, Lane, Reply, Running};
use crate::delivery::retry::RetryRules;
use crate::delivery::ticket::Target;
use crate::delivery::verdict::RevokeReason;
use crate::pipeline::sink::{Failure, Notice, Sink};

/// Attempts of a call that has to succeed before things go on.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    pub(super) not_before: Option<Instant>,
    reason: Option<String>,
    blocked: bool,
}

impl Attempts {
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) fn blocked(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.blocked)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    fn fail(
        &mut self,
        what: &'static str,
        failure: &Failure,
        rules: &RetryRules,
        chance: u32,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        mark!(BareCallFailed);
        self.failed = self.failed.saturating_add(1);
        let attempt = self.failed;
        let over = rules.exhausted(attempt);
        let wait = if over { rules.blocked_wait(chance) } else { rules.wait(attempt, None, chance) };
        let first = over && !std::mem::replace(&mut self.blocked, over);
        self.not_before = Some(now + wait);
        self.reason = Some(format!("{what}: {}: {} (attempt {attempt})", failure.class, failure.reason));
        sink.notice(Notice::CallFailed { what, attempt, failure, blocks: first, wait });
    }
}

/// The handler's timer.
#[derive(Debug)]
pub(super) struct Timer {
    interval: Duration,
    next: Instant,
    pub(super) attempts: Attempts,
}

impl Timer {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, next: now + interval, attempts: Attempts::default() }
    }

    /// That of another version. With the same interval it goes on in the same rhythm.
    pub(super) fn after_switch(before: Option<Self>, interval: Duration, now: Instant) -> Self {
        let next = before.filter(|before| before.interval == interval).map(|before| before.next);
        Self { next: next.unwrap_or(now + interval), ..Self::new(interval, now) }
    }

    pub(super) fn next(&self) -> Instant {
        self.attempts.not_before.unwrap_or(self.next)
    }
}

/// Whether the instance was told that its partition goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Farewell {
    #[default]
    NotYet,
    Done,
}

impl Lane {
    pub(super) fn next_tick(&mut self, now: Instant) -> Option<Call> {
        let due = self.draining.is_none() && self.timer.as_ref().is_some_and(|timer| timer.next() <= now);
        due.then(|| self.bare(CallKind::Tick, Running::Tick))
    }

    pub(super) fn bare(&mut self, kind: CallKind, running: Running) -> Call {
        self.running = Some(running);
        Call { kind, frame: Frame::default(), short: None }
    }

    pub(super) fn on_tick_reply(&mut self, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        let result = self.take_answer(reply, true, now, sink);
        let chance = self.chance.draw();
        let Some(timer) = &mut self.timer else { return };
        timer.next = now + timer.interval;
        match result {
            Ok(()) => timer.attempts = Attempts::default(),
            Err(failure) => timer.attempts.fail("tick", &failure, &self.rules.retry, chance, now, sink),
        }
    }

    /// A new instance is told of its partition before anything else.
    pub(super) fn next_greeting(&mut self, now: Instant) -> Option<Call> {
        let due = self.greeting.as_ref().is_some_and(|greeting| greeting.is_due(now));
        // On its way out a lane needs it for what it has to finish only.
        let finishes = || !self.due.is_empty() || self.pending.as_ref().is_some_and(|work| !work.is_waiting());
        if !due || (self.draining.is_some() && !finishes()) {
            return None;
        }
        let next_offset = self.tracker.oldest_open().or(self.tracker.committable()).or(self.start);
        let (topic, partition) = (Arc::clone(&self.topic), self.partition.unsigned_abs());
        Some(self.bare(CallKind::Assigned { topic, partition, next_offset }, Running::Assigned))
    }

    pub(super) fn on_greeting_reply(&mut self, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        let result = self.take_answer(reply, true, now, sink);
        let chance = self.chance.draw();
        match result {
            Ok(()) => self.greeting = None,
            Err(failure) => {
                let greeting = self.greeting.get_or_insert_default();
                greeting.fail("partition-assigned", &failure, &self.rules.retry, chance, now, sink);
            }
        }
    }

    /// The instance has a state of its own and has not heard yet that its partition goes.
    pub(super) fn owes_farewell(&self) -> bool {
        self.rules.exports.partitions && self.alive && self.greeting.is_none() && self.farewell == Farewell::NotYet
    }

    /// The last call, when everything else is settled.
    pub(super) fn next_farewell(&mut self) -> Option<Call> {
        let reason = match self.draining? {
            Trigger::Shutdown => RevokeReason::Shutdown,
            Trigger::Swap => RevokeReason::Restart,
            _ => RevokeReason::Revoked,
        };
        let settled = self.in_flight == 0
            && self.due.iter().all(|batch| batch.not_before.is_some() || self.is_left(batch))
            && self.pending.as_ref().is_none_or(Work::is_waiting);
        if !settled || !self.owes_farewell() {
            return None;
        }
        self.farewell = Farewell::Done;
        let (topic, partition) = (Arc::clone(&self.topic), self.partition.unsigned_abs());
        Some(self.bare(CallKind::Revoked { topic, partition, reason }, Running::Revoked))
    }

    /// A fault here changes nothing: the partition goes all the same.
    pub(super) fn on_farewell_reply(&mut self, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        // No batch comes after this.
        if let Err(failure) = self.take_answer(reply, false, now, sink) {
            let (what, wait) = ("partition-revoked", Duration::ZERO);
            sink.notice(Notice::CallFailed { what, attempt: 1, failure: &failure, blocks: false, wait });
        }
    }

    /// Carries out an answer that belongs to no message. Its emissions hold back what it acks.
    fn take_answer(&mut self, reply: Reply, batchers: bool, now: Instant, sink: &mut dyn Sink) -> Result<(), Failure> {
        let answer = match reply {
            Reply::Answer(answer) => answer,
            other => return Err(other.into_failure()),
        };
        let answer = TickAnswer::check(&answer, self.next_token, &self.rules, batchers, &*sink)
            .inspect_err(|failure| sink.notice(Notice::BadAnswer { failure }))?;
        let acks = self.begin_acks();
        let owner = Target::Gate(acks);
        self.add_marks(owner, answer.emissions() as u32);
        for index in 0..answer.emissions() {
            let emission = answer.emission(index);
            match answer.route(index) {
                Route::Batcher(batcher) => {
                    let (key, flush) = (emission.batch_key(), emission.flush());
                    let record = resolve(&emission, None);
                    self.gather_item(batcher, &NewItem { key, flush, record, source: None, owner }, now);
                }
                Route::Output(output) => {
                    let from = From { message: None, attempt: 1, index };
                    self.emit_from(output, &emission, from, None, owner, sink);
                }
            }
        }
        self.end_acks(acks, answer.answer(), now, sink);
        Ok(())
    }
}
