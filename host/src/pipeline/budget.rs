//! Bytes in flight: one budget for the process, shared by its pipelines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that a pipeline's producers may hold before its lanes are held back. More than the brokers take in a few round trips
/// does not make them faster: measured at full speed on two cores, 46 MB in flight instead of 16 cost 60 MiB of memory.
pub const AHEAD: usize = 16 * 1024 * 1024;
/// A lane may always have so much with the producers, however many lanes there are.
const AHEAD_OF_A_LANE: usize = 256 * 1024;

/// A lane's part of what a pipeline's producers may hold. Each has its own, so that one whose records nobody takes holds
/// back no other.
#[must_use]
pub const fn ahead_of_a_lane(ahead: usize, lanes: usize) -> usize {
    let least = if ahead < AHEAD_OF_A_LANE { ahead } else { AHEAD_OF_A_LANE };
    let part = ahead / if lanes == 0 { 1 } else { lanes };
    if part < least { least } else { part }
}

/// What all pipelines hold together.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: AtomicU64,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: AtomicU64::new(0) })
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }
}

/// One pipeline's part.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    held: u64,
    /// Taken in since `held` was counted.
    since: u64,
}

impl Share {
    /// A part that holds nothing.
    #[must_use]
    pub const fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0, since: 0 }
    }

    /// True when more may be taken in. A pipeline that holds nothing always may: one entry larger than the budget must not
    /// stop it for ever.
    #[inline]
    #[must_use]
    pub fn admits(&self) -> bool {
        self.held + self.since == 0 || self.budget.held.load(Ordering::Relaxed) + self.since < self.budget.limit
    }

    /// True when so many bytes at the producers alone fill the budget: no call is made then that could add to them.
    #[inline]
    #[must_use]
    pub fn is_filled_by(&self, bytes: usize) -> bool {
        bytes as u64 >= self.budget.limit
    }

    /// So many bytes came in.
    #[inline]
    pub fn took(&mut self, bytes: u64) {
        self.since += bytes;
    }

    /// What the pipeline holds, counted anew.
    pub fn holds(&mut self, bytes: u64) {
        if bytes >= self.held {
            self.budget.held.fetch_add(bytes - self.held, Ordering::Relaxed);
        } else {
            self.budget.held.fetch_sub(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        self.since = 0;
    }

    /// Bytes held.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held + self.since
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelines_share_and_give_back() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (Share::new(Arc::clone(&budget)), Share::new(Arc::clone(&budget)));
        a.holds(90);
        b.holds(5);
        assert!(a.admits());
        a.took(5);
        assert!(!a.admits());
        a.holds(0);
        assert!(b.admits() && a.admits());
        drop(b);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_entry_is_always_admitted() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (Share::new(Arc::clone(&budget)), Share::new(budget));
        a.holds(50);
        assert!(b.admits(), "a pipeline that holds nothing goes on");
        b.holds(1);
        assert!(!b.admits());
    }
}
