//! What the instances of one pipeline used, all together: counters for metrics, and how much they may still write into the
//! log. Written from handler threads, read by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::HandlerLimits;

/// Bytes that a word about dropped lines takes.
const NOTICE: i64 = 100;

/// Why an instance was replaced though it worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worn {
    /// It had lived for long.
    Age,
    /// It had been called often.
    Calls,
    /// It held much memory.
    Memory,
}

impl Worn {
    /// All of them, with their names in metrics.
    pub const ALL: [(Self, &'static str); 3] = [(Self::Age, "age"), (Self::Calls, "calls"), (Self::Memory, "memory")];
}

/// See the module's text. Outlives instances, runs and versions.
#[derive(Debug, Default)]
pub struct Usage {
    running: AtomicU64,
    lines: AtomicU64,
    dropped_lines: AtomicU64,
    recycled: [AtomicU64; Worn::ALL.len()],
    log: Mutex<Option<Bucket>>,
    /// By [`Asked`].
    asked: [AtomicU64; 3],
}

/// Bytes that may still be written. The pipeline's, not an instance's: a handler that breaks at every message would have a
/// full one each time. Full when it is asked first.
#[derive(Debug)]
struct Bucket {
    bytes: i64,
    filled: Instant,
    dropped: u64,
}

impl Bucket {
    fn fill(&mut self, rate: u64, burst: i64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_micros();
        let gained = i64::try_from(elapsed * u128::from(rate) / 1_000_000).unwrap_or(burst);
        // Only whole bytes are taken from the clock, so that many small steps fill as much as a large one.
        if gained > 0 {
            self.bytes = burst.min(self.bytes.saturating_add(gained));
            self.filled = now;
        }
    }
}

/// What became of an outbound request.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// The head of an answer came.
    Ok,
    /// It may not be sent, or not to where it leads.
    Refused,
    /// Anything else.
    Failed,
}

impl Usage {
    /// CPU time inside handlers, and on their behalf in host functions.
    #[must_use]
    pub fn running(&self) -> Duration {
        Duration::from_nanos(self.running.load(Ordering::Relaxed))
    }

    /// Lines that went to the log.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Lines that were over the rate.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines.load(Ordering::Relaxed)
    }

    /// Instances that were replaced for this reason.
    #[must_use]
    pub fn recycled_for(&self, reason: Worn) -> u64 {
        self.recycled[reason as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn recycled(&self, reason: Worn) {
        self.recycled[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Outbound requests: answered, refused, failed.
    #[must_use]
    pub fn asked(&self) -> [u64; 3] {
        [0, 1, 2].map(|result| self.asked[result].load(Ordering::Relaxed))
    }

    pub(crate) fn has_asked(&self, result: Asked) {
        self.asked[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ran(&self, nanos: u64) {
        self.running.fetch_add(nanos, Ordering::Relaxed);
    }

    /// A line of so many bytes is to be written. `None`: it is dropped; else how many were dropped since the last word about
    /// that.
    pub(crate) fn may_write(&self, bytes: usize, limits: &HandlerLimits, now: Instant) -> Option<u64> {
        self.with_bucket(limits, now, |bucket| {
            // An empty line costs a byte: nothing is free, or there is no limit.
            let cost = i64::try_from(bytes.max(1)).unwrap_or(i64::MAX);
            let notice = if bucket.dropped > 0 { NOTICE } else { 0 };
            if bucket.bytes < cost.saturating_add(notice) {
                bucket.dropped += 1;
                self.dropped_lines.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            bucket.bytes -= cost + notice;
            self.lines.fetch_add(1, Ordering::Relaxed);
            Some(std::mem::take(&mut bucket.dropped))
        })
    }

    /// How many lines were dropped since the last word about that, if there were any and it may be said now.
    pub(crate) fn dropped_since(&self, limits: &HandlerLimits, now: Instant) -> Option<u64> {
        self.with_bucket(limits, now, |bucket| {
            if bucket.dropped == 0 || bucket.bytes < 0 {
                return None;
            }
            bucket.bytes -= NOTICE;
            Some(std::mem::take(&mut bucket.dropped))
        })
    }

    fn with_bucket<T>(&self, limits: &HandlerLimits, now: Instant, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let burst = i64::try_from(limits.log_burst).unwrap_or(i64::MAX);
        let bucket = &mut *self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = bucket.get_or_insert(Bucket { bytes: burst, filled: now, dropped: 0 });
        bucket.fill(limits.log_rate, burst, now);
        act(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> HandlerLimits {
        HandlerLimits { log_rate: 1000, log_burst: 5000, ..HandlerLimits::default() }
    }

    #[test]
    fn bursts_and_rates_up_to_the_limit_and_beyond() {
        let (limits, usage, now) = (limits(), Usage::default(), Instant::now());
        assert_eq!(usage.may_write(5001, &limits, now), None, "more than the burst");
        assert_eq!(usage.dropped_since(&limits, now), Some(1));
        let later = now + Duration::from_millis(100);
        assert_eq!(usage.may_write(4999, &limits, later), Some(0));
        assert_eq!(usage.may_write(1, &limits, later), Some(0), "exactly the burst");
        assert_eq!(usage.may_write(0, &limits, later), None);
        // A second gives a thousand, of which the word about the dropped one takes its part.
        let later = later + Duration::from_secs(1);
        assert_eq!(usage.may_write(901, &limits, later), None);
        assert_eq!(usage.may_write(900, &limits, later), Some(2));
        assert_eq!((usage.lines(), usage.dropped_lines()), (3, 3));
    }

    /// Proves: however many instances come and go, what is said of dropped lines keeps the rate.
    #[test]
    fn words_about_dropped_lines_are_bounded() {
        let (limits, usage, now) = (limits(), Usage::default(), Instant::now());
        assert_eq!(usage.may_write(5000, &limits, now), Some(0));
        let said = (0..1000).filter(|_| {
            assert_eq!(usage.may_write(1, &limits, now), None);
            usage.dropped_since(&limits, now).is_some()
        });
        assert_eq!(said.count(), 1);
        assert_eq!(usage.dropped_since(&limits, now + Duration::from_secs(1)), Some(999));
    }
}
