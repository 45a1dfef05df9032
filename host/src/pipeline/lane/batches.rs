//! The batch stage of a lane: running, retrying and narrowing down.
//!
//! Batches of one batcher and key run in order: a batch that waits for another attempt holds back those of its key behind
//! it, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::messages::{set_attempt, set_first_token, set_trigger};
use sluicebox_frames::{Emission, Message, Outcome, Trigger};

use super::answer::BatchAnswer;
use super::failed::{Failed, Of};
use super::held::HeldWhat;
use super::items::BatchContent;
use super::provenance::From;
use super::{Call, CallKind, Lane, Reply, Running, read};
use crate::delivery::batcher::{Closed, Content, is_same};
use crate::delivery::policy::Then;
use crate::delivery::ticket::Target;
use crate::pipeline::sink::{Failure, Notice, Sink};

/// A closed batch that waits for its turn, or a part of one.
#[derive(Debug, Default)]
pub(super) struct DueBatch {
    /// The batch that it was closed as; parts of one share it.
    number: u64,
    batcher: usize,
    key: Vec<u8>,
    pub(super) content: BatchContent,
    /// Attempts that failed, the same for all its messages.
    failed: u32,
    pub(super) not_before: Option<Instant>,
    pub(super) blocked: Option<String>,
    /// Its one message failed for good, and the handler is asked what becomes of it.
    pub(super) verdict: Option<Failure>,
    /// Counted and said once.
    announced: Option<Trigger>,
    /// Token of its first message in the call that is under way.
    token: u64,
}

impl DueBatch {
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// No handler has seen it.
    pub(super) const fn is_fresh(&self) -> bool {
        self.announced.is_some()
    }

    /// Another version of the handler gets it at attempt 1. Where an emission of its record was refused there is nothing to
    /// try: what has to be decided stays.
    pub(super) fn begin_anew(&mut self) {
        if !self.verdict.as_ref().is_some_and(Failure::is_refusal) {
            (self.failed, self.not_before, self.blocked, self.verdict) = (0, None, None, None);
        }
    }

    /// A part of it with other content.
    pub(super) fn another(&self, content: BatchContent) -> Self {
        Self {
            number: self.number,
            batcher: self.batcher,
            key: self.key.clone(),
            content,
            failed: self.failed,
            ..Self::default()
        }
    }

    /// Of its first message.
    fn offset(&self) -> i64 {
        read(&self.content.frame).get(0).offset()
    }

    /// Of its newest message; none when a tick made them all.
    pub(super) fn newest_offset(&self) -> Option<i64> {
        read(&self.content.frame).iter().map(|message| message.offset()).max().filter(|offset| *offset >= 0)
    }
}

/// How items failed.
struct ItemFailure<'a> {
    failure: &'a Failure,
    asked: Option<Duration>,
    /// Not to be tried again.
    last: bool,
}

impl Lane {
    pub(super) fn enqueue(&mut self, batcher: usize, closed: &mut Vec<Closed<BatchContent>>) {
        for Closed { key, mut content, trigger } in closed.drain(..) {
            set_trigger(&mut content.frame, trigger);
            let number = self.next_batch;
            self.next_batch += 1;
            let announced = Some(trigger);
            self.due.push_back(DueBatch { number, batcher, key, content, announced, ..DueBatch::default() });
        }
    }

    pub(super) fn close_due_batches(&mut self, now: Instant) {
        let mut closed = Vec::new();
        for batcher in 0..self.batchers.len() {
            self.batchers[batcher].close_due(now, &mut closed);
            self.enqueue(batcher, &mut closed);
        }
        // A lane that may not run further ahead, with nothing running, closes its oldest batch: else it would stand still
        // until the batch's time is up.
        if self.tracker.span() >= self.rules.max_ahead && self.due.is_empty() && self.close_oldest_batch() {
            mark!(AheadTooFar);
        }
    }

