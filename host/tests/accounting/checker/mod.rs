//! The accounting: what a group made of its input, judged from nothing but what the broker holds.
//!
//! The input topic is the truth. Every record in it carries who sent it and as which, every output carries which record it
//! is of, so that a loss, a repeat, a change of order, a forgery and a commit that came too soon are each seen and named.
//!
//! | file | knows |
//! |---|---|
//! | `transcript` | the records, commits and ends of a run, and the text that the reader writes of them |
//! | `reader` | how the transcript is had: by Kafka's own client (`tests/kafka/Transcript.java`), never by ours |
//! | `oracle` | what the handler of `tests/guests/accounted` has to make of a record |
//! | `tally` | the input and all its outcomes that are expected, to be counted; what is wrong with the input itself |
//! | `count` | lost, given up, doubled, torn, forged |
//! | `order` | gaps in the order of each output |
//! | `commits` | commits that fall, come too soon, or stand where they cannot |
//! | `recovery` | how long partitions stood still after a crash, and what a crash repeated |
//! | `verdict` | the findings, and the one line that sums them up |
//!
//! Everything but `reader` is pure.
#![allow(dead_code, reason = "each test target uses its own part")]

pub mod commits;
pub mod count;
pub mod oracle;
pub mod order;
pub mod reader;
pub mod recovery;
pub mod tally;
pub mod transcript;
pub mod verdict;

use std::collections::BTreeSet;

use tally::Tally;
use transcript::Transcript;
use verdict::Verdict;

/// What was promised.
#[allow(clippy::enum_variant_names, reason = "the words that everybody has for it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every record at least once.
    AtLeastOnce,
    /// Every record once, its output visible together with its commit.
    ExactlyOnce,
    /// By choice (`[ack] mode = "receive"`): committed before the handler sees it; a crash gives up what was on its way.
    AtMostOnce,
}

impl Mode {
    /// As the report names it.
    pub fn name(self) -> &'static str {
        match self {
            Mode::AtLeastOnce => "at-least-once",
            Mode::ExactlyOnce => "exactly-once",
            Mode::AtMostOnce => "at-most-once",
        }
    }
}

/// A moment at which something died or stood still, by the machine's clock, milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    pub at: i64,
    /// For people.
    pub what: String,
}

/// A record that a producer was told is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub partition: i32,
    /// `None` where it was told so by the answer to a repeat, which names no place.
    pub offset: Option<i64>,
    pub producer: u32,
    pub seq: u64,
}

/// What the checker has to know of a run beside its transcript.
#[derive(Clone, Debug)]
pub struct Rules {
    pub mode: Mode,
    /// The header `run` of every input record.
    pub run: String,
    /// Digests of the components that ran.
    pub versions: BTreeSet<String>,
    /// Partitions of each output topic.
    pub output_partitions: i32,
    /// In order of time. Without any, nothing may come twice.
    pub crashes: Vec<Crash>,
    pub ledger: Vec<Acknowledged>,
}

/// Judges a run that is over.
pub fn judge(transcript: &Transcript, rules: &Rules) -> Verdict {
    let mut verdict = Verdict::new(rules);
    let mut tally = Tally::of(transcript, rules, &mut verdict);
    count::outputs(transcript, rules, &mut tally, &mut verdict);
    order::gaps(transcript, rules, &tally, &mut verdict);
    commits::places(transcript, &mut verdict);
    commits::history(transcript, rules, &tally, &mut verdict);
    count::outcomes(transcript, rules, &tally, &mut verdict);
    recovery::measure(&tally, rules, &mut verdict);
    verdict
}
