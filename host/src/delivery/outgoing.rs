//! One record on its way out.

use sluicebox_frames::Headers;

/// What a header costs beside its bytes, in bytes: librdkafka keeps each in an allocation of its own, and in a frame a header may
/// be as short as two bytes.
pub const HEADER_COST: usize = 64;

/// One record to produce. Borrowed: the producer copies it into its own buffer.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// `None` = null.
    pub key: Option<&'a [u8]>,
    /// `None` = null.
    pub value: Option<&'a [u8]>,
    /// Headers, the second list after the first.
    pub headers: [Headers<'a>; 2],
    /// Milliseconds since 1970; 0 or less = now.
    pub timestamp: i64,
}

impl Outgoing<'_> {
    /// How many headers it has.
    #[inline]
    #[must_use]
    pub fn header_count(&self) -> usize {
        self.headers.iter().map(Headers::len).sum()
    }

    /// Bytes that it may take until it is reported on, at most.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes() + self.header_count() * HEADER_COST
    }

    /// Bytes that it holds in memory until it is reported on.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len)
            + self.value.map_or(0, <[u8]>::len)
            + self.headers.iter().map(|headers| headers.block().len()).sum::<usize>()
    }
}

/// A record with its own copy of everything, for what has to wait outside the producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// `None` = null.
    pub key: Option<Vec<u8>>,
    /// `None` = null.
    pub value: Option<Vec<u8>>,
    /// Header block.
    pub headers: Vec<u8>,
    /// As in [`Outgoing`].
    pub timestamp: i64,
}

impl Owned {
    /// The record, borrowed.
    #[must_use]
    pub fn as_outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: [Headers::new(&self.headers), Headers::default()],
            timestamp: self.timestamp,
        }
    }
}
