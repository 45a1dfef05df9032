//! Asking pipelines to stop, from outside: a flag with a deadline, and wakers for those who sleep.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::wake::Waker;

/// Asks pipelines to stop. Cloned freely.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopInner>);

#[derive(Debug, Default)]
struct StopInner {
    /// 0 = not asked; else 1 + milliseconds that the drain may take.
    asked: AtomicU64,
    since: Mutex<Option<Instant>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Stop {
    /// Wakes this one, too, when the stop is asked for.
    pub fn wake(&self, waker: &Waker) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
    }

    /// Asks everyone to finish within so much time.
    pub fn request(&self, drain: Duration) {
        self.request_at(Instant::now(), drain);
    }

    /// The same at a time that the caller says.
    pub fn request_at(&self, now: Instant, drain: Duration) {
        self.0.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
        self.0.asked.store(1 + u64::try_from(drain.as_millis()).unwrap_or(u64::MAX - 1), Ordering::Release);
        for waker in &*self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }

    /// True once it was asked for.
    #[inline]
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.asked.load(Ordering::Acquire) > 0
    }

    /// When draining has to end.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let asked = self.0.asked.load(Ordering::Acquire).checked_sub(1)?;
        let since = (*self.0.since.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(since + Duration::from_millis(asked))
    }
}
