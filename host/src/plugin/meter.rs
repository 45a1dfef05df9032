//! Running time: how long a guest's call really ran, as CPU time, and the end of it. Waiting in a host function, other
//! lanes' turns on the thread and other programs' turns on the core do not count. It runs when it is its turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::runtime::{Pulse, TICK};
use super::turns::{Stretch, Turn};
use crate::handler_usage::Usage;

/// The guest used up its running time.
#[derive(Debug, thiserror::Error)]
#[error("the call used up its running time of {limit:?}")]
pub(super) struct RunningTimeOver {
    limit: Duration,
}

/// Sums the stretches during which a call is being polled.
///
/// The clock of a thread's CPU time costs half a microsecond, so that short calls are measured by the ordinary clock: a
/// call's first stretch, which the next tick ends, counts as a tick at most (more means that the thread had no core, or
/// was in one uninterruptible instruction). Every later one is measured in CPU time.
///
/// Written by the thread that runs the call, read by the epoch callback on the same thread; atomics only because the
/// instance may move between threads between calls.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    usage: Arc<Usage>,
    /// Nanoseconds of this call before the current stretch.
    used: AtomicU64,
    /// Start of the current stretch: nanoseconds since the origin, or of CPU time.
    since: AtomicU64,
    /// Stretches of this call.
    stretches: AtomicU64,
    limit: AtomicU64,
    turn: Turn,
    /// The current stretch ends because its slice is used up.
    slice_over: AtomicBool,
}

impl Meter {
    /// For an instance on this thread, of the pipeline that the usage is of.
    pub(super) fn new(usage: Arc<Usage>, share: u32) -> Self {
        let zero = || AtomicU64::new(0);
        let (used, since, stretches, limit) = (zero(), zero(), zero(), zero());
        let turn = Turn::here(&usage, share);
        let slice_over = AtomicBool::new(false);
        Self { origin: Instant::now(), usage, used, since, stretches, limit, turn, slice_over }
    }

    /// Begins a call that may run so long.
    pub(super) fn arm(&self, limit: Duration) {
        self.used.store(0, Ordering::Relaxed);
        self.stretches.store(0, Ordering::Relaxed);
        self.limit.store(nanos(limit), Ordering::Relaxed);
    }

    /// The clock of the current stretch.
    fn now(&self) -> u64 {
        if self.is_first() { nanos(self.origin.elapsed()) } else { nanos(thread_time()) }
    }

    fn is_first(&self) -> bool {
        self.stretches.load(Ordering::Relaxed) <= 1
    }

    fn resume(&self) {
        self.stretches.fetch_add(1, Ordering::Relaxed);
        self.since.store(self.now(), Ordering::Relaxed);
    }

    fn stretch(&self) -> u64 {
        let stretch = self.now().saturating_sub(self.since.load(Ordering::Relaxed));
        if self.is_first() { stretch.min(nanos(TICK)) } else { stretch }
    }

    fn spent(&self) -> u64 {
        self.used.load(Ordering::Relaxed).saturating_add(self.stretch())
    }

    fn pause(&self) -> Duration {
        let stretch = self.stretch();
        self.used.store(self.used.load(Ordering::Relaxed).saturating_add(stretch), Ordering::Relaxed);
        self.usage.ran(stretch);
        Duration::from_nanos(stretch)
    }

    /// What the call ran before it was paused last.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Looked at once a tick, from inside the guest.
    pub(super) fn check(&self) -> Result<(), RunningTimeOver> {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.spent() < limit { Ok(()) } else { Err(RunningTimeOver { limit: Duration::from_nanos(limit) }) }
    }

    /// The guest is about to let others run.
    pub(super) fn end_slice(&self) {
        self.slice_over.store(true, Ordering::Relaxed);
    }

    /// Waits for the first turn of a call.
    pub(super) async fn turn(&self) {
        let waits = Leaving(&self.turn);
        poll_fn(|context| if self.turn.is_mine(context.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
        // The call keeps it.
        std::mem::forget(waits);
    }

    /// Runs a guest call in its turns, measured.
    pub(super) async fn run<F: Future>(&self, pulse: &Pulse, call: F) -> F::Output {
        // Also when the call is given up half way.
        let _leaving = Leaving(&self.turn);
        let mut call = pin!(call);
        poll_fn(|context| {
            if !self.turn.is_mine(context.waker()) {
                return Poll::Pending;
            }
            pulse.touch();
            self.resume();
            let polled = call.as_mut().poll(context);
            let ran = self.pause();
            let slice = self.slice_over.swap(false, Ordering::Relaxed) && polled.is_pending();
            self.turn.ran(ran, if slice { Stretch::Slice } else { Stretch::Over });
            polled
        })
        .await
    }
}

/// Gives the turn up when it goes.
struct Leaving<'a>(&'a Turn);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time that this thread has used.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let said = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(said, 0, "every system that the engine runs on counts a thread's time");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(duration: Duration) {
        let begin = thread_time();
        while thread_time() - begin < duration {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn only_running_counts() {
        let usage = Arc::new(Usage::default());
        let meter = Meter::new(Arc::clone(&usage), 1);
        meter.arm(Duration::from_millis(50));
        for _ in 0..3 {
            meter.resume();
            spin(Duration::from_millis(10));
            meter.pause();
            // Between the stretches time passes that does not count.
            spin(Duration::from_millis(30));
        }
        // The first one counts as a tick.
        assert!(meter.used() >= Duration::from_millis(20) + TICK.min(Duration::from_millis(10)), "{:?}", meter.used());
        assert!(meter.used() < Duration::from_millis(45), "{:?}", meter.used());
        assert_eq!(usage.running(), meter.used());
        meter.resume();
        assert!(meter.check().is_ok());
        spin(Duration::from_millis(30));
        assert!(meter.check().is_err());
        meter.pause();
        meter.arm(Duration::from_millis(50));
        assert_eq!(meter.used(), Duration::ZERO);
    }

    /// Goal: a thread that has to wait for a core is not taken for one that runs. Method: it waits.
    #[test]
    fn a_thread_without_a_core_does_not_run() {
        let meter = Meter::new(Arc::default(), 1);
        meter.arm(Duration::from_secs(1));
        for _ in 0..2 {
            meter.resume();
            std::thread::park_timeout(Duration::from_millis(100));
            meter.pause();
        }
        assert!(meter.used() < Duration::from_millis(50), "{:?}", meter.used());
    }
}
