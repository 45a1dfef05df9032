//! The loop of a pipeline: one thread that polls Kafka, feeds lanes, takes answers in, produces, and commits. Nothing in
//! here waits for anything but the waker; nothing is done per record that could be done per burst.
//!
//! Invariant of commits: what is committed for a partition is its lane's committable offset, of the lane that owns it now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::kafka::Code;
use tokio::sync::mpsc;

use super::budget::Share;
use super::handlers::{AnswerSender, Answered, HandlerThreads, LaneHandle};
use super::lane::{Lane, LaneRules, Reply};
use super::leave::Leaving;
use super::names::names;
use super::outlets::Outlets;
use super::status::{Figures, LaneFigures, PipelineStatus, State};
use super::supervise::Stop;
use super::trouble::Troubles;
use crate::config::{Cluster, Pipeline};
use crate::delivery::burst::MAX_BYTES;
use crate::delivery::ticket::{LaneId, Ticket};
use crate::kafka::consumer::{Consumer, Event};
use crate::kafka::ffi::{self, PartitionOffset};
use crate::kafka::partition::PartitionQueue;
use crate::kafka::problem;
use crate::kafka::producer::Refusal;
use crate::plugin::{InstanceConfig, Version};
use crate::telemetry;
use crate::wake::Waker;

/// Looks at everything this often though nobody woke it: a lost wake-up must not stop a pipeline for ever.
const SWEEP: Duration = Duration::from_millis(500);
/// Housekeeping: bytes in flight are counted this often.
const COUNT: Duration = Duration::from_millis(5);
/// Figures are published this often.
const PUBLISH: Duration = Duration::from_millis(250);

/// What a run is made of; see `supervise`, which makes it.
pub(super) struct Parts {
    pub config: Arc<Pipeline>,
    pub cluster: Cluster,
    pub version: Arc<Version>,
    pub instance: Arc<InstanceConfig>,
    pub rules: Arc<LaneRules>,
    pub handlers: Arc<HandlerThreads>,
    pub status: Arc<PipelineStatus>,
    pub share: Share,
    pub stop: Stop,
    pub waker: Waker,
    pub consumer: Consumer,
    pub outlets: Outlets,
    pub answers: (AnswerSender, mpsc::Receiver<Answered>),
}

/// One lane with its edges.
pub(super) struct Slot {
    // Messages of the queue must go before the client, which the queue holds.
    pub(super) queue: PartitionQueue,
    pub(super) lane: Lane,
    handle: LaneHandle,
    pub(super) committed: Option<i64>,
    committing: Option<i64>,
    memory: u64,
}

impl Slot {
    /// An offset that is worth committing.
    pub(super) fn dirty(&self) -> Option<i64> {
        self.lane.committable().filter(|offset| Some(*offset) != self.committed)
    }

    fn name(&self) -> String {
        format!("{}[{}]", self.lane.topic, self.lane.partition)
    }
}

/// See the module's text.
pub(super) struct Run {
    /// By lane number; numbers are never used again, so a late report finds nobody.
    pub(super) lanes: Vec<Option<Box<Slot>>>,
    pub(super) active: Vec<LaneId>,
    pub(super) parts: Parts,
    pub(super) leaving: Option<Leaving>,
    pub(super) closing: bool,
    pub(super) commit_in_flight: bool,
    topics: BTreeMap<String, Arc<str>>,
    last_commit: Instant,
    last_count: Instant,
    last_publish: Instant,
    last_sweep: Instant,
    refused: Vec<(Ticket, Refusal)>,
    trouble: Vec<crate::kafka::producer::Trouble>,
    troubles: Troubles,
    joined: bool,
    last_problem: String,
    retired: BTreeMap<Arc<str>, u64>,
    /// Counters of the runs before this one.
    earlier: Figures,
}

/// Ownership epochs grow within a process and, by the clock, across its restarts.
fn next_epoch() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(clock.max(last + 1)));
    last.map_or(clock, |last| clock.max(last + 1))
}

impl Run {
    pub(super) fn new(mut parts: Parts) -> Self {
        let now = Instant::now();
        let earlier = parts.status.figures().at_rest();
        let mut topics = BTreeMap::new();
        for topic in &parts.config.source.topics {
            let shared: Arc<str> = topic.as_str().into();
            parts.outlets.figures.topics.entry(Arc::clone(&shared)).or_default();
            topics.insert(topic.clone(), shared);
        }
        Self {
            lanes: Vec::new(),
            active: Vec::new(),
            parts,
            leaving: None,
            closing: false,
            commit_in_flight: false,
            topics,
            last_commit: now,
            last_count: now,
            last_publish: now,
            last_sweep: now,
            refused: Vec::new(),
            trouble: Vec::new(),
            troubles: Troubles::default(),
            joined: false,
            last_problem: String::new(),
            retired: BTreeMap::new(),
            earlier,
        }
    }

