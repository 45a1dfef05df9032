//! The batch stage of a lane: gathering, running, retrying and narrowing down.
//!
//! Batches of one batcher and key run in order: a batch that waits for another attempt holds back those of its key behind
//! it, and nothing else.

use std::time::{Duration, Instant};

use sluicebox_frames::messages::{set_attempt, set_first_token, set_trigger};
use sluicebox_frames::{
    BatchInfo, Emission, Frame, Headers, Message, MessagesWriter, NewMessage, Outcome, Source, Trigger,
};

use super::answer::{BatchAnswer, emit, resolve};
use super::{Call, CallKind, Lane, Reply, Running, read};
use crate::delivery::batcher::{Closed, Content};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::{Seq, Target};
use crate::pipeline::sink::{DeadLetter, Failure, Notice, Sink};

/// The messages of a batch.
#[derive(Debug, Default)]
pub(super) struct BatchContent {
    /// As the handler gets them.
    pub(super) frame: Frame,
    /// The record behind each.
    pub(super) records: Vec<Seq>,
    /// The source records, message by message, when dead letters may be needed of them (a burst frame); empty otherwise.
    sources: Frame,
}

impl Content for BatchContent {
    fn messages(&self) -> usize {
        self.records.len()
    }
}

impl BatchContent {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len() + self.sources.len()
    }
}

/// A closed batch that waits for its turn, or a part of one.
#[derive(Debug)]
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
    /// Counted and said once.
    announced: Option<Trigger>,
}

impl DueBatch {
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }
}

fn copied<'a>(message: &Message<'a>, attempt: u32) -> NewMessage<'a> {
    NewMessage {
        offset: message.offset(),
        timestamp: message.timestamp(),
        timestamp_type: message.timestamp_type(),
        key: message.key(),
        value: message.value(),
        attempt,
        source: 0,
    }
}

impl Lane {
    /// Puts an emission of a message into a batcher.
    pub(super) fn gather(
        &mut self,
        batcher: usize,
        message: &Message<'_>,
        emission: &Emission<'_>,
        seq: Seq,
        now: Instant,
    ) {
        let record = resolve(emission, Some(message));
        self.gather_record(batcher, emission.batch_key(), emission.flush(), &record, message, seq, now);
    }

    /// Puts all messages of a burst into a batcher, for a handler without a message form.
    pub(super) fn gather_all(&mut self, batcher: usize, burst: &Frame, first: Seq, now: Instant, _sink: &mut dyn Sink) {
        for message in read(burst).iter() {
            let record = Outgoing {
                key: message.key(),
                value: message.value(),
                headers: [message.headers(), Headers::default()],
                timestamp: message.timestamp(),
            };
            let seq = first + message.number() as u64;
            self.gather_record(batcher, b"", false, &record, &message, seq, now);
        }
        let mut closed = Vec::new();
        self.batchers[batcher].end_of_burst(&mut closed);
        self.enqueue(batcher, &mut closed);
    }

    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one message")]
    fn gather_record(
        &mut self,
        batcher: usize,
        key: &[u8],
        flush: bool,
        record: &Outgoing<'_>,
        source: &Message<'_>,
        seq: Seq,
        now: Instant,
    ) {
        let mut closed = Vec::new();
        let name = &self.rules.batchers[batcher].0;
        let partition = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
        let (epoch, keep_source) = (self.epoch, self.rules.dead_letter && self.rules.straight_to.is_none());
        let spare = &mut self.spare;
        let new = || {
            let mut content = BatchContent { frame: spare.pop().unwrap_or_default(), ..BatchContent::default() };
            let info = BatchInfo { batcher: name, batch_key: key, trigger: Trigger::Size };
            MessagesWriter::batch(&mut content.frame, &[partition], epoch, info).finish();
            if keep_source {
                MessagesWriter::burst(&mut content.sources, partition, epoch, false).finish();
            }
            content
        };
        let add = |content: &mut BatchContent| {
            let mut writer = MessagesWriter::resume(&mut content.frame);
            let new = NewMessage {
                key: record.key,
                value: record.value,
                timestamp: if record.timestamp > 0 { record.timestamp } else { source.timestamp() },
                ..copied(source, 1)
            };
            writer.push_with(&new, |headers| {
                headers.push_all(record.headers[0]);
                headers.push_all(record.headers[1]);
            });
            writer.finish();
            if keep_source {
                let mut writer = MessagesWriter::resume(&mut content.sources);
                writer.push(&copied(source, 1), source.headers());
                writer.finish();
            }
            content.records.push(seq);
        };
        let kept = if keep_source { record_bytes(source) } else { 0 };
        let bytes = (record.bytes() + kept) as u64;
        self.batchers[batcher].push(key, bytes, flush, now, new, add, &mut closed);
        self.enqueue(batcher, &mut closed);
    }

