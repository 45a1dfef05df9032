//! Owners of librdkafka's handles. Rust's rdkafka crate builds the library and names its functions; its own client types
//! are not used on the data path: they poll message by message, and hang when things are dropped in the wrong order.
//!
//! Drop order (librdkafka waits for ever otherwise): messages and queues before their client. [`Client`] is therefore
//! held in an `Arc` by every [`Queue`] and [`Topic`].

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::Code;
use rdkafka_sys as rd;

/// A name or value with a NUL inside cannot be handed to librdkafka.
pub fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("`{}` contains a NUL character", text.escape_debug()))
}

/// A time limit as librdkafka takes it.
pub(super) fn millis(limit: Duration) -> c_int {
    c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX)
}

/// librdkafka's text for an error code.
#[must_use]
pub fn describe(code: Code) -> String {
    // SAFETY: returns a static string for every code, known or not.
    unsafe { CStr::from_ptr(rd::rd_kafka_err2str(code)) }.to_string_lossy().into_owned()
}

/// librdkafka's name for an error code, as `TOPIC_AUTHORIZATION_FAILED`.
#[must_use]
pub fn name(code: Code) -> String {
    // SAFETY: as above.
    unsafe { CStr::from_ptr(rd::rd_kafka_err2name(code)) }.to_string_lossy().into_owned()
}

/// An error code that came from a broker, which may send some that this library does not name: an `enum` must not hold
/// those, so it is read as a number.
///
/// # Safety
/// `code` points to a live field.
pub(super) unsafe fn read_code(code: *const Code) -> Code {
    // SAFETY: the caller's word; the enum is an `i32` by its declaration.
    Code::try_from(unsafe { code.cast::<i32>().read() }).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN)
}

pub(super) fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka hands out NUL-terminated strings; not null as checked.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// A configuration that is being put together.
pub struct Conf(NonNull<rd::rd_kafka_conf_t>);

/// Sets one property of a configuration.
///
/// # Safety
/// `conf` is live, and nobody else changes it.
pub(super) unsafe fn set(conf: *mut rd::rd_kafka_conf_t, key: &str, value: &str) -> Result<(), String> {
    let (c_key, c_value) = (c_string(key)?, c_string(value).map_err(|_| format!("`{key}`: value contains a NUL"))?);
    let mut message = [0 as c_char; 512];
    // SAFETY: live configuration, NUL-terminated strings, a buffer of the length that is given.
    let result =
        unsafe { rd::rd_kafka_conf_set(conf, c_key.as_ptr(), c_value.as_ptr(), message.as_mut_ptr(), message.len()) };
    match result {
        rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
        // librdkafka's message repeats the value; keys that hold secrets must not end up in a log.
        _ if is_secret(key) => Err(format!("librdkafka refuses the value of `{key}`")),
        _ => Err(text(message.as_ptr())),
    }
}

impl Conf {
    /// librdkafka's defaults.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: no precondition; never null.
        let conf = unsafe { rd::rd_kafka_conf_new() };
        Self(NonNull::new(conf).expect("librdkafka allocates a configuration"))
    }

    /// Sets one property.
    ///
    /// # Errors
    /// librdkafka's own text (which names the property, never a secret's value).
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        // SAFETY: live configuration.
        unsafe { set(self.0.as_ptr(), key, value) }
    }

    pub(super) fn as_ptr(&mut self) -> *mut rd::rd_kafka_conf_t {
        self.0.as_ptr()
    }

    /// Creates a client.
    ///
    /// # Errors
    /// librdkafka's own text.
    pub fn create(self, kind: rd::rd_kafka_type_t) -> Result<Arc<Client>, String> {
        let mut message = [0 as c_char; 512];
        // SAFETY: the configuration is live and owned; on success it belongs to the client.
        let client = unsafe { rd::rd_kafka_new(kind, self.0.as_ptr(), message.as_mut_ptr(), message.len()) };
        let Some(client) = NonNull::new(client) else {
            return Err(text(message.as_ptr())); // `self` frees the configuration
        };
        std::mem::forget(self);
        Ok(Arc::new(Client(client)))
    }
}

/// True for properties whose values are never printed.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    ["password", "secret", ".key.pem", "oauthbearer.config", "jaas"].iter().any(|part| key.contains(part))
}

impl Default for Conf {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        // SAFETY: owned, and not given to a client (`create` forgets it then).
        unsafe { rd::rd_kafka_conf_destroy(self.0.as_ptr()) }
    }
}

/// A librdkafka client. Dropping the last holder destroys it without a consumer close of librdkafka's own (ours has a
/// deadline and is done before).
pub struct Client(NonNull<rd::rd_kafka_t>);

