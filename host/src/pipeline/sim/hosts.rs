//! Hosts: real runs over scripted edges, started, stepped, frozen, killed and started again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::ScriptedGroup;
use super::handlers::{ScriptedBuild, ScriptedHandlers};
use super::knobs::{Batches, Knobs};
use super::producer::{DEAD, PARTITIONS, ScriptedProducer};
use super::source::ScriptedRereader;
use super::world::{Happening, Killed, Shared, World};
use crate::config::{
    AckMode, Breaker, Cluster, DeadLetter, Hold, InlinePipeline, LoadRequest, Outside, Pipeline, Purpose, Then,
};
use crate::delivery::policy;
use crate::pipeline::budget::{Budget, Share};
use crate::pipeline::control::{Conflict, Control, Lanes, Prepared, Strategy, SwapOrder};
use crate::pipeline::lane::Exports;
use crate::pipeline::outlets::{DeadLetterOutlet, Outlet, Outlets};
use crate::pipeline::port::{Counted, Edges, Heard, Survey, TopicNumber, Watch};
use crate::pipeline::revision::Offered;
use crate::pipeline::run::{Ended, Parts, Run, Step};
use crate::pipeline::status::PipelineStatus;
use crate::pipeline::stop::Stop;

/// How long a shutdown may take.
const DRAIN: Duration = Duration::from_secs(15);

/// Scripted edges.
pub(super) struct Script;

impl Edges for Script {
    type Group = ScriptedGroup;
    type Producer = ScriptedProducer;
    type Handlers = ScriptedHandlers;
    type Watch = ScriptedWatch;
    type Rereader = ScriptedRereader;
    type Survey = NoSurvey;
}

/// A cluster that answers after a while.
pub(super) struct ScriptedWatch {
    world: Shared,
    member: usize,
}

impl std::fmt::Debug for ScriptedWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScriptedWatch")
    }
}

impl Watch for ScriptedWatch {
    fn begin(&mut self) {
        let world = &mut *self.world.borrow_mut();
        if !std::mem::replace(&mut world.members[self.member].watching, true) {
            let wait = world.chance.millis(10, 5_000);
            world.after(wait, Happening::WatchAnswers(self.member));
        }
    }

    fn answered(&mut self) -> Option<Heard> {
        let this = &mut self.world.borrow_mut().members[self.member];
        std::mem::take(&mut this.watch_answered).then_some(Heard::Topics)
    }
}

/// Topics do not grow in this world.
pub(super) struct NoSurvey;

impl Survey for NoSurvey {
    fn ask(&mut self) {}

    fn answered(&mut self) -> Option<Vec<Counted>> {
        None
    }
}

/// One host.
pub(super) struct Host {
    number: usize,
    control: Control<ScriptedBuild>,
    offers: Offered,
    status: Arc<PipelineStatus>,
    budget: Arc<Budget>,
    up: Option<Up>,
    pub(super) frozen: bool,
    /// It was asked to stop for good.
    pub(super) ended: bool,
}

struct Up {
    run: Run<Script>,
    member: usize,
    stop: Stop,
    due: Duration,
    /// Nobody wakes it before.
    naps: Duration,
    /// It is not to be woken for what it is told.
    dozes: bool,
}

