//! Where a lane's effects go. The loop implements it over producers; tests implement it over vectors.

use std::time::Duration;

use crate::delivery::batcher::Trigger;
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::Ticket;

/// Place of a declared output in the pipeline's list.
pub type OutputNumber = usize;

/// Why a record failed for good, or for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `retry`, `reject`, or the name of a fault class.
    pub class: &'static str,
    /// For people.
    pub reason: String,
}

/// A record that goes to the dead-letter topic: the source record, whatever stage failed.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetter<'a> {
    /// Key, value and headers unchanged; `timestamp` is the original one.
    pub record: Outgoing<'a>,
    /// Its offset.
    pub offset: i64,
    /// Why.
    pub failure: &'a Failure,
    /// Attempts of the stage that gave up.
    pub attempts: u32,
    /// The stage: `message` or the batcher's name.
    pub stage: &'a str,
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
    /// The lane stops: no broker takes a record that it made.
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
    /// Counts and says.
    fn notice(&mut self, notice: Notice<'_>);
}
