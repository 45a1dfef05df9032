//! Pauses the pipeline while its operator wants that, and while most of its records fail (`delivery/breaker.rs` says when). Then the cause is more likely one
//! that a person can take away than the records themselves, and a topic would drain into the dead-letter topic. What is
//! under way is finished; nothing new is offered. It goes on by itself, one call at a time at first.

use std::time::{Duration, Instant};

use super::figures::Fates;
use super::port::Edges;
use super::run::Run;
use crate::config::{Errors, Then};
use crate::delivery::breaker::{Breaker, BreakerRules, Change, Counts, Phase};
use crate::telemetry;

/// Records of a lane that are offered one by one after a pause.
const SINGLY: u64 = 100;
/// Done records are counted this often; failed ones at once.
const LOOK: Duration = Duration::from_millis(100);

/// See the module's text.
pub(super) struct Pause {
    breaker: Option<Breaker>,
    /// Done and failed records that were counted.
    seen: (u64, u64),
    next_look: Instant,
    /// Why it pauses, while it does.
    reason: Option<String>,
    /// The same of the operator's pause.
    operator: Option<String>,
}

impl Pause {
    pub(super) fn new(errors: &Errors, now: Instant) -> Self {
        Self { breaker: rules(errors).map(Breaker::new), seen: (0, 0), next_look: now, reason: None, operator: None }
    }

    /// Why nothing new is offered.
    pub(super) fn reason(&self) -> Option<&str> {
        self.operator.as_deref().or(self.reason.as_deref())
    }

    /// What the operator wants. True when that is another thing than before.
    pub(super) fn ordered(&mut self, reason: Option<String>, resumes: bool, now: Instant) -> bool {
        let reason = reason.map(|reason| format!("{reason} (`sluicebox resume` goes on)"));
        if let Some(breaker) = self.breaker.as_mut().filter(|_| resumes) {
            breaker.try_at(now);
        }
        let changed = reason != self.operator;
        self.operator = reason;
        changed
    }

    /// The version is another one, and maybe the configuration: that may have been the cause.
    pub(super) fn follow(&mut self, errors: &Errors, now: Instant) {
        let rules = rules(errors);
        match &mut self.breaker {
            // What it saw was another version's doing.
            Some(breaker) if breaker.phase() == Phase::Closed => *breaker = Breaker::new(breaker.rules().clone()),
            Some(breaker) => breaker.try_at(now),
            None => {}
        }
        if self.breaker.as_ref().map(Breaker::rules) != rules.as_ref() {
            (self.breaker, self.reason) = (rules.map(Breaker::new), None);
        }
    }

    /// One call at a time.
    pub(super) fn is_trial(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| matches!(breaker.phase(), Phase::Trial { .. }))
    }

    /// When the pause ends.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.breaker.as_ref()?.phase() {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::Trial { .. } => None,
        }
    }
}

impl<E: Edges> Run<E> {
    /// Nothing new is offered, or one call at a time.
    pub(super) fn pauses_or_tries(&self) -> bool {
        self.pause.reason().is_some() || self.pause.is_trial()
    }

    /// Records failed since it was counted.
    pub(super) fn has_failures_to_count(&self) -> bool {
        self.pause.breaker.is_some() && self.parts.outlets.failed != self.pause.seen.1
    }

    /// Counts what met its fate, and pauses or goes on. True when that is another thing than before.
    pub(super) fn watch_failures(&mut self, now: Instant) -> bool {
        if self.pause.breaker.is_none() {
            return false;
        }
        let failed = self.parts.outlets.failed;
        if failed == self.pause.seen.1 && now < self.pause.next_look {
            return false;
        }
        self.pause.next_look = now + LOOK;
        let done = self.done().max(self.pause.seen.0);
        let (seen_done, seen_failed) = std::mem::replace(&mut self.pause.seen, (done, failed));
        let Some(breaker) = &mut self.pause.breaker else { return false };
        breaker.count(now, done - seen_done, failed - seen_failed);
        let Some(change) = breaker.look(now) else { return false };
        let name = &self.parts.config.name;
        match change {
            // It counts anew.
            Change::Opened { counts, .. } if self.leaves_what_fails(&most_fail(counts), now) => {
                self.pause.breaker = rules(&self.parts.config.errors).map(Breaker::new);
            }
            Change::Opened { counts, pause } => {
                self.parts.outlets.figures.pauses += 1;
                let last = self.parts.outlets.last_failure.as_deref().unwrap_or("unknown");
                self.pause.reason = Some(reason(&self.parts.config.errors, counts, pause, last));
            }
            Change::Tries => {
                self.pause.reason = None;
                telemetry::tries_again(name);
                for slot in self.lanes.iter_mut().flatten() {
                    slot.lane.offer_singly(SINGLY);
                }
            }
            Change::Closed => telemetry::recovered(name),
        }
        self.show_troubles();
        true
    }

    /// Records that are settled and did not fail.
    fn done(&self) -> u64 {
        let here = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let here: u64 = here.map(|slot| slot.lane.settled() - slot.lane.dead_lettered()).sum();
        let gone: u64 = self.retired.values().map(Fates::done).sum();
        let dropped: u64 = self.parts.outlets.figures.topics.values().map(|topic| topic.dropped).sum();
        (here + gone).saturating_sub(dropped)
    }
}

fn rules(errors: &Errors) -> Option<BreakerRules> {
    let breaker = errors.breaker.as_ref()?;
    let (percent, of_at_least) = (breaker.percent, u64::from(breaker.of_at_least));
    Some(BreakerRules { percent, of_at_least, window: breaker.window })
}

/// For people: what failed, what happens by itself, and where to look.
fn reason(errors: &Errors, counts: Counts, pause: Duration, last: &str) -> String {
    let look = match &errors.then {
        Then::DeadLetter(dead) => format!(
            "kafka-console-consumer.sh --topic {} --from-beginning --formatter-property print.headers=true shows them",
            dead.topic
        ),
        Then::Block | Then::Drop | Then::Stop => "the log names each of them".to_owned(),
    };
    format!(
        "{}, the last one {last}; it tries again after {} s, or when the host is restarted; {look}",
        most_fail(counts),
        pause.as_secs()
    )
}

fn most_fail(Counts { failed, all }: Counts) -> String {
    format!("{failed} of {all} records failed (errors.breaker)")
}
