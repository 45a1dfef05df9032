//! The message stage of a lane: bursts, prefix answers, retries of the head.
//!
//! Only the message at the head can be between attempts: what comes after it has not been offered, or was cut off the
//! answer. That is what keeps the partition's order.

use std::time::{Duration, Instant};

use sluicebox_frames::{Outcome, messages};

use super::answer::{BurstAnswer, emit};
use super::{Call, CallKind, Lane, Pending, Reply, Running, read};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::Target;
use crate::pipeline::sink::{DeadLetter, Failure, Notice, Sink};

/// Attempts of the message at the head of a lane.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Attempts that failed.
    failed: u32,
    not_before: Option<Instant>,
    reason: Option<String>,
    blocked: bool,
}

impl Head {
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn blocked(&self) -> Option<String> {
        self.reason.clone().filter(|_| self.blocked)
    }

    pub(super) fn backing_off(&self) -> Option<String> {
        self.reason.clone()
    }
}

/// How many of a burst's messages are decided.
struct Progress {
    decided: usize,
    /// The one after them failed an attempt.
    failed: Option<(Failure, Option<Duration>, bool)>,
}

impl Lane {
    pub(super) fn next_messages(&mut self, now: Instant) -> Option<Call> {
        if self.draining.is_some() {
            self.abandon_pending();
            return None;
        }
        if self.head.not_before.is_some_and(|at| at > now) || self.due.iter().any(super::DueBatch::is_blocked) {
            return None;
        }
        let seq = self.head_seq()?;
        let limit = if seq < self.isolate_until { 1 } else { self.burst.limit() };
        let token = self.take_tokens(limit);
        let attempt = self.head.failed + 1;
        let pending = self.pending.as_mut()?;
        let count = limit.min(pending.count - pending.decided);
        let whole = pending.decided == 0 && count == pending.count;
        let mut frame = if whole {
            std::mem::take(&mut pending.frame)
        } else {
            let mut part = self.spare.pop().unwrap_or_default();
            messages::copy_range(&pending.frame, pending.decided, count, &mut part);
            part
        };
        messages::set_first_token(&mut frame, token);
        if attempt > 1 || whole {
            messages::set_attempt(&mut frame, 0, attempt);
        }
        self.running = Some(Running::Messages { count, whole });
        Some(Call { kind: CallKind::Messages, frame })
    }

    pub(super) fn on_messages_reply(&mut self, count: usize, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        let Some(mut pending) = self.pending.take() else { return };
        let progress = match reply {
            Reply::Answer(answer) => match BurstAnswer::check(&answer, &pending, count, &self.rules, &*sink) {
                Ok(answer) => self.apply(&pending, count, &answer, now, sink),
                Err(failure) => {
                    sink.notice(Notice::BadAnswer { failure: &failure });
                    self.narrow(&pending, count, failure, sink)
                }
            },
            Reply::Fault(failure) => self.narrow(&pending, count, failure, sink),
            Reply::BatchError(reason) => self.narrow(&pending, count, Failure { class: "host", reason }, sink),
        };
        if progress.decided > 0 {
            if let Some(offset) = self.head.blocked.then(|| read(&pending.frame).get(pending.decided).offset()) {
                sink.notice(Notice::Unblocked { offset });
            }
            self.head = Head::default();
            pending.decided += progress.decided;
        }
        if let Some((failure, asked, final_answer)) = progress.failed
            && self.fail_head(&pending, &failure, asked, final_answer, now, sink)
        {
            self.head = Head::default();
            pending.decided += 1;
        }
        if pending.decided < pending.count {
            self.pending = Some(pending);
        } else {
            self.spare.push(pending.frame);
        }
    }

    /// A call for several messages failed: nobody knows for which, so it counts for none, and they run one by one.
    fn narrow(&mut self, pending: &Pending, count: usize, failure: Failure, sink: &mut dyn Sink) -> Progress {
        if count == 1 {
            return Progress { decided: 0, failed: Some((failure, None, false)) };
        }
        sink.notice(Notice::Isolating { messages: count, failure: &failure });
        self.isolate_until = pending.first + (pending.decided + count) as u64;
        Progress { decided: 0, failed: None }
    }