    /// Closes the batch that waits longest; false when none is open.
    pub(super) fn close_oldest_batch(&mut self) -> bool {
        let oldest = (0..self.batchers.len())
            .filter_map(|i| self.batchers[i].oldest().map(|since| (since, i)))
            .min()
            .map(|(_, i)| i);
        let Some(batcher) = oldest else { return false };
        let mut closed = Vec::new();
        self.batchers[batcher].close_oldest(Trigger::Pressure, &mut closed);
        self.enqueue(batcher, &mut closed);
        true
    }

    /// True when an earlier batch of the same key has to run first. A blocked item does not hold back the others of its
    /// own batch: some of those may have gone already.
    pub(super) fn is_held_back(&self, place: usize) -> bool {
        let batch = &self.due[place];
        self.due.iter().take(place).any(|earlier| {
            let beside = earlier.is_blocked() && earlier.number == batch.number;
            earlier.batcher == batch.batcher && is_same(&earlier.key, &batch.key) && !beside
        })
    }

    /// While the lane drains: of a batch that is left to the next owner since some of its messages were not committed (mode
    /// "receive"), the others run here. Nobody else would ever handle them.
    pub(super) fn part_from_left(&mut self) {
        if self.draining.is_none() {
            return;
        }
        for place in (0..self.due.len()).rev() {
            if !self.is_left(&self.due[place]) {
                continue;
            }
            let Some(batch) = self.due.remove(place) else { continue };
            let all = read(&batch.content.frame);
            let (ours, theirs): (Vec<usize>, Vec<usize>) =
                (0..batch.content.messages()).partition(|i| all.get(*i).offset() < self.received);
            if ours.is_empty() {
                self.due.insert(place, batch);
                continue;
            }
            mark!(PartedFromLeft);
            let (mut ours, theirs) = (self.part(&batch, &ours), self.part(&batch, &theirs));
            (ours.announced, ours.not_before) = (batch.announced, batch.not_before);
            self.due.insert(place, theirs);
            self.due.insert(place, ours);
            self.spare.push(batch.content.frame);
        }
    }

    /// The first such batch whose time has come and whose key has no earlier one waiting.
    pub(super) fn next_batch(
        &mut self,
        now: Instant,
        sink: &mut dyn Sink,
        such: impl Fn(&DueBatch) -> bool,
    ) -> Option<Call> {
        let place = (0..self.due.len()).find(|i| {
            let batch = &self.due[*i];
            such(batch) && batch.not_before.is_none_or(|at| at <= now) && !self.is_held_back(*i) && self.may_run(batch)
        })?;
        let mut batch = self.due.remove(place)?;
        let messages = batch.content.messages();
        if let Some(trigger) = batch.announced.take() {
            sink.notice(Notice::BatchClosed { batcher: batch.batcher, trigger, messages });
        }
        let mut frame = std::mem::take(&mut batch.content.frame);
        if let Some(failure) = batch.verdict.clone() {
            let stage = self.stage_of(&batch);
            let attempts = batch.failed;
            return Some(self.ask(frame, failure, attempts, stage, Of::Item(batch)));
        }
        batch.token = self.take_tokens(messages);
        set_first_token(&mut frame, batch.token);
        for i in 0..messages {
            set_attempt(&mut frame, i, batch.failed + 1);
        }
        self.running = Some(Running::Batch(batch));
        Some(Call { kind: CallKind::Batch, frame, short: None })
    }

    /// Where its messages are, by name.
    pub(super) fn stage_of(&self, batch: &DueBatch) -> Arc<str> {
        Arc::clone(&self.rules.batchers[batch.batcher].0)
    }

    pub(super) fn on_batch_reply(&mut self, batch: DueBatch, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        match reply {
            Reply::Answer(answer) => {
                match BatchAnswer::check(&answer, &batch.content.frame, self.next_token, &self.rules, &*sink) {
                    Ok(answer) => {
                        self.attended = batch.content.messages();
                        self.apply_batch(batch, &answer, now, sink);
                    }
                    Err(failure) => {
                        sink.notice(Notice::BadAnswer { failure: &failure });
                        self.narrow_batch(batch, failure, now, sink);
                    }
                }
            }
            other => self.narrow_batch(batch, other.into_failure(), now, sink),
        }
    }

