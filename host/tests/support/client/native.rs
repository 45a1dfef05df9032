//! Handles of librdkafka that free themselves, and the few calls everything else is made of.

use std::ffi::{CStr, CString, c_char};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka_sys::bindings::*;

/// `rd_kafka_t` of a client without callbacks.
pub struct Client(*mut rd_kafka_t);

// SAFETY: librdkafka handles may be used from any thread.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    pub fn new(kind: rd_kafka_type_t, config: &ClientConfig) -> Client {
        let config = config.create_native_config().expect("a valid client configuration");
        let mut text = [0 as c_char; 512];
        // SAFETY: the configuration is duplicated because `rd_kafka_new` takes it.
        let handle = unsafe { rd_kafka_new(kind, rd_kafka_conf_dup(config.ptr()), text.as_mut_ptr(), text.len()) };
        // SAFETY: on failure the text is a C string.
        assert!(!handle.is_null(), "cannot make a Kafka client: {:?}", unsafe { CStr::from_ptr(text.as_ptr()) });
        Client(handle)
    }

    pub fn as_ptr(&self) -> *mut rd_kafka_t {
        self.0
    }

    /// The number of partitions of a topic; waits for the broker, and for a topic that was just made.
    pub fn partitions(&self, topic: &str, patience: Duration) -> i32 {
        let handle = Topic::new(self, topic);
        let mut count = 0;
        self.ask(&format!("asking for the partitions of {topic}"), patience, |milliseconds| {
            let mut metadata: *const rd_kafka_metadata = std::ptr::null();
            // SAFETY: on success the answer lists exactly the topic asked for, and is freed after its fields were read.
            unsafe {
                let code = rd_kafka_metadata(self.0, 0, handle.0, (&raw mut metadata).cast(), milliseconds);
                if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return code;
                }
                let only = &*(*metadata).topics;
                let code = only.err;
                count = only.partition_cnt;
                rd_kafka_metadata_destroy(metadata.cast());
                code
            }
        });
        count
    }

    /// The oldest offset and the next offset of a partition, asked from the broker that leads it.
    pub fn watermarks(&self, topic: &str, partition: i32, patience: Duration) -> (i64, i64) {
        let name = CString::new(topic).expect("a topic name has no NUL");
        let (mut low, mut high) = (0, 0);
        let (low_at, high_at) = (&raw mut low, &raw mut high);
        self.ask(&format!("asking for the offsets of {topic}[{partition}]"), patience, |milliseconds| {
            // SAFETY: writes the two offsets.
            unsafe { rd_kafka_query_watermark_offsets(self.0, name.as_ptr(), partition, low_at, high_at, milliseconds) }
        });
        (low, high)
    }

    /// Asks until there is an answer: a broker may not know yet what its controller just made, or be starting.
    fn ask(&self, what: &str, patience: Duration, mut question: impl FnMut(i32) -> rd_kafka_resp_err_t) {
        let deadline = Instant::now() + patience;
        loop {
            let code = question(milliseconds(left(deadline).unwrap_or(Duration::from_millis(1))));
            if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            assert!(passes(code) && left(deadline).is_some(), "{what}: {}", error_text(code));
            // Lets the client work a little before the next question.
            // SAFETY: the client is open.
            unsafe { rd_kafka_poll(self.0, 20) };
        }
    }
}

/// Whether an error is one of a broker or topic that is not there yet, or not there for a moment.
pub fn passes(code: rd_kafka_resp_err_t) -> bool {
    use rd_kafka_resp_err_t::*;
    matches!(
        code,
        RD_KAFKA_RESP_ERR__TRANSPORT
            | RD_KAFKA_RESP_ERR__DESTROY_BROKER
            | RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
            | RD_KAFKA_RESP_ERR__TIMED_OUT
            | RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
            | RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
            | RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE
    )
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: everything that refers to the client was dropped before it.
        unsafe { rd_kafka_destroy(self.0) };
    }
}

pub struct Topic(*mut rd_kafka_topic_t);

// SAFETY: librdkafka handles may be used from any thread.
unsafe impl Send for Topic {}

impl Topic {
    pub fn new(client: &Client, name: &str) -> Topic {
        let c_name = CString::new(name).expect("a topic name has no NUL");
        // SAFETY: a null configuration means the client's own.
        let handle = unsafe { rd_kafka_topic_new(client.0, c_name.as_ptr(), std::ptr::null_mut()) };
        assert!(!handle.is_null(), "{name:?} is not a topic name");
        Topic(handle)
    }

    pub fn as_ptr(&self) -> *mut rd_kafka_topic_t {
        self.0
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, freed once.
        unsafe { rd_kafka_topic_destroy(self.0) };
    }
}

/// A client configuration for `bootstrap` that reconnects quickly: brokers of tests come back within seconds.
pub fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "250")
        .set("enable.metrics.push", "false")
        .set("log_level", "0")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg);
    config
}

/// The partition that Java's default partitioner gives this key, by librdkafka's own code.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let none = std::ptr::null_mut();
    // SAFETY: this partitioner looks at the key and the count only.
    unsafe {
        rd_kafka_msg_partitioner_murmur2(none, key.as_ptr().cast(), key.len(), partitions, none.cast(), none.cast())
    }
}

pub fn check(code: rd_kafka_resp_err_t, doing: &str) {
    assert!(code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "{doing}: {}", error_text(code));
}

pub fn error_text(code: rd_kafka_resp_err_t) -> String {
    // SAFETY: a static C string.
    unsafe { CStr::from_ptr(rd_kafka_err2str(code)) }.to_string_lossy().into_owned()
}

pub fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// What is left until `deadline`, `None` when it has passed.
pub fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