    /// Carries out a checked answer up to the first outcome that is not final.
    fn apply(
        &mut self,
        pending: &Pending,
        count: usize,
        answer: &BurstAnswer<'_>,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> Progress {
        let all = read(&pending.frame);
        let mut next_emission = 0;
        for i in 0..answer.outcomes().min(count) {
            let message = all.get(pending.decided + i);
            let seq = pending.first + message.number() as u64;
            match answer.outcome(i) {
                Outcome::Done { emissions } => {
                    let emissions = emissions as usize;
                    self.tracker.add(seq, emissions as u32);
                    for e in next_emission..next_emission + emissions {
                        match answer.batcher(e) {
                            Some(batcher) => self.gather(batcher, &message, &answer.emission(e), seq, now),
                            None => {
                                let ticket = self.ticket(Target::Record(seq));
                                let sticky = &mut self.sticky;
                                emit(answer.output(e), &answer.emission(e), Some(&message), ticket, sticky, sink);
                            }
                        }
                    }
                    next_emission += emissions;
                    self.tracker.settle(seq);
                }
                Outcome::Retry { reason, after } => {
                    let failure = Failure { class: "retry", reason: reason.to_owned() };
                    let after = after.map(|ms| Duration::from_millis(u64::from(ms)));
                    return Progress { decided: i, failed: Some((failure, after, false)) };
                }
                Outcome::Reject { reason } => {
                    let failure = Failure { class: "reject", reason: reason.to_owned() };
                    if !self.rules.dead_letter {
                        return Progress { decided: i, failed: Some((failure, None, true)) };
                    }
                    let attempts = if i == 0 { self.head.failed + 1 } else { 1 };
                    self.dead_letter_message(pending, pending.decided + i, &failure, attempts, sink);
                }
                Outcome::Hold => unreachable!("refused when the answer was checked"),
            }
        }
        Progress { decided: answer.outcomes().min(count), failed: None }
    }

    /// The head failed an attempt. True when its fate is decided by that (dead-lettered).
    fn fail_head(
        &mut self,
        pending: &Pending,
        failure: &Failure,
        asked: Option<Duration>,
        final_answer: bool,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> bool {
        self.head.failed = self.head.failed.saturating_add(1);
        let attempt = self.head.failed;
        let offset = read(&pending.frame).get(pending.decided).offset();
        let over = final_answer || self.rules.retry.exhausted(attempt);
        if over && self.rules.dead_letter {
            self.dead_letter_message(pending, pending.decided, failure, attempt, sink);
            return true;
        }
        let chance = self.chance.draw();
        let wait =
            if over { self.rules.retry.blocked_wait(chance) } else { self.rules.retry.wait(attempt, asked, chance) };
        self.head.not_before = Some(now + wait);
        self.head.reason = Some(format!("{}: {} (offset {offset}, attempt {attempt})", failure.class, failure.reason));
        if over {
            let first = !std::mem::replace(&mut self.head.blocked, true);
            sink.notice(Notice::Blocked { offset, attempt, failure, first, wait });
        } else {
            sink.notice(Notice::Retrying { offset, attempt, failure, wait });
        }
        false
    }

    fn dead_letter_message(
        &mut self,
        pending: &Pending,
        message: usize,
        failure: &Failure,
        attempts: u32,
        sink: &mut dyn Sink,
    ) {
        let seq = pending.first + message as u64;
        let message = read(&pending.frame).get(message);
        let record = Outgoing {
            key: message.key(),
            value: message.value(),
            headers: [message.headers(), sluicebox_frames::Headers::default()],
            timestamp: message.timestamp(),
        };
        // The open mark of "not decided" becomes the dead letter's.
        self.tracker.mark_failed(seq);
        let letter = DeadLetter { record, offset: message.offset(), failure, attempts, stage: "message" };
        let ticket = self.ticket(Target::Record(seq));
        sink.dead_letter(&letter, ticket);
    }
}
