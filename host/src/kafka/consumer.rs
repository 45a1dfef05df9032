//! A member of a consumer group: its events, its partitions' queues, its commits.
//!
//! All of it is called from one thread. Rebalances come as events and are answered by [`Consumer::assign`] and
//! [`Consumer::unassign`] whenever the pipeline is ready (within `max.poll.interval.ms`), not from inside a callback.

use std::collections::BTreeSet;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Code;
use rdkafka_sys as rd;

use super::aging::{Aged, Aging, Standing};
use super::ffi::{self, Client, Conf, PartitionList, PartitionOffset, Queue};
use super::lookup::{self, Lookup, Place};
use super::partition::PartitionQueue;
use crate::wake::Waker;

/// Answers of lookups that wait to be taken; who has more to say waits.
const LOOKUPS: usize = 16;

/// What happened to the group membership.
#[derive(Debug)]
pub enum Event {
    /// These partitions are ours once they are assigned.
    Assigned(Vec<PartitionOffset>),
    /// These are to be given back. `lost`: they are another member's already, nothing of them may be committed.
    Revoked {
        /// Which.
        partitions: Vec<PartitionOffset>,
        /// Too late to commit.
        lost: bool,
    },
    /// Where partitions stand that were asked about.
    Placed {
        /// What [`Consumer::look_up`] gave.
        number: u64,
        /// In no order.
        places: Vec<Place>,
    },
    /// What is known of the age of records; empty when it is not known this time.
    Aged(Vec<Aged>),
    /// A commit was answered.
    Committed {
        /// For the commit as a whole.
        result: Code,
        /// With a result each.
        partitions: Vec<PartitionOffset>,
    },
    /// Something is wrong; librdkafka goes on trying unless it is fatal.
    Problem {
        /// Kind.
        code: Code,
        /// librdkafka's words.
        text: String,
        /// The client is of no use any more.
        fatal: bool,
    },
}

/// See the module's text.
pub struct Consumer {
    // Answers that nobody took, and the queue, before their client.
    placed: (SyncSender<Event>, Receiver<Event>),
    events: Queue,
    client: Arc<Client>,
    waker: Waker,
    /// What librdkafka was told to read.
    assigned: BTreeSet<(String, i32)>,
    /// An assignment that has to be answered as a whole, and was not yet.
    owes_answer: bool,
    lookups: u64,
}

impl Consumer {
    /// Creates the client. It joins nothing until [`Consumer::subscribe`].
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(mut conf: Conf, waker: &Waker) -> Result<Self, String> {
        // SAFETY: live configuration.
        unsafe {
            rd::rd_kafka_conf_set_events(
                conf.as_ptr(),
                rd::RD_KAFKA_EVENT_REBALANCE | rd::RD_KAFKA_EVENT_OFFSET_COMMIT | rd::RD_KAFKA_EVENT_ERROR,
            );
            rd::rd_kafka_conf_set_log_cb(conf.as_ptr(), Some(super::log::forward));
        }
        let client = conf.create(rd::rd_kafka_type_t::RD_KAFKA_CONSUMER)?;
        // SAFETY: a live consumer client; redirects its main queue to the consumer queue.
        unsafe { rd::rd_kafka_poll_set_consumer(client.as_ptr()) };
        // SAFETY: as above; gives a reference of our own.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(client.as_ptr()) };
        let mut events = Queue::adopt(&client, queue).ok_or("librdkafka gives no consumer queue")?;
        events.wake(waker);
        let (waker, assigned) = (waker.clone(), BTreeSet::new());
        Ok(Self { placed: sync_channel(LOOKUPS), events, client, waker, assigned, owes_answer: false, lookups: 0 })
    }

