//! The native peer: consume → uppercase → produce → commit as fast as librdkafka allows, without any sandbox.
//!
//! The same shape as the host, so that the difference is the sandbox: one thread does all input and output; every
//! partition has its own queue, drained in batches; output is self-clocked (`output`); a commit never passes a record that
//! is not acknowledged; event time is kept (`clients`). SIGTERM drains, commits and leaves. It is alone in its group: a
//! revocation before the end is not drained.
//!
//! It comes in three kinds ([`Kind`]): as above; with the headers carried along, by librdkafka's public calls; and one
//! that only consumes and commits.

mod clients;
mod output;

use std::ffi::{CStr, CString, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use rdkafka_sys::bindings::*;

use output::{Outputs, RecordView};

/// Messages taken from one partition at a time.
const BATCH: usize = 1000;
/// The handler's work: this much of a value is put in upper case.
const UPPERCASE: usize = 100;
/// A queue that is ready and was not noticed is looked at after this.
const FALLBACK_SWEEP: Duration = Duration::from_millis(20);

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// What the peer does with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Puts it in upper case and produces it, without headers.
    Uppercase,
    /// The same, with its headers.
    Headers,
    /// Nothing.
    Consume,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Uppercase, Kind::Headers, Kind::Consume];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Uppercase => "uppercase",
            Kind::Headers => "headers",
            Kind::Consume => "consume",
        }
    }
}

/// What the peer does, and where it reads and writes.
pub struct Job {
    pub kind: Kind,
    pub bootstrap: String,
    pub input: String,
    pub output: String,
    pub group: String,
    /// Of the input: how much may be fetched ahead for each depends on it.
    pub partitions: u32,
    pub commit_interval: Duration,
}

impl Job {
    /// The command line that [`Job::parse`] reads.
    pub fn arguments(&self) -> [String; 7] {
        let interval = self.commit_interval.as_millis().to_string();
        let kind = self.kind.name().to_owned();
        let [bootstrap, input] = [&self.bootstrap, &self.input].map(String::clone);
        [kind, bootstrap, input, self.output.clone(), self.group.clone(), self.partitions.to_string(), interval]
    }

    pub fn parse(arguments: &[String]) -> Option<Job> {
        let [kind, bootstrap, input, output, group, partitions, interval] = arguments else { return None };
        let [bootstrap, input, output, group] = [bootstrap, input, output, group].map(String::clone);
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
        let commit_interval = Duration::from_millis(interval.parse().ok()?);
        Some(Job { kind, bootstrap, input, output, group, partitions: partitions.parse().ok()?, commit_interval })
    }
}

/// Runs until SIGTERM.
pub fn run(job: &Job) {
    // SAFETY: the handler only stores to an atomic.
    unsafe { libc::signal(libc::SIGTERM, on_signal as *const () as libc::sighandler_t) };
    let mut input = Input::open(job);
    let mut outputs = Outputs::open(job, &raw const *input.wake);
    let mut last_commit = Instant::now();
    let mut messages = vec![null_mut(); BATCH];
    while !STOP.load(Ordering::Relaxed) {
        input.serve_callbacks();
        let mut taken = 0;
        for lane in 0..input.lanes.len() {
            let room = outputs.has_room();
            let drained = if room { input.drain(lane, &mut messages, &mut outputs) } else { 0 };
            taken += drained;
            // Answers come while other partitions are read: a finished batch must not wait for the end of the sweep.
            // With hundreds of partitions, most of them empty, looking after each would be the dearest thing here.
            if drained > 0 || !room {
                outputs.turn();
            }
        }
        if last_commit.elapsed() >= job.commit_interval {
            last_commit = Instant::now();
            input.commit(&outputs, true);
        }
        if taken == 0 && !outputs.turn() {
            input.wake.wait(FALLBACK_SWEEP);
        }
    }
    while !outputs.is_empty() {
        if !outputs.turn() {
            input.wake.wait(FALLBACK_SWEEP);
        }
    }
    input.commit(&outputs, false);
    input.close();
    outputs.close();
    eprintln!("native: drained and committed");
}

