//! The loop of a pipeline: one thread that polls Kafka, feeds lanes, takes answers in, produces, and commits. Nothing in
//! here waits, looks at a clock or knows whom it talks to: [`Run::step`] is called with the time and says how long it may
//! be left alone, and its edges are [`Edges`]. Nothing is done per record that could be done per burst.
//!
//! Invariant of commits: what is committed for a partition is its lane's committable offset, of the lane that owns it now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Share, ahead_of_a_lane};
use super::commits::Refusals;
use super::control::Control;
use super::figures::Fates;
use super::fill::{Fill, fill};
use super::lane::{CallKind, Lane, RefusedEmission, Reply};
use super::leave::{Abandoned, LEFT, Leaving};
use super::linger::Linger;
use super::outlets::Outlets;
use super::pace::Pace;
use super::pause::Pause;
use super::place::{Placing, Renewal};
use super::port::{
    BuildOf, Code, END, Edges, Event, Found, Group, Handle, HandleOf, Handlers, Queue, QueueOf, Renewed, Reread,
    Trouble, Watch,
};
use super::revision::Revision;
use super::standstill::AgingWatch;
use super::status::{Figures, PipelineStatus, Stalled, State};
use super::stop::Stop;
use super::swap::{Ahead, Handed, Swap};
use super::trouble::Troubles;
use crate::config::{Cluster, Pipeline};
use crate::delivery::retention::Danger;
use crate::delivery::stall::Stall;
use crate::delivery::ticket::{self, LaneId, Ticket};
use crate::telemetry;

/// A loop that rested within this time has time for short calls.
const AWAKE: Duration = Duration::from_millis(2);
/// So many of them a turn, and what they are expected to take together: the rest goes to other threads meanwhile.
const HERE: (u32, Duration) = (8, Duration::from_millis(1));

/// What a run is made of; see `supervise`, which makes it.
pub(super) struct Parts<E: Edges> {
    pub config: Arc<Pipeline>,
    pub cluster: Cluster,
    /// Partitions of the input topics when the run began.
    pub inputs: BTreeMap<String, u32>,
    pub control: Control<BuildOf<E>>,
    pub status: Arc<PipelineStatus>,
    pub share: Share,
    /// Bytes that the producers may hold before lanes are held back.
    pub ahead: usize,
    pub stop: Stop,
    pub group: E::Group,
    pub outlets: Outlets<E::Producer>,
    pub handlers: E::Handlers,
    pub watch: E::Watch,
    pub rereader: E::Rereader,
    pub survey: E::Survey,
    /// How often topics are counted again.
    pub refresh: Duration,
}

/// One lane with its edges.
pub(super) struct Slot<E: Edges> {
    // Messages of the queue must go before the client, which the queue holds.
    pub(super) queue: QueueOf<E>,
    pub(super) lane: Lane,
    pub(super) handle: HandleOf<E>,
    /// What it runs, and what it was told to go over to: the same, most of the time.
    pub(super) revision: Arc<Revision<BuildOf<E>>>,
    pub(super) target: Arc<Revision<BuildOf<E>>>,
    /// When it was told to, unless it is there.
    pub(super) told: Option<Instant>,
    /// The instance for that.
    pub(super) ahead: Ahead,
    /// A switch is with the handler.
    pub(super) handed: Option<Handed<BuildOf<E>>>,
    /// A canary failed at this offset, and the version before tries.
    pub(super) replays: Option<i64>,
    /// How long the last one took.
    pub(super) gap: Option<Duration>,
    pub(super) committed: Option<i64>,
    pub(super) committing: Option<i64>,
    /// The last commit of it did not work: the next one comes with the interval.
    pub(super) commit_failed: bool,
    pub(super) memory: u64,
    /// Where it began: an offset, or librdkafka's word for one.
    pub(super) begin: i64,
    /// Its ownership epoch ends.
    pub(super) renewal: Option<Renewal>,
    /// The log's oldest offset at the last look.
    pub(super) log_start: Option<i64>,
    pub(super) stall: Stall,
    /// What the last look found.
    pub(super) stalled: Option<Stalled>,
    /// What the broker said last of the record it stands at, and what may be concluded from that.
    pub(super) danger_seen: Danger,
    pub(super) danger: Danger,
}

