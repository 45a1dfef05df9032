//! Header blocks: the self-contained bytes that hold the headers of one message or emission. Each header is as it lies in
//! Kafka's record format 2 (KIP-98, KIP-82), so that those of a record are copied in one piece.

use crate::FrameError;
use crate::bytes::{length, put, u32_at};

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
        let mut rest = &block[4..];
        for i in 0..count {
            if next(&mut rest).is_none() {
                return Err(FrameError::new(format!("header {i} of {count} does not fit its block")));
            }
        }
        if !rest.is_empty() {
            return Err(FrameError::new(format!("a header block has {} bytes left over", rest.len())));
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
        HeadersIter { rest: self.block.get(4..).unwrap_or_default(), left: self.len() }
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
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        next(&mut self.rest)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Takes the first header off; `None` where none is whole.
#[inline]
fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let (name, at) = varint(rest)?;
    let (name, after) = rest.get(at..)?.split_at_checked(usize::try_from(name).ok()?)?;
    let (value, at) = varint(after)?;
    let after = after.get(at..)?;
    let value = match value {
        -1 => None,
        len => Some(after.get(..usize::try_from(len).ok()?)?),
    };
    *rest = &after[value.map_or(0, <[u8]>::len)..];
    Some((name, value))
}

/// Whether these are so many headers, and no more than they.
#[inline]
fn are_headers(bytes: &[u8], count: u32) -> bool {
    let mut at = 0;
    for _ in 0..count {
        // Nearly all lengths are those of a byte, below 64.
        let short = |at: usize| bytes.get(at).filter(|len| **len & 0x81 == 0).map(|len| at + 1 + usize::from(len >> 1));
        if let Some(next) = short(at).and_then(short) {
            at = next;
            continue;
        }
        let mut rest = bytes.get(at..).unwrap_or_default();
        if next(&mut rest).is_none() {
            return false;
        }
        at = bytes.len() - rest.len();
    }
    // A name or value that goes on behind the end leads there.
    at == bytes.len()
}

/// A zigzag varint of at most 32 bits (Protocol Buffers' encoding), and how many bytes it has.
#[inline]
fn varint(bytes: &[u8]) -> Option<(i32, usize)> {
    let first = u32::from(*bytes.first()?);
    // Nearly all are so short.
    let (raw, len) = if first & 0x80 == 0 { (first, 1) } else { long_varint(bytes)? };
    Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), len))
}

fn long_varint(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut raw = 0;
    for (i, byte) in bytes.iter().take(5).enumerate() {
        let part = u32::from(byte & 0x7f);
        // The fifth has room for four bits.
        if i == 4 && part > 0xf {
            return None;
        }
        raw |= part << (7 * i);
        if byte & 0x80 == 0 {
            return Some((raw, i + 1));
        }
    }
    None
}

/// A length, or that of null, as [`varint`] reads it.
#[inline]
fn put_length(bytes: &mut Vec<u8>, len: Option<usize>) {
    // Zigzag: 0, -1, 1 become 0, 1, 2.
    let mut raw = len.map_or(1, |len| length(len).checked_mul(2).expect("a header shorter than 2 GiB"));
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
}

/// Adds one header to a block at the end of `bytes` that begins at `start`; begins one where nothing is there.
///
/// # Panics
/// When name or value is 2 GiB or longer, which no Kafka record can hold, or no block is at `start`.
pub fn push_header(bytes: &mut Vec<u8>, start: usize, name: &[u8], value: Option<&[u8]>) {
    add_count(bytes, start, 1);
    put_length(bytes, Some(name.len()));
    bytes.extend_from_slice(name);
    put_length(bytes, value.map(<[u8]>::len));
    bytes.extend_from_slice(value.unwrap_or_default());
}

#[inline]
fn add_count(bytes: &mut Vec<u8>, start: usize, more: u32) {
    if bytes.len() == start {
        bytes.extend_from_slice(&[0; 4]);
    }
    let count = u32_at(bytes, start) + more;
    put(bytes, start, count.to_le_bytes());
}

/// Writes one header block at the end of a payload.
#[derive(Debug)]
pub struct HeadersWriter<'p> {
    payload: &'p mut Vec<u8>,
    start: usize,
}

impl<'p> HeadersWriter<'p> {
    /// Begins a block; nothing is written until the first header.
    pub fn new(payload: &'p mut Vec<u8>) -> Self {
        let start = payload.len();
        Self { payload, start }
    }

