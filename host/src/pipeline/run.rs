//! The loop of a pipeline: one thread that polls Kafka, feeds lanes, takes answers in, produces, and commits. Nothing in
//! here waits, looks at a clock or knows whom it talks to: [`Run::step`] is called with the time and says how long it may
//! be left alone, and its edges are [`Edges`]. Nothing is done per record that could be done per burst.
//!
//! Invariant of commits: what is committed for a partition is its lane's committable offset, of the lane that owns it now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Share;
use super::figures::{COUNT, SWEEP};
use super::lane::{Lane, LaneRules, RefusedEmission, Reply};
use super::leave::{Abandoned, LEFT, Leaving};
use super::names::names;
use super::outlets::Outlets;
use super::port::{
    Code, Edges, Event, Found, Group, Handle, HandleOf, Handlers, PartitionOffset, Queue, QueueOf, Reread, Trouble,
    Watch, code_name, problem,
};
use super::status::{Figures, PipelineStatus, State};
use super::stop::Stop;
use super::trouble::Troubles;
use crate::config::{Cluster, Pipeline};
use crate::delivery::burst::MAX_BYTES;
use crate::delivery::ticket::{LaneId, Ticket};
use crate::telemetry;

/// What a run is made of; see `supervise`, which makes it.
pub(super) struct Parts<E: Edges> {
    pub config: Arc<Pipeline>,
    pub cluster: Cluster,
    pub rules: Arc<LaneRules>,
    pub status: Arc<PipelineStatus>,
    pub share: Share,
    pub stop: Stop,
    pub group: E::Group,
    pub outlets: Outlets<E::Producer>,
    pub handlers: E::Handlers,
    pub watch: E::Watch,
    pub rereader: E::Rereader,
}

/// One lane with its edges.
pub(super) struct Slot<E: Edges> {
    // Messages of the queue must go before the client, which the queue holds.
    pub(super) queue: QueueOf<E>,
    pub(super) lane: Lane,
    pub(super) handle: HandleOf<E>,
    pub(super) committed: Option<i64>,
    pub(super) committing: Option<i64>,
    /// The last commit of it did not work: the next one comes with the interval.
    pub(super) commit_failed: bool,
    pub(super) memory: u64,
}

impl<E: Edges> Slot<E> {
    /// An offset that is worth committing.
    pub(super) fn dirty(&self) -> Option<i64> {
        self.lane.committable().filter(|offset| Some(*offset) != self.committed)
    }

    pub(super) fn name(&self) -> String {
        format!("{}[{}]", self.lane.topic, self.lane.partition)
    }
}

/// Why a run is over for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was asked to stop.
    Asked,
    /// The failure policy `stop`, at this record.
    Policy(String),
}

/// How a step of a run ended.
#[derive(Debug)]
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// Nothing to do before so much time has passed, unless somebody wakes it.
    Rest(Duration),
    /// The group is left. `Err`: why the pipeline has to begin anew.
    Over(Result<Ended, String>),
}

/// See the module's text.
pub(super) struct Run<E: Edges> {
    /// By lane number; numbers are never used again, so a late report finds nobody.
    pub(super) lanes: Vec<Option<Box<Slot<E>>>>,
    pub(super) active: Vec<LaneId>,
    pub(super) parts: Parts<E>,
    pub(super) leaving: Option<Leaving>,
    pub(super) abandoned: Option<Abandoned>,
    /// The group is on its way to be left.
    pub(super) closing: bool,
    /// It was told so.
    pub(super) close_begun: bool,
    /// Why it is left, when not for a stop: the pipeline begins anew then.
    pub(super) failure: Option<String>,
    /// The failure policy ends the pipeline, for this reason.
    pub(super) stopped: Option<String>,
    /// Something could not be fetched or called because too many bytes are in flight.
    pub(super) starved: bool,
    pub(super) commit_in_flight: bool,
    pub(super) topics: BTreeMap<String, Arc<str>>,
    pub(super) last_commit: Instant,
    pub(super) last_count: Instant,
    pub(super) last_publish: Instant,
    pub(super) last_sweep: Instant,
    refused: Vec<(Ticket, RefusedEmission)>,
    trouble: Vec<Trouble>,
    pub(super) troubles: Troubles,
    joined: bool,
    last_problem: String,
    pub(super) retired: BTreeMap<Arc<str>, u64>,
    /// Counters of the runs before this one.
    pub(super) earlier: Figures,
}