/// What is the same for all hosts of a seed.
pub(super) fn config(knobs: &Knobs) -> Arc<Pipeline> {
    let request = LoadRequest {
        purpose: Purpose::Dev,
        inline: Some(InlinePipeline {
            plugin: "handler.wasm".into(),
            topics: ["in", "more"].iter().take(knobs.topics.len()).map(|topic| (*topic).to_owned()).collect(),
            group: "group".to_owned(),
            outputs: vec!["out".to_owned(), "totals".to_owned()],
            ..InlinePipeline::default()
        }),
        ..LoadRequest::default()
    };
    let mut plan = crate::config::load(&request, &Outside::process()).expect("a pipeline of flags");
    let mut config = plan.pipelines.remove(0);
    config.ack.commit_interval = knobs.commit_interval;
    config.process.max_ahead = knobs.max_ahead;
    config.process.rate = knobs.rate;
    config.errors.attempts = knobs.attempts;
    config.errors.max_backoff = knobs.max_backoff;
    let (cluster, topic) = (config.source.cluster.clone(), "dead".to_owned());
    config.errors.then = match knobs.then {
        policy::Then::Block => Then::Block,
        policy::Then::Drop => Then::Drop,
        policy::Then::Stop => Then::Stop,
        policy::Then::DeadLetter => {
            Then::DeadLetter(DeadLetter { cluster, topic, header_prefix: "sluicebox-error".to_owned() })
        }
    };
    let breaker = |(percent, of_at_least)| Breaker { percent, of_at_least, ..Breaker::default() };
    config.errors.breaker = knobs.breaker.map(breaker);
    config.hold = Hold { max: knobs.hold_max, timeout: knobs.hold_timeout };
    config.tick = knobs.tick;
    config.source.linger = knobs.linger;
    config.ack.mode = if knobs.receive { AckMode::Receive } else { AckMode::Success };
    if knobs.batches != Batches::None {
        config.batchers = vec![crate::config::Batcher {
            max_messages: knobs.batch_messages,
            max_wait: knobs.batch_wait,
            ..crate::config::Batcher::default()
        }];
    }
    Arc::new(config)
}

impl Host {
    pub(super) fn new(number: usize, config: &Arc<Pipeline>, knobs: &Knobs) -> Self {
        let status = Arc::new(PipelineStatus::new("simulated", "group", "0"));
        let offers = Offered {
            messages: knobs.batches != Batches::Only,
            batches: false, // its batcher is declared
            tick: true,
            exports: Exports { partitions: knobs.partitions, failures: knobs.failures },
        };
        let control = Control::new(Arc::clone(config), ScriptedBuild { digest: "0".to_owned(), offers });
        let budget = Budget::new(knobs.budget);
        Self { number, control, offers, status, budget, up: None, frozen: false, ended: false }
    }

    /// The operator gives the pipeline another version.
    pub(super) fn order(&mut self, world: &mut World, host: usize) {
        world.last_order += 1;
        let number = world.last_order;
        world.ordered.insert(number, host);
        let lanes = match world.chance.one_in(3) {
            true => Lanes::Percent(world.chance.between(1, 100) as u8),
            false => Lanes::All,
        };
        let strategy = *world.chance.pick(&[Strategy::Drain, Strategy::Drain, Strategy::Immediate]);
        world.note(format_args!("host {host} gets version {number} for {lanes:?}, {strategy:?}"));
        if lanes != Lanes::All {
            let (wait, promoted) = (world.chance.millis(1, 20_000), world.chance.one_in(2));
            world.after(wait, Happening::CanaryEnds { host, number, promoted });
            world.canaries.insert(number);
        }
        let build = ScriptedBuild { digest: number.to_string(), offers: self.offers };
        let config = Arc::clone(&self.control.serving().config);
        let order =
            SwapOrder { number, config, build, lanes, promote_after: None, strategy, prepared: Prepared::default() };
        if let Err(conflict) = self.control.switch(order) {
            assert!(matches!(conflict, Conflict::UnderWay { .. }), "numbers grow: {conflict}");
            world.note(format_args!("refused: {conflict}"));
        }
        self.look_at_once();
    }

    /// The operator has seen enough of a canary, or not.
    pub(super) fn end_canary(&mut self, world: &Shared, number: u64, promoted: bool) {
        let world = &mut *world.borrow_mut();
        let told = match promoted {
            true => self.control.promote(number),
            false => self.control.take_back(number, "by script"),
        };
        match promoted {
            true if told => _ = world.canaries.remove(&number),
            false if told => _ = world.taken_back.insert(number),
            _ => {}
        }
        world.note(format_args!("order {number} of host {}: promoted {promoted}, told {told}", self.number));
        self.look_at_once();
    }

