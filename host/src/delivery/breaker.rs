//! Is most of what a pipeline processes failing? Then it had better pause than send a whole topic the way of its failure
//! policy: the cause is more likely one that a person can take away (a table that is gone, a wrong version) than the
//! records.
//!
//! Counts *records*: one that is done, one that failed for good. An attempt that is tried again, and the steps by which a
//! culprit is found among its neighbours, are neither. Counts lie in slices of the window, so that memory is bounded and a
//! record is forgotten between one slice and none before the window is over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Slices of a window.
const SLICES: u32 = 60;
/// Of so many records after a pause it is concluded that the cause is still there.
const TRIAL: u64 = 10;
/// A pause does not grow beyond this, unless the window is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// When the breaker opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// When this many of a hundred records failed, 1 to 100.
    pub percent: u32,
    /// Of fewer records than this nothing is concluded.
    pub of_at_least: u64,
    /// Only records of this last stretch of time count. The first pause is as long.
    pub window: Duration,
}

/// See the module's text. One per pipeline.
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    slices: VecDeque<Slice>,
    total: Counts,
    phase: Phase,
    /// The next pause.
    pause: Duration,
}

/// What the pipeline may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything.
    Closed,
    /// Nothing new, until then.
    Open {
        /// The end of the pause.
        until: Instant,
    },
    /// One thing at a time: few failures are enough for another pause.
    Trial {
        /// The end of the pause before.
        since: Instant,
    },
}

/// The phase is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The pipeline pauses.
    Opened {
        /// What it saw.
        counts: Counts,
        /// For how long.
        pause: Duration,
    },
    /// The pause is over.
    Tries,
    /// All is well again.
    Closed,
}

/// Records of a stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Failed for good.
    pub failed: u64,
    /// Failed or done.
    pub all: u64,
}

#[derive(Debug)]
struct Slice {
    since: Instant,
    counts: Counts,
}

impl Breaker {
    /// A breaker that has seen nothing.
    #[must_use]
    pub fn new(rules: BreakerRules) -> Self {
        let pause = rules.window;
        Self { rules, slices: VecDeque::new(), total: Counts::default(), phase: Phase::Closed, pause }
    }

    /// So many more records met their fate.
    pub fn count(&mut self, now: Instant, done: u64, failed: u64) {
        self.forget(now);
        if done + failed == 0 {
            return;
        }
        let width = self.rules.window / SLICES;
        let slice = match self.slices.back_mut() {
            Some(slice) if now < slice.since + width => slice,
            _ => {
                self.slices.push_back(Slice { since: now, counts: Counts::default() });
                self.slices.back_mut().expect("one was pushed")
            }
        };
        for counts in [&mut slice.counts, &mut self.total] {
            counts.failed += failed;
            counts.all += done + failed;
        }
    }

    /// What counts now.
    pub fn counts(&mut self, now: Instant) -> Counts {
        self.forget(now);
        self.total
    }

    /// When it opens.
    #[must_use]
    pub const fn rules(&self) -> &BreakerRules {
        &self.rules
    }

    /// Somebody says that the cause is gone: a pause ends now.
    pub fn try_at(&mut self, now: Instant) {
        if let Phase::Open { until } = &mut self.phase {
            *until = (*until).min(now);
        }
    }

    /// What the pipeline may do.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Concludes from what was counted, and from the time.
    pub fn look(&mut self, now: Instant) -> Option<Change> {
        let (of_at_least, counts) = (self.rules.of_at_least.max(1), self.counts(now));
        match self.phase {
            Phase::Closed if self.fails(counts, of_at_least) => Some(self.open(now)),
            Phase::Open { until } if until <= now => {
                self.slices.clear();
                self.total = Counts::default();
                self.phase = Phase::Trial { since: now };
                Some(Change::Tries)
            }
            Phase::Trial { .. } if self.fails(counts, of_at_least.min(TRIAL)) => Some(self.open(now)),
            Phase::Trial { since } if counts.all >= of_at_least || since + self.rules.window <= now => {
                self.phase = Phase::Closed;
                self.pause = self.rules.window;
                Some(Change::Closed)
            }
            _ => None,
        }
    }

    /// So much fails, of at least so many.
    fn fails(&self, Counts { failed, all }: Counts, of_at_least: u64) -> bool {
        all >= of_at_least && u128::from(failed) * 100 >= u128::from(all) * u128::from(self.rules.percent)
    }

