//! A rate of messages. Plain data; knows no file format.

use std::fmt;
use std::time::Duration;

use super::units::format_pace;

/// So many messages an hour, one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace(u64);

impl Pace {
    /// So many messages, one at least.
    #[must_use]
    pub const fn per_hour(messages: u64) -> Self {
        Self(if messages == 0 { 1 } else { messages })
    }

    /// From one message to the next.
    #[must_use]
    pub const fn interval(self) -> Duration {
        Duration::from_nanos(3_600_000_000_000 / self.0)
    }
}

/// As files write it: `500/s`.
impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_pace(self.0))
    }
}
