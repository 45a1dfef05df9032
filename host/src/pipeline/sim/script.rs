//! What handlers do: with each record what its plan says, as a guest behind frames would; and what they keep in mind between
//! calls.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicebox_frames::{AnswerWriter, Content, DestinationKind, Frame, Messages, NewEmission};

use super::effects::What;
use super::knobs::{Batches, Fault, Stage};
use super::ledger::Said;
use super::world::World;
use crate::delivery::policy::Then;
use crate::delivery::verdict::{Disposition, Verdict};
use crate::pipeline::lane::{Call, CallKind, Reply};
use crate::pipeline::port::Renewed;
use crate::pipeline::sink::Failure;

/// A call that takes longer ends in a fault.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// The memory of one instance.
#[derive(Debug, Default)]
pub(super) struct Instance {
    /// It had a call.
    started: bool,
    /// It was told of its partition.
    greeted: bool,
    /// And that it goes.
    left: bool,
    /// Nothing below it comes any more.
    floor: Option<i64>,
    held: BTreeMap<u64, Holding>,
}

/// A message that is held.
#[derive(Clone, Copy, Debug)]
struct Holding {
    offset: i64,
    stage: usize,
    attempt: u32,
}

/// How a call ends: with what, after how long, and what it means for each record once the host takes it.
pub(super) struct Handled {
    pub(super) reply: Reply,
    pub(super) took: Duration,
    pub(super) said: Vec<(i64, Said)>,
}

pub(super) fn fault(class: &'static str) -> Handled {
    let reply = Reply::Fault(Failure { class, reason: "by script".to_owned() });
    Handled { reply, took: Duration::ZERO, said: Vec::new() }
}

/// How a stage ends for one message.
enum End {
    Good,
    Retry(Option<u64>),
    Reject,
    Hold,
    Trap,
    Stuck,
    Bad(u32),
}

impl Stage {
    /// How it ends now; faults are counted.
    fn end(&self, attempt: u32, world: &mut World) -> End {
        let end = if world.healed { End::Good } else { self.planned(attempt) };
        let fault = match end {
            End::Good => None,
            End::Retry(_) => Some(Fault::Retry),
            End::Reject => Some(Fault::Reject),
            End::Hold => Some(Fault::Hold),
            End::Trap => Some(Fault::Trap),
            End::Stuck => Some(Fault::StuckRecord),
            End::Bad(_) => Some(Fault::BadAnswer),
        };
        let slow = self.slow.filter(|_| !world.healed).map(|_| Fault::SlowHandler);
        fault.into_iter().chain(slow).for_each(|fault| world.struck(fault));
        end
    }

    fn planned(&self, attempt: u32) -> End {
        let failures = self.traps + self.bad + self.retries;
        match attempt {
            _ if self.stuck => End::Stuck,
            n if n <= self.traps => End::Trap,
            n if n <= self.traps + self.bad => End::Bad(n),
            n if n <= failures => End::Retry((n % 3 == 0).then_some(70)),
            n if n <= failures + self.holds => End::Hold,
            _ if self.rejects => End::Reject,
            _ => End::Good,
        }
    }
}

/// An answer that breaks a rule.
fn bad_answer(kind: u32, messages: usize) -> Frame {
    let mut answer = AnswerWriter::new();
    match kind % 4 {
        // Nothing answered.
        0 => {}
        // More than was asked.
        1 => (0..=messages).for_each(|_| answer.done(0)),
        // A name that nobody declared.
        2 => {
            let destination = Some(answer.destination(DestinationKind::Output, "nobody"));
            answer.emission(&NewEmission { destination, ..NewEmission::default() });
            answer.done(1);
        }
        // A broken layout.
        _ => return Frame { index: vec![9; 30], payload: vec![] },
    }
    answer.finish()
}

/// An answer that is being written.
struct Answering {
    writer: AnswerWriter,
    said: Vec<(i64, Said)>,
    took: Duration,
    outcomes: usize,
    /// The outcome where the host stops reading.
    cut: Option<usize>,
    /// Held messages whose turn it is, until an outcome has carried their emissions.
    releases: Vec<(u64, Holding, bool)>,
    carried: bool,
    holds: Vec<(u64, Holding)>,
}