    /// The client, for metadata.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Joins the group for these topics.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), String> {
        let mut list = PartitionList::new(topics.len());
        for topic in topics {
            list.add(topic, -1, None)?;
        }
        // SAFETY: live client and list; the list is copied.
        check(unsafe { rd::rd_kafka_subscribe(self.client.as_ptr(), list.as_ptr()) })
    }

    /// The next event, without waiting.
    pub fn poll(&self) -> Option<Event> {
        // Asking librdkafka takes locks and clocks, and there are thousands of turns between two events.
        if !self.events.take_ready() {
            return self.placed.1.try_recv().ok();
        }
        loop {
            // SAFETY: live queue; the event is ours and destroyed below.
            let event = unsafe { rd::rd_kafka_queue_poll(self.events.as_ptr(), 0) };
            if event.is_null() {
                return self.placed.1.try_recv().ok();
            }
            // SAFETY: live event.
            let known = unsafe { self.read(event) };
            // SAFETY: live event, read and copied from.
            unsafe { rd::rd_kafka_event_destroy(event) };
            if known.is_some() {
                self.events.mark_ready(); // there may be more, and its coming was announced already
                return known;
            }
        }
    }

    /// # Safety
    /// `event` is a live event of this client.
    unsafe fn read(&self, event: *mut rd::rd_kafka_event_t) -> Option<Event> {
        // SAFETY: live event, by the caller's word; lists are copied, strings too.
        unsafe {
            let code = event_error(event);
            match rd::rd_kafka_event_type(event) {
                rd::RD_KAFKA_EVENT_REBALANCE => {
                    let list = PartitionList::copy(rd::rd_kafka_event_topic_partition_list(event));
                    if code == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
                        return Some(Event::Assigned(list.elements()));
                    }
                    let lost = rd::rd_kafka_assignment_lost(self.client.as_ptr()) != 0;
                    Some(Event::Revoked { partitions: list.elements(), lost })
                }
                rd::RD_KAFKA_EVENT_OFFSET_COMMIT => {
                    let list = PartitionList::copy(rd::rd_kafka_event_topic_partition_list(event));
                    Some(Event::Committed { result: code, partitions: list.elements() })
                }
                rd::RD_KAFKA_EVENT_ERROR => {
                    let (code, text, fatal) = match self.client.fatal_error() {
                        Some((code, text)) => (code, text, true),
                        None => (code, ffi::text(rd::rd_kafka_event_error_string(event)), false),
                    };
                    Some(Event::Problem { code, text, fatal })
                }
                _ => None,
            }
        }
    }

    /// Looks for events though nobody announced any. Has to be called, and polled after it, within `max.poll.interval.ms`: that is
    /// how librdkafka sees that somebody is there.
    pub fn look_again(&self) {
        self.events.mark_ready();
    }

    /// True under protocols that hand partitions over one by one.
    fn cooperative(&self) -> bool {
        // SAFETY: live client; a static string.
        ffi::text(unsafe { rd::rd_kafka_rebalance_protocol(self.client.as_ptr()) }) == "COOPERATIVE"
    }

    /// Takes in that these partitions are ours, and asks where to begin with them: an [`Event::Placed`] comes, as often as
    /// this is called, with the number that this gives. Those that we have already are read on meanwhile, where the protocol
    /// lets partitions be taken over one by one.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn look_up(&mut self, partitions: &[PartitionOffset], start: lookup::From) -> Result<u64, String> {
        if self.cooperative() {
            let none = PartitionList::new(0);
            // SAFETY: live client and list; the list is copied.
            check_error(unsafe { rd::rd_kafka_incremental_assign(self.client.as_ptr(), none.as_ptr()) })?;
        } else {
            self.owes_answer = true;
        }
        let partitions = partitions.iter().map(|place| (place.topic.clone(), place.partition)).collect();
        self.lookups += 1;
        let lookup = Lookup { client: Arc::downgrade(&self.client), number: self.lookups, partitions, start };
        lookup.begin(&self.placed.0, &self.waker)?;
        Ok(self.lookups)
    }

    /// Asks how long the records have left at which partitions stand; an [`Event::Aged`] comes. `now` in ms since 1970.
    ///
    /// # Errors
    /// Why it was not asked.
    pub fn ask_for_ages(&self, standing: Vec<Standing>, now: i64) -> Result<(), String> {
        Aging { client: Arc::downgrade(&self.client), standing, now }.begin(&self.placed.0, &self.waker)
    }

    /// Reads partitions from the offsets that are given with them, or from librdkafka's `OFFSET_BEGINNING` or `OFFSET_END`.
    /// Their queues are split off first, so that not one record goes to the common queue.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn assign(&mut self, partitions: &[PartitionOffset]) -> Result<Vec<PartitionQueue>, String> {
        let mut list = PartitionList::new(partitions.len());
        let mut queues = Vec::with_capacity(partitions.len());
        for PartitionOffset { topic, partition, offset, .. } in partitions {
            list.add(topic, *partition, Some(*offset))?;
            queues.push(PartitionQueue::split(&self.client, topic, *partition, &self.waker)?);
        }
        // SAFETY: live client and list; the list is copied.
        unsafe {
            if self.cooperative() {
                check_error(rd::rd_kafka_incremental_assign(self.client.as_ptr(), list.as_ptr()))?;
            } else {
                check(rd::rd_kafka_assign(self.client.as_ptr(), list.as_ptr()))?;
            }
        }
        self.owes_answer = false;
        self.assigned.extend(partitions.iter().map(|place| (place.topic.clone(), place.partition)));
        Ok(queues)
    }

    /// Reads an assigned partition from another offset. What librdkafka fetched of it before is gone; the queue has to
    /// forget its own part ([`PartitionQueue::restart`]).
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn seek(&self, topic: &str, partition: i32, offset: i64) -> Result<(), String> {
        let mut list = PartitionList::new(1);
        list.add(topic, partition, Some(offset))?;
        // No wait for its answer (0): what is in the queue is outdated as soon as this returns.
        // SAFETY: live client and list.
        check_error(unsafe { rd::rd_kafka_seek_partitions(self.client.as_ptr(), list.as_ptr(), 0) })?;
        match list.elements().first().map(|place| place.error) {
            None | Some(Code::RD_KAFKA_RESP_ERR_NO_ERROR | Code::RD_KAFKA_RESP_ERR__IN_PROGRESS) => Ok(()),
            Some(code) => check(code),
        }
    }

    /// Gives partitions back: the last step of a revocation. Their queues must be dropped before.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn unassign(&mut self, partitions: &[PartitionOffset]) -> Result<(), String> {
        self.owes_answer = false;
        if !self.cooperative() {
            self.assigned.clear();
            // SAFETY: live client; null clears the assignment.
            return check(unsafe { rd::rd_kafka_assign(self.client.as_ptr(), ptr::null()) });
        }
        let mut list = PartitionList::new(partitions.len());
        for PartitionOffset { topic, partition, .. } in partitions {
            // One whose place was not known yet was never assigned, and librdkafka refuses lists with such a one.
            if self.assigned.remove(&(topic.clone(), *partition)) {
                list.add(topic, *partition, None)?;
            }
        }
        // SAFETY: live client and list; the list is copied.
        check_error(unsafe { rd::rd_kafka_incremental_unassign(self.client.as_ptr(), list.as_ptr()) })
    }

    /// Sends a commit of *next* offsets; the answer is an [`Event::Committed`]. One at a time: retries of an older commit
    /// must not follow a newer one.
    ///
    /// # Errors
    /// librdkafka's text, when nothing was sent.
    pub fn commit<'a>(&self, offsets: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> Result<(), String> {
        let mut list = PartitionList::new(offsets.len());
        for (topic, partition, offset) in offsets {
            list.add(topic, partition, Some(offset))?;
        }
        // To our own queue by name: `rd_kafka_commit` answers a callback of the configuration only, never an event.
        // SAFETY: live client, list (which is copied) and queue; no callback.
        check(unsafe {
            rd::rd_kafka_commit_queue(self.client.as_ptr(), list.as_ptr(), self.events.as_ptr(), None, ptr::null_mut())
        })
    }

    /// Begins to leave the group: a last [`Event::Revoked`] comes, which has to be answered.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn begin_close(&mut self) -> Result<(), String> {
        if self.owes_answer {
            // librdkafka waits for it.
            self.unassign(&[])?;
        }
        // SAFETY: live client and queue of it.
        check_error(unsafe { rd::rd_kafka_consumer_close_queue(self.client.as_ptr(), self.events.as_ptr()) })
    }

    /// True when the group is left.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // SAFETY: live client.
        unsafe { rd::rd_kafka_consumer_closed(self.client.as_ptr()) != 0 }
    }

    /// The end of a partition's log as librdkafka last saw it (no request is made); `None` before the first fetch.
    #[must_use]
    pub fn log_end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.log_bounds(topic, partition).map(|(_, end)| end)
    }

    /// The oldest offset of a partition's log, as the broker said with the last fetch; `None` before.
    #[must_use]
    pub fn log_start(&self, topic: &str, partition: i32) -> Option<i64> {
        self.log_bounds(topic, partition).map(|(start, _)| start).filter(|start| *start >= 0)
    }

    fn log_bounds(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let topic = ffi::c_string(topic).ok()?;
        let (mut low, mut high) = (-1i64, -1i64);
        // SAFETY: live client, NUL-terminated name, places for two numbers.
        let result = unsafe {
            rd::rd_kafka_get_watermark_offsets(self.client.as_ptr(), topic.as_ptr(), partition, &mut low, &mut high)
        };
        (result == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some((low, high))
    }
}

