//! Self-clocked producing: per output partition one batch is with librdkafka, and what gathers meanwhile is the next one.
//! Batches size themselves to the load: one record when idle, thousands when busy. Measured 1.5–1.8 times the throughput
//! of librdkafka's own lingering, at half its CPU and the lowest latency.
//!
//! Records are handed over without a copy: librdkafka reads them from our [`Chunk`]s until it reports on them. Invariant:
//! a chunk's memory is not touched between `send` and its last report, and outlives the client.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod link;

use super::Code;
use rdkafka_sys as rd;

use super::chunk::{CHUNK_BYTES, Chunk, Entry, Place};
use super::ffi::{self, Conf};
use super::held::Held;
use super::limits::TopicLimits;
use super::problem::{self, Delivery};
use crate::config::{Compression, OutputTimestamp};
use crate::delivery::outgoing::{Outgoing, Owned};
use crate::delivery::ticket::{LaneId, Run, Ticket};
use crate::wake::Waker;
use link::{Failed, Inbox, Link, Taken};

/// Memory of chunks that are kept for use again.
const SPARE_BYTES: usize = 16 * 1024 * 1024;
/// Records that are handed to librdkafka in one call.
const HANDED: usize = 256;
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
    link: Option<Link>,
    /// What the client is made of, until it is.
    conf: Option<Conf>,
    waker: Waker,
    inbox: Box<Inbox>,
    topics: Vec<Output>,
    due: Vec<Place>,
    resend: Vec<(Instant, Place)>,
    spare: Vec<Chunk>,
    spare_bytes: usize,
    native: Vec<rd::rd_kafka_message_t>,
    held: Held,
    /// Records that librdkafka has, or had, of chunks in flight.
    flying: usize,
    /// Lanes whose partitions were given back while something was with librdkafka.
    forgotten: BTreeSet<LaneId>,
    /// Clock time of the last [`Producer::send`], ms since 1970: near enough for limits of timestamps.
    clock: i64,
}

struct Output {
    name: String,
    compression: Compression,
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
    /// Records of it that librdkafka took.
    taken: usize,
    /// By place in the chunk: records that librdkafka gave back, and those that it refused on the spot, which are dealt with.
    failed: Vec<(usize, Option<Code>)>,
    /// In `due` already.
    is_due: bool,
    not_before: Option<Instant>,
}

// SAFETY: the pointers in entries point into the chunk's own heap memory; the producer is used by one thread at a time.
unsafe impl Send for Producer {}

