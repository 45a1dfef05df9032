//! A fetched record's headers as they lie in the fetch buffer: no list, no allocation.
//!
//! `rd_kafka_message_headers`, the public way, allocates a reader and a list for every record that is asked (measured: an
//! eighth of the I/O thread's time for records *without* headers). In Kafka's record format 2 (KIP-98) the headers follow
//! the value, and librdkafka keeps where: in 2.12.1 `rkm_u.consumer.binhdrs`, a length and a pointer, at offset 120 of
//! `rd_kafka_msg_t`. They are trusted for a record only where that pointer is the very end of its value; for any other
//! record the public way is taken. A layout that changed costs time, then, and nothing else.

use std::slice;

use rdkafka_sys as rd;
use sluicebox_frames::HeadersWriter;

/// Where librdkafka 2.12.1 keeps length (`int32_t`) and place of the headers as they came.
const LENGTH_AT: usize = 120;
const PLACE_AT: usize = 128;

/// Headers of one record, as they came.
#[derive(Clone, Copy)]
pub(super) struct RawHeaders<'a>(&'a [u8]);

impl<'a> RawHeaders<'a> {
    /// `None` where the public way has to be taken.
    ///
    /// # Safety
    /// A live message without an error; the answer lives as long as it.
    #[inline]
    pub unsafe fn of(message: *const rd::rd_kafka_message_t) -> Option<Self> {
        // SAFETY: a live message is the first field of `rd_kafka_msg_t`, which is longer than these places in every 2.x.
        let (len, place, end) = unsafe {
            let raw = &*message;
            if raw.payload.is_null() {
                return None;
            }
            let base = message.cast::<u8>();
            (
                base.add(LENGTH_AT).cast::<i32>().read(),
                base.add(PLACE_AT).cast::<*const u8>().read(),
                raw.payload.cast::<u8>().cast_const().wrapping_add(raw.len),
            )
        };
        let len = usize::try_from(len).ok().filter(|len| *len > 0)?;
        if place != end {
            return None;
        }
        // SAFETY: that this is the value's end shows that these are the record's headers, in the buffer of its value.
        Some(Self(unsafe { slice::from_raw_parts(place, len) }))
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0 == [0]
    }

    /// Writes all of them. False when the bytes are no headers: nothing is written then.
    #[inline]
    pub fn copy(&self, writer: &mut HeadersWriter<'_>) -> bool {
        let copied = self.try_copy(writer).is_some();
        if !copied {
            writer.clear();
        }
        copied
    }

    #[inline]
    fn try_copy(&self, writer: &mut HeadersWriter<'_>) -> Option<()> {
        let mut rest = self.0;
        let count = usize::try_from(varint(&mut rest)?).ok()?;
        for _ in 0..count {
            let (name, value) = next(&mut rest)?;
            writer.push(name, value);
        }
        Some(())
    }
}

/// A name and a value.
#[inline]
fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let name = usize::try_from(varint(rest)?).ok()?;
    let name = rest.split_off(..name)?;
    let value = match varint(rest)? {
        -1 => None,
        len => Some(rest.split_off(..usize::try_from(len).ok()?)?),
    };
    Some((name, value))
}

/// A zigzag varint of at most 32 bits (Protocol Buffers' encoding).
#[inline]
fn varint(rest: &mut &[u8]) -> Option<i32> {
    let first = u32::from(*rest.split_off_first()?);
    // Nearly all are so short.
    let raw = if first & 0x80 == 0 { first } else { long_varint(first, rest)? };
    Some((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

fn long_varint(first: u32, rest: &mut &[u8]) -> Option<u32> {
    let mut raw = first & 0x7f;
    for shift in (7..35).step_by(7) {
        let byte = *rest.split_off_first()?;
        raw |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(raw);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use sluicebox_frames::Headers;

    use super::*;

    type Header = (Vec<u8>, Option<Vec<u8>>);

    /// Behind other bytes, which stay as they are.
    fn read(bytes: &[u8]) -> Option<Vec<Header>> {
        let mut block = b"before".to_vec();
        let mut writer = HeadersWriter::new(&mut block);
        let copied = RawHeaders(bytes).copy(&mut writer);
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
    fn what_is_cut_off_is_left_to_librdkafka() {
        let bytes = [4, 4, b'a', b'b', 6, b'x', b'y', b'z', 2, b'k', 1];
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end} bytes");
        }
        assert!(read(&bytes).is_some());
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn long_lengths() {
        let mut bytes = vec![2, 2, b'k', 0xd8, 0x04]; // 300 in zigzag: 600 = 0b100_1011000
        bytes.extend([7; 300]);
        assert_eq!(read(&bytes), Some(vec![(b"k".to_vec(), Some(vec![7; 300]))]));
    }
}
