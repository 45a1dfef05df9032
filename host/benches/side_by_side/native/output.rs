//! Self-clocked producing: one batch in flight per output partition; what gathers meanwhile is the next one.
//!
//! Records are copied once, into chunks; librdkafka sends from there. A chunk knows the lowest offset of each input
//! partition in it, so what may be committed is the lowest over the few chunks that are not acknowledged.

use std::collections::VecDeque;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use rdkafka_sys::bindings::*;

use super::{Job, Kind, Wake, check, clients, text};

/// Bytes of one produce request, below the broker's limit of a million.
const CHUNK_BYTES: usize = 900_000;
/// What a record costs beside key and value: its lengths and deltas.
const RECORD_OVERHEAD: usize = 24;
/// Bytes accepted and not acknowledged.
const ROOM: usize = 16 << 20;

/// A record as it was read.
pub struct RecordView<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp: i64,
    /// Null without any. Taken over.
    pub headers: *mut rd_kafka_headers_t,
}

struct Entry {
    start: usize,
    /// `None` is null.
    key: Option<usize>,
    value: Option<usize>,
    extras: Extras,
}

/// What an interceptor adds to the message on its way into librdkafka.
pub struct Extras {
    pub timestamp: i64,
    /// The interceptor gives them away.
    pub headers: *mut rd_kafka_headers_t,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// The lowest offset of each input partition in here.
    first: Vec<Option<i64>>,
}

impl Chunk {
    fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * RECORD_OVERHEAD
    }
}

#[derive(Default)]
struct Output {
    waiting: VecDeque<Chunk>,
    in_flight: Option<Chunk>,
}

/// Counts the reports of one partition; written by the callback, on our thread, inside `rd_kafka_poll`.
#[derive(Default)]
struct Reports {
    by_partition: Vec<usize>,
}

pub struct Outputs {
    producer: *mut rd_kafka_t,
    topic: *mut rd_kafka_topic_t,
    outputs: Vec<Output>,
    reports: Box<Reports>,
    spare: Vec<Chunk>,
    messages: Vec<rd_kafka_message_t>,
    bytes: usize,
    with_headers: bool,
}

impl Outputs {
    /// Opens the producer and learns how many partitions the topic has.
    pub fn open(job: &Job, wake: *const Wake) -> Outputs {
        let mut reports = Box::new(Reports::default());
        let opaque: *mut Reports = &raw mut *reports;
        let with_headers = job.kind == Kind::Headers;
        let producer = clients::producer(&job.bootstrap, with_headers, on_delivery, opaque.cast());
        let name = CString::new(job.output.as_str()).expect("a topic name has no NUL");
        let mut metadata: *const rd_kafka_metadata = std::ptr::null();
        // SAFETY: handles that were just made; the metadata is freed after its field was read.
        let (topic, partitions) = unsafe {
            let topic = rd_kafka_topic_new(producer, name.as_ptr(), null_mut());
            check(rd_kafka_metadata(producer, 0, topic, (&raw mut metadata).cast(), 30_000), "the output's partitions");
            let partitions = (*(*metadata).topics).partition_cnt as usize;
            rd_kafka_metadata_destroy(metadata.cast());
            let queue = rd_kafka_queue_get_main(producer);
            Wake::attach(wake, queue);
            rd_kafka_queue_destroy(queue);
            (topic, partitions)
        };
        assert!(partitions > 0, "native: the output topic is not there");
        reports.by_partition = vec![0; partitions];
        let outputs = (0..partitions).map(|_| Output::default()).collect();
        let (spare, messages) = (Vec::new(), Vec::new());
        Outputs { producer, topic, outputs, reports, spare, messages, bytes: 0, with_headers }
    }

