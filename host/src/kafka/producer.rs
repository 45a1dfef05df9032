//! Self-clocked producing: per output partition one batch is with librdkafka, and what gathers meanwhile is the next one.
//! Batches size themselves to the load: one record when idle, thousands when busy. Measured 1.5–1.8 times the throughput
//! of librdkafka's own lingering, at half its CPU and the lowest latency.
//!
//! Records are handed over without a copy: librdkafka reads them from our [`Chunk`]s until it reports on them. Invariant:
//! a chunk's memory is not touched between `send` and its last report, and outlives the client.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Code;
use rdkafka_sys as rd;

use super::chunk::{CHUNK_BYTES, Chunk, Entry, Place};
use super::event_time::{self, Extras};
use super::ffi::{self, Client, Conf, Queue, Topic};
use super::held::Held;
use super::limits::TopicLimits;
use super::problem::{self, Delivery};
use crate::config::{Compression, OutputTimestamp};
use crate::delivery::outgoing::{Outgoing, Owned};
use crate::delivery::ticket::{LaneId, Ticket};
use crate::wake::Waker;

/// Memory of chunks that are kept for use again.
const SPARE_BYTES: usize = 16 * 1024 * 1024;
/// Wait before records that the broker did not take, through no fault of theirs, are sent again.
const RESEND_AFTER: Duration = Duration::from_millis(500);

/// The broker will never take this record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Kind.
    pub code: Code,
    /// For people: topic and reason.
    pub text: String,
    /// The topic's number in its producer.
    pub topic: TopicNumber,
    /// Partition.
    pub partition: u32,
    /// The record.
    pub record: Owned,
}

/// Something that the operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Kind.
    pub code: Code,
    /// For people.
    pub text: String,
    /// The producer cannot go on.
    pub fatal: bool,
}

/// A topic that was added to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicNumber(pub u16);

/// See the module's text.
pub struct Producer {
    // Field order is drop order: topics, queue and client go first, the chunks that librdkafka reads from after them.
    handles: Vec<Topic>,
    main: Queue,
    client: Arc<Client>,
    inbox: Box<Inbox>,
    topics: Vec<Output>,
    batched: bool,
    due: Vec<Place>,
    resend: Vec<(Instant, Place)>,
    spare: Vec<Chunk>,
    spare_bytes: usize,
    native: Vec<rd::rd_kafka_message_t>,
    held: Held,
    /// Lanes whose partitions were given back while something was with librdkafka.
    forgotten: BTreeSet<LaneId>,
    /// Clock time of the last [`Producer::send`], ms since 1970: near enough for limits of timestamps.
    clock: i64,
}

/// Filled by callbacks, which run inside `rd_kafka_poll` on our thread.
#[derive(Default)]
struct Inbox {
    reports: Vec<(*const Entry, i32)>,
    trouble: Vec<Trouble>,
}

struct Output {
    name: String,
    limits: TopicLimits,
    /// Bytes of a chunk of several records.
    chunk_bytes: usize,
    timestamp_now: bool,
    partitions: Vec<Partition>,
    produced: u64,
    produced_bytes: u64,
    refused: u64,
}

#[derive(Default)]
struct Partition {
    /// A record was taken in, which travels alone. librdkafka may send a chunk as several requests, and a broker that has
    /// nothing of this producer yet takes the second one though it refused the first: librdkafka then reports the first as
    /// delivered, too, and it is gone. Once the broker has a record it knows which one comes next.
    begun: bool,
    /// What gathers; the front is the next to go.
    gathered: VecDeque<Chunk>,
    in_flight: Option<Chunk>,
    /// Reports that are still to come for it.
    left: usize,
    failed: Vec<(usize, Code)>,
    /// In `due` already.
    is_due: bool,
    not_before: Option<Instant>,
}

// SAFETY: the pointers in entries point into the chunk's own heap memory; the producer is used by one thread at a time.
unsafe impl Send for Producer {}