impl<E: Edges> Run<E> {
    pub(super) fn new(mut parts: Parts<E>, now: Instant) -> Self {
        parts.status.set(State::Joining, None);
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
            abandoned: None,
            closing: false,
            close_begun: false,
            failure: None,
            stopped: None,
            starved: false,
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

    /// Does what there is to do now. Called again and again until it is over.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if self.abandoned.is_none() {
            match self.turn(now) {
                Ok(Step::Over(result)) => return self.over(result, now),
                Ok(step) => return step,
                Err(reason) => self.abandon(reason, now),
            }
        }
        match self.go_on_abandoning(now) {
            Some(reason) => self.over(Err(reason), now),
            None => Step::Rest(LEFT),
        }
    }

    fn over(&mut self, result: Result<Ended, String>, now: Instant) -> Step {
        self.publish(now);
        self.parts.status.publish(self.parts.status.figures().at_rest());
        Step::Over(result)
    }

    fn turn(&mut self, now: Instant) -> Result<Step, String> {
        let mut worked = self.take_events(now)?;
        worked |= self.take_answers(now)?;
        worked |= self.take_reports(now)?;
        worked |= self.serve_lanes(now)?;
        self.parts.outlets.send(now, &mut self.refused);
        self.take_refused(now);
        worked |= self.take_sources();
        self.commit(now)?;
        let ends = self.parts.stop.requested() || self.failure.is_some() || self.stopped.is_some();
        if ends && !self.closing {
            self.begin_shutdown(now);
        }
        if self.go_on_leaving(now)? {
            let ended = self.stopped.take().map_or(Ended::Asked, Ended::Policy);
            return Ok(Step::Over(self.failure.take().map_or(Ok(ended), Err)));
        }
        self.housekeeping(now);
        Ok(if worked { Step::Again } else { Step::Rest(self.rest(now)) })
    }

    /// How long until the next thing to do by time.
    fn rest(&self, now: Instant) -> Duration {
        // A starved lane cannot use its deadline: it is looked at when the bytes in flight are counted again.
        let lanes = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref()?.lane.deadline());
        let lanes = lanes.filter(|_| !self.starved);
        let count = self.starved.then(|| self.last_count + COUNT);
        let commit = (!self.commit_in_flight && self.leaving.is_none() && self.any_dirty())
            .then(|| self.last_commit + self.parts.config.ack.commit_interval);
        let leaving = self.leaving.as_ref().and_then(Leaving::deadline);
        let next = lanes
            .chain(count)
            .chain(commit)
            .chain(leaving)
            .chain(self.parts.outlets.deadline())
            .chain([self.last_sweep + SWEEP])
            .min()
            .unwrap_or(now + SWEEP);
        next.saturating_duration_since(now).max(Duration::from_micros(100))
    }

    fn any_dirty(&self) -> bool {
        self.active.iter().any(|id| self.lanes[*id as usize].as_ref().is_some_and(|slot| slot.dirty().is_some()))
    }

    // ---- events of the group ----

    fn take_events(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        // One rebalance at a time: what comes after it waits in librdkafka's queue.
        while let Some(event) = self.parts.group.poll() {
            any = true;
            match event {
                Event::Assigned(partitions) => self.assigned(&partitions, now)?,
                Event::Revoked { partitions, lost } => self.revoked(partitions, lost, now)?,
                Event::Committed { result, partitions } => self.committed(result, &partitions),
                Event::Problem { code, text, fatal } => self.problem(code, &text, fatal)?,
            }
        }
        if self.parts.watch.answered() {
            self.cluster_works();
        }
        Ok(any)
    }

    fn assigned(&mut self, partitions: &[PartitionOffset], now: Instant) -> Result<(), String> {
        let queues = self.parts.group.assign(partitions)?;
        for (partition, queue) in partitions.iter().zip(queues) {
            let topic = self.topics.entry(partition.topic.clone()).or_insert_with(|| partition.topic.as_str().into());
            let id = LaneId::try_from(self.lanes.len()).map_err(|_| "too many assignments in one run".to_owned())?;
            let (epoch, rules) = (self.parts.group.next_epoch(), Arc::clone(&self.parts.rules));
            let start = Some(partition.offset).filter(|offset| *offset >= 0);
            let mut lane = Lane::new(id, Arc::clone(topic), partition.partition, epoch, rules, start, now);
            if self.closing {
                lane.drain(sluicebox_frames::Trigger::Shutdown);
            }
            let handle = self.parts.handlers.open(id);
            self.lanes.push(Some(Box::new(Slot {
                queue,
                lane,
                handle,
                committed: None,
                committing: None,
                commit_failed: false,
                memory: 0,
            })));
            self.active.push(id);
        }
        self.parts.outlets.figures.rebalances[0] += 1;
        telemetry::assigned(&self.parts.config.name, &names(partitions));
        self.joined = true;
        self.cluster_works();
        Ok(())
    }

    fn count_error(&mut self, code: Code) {
        let key = (self.parts.cluster.name.clone(), code_name(code).to_lowercase());
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
            // librdkafka could not ask for committed offsets: it keeps the partitions and never fetches from them.
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED | Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
                if !self.active.is_empty() =>
            {
                self.fail(reason);
            }
            _ => {
                let reason = format!("group {}: {reason}", self.parts.config.source.group);
                if self.troubles.add("group", reason.clone()) {
                    telemetry::trouble(&self.parts.config.name, &reason);
                }
                self.parts.watch.begin();
            }
        }
        self.show_troubles();
        Ok(())
    }

    /// Ends the run in order: what handlers saw becomes durable and is committed, then the pipeline begins anew.
    fn fail(&mut self, reason: String) {
        self.parts.status.set(State::Waiting, Some(reason.clone()));
        self.failure.get_or_insert(reason);
    }

    fn cluster_trouble(&mut self, cause: &str) {
        let cluster = &self.parts.cluster;
        let reason = format!("cluster `{}` ({}) does not answer: {cause}", cluster.name, cluster.bootstrap);
        self.troubles.add("cluster", reason);
        self.parts.watch.begin();
        self.show_troubles();
    }

    /// Something that needs the cluster and the group succeeded.
    fn cluster_works(&mut self) {
        self.last_problem.clear();
        for place in ["cluster", "group"] {
            self.troubles.over(place);
        }
        self.show_troubles();
    }

    pub(super) fn show_troubles(&self) {
        if self.closing || self.failure.is_some() {
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
        while let Some(answered) = self.parts.handlers.answered() {
            any = true;
            let Some(slot) = self.lanes.get_mut(answered.lane as usize).and_then(Option::as_mut) else {
                continue; // a partition that was given back meanwhile
            };
            let Some(reply) = answered.reply else {
                return Err(format!("{}: a handler thread panicked, a bug of the host's", slot.name()));
            };
            slot.memory = answered.memory;
            let figures = &mut self.parts.outlets.figures;
            let calls = &mut figures.calls[usize::from(slot.lane.is_running_batch())];
            calls.0 += 1;
            calls.1 += u64::try_from(answered.took.as_nanos()).unwrap_or(u64::MAX);
            if let Reply::Fault(failure) = &reply {
                *figures.faults.entry(failure.class).or_default() += 1;
            }
            self.parts.outlets.serve(&slot.lane.topic, slot.lane.partition);
            slot.lane.on_reply(answered.frame, reply, answered.took, now, &mut self.parts.outlets);
            if let Some(reason) = slot.lane.stopped() {
                self.stopped.get_or_insert_with(|| format!("{}: {reason}", slot.name()));
            }
        }
        Ok(any)
    }

    fn serve_lanes(&mut self, now: Instant) -> Result<bool, String> {
        let (mut any, mut works, mut failure) = (false, false, None);
        if !self.parts.share.admits() {
            self.count(now);
        }
        self.starved = false;
        let no_calls = self.parts.share.is_filled_by(self.parts.outlets.bytes());
        for place in 0..self.active.len() {
            // Turns begin with another lane each time, so that none is always served last.
            let id = self.active[place];
            let Some(slot) = self.lanes[id as usize].as_mut() else { continue };
            if slot.lane.is_running() {
                continue;
            }
            let outlets = &mut self.parts.outlets;
            outlets.serve(&slot.lane.topic, slot.lane.partition);
            let ready = slot.lane.wants_messages() && slot.queue.is_ready();
            if ready && !self.parts.share.admits() {
                self.starved = true;
                // Open batches hold bytes, too. When nothing else is on its way to give some back, the oldest runs now.
                any |= outlets.records() == 0 && slot.lane.relieve();
            } else if ready {
                let limit = slot.lane.burst_limit();
                let queue = &mut slot.queue;
                let filled = slot.lane.fill(now, outlets, |burst, offer| {
                    let filled = queue.fill(burst, limit, MAX_BYTES, offer)?;
                    Ok(filled.problem)
                });
                let (fetched, trouble) = match filled {
                    Ok(found) => found,
                    Err(reset) => {
                        failure.get_or_insert_with(|| (None, format!("{}: {reset}", slot.name())));
                        slot.lane.drain(sluicebox_frames::Trigger::Revoke);
                        continue;
                    }
                };
                if fetched.messages > 0 {
                    any = true;
                    self.parts.share.took(fetched.bytes as u64);
                    let figures = outlets.figures.topics.entry(Arc::clone(&slot.lane.topic)).or_default();
                    figures.consumed += fetched.messages as u64;
                    figures.consumed_bytes += fetched.bytes as u64;
                    works |= !self.troubles.is_empty();
                }
                if let Some((code, text)) = trouble {
                    // librdkafka counts this as a record in its position and would go on behind it: begin anew from what
                    // is committed instead.
                    let reason = format!("topic `{}`: {}", slot.lane.topic, problem::explain(code, &text));
                    failure.get_or_insert((Some(code), reason));
                    slot.lane.drain(sluicebox_frames::Trigger::Revoke);
                    any = true;
                }
            }
            if no_calls {
                self.starved = true;
                continue;
            }
            if let Some(call) = slot.lane.next_call(now, outlets) {
                any = true;
                slot.handle.call(call)?;
            }
        }
        if !self.active.is_empty() {
            self.active.rotate_left(1);
        }
        if let Some((code, reason)) = failure {
            if let Some(code) = code {
                self.count_error(code);
            }
            self.fail(reason);
        } else if works {
            self.cluster_works();
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
        self.take_refused(now);
        Ok(any)
    }

    /// Lanes decide about records that no broker will take.
    fn take_refused(&mut self, now: Instant) {
        for (ticket, refused) in std::mem::take(&mut self.refused) {
            if let Some(slot) = self.lanes.get_mut(ticket.lane as usize).and_then(Option::as_mut) {
                self.parts.outlets.serve(&slot.lane.topic, slot.lane.partition);
                slot.lane.on_refused(ticket.target, refused, now, &mut self.parts.outlets);
                if let Some(reason) = slot.lane.stopped() {
                    self.stopped.get_or_insert_with(|| format!("{}: {reason}", slot.name()));
                }
                if slot.lane.wants_sources() {
                    let offsets = slot.lane.take_wanted();
                    self.parts.rereader.ask(ticket.lane, &slot.lane.topic, slot.lane.partition, offsets);
                }
            }
        }
    }

    /// Source records that lanes asked for.
    fn take_sources(&mut self) -> bool {
        let mut any = false;
        while let Some(Found { lane, frame, offsets }) = self.parts.rereader.answered() {
            any = true;
            if let Some(slot) = self.lanes.get_mut(lane as usize).and_then(Option::as_mut) {
                self.parts.outlets.serve(&slot.lane.topic, slot.lane.partition);
                slot.lane.on_sources(&frame, &offsets, &mut self.parts.outlets);
            }
        }
        any
    }

    /// Takes a lane out. Its late answers and reports find nobody.
    pub(super) fn remove(&mut self, id: LaneId) {
        if let Some(slot) = self.lanes[id as usize].take() {
            *self.retired.entry(Arc::clone(&slot.lane.topic)).or_default() += slot.lane.settled();
        }
        self.active.retain(|active| *active != id);
    }
}