    pub fn has_room(&self) -> bool {
        self.bytes < ROOM
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes a copy of the record with the first bytes of its value in upper case.
    pub fn push(&mut self, record: &RecordView<'_>, uppercase: usize, partition: i32, offset: i64) {
        let target = self.partition_of(record.key);
        let output = &mut self.outputs[target];
        let key = record.key.unwrap_or_default();
        let value = record.value.unwrap_or_default();
        let size = key.len() + value.len();
        if output.waiting.back().is_none_or(|chunk| chunk.size() + size + RECORD_OVERHEAD > CHUNK_BYTES) {
            output.waiting.push_back(self.spare.pop().unwrap_or_default());
        }
        let chunk = output.waiting.back_mut().expect("there is one now");
        let start = chunk.bytes.len();
        chunk.bytes.extend_from_slice(key);
        chunk.bytes.extend_from_slice(value);
        let value_at = start + key.len();
        chunk.bytes[value_at..value_at + value.len().min(uppercase)].make_ascii_uppercase();
        chunk.entries.push(Entry {
            start,
            key: record.key.map(<[u8]>::len),
            value: record.value.map(<[u8]>::len),
            extras: Extras { timestamp: record.timestamp.max(0), headers: record.headers },
        });
        let partition = partition as usize;
        if chunk.first.len() <= partition {
            chunk.first.resize(partition + 1, None);
        }
        chunk.first[partition].get_or_insert(offset);
        self.bytes += size;
    }

    /// Takes the broker's answers and sends what may go; whether anything happened.
    pub fn turn(&mut self) -> bool {
        // SAFETY: the producer is open; the delivery callback runs in here.
        let mut moved = unsafe { rd_kafka_poll(self.producer, 0) } > 0;
        for partition in 0..self.outputs.len() {
            let done = self.outputs[partition].in_flight.as_ref();
            if done.is_some_and(|chunk| chunk.entries.len() == self.reports.by_partition[partition]) {
                self.retire(partition);
                moved = true;
            }
            if self.outputs[partition].in_flight.is_none() && !self.outputs[partition].waiting.is_empty() {
                self.send(partition);
                moved = true;
            }
        }
        moved
    }

    /// The lowest offset of an input partition that is not acknowledged, `None` when all are.
    pub fn first_unsettled(&self, partition: i32) -> Option<i64> {
        let chunks = self.outputs.iter().flat_map(|output| output.in_flight.iter().chain(&output.waiting));
        chunks.filter_map(|chunk| chunk.first.get(partition as usize).copied().flatten()).min()
    }

    pub fn close(self) {
        // SAFETY: nothing is in flight.
        unsafe {
            rd_kafka_topic_destroy(self.topic);
            rd_kafka_destroy(self.producer);
        }
    }

    /// As Java's default partitioner does; keys are never null in this measurement.
    fn partition_of(&self, key: Option<&[u8]>) -> usize {
        let Some(key) = key else { return 0 };
        let (count, none) = (self.outputs.len() as i32, null_mut::<c_void>());
        // SAFETY: this partitioner looks at the key and the count only.
        let partition =
            unsafe { rd_kafka_msg_partitioner_murmur2(self.topic, key.as_ptr().cast(), key.len(), count, none, none) };
        partition as usize
    }

    fn retire(&mut self, partition: usize) {
        let mut chunk = self.outputs[partition].in_flight.take().expect("there is one");
        self.bytes -= chunk.bytes.len();
        chunk.bytes.clear();
        chunk.entries.clear();
        chunk.first.clear();
        self.spare.push(chunk);
    }

    fn send(&mut self, partition: usize) {
        let chunk = self.outputs[partition].waiting.pop_front().expect("there is one");
        let bytes = chunk.bytes.as_ptr();
        self.messages.clear();
        let with_headers = self.with_headers;
        self.messages.extend(chunk.entries.iter().map(|entry| message(bytes, entry, with_headers)));
        self.reports.by_partition[partition] = 0;
        let count = self.messages.len() as i32;
        // SAFETY: no copy: the chunk is kept until every message of it is reported. The key is always copied.
        let taken =
            unsafe { rd_kafka_produce_batch(self.topic, partition as i32, 0, self.messages.as_mut_ptr(), count) };
        assert!(taken == count, "native: {taken} of {count} records were taken");
        self.outputs[partition].in_flight = Some(chunk);
    }
}

fn message(bytes: *const u8, entry: &Entry, with_headers: bool) -> rd_kafka_message_t {
    // For the interceptor: where event time and headers are, which the chunk keeps; or event time itself.
    let extras = if with_headers { (&raw const entry.extras) as usize } else { entry.extras.timestamp as usize };
    // SAFETY: both places lie in the chunk.
    let (key, value) = unsafe { (bytes.add(entry.start), bytes.add(entry.start + entry.key.unwrap_or(0))) };
    rd_kafka_message_t {
        err: rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: null_mut(),
        partition: 0,
        payload: entry.value.map_or(null_mut(), |_| value.cast_mut().cast()),
        len: entry.value.unwrap_or(0),
        key: entry.key.map_or(null_mut(), |_| key.cast_mut().cast()),
        key_len: entry.key.unwrap_or(0),
        offset: 0,
        _private: extras as *mut c_void,
    }
}

unsafe extern "C" fn on_delivery(_: *mut rd_kafka_t, message: *const rd_kafka_message_t, reports: *mut c_void) {
    // SAFETY: the opaque is the boxed reports; only this thread polls the producer.
    let (reports, message) = unsafe { (&mut *reports.cast::<Reports>(), &*message) };
    let refused = message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    assert!(!refused, "native: a record was refused: {}", text(message.err));
    reports.by_partition[message.partition as usize] += 1;
}