    /// A batch failed as a whole. Halves of it run by themselves until the culprit stands alone; that counts an attempt for
    /// the culprit and none for its neighbours.
    fn narrow_batch(&mut self, batch: DueBatch, failure: Failure, now: Instant, sink: &mut dyn Sink) {
        self.attended = 1;
        let messages = batch.content.messages();
        if messages == 1 {
            self.fail_items(batch, &ItemFailure { failure: &failure, asked: None, last: false }, now, sink);
            return;
        }
        mark!(BatchBisected);
        sink.notice(Notice::Isolating { messages, failure: &failure });
        let half = messages / 2;
        let first: Vec<usize> = (0..half).collect();
        let second: Vec<usize> = (half..messages).collect();
        let (first, second) = (self.part(&batch, &first), self.part(&batch, &second));
        self.put_back(second);
        self.put_back(first);
        self.spare.push(batch.content.frame);
    }

    /// A message by itself, as a batch of the batcher that gets every record; with a verdict, one that failed for good.
    pub(super) fn put_alone(&mut self, batcher: usize, message: &Message<'_>, owner: Target, verdict: Option<Failure>) {
        let content = self.content_of(batcher, message, owner);
        let number = self.next_batch;
        self.next_batch += 1;
        let failed = u32::from(verdict.is_some());
        self.put_back(DueBatch { number, batcher, content, failed, verdict, ..DueBatch::default() });
    }

    /// Before every other batch of its key: it is older.
    pub(super) fn put_back(&mut self, batch: DueBatch) {
        self.due.push_front(batch);
    }

    fn apply_batch(&mut self, batch: DueBatch, answer: &BatchAnswer<'_>, now: Instant, sink: &mut dyn Sink) {
        let all = read(&batch.content.frame);
        let acks = answer.settles_held().then(|| self.begin_acks());
        let mut next_emission = 0;
        // What is emitted as a whole holds back all that is done.
        let whole = answer.emissions() > answer.own();
        let (mut done, mut rejected, mut retried) = (Vec::new(), Vec::new(), Vec::new());
        let mut wish: Option<(Failure, Option<Duration>)> = None;
        for (i, item) in batch.content.owners.iter().enumerate() {
            match answer.outcome(i) {
                Outcome::Done { emissions } => {
                    let message = all.get(i);
                    let owner = if whole {
                        done.push(*item);
                        self.effects_of(*item, emissions, acks)
                    } else {
                        self.decide(*item, emissions, acks)
                    };
                    for e in next_emission..next_emission + emissions as usize {
                        let index = e - next_emission;
                        let from = From { message: Some(&message), attempt: batch.failed + 1, index };
                        self.emit(answer.output(e), &answer.emission(e), from, owner, sink);
                    }
                    next_emission += emissions as usize;
                }
                Outcome::Retry { reason, after } => {
                    let after = after.map(|ms| Duration::from_millis(u64::from(ms)));
                    let (_, longest) =
                        wish.get_or_insert_with(|| (Failure { class: "retry", reason: reason.to_owned() }, after));
                    *longest = (*longest).max(after);
                    retried.push(i);
                }
                Outcome::Reject { reason } => {
                    rejected.push((i, Failure { class: "reject", reason: reason.to_owned() }));
                }
                Outcome::Hold => {
                    let item = self.part(&batch, &[i]);
                    self.held.hold(batch.token + i as u64, HeldWhat::Item(item), now);
                }
            }
        }
        if whole {
            self.emit_whole(&batch, answer, done, acks, sink);
        }
        if let Some(acks) = acks {
            self.end_acks(acks, answer.answer(), now, sink);
        }
        // Both go back to the front. Which comes first does not matter: neither holds the other back for good (see
        // `is_held_back`).
        if let Some((failure, asked)) = wish {
            let part = self.part(&batch, &retried);
            self.fail_items(part, &ItemFailure { failure: &failure, asked, last: false }, now, sink);
        }
        for (i, failure) in rejected.into_iter().rev() {
            let part = self.part(&batch, &[i]);
            self.fail_items(part, &ItemFailure { failure: &failure, asked: None, last: true }, now, sink);
        }
        self.spare.push(batch.content.frame);
    }

