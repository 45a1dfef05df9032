//! What one instance may hold: memory, tables. Counts and refuses; what a refusal is called is said in `fault`. Running
//! time is `meter`'s.

use wasmtime::ResourceLimiter;

pub use crate::config::HandlerLimits;

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
    limits: HandlerLimits,
    memory: u64,
    elements: u64,
    /// Growth of this call that we allowed and that failed all the same: past the memory's own maximum, or the system has
    /// none.
    failed: bool,
}

impl MemoryLimiter {
    pub(super) fn new(limits: &HandlerLimits) -> Self {
        Self { limits: limits.clone(), memory: 0, elements: 0, failed: false }
    }

    /// What failed in earlier calls explains nothing any more.
    pub(super) const fn begin_call(&mut self) {
        self.failed = false;
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
        if total > self.limits.memory {
            let text = format!(
                "the handler asked for {total} bytes of memory in all, its limit is {} (it holds {})",
                self.limits.memory, self.memory
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
        let total = self.elements.saturating_add(desired.saturating_sub(current) as u64);
        let limit = u64::from(self.limits.table_elements);
        if total > limit {
            let text = format!(
                "the handler asked for {total} table elements in all, its limit is {limit} (`table_elements` in \
                 [handler.limits])"
            );
            return Err(MemoryRefused { text }.into());
        }
        self.elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.tables as usize
    }

    fn memories(&self) -> usize {
        self.limits.memories as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(memory: u64) -> MemoryLimiter {
        MemoryLimiter::new(&HandlerLimits { memory, ..HandlerLimits::default() })
    }

    #[test]
    fn memory_is_counted_over_all_memories_and_refused_past_the_limit() {
        let mut limiter = limiter(100);
        assert!(limiter.memory_growing(0, 60, None).expect("60 of 100"));
        assert!(limiter.memory_growing(0, 40, None).expect("100 of 100"));
        let refused = limiter.memory_growing(40, 41, None).expect_err("101 of 100");
        assert!(refused.to_string().contains("101 bytes of memory in all, its limit is 100"), "{refused}");
        assert_eq!(limiter.memory(), 100);
        assert!(!limiter.growth_failed());
    }

    #[test]
    fn growth_past_a_memorys_own_maximum_is_the_guests_to_handle_and_is_remembered() {
        let mut limiter = limiter(100);
        assert!(!limiter.memory_growing(0, 60, Some(50)).expect("an answer, no error"));
        assert!(limiter.growth_failed());
        assert_eq!(limiter.memory(), 0);
        limiter.begin_call();
        assert!(!limiter.growth_failed());
    }

    #[test]
    fn tables_are_bounded() {
        let mut limiter = limiter(100);
        let all = HandlerLimits::default().table_elements as usize;
        assert!(limiter.table_growing(0, all - 1, None).expect("all but one"));
        assert!(limiter.table_growing(0, 1, None).expect("all of it"));
        assert!(limiter.table_growing(0, 1, None).is_err());
    }
}
