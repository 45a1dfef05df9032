//! What a handler is told of a message that failed for good and what it says of it (`wit/failures.wit`), and why a partition
//! is given back (`wit/partitions.wit`). Types only: what follows is the lane's to decide.

use sluicebox_frames::Frame;

/// A failed message, as `handle-failed` is told of it.
#[derive(Clone, Copy, Debug)]
pub struct FailedMessage<'a> {
    /// A burst or batch frame whose first message it is.
    pub frame: &'a Frame,
    /// `message`, or the batcher's name.
    pub stage: &'a str,
    /// What kind of failure.
    pub class: &'a str,
    /// For people.
    pub reason: &'a str,
    /// Attempts it had at that stage.
    pub attempts: u32,
}

/// What becomes of a failed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// What the pipeline's configuration says.
    Policy,
    /// To the dead-letter topic.
    DeadLetter,
    /// Nothing.
    Drop,
    /// The partition stays at it.
    Block,
    /// The pipeline stops.
    Stop,
}

/// What a handler says of one failed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub disposition: Disposition,
    /// The first emission of `emissions` is none: its key, value and headers are those of the dead letter, where `inherit`
    /// means the source record's; its destination means nothing. Only with [`Disposition::DeadLetter`]; false there when the
    /// dead letter is the record as it was.
    pub letter: bool,
    /// An answer frame with one outcome, done, that all emissions belong to. To be checked as any answer, but for
    /// batchers, to which none of them goes.
    pub emissions: Frame,
}

/// Why a partition is given back in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    /// The group assigns it to another member.
    Revoked,
    /// The host is shutting down.
    Shutdown,
    /// The pipeline begins anew in this host.
    Restart,
}
