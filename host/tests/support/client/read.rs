//! Reading: everything a topic holds, or its records as they come, with every byte and null kept.

use std::ffi::c_char;
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka_sys::bindings::*;

use super::super::PATIENCE;
use super::super::kafka::Kafka;
use super::native::{Client, Topic, check, config, error_text, left, milliseconds, passes};
use super::{Record, TimestampType};

/// All records of a topic up to its end offsets at the time of the call, by partition and offset.
pub fn read_all(kafka: &Kafka, topic: &str) -> Vec<Record> {
    let mut reader = Reader::new(kafka, topic);
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while !reader.at_end() {
        let read = reader.read_into(&mut records, deadline);
        assert!(read, "{topic} could not be read to its end within {PATIENCE:?}: {} records read", records.len());
    }
    records.retain(|record: &Record| record.offset < reader.ends[record.partition as usize]);
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// Reads a topic from its beginning until `count` records came or the time is over; what came, by partition and offset.
pub fn read_within(kafka: &Kafka, topic: &str, count: usize, patience: Duration) -> Vec<Record> {
    let mut reader = Reader::new(kafka, topic);
    let deadline = Instant::now() + patience;
    let mut records = Vec::new();
    while records.len() < count && reader.read_into(&mut records, deadline) {}
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// Follows a topic from its beginning.
pub struct Reader {
    queue: *mut rd_kafka_queue_t,
    topic: Topic,
    /// End offsets when the reader was made, and the next offset to read, by partition.
    ends: Vec<i64>,
    next: Vec<i64>,
    buffer: Vec<*mut rd_kafka_message_t>,
    // Dropped last: librdkafka waits for everything that refers to the client.
    client: Client,
}

// SAFETY: librdkafka handles may be used from any thread; the buffer is empty between calls.
unsafe impl Send for Reader {}

impl Reader {
    pub fn new(kafka: &Kafka, topic: &str) -> Reader {
        Reader::with(config(kafka.bootstrap()), topic)
    }

    /// A reader with further settings, such as a login.
    pub fn with(mut config: ClientConfig, topic: &str) -> Reader {
        config
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", "16384")
            .set("enable.auto.commit", "false");
        let client = Client::new(rd_kafka_type_t::RD_KAFKA_CONSUMER, &config);
        let partitions = client.partitions(topic, PATIENCE);
        let marks: Vec<(i64, i64)> =
            (0..partitions).map(|partition| client.watermarks(topic, partition, PATIENCE)).collect();
        let name = topic;
        let topic = Topic::new(&client, topic);
        // SAFETY: one queue takes what all partitions deliver; it is freed in `drop`.
        let queue = unsafe { rd_kafka_queue_new(client.as_ptr()) };
        for (partition, (low, _)) in marks.iter().enumerate() {
            // SAFETY: topic and queue live longer than the fetching, which `drop` stops.
            let failed = unsafe { rd_kafka_consume_start_queue(topic.as_ptr(), partition as i32, *low, queue) } != 0;
            assert!(!failed, "cannot read {name}[{partition}]");
        }
        let (next, ends) = marks.into_iter().unzip();
        Reader { queue, topic, ends, next, buffer: vec![null_mut(); 4096], client }
    }

    /// Whether all was read that was there when the reader was made.
    pub fn at_end(&self) -> bool {
        self.next.iter().zip(&self.ends).all(|(next, end)| next >= end)
    }

    /// Waits for further records or news of an end and appends the records; `false` when the deadline passed first.
    pub fn read_into(&mut self, records: &mut Vec<Record>, deadline: Instant) -> bool {
        let Some(patience) = left(deadline) else { return false };
        // SAFETY: the first call waits for one message, the second takes those that are there; all are freed below.
        let count = unsafe {
            let first = rd_kafka_consume_queue(self.queue, milliseconds(patience));
            if first.is_null() {
                return false;
            }
            self.buffer[0] = first;
            let rest = self.buffer[1..].as_mut_ptr();
            1 + rd_kafka_consume_batch_queue(self.queue, 0, rest, self.buffer.len() - 1).max(0) as usize
        };
        for index in 0..count {
            let pointer = self.buffer[index];
            // SAFETY: a message of ours until it is destroyed.
            let message = unsafe { &*pointer };
            let partition = message.partition as usize;
            match message.err {
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    records.push(record(message));
                    self.next[partition] = message.offset + 1;
                }
                // The offset of an end counts markers and gaps too.
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                    self.next[partition] = self.next[partition].max(message.offset);
                }
                // A broker of a test may be down for a while; the client goes on by itself.
                code if passes(code) => {}
                error => panic!("reading failed: {}", error_text(error)),
            }
            // SAFETY: freed once.
            unsafe { rd_kafka_message_destroy(pointer) };
        }
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: stops what `with` started, then frees the queue; topic and client are dropped after it.
        unsafe {
            for partition in 0..self.next.len() {
                rd_kafka_consume_stop(self.topic.as_ptr(), partition as i32);
            }
            rd_kafka_queue_destroy(self.queue);
        }
    }
}

fn record(message: &rd_kafka_message_t) -> Record {
    let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: reads the message and writes the type.
    let timestamp = unsafe { rd_kafka_message_timestamp(message, &raw mut kind) };
    Record {
        partition: message.partition,
        offset: message.offset,
        timestamp,
        timestamp_type: match kind {
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => TimestampType::None,
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => TimestampType::Create,
            rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => TimestampType::LogAppend,
        },
        // SAFETY: pointer and length of one message belong together.
        key: unsafe { bytes(message.key.cast(), message.key_len) },
        // SAFETY: as above.
        value: unsafe { bytes(message.payload.cast(), message.len) },
        headers: headers(message),
    }
}

fn headers(message: &rd_kafka_message_t) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut list = null_mut();
    let mut found = Vec::new();
    // SAFETY: the list belongs to the message; names are C strings, values come with their length.
    unsafe {
        match rd_kafka_message_headers(message, &raw mut list) {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__NOENT => return found,
            code => check(code, "reading headers"),
        }
        let (mut name, mut value, mut length): (*const c_char, _, usize) = (null(), null(), 0);
        let no_error = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        while rd_kafka_header_get_all(list, found.len(), &raw mut name, &raw mut value, &raw mut length) == no_error {
            let name = std::ffi::CStr::from_ptr(name).to_bytes().to_vec();
            found.push((name, bytes(value.cast(), length)));
        }
    }
    found
}

/// # Safety
/// `pointer` is null or points to `length` bytes.
unsafe fn bytes(pointer: *const u8, length: usize) -> Option<Vec<u8>> {
    // SAFETY: by the contract above.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer, length) }.to_vec())
}
