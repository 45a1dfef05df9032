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

/// When the breaker opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// When this many of a hundred records failed, 1 to 100.
    pub percent: u32,
    /// Of fewer records than this nothing is concluded.
    pub of_at_least: u64,
    /// Only records of this last stretch of time count.
    pub window: Duration,
}

/// See the module's text. One per pipeline.
#[derive(Debug)]
pub struct Breaker {
    rules: BreakerRules,
    slices: VecDeque<Slice>,
    total: Counts,
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
        Self { rules, slices: VecDeque::new(), total: Counts::default() }
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

    /// True when so much fails that the pipeline should pause.
    pub fn is_open(&mut self, now: Instant) -> bool {
        let Counts { failed, all } = self.counts(now);
        all >= self.rules.of_at_least.max(1)
            && u128::from(failed) * 100 >= u128::from(all) * u128::from(self.rules.percent)
    }

    /// Begins anew: whoever resumes a pipeline says that the cause is gone.
    pub fn reset(&mut self) {
        self.slices.clear();
        self.total = Counts::default();
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
        #![proptest_config(ProptestConfig::with_cases(2_000))]
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
                let open = enough && counts.failed * 100 >= counts.all * u64::from(percent);
                prop_assert_eq!(breaker.is_open(now), open);
                prop_assert!(breaker.slices.len() <= SLICES as usize + 1);
            }
        }
    }

    #[test]
    fn opens_at_the_share_and_not_before() {
        let now = Instant::now();
        let mut breaker = Breaker::new(rules(50, 100));
        breaker.count(now, 50, 49);
        assert!(!breaker.is_open(now), "99 records are too few");
        breaker.count(now, 1, 0);
        assert!(!breaker.is_open(now), "49 of 100");
        breaker.count(now, 0, 2);
        assert!(breaker.is_open(now), "51 of 102");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let start = Instant::now();
        let mut breaker = Breaker::new(rules(50, 10));
        breaker.count(start, 0, 100);
        assert!(breaker.is_open(start + Duration::from_secs(59)));
        assert!(!breaker.is_open(start + Duration::from_secs(60)));
    }

    #[test]
    fn a_topic_without_failures_never_opens_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(rules(1, 0));
        assert!(!breaker.is_open(now));
        breaker.count(now, 1_000_000, 0);
        assert!(!breaker.is_open(now));
    }

    #[test]
    fn a_reset_forgets() {
        let now = Instant::now();
        let mut breaker = Breaker::new(rules(50, 1));
        breaker.count(now, 0, 9);
        breaker.reset();
        assert!(!breaker.is_open(now));
    }
}