impl Consumer {
    /// Where librdkafka stands in partitions: behind the last record that it handed out *and* the transaction markers
    /// after that, which are never handed out. Makes no request. `None` where nothing was handed out yet.
    pub fn positions<'a>(&self, partitions: impl ExactSizeIterator<Item = (&'a str, i32)>) -> Vec<Option<i64>> {
        let mut list = PartitionList::new(partitions.len());
        for (topic, partition) in partitions {
            if list.add(topic, partition, None).is_err() {
                return Vec::new();
            }
        }
        // The list is dropped here: one that outlives its client would keep that from ending.
        // SAFETY: live client and list; offsets are written into it.
        match unsafe { rd::rd_kafka_position(self.client.as_ptr(), list.as_ptr()) } {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                list.elements().iter().map(|element| (element.offset >= 0).then_some(element.offset)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// An event's error, read as a number: see [`ffi::read_code`].
///
/// # Safety
/// `event` is a live event.
pub(super) unsafe fn event_error(event: *mut rd::rd_kafka_event_t) -> Code {
    type AsEnum = unsafe extern "C" fn(*mut rd::rd_kafka_event_t) -> Code;
    type AsNumber = unsafe extern "C" fn(*mut rd::rd_kafka_event_t) -> i32;
    // SAFETY: the same function; the enum is an `i32` by its declaration.
    let number = unsafe { std::mem::transmute::<AsEnum, AsNumber>(rd::rd_kafka_event_error)(event) };
    Code::try_from(number).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN)
}

pub(super) fn check(code: Code) -> Result<(), String> {
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(super::problem::explain(code, "")),
    }
}

/// Takes over an error object (null = none).
pub(super) fn check_error(error: *mut rd::rd_kafka_error_t) -> Result<(), String> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a live error object that is ours; the text is copied before it goes.
    unsafe {
        let result =
            super::problem::explain(rd::rd_kafka_error_code(error), &ffi::text(rd::rd_kafka_error_string(error)));
        rd::rd_kafka_error_destroy(error);
        Err(result)
    }
}