    /// What the batch emits as a whole holds back every done item of it, and what the answer acks.
    fn emit_whole(
        &mut self,
        batch: &DueBatch,
        answer: &BatchAnswer<'_>,
        mut done: Vec<Target>,
        acks: Option<u64>,
        sink: &mut dyn Sink,
    ) {
        let whole = answer.emissions() - answer.own();
        if let Some(acks) = acks {
            self.gates.add(acks, 1);
            done.push(Target::Gate(acks));
        }
        let gate = Target::Gate(self.gates.close(whole as u32, done));
        let all = read(&batch.content.frame);
        let offsets = (all.get(0).offset(), all.get(all.len() - 1).offset());
        for e in answer.own()..answer.emissions() {
            let from = From { message: None, attempt: batch.failed + 1, index: e - answer.own() };
            self.emit_from(answer.output(e), &answer.emission(e), from, Some(offsets), gate, sink);
        }
    }

    /// All messages of `batch` failed an attempt.
    fn fail_items(&mut self, mut batch: DueBatch, how: &ItemFailure<'_>, now: Instant, sink: &mut dyn Sink) {
        batch.failed = batch.failed.saturating_add(1);
        let attempt = batch.failed;
        if how.last || self.rules.retry.exhausted(attempt) {
            // Each stands alone from here on: the others of the batch may be good.
            for i in (1..batch.content.messages()).rev() {
                let alone = self.part(&batch, &[i]);
                self.over_item(alone, how.failure, now, sink);
            }
            let first = if batch.content.messages() == 1 { batch } else { self.part(&batch, &[0]) };
            self.over_item(first, how.failure, now, sink);
            return;
        }
        let wait = self.rules.retry.wait(attempt, how.asked, self.chance.draw());
        sink.notice(Notice::Retrying { offset: batch.offset(), attempt, failure: how.failure, wait });
        batch.not_before = Some(now + wait);
        self.put_back(batch);
    }

    /// A held item failed an attempt.
    pub(super) fn fail_item(&mut self, batch: DueBatch, failure: &Failure, now: Instant, sink: &mut dyn Sink) {
        self.fail_items(batch, &ItemFailure { failure, asked: None, last: false }, now, sink);
    }

    /// The attempts of an item, alone in its batch, are over.
    fn over_item(&mut self, mut batch: DueBatch, failure: &Failure, now: Instant, sink: &mut dyn Sink) {
        if self.rules.trial {
            batch.not_before = Some(now + self.step_back(batch.offset(), batch.failed, failure, sink));
            self.put_back(batch);
            return;
        }
        if self.rules.exports.failures {
            batch.not_before = None;
            batch.verdict = Some(failure.clone());
            self.put_back(batch);
            return;
        }
        let stage = self.stage_of(&batch);
        self.rule_item(batch, self.rules.then, failure, &stage, None, now, sink);
    }

    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one failure")]
    pub(super) fn rule_item(
        &mut self,
        mut batch: DueBatch,
        then: Then,
        failure: &Failure,
        stage: &str,
        letter: Option<&Emission<'_>>,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        let attempts = batch.failed;
        if then == Then::Block {
            let wait = self.rules.retry.blocked_wait(self.chance.draw());
            let (offset, first) = (batch.offset(), batch.blocked.is_none());
            sink.notice(Notice::Blocked { offset, attempt: attempts, failure, first, wait });
            batch.blocked = Some(failure.at(offset, attempts));
            batch.not_before = Some(now + wait);
            self.put_back(batch);
            return;
        }
        let (source, target) = (batch.content.source(0), batch.content.owners[0]);
        let version = Arc::clone(&self.rules.version);
        let failed = Failed { source, target, failure, attempts, stage, version: &version };
        match then {
            Then::DeadLetter => self.dead_letter(&failed, letter, sink),
            Then::Drop => self.give_up(&failed, sink),
            Then::Block | Then::Stop => {
                self.stop(&failed, sink);
                self.put_back(batch);
                return;
            }
        }
        self.spare.push(batch.content.frame);
    }
}