impl Producer {
    /// Creates the client.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(mut conf: Conf, waker: &Waker) -> Result<Self, String> {
        let inbox = Box::new(Inbox::default());
        let batched = event_time::supported();
        if batched {
            event_time::intercept::<Entry>(&mut conf)?;
        }
        // SAFETY: live configuration; the boxed inbox outlives the client (field order).
        unsafe {
            rd::rd_kafka_conf_set_dr_msg_cb(conf.as_ptr(), Some(on_report));
            rd::rd_kafka_conf_set_error_cb(conf.as_ptr(), Some(on_error));
            rd::rd_kafka_conf_set_log_cb(conf.as_ptr(), Some(super::log::forward));
            rd::rd_kafka_conf_set_opaque(conf.as_ptr(), (&raw const *inbox).cast_mut().cast());
        }
        let client = conf.create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)?;
        // SAFETY: live client; the reference is ours.
        let main = unsafe { rd::rd_kafka_queue_get_main(client.as_ptr()) };
        let mut main = Queue::adopt(&client, main).ok_or("librdkafka gives no producer queue")?;
        main.wake(waker);
        Ok(Self {
            handles: Vec::new(),
            main,
            client,
            inbox,
            topics: Vec::new(),
            batched,
            due: Vec::new(),
            resend: Vec::new(),
            spare: Vec::new(),
            spare_bytes: 0,
            native: Vec::new(),
            held: Held::default(),
            forgotten: BTreeSet::new(),
            clock: clock(),
        })
    }

    /// Adds a topic of so many partitions (at least one).
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn add_topic(
        &mut self,
        name: &str,
        partitions: u32,
        timestamp: OutputTimestamp,
        compression: Compression,
        limits: TopicLimits,
    ) -> Result<TopicNumber, String> {
        assert!(partitions > 0, "topic {name} has a partition");
        let number = TopicNumber(u16::try_from(self.topics.len()).map_err(|_| "too many outputs")?);
        self.handles.push(Topic::with_compression(&self.client, name, compression.as_str())?);
        self.topics.push(Output {
            name: name.to_owned(),
            limits,
            chunk_bytes: limits.batch_of(CHUNK_BYTES),
            timestamp_now: timestamp == OutputTimestamp::Now,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            produced: 0,
            produced_bytes: 0,
            refused: 0,
        });
        Ok(number)
    }

    /// A topic has so many partitions by now.
    pub fn grow(&mut self, topic: TopicNumber, partitions: u32) {
        let known = &mut self.topics[topic.0 as usize].partitions;
        known.resize_with(known.len().max(partitions as usize), Partition::default);
    }

    /// How many partitions a topic has.
    #[inline]
    #[must_use]
    pub fn partitions(&self, topic: TopicNumber) -> u32 {
        self.topics[topic.0 as usize].partitions.len() as u32
    }

    /// Takes in a record; it leaves with the next [`Producer::send`] when nothing of its partition is in flight.
    #[inline]
    pub fn append(&mut self, topic: TopicNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        let place = Place { topic: topic.0, partition };
        let output = &mut self.topics[topic.0 as usize];
        let timestamp = if output.timestamp_now { 0 } else { record.timestamp.max(0) };
        let out = &mut output.partitions[partition as usize];
        let alone = !out.begun || output.limits.is_doubtful(record, timestamp, self.clock);
        out.begun = true;
        let fits =
            !alone && out.gathered.back().is_some_and(|chunk| chunk.has_room(record.bytes(), output.chunk_bytes));
        if !fits {
            out.gathered.push_back(recycled(&mut self.spare, &mut self.spare_bytes));
        }
        if let Some(chunk) = out.gathered.back_mut() {
            chunk.sealed = alone;
            let bytes = chunk.push(record, timestamp, ticket, place) + size_of::<Entry>();
            self.held.take(ticket.lane, bytes);
        }
        if !out.is_due && out.in_flight.is_none() && out.not_before.is_none() {
            out.is_due = true;
            self.due.push(place);
        }
    }

    /// Hands the next chunk of every idle partition to librdkafka. Records that it refuses on the spot go to `refused`.
    pub fn send(&mut self, now: Instant, refused: &mut Vec<(Ticket, Refusal)>) {
        if !self.due.is_empty() {
            self.clock = clock();
        }
        while let Some(place) = self.due.pop() {
            self.send_one(place, now, refused);
        }
    }

    fn send_one(&mut self, place: Place, now: Instant, refused: &mut Vec<(Ticket, Refusal)>) {
        let topic = self.handles[place.topic as usize].as_ptr();
        let output = &mut self.topics[place.topic as usize];
        let out = &mut output.partitions[place.partition as usize];
        out.is_due = false;
        if out.in_flight.is_some() {
            return;
        }
        let Some(mut chunk) = out.gathered.pop_front() else { return };
        let base = chunk.bytes.as_ptr();
        self.native.clear();
        for entry in &mut chunk.entries {
            entry.base = base;
        }
        for entry in &chunk.entries {
            let (key, value, _) = entry.parts(&chunk.bytes);
            let part = |part: Option<&[u8]>| {
                part.map_or((ptr::null_mut(), 0), |part| (part.as_ptr().cast_mut().cast::<c_void>(), part.len()))
            };
            let ((key, key_len), (payload, len)) = (part(key), part(value));
            self.native.push(rd::rd_kafka_message_t {
                err: Code::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: ptr::null_mut(),
                partition: place.partition as i32,
                payload,
                len,
                key,
                key_len,
                offset: 0,
                _private: (&raw const *entry).cast_mut().cast(),
            });
        }
        if self.batched {
            // SAFETY: live topic; messages point into the chunk, which stays as it is until the last report.
            unsafe {
                rd::rd_kafka_produce_batch(
                    topic,
                    place.partition as i32,
                    0,
                    self.native.as_mut_ptr(),
                    c_int::try_from(self.native.len()).unwrap_or(c_int::MAX),
                );
            }
        } else {
            for (native, entry) in self.native.iter_mut().zip(&chunk.entries) {
                native.err = produce_one(&self.client, topic, native, entry);
            }
        }
        out.left = 0;
        for (i, native) in self.native.iter().enumerate() {
            // SAFETY: a live field.
            match unsafe { ffi::read_code(&raw const native.err) } {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => out.left += 1,
                // librdkafka looked at this record by itself, so its word is about this one alone.
                code if problem::delivery(code) == Delivery::Refused => {
                    let entry = &chunk.entries[i];
                    self.held.release(entry.ticket.lane, entry.held());
                    output.refused += 1;
                    refused.push((entry.ticket, refusal(code, &output.name, entry, &chunk)));
                }
                code => out.failed.push((i, code)),
            }
        }
        out.in_flight = Some(chunk);
        if out.left == 0 {
            self.finish(place, now, refused);
        }
    }

    /// Takes in reports. `delivered` gets the ticket of each record that is durable; `refused` those that never will be.
    pub fn poll(
        &mut self,
        now: Instant,
        mut delivered: impl FnMut(Ticket),
        refused: &mut Vec<(Ticket, Refusal)>,
        trouble: &mut Vec<Trouble>,
    ) {
        self.resend_due(now);
        if !self.main.take_ready() {
            return;
        }
        // Each call serves one event, which carries the reports of a whole batch.
        // SAFETY: live client; the callbacks fill the inbox.
        while unsafe { rd::rd_kafka_poll(self.client.as_ptr(), 0) } > 0 {}
        trouble.append(&mut self.inbox.trouble);
        let mut reports = std::mem::take(&mut self.inbox.reports);
        for (entry, code) in reports.drain(..) {
            // SAFETY: the entry of a chunk in flight, which stays until its last report was taken in (below).
            let (place, ticket, size) = unsafe { ((*entry).place, (*entry).ticket, (*entry).size()) };
            let output = &mut self.topics[place.topic as usize];
            let out = &mut output.partitions[place.partition as usize];
            out.left -= 1;
            if code == 0 {
                self.held.release(ticket.lane, size + size_of::<Entry>());
                output.produced += 1;
                output.produced_bytes += size as u64;
                delivered(ticket);
            } else if let Some(chunk) = &out.in_flight {
                // SAFETY: both point into the same `entries`.
                let i = unsafe { entry.offset_from(chunk.entries.as_ptr()) };
                out.failed.push((i as usize, Code::try_from(code).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN)));
            }
            if out.left == 0 {
                self.finish(place, now, refused);
            }
        }
        self.inbox.reports = reports;
        self.recall();
    }

    /// Nothing of forgotten lanes can come back once nothing is with librdkafka.
    fn recall(&mut self) {
        if self.held.records == 0 && !self.forgotten.is_empty() {
            self.forgotten.clear();
        }
    }

    /// Every record of the chunk in flight was reported on.
    fn finish(&mut self, place: Place, now: Instant, refused: &mut Vec<(Ticket, Refusal)>) {
        let output = &mut self.topics[place.topic as usize];
        let out = &mut output.partitions[place.partition as usize];
        let Some(mut chunk) = out.in_flight.take() else { return };
        let mut failed = std::mem::take(&mut out.failed);
        if !self.forgotten.is_empty() {
            failed.retain(|(i, _)| {
                let entry = &chunk.entries[*i];
                let stays = !self.forgotten.contains(&entry.ticket.lane);
                if !stays {
                    self.held.release(entry.ticket.lane, entry.held());
                }
                stays
            });
        }
        if !failed.is_empty() {
            failed.sort_by_key(|(i, _)| *i);
            let refusal_code =
                failed.iter().map(|(_, code)| *code).find(|c| problem::delivery(*c) == Delivery::Refused);
            let indices: Vec<usize> = failed.iter().map(|(i, _)| *i).collect();
            match refusal_code {
                // A batch fails as a whole for one bad record: halve it until that one stands alone.
                Some(_) if indices.len() > 1 => {
                    let (first, second) = indices.split_at(indices.len() / 2);
                    out.gathered.push_front(Chunk::part(&chunk, second));
                    out.gathered.push_front(Chunk::part(&chunk, first));
                }
                Some(code) => {
                    let entry = &chunk.entries[indices[0]];
                    self.held.release(entry.ticket.lane, entry.held());
                    output.refused += 1;
                    refused.push((entry.ticket, refusal(code, &output.name, entry, &chunk)));
                }
                None => {
                    let code = failed[0].1;
                    self.inbox.trouble.push(Trouble {
                        code,
                        text: format!("topic `{}`: {}", output.name, problem::explain(code, "")),
                        fatal: problem::delivery(code) == Delivery::Fatal,
                    });
                    out.gathered.push_front(Chunk::part(&chunk, &indices));
                    out.not_before = Some(now + RESEND_AFTER);
                    self.resend.push((now + RESEND_AFTER, place));
                    // Trouble is handed out by the next poll, which must not wait for a report to come.
                    self.main.mark_ready();
                }
            }
        }
        chunk.bytes.clear();
        chunk.entries.clear();
        if !chunk.sealed && self.spare_bytes + chunk.capacity() <= SPARE_BYTES {
            self.spare_bytes += chunk.capacity();
            self.spare.push(chunk);
        }
        if !out.gathered.is_empty() && out.not_before.is_none() && !out.is_due {
            out.is_due = true;
            self.due.push(place);
        }
    }

    fn resend_due(&mut self, now: Instant) {
        if self.resend.is_empty() {
            return;
        }
        let (ready, wait): (Vec<_>, Vec<_>) = self.resend.drain(..).partition(|(at, _)| *at <= now);
        self.resend = wait;
        for (_, place) in ready {
            let out = &mut self.topics[place.topic as usize].partitions[place.partition as usize];
            out.not_before = None;
            if !out.is_due && out.in_flight.is_none() {
                out.is_due = true;
                self.due.push(place);
            }
        }
    }

    /// Drops what waits to be sent for these lanes. Their partitions have another owner now, who does the records again:
    /// sent later, ours would come after his and turn the order back. What is in flight cannot be called back; when it
    /// fails, it is not sent again.
    pub fn forget(&mut self, lanes: &[LaneId]) {
        self.forgotten.extend(lanes);
        let held = &mut self.held;
        for chunk in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions).flat_map(|out| &mut out.gathered) {
            chunk.entries.retain(|entry| {
                let stays = !lanes.contains(&entry.ticket.lane);
                if !stays {
                    held.release(entry.ticket.lane, entry.held());
                }
                stays
            });
        }
        for out in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            out.gathered.retain(|chunk| !chunk.entries.is_empty());
        }
        self.recall();
    }

    /// When [`Producer::poll`] has something to do though no report came.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.resend.iter().map(|(at, _)| *at).min()
    }

    /// Bytes taken in and not reported on.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.held.bytes
    }

    /// Bytes of one lane, taken in and not reported on.
    #[inline]
    #[must_use]
    pub fn bytes_of(&self, lane: LaneId) -> usize {
        self.held.of(lane)
    }

    /// Records taken in and not reported on.
    #[must_use]
    pub const fn records(&self) -> usize {
        self.held.records
    }

    /// Records and bytes that a topic took since the start.
    #[must_use]
    pub fn produced(&self, topic: TopicNumber) -> (u64, u64) {
        let output = &self.topics[topic.0 as usize];
        (output.produced, output.produced_bytes)
    }

    /// Records of a topic that were refused for good since the start.
    #[must_use]
    pub fn refused(&self, topic: TopicNumber) -> u64 {
        self.topics[topic.0 as usize].refused
    }

    /// Looks for reports though nobody announced any.
    pub fn look_again(&self) {
        self.main.mark_ready();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // What is still queued is not settled, so it is produced again by whoever takes the partition over; waiting for it
        // here would hold up a forced stop. RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT.
        // SAFETY: live client.
        unsafe { rd::rd_kafka_purge(self.client.as_ptr(), 3) };
    }
}

fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn recycled(spare: &mut Vec<Chunk>, spare_bytes: &mut usize) -> Chunk {
    match spare.pop() {
        Some(chunk) => {
            *spare_bytes -= chunk.capacity();
            chunk
        }
        None => Chunk::default(),
    }
}

fn refusal(code: Code, topic: &str, entry: &Entry, chunk: &Chunk) -> Refusal {
    let (key, value, headers) = entry.parts(&chunk.bytes);
    Refusal {
        code,
        text: format!("topic `{topic}` refuses the record: {}", problem::explain(code, "")),
        topic: TopicNumber(entry.place.topic),
        partition: entry.place.partition,
        record: Owned {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.to_vec(),
            timestamp: entry.timestamp,
        },
    }
}

/// The public way to give a message its timestamp and headers; see [`event_time`].
fn produce_one(
    client: &Client,
    topic: *mut rd::rd_kafka_topic_t,
    native: &rd::rd_kafka_message_t,
    entry: &Entry,
) -> Code {
    let headers = entry.headers();
    let list = if headers.is_empty() { ptr::null_mut() } else { event_time::native_headers(headers) };
    // SAFETY: live client and topic; the arguments are those that each type tag announces. On success the headers are
    // librdkafka's.
    unsafe {
        use rd::rd_kafka_vtype_t as tag;
        let code = rd::rd_kafka_producev(
            client.as_ptr(),
            tag::RD_KAFKA_VTYPE_RKT,
            topic,
            tag::RD_KAFKA_VTYPE_PARTITION,
            native.partition,
            tag::RD_KAFKA_VTYPE_MSGFLAGS,
            0 as c_int,
            tag::RD_KAFKA_VTYPE_VALUE,
            native.payload,
            native.len,
            tag::RD_KAFKA_VTYPE_KEY,
            native.key,
            native.key_len,
            tag::RD_KAFKA_VTYPE_TIMESTAMP,
            entry.timestamp,
            tag::RD_KAFKA_VTYPE_OPAQUE,
            native._private,
            tag::RD_KAFKA_VTYPE_HEADERS,
            list,
            tag::RD_KAFKA_VTYPE_END,
        );
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR && !list.is_null() {
            rd::rd_kafka_headers_destroy(list);
        }
        code
    }
}