impl<E: Edges> Slot<E> {
    pub(super) fn new(
        queue: QueueOf<E>,
        lane: Lane,
        handle: HandleOf<E>,
        revision: Arc<Revision<BuildOf<E>>>,
        begin: i64,
        committed: Option<i64>,
    ) -> Self {
        Self {
            queue,
            lane,
            handle,
            target: Arc::clone(&revision),
            told: None,
            revision,
            ahead: Ahead::Nothing,
            handed: None,
            replays: None,
            gap: None,
            committed,
            committing: None,
            commit_failed: false,
            memory: 0,
            begin,
            renewal: None,
            log_start: None,
            stall: Stall::new(),
            stalled: None,
            danger_seen: Danger::None,
            danger: Danger::None,
        }
    }

    /// An offset that is worth committing.
    pub(super) fn dirty(&self) -> Option<i64> {
        planted!(CommitHighestSeen, {
            return self.lane.next_offset().filter(|offset| Some(*offset) != self.committed);
        });
        let back = matches!(self.renewal, Some(Renewal::Back(_)));
        self.lane.committable().filter(|offset| Some(*offset) != self.committed && !back)
    }

    /// Up to where everything is done, as far as known: one without a commit, and of which nothing came yet, stands where it
    /// begins.
    pub(super) fn done(&self, group: &E::Group) -> Option<i64> {
        self.lane.committable().or(self.committed).or_else(|| match self.begin {
            0.. => Some(self.begin),
            END => None,
            _ => group.log_start(&self.lane.topic, self.lane.partition),
        })
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
    /// The failure policy `stop`, at this record; or `on_lost_offset = "stop"`.
    Policy(String),
}

/// How a step of a run ended.
#[derive(Debug)]
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// Nothing to do before so much time has passed, unless somebody wakes it.
    Rest(Duration),
    /// The same, and what producers hear of – reports, nearly always – is nothing to be woken for.
    Doze(Duration),
    /// Nothing to do for so long, whoever wakes it.
    Nap(Duration),
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
    /// Assigned partitions whose places are not known yet.
    pub(super) placing: Placing,
    /// Most records fail, or did; or the operator wants nothing offered.
    pub(super) pause: Pause,
    /// Which revision lanes run, and are to run.
    pub(super) swap: Swap<BuildOf<E>>,
    /// Something could not be fetched or called because too many bytes are in flight.
    pub(super) starved: bool,
    /// Something could not be fetched because of `process.rate`.
    pub(super) paced: bool,
    pub(super) pace: Pace,
    pub(super) linger: Linger,
    /// There was nothing to do, or nothing was left.
    rests: bool,
    /// Until when it rested last.
    rested: Instant,
    pub(super) commit_in_flight: bool,
    pub(super) refusals: Refusals,
    pub(super) topics: BTreeMap<String, Arc<str>>,
    pub(super) last_commit: Instant,
    pub(super) last_count: Instant,
    pub(super) last_publish: Instant,
    pub(super) last_sweep: Instant,
    pub(super) aging: AgingWatch,
    pub(super) next_survey: Instant,
    refused: Vec<(Ticket, RefusedEmission)>,
    trouble: Vec<Trouble>,
    pub(super) troubles: Troubles,
    pub(super) joined: bool,
    pub(super) last_problem: String,
    pub(super) retired: BTreeMap<Arc<str>, Fates>,
    /// Counters of the runs before this one.
    pub(super) earlier: Figures,
    /// Partitions of all lanes that there were, for a planted bug.
    #[cfg(test)]
    pub(super) former: Vec<(Arc<str>, i32)>,
}

