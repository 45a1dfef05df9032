//! Header blocks: the self-contained bytes that hold the headers of one message or emission.

use crate::bytes::{length, put, range, u32_at};
use crate::{FrameError, NULL};

/// Headers of one message: a view over its block; costs nothing until iterated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    block: &'a [u8],
}

impl<'a> Headers<'a> {
    /// A view over a block that [`Headers::check`] accepted (or that is empty).
    #[inline]
    #[must_use]
    pub const fn new(block: &'a [u8]) -> Self {
        Self { block }
    }

    /// Checks a whole block.
    ///
    /// # Errors
    /// When a count or length does not fit the block.
    pub fn check(block: &'a [u8]) -> Result<Self, FrameError> {
        if block.is_empty() {
            return Ok(Self { block });
        }
        if block.len() < 4 {
            return Err(FrameError::new(format!("a header block of {} bytes has no room for its count", block.len())));
        }
        let count = u32_at(block, 0);
        if count == 0 {
            return Err(FrameError::new("a header block that is not empty holds no header"));
        }
        let mut at = 4;
        for i in 0..count {
            let Some(lengths) = range(block, at, 8) else {
                return Err(FrameError::new(format!("header {i} of {count} lies outside its block")));
            };
            let value_len = u32_at(lengths, 4);
            let value_len = if value_len == NULL { 0 } else { value_len as usize };
            let end = (at + 8).checked_add(u32_at(lengths, 0) as usize).and_then(|end| end.checked_add(value_len));
            match end {
                Some(end) if end <= block.len() => at = end,
                _ => return Err(FrameError::new(format!("header {i} of {count} is longer than its block"))),
            }
        }
        if at != block.len() {
            return Err(FrameError::new(format!("a header block has {} bytes left over", block.len() - at)));
        }
        Ok(Self { block })
    }

    /// The block's bytes.
    #[inline]
    #[must_use]
    pub const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// How many headers there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        if self.block.is_empty() { 0 } else { u32_at(self.block, 0) as usize }
    }

    /// True when there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Name and value (`None` = null) of each, in order, repeated names included.
    #[must_use]
    pub fn iter(&self) -> HeadersIter<'a> {
        HeadersIter { block: self.block, at: 4, left: self.len() }
    }

    /// The value of the last header of that name (what Kafka's own `lastHeader` gives): `None` without one,
    /// `Some(None)` for a null value.
    #[must_use]
    pub fn last(&self, name: impl AsRef<[u8]>) -> Option<Option<&'a [u8]>> {
        let name = name.as_ref();
        self.iter().filter(|(n, _)| *n == name).last().map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeadersIter<'a>;

    fn into_iter(self) -> HeadersIter<'a> {
        self.iter()
    }
}

/// See [`Headers::iter`].
#[derive(Clone, Debug)]
pub struct HeadersIter<'a> {
    block: &'a [u8],
    at: usize,
    left: usize,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let name_len = u32_at(self.block, self.at) as usize;
        let value_len = u32_at(self.block, self.at + 4);
        let name_at = self.at + 8;
        let value_at = name_at + name_len;
        let name = &self.block[name_at..value_at];
        if value_len == NULL {
            self.at = value_at;
            return Some((name, None));
        }
        self.at = value_at + value_len as usize;
        Some((name, Some(&self.block[value_at..self.at])))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Writes one header block at the end of a payload.
#[derive(Debug)]
pub struct HeadersWriter<'p> {
    payload: &'p mut Vec<u8>,
    start: usize,
    count: u32,
}

impl<'p> HeadersWriter<'p> {
    /// Begins a block; nothing is written until the first header.
    pub fn new(payload: &'p mut Vec<u8>) -> Self {
        let start = payload.len();
        Self { payload, start, count: 0 }
    }

    /// Adds one header.
    #[inline]
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        if self.count == 0 {
            self.payload.extend_from_slice(&[0; 4]);
        }
        self.count += 1;
        let value_len = value.map_or(NULL, |value| length(value.len()));
        let lengths = u64::from(length(name.len())) | u64::from(value_len) << 32;
        self.payload.extend_from_slice(&lengths.to_le_bytes());
        self.payload.extend_from_slice(name);
        self.payload.extend_from_slice(value.unwrap_or_default());
    }

    /// Takes back all that was added.
    pub fn clear(&mut self) {
        self.payload.truncate(self.start);
        self.count = 0;
    }

    /// Adds all headers of another block.
    pub fn push_all(&mut self, headers: Headers<'_>) {
        if headers.is_empty() {
            return;
        }
        if self.count == 0 {
            self.payload.extend_from_slice(&[0; 4]);
        }
        self.count += u32_at(headers.block(), 0);
        self.payload.extend_from_slice(&headers.block()[4..]);
    }

    /// Ends the block; says how many bytes it has (0 without headers).
    #[must_use]
    pub fn finish(self) -> u32 {
        if self.count > 0 {
            put(self.payload, self.start, self.count.to_le_bytes());
        }
        length(self.payload.len() - self.start)
    }
}
