//! What the instances of one pipeline used, all together, for metrics. Counters only; written from handler threads, read
//! by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// See the module's text. Outlives instances, runs and versions.
#[derive(Debug, Default)]
pub struct Usage {
    running: AtomicU64,
    lines: AtomicU64,
    dropped_lines: AtomicU64,
    /// By [`Asked`].
    asked: [AtomicU64; 3],
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

    pub(crate) fn wrote_line(&self) {
        self.lines.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn dropped_line(&self) {
        self.dropped_lines.fetch_add(1, Ordering::Relaxed);
    }
}
