//! Does a partition stand still that has something to do? Says so once it has for a while, and again as time passes; what
//! keeps it is for others to find out, here are the words.

use std::time::{Duration, Instant};

/// How long a partition may stand still before it is named.
pub const STALL: Duration = Duration::from_secs(60);

/// What keeps a partition. The names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The failure policy: it does not go past a record.
    Blocked,
    /// A message waits for its next attempt.
    Retry,
    /// A call to the handler is under way.
    Handler,
    /// The handler holds the oldest record.
    Held,
    /// A record is read again for its dead letter.
    Source,
    /// Brokers have not acknowledged what was made of the records.
    Delivery,
    /// Records wait in a batch that is not full.
    Batch,
    /// Too many bytes are in flight.
    Memory,
    /// No more messages are taken in than a configured rate.
    Rate,
    /// Nothing comes from the broker.
    Broker,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Blocked,
        Self::Retry,
        Self::Handler,
        Self::Held,
        Self::Source,
        Self::Delivery,
        Self::Batch,
        Self::Memory,
        Self::Rate,
        Self::Broker,
    ];

    /// The name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Retry => "retry",
            Self::Handler => "handler",
            Self::Held => "held",
            Self::Source => "source",
            Self::Delivery => "delivery",
            Self::Batch => "batch",
            Self::Memory => "memory",
            Self::Rate => "rate",
            Self::Broker => "broker",
        }
    }
}

/// Of one lane.
#[derive(Clone, Debug, Default)]
pub struct Stall {
    /// While it has something to do: the last progress that was seen, and when it was seen first.
    mark: Option<(i64, Instant)>,
    said: u32,
}

/// What [`Stall::look`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Still {
    /// For how long.
    pub time: Duration,
    /// True when it is worth a line in the log: after one time, two, four, … the limit.
    pub news: bool,
}

impl Stall {
    /// Of a lane that was not looked at.
    #[must_use]
    pub const fn new() -> Self {
        Self { mark: None, said: 0 }
    }

    /// `progress` is anything that is another number when the partition gets on; `behind`: it has something to do.
    pub fn look(&mut self, now: Instant, progress: i64, behind: bool) -> Option<Still> {
        let since = match self.mark {
            Some((mark, since)) if mark == progress && behind => since,
            _ => {
                *self = Self { mark: behind.then_some((progress, now)), said: 0 };
                return None;
            }
        };
        let time = now.saturating_duration_since(since);
        if time < STALL {
            return None;
        }
        let news = time >= STALL * (1 << self.said.min(20));
        while time >= STALL * (1 << self.said.min(20)) && self.said <= 20 {
            self.said += 1;
        }
        Some(Still { time, news })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model that keeps every look: it stands still exactly when progress was the same, and it was behind, at
        /// every look since one at least the limit ago; and news get rarer.
        #[test]
        fn is_said_when_nothing_moved_for_the_limit(
            steps in prop::collection::vec((0u64..40, 0i64..2, prop::bool::weighted(0.8), prop::bool::weighted(0.1)), 1..200)
        ) {
            let mut stall = Stall::default();
            let mut now = Instant::now();
            let mut progress = 0;
            let mut since: Option<Instant> = None;
            let mut news = 0u32;
            for (wait, step, behind, moves) in steps {
                now += Duration::from_secs(wait);
                let moved = moves && step > 0;
                progress += i64::from(moved);
                if moved || !behind {
                    (since, news) = (None, 0);
                }
                let time = if behind { now - *since.get_or_insert(now) } else { Duration::ZERO };
                let found = stall.look(now, progress, behind);
                prop_assert_eq!(found.map(|still| still.time), (time >= STALL).then_some(time));
                if found.is_some_and(|still| still.news) {
                    prop_assert!(time >= STALL * (1 << news.min(20)));
                    news += 1;
                }
            }
        }
    }

    #[test]
    fn an_idle_partition_is_no_stalled_one() {
        let mut stall = Stall::default();
        let start = Instant::now();
        for minute in 0..10 {
            assert_eq!(stall.look(start + STALL * minute, 5, false), None);
        }
        assert_eq!(stall.look(start + STALL * 10, 5, true), None, "its time begins with the first record to do");
    }

    #[test]
    fn it_is_said_after_one_two_and_four_times_the_limit() {
        let mut stall = Stall::default();
        let start = Instant::now();
        let news = (0..9).filter(|minute| stall.look(start + STALL * *minute, 5, true).is_some_and(|still| still.news));
        assert_eq!(news.collect::<Vec<_>>(), [1, 2, 4, 8]);
    }
}
