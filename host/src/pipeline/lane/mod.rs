//! A lane: the ordered path of one partition, in one ownership epoch, through one handler instance.
//!
//! The lane decides what the handler is called with next and what an answer means; it holds the records until their fate
//! is decided, and the tracker that says what may be committed. It is a state machine: no Kafka, no Wasm, no clock, no
//! thread; `pipeline/run.rs` feeds it with messages, answers, delivery reports and time, and effects leave through
//! [`Sink`]. Invariants:
//! - one call at a time;
//! - no effect of message k+1 before the fate of k is decided (`messages.rs`);
//! - an answer is looked at as a whole before any effect of it leaves (`answer.rs`);
//! - what is held is void when its instance is gone (`held.rs`).

mod answer;
mod batches;
mod call;
mod failed;
mod held;
mod items;
mod messages;
mod provenance;
mod refused;
mod restart;
mod rules;
mod state;
mod switch;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Messages, MessagesWriter, Source};

use self::batches::DueBatch;
pub use self::call::{Call, CallKind, Reply, Switched};
use self::failed::Asked;
use self::held::Held;
use self::items::BatchContent;
use self::messages::Work;
pub use self::refused::RefusedEmission;
use self::refused::{Stuck, Trials, Wanted};
use self::restart::Restart;
pub use self::rules::{EmissionRules, Exports, HoldRules, LaneRules};
pub use self::state::LaneState;
use self::switch::Switching;
use self::timer::{Attempts, Farewell, Timer};
use super::sink::Sink;
use crate::delivery::batcher::{Batcher, Trigger};
use crate::delivery::burst::{self, BurstSize};
use crate::delivery::gates::Gates;
use crate::delivery::offset_tracker::{OffsetTracker, PositionReset};
use crate::delivery::partitioner::Sticky;
use crate::delivery::retry::Chance;
use crate::delivery::ticket::{LaneId, Seq, Target, Ticket};

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
    pending: Option<Work>,
    /// Single messages that are to be offered again by themselves, older than the pending ones.
    again: BTreeMap<Seq, Work>,
    held: Held,
    /// Frames to be used again.
    spare: Vec<Frame>,
    /// Messages below this number are offered one at a time: one of them made the handler fail.
    isolate_until: Seq,
    batchers: Vec<Batcher<BatchContent>>,
    due: VecDeque<DueBatch>,
    running: Option<Running>,
    burst: BurstSize,
    sticky: Vec<Sticky>,
    next_token: u64,
    chance: Chance,
    timer: Option<Timer>,
    /// Attempts at telling the instance of its partition; `None` once that is done, or when it does not want to know.
    greeting: Option<Attempts>,
    farewell: Farewell,
    /// A call succeeded and no fault came since: there is an instance with a state of its own.
    alive: bool,
    restart: Restart,
    /// Where the partition begins for this epoch, if that was known.
    start: Option<i64>,
    /// Why it drains, once it does.
    draining: Option<Trigger>,
    /// It is to get another version, at its next burst boundary.
    switching: Option<Switching>,
    /// Its version is a canary and failed for good at this offset: the old one is to try.
    steps_back: Option<i64>,
    /// Bytes of the frame that is with the handler.
    running_bytes: usize,
    /// Messages that the last call said something about.
    attended: usize,
    /// Number of the next batch to close.
    next_batch: u64,
    /// Effects that were handed to the producer and not reported on.
    in_flight: usize,
    /// Emissions that the broker refuses, and that are tried again.
    stuck: VecDeque<Stuck>,
    /// Records whose emissions were refused for good, to be read again for their dead letters.
    wanted: BTreeMap<i64, Wanted>,
    /// The same, asked for.
    asked: BTreeMap<i64, Wanted>,
    /// Which of them were a canary's.
    trials: Trials,
    /// Gates that wait for the report of a dead letter.
    letters: BTreeSet<u64>,
    /// Records whose dead letter is durable.
    dead_lettered: u64,
    /// The failure policy stops the pipeline here.
    stopped: Option<String>,
    /// What the broker answered to commits, in mode "receive": nothing above it is offered.
    received: i64,
    /// A commit was sent and not answered.
    commit_open: bool,
}

