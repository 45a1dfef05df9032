//! The frame layout of `sluicebox:plugin@0.1.0`, version 1: `wit/frames.md`, word by word.
//!
//! Knows bytes and nothing else (no dependencies, no I/O); shared by the host's `kafka/`, `pipeline/` and `plugin/` and
//! by the guests' SDK, so that both sides read the same document. The golden vectors in `tests/golden` keep it honest.
//!
//! - [`messages`]: burst and batch frames, host to handler.
//! - [`answer`]: answer frames, handler to host.
//! - [`headers`]: header blocks, inside both.

pub mod answer;
mod bytes;
mod error;
pub mod headers;
pub mod messages;

pub use answer::{
    Answer, AnswerWriter, Content, DestinationKind, Emission, HeaderMode, Mark, NewEmission, Outcome, ValueWriter,
};
pub use error::FrameError;
pub use headers::{Headers, HeadersWriter};
pub use messages::{BatchInfo, Message, Messages, MessagesWriter, NewMessage, Source, TimestampType, Trigger};

/// The layout version this crate reads and writes.
pub const VERSION: u16 = 1;
/// The length that stands for "null".
pub const NULL: u32 = u32::MAX;

/// Two byte strings that cross to a handler or back in one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Fixed-size little-endian entries.
    pub index: Vec<u8>,
    /// What they point into.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Empties both parts and keeps their memory.
    pub fn clear(&mut self) {
        self.index.clear();
        self.payload.clear();
    }

    /// Bytes of both parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len() + self.payload.len()
    }

    /// True when both parts are empty (which no valid frame is).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.payload.is_empty()
    }
}