    pub(super) fn enqueue(&mut self, batcher: usize, closed: &mut Vec<Closed<BatchContent>>) {
        for Closed { key, mut content, trigger } in closed.drain(..) {
            set_trigger(&mut content.frame, trigger);
            let number = self.next_batch;
            self.next_batch += 1;
            self.due.push_back(DueBatch {
                number,
                batcher,
                key,
                content,
                failed: 0,
                not_before: None,
                blocked: None,
                announced: Some(trigger),
            });
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
        if self.tracker.span() >= self.rules.max_ahead && self.due.is_empty() {
            self.close_oldest_batch();
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
            earlier.batcher == batch.batcher && earlier.key == batch.key && !beside
        })
    }

    /// The first batch whose time has come and whose key has no earlier one waiting.
    pub(super) fn next_batch(&mut self, now: Instant, sink: &mut dyn Sink) -> Option<Call> {
        let place = (0..self.due.len())
            .find(|i| self.due[*i].not_before.is_none_or(|at| at <= now) && !self.is_held_back(*i))?;
        let mut batch = self.due.remove(place)?;
        let messages = batch.content.messages();
        if let Some(trigger) = batch.announced.take() {
            sink.notice(Notice::BatchClosed { batcher: batch.batcher, trigger, messages });
        }
        let token = self.take_tokens(messages);
        let mut frame = std::mem::take(&mut batch.content.frame);
        set_first_token(&mut frame, token);
        for i in 0..messages {
            set_attempt(&mut frame, i, batch.failed + 1);
        }
        self.running = Some(Running::Batch(batch));
        Some(Call { kind: CallKind::Batch, frame })
    }

    pub(super) fn on_batch_reply(&mut self, batch: DueBatch, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        match reply {
            Reply::Answer(answer) => match BatchAnswer::check(&answer, &batch.content.frame, &self.rules, &*sink) {
                Ok(answer) => self.apply_batch(batch, &answer, now, sink),
                Err(failure) => self.narrow_batch(batch, failure, now, sink),
            },
            Reply::BatchError(reason) => {
                self.narrow_batch(batch, Failure { class: "retry", reason }, now, sink);
            }
            Reply::Fault(failure) => self.narrow_batch(batch, failure, now, sink),
        }
    }

    /// A batch failed as a whole. Halves of it run by themselves until the culprit stands alone; that counts an attempt for
    /// the culprit and none for its neighbours.
    fn narrow_batch(&mut self, batch: DueBatch, failure: Failure, now: Instant, sink: &mut dyn Sink) {
        let messages = batch.content.messages();
        if messages == 1 {
            self.fail_items(batch, &[0], &failure, None, false, now, sink);
            return;
        }
        sink.notice(Notice::Isolating { messages, failure: &failure });
        let half = messages / 2;
        let first: Vec<usize> = (0..half).collect();
        let second: Vec<usize> = (half..messages).collect();
        let (first, second) = (self.part(&batch, &first), self.part(&batch, &second));
        self.put_back(second);
        self.put_back(first);
        self.spare.push(batch.content.frame);
    }

    /// Some messages of a batch as a batch of their own.
    fn part(&mut self, batch: &DueBatch, items: &[usize]) -> DueBatch {
        let all = read(&batch.content.frame);
        let mut content = BatchContent { frame: self.spare.pop().unwrap_or_default(), ..BatchContent::default() };
        let source = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
        let info = all.batch_info().expect("a batch says what it is");
        let mut writer = MessagesWriter::batch(&mut content.frame, &[source], self.epoch, info);
        for i in items {
            let message = all.get(*i);
            writer.push(&copied(&message, message.attempt()), message.headers());
        }
        writer.finish();
        if !batch.content.sources.is_empty() {
            let sources = read(&batch.content.sources);
            let mut writer = MessagesWriter::burst(&mut content.sources, source, self.epoch, false);
            for i in items {
                writer.push(&copied(&sources.get(*i), 1), sources.get(*i).headers());
            }
            writer.finish();
        }
        content.records = items.iter().map(|i| batch.content.records[*i]).collect();
        DueBatch {
            number: batch.number,
            batcher: batch.batcher,
            key: batch.key.clone(),
            content,
            failed: batch.failed,
            not_before: None,
            blocked: None,
            announced: None,
        }
    }

    /// Before every other batch of its key: it is older.
    fn put_back(&mut self, batch: DueBatch) {
        self.due.push_front(batch);
    }

