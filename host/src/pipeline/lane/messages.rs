//! The message stage of a lane: bursts, prefix answers, retries of the head.
//!
//! Only the message at the head can be between attempts: what comes after it has not been offered, or was cut off the
//! answer. That is what keeps the partition's order. Messages that were held and are offered again stand alone (`again`):
//! for those the handler has given the order up itself.

use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Outcome, messages};

use super::answer::{BurstAnswer, Route};
use super::failed::Of;
use super::held::HeldWhat;
use super::provenance::From;
use super::{Call, CallKind, Lane, Reply, Running, read};
use crate::delivery::ticket::{Seq, Target};
use crate::pipeline::sink::{Failure, Notice, Sink};

/// Messages of one frame that are at the message stage.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) frame: Frame,
    /// Messages of the frame that are decided.
    pub(super) decided: usize,
    pub(super) count: usize,
    /// Number of the frame's first message.
    pub(super) first: Seq,
    /// Attempts of the first message that is not decided.
    pub(super) head: Head,
    /// The mark that the head's fate holds, where that is not its record's own.
    pub(super) owner: Option<Target>,
}

/// Attempts of the message at the head.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Attempts that failed.
    pub(super) failed: u32,
    pub(super) not_before: Option<Instant>,
    reason: Option<String>,
    blocked: bool,
    /// It failed for good, and its handler is asked what becomes of it.
    pub(super) verdict: Option<Failure>,
}

impl Head {
    pub(super) fn blocked(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| self.blocked)
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// As [`DueBatch::begin_anew`](super::batches::DueBatch::begin_anew).
    pub(super) fn begin_anew(&mut self) {
        if !self.verdict.as_ref().is_some_and(Failure::is_refusal) {
            *self = Self::default();
        }
    }
}

impl Work {
    pub(super) fn new(frame: Frame, count: usize, first: Seq) -> Self {
        Self { frame, decided: 0, count, first, head: Head::default(), owner: None }
    }

    pub(super) fn head_seq(&self) -> Seq {
        self.first + self.decided as u64
    }

    /// The mark that the fate of message `place` holds.
    #[inline]
    pub(super) fn owner(&self, place: usize) -> Target {
        self.owner.unwrap_or(Target::Record(self.first + place as u64))
    }

    /// Its head is between attempts.
    pub(super) fn is_waiting(&self) -> bool {
        self.head.not_before.is_some()
    }

    /// The fate of the head is decided.
    pub(super) fn pass_head(&mut self) {
        self.head = Head::default();
        self.decided += 1;
    }

    /// What is left of it, if anything is.
    fn rest(self, spare: &mut Vec<Frame>) -> Option<Self> {
        if self.decided < self.count {
            return Some(self);
        }
        spare.push(self.frame);
        None
    }
}

/// How far an answer was carried out.
struct Progress {
    decided: usize,
    /// The one after them failed an attempt.
    failed: Option<(Failure, Option<Duration>, bool)>,
}

impl Lane {
    /// So many messages are offered one at a time.
    pub fn offer_singly(&mut self, count: u64) {
        let next = self.head_seq().unwrap_or_else(|| self.tracker.next_seq());
        self.isolate_until = self.isolate_until.max(next + count);
    }

    pub(super) fn next_messages(&mut self, now: Instant) -> Option<Call> {
        if self.draining.is_some() {
            self.abandon_pending();
        }
        let head = &self.pending.as_ref()?.head;
        if !head.is_due(now) || self.is_blocked() || !self.may_offer() {
            return None;
        }
        if head.verdict.is_some() {
            return self.ask_of_head();
        }
        let seq = self.head_seq()?;
        let alone = seq < self.isolate_until;
        let limit = if alone { 1 } else { self.burst.limit() };
        // What is held already counts; a single message may always go, or an ack could never come.
        let limit = limit.min(self.rules.hold.max.saturating_sub(self.held.len())).max(1);
        let token = self.take_tokens(limit);
        let work = self.pending.as_mut()?;
        let attempt = work.head.failed + 1;
        let count = limit.min(work.count - work.decided);
        let whole = work.decided == 0 && count == work.count;
        let ordinary = !alone && work.head.failed == 0;
        let short = if ordinary { self.burst.short(count) } else { None };
        let mut frame = if whole {
            std::mem::take(&mut work.frame)
        } else {
            let mut part = self.spare.pop().unwrap_or_default();
            messages::copy_range(&work.frame, work.decided, count, &mut part);
            part
        };
        messages::set_first_token(&mut frame, token);
        // The frame may say otherwise: it may have been packed for, and offered to, another version of the handler.
        messages::set_attempt(&mut frame, 0, attempt);
        messages::set_stop_at_reject(&mut frame, self.rules.stops_at_reject());
        self.running = Some(Running::Messages { count, whole, token });
        Some(Call { kind: CallKind::Messages, frame, short })
    }

