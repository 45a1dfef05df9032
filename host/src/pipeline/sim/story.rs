//! One seed from its beginning to its end: trouble, then peace, then a shutdown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::group::SESSION;
use super::hosts::{Host, config};
use super::knobs::{Fault, Knobs};
use super::world::{Happening, Point, Shared, World};
use crate::pipeline::port::{Code, Trouble};

/// Everything is settled and committed so long after the last fault, at the latest.
const PEACE: Duration = Duration::from_secs(180);
/// And so much longer where the breaker may pause: ten times at most ten minutes, as some open at a single failure.
const PAUSE: Duration = Duration::from_secs(6_600);
/// And everybody has left so long after being asked to.
const LEAVE: Duration = Duration::from_secs(30);
/// No story takes more steps, unless something spins.
const STEPS: u64 = 3_000_000;

/// How a story ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The rule that was broken.
    pub(super) broken: Option<String>,
    pub(super) trace: u64,
    pub(super) steps: u64,
    pub(super) took: Duration,
    pub(super) records: usize,
    pub(super) disruptions: u64,
    pub(super) checks: u64,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) seen: BTreeMap<String, u64>,
}

struct Story {
    world: Shared,
    start: Instant,
    hosts: Vec<Host>,
    steps: u64,
    disruptions: u64,
}

/// Plays a seed.
pub(super) fn play(seed: u64, without: &[Fault], start: Instant, aloud: Option<fn(&str)>) -> Ended {
    let knobs = Knobs::draw(seed, without);
    if let Some(aloud) = aloud {
        aloud(&format!("{knobs:?}\n{:?}", knobs.faults()));
    }
    let config = config(&knobs);
    let hosts = (0..knobs.hosts).map(|number| Host::new(number, &config, &knobs)).collect();
    let world = Rc::new(RefCell::new(World::new(knobs, seed, start, aloud)));
    let mut story = Story { world, start, hosts, steps: 0, disruptions: 0 };
    let broken = story.run().err();
    let Story { world, mut hosts, steps, disruptions, .. } = story;
    hosts.iter_mut().for_each(|host| host.drop_run(&world));
    drop(hosts);
    let world = Rc::into_inner(world).expect("nobody else holds the world").into_inner();
    Ended {
        broken,
        trace: world.trace.hash,
        steps,
        took: world.now,
        records: world.ledger.inputs.iter().map(|input| input.records.len()).sum(),
        disruptions,
        checks: world.ledger.checks,
        faults: world.faults,
        seen: world.seen,
    }
}

impl Story {
    fn run(&mut self) -> Result<(), String> {
        self.begin();
        self.go_on(None, |story| story.world.borrow().healed)?;
        let pause = if self.world.borrow().knobs.breaker.is_some() { PAUSE } else { Duration::ZERO };
        let end = self.world.borrow().now + PEACE + pause;
        self.go_on(Some(end), |story| story.world.borrow().ledger.inputs.iter().all(super::ledger::Input::is_done))?;
        let (now, end) = {
            let world = self.world.borrow();
            (world.instant(), world.now + LEAVE)
        };
        for host in &mut self.hosts {
            host.ended = true;
            host.stop(now);
        }
        self.go_on(Some(end), |story| story.hosts.iter().all(|host| host.member().is_none()))?;
        self.world.borrow().ledger.all_shown()?;
        match self.world.borrow().ledger.inputs.iter().all(super::ledger::Input::is_done) {
            true => Ok(()),
            false => Err("the commits fell behind in the shutdown".to_owned()),
        }
    }

    fn begin(&mut self) {
        let world = &mut *self.world.borrow_mut();
        if world.knobs.has(Fault::TinyBudget) {
            world.struck(Fault::TinyBudget);
        }
        for input in 0..world.ledger.inputs.len() {
            let wait = world.chance.millis(1, 2_000);
            world.after(wait, Happening::Append(input));
        }
        for host in 0..self.hosts.len() {
            let wait = world.chance.millis(1, 3_000);
            world.after(wait, Happening::Start(host));
        }
        let (trouble, wait) = (world.knobs.trouble, world.knobs.disruptions);
        world.after(wait, Happening::Disrupt);
        world.after(trouble, Happening::Heal);
    }

    /// Goes on until something is the case, or fails when that is not so in time.
    fn go_on(&mut self, end: Option<Duration>, until: impl Fn(&Self) -> bool) -> Result<(), String> {
        while !until(self) {
            self.steps += 1;
            let agenda = self.world.borrow().next_time();
            let next = self.hosts.iter().enumerate().filter_map(|(place, host)| Some((host.due()?, place))).min();
            let at = agenda.into_iter().chain(next.map(|(due, _)| due)).min();
            if at.is_none_or(|at| end.is_some_and(|end| at > end)) || self.steps > STEPS {
                return Err(self.stuck());
            }
            match next {
                Some((due, host)) if agenda.is_none_or(|agenda| due < agenda) => {
                    {
                        let world = &mut *self.world.borrow_mut();
                        world.go_to(due);
                    }
                    self.hosts[host].step(&self.world, self.start)?;
                }
                _ => self.happen(),
            }
            let (woken, told, now) = {
                let world = &mut *self.world.borrow_mut();
                if let Some(broken) = world.broken.take() {
                    return Err(broken);
                }
                world.unheard.clear();
                (std::mem::take(&mut world.woken), std::mem::take(&mut world.told), world.now)
            };
            for member in woken {
                self.hosts.iter_mut().for_each(|host| host.wake(member, now));
            }
            for member in told {
                self.hosts.iter_mut().for_each(|host| host.tell(member, now));
            }
        }
        Ok(())
    }

