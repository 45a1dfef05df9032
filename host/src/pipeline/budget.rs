//! Bytes in flight: one budget for the process, shared by its pipelines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
