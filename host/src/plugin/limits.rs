//! What one instance may use: memory, tables, running time. Counts and refuses; what a refusal is called is said in
//! `fault`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use super::runtime::Pulse;
pub use crate::config::HandlerLimits;

/// Handles to host resources (streams, pollables) that an instance may hold.
pub(super) const HANDLES: usize = 10_000;
/// Elements of all tables of an instance together; interpreters need some 8,000.
const TABLE_ELEMENTS: usize = 100_000;
/// Core memories, tables and instances in one component instance. Interpreters are composed of up to 40 modules.
const MEMORIES: usize = 8;
const TABLES: usize = 64;
const INSTANCES: usize = 64;

/// A guest wanted more memory (or table elements) than it may have.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct MemoryRefused {
    text: String,
}

/// Sums what all memories and tables of a store hold and refuses growth past the limit.
///
/// A refusal is an error and not the `-1` that the guest could look at: nearly every allocator turns that into an
/// abort without a word, and the error carries the backtrace of who asked.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limit: u64,
    memory: u64,
    elements: usize,
    /// Growth that we allowed and that failed all the same: past the memory's own maximum, or the system has none.
    failed: bool,
}

impl MemoryLimiter {
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, memory: 0, elements: 0, failed: false }
    }

    /// Bytes of all memories.
    pub(super) const fn memory(&self) -> u64 {
        self.memory
    }

    /// True when a `memory.grow` gave the guest nothing; an abort right after is about memory.
    pub(super) const fn growth_failed(&self) -> bool {
        self.failed
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.failed = true;
            return Ok(false);
        }
        let total = self.memory + desired.saturating_sub(current) as u64;
        if total > self.limit {
            let text = format!(
                "the handler asked for {total} bytes of memory in all, its limit is {} (it holds {})",
                self.limit, self.memory
            );
            return Err(MemoryRefused { text }.into());
        }
        self.memory = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The total keeps the bytes that were not given: it errs towards refusing earlier.
        self.failed = true;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = self.elements.saturating_add(desired.saturating_sub(current));
        if total > TABLE_ELEMENTS {
            let text = format!("the handler asked for {total} table elements, the limit is {TABLE_ELEMENTS}");
            return Err(MemoryRefused { text }.into());
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

/// The guest used up its running time.
#[derive(Debug, thiserror::Error)]
#[error("the call used up its running time of {limit:?}")]
pub(super) struct RunningTimeOver {
    limit: Duration,
}

/// Measures the time that a guest really runs: the sum of the stretches during which its call is being polled. Waiting
/// in a host function and other lanes' turns on the thread do not count.
///
/// Written by the thread that runs the call, read by the epoch callback on the same thread; atomics only because the
/// instance may move between threads between calls.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    /// Nanoseconds of this call before the current stretch.
    used: AtomicU64,
    /// Start of the current stretch, nanoseconds since the origin.
    since: AtomicU64,
    limit: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { origin: Instant::now(), used: zero(), since: zero(), limit: zero() }
    }

    fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    /// Begins a call that may run so long.
    pub(super) fn arm(&self, limit: Duration) {
        self.used.store(0, Ordering::Relaxed);
        self.limit.store(nanos(limit), Ordering::Relaxed);
    }

    fn resume(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    fn spent(&self) -> u64 {
        let stretch = self.now().saturating_sub(self.since.load(Ordering::Relaxed));
        self.used.load(Ordering::Relaxed).saturating_add(stretch)
    }

    fn pause(&self) {
        self.used.store(self.spent(), Ordering::Relaxed);
    }

    /// Looked at once a tick, from inside the guest.
    pub(super) fn check(&self) -> Result<(), RunningTimeOver> {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.spent() < limit { Ok(()) } else { Err(RunningTimeOver { limit: Duration::from_nanos(limit) }) }
    }

    /// Runs a guest call, measured.
    pub(super) async fn run<F: Future>(&self, pulse: &Pulse, call: F) -> F::Output {
        let mut call = pin!(call);
        poll_fn(|context| {
            pulse.touch();
            self.resume();
            let polled = call.as_mut().poll(context);
            self.pause();
            polled
        })
        .await
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_and_refused_past_the_limit() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).expect("60 of 100"));
        assert!(limiter.memory_growing(0, 40, None).expect("100 of 100"));
        let refused = limiter.memory_growing(40, 41, None).expect_err("101 of 100");
        assert!(refused.to_string().contains("101 bytes of memory in all, its limit is 100"), "{refused}");
        assert_eq!(limiter.memory(), 100);
        assert!(!limiter.growth_failed());
    }

    #[test]
    fn growth_past_a_memorys_own_maximum_is_the_guests_to_handle_and_is_remembered() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(!limiter.memory_growing(0, 60, Some(50)).expect("an answer, no error"));
        assert!(limiter.growth_failed());
        assert_eq!(limiter.memory(), 0);
    }

    #[test]
    fn tables_are_bounded() {
        let mut limiter = MemoryLimiter::new(100);
        assert!(limiter.table_growing(0, TABLE_ELEMENTS, None).expect("all of it"));
        assert!(limiter.table_growing(0, 1, None).is_err());
    }

    #[test]
    fn only_running_counts() {
        let meter = Meter::new();
        meter.arm(Duration::from_secs(3600));
        meter.resume();
        meter.pause();
        let used = meter.used.load(Ordering::Relaxed);
        // Between the stretches time passes that does not count.
        while meter.now() < used + 1_000_000 {
            std::hint::spin_loop();
        }
        meter.resume();
        assert!(meter.spent() < 1_000_000_000);
        assert!(meter.check().is_ok());
        meter.arm(Duration::ZERO);
        assert!(meter.check().is_err());
    }
}
