//! Handler threads by script: calls go to [`super::script`], and answers come back when the time has come.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use sluicebox_frames::Messages;

use super::group::Answer;
use super::knobs::Fault;
use super::ledger::Said;
use super::script::{DEADLINE, Handled, fault, handle};
use super::world::{Happening, Point, Shared, World};
use crate::delivery::ticket::LaneId;
use crate::delivery::verdict::Disposition;
use crate::pipeline::lane::{Call, CallKind, Reply, Switched};
use crate::pipeline::port::{self, Answered, Renewed};
use crate::pipeline::revision::{Build, Offered, Revision};
use crate::pipeline::sink::Failure;

/// A version of the handler. All do the same; what matters is which is called when.
#[derive(Clone, Debug)]
pub(super) struct ScriptedBuild {
    pub(super) digest: String,
    pub(super) offers: Offered,
}

impl Build for ScriptedBuild {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn offers(&self) -> Offered {
        self.offers
    }
}

/// A host's handlers.
pub(super) struct ScriptedHandlers {
    pub(super) world: Shared,
    pub(super) member: usize,
}

/// The way to one lane's instance.
pub(super) struct ScriptedHandle {
    world: Shared,
    member: usize,
    lane: LaneId,
    ownership: usize,
    /// What is prepared, from when on, and whether it starts.
    spare: Cell<Option<(u64, Duration, bool)>>,
}

impl port::Handlers for ScriptedHandlers {
    type Build = ScriptedBuild;
    type Handle = ScriptedHandle;

    fn open(&mut self, lane: LaneId, revision: &Arc<Revision<ScriptedBuild>>) -> ScriptedHandle {
        let world = &mut *self.world.borrow_mut();
        let ownership = world.opened(self.member, lane);
        world.ledger.ownerships[ownership].version = revision.number;
        let spare = Cell::default();
        ScriptedHandle { world: Shared::clone(&self.world), member: self.member, lane, ownership, spare }
    }

    fn prepare(&mut self, handle: &ScriptedHandle, _at: (&Arc<str>, i32), to: &Arc<Revision<ScriptedBuild>>) {
        let world = &mut *self.world.borrow_mut();
        let (member, lane) = (self.member, handle.lane);
        let starts = !world.strikes(Fault::SwapRefused, 6);
        let took = match world.strikes(Fault::SwapSlow, 3) {
            true => world.chance.millis(10, 4_000),
            false => world.chance.micros(50, 2_000),
        };
        world.note(format_args!("member {member} prepares {} for lane {lane}: {starts} in {took:?}", to.number));
        handle.spare.set(Some((to.number, world.now + took, starts)));
        world.after(took, Happening::Prepared(member));
    }

    fn prepared(&mut self, handle: &ScriptedHandle) -> Option<Result<(), Failure>> {
        let Some((number, from, starts)) = handle.spare.get() else { return Some(Ok(())) };
        let world = &mut *self.world.borrow_mut();
        if world.now < from {
            return None;
        }
        if starts {
            return Some(Ok(()));
        }
        handle.spare.take();
        world.taken_back.insert(number);
        Some(Err(Failure { class: "init", reason: "by script".to_owned() }))
    }

    fn give_up_prepared(&mut self, handle: &ScriptedHandle) {
        handle.spare.take();
    }

    fn switch(
        &mut self,
        handle: &ScriptedHandle,
        _at: (&Arc<str>, i32),
        to: &Arc<Revision<ScriptedBuild>>,
        must: bool,
    ) -> Result<(), String> {
        World::passes(&self.world, self.member, Point::BeforeHandler);
        {
            let world = &mut *self.world.borrow_mut();
            let (member, lane, ownership) = (self.member, handle.lane, handle.ownership);
            let rule = world.ledger.called(ownership, 0, &[]);
            world.check(rule);
            let spare = handle.spare.take().map(|(number, ..)| number);
            if spare.is_some_and(|number| number != to.number) {
                world.check(Err(format!("{spare:?} was prepared for a switch to {}", to.number)));
            }
            let took = match world.strikes(Fault::SwapSlow, 3) {
                true => world.chance.millis(10, 4_000),
                false if spare.is_some() && world.chance.one_in(2) => Duration::ZERO,
                false => world.chance.micros(50, 2_000),
            };
            let switched = match !must && world.strikes(Fault::SwapRefused, 4) {
                true => {
                    world.taken_back.insert(to.number);
                    // Of one that was prepared only a state can be refused.
                    let lost = world.chance.one_in(2);
                    if lost {
                        world.forget_instance(ownership);
                    }
                    let failure = Failure { class: "init", reason: "by script".to_owned() };
                    Switched::Refused { failure, lost }
                }
                false => {
                    let restored = world.chance.one_in(2);
                    let rule = world.switch_instance(ownership, to.number, restored);
                    world.check(rule);
                    Switched::Over { restored }
                }
            };
            world.note(format_args!("member {member} switches lane {lane} to {}: {switched:?} in {took:?}", to.number));
            let (frame, reply) = (sluicebox_frames::Frame::default(), Some(Reply::Switched(switched)));
            let answered = Box::new(Answered { lane, frame, reply, took, memory: 1 << 20, renewed: None });
            world.after(took, Happening::Answered { member, answered, said: Vec::new(), ownership });
        }
        World::passes(&self.world, self.member, Point::InHandler);
        Ok(())
    }

