//! Is a canary worse than what it is to replace? Compares what the two did side by side, in the same time.

use std::time::Duration;

/// How much worse a canary may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolloutRules {
    /// Messages of which nothing is concluded yet.
    pub of_at_least: u64,
    /// By so many of a hundred messages more may fail than on the old version.
    pub failed: u32,
    /// So many times as long as the old version's may its calls take per message, at the 99th percentile.
    pub slower: u32,
}

/// Below this nobody calls a call slow, however fast the old version is.
const FAST: Duration = Duration::from_millis(1);

/// What a version did while both served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Calls with messages that ended without a fault: those whose time counts.
    pub calls: u64,
    /// Messages that calls decided, or failed at. A message that is tried again counts again; a call that failed as a whole
    /// counts as one.
    pub messages: u64,
    /// Of these, how many failed an attempt; and calls without messages (timer, greeting) that did.
    pub failed: u64,
    /// Calls on which everything else waits and which keep failing: the greeting of a partition, the start of an instance; and
    /// the timer.
    pub stuck: u64,
    /// All but one of a hundred calls took at most so long per message.
    pub p99: Duration,
}

impl Served {
    /// Failed ones of a hundred messages.
    #[must_use]
    pub fn failed_percent(&self) -> f64 {
        if self.messages == 0 { 0.0 } else { self.failed.min(self.messages) as f64 * 100.0 / self.messages as f64 }
    }
}

/// In what a canary is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Worse {
    /// More of its messages fail.
    Fails {
        /// Of a hundred, on the old version and on the new one.
        percent: (f64, f64),
    },
    /// Calls without messages keep failing, after which nothing else may come.
    Stuck,
    /// Its calls take longer.
    Slower {
        /// Per message, of the old version and of the new one.
        p99: (Duration, Duration),
    },
}

impl std::fmt::Display for Worse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fails { percent: (old, new) } => {
                write!(f, "{new:.1} % of its messages fail, of the old version's {old:.1} %")
            }
            Self::Stuck => f.write_str(
                "a call that is not about messages (its start, its timer, the greeting of a partition) keeps failing, on the \
                 old version none does",
            ),
            Self::Slower { p99: (old, new) } => {
                write!(f, "it takes {new:.1?} for a message (99th percentile), the old version {old:.1?}")
            }
        }
    }
}

/// Compares the two. `None`: the canary is not worse, or too little is known.
#[must_use]
pub fn worse(old: &Served, new: &Served, rules: &RolloutRules) -> Option<Worse> {
    // Messages may never come to it then.
    if new.stuck > 0 && old.stuck == 0 {
        return Some(Worse::Stuck);
    }
    if new.messages < rules.of_at_least {
        return None;
    }
    let percent = (old.failed_percent(), new.failed_percent());
    if percent.1 > percent.0 + f64::from(rules.failed) {
        return Some(Worse::Fails { percent });
    }
    let p99 = (old.p99, new.p99);
    // Without the old version's figures there is nothing to compare with.
    let slower = old.calls > 0 && new.p99 > FAST && new.p99 > old.p99.saturating_mul(rules.slower);
    slower.then_some(Worse::Slower { p99 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RolloutRules = RolloutRules { of_at_least: 100, failed: 5, slower: 3 };

    fn served(messages: u64, failed: u64, p99: u64) -> Served {
        Served { calls: messages, messages, failed, stuck: 0, p99: Duration::from_micros(p99) }
    }

    #[test]
    fn a_canary_that_fails_more_is_worse() {
        let old = served(1_000, 10, 50);
        assert_eq!(worse(&old, &served(99, 99, 50), &RULES), None, "too few to tell");
        assert_eq!(worse(&old, &served(100, 6, 50), &RULES), None, "at the limit");
        assert_eq!(worse(&old, &served(100, 7, 50), &RULES), Some(Worse::Fails { percent: (1.0, 7.0) }));
        // What fails on both is not the canary's.
        assert_eq!(worse(&served(1_000, 900, 50), &served(100, 92, 50), &RULES), None);
        // Attempts at few messages may be many.
        assert_eq!(worse(&served(10, 90, 50), &served(100, 100, 50), &RULES), None);
        assert!(worse(&Served::default(), &served(100, 6, 50), &RULES).is_some(), "nothing failed elsewhere");
    }

    #[test]
    fn a_canary_that_messages_never_come_to_is_worse() {
        let new = Served { stuck: 1, ..Served::default() };
        assert_eq!(worse(&served(1_000, 0, 50), &new, &RULES), Some(Worse::Stuck));
        let old = Served { stuck: 1, ..served(1_000, 0, 50) };
        assert_eq!(worse(&old, &new, &RULES), None, "what keeps failing on both is not the canary's");
    }

    #[test]
    fn a_canary_that_is_slower_is_worse() {
        let old = served(1_000, 0, 500);
        assert_eq!(worse(&old, &served(100, 0, 1_500), &RULES), None, "at the limit");
        let p99 = (Duration::from_micros(500), Duration::from_micros(1_501));
        assert_eq!(worse(&old, &served(100, 0, 1_501), &RULES), Some(Worse::Slower { p99 }));
        assert_eq!(worse(&served(1_000, 0, 10), &served(100, 0, 900), &RULES), None, "fast enough for anybody");
        assert_eq!(worse(&Served::default(), &served(100, 0, 9_000), &RULES), None, "nothing to compare with");
    }
}