impl<E: Edges> Run<E> {
    pub(super) fn new(mut parts: Parts<E>, now: Instant) -> Self {
        parts.status.set(State::Joining, None);
        let earlier = parts.status.figures().at_rest();
        let (pause, refresh) = (Pause::new(&parts.config.errors, now), parts.refresh);
        let swap = Swap::new(&parts.control);
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
            placing: Placing::new(),
            pause,
            swap,
            starved: false,
            paced: false,
            pace: Pace::default(),
            linger: Linger::default(),
            rests: false,
            rested: now,
            commit_in_flight: false,
            refusals: Refusals::default(),
            topics,
            last_commit: now,
            last_count: now,
            last_publish: now,
            last_sweep: now,
            aging: AgingWatch::new(now),
            next_survey: now + refresh,
            refused: Vec::new(),
            trouble: Vec::new(),
            troubles: Troubles::default(),
            joined: false,
            last_problem: String::new(),
            retired: BTreeMap::new(),
            earlier,
            #[cfg(test)]
            former: Vec::new(),
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
        Step::Over(self.stopped.take().map_or(result, |reason| Ok(Ended::Policy(reason))))
    }

    fn turn(&mut self, now: Instant) -> Result<Step, String> {
        if self.rests {
            self.rested = now;
        }
        // Seldom, and there may be more to do after it.
        let mut seldom = self.take_orders(now);
        seldom |= self.take_events(now)?;
        let mut worked = self.take_answers(now)?;
        worked |= self.take_reports(now)?;
        seldom |= self.watch_failures(now);
        seldom |= self.go_on_swapping(now);
        worked |= self.serve_lanes(now)?;
        // Short calls are over already.
        worked |= self.take_answers(now)?;
        seldom |= self.renew(now)?;
        self.parts.outlets.send(now, &mut self.refused);
        seldom |= self.take_refused(now);
        seldom |= self.take_sources();
        seldom |= self.commit(now)?;
        if self.has_to_end() && !self.closing {
            self.begin_shutdown(now);
            seldom |= self.closing;
        }
        let leaves = self.leaving.as_ref().map(Leaving::is_of);
        if self.go_on_leaving(now)? {
            return Ok(Step::Over(self.failure.take().map_or(Ok(Ended::Asked), Err)));
        }
        seldom |= leaves != self.leaving.as_ref().map(Leaving::is_of);
        seldom |= self.housekeeping(now);
        self.rests = !seldom && (!worked || self.has_done_all());
        Ok(if self.rests { self.rest(worked, now) } else { Step::Again })
    }

    /// Somebody asked for it, or it cannot go on.
    pub(super) fn has_to_end(&self) -> bool {
        self.parts.stop.requested() || self.failure.is_some() || self.stopped.is_some()
    }

    // ---- events of the group ----

    fn take_events(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        // One rebalance at a time: what comes after it waits in librdkafka's queue.
        while let Some(event) = self.parts.group.poll() {
            any = true;
            match event {
                Event::Assigned(partitions) => self.assigned(&partitions)?,
                Event::Placed { number, places } => self.placed(number, &places, now)?,
                Event::Aged(aged) => self.aged(&aged),
                Event::Revoked { partitions, lost } => self.revoked(partitions, lost, now)?,
                Event::Committed { result, partitions } => self.committed(result, &partitions, now),
                Event::Problem { code, text, fatal } => self.problem(code, &text, fatal)?,
            }
        }
        if let Some(heard) = self.parts.watch.answered() {
            self.heard(heard);
        }
        Ok(any)
    }

    // ---- handlers ----

