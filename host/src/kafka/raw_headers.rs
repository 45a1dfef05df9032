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

/// Headers of one record, checked to their end.
#[derive(Clone, Copy)]
pub(super) struct RawHeaders<'a> {
    count: usize,
    /// Behind the count.
    bytes: &'a [u8],
}

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
        Self::parse(unsafe { slice::from_raw_parts(place, len) })
    }

    /// Checks all of them, so that copying cannot stop half-way.
    #[inline]
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes == [0] {
            return Some(Self { count: 0, bytes: &[] });
        }
        let mut rest = bytes;
        let count = usize::try_from(varint(&mut rest)?).ok()?;
        let headers = Self { count, bytes: rest };
        for _ in 0..count {
            next(&mut rest)?;
        }
        Some(headers)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn copy(&self, writer: &mut HeadersWriter<'_>) {
        let mut rest = self.bytes;
        for (name, value) in (0..self.count).map_while(|_| next(&mut rest)) {
            writer.push(name, value);
        }
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
    let mut raw = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = *rest.split_off_first()?;
        raw |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((raw >> 1) as i32 ^ -((raw & 1) as i32));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header = (Vec<u8>, Option<Vec<u8>>);

    fn read(bytes: &[u8]) -> Option<Vec<Header>> {
        let headers = RawHeaders::parse(bytes)?;
        let mut rest = headers.bytes;
        (0..headers.count).map(|_| next(&mut rest).map(|(n, v)| (n.to_vec(), v.map(<[u8]>::to_vec)))).collect()
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