impl Answering {
    fn new(world: &mut World, ownership: usize) -> Self {
        let (healed, chance) = (world.healed, &mut world.chance);
        let held = world.instances.entry(ownership).or_default().held.iter();
        let mut releases = Vec::new();
        for (token, holding) in held {
            match chance.below(10) {
                _ if healed => releases.push((*token, *holding, true)),
                0..5 => releases.push((*token, *holding, true)),
                5 => releases.push((*token, *holding, false)),
                _ => {}
            }
        }
        Self {
            writer: AnswerWriter::new(),
            said: Vec::new(),
            took: Duration::ZERO,
            outcomes: 0,
            cut: None,
            releases,
            carried: false,
            holds: Vec::new(),
        }
    }

    /// Says something of a record, unless the host has stopped reading before.
    fn say(&mut self, offset: i64, said: Said) {
        if self.cut.is_none() {
            self.said.push((offset, said));
        }
    }

    fn stop_here(&mut self) {
        self.cut.get_or_insert(self.outcomes);
    }

    fn emit(&mut self, output: &str, what: &What, inherits: bool) {
        let mut value = Vec::new();
        what.write(&mut value);
        let destination = Some(self.writer.destination(DestinationKind::Output, output));
        let key = if inherits { Content::Inherit } else { Content::Null };
        let value = Content::Bytes(&value);
        self.writer.emission(&NewEmission { destination, key, value, ..NewEmission::default() });
    }

    /// Emits what held messages come to; how many emissions that is.
    fn carry(&mut self) -> u32 {
        if std::mem::replace(&mut self.carried, true) {
            return 0;
        }
        let acked: Vec<Holding> = self.releases.iter().filter(|(_, _, acks)| *acks).map(|(_, h, _)| *h).collect();
        for Holding { offset, stage, .. } in &acked {
            self.emit("out", &What::Late { offset: *offset, stage: *stage as u8 }, false);
        }
        acked.len() as u32
    }

    /// Held messages that it acks.
    fn acked(&self) -> Vec<i64> {
        self.releases.iter().filter(|(_, _, acks)| *acks).map(|(_, holding, _)| holding.offset).collect()
    }

    /// The answer, and what it does to the instance.
    fn finish(mut self, instance: &mut Instance) -> Handled {
        // What runs on past an outcome that is not final acks nothing.
        let whole = self.cut.is_none_or(|at| at + 1 == self.outcomes);
        for (token, holding, acks) in if self.carried { std::mem::take(&mut self.releases) } else { Vec::new() } {
            let Holding { offset, stage, attempt } = holding;
            if acks {
                self.writer.ack(token);
            } else {
                self.writer.fail(token, "by script");
            }
            if whole {
                self.said.push((offset, if acks { Said::Acked { stage } } else { Said::Failed { stage, attempt } }));
            }
            instance.held.remove(&token);
        }
        for (token, holding) in self.holds {
            instance.held.retain(|_, other| (other.offset, other.stage) != (holding.offset, holding.stage));
            instance.held.insert(token, holding);
        }
        Handled { reply: Reply::Answer(self.writer.finish()), took: self.took, said: self.said }
    }
}

impl World {
    /// An instance is gone, with what it knew.
    pub(super) fn forget_instance(&mut self, ownership: usize) {
        let left = self.instances.remove(&ownership).is_some_and(|instance| instance.left);
        self.instances.insert(ownership, Instance { left, ..Instance::default() });
    }

    /// The instance that a call is for does not start.
    pub(super) fn does_not_start(&mut self, ownership: usize) -> bool {
        if self.instances.entry(ownership).or_default().started {
            return false;
        }
        let fails = self.strikes(Fault::NoStart, 4);
        self.instances.entry(ownership).or_default().started = !fails;
        fails
    }

