//! A lane: the ordered path of one partition, in one ownership epoch, through one handler instance.
//!
//! The lane decides what the handler is called with next and what an answer means; it holds the records until their fate
//! is decided, and the tracker that says what may be committed. It is a state machine: no Kafka, no Wasm, no clock, no
//! thread; `pipeline/run.rs` feeds it with messages, answers, delivery reports and time, and effects leave through
//! [`Sink`]. Invariants:
//! - one call at a time;
//! - no effect of message k+1 before the fate of k is decided (`messages.rs`);
//! - an answer is looked at as a whole before any effect of it leaves (`answer.rs`).

mod answer;
mod batches;
mod messages;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Messages, MessagesWriter, Source};

use self::batches::{BatchContent, DueBatch};
use self::messages::Head;
use super::sink::{Failure, Notice, Sink};
use crate::delivery::batcher::{BatchRules, Batcher, Trigger};
use crate::delivery::burst::{self, BurstSize};
use crate::delivery::gates::Gates;
use crate::delivery::offset_tracker::{OffsetTracker, PositionReset};
use crate::delivery::partitioner::Sticky;
use crate::delivery::retry::{Chance, RetryRules};
use crate::delivery::ticket::{LaneId, Seq, Target, Ticket};

/// What all lanes of a pipeline have in common.
#[derive(Debug)]
pub struct LaneRules {
    /// Names of the declared outputs.
    pub outputs: Vec<String>,
    /// Names and rules of the batchers.
    pub batchers: Vec<(String, BatchRules)>,
    /// The batcher that gets every record, when the handler has no message form.
    pub straight_to: Option<usize>,
    /// Retries.
    pub retry: RetryRules,
    /// Failed records go to the dead-letter topic; else the lane blocks.
    pub dead_letter: bool,
    /// How far records may run ahead of the oldest open one.
    pub max_ahead: usize,
}

/// What the handler is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// `handle-message`, in either form.
    Messages,
    /// `handle-batch`, in either form.
    Batch,
}

/// A call to make. The frame comes back with the answer.
#[derive(Debug)]
pub struct Call {
    /// Which export.
    pub kind: CallKind,
    /// Its messages.
    pub frame: Frame,
}

/// How a call ended.
#[derive(Debug)]
pub enum Reply {
    /// An answer frame, not looked at yet.
    Answer(Frame),
    /// `handle-batch` said `err`.
    BatchError(String),
    /// The instance is gone.
    Fault(Failure),
}

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

/// See the module's text.
pub struct Lane {
    /// Number in the pipeline's run.
    pub id: LaneId,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Ownership epoch, for the handler.
    epoch: u64,
    rules: Arc<LaneRules>,
    tracker: OffsetTracker,
    gates: Gates,
    /// Fetched messages whose fate is not decided.
    pending: Option<Pending>,
    /// Frames to be used again.
    spare: Vec<Frame>,
    head: Head,
    /// Messages below this number are offered one at a time: one of them made the handler fail.
    isolate_until: Seq,
    batchers: Vec<Batcher<BatchContent>>,
    due: VecDeque<DueBatch>,
    running: Option<Running>,
    burst: BurstSize,
    sticky: Vec<Sticky>,
    next_token: u64,
    chance: Chance,
    /// Why it drains, once it does.
    draining: Option<Trigger>,
    /// Bytes of the frame that is with the handler.
    running_bytes: usize,
    /// Number of the next batch to close.
    next_batch: u64,
    /// Effects that were handed to the producer and not reported on.
    in_flight: usize,
    /// A produced record that the broker refuses for good: the lane stays at it.
    refused: Option<String>,
}

#[derive(Debug)]
struct Pending {
    frame: Frame,
    /// Messages of the frame that are decided.
    decided: usize,
    count: usize,
    /// Number of the frame's first message.
    first: Seq,
}

#[derive(Debug)]
enum Running {
    /// So many of the pending messages; `whole`: the pending frame itself is with the handler.
    Messages {
        count: usize,
        whole: bool,
    },
    Batch(DueBatch),
}

/// What [`Lane::fill`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Messages.
    pub messages: usize,
    /// Bytes of their frame.
    pub bytes: usize,
}

impl Lane {
    /// A lane for a partition that was just assigned.
    #[must_use]
    pub fn new(id: LaneId, topic: Arc<str>, partition: i32, epoch: u64, rules: Arc<LaneRules>) -> Self {
        Self {
            id,
            topic,
            partition,
            epoch,
            tracker: OffsetTracker::default(),
            gates: Gates::default(),
            pending: None,
            spare: Vec::new(),
            head: Head::default(),
            isolate_until: 0,
            batchers: rules.batchers.iter().map(|(_, rules)| Batcher::new(rules.clone())).collect(),
            due: VecDeque::new(),
            running: None,
            burst: BurstSize::default(),
            sticky: vec![Sticky::starting_at(partition.unsigned_abs()); rules.outputs.len()],
            rules,
            next_token: 1,
            chance: Chance::new(epoch),
            draining: None,
            running_bytes: 0,
            next_batch: 0,
            in_flight: 0,
            refused: None,
        }
    }