    /// The operator pauses the pipeline.
    pub(super) fn pause(&mut self) {
        self.control.pause("by script");
        self.look_at_once();
    }

    /// The operator ends a pause.
    pub(super) fn resume(&mut self, world: &Shared) {
        world.borrow_mut().note(format_args!("host {} goes on", self.number));
        self.control.resume();
        self.look_at_once();
    }

    fn look_at_once(&mut self) {
        if let Some(up) = &mut self.up {
            up.due = up.due.min(up.naps);
        }
    }

    pub(super) fn start(&mut self, world: &Shared, start: Instant) {
        if self.up.is_some() || self.ended {
            return;
        }
        let (member, now, knobs) = {
            let world = &mut *world.borrow_mut();
            let member = world.join();
            let number = self.number;
            world.note(format_args!("host {number} starts as member {member}"));
            (member, world.now, world.knobs.clone())
        };
        let outlet = |topic| Outlet { producer: 0, topic: TopicNumber(topic), partitions: PARTITIONS };
        let dead = DeadLetterOutlet {
            outlet: Outlet { producer: 0, topic: DEAD, partitions: PARTITIONS },
            prefix: "sluicebox-error".to_owned(),
        };
        self.control.settle();
        let config = Arc::clone(&self.control.serving().config);
        let batchers: Vec<String> = config.batchers.iter().map(|batcher| batcher.name.clone()).collect();
        let outputs = vec![("out".to_owned(), outlet(0)), ("totals".to_owned(), outlet(1))];
        let producer = ScriptedProducer { world: world.clone(), member };
        let dead = (knobs.then == policy::Then::DeadLetter).then_some(dead);
        let stop = Stop::default();
        let parts = Parts::<Script> {
            config,
            cluster: Cluster { name: "default".to_owned(), bootstrap: "nowhere".to_owned(), properties: Vec::new() },
            inputs: ["in", "more"]
                .map(str::to_owned)
                .into_iter()
                .zip(knobs.topics.iter().map(|n| n.unsigned_abs()))
                .collect(),
            control: self.control.clone(),
            status: Arc::clone(&self.status),
            share: Share::new(Arc::clone(&self.budget)),
            ahead: knobs.ahead,
            stop: stop.clone(),
            group: ScriptedGroup { world: world.clone(), member, epochs: 0, lookups: 0, log_start: knobs.first_offset },
            outlets: Outlets::new("simulated", vec![producer], outputs, dead, batchers),
            handlers: ScriptedHandlers { world: world.clone(), member },
            watch: ScriptedWatch { world: world.clone(), member },
            rereader: ScriptedRereader { world: world.clone(), member },
            survey: NoSurvey,
            refresh: Duration::from_secs(300),
        };
        let run = Run::new(parts, start + now);
        self.up = Some(Up { run, member, stop, due: now, naps: now, dozes: false });
    }

    /// Its member, while its process runs.
    pub(super) fn member(&self) -> Option<usize> {
        self.up.as_ref().map(|up| up.member)
    }