unsafe extern "C" fn on_report(
    _client: *mut rd::rd_kafka_t,
    message: *const rd::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: called inside our own `rd_kafka_poll`; the opaque is the producer's boxed inbox, nobody else borrows it then.
    // The code is read as a number, because a broker may send codes that this library does not name.
    unsafe {
        let inbox = &mut *opaque.cast::<Inbox>();
        let mut code = (&raw const (*message).err).cast::<i32>().read();
        // A success without a place in the log: the broker took a request that was sent again for a repeat of one that it
        // knows. Where the request before it was refused meanwhile it knows of none, so the record is sent once more.
        if code == 0 && (*message).offset < 0 {
            code = Code::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER as i32;
        }
        inbox.reports.push(((*message)._private.cast::<Entry>().cast_const(), code));
    }
}

unsafe extern "C" fn on_error(client: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: as in `on_report`.
    unsafe {
        let inbox = &mut *opaque.cast::<Inbox>();
        let mut code = Code::try_from(code).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN);
        let mut text = ffi::text(reason);
        let fatal = code == Code::RD_KAFKA_RESP_ERR__FATAL;
        if fatal {
            let mut message = [0 as c_char; 512];
            code = rd::rd_kafka_fatal_error(client, message.as_mut_ptr(), message.len());
            text = ffi::text(message.as_ptr());
        }
        inbox.trouble.push(Trouble { code, text: problem::explain(code, &text), fatal });
    }
}

#[cfg(test)]
mod tests;