    /// The instance answered, and was old.
    pub(super) fn renews(&mut self, ownership: usize, reply: &Reply) -> Option<Renewed> {
        if matches!(reply, Reply::Fault(_)) || !self.strikes(Fault::Recycled, 20) {
            return None;
        }
        let restored = self.chance.one_in(2);
        let old = self.instances.remove(&ownership).unwrap_or_default();
        let held = if restored { old.held } else { BTreeMap::new() };
        self.instances.insert(ownership, Instance { started: restored, left: old.left, held, ..Instance::default() });
        Some(if restored { Renewed::Restored } else { Renewed::Fresh })
    }

    /// An instance of another version takes the place of the one that there is. Back to an older version goes only what was
    /// taken back, and what a canary could not do.
    pub(super) fn switch_instance(&mut self, ownership: usize, to: u64, restored: bool) -> Result<(), String> {
        let old = self.instances.remove(&ownership).unwrap_or_default();
        if old.left {
            return Err("another version after `partition-revoked`".to_owned());
        }
        if restored && !old.held.is_empty() {
            self.saw("held messages went over to another version");
        }
        let held = if restored { old.held } else { BTreeMap::new() };
        self.instances.insert(ownership, Instance { started: true, left: old.left, held, ..Instance::default() });
        let before = std::mem::replace(&mut self.ledger.ownerships[ownership].version, to);
        // An order that takes the place of one under way goes back behind both.
        let host = self.ordered.get(&before);
        let taken_back = self.taken_back.range(before..).any(|order| self.ordered.get(order) == host);
        match to < before && !taken_back && !self.canaries.contains(&before) {
            true => Err(format!("version {before} was replaced by {to}, though nobody took it back")),
            false => Ok(()),
        }
    }

    /// The instance knows that its partition came, and does not know yet that it goes.
    fn check_manners(&mut self, ownership: usize, call: &Call) {
        if !self.knobs.partitions {
            return;
        }
        let Instance { greeted, left, .. } = self.instances.entry(ownership).or_default();
        let rule = match call.kind {
            _ if *left => Err(format!("{:?} after `partition-revoked`", call.kind)),
            CallKind::Assigned { .. } if *greeted => Err("`partition-assigned` twice".to_owned()),
            CallKind::Assigned { .. } => Ok(()),
            _ if !*greeted => Err(format!("{:?} before `partition-assigned`", call.kind)),
            _ => Ok(()),
        };
        self.check(rule);
    }
}

/// What the instance of this ownership makes of a call.
pub(super) fn handle(world: &mut World, ownership: usize, call: &Call) -> Handled {
    world.check_manners(ownership, call);
    let input = world.ledger.ownerships[ownership].input;
    let messages = || Messages::new(&call.frame);
    let handled = match &call.kind {
        CallKind::Messages => {
            let floor = world.instances.entry(ownership).or_default().floor;
            let first = messages().get(0).offset();
            if floor.is_some_and(|floor| first < floor) {
                world.check(Err(format!("{first} comes after `partition-assigned` said {floor:?}")));
            }
            handle_messages(world, ownership, input, &messages())
        }
        CallKind::Batch => handle_batch(world, ownership, input, &messages()),
        CallKind::Tick => handle_tick(world, ownership, true),
        CallKind::Assigned { next_offset, .. } => {
            let handled = unasked(world);
            if handled.is_none() {
                let instance = world.instances.entry(ownership).or_default();
                (instance.greeted, instance.floor) = (true, *next_offset);
            }
            handled.unwrap_or_else(|| Handled {
                reply: Reply::Answer(AnswerWriter::new().finish()),
                took: Duration::ZERO,
                said: Vec::new(),
            })
        }
        CallKind::Revoked { .. } => {
            world.instances.entry(ownership).or_default().left = true;
            handle_tick(world, ownership, false)
        }
        CallKind::Failed { .. } => handle_failed(world, input, &messages()),
        CallKind::Switch => unreachable!("a switch is handed over by itself"),
    };
    if matches!(handled.reply, Reply::Fault(_)) {
        world.forget_instance(ownership);
    }
    handled
}

