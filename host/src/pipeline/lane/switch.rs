//! Another version of the handler for a lane: it goes over at its next burst boundary, by one call to the handler's side that
//! puts a new instance in the place of the old one.
//!
//! A call that is under way ends on the version that it began with, and what it emitted settles as it would have. Batches
//! that are open close and run once on the old version; what is unfinished then – in back-off, blocked, held by an instance
//! that could not hand its state over – begins at attempt 1 on the new one. Nothing is given up by a switch, and nothing
//! that was decided is decided again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batches::DueBatch;
use super::timer::{Attempts, Timer};
use super::{Call, CallKind, Lane, LaneRules, Reply, Running, Switched};
use crate::delivery::batcher::{Batcher, Trigger};
use crate::pipeline::sink::{Failure, Notice, Sink};

/// What a lane goes over to.
#[derive(Debug)]
pub(super) struct Switching {
    rules: Arc<LaneRules>,
    /// Batches that nobody saw run on the old version first.
    drain: bool,
}

impl Lane {
    /// Another version at the next burst boundary. `rules` has outputs, batchers and stages of the same names as before.
    /// A lane that is on its way out ends with the version that it has.
    pub fn switch(&mut self, rules: Arc<LaneRules>, drain: bool) {
        if self.draining.is_some() || self.stopped.is_some() {
            return;
        }
        self.switching = Some(Switching { rules, drain });
        self.close_all(Trigger::Swap);
    }

    /// No other version after all, if the switch was not begun.
    pub fn stay(&mut self) {
        self.switching = None;
    }

    /// It is to get another version, or just gets it.
    #[must_use]
    pub const fn is_switching(&self) -> bool {
        self.switching.is_some() || matches!(self.running, Some(Running::Switch(_)))
    }

    /// The version is no canary any more: from here on its failures are the records' own.
    pub fn promote(&mut self, rules: &Arc<LaneRules>) {
        if self.rules.trial {
            self.rules = Arc::clone(rules);
            self.trials.promote();
            if self.steps_back.take().is_some() {
                self.begin_anew();
            }
        }
    }

    /// The offset of a record at which its canary failed for good, and that the old version is to try.
    #[must_use]
    pub const fn steps_back(&self) -> Option<i64> {
        self.steps_back
    }

    /// A canary failed for good. How long the record would wait if nobody came.
    pub(super) fn step_back(&mut self, offset: i64, attempt: u32, failure: &Failure, sink: &mut dyn Sink) -> Duration {
        mark!(SteppedBack);
        self.steps_back = self.steps_back.max(Some(offset));
        let wait = self.rules.retry.blocked_wait(self.chance.draw());
        sink.notice(Notice::Retrying { offset, attempt, failure, wait });
        wait
    }

    /// What is unfinished begins at attempt 1.
    fn begin_anew(&mut self) {
        if let Some(work) = &mut self.pending {
            work.head.begin_anew();
        }
        self.again.values_mut().for_each(|work| work.head.begin_anew());
        self.due.iter_mut().for_each(DueBatch::begin_anew);
    }

    /// Digest of the version that it runs.
    #[must_use]
    pub fn version(&self) -> &Arc<str> {
        &self.rules.version
    }

    pub(super) fn next_switch(&mut self, now: Instant, sink: &mut dyn Sink) -> Option<Call> {
        // An instance that was not told of its partition is not called for anything else.
        let drains = self.switching.as_ref()?.drain && self.greeting.is_none();
        if let Some(call) = drains.then(|| self.next_batch(now, sink, DueBatch::is_fresh)).flatten() {
            mark!(BatchBeforeSwitch);
            return Some(call);
        }
        let switching = self.switching.take()?;
        Some(self.bare(CallKind::Switch, Running::Switch(switching)))
    }

    pub(super) fn on_switched(&mut self, switching: Switching, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        let restored = match reply {
            Reply::Switched(Switched::Over { restored }) => restored,
            Reply::Switched(Switched::Refused { lost, .. }) => {
                mark!(SwitchRefused);
                if lost {
                    mark!(LostInSwitch);
                    self.lose_instance(now);
                }
                return;
            }
            // A fault has taken the instance away already.
            _ => return,
        };
        if std::mem::replace(&mut self.rules, switching.rules).trial && !self.rules.trial {
            self.trials.end(self.tracker.next_seq());
        }
        self.alive = true;
        self.restart.go_on();
        self.burst.restart();
        self.isolate_until = 0;
        if !restored {
            self.offer_held_again();
        } else if !self.held.is_empty() {
            mark!(HeldThroughSwitch);
        }
        debug_assert!(self.batchers.iter().all(|batcher| batcher.oldest().is_none()), "batches were closed before");
        self.batchers = self.rules.batchers.iter().map(|(_, rules)| Batcher::new(rules.clone())).collect();
        self.timer = self.rules.tick.map(|interval| Timer::after_switch(self.timer.take(), interval, now));
        self.greeting = self.rules.exports.partitions.then(Attempts::default);
        self.steps_back = None;
        self.begin_anew();
        if !self.rules.exports.failures {
            self.decide_refused(now, sink);
        }
    }

    /// Records whose emissions were refused wait for a handler's word that nobody gives any more: the policy decides.
    fn decide_refused(&mut self, now: Instant, sink: &mut dyn Sink) {
        let then = self.rules.then;
        for (seq, mut work) in std::mem::take(&mut self.again) {
            match work.head.verdict.take() {
                None => _ = self.again.insert(seq, work),
                Some(failure) => {
                    if self.rule(&mut work, then, &failure, None, now, sink) {
                        self.spare.push(work.frame);
                    } else {
                        self.offer_again(work);
                    }
                }
            }
        }
        let (asked, rest) = std::mem::take(&mut self.due).into_iter().partition(|batch| batch.verdict.is_some());
        self.due = rest;
        for mut batch in Vec::from(asked).into_iter().rev() {
            let Some(failure) = batch.verdict.take() else { continue };
            let stage = self.stage_of(&batch);
            self.rule_item(batch, then, &failure, &stage, None, now, sink);
        }
    }
}
