//! Source records read again, by script: after a while, and some are gone.

use sluicebox_frames::{Frame, Headers, MessagesWriter, NewMessage, Source, TimestampType};

use super::effects::What;
use super::knobs::Fault;
use super::world::{Happening, Shared};
use crate::delivery::ticket::LaneId;
use crate::pipeline::port::{Found, Reread};

/// A host's way to records that it has forgotten.
pub(super) struct ScriptedRereader {
    pub(super) world: Shared,
    pub(super) member: usize,
}

impl Reread for ScriptedRereader {
    fn ask(&mut self, lane: LaneId, _topic: &str, _partition: i32, offsets: Vec<i64>) {
        let world = &mut *self.world.borrow_mut();
        let ownership = world.members[self.member].lanes[lane as usize];
        let slow = world.strikes(Fault::SourceSlow, 2);
        let wait = if slow { world.chance.millis(1_000, 30_000) } else { world.chance.millis(5, 1_000) };
        let member = self.member;
        world.note(format_args!("member {member} reads {offsets:?} again for lane {lane}"));
        world.after(wait, Happening::Found { member, lane, ownership, offsets });
    }

    fn answered(&mut self) -> Option<Found> {
        let world = &mut *self.world.borrow_mut();
        let (lane, ownership, offsets) = world.members[self.member].found.pop_front()?;
        let input = world.ledger.ownerships[ownership].input;
        let (topic, partition) = (world.ledger.inputs[input].topic.clone(), world.ledger.inputs[input].partition);
        let source = Source { topic: &topic, partition: partition.unsigned_abs() };
        let (mut frame, mut value) = (Frame::default(), Vec::new());
        let mut burst = MessagesWriter::burst(&mut frame, source, 0, false);
        for offset in &offsets {
            let plan = world.plan(input, *offset);
            if plan.gone {
                world.struck(Fault::SourceGone);
                world.ledger.gone(ownership, *offset);
                continue;
            }
            What::Source { offset: *offset }.write(&mut value);
            value.resize(value.len().max(world.knobs.value_bytes), 0);
            let key = [plan.key];
            let message = NewMessage {
                offset: *offset,
                timestamp: 5,
                timestamp_type: TimestampType::CreateTime,
                key: (plan.key > 0).then_some(&key[..]),
                value: Some(&value),
                attempt: 1,
                source: 0,
            };
            burst.push(&message, Headers::default());
        }
        let any = burst.count() > 0;
        burst.finish();
        let frame = if any { frame } else { Frame::default() };
        Some(Found { lane, frame, offsets })
    }
}