// SAFETY: rd_kafka_t is thread-safe by its documentation (INTRODUCTION.md, "Threads and callbacks").
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    pub(super) fn as_ptr(&self) -> *mut rd::rd_kafka_t {
        self.0.as_ptr()
    }

    /// The fatal error of this client, if it has one.
    #[must_use]
    pub fn fatal_error(&self) -> Option<(Code, String)> {
        let mut message = [0 as c_char; 512];
        // SAFETY: live client, a buffer of the length that is given.
        let code = unsafe { rd::rd_kafka_fatal_error(self.as_ptr(), message.as_mut_ptr(), message.len()) };
        (code != Code::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| (code, text(message.as_ptr())))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE
        const NO_CONSUMER_CLOSE: i32 = 0x8;
        // SAFETY: the last holder; queues and topics hold the client, so none is left.
        unsafe { rd::rd_kafka_destroy_flags(self.as_ptr(), NO_CONSUMER_CLOSE) }
    }
}

/// A queue of a client, with its wake-up callback.
pub struct Queue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// What the callback writes to; outlives the callback because `drop` unsets that first.
    signal: Option<Box<Signal>>,
    /// Lives at least as long as its queue.
    _client: Arc<Client>,
}

/// Set by librdkafka when a queue gets its first element.
struct Signal {
    ready: std::sync::atomic::AtomicBool,
    waker: crate::wake::Waker,
    /// What comes here is not urgent.
    tells: bool,
}

// SAFETY: queues are thread-safe in librdkafka; the signal is atomics.
unsafe impl Send for Queue {}

impl Queue {
    /// Takes over a queue that librdkafka gave us a reference to. `None` for null.
    pub(super) fn adopt(client: &Arc<Client>, queue: *mut rd::rd_kafka_queue_t) -> Option<Self> {
        NonNull::new(queue).map(|queue| Self { queue, signal: None, _client: Arc::clone(client) })
    }

    pub(super) fn as_ptr(&self) -> *mut rd::rd_kafka_queue_t {
        self.queue.as_ptr()
    }

    /// Wakes `waker` when the queue stops being empty. Starts as ready: what came before the callback is not announced.
    pub(super) fn wake(&mut self, waker: &crate::wake::Waker) {
        self.announce(waker, false);
    }

    /// As [`Queue::wake`], but for a thread that dozes.
    pub(super) fn tell(&mut self, waker: &crate::wake::Waker) {
        self.announce(waker, true);
    }

    fn announce(&mut self, waker: &crate::wake::Waker, tells: bool) {
        unsafe extern "C" fn on_event(_client: *mut rd::rd_kafka_t, opaque: *mut std::ffi::c_void) {
            // SAFETY: `opaque` is the queue's own boxed signal, which lives until the callback is unset. Called under
            // librdkafka's queue lock: nothing here may call librdkafka.
            let signal = unsafe { &*opaque.cast::<Signal>() };
            signal.ready.store(true, std::sync::atomic::Ordering::Release);
            if signal.tells { signal.waker.tell() } else { signal.waker.wake() }
        }
        let signal = Box::new(Signal { ready: true.into(), waker: waker.clone(), tells });
        // SAFETY: live queue; the signal's address is stable (boxed) and outlives the callback.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.as_ptr(), Some(on_event), (&raw const *signal).cast_mut().cast());
        }
        self.signal = Some(signal);
    }

    /// True when the queue may hold something. Clears the mark: the caller drains now (and marks it again when it stops
    /// before the queue is empty).
    #[inline]
    pub(super) fn take_ready(&self) -> bool {
        match &self.signal {
            Some(signal) if signal.ready.load(std::sync::atomic::Ordering::Acquire) => {
                signal.ready.store(false, std::sync::atomic::Ordering::Release);
                true
            }
            Some(_) => false,
            None => true,
        }
    }

    /// The queue may hold more.
    #[inline]
    pub(super) fn mark_ready(&self) {
        if let Some(signal) = &self.signal {
            signal.ready.store(true, std::sync::atomic::Ordering::Release);
        }
    }

    /// True when the queue may hold something.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.signal.as_ref().is_none_or(|signal| signal.ready.load(std::sync::atomic::Ordering::Acquire))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: live queue of a live client. Unsetting takes the queue's lock, so no callback runs after it.
        unsafe {
            if self.signal.is_some() {
                rd::rd_kafka_queue_cb_event_enable(self.as_ptr(), None, std::ptr::null_mut());
            }
            rd::rd_kafka_queue_destroy(self.as_ptr());
        }
    }
}

/// A topic handle of a producer.
pub struct Topic {
    topic: NonNull<rd::rd_kafka_topic_t>,
    _client: Arc<Client>,
}

// SAFETY: topic handles are thread-safe in librdkafka.
unsafe impl Send for Topic {}

