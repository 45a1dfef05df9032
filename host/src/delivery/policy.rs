//! What becomes of a record that failed for good: its attempts are used up, or its handler rejected it.

/// The pipeline's failure policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The lane does not go on past the record; it is tried again at the largest back-off. The default.
    Block,
    /// The source record goes to the dead-letter topic.
    DeadLetter,
    /// The record is given up: counted, logged, settled.
    Drop,
    /// The pipeline stops, and the record stays uncommitted.
    Stop,
}

impl Then {
    /// True when messages after a rejected one must not be handled before its fate is known.
    #[must_use]
    pub const fn stops_at_reject(self) -> bool {
        matches!(self, Self::Block | Self::Stop)
    }
}
