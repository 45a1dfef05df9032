//! Where a lane's effects go. The loop implements it over producers; tests implement it over vectors.

use std::time::Duration;

use crate::delivery::batcher::Trigger;
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::Ticket;

/// Place of a declared output in the pipeline's list.
pub type OutputNumber = usize;

/// Class of a failure that is a broker's refusal.
pub const REFUSED: &str = "refused";

/// Why a record failed for good, or for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `retry`, `reject`, or the name of a fault class.
    pub class: &'static str,
    /// For people.
    pub reason: String,
}

impl Failure {
    /// A broker's word, not the handler's: it will never take what was made of the record.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.class == REFUSED
    }

    /// With the record and the attempt that it is about.
    #[must_use]
    pub fn at(&self, offset: i64, attempt: u32) -> String {
        format!("{}: {} (offset {offset}, attempt {attempt})", self.class, self.reason)
    }
}

/// A record that goes to the dead-letter topic: the source record, whatever stage failed.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Key, value and headers unchanged; `timestamp` is the original one.
    pub record: Outgoing<'a>,
    /// Its offset; none when a tick made it.
    pub offset: Option<i64>,
    /// Why.
    pub failure: &'a Failure,
    /// Attempts of the stage that gave up.
    pub attempts: u32,
    /// The stage: `message`, `produce` or the batcher's name.
    pub stage: &'a str,
    /// Digest of the version that failed.
    pub version: &'a str,
}

/// Things worth counting and saying. Never more than one per failed record or per batch.
#[derive(Debug)]
pub enum Notice<'a> {
    /// One message failed an attempt and is tried again.
    Retrying {
        /// Its offset.
        offset: i64,
        /// Which attempt failed.
        attempt: u32,
        /// Why.
        failure: &'a Failure,
        /// How long the lane waits.
        wait: Duration,
    },
    /// The lane does not go on past this message.
    Blocked {
        /// Its offset.
        offset: i64,
        /// Which attempt failed.
        attempt: u32,
        /// Why.
        failure: &'a Failure,
        /// True when it is news (not one more failed try).
        first: bool,
        /// When it tries again.
        wait: Duration,
    },
    /// A record is given up, by policy `drop`.
    Dropped {
        /// Its offset.
        offset: i64,
        /// Attempts that it had.
        attempts: u32,
        /// Why.
        failure: &'a Failure,
    },
    /// The pipeline stops at this record, by policy `stop`.
    Stopped {
        /// Its offset.
        offset: i64,
        /// Attempts that it had.
        attempts: u32,
        /// Why.
        failure: &'a Failure,
    },
    /// A call that no message asks for failed (tick, partition-assigned, partition-revoked).
    CallFailed {
        /// Which.
        what: &'static str,
        /// Which attempt failed.
        attempt: u32,
        /// Why.
        failure: &'a Failure,
        /// The lane does not go on from here, and that is news.
        blocks: bool,
        /// When it tries again.
        wait: Duration,
    },
    /// Acks or fails of messages that are not held any more. They changed nothing.
    LateAcks {
        /// How many.
        count: u64,
    },
    /// A record whose emission was refused is not in its topic any more, so that it has no dead letter.
    SourceGone {
        /// Its offset.
        offset: i64,
        /// Why its emission was refused.
        failure: &'a Failure,
    },
    /// The broker will never take a record that was made of this one, which follows the failure policy now.
    Refused {
        /// Offset of the message that it was made of, or of the oldest one of the batch.
        offset: i64,
        /// Topic and reason.
        reason: &'a str,
    },
    /// The lane goes on.
    Unblocked {
        /// The offset it stood at.
        offset: i64,
    },
    /// An answer that broke a rule. What becomes of its messages is said by another notice.
    BadAnswer {
        /// What it broke.
        failure: &'a Failure,
    },
    /// A fault in a call for several messages; it is narrowed down.
    Isolating {
        /// Messages of the call.
        messages: usize,
        /// What happened.
        failure: &'a Failure,
    },
    /// A batch is handed to the handler.
    BatchClosed {
        /// Place of the batcher.
        batcher: usize,
        /// Why it closed.
        trigger: Trigger,
        /// Messages in it.
        messages: usize,
    },
}

/// See the module's text.
pub trait Sink {
    /// Partitions of an output's topic, at least 1.
    fn partitions(&self, output: OutputNumber) -> u32;
    /// Produces a record; a report for the ticket comes later.
    fn emit(&mut self, output: OutputNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket);
    /// Produces a dead letter; a report for the ticket comes later.
    fn dead_letter(&mut self, letter: &DeadLetter<'_>, ticket: Ticket);
    /// Produces a dead letter again that was refused, as it was.
    fn dead_letter_again(&mut self, partition: u32, record: &Outgoing<'_>, ticket: Ticket);
    /// Counts and says.
    fn notice(&mut self, notice: Notice<'_>);
}
