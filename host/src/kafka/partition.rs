//! One partition's queue: drained into burst frames, straight from librdkafka's buffers.

use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::Arc;

use super::Code;
use rdkafka_sys as rd;
use sluicebox_frames::{HeadersWriter, MessagesWriter, NewMessage, TimestampType};

use super::ffi::{self, Client, Queue};
use super::raw_headers::RawHeaders;
use crate::wake::Waker;

/// Most messages that are taken from librdkafka at once; what does not fit the burst waits here, a moment.
const DRAIN: usize = 512;

/// See the module's text.
pub struct PartitionQueue {
    queue: Queue,
    /// Taken from librdkafka; those before `next` are packed, and destroyed.
    drained: Vec<*mut rd::rd_kafka_message_t>,
    next: usize,
    /// librdkafka handed out an error in a record's place, and counts it as that record in its position
    /// (confluentinc/librdkafka#4844): the position says nothing any more.
    tainted: bool,
}

// SAFETY: the messages in `drained` are ours alone, and may be read and freed on any thread.
unsafe impl Send for PartitionQueue {}

/// What [`PartitionQueue::fill`] found.
#[derive(Debug, Default)]
pub struct Filled {
    /// librdkafka reports an error of this partition.
    pub problem: Option<(Code, String)>,
}

impl PartitionQueue {
    /// Splits the partition's queue off the consumer's. Before the partition is assigned.
    pub(super) fn split(client: &Arc<Client>, topic: &str, partition: i32, waker: &Waker) -> Result<Self, String> {
        let c_topic = ffi::c_string(topic)?;
        // SAFETY: live client, NUL-terminated name; the reference is ours.
        let queue = unsafe { rd::rd_kafka_queue_get_partition(client.as_ptr(), c_topic.as_ptr(), partition) };
        let mut queue =
            Queue::adopt(client, queue).ok_or_else(|| format!("librdkafka has no queue for {topic}[{partition}]"))?;
        // SAFETY: live queue; null ends the forwarding to the consumer's queue.
        unsafe { rd::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut()) };
        queue.wake(waker);
        Ok(Self { queue, drained: Vec::with_capacity(DRAIN), next: 0, tainted: false })
    }

    /// True when there may be something to fill a burst with.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.waiting().is_some() || self.queue.is_ready()
    }

    /// True when every message that librdkafka handed out was packed, so that its position is where the lane stands.
    #[must_use]
    pub fn is_read_up(&self) -> bool {
        self.waiting().is_none() && !self.tainted
    }

    /// The first message that is not packed.
    #[inline]
    fn waiting(&self) -> Option<*mut rd::rd_kafka_message_t> {
        self.drained.get(self.next).copied()
    }

    /// The first one that is not packed is done with.
    #[inline]
    fn pass(&mut self, message: *mut rd::rd_kafka_message_t) {
        self.next += 1;
        // SAFETY: ours, and behind `next` nobody looks at it again.
        unsafe { rd::rd_kafka_message_destroy(message) }
    }

    fn forget(&mut self) {
        while let Some(message) = self.waiting() {
            self.pass(message);
        }
    }

    /// Forgets what was fetched: the partition is read from another offset now.
    pub fn restart(&mut self) {
        self.forget();
        self.tainted = false;
        self.queue.mark_ready();
    }

    /// Looks again though nobody said so: a lost wake-up must not stop a partition for ever.
    pub fn look_again(&self) {
        self.queue.mark_ready();
    }

    /// Packs messages into a burst until it holds `max_messages`, or `max_bytes` of payload and more than one message, or
    /// there is no more. `each` gets the offset of every message that is packed; what it refuses is not.
    pub fn fill<E>(
        &mut self,
        burst: &mut MessagesWriter<'_>,
        max_messages: usize,
        max_bytes: usize,
        mut each: impl FnMut(i64) -> Result<(), E>,
    ) -> Result<Filled, E> {
        let mut filled = Filled::default();
        while (burst.count() as usize) < max_messages && (burst.count() == 0 || burst.payload_len() < max_bytes) {
            if self.waiting().is_none() && !self.drain(max_messages - burst.count() as usize) {
                break;
            }
            let Some(message) = self.waiting() else { break };
            // SAFETY: a live message.
            let raw = unsafe { &*message };
            // SAFETY: a live field.
            let code = unsafe { ffi::read_code(&raw const raw.err) };
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                // SAFETY: live message.
                let text = ffi::text(unsafe { rd::rd_kafka_message_errstr(message) });
                filled.problem = Some((code, text));
                self.tainted = true;
                self.pass(message);
                break;
            }
            if burst.count() > 0 && burst.payload_len() + raw.len + raw.key_len > max_bytes {
                break;
            }
            each(raw.offset)?;
            // SAFETY: a live message without an error.
            unsafe { pack(message, burst) };
            self.pass(message);
        }
        Ok(filled)
    }

    /// Takes up to `count` messages from librdkafka; false when there was none.
    fn drain(&mut self, count: usize) -> bool {
        if !self.queue.take_ready() {
            return false;
        }
        let room = count.clamp(1, DRAIN);
        self.next = 0;
        self.drained.clear();
        // SAFETY: room for `room` pointers, as many as are written are valid; a queue that is forwarded nowhere, drained by
        // this thread only.
        let taken = unsafe {
            let taken = rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.drained.as_mut_ptr(), room);
            let taken = usize::try_from(taken).unwrap_or(0);
            self.drained.set_len(taken);
            taken
        };
        if taken == room {
            self.queue.mark_ready(); // there may be more, and its coming was announced already
        }
        taken > 0
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // Messages hold their partition, which the client waits for.
        self.forget();
    }
}