    fn show_partitions(&mut self, _output: usize, _partitions: u32) {}

    fn answered(&mut self) -> Option<Answered> {
        let answered = {
            let world = &mut *self.world.borrow_mut();
            let Answer { answered, said, ownership } = world.members[self.member].answers.pop_front()?;
            if world.ledger.ownerships[ownership].over {
                world.saw("an answer came after the partition was given back");
                let input = world.ledger.ownerships[ownership].input;
                if world.members[self.member].current.contains_key(&input) {
                    world.saw("the same member owned the partition again by then");
                }
            }
            for (offset, said) in said {
                world.ledger.answered(ownership, offset, said);
            }
            let (member, lane) = (self.member, answered.lane);
            world.note(format_args!("member {member} takes an answer to lane {lane}"));
            answered
        };
        World::passes(&self.world, self.member, Point::AfterHandler);
        Some(answered)
    }
}

impl ScriptedHandle {
    fn answer(
        &self,
        world: &mut World,
        call: Call,
        reply: Option<Reply>,
        took: Duration,
        said: Vec<(i64, Said)>,
        renewed: Option<Renewed>,
    ) {
        let (member, lane, ownership) = (self.member, self.lane, self.ownership);
        // A short call may be over before the loop goes on, which nobody has to be told then.
        let here = call.short.is_some() && reply.is_some() && renewed.is_none() && world.chance.one_in(2);
        let answered = Box::new(Answered { lane, frame: call.frame, reply, took, memory: 1 << 20, renewed });
        if here {
            mark!(CalledHere);
            world.members[member].answers.push_back(Answer { answered: *answered, said, ownership });
            return;
        }
        world.after(took, Happening::Answered { member, answered, said, ownership });
    }
}

impl port::Handle for ScriptedHandle {
    fn call(&self, call: Call) -> Result<(), String> {
        World::passes(&self.world, self.member, Point::BeforeHandler);
        {
            let world = &mut *self.world.borrow_mut();
            if world.does_not_start(self.ownership) {
                let failure = Failure { class: "init", reason: "by script".to_owned() };
                self.answer(world, call, Some(Reply::NotStarted(failure)), Duration::ZERO, Vec::new(), None);
                return Ok(());
            }
            let messages = matches!(call.kind, CallKind::Messages | CallKind::Batch | CallKind::Failed { .. });
            let (mut shown, mut count) = (Vec::new(), 0);
            if messages {
                let frame = Messages::check(&call.frame.index, &call.frame.payload).expect("the host's own frame");
                count = frame.len() as u32;
                shown.extend(frame.iter().filter(|m| m.offset() >= 0).map(|m| (m.offset(), m.attempt())));
            }
            let stage = usize::from(!matches!(call.kind, CallKind::Messages));
            let asked = matches!(call.kind, CallKind::Failed { .. });
            let rule = world.ledger.called(self.ownership, stage, if asked { &[] } else { &shown });
            world.check(rule);
            let mut handled = handle(world, self.ownership, &call);
            handled.took += world.knobs.per_message * count;
            if handled.took > DEADLINE {
                let alone = shown.first().filter(|_| count == 1);
                let said = alone.map(|(offset, attempt)| match asked {
                    true => (*offset, Said::Decided(Disposition::Policy)),
                    false => (*offset, Said::Failed { stage, attempt: *attempt }),
                });
                let said = said.into_iter().collect();
                handled = Handled { took: DEADLINE, said, ..fault("deadline") };
                world.forget_instance(self.ownership);
            }
            let Handled { reply, took, said } = handled;
            let (member, lane, kind) = (self.member, self.lane, &call.kind);
            let first = shown.first();
            world.note(format_args!(
                "member {member} calls lane {lane}: {kind:?}, {count} from {first:?}: {reply:?} in {took:?}"
            ));
            let panics = std::mem::take(&mut world.members[member].panics_next);
            let renewed = if panics { None } else { world.renews(self.ownership, &reply) };
            let (reply, said) = if panics { (None, Vec::new()) } else { (Some(reply), said) };
            self.answer(world, call, reply, took, said, renewed);
        }
        World::passes(&self.world, self.member, Point::InHandler);
        Ok(())
    }
}