    /// True when messages may be fetched for it now.
    #[must_use]
    pub fn wants_messages(&self) -> bool {
        self.running.is_none()
            && self.pending.is_none()
            && self.draining.is_none()
            && self.refused.is_none()
            && self.tracker.span() < self.rules.max_ahead
            && !self.due.iter().any(DueBatch::is_blocked)
            && (self.rules.straight_to.is_none() || self.due.is_empty())
    }

    /// How many messages may come at once.
    #[must_use]
    pub fn burst_limit(&self) -> usize {
        // Batches straight from the topic are bounded by their batcher; the burst only carries them there.
        let limit = if self.rules.straight_to.is_some() { burst::MAX_MESSAGES } else { self.burst.limit() };
        limit.min(self.rules.max_ahead.saturating_sub(self.tracker.span()).max(1))
    }

    /// Takes messages in. `fetch` packs them into the burst and calls back with each one's offset.
    pub fn fill<T>(
        &mut self,
        now: Instant,
        sink: &mut dyn Sink,
        fetch: impl FnOnce(
            &mut MessagesWriter<'_>,
            &mut dyn FnMut(i64) -> Result<(), PositionReset>,
        ) -> Result<T, PositionReset>,
    ) -> Result<(Fetched, T), PositionReset> {
        debug_assert!(self.wants_messages());
        let mut frame = self.spare.pop().unwrap_or_default();
        let source = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
        let mut burst = MessagesWriter::burst(&mut frame, source, self.epoch, !self.rules.dead_letter);
        let tracker = &mut self.tracker;
        let first = tracker.next_seq();
        let rest = fetch(&mut burst, &mut |offset| tracker.offer(offset).map(|_| ()))?;
        let count = burst.count() as usize;
        burst.finish();
        let fetched = Fetched { messages: count, bytes: if count > 0 { frame.len() } else { 0 } };
        if count == 0 {
            self.spare.push(frame);
        } else if let Some(batcher) = self.rules.straight_to {
            self.gather_all(batcher, &frame, first, now, sink);
            self.spare.push(frame);
        } else {
            self.pending = Some(Pending { frame, decided: 0, count, first });
        }
        Ok((fetched, rest))
    }

    /// Nothing will come below this offset that has not come yet (transaction markers and compacted records never do).
    pub fn skip_to(&mut self, next_offset: i64) {
        self.tracker.skip_to(next_offset);
    }

    /// The next call to make, if there is one that can be made now.
    pub fn next_call(&mut self, now: Instant, sink: &mut dyn Sink) -> Option<Call> {
        if self.running.is_some() || self.refused.is_some() {
            return None;
        }
        self.close_due_batches(now);
        let call = self.next_batch(now, sink).or_else(|| self.next_messages(now))?;
        self.running_bytes = call.frame.len();
        Some(call)
    }

    /// A call ended.
    pub fn on_reply(&mut self, frame: Frame, reply: Reply, took: Duration, now: Instant, sink: &mut dyn Sink) {
        let restarted = matches!(reply, Reply::Fault(_));
        self.running_bytes = 0;
        match self.running.take() {
            Some(Running::Messages { count, whole }) => {
                if whole {
                    self.pending.as_mut().expect("messages that are with the handler are pending").frame = frame;
                } else {
                    self.spare.push(frame);
                }
                if !restarted {
                    self.burst.took(count, took);
                }
                self.on_messages_reply(count, reply, now, sink);
            }
            Some(Running::Batch(mut batch)) => {
                batch.content.frame = frame;
                self.on_batch_reply(batch, reply, now, sink);
            }
            None => panic!("lane {}[{}]: an answer to no call", self.topic, self.partition),
        }
        if restarted {
            self.burst.restart();
        }
        match self.draining {
            // What this call put into batches goes with the rest.
            Some(trigger) => self.close_all(trigger),
            None => self.end_of_burst(),
        }
    }

    fn end_of_burst(&mut self) {
        let mut closed = Vec::new();
        for batcher in 0..self.batchers.len() {
            self.batchers[batcher].end_of_burst(&mut closed);
            self.enqueue(batcher, &mut closed);
        }
    }

    fn close_all(&mut self, trigger: Trigger) {
        let mut closed = Vec::new();
        for batcher in 0..self.batchers.len() {
            self.batchers[batcher].close_all(trigger, &mut closed);
            self.enqueue(batcher, &mut closed);
        }
    }

