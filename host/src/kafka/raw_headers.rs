//! A fetched record's headers as they lie in the fetch buffer: no list, no allocation.
//!
//! `rd_kafka_message_headers`, the public way, allocates a reader and a list for every record that is asked (measured: an
//! eighth of the I/O thread's time for records *without* headers). In Kafka's record format 2 (KIP-98) the headers follow
//! the value, and librdkafka keeps where: in 2.12.1 `rkm_u.consumer.binhdrs`, a length and a pointer, at offset 120 of
//! `rd_kafka_msg_t`. They are trusted for a record only where that pointer is the very end of its value; for any other
//! record the public way is taken. A layout that changed costs time, then, and nothing else. Frames have each header in the
//! same form, so those of a record are looked through and copied in one piece.

use std::slice;

use rdkafka_sys as rd;

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

    /// As they came, their count in front.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
}
