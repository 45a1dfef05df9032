//! What the checker found, and the line that sums it up.

use std::collections::BTreeMap;
use std::fmt;

use super::{Mode, Rules};

/// Findings of one sort that are told one by one; the rest is counted.
const TOLD: usize = 12;

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// The run says nothing: its input is not what its producers say.
    Void,
    /// A record below the commit without one of its outcomes. At most once: without a crash that would have cost it.
    Lost,
    /// Exactly once: an output is visible without its commit.
    Torn,
    /// Something came twice that must not have.
    Doubled,
    /// A record's outcome came before one that has to come earlier.
    Gap,
    /// An output that no record asks for, or not the way it is.
    Corrupt,
    /// A commit went back, so somebody committed who was no owner any more.
    StaleCommit,
    /// A commit was written before the outcomes that it is about; at most once, after one of them.
    EarlyCommit,
    /// A commit stands where it cannot, or not at the end.
    Misplaced,
    /// A transaction was left open, or a member stayed.
    Hanging,
}

/// How long, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recovery {
    pub median: f64,
    pub p99: f64,
    pub longest: f64,
}

#[derive(Clone, Debug)]
pub struct Verdict {
    mode: &'static str,
    found: BTreeMap<Sort, (u64, Vec<String>)>,
    pub records: u64,
    /// Records of the input that their producer sent more than once.
    pub sent_again: u64,
    pub crashes: usize,
    /// Outcomes beyond the first of each.
    pub repeated: u64,
    /// The most that came after one crash and before the next.
    pub repeated_by_one: u64,
    /// At most once: outcomes that never came of records that were on their way at a crash.
    pub given_up: u64,
    /// The most that one crash cost.
    pub given_up_by_one: u64,
    pub recovery: Recovery,
}

impl Verdict {
    pub fn new(rules: &Rules) -> Verdict {
        Verdict {
            mode: rules.mode.name(),
            found: BTreeMap::new(),
            records: 0,
            sent_again: 0,
            crashes: rules.crashes.len(),
            repeated: 0,
            repeated_by_one: 0,
            given_up: 0,
            given_up_by_one: 0,
            recovery: Recovery::default(),
        }
    }

    pub fn find(&mut self, sort: Sort, what: impl FnOnce() -> String) {
        let (count, told) = self.found.entry(sort).or_default();
        *count += 1;
        if told.len() < TOLD {
            told.push(what());
        }
    }

    pub fn count(&self, sort: Sort) -> u64 {
        self.found.get(&sort).map_or(0, |(count, _)| *count)
    }

    pub fn is_good(&self) -> bool {
        self.found.is_empty()
    }

    /// The findings, a line each.
    pub fn findings(&self) -> String {
        let mut text = String::new();
        for (sort, (count, told)) in &self.found {
            for one in told {
                text.push_str(&format!("{sort:?}: {one}\n"));
            }
            if *count > told.len() as u64 {
                text.push_str(&format!("{sort:?}: {} more\n", count - told.len() as u64));
            }
        }
        text
    }
}

/// The report line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |sort| self.count(sort);
        write!(f, "{}, records {} (sent again {})", self.mode, self.records, self.sent_again)?;
        write!(f, ", crashes {}, lost {}", self.crashes, count(Sort::Lost))?;
        if count(Sort::Lost) == 0 && self.crashes > 0 {
            // None in N bounds the share per crash at 3/N with 95 % confidence.
            write!(f, " (below {:.2} per crash at 95 %)", 3.0 / self.crashes as f64)?;
        }
        if self.mode == Mode::AtMostOnce.name() {
            write!(f, ", given up {} (max per crash {})", self.given_up, self.given_up_by_one)?;
        }
        write!(
            f,
            ", torn {}, dup {} (max per crash {}), doubled {}, gaps {}, corrupt {}, stale commits accepted {}, early \
             commits {}, misplaced {}, hanging {}, void {}, recovery p50/p99/max {:.1}/{:.1}/{:.1} s",
            count(Sort::Torn),
            self.repeated,
            self.repeated_by_one,
            count(Sort::Doubled),
            count(Sort::Gap),
            count(Sort::Corrupt),
            count(Sort::StaleCommit),
            count(Sort::EarlyCommit),
            count(Sort::Misplaced),
            count(Sort::Hanging),
            count(Sort::Void),
            self.recovery.median,
            self.recovery.p99,
            self.recovery.longest,
        )
    }
}