/// A call that no message asks for fails.
fn unasked(world: &mut World) -> Option<Handled> {
    if !world.strikes(Fault::CallTrap, 5) {
        return None;
    }
    let kind = world.chance.between(0, 3) as u32;
    // No outcome at all is what these calls want.
    let reply = if kind == 0 { fault("trap").reply } else { Reply::Answer(bad_answer(kind, 0)) };
    Some(Handled { reply, took: Duration::ZERO, said: Vec::new() })
}

fn handle_messages(world: &mut World, ownership: usize, input: usize, messages: &Messages<'_>) -> Handled {
    let mut answer = Answering::new(world, ownership);
    // A canary's answers always stop there.
    let stops_at_reject = messages.stop_at_reject();
    if world.knobs.stops_at_reject() && !stops_at_reject {
        world.check(Err("the frame does not say when to stop".to_owned()));
    }
    let alone = |offset, attempt| match messages.len() {
        1 => vec![(offset, Said::Failed { stage: 0, attempt })],
        _ => Vec::new(),
    };
    for message in messages.iter() {
        let (offset, attempt) = (message.offset(), message.attempt());
        let plan = world.plan(input, offset);
        if !world.healed {
            answer.took += plan.message.slow.unwrap_or_default();
        }
        let took = answer.took;
        match plan.message.end(attempt, world) {
            End::Trap => return Handled { took, said: alone(offset, attempt), ..fault("trap") },
            End::Stuck => return Handled { took: DEADLINE, said: alone(offset, attempt), ..fault("deadline") },
            End::Bad(kind) => {
                let reply = Reply::Answer(bad_answer(kind, messages.len()));
                return Handled { reply, took, said: alone(offset, attempt) };
            }
            End::Retry(after) => {
                answer.say(offset, Said::Failed { stage: 0, attempt });
                answer.stop_here();
                answer.writer.retry("by script", after);
            }
            End::Reject => {
                answer.say(offset, Said::Rejected);
                if stops_at_reject {
                    answer.stop_here();
                }
                answer.writer.reject("by script");
            }
            End::Hold => {
                answer.say(offset, Said::Held { stage: 0, attempt });
                if answer.cut.is_none() {
                    answer.holds.push((message.token(), Holding { offset, stage: 0, attempt }));
                }
                answer.writer.hold();
            }
            End::Good => {
                answer.say(offset, Said::Done);
                for number in 0..plan.emits {
                    answer.emit("out", &What::Out { offset, number }, true);
                }
                let batched = plan.item.is_some();
                if batched {
                    let destination = Some(answer.writer.destination(DestinationKind::Batcher, "default"));
                    let (batch_key, flush) = (&[plan.key][..], plan.flush);
                    answer.writer.emission(&NewEmission { destination, batch_key, flush, ..NewEmission::default() });
                }
                let carried = if answer.cut.is_none() { answer.carry() } else { 0 };
                answer.writer.done(u32::from(plan.emits) + u32::from(batched) + carried);
            }
        }
        answer.outcomes += 1;
        if plan.stop_after || answer.cut.is_some() && !plan.runs_on {
            break;
        }
    }
    answer.finish(world.instances.entry(ownership).or_default())
}