/// Rung by librdkafka's threads when a queue that was empty has something.
#[derive(Default)]
pub struct Wake {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    /// Makes `queue` ring.
    ///
    /// # Safety
    /// The wake must outlive the queue.
    unsafe fn attach(this: *const Wake, queue: *mut rd_kafka_queue_t) {
        unsafe extern "C" fn ring(_: *mut rd_kafka_t, wake: *mut c_void) {
            // SAFETY: the pointer is the one given below; the wake outlives the queue.
            let wake = unsafe { &*wake.cast::<Wake>() };
            *wake.rung.lock().expect("nobody panics holding it") = true;
            wake.changed.notify_one();
        }
        // SAFETY: by the contract above.
        unsafe { rd_kafka_queue_cb_event_enable(queue, Some(ring), this.cast_mut().cast()) };
    }

    fn wait(&self, patience: Duration) {
        let rung = self.rung.lock().expect("nobody panics holding it");
        let (mut rung, _) =
            self.changed.wait_timeout_while(rung, patience, |rung| !*rung).expect("nobody panics holding it");
        *rung = false;
    }
}

/// One assigned partition.
struct Lane {
    partition: i32,
    queue: *mut rd_kafka_queue_t,
    /// The next offset to read; nothing to commit before the first record.
    next: Option<i64>,
    committed: Option<i64>,
}

/// The consumer and its partitions. Boxed: the callbacks hold its address.
struct Input {
    consumer: *mut rd_kafka_t,
    topic: CString,
    lanes: Vec<Lane>,
    wake: Box<Wake>,
    kind: Kind,
}

impl Input {
    fn open(job: &Job) -> Box<Input> {
        let topic = CString::new(job.input.as_str()).expect("a topic name has no NUL");
        let (lanes, wake) = (Vec::new(), Box::default());
        let mut input = Box::new(Input { consumer: null_mut(), topic, lanes, wake, kind: job.kind });
        let opaque: *mut Input = &raw mut *input;
        input.consumer = clients::consumer(job, (on_rebalance, on_commit), opaque.cast());
        // SAFETY: handles that were just made; the wake lives in the box beside them.
        unsafe {
            let queue = rd_kafka_queue_get_consumer(input.consumer);
            Wake::attach(&raw const *input.wake, queue);
            rd_kafka_queue_destroy(queue);
            let topics = rd_kafka_topic_partition_list_new(1);
            rd_kafka_topic_partition_list_add(topics, input.topic.as_ptr(), -1);
            check(rd_kafka_subscribe(input.consumer, topics), "subscribe");
            rd_kafka_topic_partition_list_destroy(topics);
        }
        input
    }

    /// Rebalances happen in here. No record comes this way: the partitions have queues of their own.
    fn serve_callbacks(&self) {
        // SAFETY: the consumer is open.
        unsafe {
            let message = rd_kafka_consumer_poll(self.consumer, 0);
            if !message.is_null() {
                let error = (*message).err;
                rd_kafka_message_destroy(message);
                assert!(error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "a record came by the wrong queue");
                eprintln!("native: consumer: {}", text(error));
            }
        }
    }

    /// Takes what a partition has, at most one batch, through the handler to the outputs.
    fn drain(&mut self, lane: usize, messages: &mut [*mut rd_kafka_message_t], outputs: &mut Outputs) -> usize {
        let lane = &mut self.lanes[lane];
        // SAFETY: the queue is the lane's own; the array has the length given.
        let count = unsafe { rd_kafka_consume_batch_queue(lane.queue, 0, messages.as_mut_ptr(), messages.len()) };
        let count = usize::try_from(count).expect("the queue can be read");
        for pointer in &messages[..count] {
            // SAFETY: a message of ours until it is destroyed; key and value are valid as long.
            unsafe {
                let message = &**pointer;
                check(message.err, "reading a partition");
                lane.next = Some(message.offset + 1);
                if self.kind != Kind::Consume {
                    let record = RecordView {
                        key: slice(message.key, message.key_len),
                        value: slice(message.payload, message.len),
                        timestamp: rd_kafka_message_timestamp(message, null_mut()),
                        headers: if self.kind == Kind::Headers { detach_headers(*pointer) } else { null_mut() },
                    };
                    outputs.push(&record, UPPERCASE, lane.partition, message.offset);
                }
                rd_kafka_message_destroy(*pointer);
            }
        }
        count
    }

