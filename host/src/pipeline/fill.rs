//! Takes messages of a partition into its lane, up to one that is not the expected one.

use std::sync::Arc;
use std::time::Instant;

use super::lane::Fetched;
use super::outlets::Outlets;
use super::place::Jump;
use super::port::{Code, Edges, Group, Queue};
use super::run::Slot;
use crate::delivery::burst::MAX_BYTES;
use crate::delivery::offset_tracker::PositionReset;
use crate::delivery::position::{self, Next};

/// What was fetched for a lane.
pub(super) struct Fill {
    pub(super) fetched: Fetched,
    /// Something else than the expected message is next.
    pub(super) jump: Option<Jump>,
    /// librdkafka reports an error of the partition.
    pub(super) trouble: Option<(Code, String)>,
}

/// Lets a lane take messages in, so many at most, up to one that is not the expected one: that is looked at when it is the first of all.
pub(super) fn fill<E: Edges>(
    slot: &mut Slot<E>,
    group: &E::Group,
    outlets: &mut Outlets<E::Producer>,
    most: usize,
    now: Instant,
) -> Result<Fill, String> {
    let limit = slot.lane.burst_limit().min(most);
    let (topic, partition) = (Arc::clone(&slot.lane.topic), slot.lane.partition);
    let mut expected = slot.lane.next_offset();
    let queue = &mut slot.queue;
    let filled = slot.lane.fill(now, outlets, |burst, offer| {
        let filled = queue.fill(burst, limit, MAX_BYTES, |offset| {
            if let Some(expected) = expected.filter(|expected| *expected != offset) {
                let next = position::next(expected, offset, group.log_start(&topic, partition));
                if next != Next::InOrder {
                    return Err(Break::Jump(Jump { expected, came: offset, next }));
                }
            }
            expected = Some(offset + 1);
            offer(offset).map_err(Break::Reset)
        });
        match filled {
            Ok(filled) => Ok((None, filled.problem)),
            Err(Break::Jump(jump)) => Ok((Some(jump), None)),
            Err(Break::Reset(reset)) => Err(reset),
        }
    });
    let (fetched, (jump, trouble)) = filled.map_err(|reset| format!("{}: {reset}", slot.name()))?;
    let jump = jump.filter(|_| fetched.messages == 0);
    Ok(Fill { fetched, jump, trouble })
}

/// Why no more messages are taken in.
enum Break {
    Jump(Jump),
    Reset(PositionReset),
}