fn handle_batch(world: &mut World, ownership: usize, input: usize, messages: &Messages<'_>) -> Handled {
    let mut answer = Answering::new(world, ownership);
    let mut done = Vec::new();
    let alone = |offset, attempt| match messages.len() {
        1 => vec![(offset, Said::Failed { stage: 1, attempt })],
        _ => Vec::new(),
    };
    for message in messages.iter() {
        let (offset, attempt) = (message.offset(), message.attempt());
        answer.outcomes += 1;
        if offset < 0 {
            // A tick made it.
            answer.writer.done(0);
            continue;
        }
        let item = world.plan(input, offset).item.expect("a message that goes to the batcher");
        if !world.healed {
            answer.took += item.slow.unwrap_or_default();
        }
        let took = answer.took;
        match item.end(attempt, world) {
            End::Trap => return Handled { took, said: alone(offset, attempt), ..fault("trap") },
            End::Stuck => return Handled { took: DEADLINE, said: alone(offset, attempt), ..fault("deadline") },
            End::Bad(kind) => {
                // No answer at all means that everything is done, in a batch.
                let bad = Reply::Answer(bad_answer(kind % 3 + 1, messages.len()));
                let reply = if kind % 5 == 4 { Reply::BatchError("by script".to_owned()) } else { bad };
                return Handled { reply, took, said: alone(offset, attempt) };
            }
            End::Retry(after) => {
                answer.say(offset, Said::Failed { stage: 1, attempt });
                answer.writer.retry("by script", after);
            }
            End::Reject => {
                answer.say(offset, Said::Rejected);
                answer.writer.reject("by script");
            }
            End::Hold => {
                answer.say(offset, Said::Held { stage: 1, attempt });
                answer.holds.push((message.token(), Holding { offset, stage: 1, attempt }));
                answer.writer.hold();
            }
            End::Good => {
                answer.say(offset, Said::Done);
                answer.emit("out", &What::Item { offset }, true);
                let carried = answer.carry();
                answer.writer.done(1 + carried);
                done.push(offset);
            }
        }
    }
    if world.knobs.totals {
        let acked = if answer.carried { answer.acked() } else { Vec::new() };
        answer.emit("totals", &What::Total { done, acked }, false);
    }
    answer.finish(world.instances.entry(ownership).or_default())
}

/// A tick, and the last call of all: time to let go of what is held.
fn handle_tick(world: &mut World, ownership: usize, batches: bool) -> Handled {
    if let Some(handled) = unasked(world) {
        return handled;
    }
    let mut answer = Answering::new(world, ownership);
    answer.carry();
    let acked = answer.acked();
    if world.chance.one_in(3) {
        answer.emit("totals", &What::Tick(acked), false);
    }
    if batches && world.knobs.batches != Batches::None && world.chance.one_in(3) {
        let mut value = Vec::new();
        What::Tick(Vec::new()).write(&mut value);
        let destination = Some(answer.writer.destination(DestinationKind::Batcher, "default"));
        let (key, value) = (Content::Null, Content::Bytes(&value));
        answer.writer.emission(&NewEmission { destination, key, value, ..NewEmission::default() });
    }
    answer.finish(world.instances.entry(ownership).or_default())
}

/// What becomes of a message that failed for good.
fn handle_failed(world: &mut World, input: usize, messages: &Messages<'_>) -> Handled {
    let offset = messages.get(0).offset();
    let plan = world.plan(input, offset);
    let said = |disposition| vec![(offset, Said::Decided(disposition))];
    if world.strikes(Fault::BadVerdict, 3) {
        if world.chance.one_in(2) {
            return Handled { said: said(Disposition::Policy), ..fault("trap") };
        }
        let (disposition, letter) = (Disposition::DeadLetter, false);
        let reply = Reply::Verdict(Verdict { disposition, letter, emissions: bad_answer(2, 1) });
        return Handled { reply, took: Duration::ZERO, said: said(Disposition::Policy) };
    }
    let disposition = if world.healed { Disposition::Policy } else { plan.verdict };
    let mut answer = AnswerWriter::new();
    let destination = Some(answer.destination(DestinationKind::Output, "out"));
    let letter = disposition == Disposition::DeadLetter && plan.verdict_emits;
    if letter {
        answer.emission(&NewEmission { destination, key: Content::Bytes(b"changed"), ..NewEmission::default() });
    }
    if plan.verdict_emits {
        let mut value = Vec::new();
        What::Failed { offset }.write(&mut value);
        answer.emission(&NewEmission { destination, value: Content::Bytes(&value), ..NewEmission::default() });
    }
    answer.done(u32::from(letter) + u32::from(plan.verdict_emits));
    let reply = Reply::Verdict(Verdict { disposition, letter, emissions: answer.finish() });
    // What cannot be had here breaks a rule, and the policy decides.
    let cannot = match disposition {
        Disposition::DeadLetter => world.knobs.then != Then::DeadLetter,
        Disposition::Block => world.knobs.receive,
        _ => false,
    };
    let disposition = if cannot { Disposition::Policy } else { disposition };
    Handled { reply, took: Duration::ZERO, said: said(disposition) }
}
