//! Bugs that are planted on purpose, to see whether the simulation finds them: the real ones of systems like this. In tests
//! only, one thread at a time.

use std::cell::Cell;
use std::sync::Arc;

use crate::delivery::ticket::Ticket;
use crate::pipeline::port::Edges;
use crate::pipeline::run::Slot;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// What was fetched is committed, finished or not.
    CommitHighestSeen,
    /// A late report of an earlier owner counts for the owner of now.
    NoEpochCheck,
    /// A dead letter counts as durable when it is written, not when it is reported.
    AckBeforeDeadLetter,
    /// Every rebalance empties the buffers of partitions that are kept.
    ClearBuffersOnAssign,
    /// A held message is settled by its ack, whatever becomes of what was emitted for it.
    AckBeforeEffects,
    /// What gathered for a partition is sent though it was given back.
    SendAfterRelease,
    /// Mode `receive`: messages are shown to the handler before their commit was answered.
    OfferBeforeCommit,
    /// A group that refuses every commit is not joined anew.
    StayForgotten,
    /// A loop rests though lanes have something to do.
    RestTooSoon,
}

impl Bug {
    pub(crate) const ALL: [Self; 9] = [
        Self::CommitHighestSeen,
        Self::NoEpochCheck,
        Self::AckBeforeDeadLetter,
        Self::ClearBuffersOnAssign,
        Self::AckBeforeEffects,
        Self::SendAfterRelease,
        Self::OfferBeforeCommit,
        Self::StayForgotten,
        Self::RestTooSoon,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug on this thread, or takes it away.
pub(super) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// True when this bug is planted here.
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// The ticket itself, or, with [`Bug::NoEpochCheck`], one for whoever has the lane's partition now. `former`: the partitions
/// of all lanes that there were.
pub(in crate::pipeline) fn to_the_owner_of_now<E: Edges>(
    ticket: Ticket,
    lanes: &[Option<Box<Slot<E>>>],
    former: &[(Arc<str>, i32)],
) -> Ticket {
    let Some((topic, partition)) = former.get(ticket.lane as usize).filter(|_| planted(Bug::NoEpochCheck)) else {
        return ticket;
    };
    let now = lanes.iter().flatten().find(|slot| slot.lane.topic == *topic && slot.lane.partition == *partition);
    Ticket { lane: now.map_or(ticket.lane, |slot| slot.lane.id), ..ticket }
}