    /// Commits up to the first record that is not acknowledged, of each partition where that moved.
    fn commit(&mut self, outputs: &Outputs, asynchronous: bool) {
        // SAFETY: the list is ours; librdkafka copies it.
        unsafe {
            let list = rd_kafka_topic_partition_list_new(self.lanes.len() as i32);
            for lane in &mut self.lanes {
                let settled = outputs.first_unsettled(lane.partition).or(lane.next);
                if settled.is_some() && settled != lane.committed {
                    lane.committed = settled;
                    let element = rd_kafka_topic_partition_list_add(list, self.topic.as_ptr(), lane.partition);
                    (*element).offset = settled.unwrap_or_default();
                }
            }
            if (*list).cnt > 0 {
                check(rd_kafka_commit(self.consumer, list, asynchronous.into()), "commit");
            }
            rd_kafka_topic_partition_list_destroy(list);
        }
    }

    fn assigned(&mut self, partition: i32) {
        // SAFETY: forwarding to nothing gives the partition a queue of its own, before it is assigned.
        unsafe {
            let queue = rd_kafka_queue_get_partition(self.consumer, self.topic.as_ptr(), partition);
            rd_kafka_queue_forward(queue, null_mut());
            Wake::attach(&raw const *self.wake, queue);
            self.lanes.push(Lane { partition, queue, next: None, committed: None });
        }
    }

    fn revoked(&mut self, partition: i32) {
        self.lanes.retain(|lane| {
            if lane.partition == partition {
                // SAFETY: the handle is the lane's and is not used again.
                unsafe { rd_kafka_queue_destroy(lane.queue) };
            }
            lane.partition != partition
        });
    }

    fn close(&mut self) {
        // SAFETY: closing calls the rebalance callback a last time, which empties the lanes.
        unsafe {
            check(rd_kafka_consumer_close(self.consumer), "close");
            rd_kafka_destroy(self.consumer);
        }
    }
}

unsafe extern "C" fn on_rebalance(
    consumer: *mut rd_kafka_t,
    event: rd_kafka_resp_err_t,
    partitions: *mut rd_kafka_topic_partition_list_t,
    input: *mut c_void,
) {
    // SAFETY: the opaque is the boxed input, which only this thread uses; the list is valid during the call.
    unsafe {
        let input = &mut *input.cast::<Input>();
        let list = std::slice::from_raw_parts((*partitions).elems, (*partitions).cnt as usize);
        let error = if event == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            list.iter().for_each(|element| input.assigned(element.partition));
            rd_kafka_incremental_assign(consumer, partitions)
        } else {
            list.iter().for_each(|element| input.revoked(element.partition));
            rd_kafka_incremental_unassign(consumer, partitions)
        };
        assert!(error.is_null(), "rebalance: {:?}", CStr::from_ptr(rd_kafka_error_string(error)));
    }
}

/// A commit that failed is made again with the next one.
unsafe extern "C" fn on_commit(
    _: *mut rd_kafka_t,
    result: rd_kafka_resp_err_t,
    _: *mut rd_kafka_topic_partition_list_t,
    input: *mut c_void,
) {
    if result != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        eprintln!("native: commit: {}", text(result));
        // SAFETY: the opaque is the boxed input, which only this thread uses.
        unsafe { &mut *input.cast::<Input>() }.lanes.iter_mut().for_each(|lane| lane.committed = None);
    }
}

/// The headers of a message, which are the caller's then; null where it has none.
///
/// # Safety
/// `message` is live.
unsafe fn detach_headers(message: *mut rd_kafka_message_t) -> *mut rd_kafka_headers_t {
    let mut headers = null_mut();
    // SAFETY: by the contract; nothing else holds the list after this.
    let code = unsafe { rd_kafka_message_detach_headers(message, &raw mut headers) };
    if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__NOENT {
        check(code, "the headers of a record");
    }
    headers
}

/// # Safety
/// `pointer` is null or points to `length` bytes that live as long as the result is used.
unsafe fn slice<'a>(pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

fn check(code: rd_kafka_resp_err_t, doing: &str) {
    assert!(code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "native: {doing}: {}", text(code));
}

fn text(code: rd_kafka_resp_err_t) -> String {
    // SAFETY: a static C string.
    unsafe { CStr::from_ptr(rd_kafka_err2str(code)) }.to_string_lossy().into_owned()
}
