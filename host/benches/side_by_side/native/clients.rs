//! The two clients of the native peer, and event time and headers of what is produced.
//!
//! `rd_kafka_produce_batch` takes neither. An interceptor sees every message on the way in, and the message it sees
//! is the head of librdkafka's own `rd_kafka_msg_t`, in which the timestamp lies at a known place: known for one version
//! of the library, so it is looked for at start with a message whose timestamp is known, and the peer refuses to run when
//! it is not there. Headers go in by `rd_kafka_message_set_headers`, a public call.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI64, Ordering};

use rdkafka::ClientConfig;
use rdkafka_sys::bindings::*;

use super::output::Extras;
use super::{Job, check};

/// Where `rd_kafka_msg_t` of librdkafka 2.12 keeps the timestamp.
const TIMESTAMP_AT: usize = 96;
/// A timestamp that does not happen to lie at that place.
const KNOWN: i64 = 1_234_567_890_123;

pub type RebalanceCallback =
    unsafe extern "C" fn(*mut rd_kafka_t, rd_kafka_resp_err_t, *mut rd_kafka_topic_partition_list_t, *mut c_void);
/// It has the same shape.
pub type CommitCallback = RebalanceCallback;
pub type DeliveryCallback = unsafe extern "C" fn(*mut rd_kafka_t, *const rd_kafka_message_t, *mut c_void);

/// What all partitions together may have fetched ahead: records, and KiB.
const AHEAD: (u32, u32) = (160_000, 65_536);

/// A consumer whose callbacks run in `rd_kafka_consumer_poll`.
pub fn consumer(
    job: &Job,
    (rebalance, committed): (RebalanceCallback, CommitCallback),
    opaque: *mut c_void,
) -> *mut rd_kafka_t {
    let mut config = common(&job.bootstrap);
    let share = |of: u32| (of / job.partitions.max(1)).max(1).to_string();
    config
        .set("group.id", &job.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.min.messages", share(AHEAD.0))
        .set("queued.max.messages.kbytes", share(AHEAD.1));
    let native = native(&config);
    // SAFETY: sets callbacks on a configuration that is ours until `create` takes it.
    unsafe {
        rd_kafka_conf_set_opaque(native, opaque);
        rd_kafka_conf_set_rebalance_cb(native, Some(rebalance));
        rd_kafka_conf_set_offset_commit_cb(native, Some(committed));
        let consumer = create(rd_kafka_type_t::RD_KAFKA_CONSUMER, native);
        check(rd_kafka_poll_set_consumer(consumer), "one queue for the consumer");
        consumer
    }
}

/// A producer that sends at once what it is given. Each message's opaque is its event time or, with headers, the place of
/// its [`Extras`], alive until it is produced.
pub fn producer(
    bootstrap: &str,
    with_headers: bool,
    delivered: DeliveryCallback,
    opaque: *mut c_void,
) -> *mut rd_kafka_t {
    assert!(timestamp_is_where_we_write_it(), "this librdkafka keeps the timestamp of a message elsewhere");
    let mut config = common(bootstrap);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "1000000")
        .set("queue.buffering.max.messages", "10000000")
        .set("queue.buffering.max.kbytes", "2097151")
        .set("message.timeout.ms", "0");
    let native = native(&config);
    // SAFETY: sets callbacks on a configuration that is ours until `create` takes it.
    unsafe {
        rd_kafka_conf_set_opaque(native, opaque);
        rd_kafka_conf_set_dr_msg_cb(native, Some(delivered));
        let name = c"event-time".as_ptr();
        let installer = if with_headers { install::<KeepWithHeaders> } else { install::<Keep> };
        check(rd_kafka_conf_interceptor_add_on_new(native, name, Some(installer), null_mut()), "interceptor");
        create(rd_kafka_type_t::RD_KAFKA_PRODUCER, native)
    }
}

fn common(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("enable.metrics.push", "false").set("log_level", "4");
    if !bootstrap.is_empty() {
        config.set("bootstrap.servers", bootstrap);
    }
    config
}

fn native(config: &ClientConfig) -> *mut rd_kafka_conf_t {
    let native = config.create_native_config().expect("a valid client configuration");
    // SAFETY: `native` frees its own; the duplicate is the caller's.
    unsafe { rd_kafka_conf_dup(native.ptr()) }
}