    fn take_answers(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        while let Some(answered) = self.parts.handlers.answered() {
            any = true;
            let Some(slot) = self.lanes.get_mut(answered.lane as usize).and_then(Option::as_mut) else {
                mark!(StaleAnswer);
                self.parts.outlets.figures.late_results[0] += 1;
                continue; // a partition that was given back meanwhile
            };
            let Some(reply) = answered.reply else {
                mark!(HandlerPanicked);
                return Err(format!("{}: a handler thread panicked, a bug of the host's", slot.name()));
            };
            slot.memory = answered.memory;
            let outlets = &mut self.parts.outlets;
            if let Reply::Switched(switched) = &reply {
                if let Some(gap) = self.swap.ended(slot, &mut self.parts.handlers, switched, answered.took, now) {
                    outlets.figures.gaps.observe(gap);
                }
            } else {
                let calls = &mut outlets.figures.calls[usize::from(slot.lane.is_running_batch())];
                calls.0 += 1;
                calls.1 += u64::try_from(answered.took.as_nanos()).unwrap_or(u64::MAX);
            }
            if let Reply::Fault(failure) | Reply::NotStarted(failure) = &reply {
                *outlets.figures.faults.entry(failure.class).or_default() += 1;
            }
            outlets.serve(&slot.lane.topic, slot.lane.partition);
            let starts = !matches!(reply, Reply::NotStarted(_));
            // How long a fault takes says nothing of how long messages do.
            let took = (!matches!(reply, Reply::Fault(_))).then_some(answered.took);
            let (failed, stuck) = (outlets.failed_attempts, outlets.stuck_calls);
            slot.lane.on_reply(answered.frame, reply, answered.took, now, outlets);
            if let Some(renewed) = answered.renewed {
                slot.lane.on_renewed(renewed == Renewed::Restored, now);
            }
            let failed = outlets.failed_attempts - failed + u64::from(!starts);
            let messages = slot.lane.attended();
            if messages > 0 || failed > 0 {
                let stuck = outlets.stuck_calls - stuck + u64::from(!starts);
                self.swap.served(&slot.revision, messages, failed, stuck, took);
                if slot.lane.steps_back().is_some() {
                    self.swap.look_again();
                }
            }
            if let Some(reason) = slot.lane.stopped() {
                self.stopped.get_or_insert_with(|| format!("{}: {reason}", slot.name()));
            }
        }
        Ok(any)
    }

    fn serve_lanes(&mut self, now: Instant) -> Result<bool, String> {
        let mut any = false;
        let (mut jumps, mut taints) = (Vec::new(), Vec::new());
        if !self.parts.share.admits() {
            self.count(now);
        }
        (self.starved, self.paced) = (false, false);
        self.pace.set(self.parts.config.process.rate);
        let no_calls = self.parts.share.is_filled_by(self.parts.outlets.bytes());
        let ahead = ahead_of_a_lane(self.parts.ahead, self.active.len());
        let (paused, trial) = (self.pause.reason().is_some(), self.pause.is_trial());
        // A loop that always has something to do gives all that it can to other threads.
        let mut here = if now < self.rested + AWAKE { HERE } else { (0, Duration::ZERO) };
        let mut one_runs = trial && self.lanes.iter().flatten().any(|slot| slot.lane.is_running());
        for place in 0..self.active.len() {
            // Turns begin with another lane each time, so that none is always served last.
            let id = self.active[place];
            let Some(slot) = self.lanes[id as usize].as_mut() else { continue };
            if slot.lane.is_running() {
                continue;
            }
            // What it has to finish on its way out, or to another version, a lane may call for in any case.
            let finishes = slot.lane.is_draining() || slot.lane.is_switching();
            if paused && !finishes {
                continue;
            }
            let outlets = &mut self.parts.outlets;
            if outlets.bytes_of(id) >= ahead && !finishes {
                mark!(ProducersFull);
                self.starved = true;
                continue;
            }
            outlets.serve(&slot.lane.topic, slot.lane.partition);
            let ready = slot.renewal.is_none() && slot.lane.wants_messages() && slot.queue.is_ready();
            let allowed = self.pace.allows(now);
            if ready && allowed == 0 {
                mark!(Paced);
                self.paced = true;
            } else if ready && !self.parts.share.admits() {
                mark!(Starved);
                self.starved = true;
                // Open batches hold bytes, too. When nothing else is on its way to give some back, the oldest runs now.
                if outlets.records() == 0 && slot.lane.relieve() {
                    mark!(BatchRelieved);
                    any = true;
                }
            } else if ready {
                let Fill { fetched, jump, trouble } = fill(slot, &self.parts.group, outlets, allowed, now)?;
                if fetched.messages > 0 {
                    any = true;
                    self.pace.took(fetched.messages, now);
                    self.parts.share.took(fetched.bytes as u64);
                    self.linger.took(now);
                    outlets.expect();
                    let figures = outlets.figures.topics.entry(Arc::clone(&slot.lane.topic)).or_default();
                    figures.consumed += fetched.messages as u64;
                    figures.consumed_bytes += fetched.bytes as u64;
                }
                any |= jump.is_some() || trouble.is_some();
                jumps.extend(jump.map(|jump| (id, jump)));
                taints.extend(trouble.map(|trouble| (id, trouble)));
            }
            if no_calls && !slot.lane.is_switching() || one_runs && !finishes {
                self.starved = true;
                continue;
            }
            let held = slot.lane.held();
            let call = slot.lane.next_call(now, outlets);
            // Whose time to be held is over makes room for others.
            any |= slot.lane.held() < held;
            if let Some(mut call) = call {
                any = true;
                call.short = call.short.filter(|expected| here.0 > 0 && *expected <= here.1);
                if let Some(expected) = call.short {
                    here = (here.0 - 1, here.1 - expected);
                }
                if call.kind == CallKind::Switch {
                    self.swap.hand_over(slot, &mut self.parts.handlers, now)?;
                } else {
                    one_runs |= trial;
                    slot.handle.call(call)?;
                }
            }
        }
        if !self.active.is_empty() {
            self.active.rotate_left(1);
        }
        for (id, jump) in jumps {
            self.jumped(id, jump);
        }
        for (id, (code, text)) in taints {
            self.tainted(id, code, &text);
        }
        Ok(any)
    }