    /// What is not done, for whoever has to find out.
    fn stuck(&self) -> String {
        let world = self.world.borrow();
        let left = world.ledger.inputs.iter().filter(|input| !input.is_done()).map(|input| {
            let (committed, end) = (input.committed, input.end);
            format!("{}[{}] committed {committed:?} of {end}", input.topic, input.partition)
        });
        let left: Vec<String> = left.collect();
        let hosts: Vec<String> = self.hosts.iter().map(Host::describe).collect();
        format!("it does not come to its end ({} steps): {}\n  {}", self.steps, left.join(", "), hosts.join("\n  "))
    }

    fn happen(&mut self) {
        let what = self.world.borrow_mut().pop();
        match what {
            Some(Happening::Start(host)) => self.hosts[host].start(&self.world, self.start),
            Some(Happening::Thaw(host)) => self.hosts[host].frozen = false,
            Some(Happening::Kill(host)) => self.hosts[host].drop_run(&self.world),
            Some(Happening::CanaryEnds { host, number, promoted }) => {
                self.hosts[host].end_canary(&self.world, number, promoted);
            }
            Some(Happening::Resume(host)) => self.hosts[host].resume(&self.world),
            Some(Happening::Disrupt) => self.disrupt(),
            Some(Happening::Heal) => self.heal(),
            Some(what) => self.world.borrow_mut().happen(what),
            None => {}
        }
    }

    /// One of the faults that come from outside.
    fn disrupt(&mut self) {
        const FROM_OUTSIDE: [Fault; 13] = [
            Fault::Kill,
            Fault::KillAtPoint,
            Fault::Stop,
            Fault::Stall,
            Fault::Rebalance,
            Fault::Lost,
            Fault::Forget,
            Fault::QueueError,
            Fault::Problem,
            Fault::ProduceFatal,
            Fault::HandlerPanic,
            Fault::Swap,
            Fault::Pause,
        ];
        let shared = self.world.clone();
        let world = &mut *shared.borrow_mut();
        if world.healed {
            return;
        }
        let wait = world.knobs.disruptions;
        let wait = world.chance.time(wait / 8, wait * 2);
        world.after(wait, Happening::Disrupt);
        let there: Vec<Fault> = FROM_OUTSIDE.into_iter().filter(|fault| world.knobs.has(*fault)).collect();
        let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].due().is_some()).collect();
        if there.is_empty() || up.is_empty() {
            return;
        }
        self.disruptions += 1;
        let (fault, host) = (*world.chance.pick(&there), *world.chance.pick(&up));
        let Some(member) = self.hosts[host].member() else { return };
        world.note(format_args!("{fault:?} for host {host}"));
        world.struck(fault);
        match fault {
            Fault::Kill => {
                let again = world.chance.millis(100, 20_000);
                world.after(again, Happening::Start(host));
                world.after(Duration::ZERO, Happening::Kill(host));
            }
            Fault::KillAtPoint => {
                let (point, times) = (*world.chance.pick(Point::ALL), world.chance.between(1, 5));
                world.trap = Some((point, times));
            }
            Fault::Stop => {
                let now = world.instant();
                self.hosts[host].stop(now);
            }
            Fault::Stall => {
                let wait = world.chance.millis(500, 60_000);
                world.after(wait, Happening::Thaw(host));
                if wait > SESSION {
                    world.after(SESSION, Happening::Expired(member));
                }
                self.hosts[host].frozen = true;
            }
            Fault::Swap => self.hosts[host].order(world, host),
            Fault::Pause => {
                let wait = world.chance.millis(100, 10_000);
                world.after(wait, Happening::Resume(host));
                self.hosts[host].pause();
            }
            Fault::Rebalance => world.rebalance(),
            Fault::Lost => world.expire(member),
            Fault::Forget => world.forget(member),
            Fault::QueueError => world.disturb_queue(),
            Fault::Problem => world.problem(member),
            Fault::ProduceFatal => {
                let code = Code::RD_KAFKA_RESP_ERR__FATAL;
                world.members[member].troubles.push(Trouble { code, text: "by script".to_owned(), fatal: true });
                world.wake(member);
            }
            _ => world.members[member].panics_next = true,
        }
    }

    fn heal(&mut self) {
        let world = &mut *self.world.borrow_mut();
        world.note(format_args!("peace"));
        world.healed = true;
        world.trap = None;
        for host in 0..self.hosts.len() {
            world.after(Duration::from_millis(1), Happening::Start(host));
            world.after(Duration::ZERO, Happening::Thaw(host));
            world.after(Duration::ZERO, Happening::Resume(host));
        }
    }
}