impl Producer {
    /// A producer whose client is made when it is expected to be needed: a pipeline without anything to do costs no threads
    /// and connections for it.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(mut conf: Conf, waker: &Waker) -> Result<Self, String> {
        let inbox = Box::new(Inbox::default());
        // SAFETY: the boxed inbox outlives the client (field order).
        unsafe { link::prepare(&mut conf, &raw const *inbox)? };
        Ok(Self {
            link: None,
            conf: Some(conf),
            waker: waker.clone(),
            inbox,
            topics: Vec::new(),
            due: Vec::new(),
            resend: Vec::new(),
            spare: Vec::new(),
            spare_bytes: 0,
            native: Vec::new(),
            held: Held::default(),
            flying: 0,
            forgotten: BTreeSet::new(),
            clock: clock(),
        })
    }

    /// Makes the client, which connects by itself, if there is none yet: records are about to come.
    #[inline]
    pub fn expect(&mut self) {
        let Some(conf) = self.conf.take() else { return };
        let topics = self.topics.iter().map(|output| (output.name.as_str(), output.compression));
        match Link::open(conf, topics, &self.waker) {
            Ok(link) => {
                self.inbox.by_entry = link.shares_handles();
                self.link = Some(link);
            }
            Err(text) => {
                // Its configuration was tried by other clients of this cluster, so the system lacks something; the next poll
                // says so, and the pipeline begins anew.
                let text = format!("the producer cannot be started: {text}");
                self.inbox.trouble.push(Trouble { code: Code::RD_KAFKA_RESP_ERR__FAIL, text, fatal: true });
                self.waker.wake();
            }
        }
    }

    /// Adds a topic of so many partitions (at least one), before any record.
    ///
    /// # Errors
    /// When there are too many.
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
        assert!(self.link.is_none(), "topics are added before the client is made");
        self.topics.push(Output {
            name: name.to_owned(),
            compression,
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
            self.held.take(ticket.lane, chunk.push(record, timestamp, ticket, topic.0));
        }
        if !out.is_due && out.in_flight.is_none() && out.not_before.is_none() {
            out.is_due = true;
            self.due.push(place);
        }
    }

    /// Hands the next chunk of every idle partition to librdkafka. Records that it refuses on the spot go to `refused`.
    pub fn send(&mut self, now: Instant, refused: &mut Vec<(Ticket, Refusal)>) {
        if self.due.is_empty() {
            return;
        }
        self.clock = clock();
        self.expect();
        // Without a client the run is about to end.
        let Some(link) = self.link.take() else { return };
        while let Some(place) = self.due.pop() {
            self.send_one(&link, place, now, refused);
        }
        self.link = Some(link);
    }

    fn send_one(&mut self, link: &Link, place: Place, now: Instant, refused: &mut Vec<(Ticket, Refusal)>) {
        let output = &mut self.topics[place.topic as usize];
        let out = &mut output.partitions[place.partition as usize];
        out.is_due = false;
        if out.in_flight.is_some() {
            return;
        }
        let Some(mut chunk) = out.gathered.pop_front() else { return };
        out.left = 0;
        // By parts that fit into the processor's nearest cache: a record is described, and librdkafka reads that right after.
        for first in (0..chunk.entries.len()).step_by(HANDED) {
            let end = chunk.entries.len().min(first + HANDED);
            link.hand_over(place, &mut chunk.entries[first..end], &chunk.bytes, &mut self.native);
            let mut stops = None;
            for (i, native) in (first..).zip(&self.native) {
                // SAFETY: a live field.
                match unsafe { ffi::read_code(&raw const native.err) } {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => out.left += 1,
                    // librdkafka looked at this record by itself, so its word is about this one alone.
                    code if problem::delivery(code) == Delivery::Refused => {
                        let entry = &chunk.entries[i];
                        self.held.release(entry.ticket.lane, entry.held());
                        output.refused += 1;
                        refused.push((entry.ticket, refusal(code, &output.name, place, entry, &chunk)));
                        out.failed.push((i, None));
                    }
                    code => {
                        out.failed.push((i, Some(code)));
                        stops = Some(code);
                    }
                }
            }
            // What comes after a record that has to be sent again may not go before it.
            if let Some(code) = stops {
                out.failed.extend((end..chunk.entries.len()).map(|i| (i, Some(code))));
                break;
            }
        }
        out.in_flight = Some(chunk);
        out.taken = out.left;
        self.flying += out.taken;
        if out.left == 0 {
            self.finish(place, now, &mut |_| unreachable!("a record that was not handed over was taken"), refused);
        }
    }

    /// Takes in reports. `delivered` gets the tickets of records that are durable; `refused` those that never will be.
    pub fn poll(
        &mut self,
        now: Instant,
        mut delivered: impl FnMut(Run),
        refused: &mut Vec<(Ticket, Refusal)>,
        trouble: &mut Vec<Trouble>,
    ) {
        self.resend_due(now);
        trouble.append(&mut self.inbox.trouble);
        let Some(link) = self.link.as_ref().filter(|link| link.serve()) else { return };
        trouble.append(&mut self.inbox.trouble);
        let mut ended = Vec::new();
        for Taken { at, count } in self.inbox.taken.drain(..) {
            reported(&mut self.topics, link.place(at), count, &mut ended);
        }
        for Failed { at, entry, code } in self.inbox.failed.drain(..) {
            let out = reported(&mut self.topics, link.place(at), 1, &mut ended);
            if let Some(chunk) = &out.in_flight {
                // SAFETY: the entry is one of the chunk in flight, which stays until its last report was taken in (below).
                let i = unsafe { entry.offset_from(chunk.entries.as_ptr()) };
                out.failed.push((i as usize, Some(Code::try_from(code).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN))));
            }
        }
        for place in ended {
            self.finish(place, now, &mut delivered, refused);
        }
        self.recall();
    }

    /// Nothing of forgotten lanes can come back once nothing is with librdkafka.
    fn recall(&mut self) {
        if self.held.records == 0 && !self.forgotten.is_empty() {
            self.forgotten.clear();
        }
    }

    /// Every record of the chunk in flight was reported on.
    fn finish(
        &mut self,
        place: Place,
        now: Instant,
        delivered: &mut impl FnMut(Run),
        refused: &mut Vec<(Ticket, Refusal)>,
    ) {
        let output = &mut self.topics[place.topic as usize];
        let out = &mut output.partitions[place.partition as usize];
        let Some(mut chunk) = out.in_flight.take() else { return };
        self.flying -= std::mem::take(&mut out.taken);
        let mut failed = std::mem::take(&mut out.failed);
        failed.sort_by_key(|(i, _)| *i);
        // What lies between those that failed was taken.
        let mut begin = 0;
        for end in failed.iter().map(|(i, _)| *i).chain([chunk.entries.len()]) {
            let taken = &chunk.entries[begin..end];
            output.produced += taken.len() as u64;
            output.produced_bytes += self.held.settle(taken, delivered) as u64;
            begin = end + 1;
        }
        let mut failed: Vec<(usize, Code)> = failed.into_iter().filter_map(|(i, code)| Some((i, code?))).collect();
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
                    refused.push((entry.ticket, refusal(code, &output.name, place, entry, &chunk)));
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
                    self.waker.wake();
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

    /// All that was taken in is with librdkafka: nothing waits for reports to be sent after them.
    #[must_use]
    pub const fn has_sent_all(&self) -> bool {
        self.held.records == self.flying
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
        if let Some(link) = &self.link {
            link.look_again();
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // What is still queued is not settled, so it is produced again by whoever takes the partition over; waiting for it
        // here would hold up a forced stop.
        if let Some(link) = &self.link {
            link.purge();
        }
    }
}

/// So many records of the chunk in flight there were reported on.
fn reported<'a>(topics: &'a mut [Output], place: Place, count: usize, ended: &mut Vec<Place>) -> &'a mut Partition {
    let out = &mut topics[place.topic as usize].partitions[place.partition as usize];
    out.left -= count;
    if out.left == 0 {
        ended.push(place);
    }
    out
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

fn refusal(code: Code, topic: &str, place: Place, entry: &Entry, chunk: &Chunk) -> Refusal {
    let (key, value, headers) = entry.parts(&chunk.bytes);
    Refusal {
        code,
        text: format!("topic `{topic}` refuses the record: {}", problem::explain(code, "")),
        topic: TopicNumber(place.topic),
        partition: place.partition,
        record: Owned {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.to_vec(),
            timestamp: entry.timestamp,
        },
    }
}

#[cfg(test)]
mod tests;
