//! Wakes a thread that waits for events. Knows std only.
//!
//! The I/O thread of a pipeline parks here when it has nothing to do; librdkafka's queue callbacks, handler threads and
//! signals wake it. A wake that comes while it is awake costs one atomic operation. Who has nothing urgent to say
//! ([`Waker::tell`]) does not wake a thread that only [dozes](Waker::doze): it hears of it when it is awake anyway.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

/// Somebody woke it.
const WOKEN: u8 = 1;
/// Somebody told it something.
const TOLD: u8 = 2;
/// It sleeps, or is about to.
const PARKED: u8 = 4;
/// It is not to be woken for what it is told.
const DOZES: u8 = 8;

/// Shared by the thread that waits and those who wake it.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Changed by read-modify-write only: who finds that a bit is set already has handed on to the thread, by its next change,
    /// all that it did before.
    state: AtomicU8,
    thread: OnceLock<Thread>,
}

impl Waker {
    /// Says that there is something to do. Callable from any thread, also from inside librdkafka's callbacks.
    #[inline]
    pub fn wake(&self) {
        // One that is awake is not unparked: its next sleep would be over at once, for nothing.
        if self.0.state.fetch_or(WOKEN, Ordering::AcqRel) & (PARKED | WOKEN) == PARKED {
            self.unpark();
        }
    }

    /// The same of something that can wait until the thread is awake anyway, if it dozes.
    #[inline]
    pub fn tell(&self) {
        if self.0.state.fetch_or(TOLD, Ordering::AcqRel) == PARKED {
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = self.0.thread.get() {
            thread.unpark();
        }
    }

    /// Names the calling thread as the one that waits. Once.
    pub fn attach(&self) {
        self.0.thread.get_or_init(std::thread::current);
    }

    /// Waits until somebody woke this thread, or told it something, since the last call; at most `limit`.
    pub fn wait(&self, limit: Duration) {
        self.park(PARKED, limit);
    }

    /// Waits until somebody woke this thread since the last call, or told it something before this one; at most `limit`.
    pub fn doze(&self, limit: Duration) {
        self.park(PARKED | DOZES, limit);
    }

    fn park(&self, how: u8, limit: Duration) {
        debug_assert_eq!(self.0.thread.get().map(Thread::id), Some(std::thread::current().id()));
        if self.0.state.fetch_or(how, Ordering::AcqRel) == 0 {
            std::thread::park_timeout(limit);
        }
        // A swap and not a store: what the caller looks at next must not be read before this is seen.
        self.0.state.swap(0, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    /// Runs `other` on another thread; gives true when `wait` was over because of it, and not by its limit.
    fn ends_it(wait: impl FnOnce(&Waker), other: impl FnOnce(&Waker) + Send + 'static) -> bool {
        let waker = Waker::default();
        waker.attach();
        let theirs = waker.clone();
        let thread = std::thread::spawn(move || other(&theirs));
        let begin = Instant::now();
        wait(&waker);
        let early = begin.elapsed() < LONG;
        thread.join().expect("it does not panic");
        early
    }

    #[test]
    fn a_thread_that_waits_hears_everything() {
        assert!(ends_it(|waker| waker.wait(LONG), Waker::wake));
        assert!(ends_it(|waker| waker.wait(LONG), Waker::tell));
        assert!(ends_it(|waker| waker.doze(LONG), Waker::wake));
    }

    /// Proves: what is told to a thread that dozes does not wake it; what is said loudly after it does.
    #[test]
    fn who_dozes_is_told_later() {
        fn until_it_sleeps(waker: &Waker) {
            while waker.0.state.load(Ordering::Acquire) & DOZES == 0 {
                std::thread::yield_now();
            }
        }
        let begin = Instant::now();
        ends_it(
            |waker| waker.doze(SHORT),
            move |waker| {
                until_it_sleeps(waker);
                waker.tell();
            },
        );
        assert!(begin.elapsed() >= SHORT, "it slept on");
        let woken = |waker: &Waker| {
            until_it_sleeps(waker);
            waker.tell();
            waker.wake();
        };
        assert!(ends_it(|waker| waker.doze(LONG), woken));
    }

    #[test]
    fn what_was_said_before_ends_the_next_wait() {
        let waker = Waker::default();
        waker.attach();
        let begin = Instant::now();
        waker.wake();
        waker.doze(LONG);
        waker.tell();
        waker.doze(LONG);
        waker.wake();
        waker.wait(LONG);
        assert!(begin.elapsed() < LONG);
        waker.doze(SHORT);
        assert!(begin.elapsed() >= SHORT, "and no other one");
    }
}