    fn apply_batch(&mut self, batch: DueBatch, answer: &BatchAnswer<'_>, now: Instant, sink: &mut dyn Sink) {
        let all = read(&batch.content.frame);
        let mut next_emission = 0;
        let (mut done, mut rejected, mut retried) = (Vec::new(), Vec::new(), Vec::new());
        let mut wish: Option<(Failure, Option<Duration>)> = None;
        for (i, seq) in batch.content.records.iter().enumerate() {
            match answer.outcome(i) {
                Outcome::Done { emissions } => {
                    let message = all.get(i);
                    self.tracker.add(*seq, emissions);
                    for e in next_emission..next_emission + emissions as usize {
                        let ticket = self.ticket(Target::Record(*seq));
                        emit(answer.output(e), &answer.emission(e), Some(&message), ticket, &mut self.sticky, sink);
                    }
                    next_emission += emissions as usize;
                    done.push(*seq);
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
                Outcome::Hold => unreachable!("refused when the answer was checked"),
            }
        }
        // What the batch emits as a whole holds back every done record of it.
        let whole = answer.emissions() - answer.own();
        if whole > 0 {
            let gate = Target::Gate(self.gates.close(whole as u32, done));
            for e in answer.own()..answer.emissions() {
                let ticket = self.ticket(gate);
                emit(answer.output(e), &answer.emission(e), None, ticket, &mut self.sticky, sink);
            }
        } else {
            for seq in done {
                self.tracker.settle(seq);
            }
        }
        // Both go back to the front. Which comes first does not matter: neither holds the other back for good (see
        // `is_held_back`).
        if let Some((failure, after)) = wish {
            self.fail_items_of(&batch, &retried, &failure, after, false, now, sink);
        }
        for (i, failure) in rejected.into_iter().rev() {
            self.fail_items_of(&batch, &[i], &failure, None, true, now, sink);
        }
        self.spare.push(batch.content.frame);
    }

    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one failure")]
    fn fail_items_of(
        &mut self,
        batch: &DueBatch,
        items: &[usize],
        failure: &Failure,
        asked: Option<Duration>,
        final_answer: bool,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        let part = self.part(batch, items);
        let places: Vec<usize> = (0..items.len()).collect();
        self.fail_items(part, &places, failure, asked, final_answer, now, sink);
    }

    /// All messages of `batch` (`items` are their places) failed an attempt.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one failure")]
    fn fail_items(
        &mut self,
        mut batch: DueBatch,
        items: &[usize],
        failure: &Failure,
        asked: Option<Duration>,
        final_answer: bool,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        batch.failed = batch.failed.saturating_add(1);
        let attempt = batch.failed;
        let over = final_answer || self.rules.retry.exhausted(attempt);
        if over && self.rules.dead_letter {
            for i in items {
                self.dead_letter_item(&batch, *i, failure, attempt, sink);
            }
            self.spare.push(batch.content.frame);
            return;
        }
        let offset = read(&batch.content.frame).get(0).offset();
        let chance = self.chance.draw();
        if !over {
            let wait = self.rules.retry.wait(attempt, asked, chance);
            sink.notice(Notice::Retrying { offset, attempt, failure, wait });
            batch.not_before = Some(now + wait);
            self.put_back(batch);
            return;
        }
        // Blocked items stand alone: the others of the batch may be good.
        let wait = self.rules.retry.blocked_wait(chance);
        for i in items.iter().rev() {
            let mut alone = if items.len() == 1 {
                std::mem::replace(&mut batch, DueBatch::nothing())
            } else {
                self.part(&batch, &[*i])
            };
            let offset = read(&alone.content.frame).get(0).offset();
            let first = alone.blocked.is_none();
            sink.notice(Notice::Blocked { offset, attempt, failure, first, wait });
            alone.blocked = Some(format!("{}: {} (offset {offset}, attempt {attempt})", failure.class, failure.reason));
            alone.failed = attempt;
            alone.not_before = Some(now + wait);
            self.put_back(alone);
        }
    }

    /// The record behind an item goes to the dead-letter topic, once, whatever else became of it.
    fn dead_letter_item(
        &mut self,
        batch: &DueBatch,
        item: usize,
        failure: &Failure,
        attempts: u32,
        sink: &mut dyn Sink,
    ) {
        let seq = batch.content.records[item];
        if !self.tracker.mark_failed(seq) {
            self.tracker.settle(seq); // an earlier item of the same record wrote it
            return;
        }
        let frame = if batch.content.sources.is_empty() { &batch.content.frame } else { &batch.content.sources };
        let message = read(frame).get(item);
        let record = Outgoing {
            key: message.key(),
            value: message.value(),
            headers: [message.headers(), Headers::default()],
            timestamp: message.timestamp(),
        };
        let ticket = self.ticket(Target::Record(seq));
        let stage = self.rules.batchers[batch.batcher].0.as_str();
        let letter = DeadLetter { record, offset: message.offset(), failure, attempts, stage };
        sink.dead_letter(&letter, ticket);
    }
}

/// Bytes of a message's content.
fn record_bytes(message: &Message<'_>) -> usize {
    message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len) + message.headers().block().len()
}

impl DueBatch {
    fn nothing() -> Self {
        Self {
            number: 0,
            batcher: 0,
            key: Vec::new(),
            content: BatchContent::default(),
            failed: 0,
            not_before: None,
            blocked: None,
            announced: None,
        }
    }
}