    /// An effect is durable.
    #[inline]
    pub fn on_delivered(&mut self, target: Target) {
        self.in_flight -= 1;
        match target {
            Target::Record(seq) => self.tracker.settle(seq),
            Target::Gate(number) => {
                for seq in self.gates.settle(number).unwrap_or_default() {
                    self.tracker.settle(seq);
                }
            }
        }
    }

    /// An effect can never be durable. The record stays open, so nothing is committed past it; the lane stops.
    pub fn on_refused(&mut self, target: Target, reason: &str, sink: &mut dyn Sink) {
        self.in_flight -= 1;
        if self.refused.is_none() {
            let record = match target {
                Target::Record(seq) => Some(seq),
                Target::Gate(number) => self.gates.records(number).first().copied(),
            };
            let offset = record.and_then(|seq| self.tracker.offset_of(seq)).unwrap_or(-1);
            sink.notice(Notice::Refused { offset, reason });
            self.refused = Some(format!("refused: {reason} (offset {offset})"));
        }
    }

    /// Stops taking in messages, gives back what no handler saw, and closes the batches.
    pub fn drain(&mut self, trigger: Trigger) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(trigger);
        if self.running_messages().is_none() {
            self.abandon_pending();
        }
        self.close_all(trigger);
    }

    fn running_messages(&self) -> Option<usize> {
        match &self.running {
            Some(Running::Messages { count, .. }) => Some(*count),
            _ => None,
        }
    }

    fn abandon_pending(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.spare.push(pending.frame);
        }
    }

    /// True when everything that a handler saw is settled, but for what waits between attempts: that is left to the next
    /// owner of the partition.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining.is_some()
            && self.running.is_none()
            && self.in_flight == 0
            && (self.refused.is_some() || self.due.iter().all(|batch| batch.not_before.is_some()))
    }

    /// The next offset such that everything below is settled.
    #[must_use]
    pub fn committable(&self) -> Option<i64> {
        self.tracker.committable()
    }

    /// The offset after the last message that came.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.tracker.next_offset()
    }

    /// Records that are not settled.
    #[must_use]
    pub fn open(&self) -> usize {
        self.tracker.open()
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

    /// Records settled so far.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.tracker.settled()
    }

    /// Bytes that the lane holds: pending messages and batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.running_bytes
            + self.pending.as_ref().map_or(0, |pending| pending.frame.len())
            + self.due.iter().map(|batch| batch.content.bytes()).sum::<usize>()
            + self.batchers.iter().map(Batcher::bytes).sum::<u64>() as usize
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> LaneState {
        if let Some(reason) = &self.refused {
            return LaneState::Blocked(reason.clone());
        }
        if let Some(reason) = self.due.iter().find_map(|batch| batch.blocked.clone()).or_else(|| self.head.blocked()) {
            return LaneState::Blocked(reason);
        }
        if self.draining.is_some() {
            return LaneState::Draining;
        }
        match self.head.backing_off() {
            Some(reason) => LaneState::BackingOff(reason),
            None => LaneState::Running,
        }
    }

    /// When the lane has something to do though nothing comes from outside.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.running.is_some() || self.refused.is_some() {
            return None;
        }
        // Only what could go on then: a time in the past that nothing can use would make the loop spin.
        let blocked = self.due.iter().any(DueBatch::is_blocked);
        let head = self.pending.as_ref().filter(|_| !blocked).and_then(|_| self.head.not_before());
        let batches = (0..self.due.len()).filter(|i| !self.is_held_back(*i)).filter_map(|i| self.due[i].not_before);
        head.into_iter().chain(batches).chain(self.batchers.iter().filter_map(Batcher::deadline)).min()
    }

    /// Closes the oldest open batch, if nothing of this lane is under way: memory is short, and only a batch that runs
    /// gives some back.
    pub fn relieve(&mut self) -> bool {
        self.running.is_none() && self.due.is_empty() && self.close_oldest_batch()
    }

    /// Names an effect that is about to be handed to the producer.
    fn ticket(&mut self, target: Target) -> Ticket {
        self.in_flight += 1;
        Ticket { lane: self.id, target }
    }

    fn take_tokens(&mut self, count: usize) -> u64 {
        let first = self.next_token;
        self.next_token += count as u64;
        first
    }

    /// Number of the pending message at the head.
    fn head_seq(&self) -> Option<Seq> {
        self.pending.as_ref().map(|pending| pending.first + pending.decided as u64)
    }
}

/// Messages of a frame that this host packed.
fn read(frame: &Frame) -> Messages<'_> {
    Messages::new(frame)
}