    // ---- delivery ----

    fn take_reports(&mut self, now: Instant) -> Result<bool, String> {
        let before = self.parts.outlets.records();
        let lanes = &mut self.lanes;
        let mut late = 0;
        #[cfg(test)]
        let former = &self.former;
        let delivered = |run: ticket::Run| {
            let (ticket, count) = (run.first, run.count);
            #[cfg(test)]
            let ticket = super::sim::bugs::to_the_owner_of_now(ticket, lanes, former);
            // A report for a partition that was given back settles nothing: its next owner does the record again.
            if let Some(slot) = lanes.get_mut(ticket.lane as usize).and_then(Option::as_mut) {
                slot.lane.on_delivered_run(ticket.target, count);
            } else {
                mark!(StaleReport);
                late += u64::from(count);
            }
        };
        self.parts.outlets.poll(now, delivered, &mut self.refused, &mut self.trouble);
        self.parts.outlets.figures.late_results[1] += late;
        let any = self.parts.outlets.records() < before;
        if any && !self.troubles.is_empty() {
            self.troubles.over("produce");
            self.show_troubles();
        }
        for trouble in std::mem::take(&mut self.trouble) {
            self.count_error(trouble.code);
            mark!(ProducerTrouble);
            if trouble.fatal {
                mark!(ProducerFatal);
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
        Ok(self.take_refused(now) || any)
    }

    /// Lanes decide about records that no broker will take.
    fn take_refused(&mut self, now: Instant) -> bool {
        let any = !self.refused.is_empty();
        for (ticket, refused) in std::mem::take(&mut self.refused) {
            if let Some(slot) = self.lanes.get_mut(ticket.lane as usize).and_then(Option::as_mut) {
                mark!(RecordRefused);
                self.parts.outlets.serve(&slot.lane.topic, slot.lane.partition);
                let failed = self.parts.outlets.failed_attempts;
                slot.lane.on_refused(ticket.target, refused, now, &mut self.parts.outlets);
                if slot.lane.steps_back().is_some() {
                    let failed = self.parts.outlets.failed_attempts - failed;
                    self.swap.served(&slot.revision, 0, failed, 0, None);
                    self.swap.look_again();
                }
                if let Some(reason) = slot.lane.stopped() {
                    self.stopped.get_or_insert_with(|| format!("{}: {reason}", slot.name()));
                }
                if slot.lane.wants_sources() {
                    let offsets = slot.lane.take_wanted();
                    self.parts.rereader.ask(ticket.lane, &slot.lane.topic, slot.lane.partition, offsets);
                }
            }
        }
        any
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
    pub(super) fn remove(&mut self, id: LaneId) -> Option<QueueOf<E>> {
        self.active.retain(|active| *active != id);
        let slot = self.lanes[id as usize].take()?;
        self.retired.entry(Arc::clone(&slot.lane.topic)).or_default().add(&slot.lane);
        Some(slot.queue)
    }
}