    fn open(&mut self, now: Instant) -> Change {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE.max(self.rules.window));
        self.phase = Phase::Open { until: now + pause };
        Change::Opened { counts: self.total, pause }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(slice) = self.slices.front().filter(|slice| slice.since + self.rules.window <= now) {
            self.total.failed -= slice.counts.failed;
            self.total.all -= slice.counts.all;
            self.slices.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(percent: u32, of_at_least: u64) -> BreakerRules {
        BreakerRules { percent, of_at_least, window: Duration::from_secs(60) }
    }

    proptest! {
        /// Against a model that keeps every record: what counts lies between the records of the window and those of the
        /// window less one slice; the verdict is the rule applied to what counts; memory is bounded.
        #[test]
        fn counts_the_records_of_the_window(
            percent in 1u32..=100,
            of_at_least in 0u64..30,
            window in 1u64..100_000,
            steps in prop::collection::vec((0u64..5_000, 0u64..20, 0u64..20), 1..200),
        ) {
            let window = Duration::from_millis(window);
            let mut breaker = Breaker::new(BreakerRules { percent, of_at_least, window });
            let mut now = Instant::now();
            let mut seen: Vec<(Instant, u64, u64)> = Vec::new();
            for (wait, done, failed) in steps {
                now += Duration::from_millis(wait);
                breaker.count(now, done, failed);
                seen.push((now, done, failed));
                let within = |age: Duration| {
                    let young = seen.iter().filter(|(at, ..)| now - *at < age);
                    young.fold(Counts::default(), |sum, (_, done, failed)| Counts {
                        failed: sum.failed + failed,
                        all: sum.all + done + failed,
                    })
                };
                let (least, most) = (within(window - window / SLICES), within(window));
                let counts = breaker.counts(now);
                prop_assert!((least.all..=most.all).contains(&counts.all), "{least:?} {counts:?} {most:?}");
                prop_assert!((least.failed..=most.failed).contains(&counts.failed), "{least:?} {counts:?} {most:?}");
                let enough = counts.all >= of_at_least.max(1);
                let fails = enough && counts.failed * 100 >= counts.all * u64::from(percent);
                prop_assert_eq!(breaker.fails(counts, of_at_least.max(1)), fails);
                prop_assert!(breaker.slices.len() <= SLICES as usize + 1);
            }
        }
    }

    fn opened(change: Option<Change>) -> Option<Duration> {
        match change {
            Some(Change::Opened { pause, .. }) => Some(pause),
            _ => None,
        }
    }

    #[test]
    fn opens_at_the_share_and_not_before() {
        let now = Instant::now();
        let mut breaker = Breaker::new(rules(50, 100));
        breaker.count(now, 50, 49);
        assert_eq!(breaker.look(now), None, "99 records are too few");
        breaker.count(now, 1, 0);
        assert_eq!(breaker.look(now), None, "49 of 100");
        breaker.count(now, 0, 2);
        let (counts, pause) = (Counts { failed: 51, all: 102 }, Duration::from_secs(60));
        assert_eq!(breaker.look(now), Some(Change::Opened { counts, pause }));
        assert_eq!((breaker.look(now), breaker.phase()), (None, Phase::Open { until: now + pause }));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Instant::now();
        let mut breaker = Breaker::new(rules(50, 10));
        breaker.count(start, 0, 100);
        let counts = breaker.counts(start + Duration::from_secs(59));
        assert!(breaker.fails(counts, 10));
        assert_eq!(breaker.look(start + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_topic_without_failures_never_opens_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(rules(1, 0));
        assert_eq!(breaker.look(now), None);
        breaker.count(now, 1_000_000, 0);
        assert_eq!(breaker.look(now), None);
    }

    /// While the cause is there, each trial costs a few records and the pauses grow to their limit.
    #[test]
    fn pauses_grow_while_trials_fail() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(rules(50, 100));
        breaker.count(now, 0, 100);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let pause = opened(breaker.look(now)).expect("so much fails");
            pauses.push(pause.as_secs());
            assert_eq!(breaker.look(now + pause - Duration::from_millis(1)), None);
            now += pause;
            assert_eq!(breaker.look(now), Some(Change::Tries));
            breaker.count(now, 0, TRIAL - 1);
            assert_eq!(breaker.look(now), None);
            breaker.count(now, 0, 1);
        }
        assert_eq!(pauses, [60, 120, 240, 480, 600, 600]);
    }

    /// After a trial that went well, or in which nothing came, it begins anew.
    #[test]
    fn a_good_trial_closes_it() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        for (done, later) in [(100, Duration::ZERO), (0, minute)] {
            let mut breaker = Breaker::new(rules(50, 100));
            breaker.count(start, 0, 100);
            let first = opened(breaker.look(start));
            let now = start + minute;
            assert_eq!(breaker.look(now), Some(Change::Tries));
            assert_eq!(breaker.look(now), None);
            breaker.count(now, done, 0);
            assert_eq!(breaker.look(now + later), Some(Change::Closed));
            breaker.count(now + later, 0, 200);
            assert_eq!(opened(breaker.look(now + later)), first, "the next pause is a first one");
        }
    }
}