/// Copies a message into a frame: the one copy between librdkafka's buffer and the guest's memory.
///
/// # Safety
/// `message` is live and has no error.
#[inline]
unsafe fn pack(message: *mut rd::rd_kafka_message_t, burst: &mut MessagesWriter<'_>) {
    // SAFETY: live message by the caller's word; key and payload are null or of the length beside them.
    unsafe {
        let raw = &*message;
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp = rd::rd_kafka_message_timestamp(message, &mut kind);
        let new = NewMessage {
            offset: raw.offset,
            timestamp,
            timestamp_type: match kind {
                rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampType::CreateTime,
                rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => TimestampType::LogAppendTime,
                rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => TimestampType::None,
            },
            key: bytes(raw.key, raw.key_len),
            value: bytes(raw.payload, raw.len),
            attempt: 1,
            source: 0,
        };
        match RawHeaders::of(message) {
            Some(headers) if headers.is_empty() => burst.push(&new, sluicebox_frames::Headers::default()),
            raw => burst.push_with(&new, |writer| {
                if !raw.is_some_and(|raw| writer.push_record_headers(raw.bytes())) {
                    copy_headers(message, writer);
                }
            }),
        }
    }
}

/// # Safety
/// `pointer` is null or points to `len` bytes that live as long as the message.
#[inline]
unsafe fn bytes<'a>(pointer: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's word.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer.cast::<u8>(), len) })
}

/// The public way. Header names are taken as bytes: Kafka does not promise UTF-8. (Rust's rdkafka panics on such a name.)
///
/// # Safety
/// `message` is live.
#[cold]
unsafe fn copy_headers(message: *mut rd::rd_kafka_message_t, writer: &mut HeadersWriter<'_>) {
    let mut headers: *mut rd::rd_kafka_headers_t = ptr::null_mut();
    // SAFETY: a live message, whose the list stays.
    if unsafe { rd::rd_kafka_message_headers(message, &mut headers) } != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return;
    }
    for i in 0.. {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0usize);
        // SAFETY: a live list; name and value stay valid as long as it.
        unsafe {
            if rd::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut len)
                != Code::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return;
            }
            writer.push(std::ffi::CStr::from_ptr(name).to_bytes(), bytes(value, len));
        }
    }
}