    /// When it goes on by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        self.up.as_ref().filter(|_| !self.frozen).map(|up| up.due)
    }

    pub(super) fn wake(&mut self, member: usize, now: Duration) {
        if let Some(up) = self.up.as_mut().filter(|up| up.member == member) {
            up.due = up.due.min(now + Duration::from_micros(20)).max(up.naps);
        }
    }

    pub(super) fn tell(&mut self, member: usize, now: Duration) {
        if self.up.as_ref().is_some_and(|up| up.member == member && !up.dozes) {
            self.wake(member, now);
        }
    }

    /// SIGTERM.
    pub(super) fn stop(&mut self, now: Instant) {
        if let Some(up) = &mut self.up {
            up.stop.request_at(now, DRAIN);
            up.due = Duration::ZERO;
        }
    }

    /// SIGKILL, or the end of a client.
    pub(super) fn drop_run(&mut self, world: &Shared) {
        if let Some(up) = self.up.take() {
            drop(up.run);
            world.borrow_mut().gone(up.member);
        }
    }

    /// One step of the loop. `Err`: the host has a bug.
    pub(super) fn step(&mut self, world: &Shared, start: Instant) -> Result<(), String> {
        let Some(up) = &mut self.up else { return Ok(()) };
        let now = world.borrow().now;
        let orders = self.control.changes();
        let mut step = catch_unwind(AssertUnwindSafe(|| up.run.step(start + now)));
        // A loop that says it rests finds nothing to do when it looks again, unless it has to wait until bytes are counted, or somebody
        // woke it meanwhile, be it with an order of its own: what it left would wait until somebody does.
        let rests = matches!(step, Ok(Step::Rest(_) | Step::Doze(_) | Step::Nap(_))) && !up.run.starved;
        let rests = rests && self.control.changes() == orders;
        if rests && world.borrow_mut().lets_look_again(up.member) {
            match catch_unwind(AssertUnwindSafe(|| up.run.step(start + now))) {
                // As it said before: of the two only the first turn worked.
                Ok(Step::Rest(_) | Step::Doze(_) | Step::Nap(_)) => {}
                Ok(Step::Again | Step::Over(_)) => {
                    return Err(format!("host {} rests, and has something to do", self.number));
                }
                killed @ Err(_) => step = killed,
            }
        }
        if let Some(back) = self.control.orders().1.coming.filter(|coming| coming.back.is_some()) {
            world.borrow_mut().taken_back.insert(back.to.number);
        }
        let number = self.number;
        up.dozes = matches!(step, Ok(Step::Doze(_)));
        let again = match step {
            Ok(Step::Again) => {
                up.due = now + world.borrow_mut().chance.micros(3, 60);
                return Ok(());
            }
            Ok(Step::Rest(wait) | Step::Doze(wait)) => {
                if up.dozes {
                    mark!(Dozed);
                }
                up.due = now + wait;
                return Ok(());
            }
            Ok(Step::Nap(time)) => {
                mark!(Napped);
                (up.due, up.naps) = (now + time, now + time);
                return Ok(());
            }
            Ok(Step::Over(Ok(Ended::Policy(reason)))) => {
                let this = &mut *world.borrow_mut();
                this.note(format_args!("host {number} stops at {reason}, until its operator starts it again"));
                this.saw("the policy stopped a host");
                this.chance.millis(500, 10_000)
            }
            Ok(Step::Over(Ok(Ended::Asked))) => {
                let unfinished = self.status.is_unfinished();
                let this = &mut *world.borrow_mut();
                this.note(format_args!("host {number} has stopped, unfinished: {unfinished}"));
                this.chance.millis(100, 5_000)
            }
            Ok(Step::Over(Err(reason))) => {
                let this = &mut *world.borrow_mut();
                this.note(format_args!("host {number} begins anew: {reason}"));
                this.saw("a run began anew");
                this.chance.millis(500, 4_000)
            }
            Err(panic) => {
                if !panic.is::<Killed>() {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    return Err(format!("host {number} panicked: {}", text.unwrap_or_default()));
                }
                world.borrow_mut().chance.millis(100, 20_000)
            }
        };
        self.drop_run(world);
        if !self.ended {
            world.borrow_mut().after(again, Happening::Start(number));
        }
        Ok(())
    }

    /// What it looks like, for somebody who searches.
    pub(super) fn describe(&self) -> String {
        let figures = self.status.figures();
        let lanes = figures.lanes.iter().map(|lane| {
            let (committed, done) = (lane.committed, lane.committable);
            let place = format!("{}[{}]", lane.topic, lane.partition);
            format!("{place} {:?} committed {committed:?} committable {done:?} open {}", lane.state, lane.open)
        });
        let stage = self.control.progress().stage;
        format!("host {}: {:?}; {stage:?}; {}", self.number, self.status.state(), lanes.collect::<Vec<_>>().join(", "))
    }
}