    /// Adds one header.
    ///
    /// # Panics
    /// When name or value is 2 GiB or longer, which no Kafka record can hold.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        push_header(self.payload, self.start, name, value);
    }

    /// Adds all headers of another block.
    pub fn push_all(&mut self, headers: Headers<'_>) {
        if let Some(encoded) = headers.block().get(4..) {
            add_count(self.payload, self.start, u32_at(headers.block(), 0));
            self.payload.extend_from_slice(encoded);
        }
    }

    /// Adds the headers of a record as Kafka's record format 2 has them, their count in front: in one piece, which costs a
    /// fraction of taking them one by one. False, and nothing added, when the bytes are no headers.
    #[inline]
    pub fn push_record_headers(&mut self, bytes: &[u8]) -> bool {
        let Some((count, at)) = varint(bytes) else { return false };
        let (Ok(count), encoded) = (u32::try_from(count), &bytes[at..]) else { return false };
        if !are_headers(encoded, count) {
            return false;
        }
        if count > 0 {
            add_count(self.payload, self.start, count);
            self.payload.extend_from_slice(encoded);
        }
        true
    }

    /// Ends the block; says how many bytes it has (0 without headers).
    #[inline]
    #[must_use]
    pub fn finish(self) -> u32 {
        length(self.payload.len() - self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header = (Vec<u8>, Option<Vec<u8>>);

    /// A record's headers in a block behind other bytes, which stay as they are.
    fn read(bytes: &[u8]) -> Option<Vec<Header>> {
        let mut block = b"before".to_vec();
        let mut writer = HeadersWriter::new(&mut block);
        let copied = writer.push_record_headers(bytes);
        let len = writer.finish() as usize;
        assert!(block.len() == 6 + len && block.starts_with(b"before") && (copied || len == 0));
        let headers = Headers::check(&block[6..]).expect("a block");
        copied.then(|| headers.iter().map(|(n, v)| (n.to_vec(), v.map(<[u8]>::to_vec))).collect())
    }

    #[test]
    fn names_and_values_of_every_kind() {
        // 3 headers: "ab" = "xyz", "" = "", "k" = null; lengths in zigzag.
        let bytes = [6, 4, b'a', b'b', 6, b'x', b'y', b'z', 0, 0, 2, b'k', 1];
        let expected =
            vec![(b"ab".to_vec(), Some(b"xyz".to_vec())), (Vec::new(), Some(Vec::new())), (b"k".to_vec(), None)];
        assert_eq!(read(&bytes), Some(expected));
        assert_eq!(read(&[0]), Some(Vec::new()));
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_refused() {
        let bytes = [4, 4, b'a', b'b', 6, b'x', b'y', b'z', 2, b'k', 1];
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end} bytes");
        }
        assert!(read(&bytes).is_some());
        assert_eq!(read(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
        // No name is null, and no length is -2.
        assert!(read(&[2, 1, 0]).is_none() && read(&[2, 0, 3]).is_none());
    }

    #[test]
    fn long_lengths() {
        let mut bytes = vec![2, 2, b'k', 0xd8, 0x04]; // 300 in zigzag: 600 = 0b100_1011000
        bytes.extend([7; 300]);
        assert_eq!(read(&bytes), Some(vec![(b"k".to_vec(), Some(vec![7; 300]))]));
        // Longer than it has to be, which Kafka takes, too.
        assert_eq!(read(&[2, 0x80, 0x00, 0x80, 0x80, 0x00]), Some(vec![(Vec::new(), Some(Vec::new()))]));
    }

    /// Proves: a record's headers and the same ones added one by one are the same block, behind others, too.
    #[test]
    fn in_one_piece_or_one_by_one() {
        let long = vec![b'v'; 200];
        let headers: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"1")), (b"", None), (b"long", Some(&long)), (&long, Some(b""))];
        let (mut one_by_one, mut piece) = (Vec::new(), Vec::new());
        let mut writer = HeadersWriter::new(&mut one_by_one);
        headers.iter().for_each(|(name, value)| writer.push(name, *value));
        headers.iter().for_each(|(name, value)| writer.push(name, *value));
        let len = writer.finish();
        assert_eq!(len as usize, one_by_one.len());
        // Four headers, as a record has them: the count is a varint there.
        let mut record = Vec::new();
        headers.iter().for_each(|(name, value)| push_header(&mut record, 0, name, *value));
        let record = [&[8], &record[4..]].concat();
        let mut writer = HeadersWriter::new(&mut piece);
        assert!(writer.push_record_headers(&record) && writer.push_record_headers(&record));
        assert_eq!((writer.finish(), &piece), (len, &one_by_one));
        let headers: Vec<_> = headers.iter().chain(&headers).copied().collect();
        assert_eq!(Headers::check(&piece).expect("a block").iter().collect::<Vec<_>>(), headers);
    }

    /// Proves: what is no block is refused where it is wrong, and reading it regardless ends.
    #[test]
    fn a_broken_block() {
        let error = |block: &[u8]| Headers::check(block).expect_err("no block").to_string();
        assert!(error(&[1, 0, 0]).contains("has no room for its count"));
        assert!(error(&[0, 0, 0, 0]).contains("holds no header"));
        assert!(error(&[2, 0, 0, 0, 0, 0]).contains("header 1 of 2 does not fit its block"));
        assert!(error(&[1, 0, 0, 0, 4, b'a']).contains("header 0 of 1 does not fit its block"));
        assert!(error(&[1, 0, 0, 0, 0, 0, 7]).contains("1 bytes left over"));
        assert_eq!(Headers::new(&[9, 0, 0, 0, 2, b'a', 1, 60]).iter().count(), 1);
    }
}