    /// Runs until the stop is carried out.
    ///
    /// # Errors
    /// Why the pipeline has to begin anew.
    pub(super) fn run(mut self) -> Result<(), String> {
        self.parts.status.set(State::Joining, None);
        let result = self.turns();
        if result.is_err() {
            self.abandon();
        }
        self.publish(Instant::now());
        self.parts.status.publish(self.parts.status.figures().at_rest());
        result
    }

    fn turns(&mut self) -> Result<(), String> {
        loop {
            let now = Instant::now();
            let mut worked = self.take_events(now)?;
            worked |= self.take_answers(now)?;
            worked |= self.take_reports(now)?;
            worked |= self.serve_lanes(now)?;
            self.parts.outlets.send(&mut self.refused);
            self.stop_refused();
            self.commit(now)?;
            if self.parts.stop.requested() && !self.closing {
                self.begin_shutdown(now);
            }
            if self.go_on_leaving(now)? {
                return Ok(());
            }
            self.housekeeping(now);
            if !worked {
                self.rest(now);
            }
        }
    }

    /// Waits for an event or the next thing to do by time.
    fn rest(&mut self, now: Instant) {
        let lanes = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref()?.lane.deadline());
        let commit = (!self.commit_in_flight && self.any_dirty())
            .then(|| self.last_commit + self.parts.config.ack.commit_interval);
        let leaving = self.leaving.as_ref().and_then(Leaving::deadline);
        let next = lanes
            .chain(commit)
            .chain(leaving)
            .chain(self.parts.outlets.deadline())
            .chain([self.last_sweep + SWEEP])
            .min()
            .unwrap_or(now + SWEEP);
        self.parts.waker.wait(next.saturating_duration_since(now).max(Duration::from_micros(100)));
    }

    fn any_dirty(&self) -> bool {
        self.active.iter().any(|id| self.lanes[*id as usize].as_ref().is_some_and(|slot| slot.dirty().is_some()))
    }

    // ---- events of the group ----

    fn take_events(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        // One rebalance at a time: what comes after it waits in librdkafka's queue.
        while let Some(event) = self.parts.consumer.poll() {
            any = true;
            match event {
                Event::Assigned(partitions) => self.assigned(&partitions)?,
                Event::Revoked { partitions, lost } => self.revoked(partitions, lost, now)?,
                Event::Committed { result, partitions } => self.committed(result, &partitions),
                Event::Problem { code, text, fatal } => self.problem(code, &text, fatal)?,
            }
        }
        if self.troubles.answered() {
            self.cluster_works();
        }
        Ok(any)
    }

    fn assigned(&mut self, partitions: &[PartitionOffset]) -> Result<(), String> {
        let queues = self.parts.consumer.assign(partitions, &self.parts.waker)?;
        for (partition, queue) in partitions.iter().zip(queues) {
            let topic = self.topics.entry(partition.topic.clone()).or_insert_with(|| partition.topic.as_str().into());
            let id = LaneId::try_from(self.lanes.len()).map_err(|_| "too many assignments in one run".to_owned())?;
            let (config, rules) = (&self.parts.instance, Arc::clone(&self.parts.rules));
            let mut lane = Lane::new(id, Arc::clone(topic), partition.partition, next_epoch(), rules);
            if self.closing {
                lane.drain(sluicebox_frames::Trigger::Shutdown);
            }
            let handle = self.parts.handlers.open(id, &self.parts.version, config, &self.parts.answers.0);
            self.lanes.push(Some(Box::new(Slot { queue, lane, handle, committed: None, committing: None, memory: 0 })));
            self.active.push(id);
        }
        self.parts.outlets.figures.rebalances[0] += 1;
        telemetry::assigned(&self.parts.config.name, &names(partitions));
        self.joined = true;
        self.cluster_works();
        Ok(())
    }

    fn committed(&mut self, result: Code, partitions: &[PartitionOffset]) {
        self.commit_in_flight = false;
        let mut failed = None;
        for partition in partitions {
            let ours = |slot: &&mut Box<Slot>| {
                *slot.lane.topic == *partition.topic && slot.lane.partition == partition.partition
            };
            // Of the lane that owns the partition now; a commit of an earlier owner's is nobody's any more.
            if let Some(slot) = self.lanes.iter_mut().flatten().find(ours)
                && let Some(offset) = slot.committing.take()
            {
                match if result == Code::RD_KAFKA_RESP_ERR_NO_ERROR { partition.error } else { result } {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => slot.committed = Some(offset),
                    code => failed = Some(code),
                }
            }
        }
        match failed {
            None => {
                self.parts.outlets.figures.commits[0] += 1;
                self.troubles.over("commit");
                self.show_troubles();
            }
            Some(code) => {
                self.parts.outlets.figures.commits[1] += 1;
                let reason = problem::explain(code, "");
                telemetry::commit_failed(&self.parts.config.name, &reason);
                self.troubles.add("commit", format!("commit failed: {reason}"));
                self.show_troubles();
            }
        }
    }

    fn count_error(&mut self, code: Code) {
        let key = (self.parts.cluster.name.clone(), ffi::name(code).to_lowercase());
        *self.parts.outlets.figures.broker_errors.entry(key).or_default() += 1;
    }

    fn problem(&mut self, code: Code, text: &str, fatal: bool) -> Result<(), String> {
        self.count_error(code);
        let reason = problem::explain(code, text);
        if fatal {
            return Err(reason);
        }
        match code {
            // The end of all connections; what came before says why.
            Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN => {
                let cause = if self.last_problem.is_empty() { reason } else { self.last_problem.clone() };
                self.cluster_trouble(&cause);
            }
            Code::RD_KAFKA_RESP_ERR__AUTHENTICATION
            | Code::RD_KAFKA_RESP_ERR__SSL
            | Code::RD_KAFKA_RESP_ERR__RESOLVE => self.cluster_trouble(&reason),
            // One connection of several; librdkafka makes it anew.
            Code::RD_KAFKA_RESP_ERR__TRANSPORT => self.last_problem = reason,
            Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED => {
                return Err(format!("{reason}: the process stood still"));
            }
            _ => {
                let reason = format!("group {}: {reason}", self.parts.config.source.group);
                if self.troubles.add("group", reason.clone()) {
                    telemetry::trouble(&self.parts.config.name, &reason);
                }
                self.watch_cluster();
            }
        }
        self.show_troubles();
        Ok(())
    }

    fn cluster_trouble(&mut self, cause: &str) {
        let cluster = &self.parts.cluster;
        let reason = format!("cluster `{}` ({}) does not answer: {cause}", cluster.name, cluster.bootstrap);
        self.troubles.add("cluster", reason);
        self.watch_cluster();
        self.show_troubles();
    }

    fn watch_cluster(&mut self) {
        let topic = self.parts.config.source.topics.first().map_or("", String::as_str);
        self.troubles.watch(&self.parts.cluster, topic, &self.parts.waker);
    }

    /// Something that needs the cluster and the group succeeded.
    fn cluster_works(&mut self) {
        self.last_problem.clear();
        for place in ["cluster", "group"] {
            self.troubles.over(place);
        }
        self.show_troubles();
    }

    fn show_troubles(&self) {
        if self.closing {
            return;
        }
        let state = match (self.troubles.reason(), self.joined) {
            (Some(reason), _) => (State::Waiting, Some(reason)),
            (None, true) => (State::Running, None),
            (None, false) => (State::Joining, None),
        };
        self.parts.status.set(state.0, state.1);
    }

    // ---- handlers ----

    fn take_answers(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        while let Ok(answered) = self.parts.answers.1.try_recv() {
            any = true;
            let Some(slot) = self.lanes.get_mut(answered.lane as usize).and_then(Option::as_mut) else {
                continue; // a partition that was given back meanwhile
            };
            slot.memory = answered.memory;
            let figures = &mut self.parts.outlets.figures;
            let calls = &mut figures.calls[usize::from(slot.lane.is_running_batch())];
            calls.0 += 1;
            calls.1 += u64::try_from(answered.took.as_nanos()).unwrap_or(u64::MAX);
            if let Reply::Fault(failure) = &answered.reply {
                *figures.faults.entry(failure.class).or_default() += 1;
            }
            self.parts.outlets.serve(&slot.lane.topic, slot.lane.partition);
            slot.lane.on_reply(answered.frame, answered.reply, answered.took, now, &mut self.parts.outlets);
        }
        Ok(any)
    }

    fn serve_lanes(&mut self, now: Instant) -> Result<bool, String> {
        let (mut any, mut changed) = (false, false);
        for place in 0..self.active.len() {
            // Turns begin with another lane each time, so that none is always served last.
            let id = self.active[place];
            let Some(slot) = self.lanes[id as usize].as_mut() else { continue };
            if slot.lane.is_running() {
                continue;
            }
            let outlets = &mut self.parts.outlets;
            outlets.serve(&slot.lane.topic, slot.lane.partition);
            if slot.lane.wants_messages() && slot.queue.is_ready() && self.parts.share.admits() {
                let limit = slot.lane.burst_limit();
                let queue = &mut slot.queue;
                let filled = slot.lane.fill(now, outlets, |burst, offer| {
                    let filled = queue.fill(burst, limit, MAX_BYTES, offer)?;
                    Ok(filled.problem)
                });
                let (fetched, trouble) = filled.map_err(|reset| format!("{}: {reset}", slot.name()))?;
                if fetched.messages > 0 {
                    any = true;
                    self.parts.share.took(fetched.bytes as u64);
                    let figures = outlets.figures.topics.entry(Arc::clone(&slot.lane.topic)).or_default();
                    figures.consumed += fetched.messages as u64;
                    figures.consumed_bytes += fetched.bytes as u64;
                    if !self.troubles.is_empty() {
                        for place in [&*slot.lane.topic, "cluster", "group"] {
                            self.troubles.over(place);
                        }
                        changed = true;
                    }
                }
                if let Some((code, text)) = trouble {
                    let key = (self.parts.cluster.name.clone(), ffi::name(code).to_lowercase());
                    *outlets.figures.broker_errors.entry(key).or_default() += 1;
                    let reason = format!("topic `{}`: {}", slot.lane.topic, problem::explain(code, &text));
                    if self.troubles.add(&slot.lane.topic, reason.clone()) {
                        telemetry::trouble(&self.parts.config.name, &reason);
                        changed = true;
                    }
                }
            }
            if let Some(call) = slot.lane.next_call(now, outlets) {
                any = true;
                slot.handle.call(call)?;
            }
        }
        if !self.active.is_empty() {
            self.active.rotate_left(1);
        }
        if changed {
            self.show_troubles();
        }
        Ok(any)
    }

    // ---- delivery ----

    fn take_reports(&mut self, now: Instant) -> Result<bool, String> {
        let before = self.parts.outlets.records();
        let lanes = &mut self.lanes;
        let delivered = |ticket: Ticket| {
            // A report for a partition that was given back settles nothing: its next owner does the record again.
            if let Some(slot) = lanes.get_mut(ticket.lane as usize).and_then(Option::as_mut) {
                slot.lane.on_delivered(ticket.target);
            }
        };
        self.parts.outlets.poll(now, delivered, &mut self.refused, &mut self.trouble);
        let any = self.parts.outlets.records() < before;
        if any && !self.troubles.is_empty() {
            self.troubles.over("produce");
            self.show_troubles();
        }
        for trouble in std::mem::take(&mut self.trouble) {
            self.count_error(trouble.code);
            if trouble.fatal {
                return Err(format!("the producer cannot go on: {}", trouble.text));
            }
            match trouble.code {
                Code::RD_KAFKA_RESP_ERR__TRANSPORT => self.last_problem = trouble.text,
                Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN => {
                    let cause = std::mem::take(&mut self.last_problem);
                    self.cluster_trouble(if cause.is_empty() { &trouble.text } else { &cause });
                }
                _ => {
                    if self.troubles.add("produce", trouble.text.clone()) {
                        telemetry::trouble(&self.parts.config.name, &trouble.text);
                    }
                    self.show_troubles();
                }
            }
        }
        self.stop_refused();
        Ok(any)
    }

    /// Lanes stop at records that no broker will take.
    fn stop_refused(&mut self) {
        for (ticket, refusal) in std::mem::take(&mut self.refused) {
            if let Some(slot) = self.lanes.get_mut(ticket.lane as usize).and_then(Option::as_mut) {
                self.parts.outlets.serve(&slot.lane.topic, slot.lane.partition);
                slot.lane.on_refused(ticket.target, &refusal.text, &mut self.parts.outlets);
            }
        }
    }

    // ---- commits ----

    fn commit(&mut self, now: Instant) -> Result<(), String> {
        if now >= self.last_commit + self.parts.config.ack.commit_interval && self.leaving.is_none() {
            let all = self.active.clone();
            self.commit_lanes(&all, now)?;
        }
        Ok(())
    }

    /// Lets lanes whose records were all handed out know how far the log has been read.
    fn pass_gaps(&mut self, lanes: &[LaneId]) {
        let idle: Vec<LaneId> = lanes
            .iter()
            .copied()
            .filter(|id| self.lanes[*id as usize].as_ref().is_some_and(|slot| slot.queue.is_empty()))
            .collect();
        let places = idle.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let places: Vec<(Arc<str>, i32)> =
            places.map(|slot| (Arc::clone(&slot.lane.topic), slot.lane.partition)).collect();
        let positions = self.parts.consumer.positions(places.iter().map(|(topic, partition)| (&**topic, *partition)));
        for (id, position) in idle.iter().zip(positions) {
            if let (Some(slot), Some(position)) = (self.lanes[*id as usize].as_mut(), position) {
                slot.lane.skip_to(position);
            }
        }
    }

    /// Sends a commit of what is settled in these lanes. False when there was nothing to send.
    pub(super) fn commit_lanes(&mut self, lanes: &[LaneId], now: Instant) -> Result<bool, String> {
        if self.commit_in_flight {
            return Ok(false);
        }
        self.pass_gaps(lanes);
        let mut offsets = Vec::new();
        for id in lanes {
            if let Some(slot) = self.lanes[*id as usize].as_mut()
                && let Some(offset) = slot.dirty()
            {
                slot.committing = Some(offset);
                offsets.push((Arc::clone(&slot.lane.topic), slot.lane.partition, offset));
            }
        }
        self.last_commit = now;
        if offsets.is_empty() {
            return Ok(false);
        }
        self.parts.consumer.commit(offsets.iter().map(|(topic, partition, offset)| (&**topic, *partition, *offset)))?;
        self.commit_in_flight = true;
        Ok(true)
    }

    /// Takes a lane out. Its late answers and reports find nobody.
    pub(super) fn remove(&mut self, id: LaneId) {
        if let Some(slot) = self.lanes[id as usize].take() {
            *self.retired.entry(Arc::clone(&slot.lane.topic)).or_default() += slot.lane.settled();
        }
        self.active.retain(|active| *active != id);
    }

    // ---- figures ----

    fn housekeeping(&mut self, now: Instant) {
        if now >= self.last_count + COUNT {
            self.last_count = now;
            let lanes: usize = self
                .active
                .iter()
                .filter_map(|id| self.lanes[*id as usize].as_ref())
                .map(|slot| slot.lane.bytes())
                .sum();
            self.parts.share.holds((lanes + self.parts.outlets.bytes()) as u64);
        }
        if now >= self.last_sweep + SWEEP {
            self.last_sweep = now;
            self.parts.outlets.look_again();
            for id in &self.active {
                if let Some(slot) = &self.lanes[*id as usize] {
                    slot.queue.look_again();
                }
            }
        }
        if now >= self.last_publish + PUBLISH {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Instant) {
        self.last_publish = now;
        let mut figures: Figures = self.parts.outlets.figures.clone();
        let mut settled = self.retired.clone();
        for id in &self.active {
            let Some(slot) = &mut self.lanes[*id as usize] else { continue };
            let end = self.parts.consumer.log_end(&slot.lane.topic, slot.lane.partition);
            let done = slot.lane.committable().or(slot.committed);
            let lag = end.zip(done).map(|(end, done)| u64::try_from(end - done).unwrap_or(0));
            let committed = slot.committed.or(done);
            if let (Some(next), Some(committed)) = (slot.lane.next_offset(), committed) {
                figures.uncommitted += u64::try_from(next - committed).unwrap_or(0);
            }
            figures.in_flight += slot.lane.open() as u64;
            figures.handler_memory += slot.memory;
            *settled.entry(Arc::clone(&slot.lane.topic)).or_default() += slot.lane.settled();
            if let Some(topic) = figures.topics.get_mut(&slot.lane.topic) {
                topic.lag += lag.unwrap_or(0);
            }
            figures.lanes.push(LaneFigures {
                topic: Arc::clone(&slot.lane.topic),
                partition: slot.lane.partition,
                state: slot.lane.state(),
                committed: slot.committed,
                committable: slot.lane.committable(),
                open: slot.lane.open() as u64,
                lag,
            });
        }
        for (topic, count) in settled {
            figures.topics.entry(topic).or_default().settled = count;
        }
        figures.lanes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        figures.outputs = self.parts.outlets.output_figures();
        figures.buffer_bytes = self.parts.share.held();
        figures.add_counters(&self.earlier);
        self.parts.status.publish(figures);
    }

    /// Names of the lanes that are not drained, for people.
    pub(super) fn busy(&self, lanes: &[LaneId]) -> String {
        let busy: Vec<String> = lanes
            .iter()
            .filter_map(|id| self.lanes[*id as usize].as_ref())
            .filter(|slot| !slot.lane.is_drained())
            .map(|slot| format!("{} ({} open)", slot.name(), slot.lane.open()))
            .collect();
        if busy.len() > 8 { format!("{} and {} more", busy[..8].join(", "), busy.len() - 8) } else { busy.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_grow() {
        let (a, b) = (next_epoch(), next_epoch());
        assert!(b > a);
    }
}
