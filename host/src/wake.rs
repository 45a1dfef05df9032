//! Wakes a thread that waits for events. Knows std only.
//!
//! The I/O thread of a pipeline parks here when it has nothing to do; librdkafka's queue callbacks, handler threads and
//! signals wake it. A wake that comes while it is awake costs one atomic store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// Shared by the thread that waits and those who wake it.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    woken: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Waker {
    /// Says that there is something to do. Callable from any thread, also from inside librdkafka's callbacks.
    #[inline]
    pub fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }

    /// Names the calling thread as the one that waits. Once.
    pub fn attach(&self) {
        self.0.thread.get_or_init(std::thread::current);
    }

    /// Waits until somebody woke this thread since the last call, at most `limit`.
    pub fn wait(&self, limit: Duration) {
        debug_assert_eq!(self.0.thread.get().map(Thread::id), Some(std::thread::current().id()));
        if !self.0.woken.load(Ordering::Acquire) {
            std::thread::park_timeout(limit);
        }
        // A swap and not a store: what the caller looks at next must not be read before this is seen.
        self.0.woken.swap(false, Ordering::AcqRel);
    }
}