#[derive(Debug)]
enum Running {
    /// So many of the pending messages, from this token on; `whole`: the pending frame itself is with the handler.
    Messages {
        count: usize,
        whole: bool,
        token: u64,
    },
    /// One message by itself.
    Again {
        work: Work,
        token: u64,
    },
    Batch(DueBatch),
    Verdict(Asked),
    Tick,
    Assigned,
    Revoked,
    Switch(Switching),
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
    /// A lane for a partition that was just assigned. `start`: the offset it begins at, if that is known.
    #[must_use]
    pub fn new(
        id: LaneId,
        topic: Arc<str>,
        partition: i32,
        epoch: u64,
        rules: Arc<LaneRules>,
        start: Option<i64>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            topic,
            partition,
            epoch,
            tracker: OffsetTracker::default(),
            gates: Gates::default(),
            pending: None,
            again: BTreeMap::new(),
            held: Held::default(),
            spare: Vec::new(),
            isolate_until: 0,
            batchers: rules.batchers.iter().map(|(_, rules)| Batcher::new(rules.clone())).collect(),
            due: VecDeque::new(),
            running: None,
            burst: BurstSize::default(),
            sticky: vec![Sticky::starting_at(partition.unsigned_abs()); rules.outputs.len()],
            next_token: 1,
            chance: Chance::new(epoch),
            timer: rules.tick.map(|interval| Timer::new(interval, now)),
            greeting: rules.exports.partitions.then(Attempts::default),
            farewell: Farewell::default(),
            alive: false,
            restart: Restart::default(),
            start,
            draining: None,
            switching: None,
            steps_back: None,
            running_bytes: 0,
            attended: 0,
            next_batch: 0,
            in_flight: 0,
            stuck: VecDeque::new(),
            wanted: BTreeMap::new(),
            asked: BTreeMap::new(),
            trials: Trials::default(),
            letters: BTreeSet::new(),
            dead_lettered: 0,
            stopped: None,
            received: i64::MIN,
            commit_open: false,
            rules,
        }
    }

    /// True when messages may be fetched for it now.
    #[must_use]
    pub fn wants_messages(&self) -> bool {
        self.running.is_none()
            && self.pending.is_none()
            && self.draining.is_none()
            && self.switching.is_none()
            && self.stopped.is_none()
            && self.tracker.span() < self.rules.max_ahead
            && !self.is_blocked()
            && self.held.len() < self.rules.hold.max
            && (self.rules.straight_to.is_none() || self.due.is_empty())
    }

    /// How many messages may come at once.
    #[must_use]
    pub fn burst_limit(&self) -> usize {
        // Batches straight from the topic are bounded by their batcher; the burst only carries them there.
        let burst = self.burst.limit().min(self.rules.max_burst);
        let limit = if self.rules.straight_to.is_some() { burst::MAX_MESSAGES } else { burst };
        let ahead = self.rules.max_ahead.saturating_sub(self.tracker.span());
        limit.min(ahead).min(self.rules.hold.max.saturating_sub(self.held.len())).max(1)
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
        let mut burst = MessagesWriter::burst(&mut frame, source, self.epoch, self.rules.stops_at_reject());
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
            self.pending = Some(Work::new(frame, count, first));
        }
        Ok((fetched, rest))
    }

    /// Nothing will come below this offset that has not come yet (transaction markers and compacted records never do).
    pub fn skip_to(&mut self, next_offset: i64) {
        self.tracker.skip_to(next_offset);
    }

    /// The next call to make, if there is one that can be made now.
    pub fn next_call(&mut self, now: Instant, sink: &mut dyn Sink) -> Option<Call> {
        if self.running.is_some() || self.stopped.is_some() {
            return None;
        }
        if !self.stuck.is_empty() {
            self.send_stuck(now, sink);
        }
        if !self.held.is_empty() {
            self.expire_held(now, sink);
        }
        self.close_due_batches(now);
        let call = self.next_stage(now, sink)?;
        self.running_bytes = call.frame.len();
        Some(call)
    }

    /// Due batches and ticks go before the next burst, and whatever is older goes before what is newer.
    fn next_stage(&mut self, now: Instant, sink: &mut dyn Sink) -> Option<Call> {
        if self.farewell == Farewell::Done {
            return None; // what waits between attempts is the next owner's
        }
        if self.switching.is_some() {
            return self.next_switch(now, sink);
        }
        if self.restart.holds(now) {
            return None;
        }
        if self.greeting.is_some() {
            return self.next_greeting(now);
        }
        self.next_batch(now, sink, |_| true)
            .or_else(|| if self.again.is_empty() { None } else { self.next_again(now) })
            .or_else(|| if self.timer.is_some() { self.next_tick(now) } else { None })
            .or_else(|| self.next_messages(now))
            .or_else(|| if self.rules.exports.partitions { self.next_farewell() } else { None })
    }

    /// A call ended.
    pub fn on_reply(&mut self, frame: Frame, reply: Reply, took: Duration, now: Instant, sink: &mut dyn Sink) {
        let faulted = matches!(reply, Reply::Fault(_) | Reply::NotStarted(_));
        self.running_bytes = 0;
        let Some(running) = self.running.take() else {
            panic!("lane {}[{}]: an answer to no call", self.topic, self.partition)
        };
        if faulted {
            self.lose_instance(now);
        } else if !matches!(running, Running::Switch(_)) {
            self.alive = true;
            self.restart.works(now);
        }
        self.attended = 0;
        match running {
            running if let Reply::NotStarted(failure) = &reply => {
                self.on_not_started(running, frame, failure, now, sink);
            }
            Running::Messages { count, whole, token } => {
                if whole {
                    self.pending.as_mut().expect("messages that are with the handler are pending").frame = frame;
                } else {
                    self.spare.push(frame);
                }
                if !faulted {
                    self.burst.took(count, took);
                }
                if let Some(work) = self.pending.take()
                    && let Some(rest) = self.on_messages_reply(work, count, token, reply, now, sink)
                {
                    self.pending = Some(rest);
                }
            }
            Running::Again { mut work, token } => {
                work.frame = frame;
                if let Some(rest) = self.on_messages_reply(work, 1, token, reply, now, sink) {
                    self.offer_again(rest);
                }
            }
            Running::Batch(mut batch) => {
                batch.content.frame = frame;
                self.on_batch_reply(batch, reply, now, sink);
            }
            Running::Verdict(asked) => self.on_verdict(asked, frame, reply, now, sink),
            Running::Tick => self.on_tick_reply(reply, now, sink),
            Running::Assigned => self.on_greeting_reply(reply, now, sink),
            Running::Revoked => self.on_farewell_reply(reply, now, sink),
            Running::Switch(switching) => self.on_switched(switching, reply, now, sink),
        }
        match self.draining.or(self.switching.as_ref().map(|_| Trigger::Swap)) {
            // What this call put into batches goes with the rest.
            Some(trigger) => self.close_all(trigger),
            None => self.end_of_burst(),
        }
    }

    /// The instance that answered last was old, and another is in its place: with its state, or without.
    pub fn on_renewed(&mut self, restored: bool, now: Instant) {
        mark!(Recycled);
        if !restored {
            self.lose_instance(now);
        } else if self.rules.exports.partitions && self.farewell == Farewell::NotYet {
            self.greeting = Some(Attempts::default());
        }
    }

    /// The instance is gone, and with it whatever it held; a new one is made for the next call.
    fn lose_instance(&mut self, now: Instant) {
        self.alive = false;
        self.restart.gone(now);
        self.burst.restart();
        self.offer_held_again();
        if self.rules.exports.partitions && self.greeting.is_none() && self.farewell == Farewell::NotYet {
            self.greeting = Some(Attempts::default());
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

    /// Effects are durable, one each of so many records from this one on.
    #[inline]
    pub fn on_delivered_run(&mut self, first: Target, count: u32) {
        match first {
            Target::Record(seq) if self.stuck.is_empty() => {
                self.in_flight -= count as usize;
                self.tracker.settle_run(seq, count);
            }
            Target::Record(seq) => (0..u64::from(count)).for_each(|i| self.on_delivered(Target::Record(seq + i))),
            Target::Gate(_) => self.on_delivered(first),
        }
    }

    /// An effect is durable.
    #[inline]
    pub fn on_delivered(&mut self, target: Target) {
        self.in_flight -= 1;
        if !self.stuck.is_empty() {
            self.unstick(target);
        }
        if !self.letters.is_empty()
            && let Target::Gate(number) = target
            && self.letters.remove(&number)
        {
            self.dead_lettered += 1;
        }
        self.settle(target);
    }

    /// Takes one mark away.
    #[inline]
    fn settle(&mut self, target: Target) {
        match target {
            Target::Record(seq) => self.tracker.settle(seq),
            Target::Gate(number) => {
                for mark in self.gates.settle(number).unwrap_or_default() {
                    self.settle(mark);
                }
            }
        }
    }

    /// Adds marks for effects that are about to leave.
    fn add_marks(&mut self, target: Target, effects: u32) {
        match target {
            Target::Record(seq) => self.tracker.add(seq, effects),
            Target::Gate(number) => self.gates.add(number, effects),
        }
    }

    /// Says what the effects of one message settle: `owner` itself, or, in an answer that acks held messages (`acks`), a
    /// gate of its own, which those wait for as well.
    fn effects_of(&mut self, owner: Target, effects: u32, acks: Option<u64>) -> Target {
        match acks {
            Some(acks) if effects > 0 => {
                self.add_marks(owner, 1);
                self.gates.add(acks, 1);
                let record = self.record_of(owner);
                Target::Gate(self.gates.close_of(record, effects, vec![owner, Target::Gate(acks)]))
            }
            _ => {
                self.add_marks(owner, effects);
                owner
            }
        }
    }

    /// As [`Lane::effects_of`], of a message whose fate is decided by this: its effects take the place of its own mark.
    #[inline]
    fn decide(&mut self, owner: Target, effects: u32, acks: Option<u64>) -> Target {
        match (acks, effects) {
            (_, 0) => self.settle(owner),
            (None, 1) => {}
            (None, _) => self.add_marks(owner, effects - 1),
            (Some(_), _) => {
                let gate = self.effects_of(owner, effects, acks);
                self.settle(owner);
                return gate;
            }
        }
        owner
    }

    /// The record behind a mark; none behind a tick's.
    fn record_of(&self, target: Target) -> Option<Seq> {
        match target {
            Target::Record(seq) => Some(seq),
            Target::Gate(number) => self.gates.record(number),
        }
    }

    /// Stops taking in messages, gives back what no handler saw, and closes the batches.
    pub fn drain(&mut self, trigger: Trigger) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(trigger);
        self.stay();
        if self.running_messages().is_none() {
            self.abandon_pending();
        }
        self.close_all(trigger);
        self.part_from_left();
    }

    /// A bug to be found: buffers are gone, and what they held is not done by anybody.
    #[cfg(test)]
    pub(super) fn lose_buffers(&mut self) {
        if self.running.is_none() {
            self.pending = None;
        }
        self.batchers = self.rules.batchers.iter().map(|(_, rules)| Batcher::new(rules.clone())).collect();
        self.due.clear();
    }

    fn running_messages(&self) -> Option<usize> {
        match &self.running {
            Some(Running::Messages { count, .. }) => Some(*count),
            _ => None,
        }
    }

    /// What was committed before it was offered (mode "receive") is not given back: nobody else would get it. What may be,
    /// because its commit is under way, waits for the answer.
    fn abandon_pending(&mut self) {
        if self.rules.receive && (self.may_offer() || self.commit_open) {
            if !self.may_offer() {
                mark!(KeptForCommit);
            }
            return;
        }
        if let Some(pending) = self.pending.take() {
            self.spare.push(pending.frame);
        }
    }

    /// True when everything that a handler saw is settled, but for what waits between attempts or is held: that is left to
    /// the next owner of the partition.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let waits = self.stopped.is_some()
            || (self.restart.not_before().is_some() && !self.rules.receive)
            || self.farewell == Farewell::Done
            || (self.due.iter().all(|batch| batch.not_before.is_some() || self.is_left(batch))
                && (!self.rules.receive || self.pending.as_ref().is_none_or(Work::is_waiting)));
        self.draining.is_some() && self.running.is_none() && self.in_flight == 0 && waits && !self.owes_farewell()
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
}

/// Messages of a frame that this host packed.
fn read(frame: &Frame) -> Messages<'_> {
    Messages::new(frame)
}
