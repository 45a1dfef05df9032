//! The world around the hosts: time, the agenda of what is to happen, the trace. Hosts reach it through their edges
//! ([`super::group`], [`super::producer`], [`super::handlers`]); one thread, so it is borrowed for moments only.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Arguments, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::client::Queue;
use super::group::{Answer, Group, Member};
use super::knobs::{Fault, Knobs, Plan};
use super::ledger::{Broken, Input, Ledger, Said};
use super::script::Instance;
use crate::delivery::ticket::LaneId;
use crate::pipeline::port::{Answered, Code, TopicNumber};

pub(super) type Shared = Rc<RefCell<World>>;

/// Where a host is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    Polled,
    BeforeHandler,
    InHandler,
    AfterHandler,
    BeforeProduce,
    Produced,
    Reported,
    DeadLetterSent,
    DeadLetterReported,
    CommitSent,
    CommitAnswered,
    Assigned,
    Unassigned,
}

impl Point {
    pub(super) const ALL: &[Self] = &[
        Self::Polled,
        Self::BeforeHandler,
        Self::InHandler,
        Self::AfterHandler,
        Self::BeforeProduce,
        Self::Produced,
        Self::Reported,
        Self::DeadLetterSent,
        Self::DeadLetterReported,
        Self::CommitSent,
        Self::CommitAnswered,
        Self::Assigned,
        Self::Unassigned,
    ];
}

/// How a host ends that is killed in the middle of a step.
pub(super) struct Killed;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// Records are written to an input partition.
    Append(usize),
    /// The client of a member has fetched what there is.
    Fetched(usize),
    CommitArrives {
        member: usize,
        generation: u64,
        offsets: Vec<(usize, i64)>,
        answer: Duration,
        /// What the member is told, whatever came of it.
        told: Option<Code>,
    },
    CommitAnswered {
        member: usize,
        result: Code,
        offsets: Vec<(usize, i64, Code)>,
    },
    Landed {
        member: usize,
        place: (TopicNumber, u32),
    },
    Reported {
        member: usize,
        place: (TopicNumber, u32),
    },
    Answered {
        member: usize,
        answered: Box<Answered>,
        said: Vec<(i64, Said)>,
        ownership: usize,
    },
    /// An instance for a switch is there, or is not to be had.
    Prepared(usize),
    /// Records were read again for a lane.
    Found {
        member: usize,
        lane: LaneId,
        ownership: usize,
        offsets: Vec<i64>,
    },
    /// A question where partitions stand is answered.
    Placed {
        member: usize,
        number: u64,
        inputs: Vec<usize>,
    },
    Rebalance,
    Reconcile,
    /// The broker drops a member that it has not heard of.
    SessionOver(usize),
    /// The same of one whose process stands still.
    Expired(usize),
    /// A member hears that it was dropped.
    Lost(usize),
    Rejoin(usize),
    Closed(usize),
    WatchAnswers(usize),
    /// One more fault.
    Disrupt,
    Start(usize),
    Kill(usize),
    Thaw(usize),
    /// The operator promotes a canary, or takes it back.
    CanaryEnds {
        host: usize,
        number: u64,
        promoted: bool,
    },
    /// The operator ends a pause.
    Resume(usize),
    /// No more faults from here on.
    Heal,
}

/// What was seen, as a number and, when somebody reads along, as text.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) hash: u64,
    /// Who reads along.
    pub(super) aloud: Option<fn(&str)>,
    line: String,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct World {
    start: Instant,
    pub(super) now: Duration,
    pub(super) chance: Chance,
    pub(super) knobs: Knobs,
    agenda: BTreeMap<(Duration, u64), Happening>,
    serial: u64,
    pub(super) ledger: Ledger,
    /// Orders that were taken back, or whose version does not start.
    pub(super) taken_back: BTreeSet<u64>,
    /// Orders for some lanes only, which have not been promoted: what fails there goes back for another try.
    pub(super) canaries: BTreeSet<u64>,
    /// Which host each order was for.
    pub(super) ordered: BTreeMap<u64, usize>,
    /// The last order's number.
    pub(super) last_order: u64,
    /// Handlers' own memory, by ownership.
    pub(super) instances: BTreeMap<usize, Instance>,
    pub(super) group: Group,
    pub(super) members: Vec<Member>,
    pub(super) queues: Vec<Queue>,
    pub(super) healed: bool,
    /// Members that somebody wakes.
    pub(super) woken: Vec<usize>,
    /// Members that somebody tells something.
    pub(super) told: Vec<usize>,
    /// Members whose wake-up is lost.
    pub(super) unheard: Vec<usize>,
    pub(super) broken: Option<String>,
    pub(super) trace: Trace,
    /// The next member that passes this point so often is killed there.
    pub(super) trap: Option<(Point, u64)>,
    pub(super) seen: BTreeMap<String, u64>,
    /// How often each fault struck.
    pub(super) faults: BTreeMap<Fault, u64>,
}