/// # Safety
/// `config` is valid and not used afterwards.
unsafe fn create(kind: rd_kafka_type_t, config: *mut rd_kafka_conf_t) -> *mut rd_kafka_t {
    let mut text = [0 as c_char; 512];
    // SAFETY: by the contract above; the text is a C string on failure.
    unsafe {
        let handle = rd_kafka_new(kind, config, text.as_mut_ptr(), text.len());
        assert!(!handle.is_null(), "cannot make a Kafka client: {:?}", CStr::from_ptr(text.as_ptr()));
        handle
    }
}

/// What an interceptor does with a message on its way into the producer.
trait OnSend {
    /// # Safety
    /// `message` is the head of an `rd_kafka_msg_t`.
    unsafe fn on_send(message: *mut rd_kafka_message_t);
}

/// Writes the opaque, an event time, into the message.
struct Keep;

impl OnSend for Keep {
    unsafe fn on_send(message: *mut rd_kafka_message_t) {
        // SAFETY: by the contract, and by the test at start the timestamp lies there.
        unsafe { message.cast::<u8>().add(TIMESTAMP_AT).cast::<i64>().write((*message)._private as i64) };
    }
}

/// Writes the event time and gives the headers.
struct KeepWithHeaders;

impl OnSend for KeepWithHeaders {
    unsafe fn on_send(message: *mut rd_kafka_message_t) {
        // SAFETY: by the contract of `producer` the opaque points to live extras; for the timestamp see `Keep`; the headers
        // are ours to give and are given once.
        unsafe {
            let extras = &*(*message)._private.cast::<Extras>();
            message.cast::<u8>().add(TIMESTAMP_AT).cast::<i64>().write(extras.timestamp);
            if !extras.headers.is_null() {
                rd_kafka_message_set_headers(message, extras.headers);
            }
        }
    }
}

/// Notes what lies where the timestamp should.
struct Look;

static SEEN: AtomicI64 = AtomicI64::new(0);

impl OnSend for Look {
    unsafe fn on_send(message: *mut rd_kafka_message_t) {
        // SAFETY: by the contract; the structure is longer than this.
        SEEN.store(unsafe { message.cast::<u8>().add(TIMESTAMP_AT).cast::<i64>().read() }, Ordering::Relaxed);
    }
}

unsafe extern "C" fn install<T: OnSend>(
    client: *mut rd_kafka_t,
    _: *const rd_kafka_conf_t,
    _: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> rd_kafka_resp_err_t {
    // SAFETY: called by librdkafka with the client that is being made.
    unsafe { rd_kafka_interceptor_add_on_send(client, c"event-time".as_ptr(), Some(intercept::<T>), null_mut()) }
}

unsafe extern "C" fn intercept<T: OnSend>(
    _: *mut rd_kafka_t,
    message: *mut rd_kafka_message_t,
    _: *mut c_void,
) -> rd_kafka_resp_err_t {
    // SAFETY: called by librdkafka with a message of its own.
    unsafe { T::on_send(message) };
    rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Produces one message with a known timestamp, to no broker, and looks for it.
fn timestamp_is_where_we_write_it() -> bool {
    use rd_kafka_vtype_t::*;
    let native = native(&common(""));
    // SAFETY: the client lives in here only; types and values alternate as the call wants them.
    unsafe {
        let name = c"event-time".as_ptr();
        check(rd_kafka_conf_interceptor_add_on_new(native, name, Some(install::<Look>), null_mut()), "interceptor");
        let client = create(rd_kafka_type_t::RD_KAFKA_PRODUCER, native);
        let code = rd_kafka_producev(
            client,
            RD_KAFKA_VTYPE_TOPIC as c_int,
            c"self-test".as_ptr(),
            RD_KAFKA_VTYPE_VALUE as c_int,
            null::<c_void>(),
            0_usize,
            RD_KAFKA_VTYPE_TIMESTAMP as c_int,
            KNOWN,
            RD_KAFKA_VTYPE_END as c_int,
        );
        check(code, "the self-test's message");
        rd_kafka_purge(client, RD_KAFKA_PURGE_F_QUEUE);
        rd_kafka_destroy(client);
    }
    SEEN.load(Ordering::Relaxed) == KNOWN
}