    /// The oldest of the single messages whose time has come.
    pub(super) fn next_again(&mut self, now: Instant) -> Option<Call> {
        if self.draining.is_some() {
            return None;
        }
        let seq = self.again.iter().find(|(_, work)| work.head.is_due(now)).map(|(seq, _)| *seq)?;
        let mut work = self.again.remove(&seq)?;
        if work.head.verdict.is_some() {
            return Some(self.ask_of_single(work));
        }
        let token = self.take_tokens(1);
        let mut frame = std::mem::take(&mut work.frame);
        messages::set_first_token(&mut frame, token);
        messages::set_attempt(&mut frame, 0, work.head.failed + 1);
        messages::set_stop_at_reject(&mut frame, self.rules.stops_at_reject());
        self.running = Some(Running::Again { work, token });
        Some(Call { kind: CallKind::Messages, frame, short: None })
    }

    /// Takes in the answer to `count` messages of `work`; gives back what is left of it.
    pub(super) fn on_messages_reply(
        &mut self,
        mut work: Work,
        count: usize,
        token: u64,
        reply: Reply,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> Option<Work> {
        let progress = match reply {
            Reply::Answer(answer) => {
                match BurstAnswer::check(&answer, &work, count, self.next_token, &self.rules, &*sink) {
                    Ok(answer) => {
                        // An answer that runs on past an outcome that is not final is cut there, and acks nothing.
                        let acks = (answer.settles_held() && answer.is_whole(self.rules.stops_at_reject()))
                            .then(|| self.begin_acks());
                        if acks.is_none() && answer.settles_held() {
                            mark!(AcksVoid);
                        }
                        let progress = self.apply(&work, count, token, &answer, acks, now, sink);
                        if let Some(acks) = acks {
                            self.end_acks(acks, answer.answer(), now, sink);
                        }
                        progress
                    }
                    Err(failure) => {
                        sink.notice(Notice::BadAnswer { failure: &failure });
                        self.narrow(&work, count, failure, sink)
                    }
                }
            }
            other => self.narrow(&work, count, other.into_failure(), sink),
        };
        self.attended = (progress.decided + usize::from(progress.failed.is_some())).max(1);
        if progress.decided > 0 {
            if work.head.blocked {
                sink.notice(Notice::Unblocked { offset: read(&work.frame).get(work.decided).offset() });
            }
            work.head = Head::default();
            work.decided += progress.decided;
        }
        if let Some((failure, asked, final_answer)) = progress.failed
            && self.fail_head(&mut work, failure, asked, final_answer, now, sink)
        {
            work.pass_head();
        }
        work.rest(&mut self.spare)
    }

    /// A call for several messages failed: nobody knows for which, so it counts for none, and they run one by one.
    fn narrow(&mut self, work: &Work, count: usize, failure: Failure, sink: &mut dyn Sink) -> Progress {
        if count == 1 {
            return Progress { decided: 0, failed: Some((failure, None, false)) };
        }
        mark!(BurstNarrowed);
        sink.notice(Notice::Isolating { messages: count, failure: &failure });
        self.isolate_until = work.head_seq() + count as u64;
        Progress { decided: 0, failed: None }
    }

    /// Carries out a checked answer up to the first outcome that is not final.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one answer")]
    fn apply(
        &mut self,
        work: &Work,
        count: usize,
        token: u64,
        answer: &BurstAnswer<'_>,
        acks: Option<u64>,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> Progress {
        let all = read(&work.frame);
        let mut next_emission = 0;
        let outcomes = answer.outcomes().min(count);
        let failed = |i: usize, failure, after, last| Progress { decided: i, failed: Some((failure, after, last)) };
        for i in 0..outcomes {
            let message = all.get(work.decided + i);
            let seq = work.first + message.number() as u64;
            let attempt = if i == 0 { work.head.failed + 1 } else { 1 };
            match answer.outcome(i) {
                Outcome::Done { emissions } => {
                    let own = work.owner(work.decided + i);
                    let owner = self.decide(own, emissions, acks);
                    let emissions = emissions as usize;
                    for e in next_emission..next_emission + emissions {
                        match answer.route(e) {
                            Route::Batcher(batcher) => self.gather(batcher, &message, &answer.emission(e), owner, now),
                            Route::Output(output) => {
                                let from = From { message: Some(&message), attempt, index: e - next_emission };
                                self.emit(output, &answer.emission(e), from, owner, sink);
                            }
                        }
                    }
                    next_emission += emissions;
                }
                Outcome::Retry { reason, after } => {
                    let failure = Failure { class: "retry", reason: reason.to_owned() };
                    return failed(i, failure, after.map(|ms| Duration::from_millis(u64::from(ms))), false);
                }
                Outcome::Reject { reason } => {
                    let failure = Failure { class: "reject", reason: reason.to_owned() };
                    if self.rules.stops_at_reject() {
                        return failed(i, failure, None, true);
                    }
                    self.close_message(work, work.decided + i, &failure, attempt, sink);
                }
                Outcome::Hold => {
                    let mut frame = self.spare.pop().unwrap_or_default();
                    messages::copy_range(&work.frame, work.decided + i, 1, &mut frame);
                    let mut single = Work::new(frame, 1, seq);
                    single.owner = work.owner;
                    single.head.failed = attempt - 1;
                    self.held.hold(token + i as u64, HeldWhat::Message(single), now);
                }
            }
        }
        Progress { decided: outcomes, failed: None }
    }

    /// The head failed an attempt. True when its fate is decided by that.
    pub(super) fn fail_head(
        &mut self,
        work: &mut Work,
        failure: Failure,
        asked: Option<Duration>,
        final_answer: bool,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> bool {
        work.head.failed = work.head.failed.saturating_add(1);
        let attempt = work.head.failed;
        if final_answer || self.rules.retry.exhausted(attempt) {
            if self.rules.trial {
                let offset = read(&work.frame).get(work.decided).offset();
                let wait = self.step_back(offset, attempt, &failure, sink);
                (work.head.not_before, work.head.reason) = (Some(now + wait), Some(failure.at(offset, attempt)));
                return false;
            }
            if self.rules.exports.failures {
                work.head.not_before = None;
                work.head.verdict = Some(failure);
                return false;
            }
            return self.close_head(work, &failure, now, sink);
        }
        let offset = read(&work.frame).get(work.decided).offset();
        let wait = self.rules.retry.wait(attempt, asked, self.chance.draw());
        work.head.not_before = Some(now + wait);
        work.head.reason = Some(failure.at(offset, attempt));
        sink.notice(Notice::Retrying { offset, attempt, failure: &failure, wait });
        false
    }

    /// The head stays where it is, and is tried again at the largest back-off.
    pub(super) fn block_head(&mut self, work: &mut Work, failure: &Failure, now: Instant, sink: &mut dyn Sink) {
        let attempt = work.head.failed;
        let offset = read(&work.frame).get(work.decided).offset();
        let wait = self.rules.retry.blocked_wait(self.chance.draw());
        work.head.not_before = Some(now + wait);
        work.head.reason = Some(failure.at(offset, attempt));
        let first = !std::mem::replace(&mut work.head.blocked, true);
        sink.notice(Notice::Blocked { offset, attempt, failure, first, wait });
    }

    /// Asks the handler about the pending message at the head.
    fn ask_of_head(&mut self) -> Option<Call> {
        let work = self.pending.as_mut()?;
        let failure = work.head.verdict.clone()?;
        let mut frame = self.spare.pop().unwrap_or_default();
        messages::copy_range(&work.frame, work.decided, 1, &mut frame);
        let attempts = work.head.failed;
        Some(self.ask(frame, failure, attempts, "message".into(), Of::Head))
    }

    /// A message that stands alone is to be offered again. Its record may be there already, when emissions of it were refused
    /// twice: one of the two decides its fate.
    pub(super) fn offer_again(&mut self, work: Work) {
        if let Entry::Vacant(place) = self.again.entry(work.first) {
            place.insert(work);
            return;
        }
        mark!(AgainAlready);
        self.settle(work.owner(0));
        self.spare.push(work.frame);
    }

    fn ask_of_single(&mut self, mut work: Work) -> Call {
        let failure = work.head.verdict.clone().expect("asked only for a failure");
        let frame = std::mem::take(&mut work.frame);
        let attempts = work.head.failed;
        self.ask(frame, failure, attempts, "message".into(), Of::Single(work))
    }
}