impl World {
    pub(super) fn new(knobs: Knobs, seed: u64, start: Instant, aloud: Option<fn(&str)>) -> Self {
        let first = knobs.first_offset;
        let names = ["in", "more"];
        let input = |(name, count): (&str, &i32)| {
            (0..*count).map(|partition| Input::new(name.to_owned(), partition, first)).collect::<Vec<_>>()
        };
        let inputs: Vec<Input> = names.into_iter().zip(&knobs.topics).flat_map(input).collect();
        Self {
            start,
            now: Duration::ZERO,
            chance: Chance::new(seed),
            agenda: BTreeMap::new(),
            serial: 0,
            group: Group::new(inputs.len(), knobs.eager),
            ledger: Ledger::new(inputs, knobs.clone()),
            taken_back: BTreeSet::new(),
            canaries: BTreeSet::new(),
            ordered: BTreeMap::new(),
            last_order: 0,
            instances: BTreeMap::new(),
            knobs,
            members: Vec::new(),
            queues: Vec::new(),
            healed: false,
            woken: Vec::new(),
            told: Vec::new(),
            unheard: Vec::new(),
            broken: None,
            trace: Trace { hash: 0xcbf2_9ce4_8422_2325, aloud, line: String::new() },
            trap: None,
            seen: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + self.now
    }

    pub(super) fn after(&mut self, wait: Duration, what: Happening) {
        self.serial += 1;
        self.agenda.insert((self.now + wait, self.serial), what);
    }

    pub(super) fn next_time(&self) -> Option<Duration> {
        self.agenda.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<Happening> {
        let ((at, _), what) = self.agenda.pop_first()?;
        self.go_to(at);
        Some(what)
    }

    pub(super) fn go_to(&mut self, at: Duration) {
        self.now = self.now.max(at);
        self.ledger.now = self.now;
    }

    /// There is this fault, still, and chance wants it now.
    pub(super) fn strikes(&mut self, fault: Fault, one_in: u64) -> bool {
        let strikes = !self.healed && self.knobs.has(fault) && self.chance.one_in(one_in);
        if strikes {
            self.struck(fault);
        }
        strikes
    }

    /// Counts a fault that happened.
    pub(super) fn struck(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn plan(&self, input: usize, offset: i64) -> Plan {
        let mut plan = self.knobs.plan(input, offset);
        plan.refused &= !self.healed;
        plan.letter_refused &= !self.healed;
        plan
    }

    pub(super) fn note(&mut self, what: Arguments<'_>) {
        let line = &mut self.trace.line;
        line.clear();
        _ = write!(line, "{:>12.6} {what}", self.now.as_secs_f64());
        for byte in line.bytes() {
            self.trace.hash = (self.trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(aloud) = self.trace.aloud {
            aloud(line);
        }
    }

    /// Counts something that a good set of seeds has to have.
    pub(super) fn saw(&mut self, what: &str) {
        match self.seen.get_mut(what) {
            Some(count) => *count += 1,
            None => _ = self.seen.insert(what.to_owned(), 1),
        }
    }

    /// A rule was looked at.
    pub(super) fn check(&mut self, rule: Broken) {
        if let Err(broken) = rule {
            self.note(format_args!("BROKEN {broken}"));
            self.broken.get_or_insert(broken);
        }
    }

    pub(super) fn wake(&mut self, member: usize) {
        let lost = self.strikes(Fault::LostWake, 20);
        if lost { self.unheard.push(member) } else { self.woken.push(member) }
    }

    /// There is something that is nothing to be woken for, for one that dozes.
    pub(super) fn tell(&mut self, member: usize) {
        let lost = self.strikes(Fault::LostWake, 20);
        if lost { self.unheard.push(member) } else { self.told.push(member) }
    }

    /// A member passes a point where it may be killed.
    pub(super) fn passes(world: &Shared, member: usize, point: Point) {
        let mut this = world.borrow_mut();
        let Some((at, left)) = &mut this.trap else { return };
        if *at != point {
            return;
        }
        *left -= 1;
        if *left == 0 {
            this.trap = None;
            this.saw(&format!("killed at {point:?}"));
            this.note(format_args!("member {member} is killed at {point:?}"));
            drop(this);
            std::panic::resume_unwind(Box::new(Killed));
        }
    }

    /// A loop that rests may be asked what it left, if nobody woke it in its last turn. Not always: looking again might do what
    /// would otherwise be late.
    pub(super) fn lets_look_again(&mut self, member: usize) -> bool {
        let heard = [&self.woken, &self.told, &self.unheard].iter().any(|members| members.contains(&member));
        !heard && self.chance.one_in(2)
    }

    /// Writes some records, and what is no record, to an input partition.
    pub(super) fn append(&mut self, at: usize) {
        if self.healed && !self.ledger.inputs[at].records.is_empty() {
            return;
        }
        let gaps = self.knobs.has(Fault::Gaps);
        let count = self.chance.time(Duration::from_nanos(1), Duration::from_nanos(60)).as_nanos();
        for _ in 0..count {
            let before = if gaps && self.chance.one_in(10) { self.chance.between(1, 5) as i64 } else { 0 };
            if before > 0 {
                self.struck(Fault::Gaps);
            }
            let input = &mut self.ledger.inputs[at];
            input.end += before;
            input.records.push(input.end);
            input.end += 1;
        }
        if gaps && self.chance.one_in(2) {
            self.ledger.inputs[at].end += self.chance.between(1, 3) as i64;
        }
        let Input { end, records, .. } = &self.ledger.inputs[at];
        let (end, count) = (*end, records.len());
        self.note(format_args!("input {at} ends at {end}"));
        self.announce(at);
        if !self.healed && count < self.knobs.records {
            let wait = self.knobs.pace * 2;
            let wait = self.chance.time(wait / 1_000, wait);
            self.after(wait, Happening::Append(at));
        }
    }

    /// Something happens that is no host's own doing.
    pub(super) fn happen(&mut self, what: Happening) {
        match what {
            Happening::Append(input) => self.append(input),
            Happening::Fetched(queue) => self.fetched(queue),
            Happening::CommitArrives { member, generation, offsets, answer, told } => {
                self.commit_arrives(member, generation, offsets, answer, told);
            }
            Happening::CommitAnswered { member, result, offsets } => self.commit_answered(member, result, &offsets),
            Happening::Landed { member, place } => self.landed(member, place),
            Happening::Reported { member, place } => self.reported(member, place),
            Happening::Answered { member, answered, said, ownership } => {
                if self.members[member].alive {
                    self.members[member].answers.push_back(Answer { answered: *answered, said, ownership });
                    self.wake(member);
                }
            }
            Happening::Prepared(member) => self.wake(member),
            Happening::Found { member, lane, ownership, offsets } => {
                self.members[member].found.push_back((lane, ownership, offsets));
                self.wake(member);
            }
            Happening::Placed { member, number, inputs } => self.placed(member, number, &inputs),
            Happening::Rebalance => self.rebalance(),
            Happening::Reconcile => self.reconcile(),
            Happening::SessionOver(member) => self.session_over(member),
            Happening::Expired(member) => self.expire(member),
            Happening::Lost(member) => self.lost(member),
            Happening::Rejoin(member) => self.rejoin(member),
            Happening::Closed(member) => self.closed(member),
            Happening::WatchAnswers(member) => {
                self.members[member].watching = false;
                self.members[member].watch_answered = true;
                self.wake(member);
            }
            Happening::Start(_)
            | Happening::Kill(_)
            | Happening::Thaw(_)
            | Happening::CanaryEnds { .. }
            | Happening::Resume(_)
            | Happening::Disrupt
            | Happening::Heal => unreachable!("the story's own"),
        }
    }
}