impl Topic {
    /// A handle for a topic.
    ///
    /// # Errors
    /// When the name is not one.
    pub fn new(client: &Arc<Client>, name: &str) -> Result<Self, String> {
        let c_name = c_string(name)?;
        // SAFETY: live client, NUL-terminated name, null = the client's default topic configuration.
        let topic = unsafe { rd::rd_kafka_topic_new(client.as_ptr(), c_name.as_ptr(), std::ptr::null_mut()) };
        NonNull::new(topic)
            .map(|topic| Self { topic, _client: Arc::clone(client) })
            .ok_or_else(|| format!("librdkafka refuses the topic name `{name}`"))
    }

    /// A handle for a topic whose batches are compressed this way.
    ///
    /// # Errors
    /// When the name is not one, or librdkafka does not know the compression.
    pub fn with_compression(client: &Arc<Client>, name: &str, compression: &str) -> Result<Self, String> {
        let (c_name, c_key, c_value) = (c_string(name)?, c_string("compression.type")?, c_string(compression)?);
        let mut message = [0 as c_char; 512];
        // SAFETY: live client, NUL-terminated strings. `rd_kafka_topic_new` takes the configuration
        // over.
        unsafe {
            // A copy of the producer's own topic settings (acks, time-outs): a fresh one would have librdkafka's.
            let conf = rd::rd_kafka_default_topic_conf_dup(client.as_ptr());
            let set = rd::rd_kafka_topic_conf_set(
                conf,
                c_key.as_ptr(),
                c_value.as_ptr(),
                message.as_mut_ptr(),
                message.len(),
            );
            if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                rd::rd_kafka_topic_conf_destroy(conf);
                return Err(text(message.as_ptr()));
            }
            // Frees the configuration when it fails.
            NonNull::new(rd::rd_kafka_topic_new(client.as_ptr(), c_name.as_ptr(), conf))
                .map(|topic| Self { topic, _client: Arc::clone(client) })
                .ok_or_else(|| format!("librdkafka refuses the topic name `{name}`"))
        }
    }

    pub(super) fn as_ptr(&self) -> *mut rd::rd_kafka_topic_t {
        self.topic.as_ptr()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: owned reference.
        unsafe { rd::rd_kafka_topic_destroy(self.as_ptr()) }
    }
}

/// A list of topic-partitions with offsets.
pub struct PartitionList(NonNull<rd::rd_kafka_topic_partition_list_t>);

/// One element of a [`PartitionList`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffset {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset, or one of librdkafka's logical ones.
    pub offset: i64,
    /// What happened to it.
    pub error: Code,
}

impl PartitionList {
    /// An empty list.
    #[must_use]
    pub fn new(room: usize) -> Self {
        // SAFETY: no precondition; never null.
        let list = unsafe { rd::rd_kafka_topic_partition_list_new(i32::try_from(room).unwrap_or(0)) };
        Self(NonNull::new(list).expect("librdkafka allocates a list"))
    }

    /// Copies a list that belongs to librdkafka.
    ///
    /// # Safety
    /// `list` is null or a live list.
    pub(super) unsafe fn copy(list: *const rd::rd_kafka_topic_partition_list_t) -> Self {
        if list.is_null() {
            return Self::new(0);
        }
        // SAFETY: live list, by the caller's word.
        let copy = unsafe { rd::rd_kafka_topic_partition_list_copy(list) };
        Self(NonNull::new(copy).expect("librdkafka allocates a list"))
    }

    /// Adds a partition.
    ///
    /// # Errors
    /// When the topic's name holds a NUL.
    pub fn add(&mut self, topic: &str, partition: i32, offset: Option<i64>) -> Result<(), String> {
        let c_topic = c_string(topic)?;
        // SAFETY: live list, NUL-terminated name (which is copied); the element is valid until the next add.
        unsafe {
            let element = rd::rd_kafka_topic_partition_list_add(self.as_ptr(), c_topic.as_ptr(), partition);
            if let Some(offset) = offset {
                (*element).offset = offset;
            }
        }
        Ok(())
    }

    /// Its elements.
    #[must_use]
    pub fn elements(&self) -> Vec<PartitionOffset> {
        // SAFETY: live list; `cnt` elements are initialised.
        unsafe {
            let list = self.0.as_ref();
            (0..usize::try_from(list.cnt).unwrap_or(0))
                .map(|i| {
                    let element = &*list.elems.add(i);
                    PartitionOffset {
                        topic: text(element.topic),
                        partition: element.partition,
                        offset: element.offset,
                        error: read_code(&raw const element.err),
                    }
                })
                .collect()
        }
    }

    pub(super) fn as_ptr(&self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.as_ptr()) }
    }
}
