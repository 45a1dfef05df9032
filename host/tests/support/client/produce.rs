//! Producing: single records exactly as a test wants them, or many quickly. Everything is acknowledged on return.

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use rdkafka_sys::bindings::*;

use super::super::PATIENCE;
use super::super::kafka::Kafka;
use super::native::{check, config, error_text, left};

/// A record to produce. A partition or timestamp that is `None` is left to the client (Java's murmur2, now).
#[derive(Clone, Debug, Default)]
pub struct NewRecord {
    pub partition: Option<i32>,
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl NewRecord {
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> NewRecord {
        NewRecord { key: Some(key.into()), value: Some(value.into()), ..NewRecord::default() }
    }
}

/// Counts what the broker refused.
#[derive(Default)]
struct Refusals {
    count: AtomicU64,
    last: Mutex<String>,
    login: Mutex<Option<String>>,
}

impl ClientContext for Refusals {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            *self.login.lock().expect("nobody panics holding it") = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.count.fetch_add(1, Ordering::Relaxed);
            *self.last.lock().expect("nobody panics holding it") = error.to_string();
        }
    }
}

/// An idempotent producer.
pub struct Producer(BaseProducer<Refusals>);

impl Producer {
    pub fn new(kafka: &Kafka) -> Producer {
        Producer::try_new(config(kafka.bootstrap())).expect("a producer")
    }

    /// A producer of records of so many bytes.
    pub fn large(kafka: &Kafka, bytes: usize) -> Producer {
        let mut config = config(kafka.bootstrap());
        config.set("message.max.bytes", bytes.to_string());
        Producer::try_new(config).expect("a producer")
    }

    /// A producer that sends every record as a batch of its own. A batch is the least that brokers hand out.
    pub fn singly(kafka: &Kafka) -> Producer {
        let mut config = config(kafka.bootstrap());
        config.set("batch.num.messages", "1");
        Producer::try_new(config).expect("a producer")
    }

    /// A producer that sends each record at once.
    pub fn prompt(kafka: &Kafka) -> Producer {
        let mut config = config(kafka.bootstrap());
        config.set("linger.ms", "0");
        Producer::try_new(config).expect("a producer")
    }

    /// A producer with further settings, such as a login.
    pub fn try_new(mut config: ClientConfig) -> Result<Producer, KafkaError> {
        config
            .set("enable.idempotence", "true")
            .set("delivery.report.only.error", "true")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "1000000")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config.create_with_context(Refusals::default()).map(Producer)
    }

    /// Produces these records in order and waits until the broker has all.
    pub fn send(&self, topic: &str, records: &[NewRecord]) {
        let handle = self.topic(topic);
        for record in records {
            self.make_room();
            self.produce(handle, record);
        }
        self.finish(topic, handle);
    }

    /// Produces `count` records quickly and waits until the broker has all: `fill(n, key, value)` writes record `n` into
    /// two empty buffers. Partitions by murmur2 of the key as Java does; records of one key stay in order.
    pub fn fill(&self, topic: &str, count: u64, mut fill: impl FnMut(u64, &mut Vec<u8>, &mut Vec<u8>)) {
        const CHUNK: u64 = 10_000;
        let handle = self.topic(topic);
        let (mut keys, mut values) = (vec![Vec::new(); CHUNK as usize], vec![Vec::new(); CHUNK as usize]);
        for first in (0..count).step_by(CHUNK as usize) {
            let length = CHUNK.min(count - first) as usize;
            for (index, (key, value)) in keys.iter_mut().zip(&mut values).take(length).enumerate() {
                key.clear();
                value.clear();
                fill(first + index as u64, key, value);
            }
            let pairs = keys.iter().zip(&values).take(length);
            let mut messages: Vec<rd_kafka_message_t> = pairs.map(|(key, value)| message(key, value)).collect();
            self.make_room();
            let flags = RD_KAFKA_MSG_F_COPY;
            let count = c_int::try_from(length).expect("a chunk is small");
            // SAFETY: keys and values are copied before the call returns.
            let taken = unsafe { rd_kafka_produce_batch(handle, -1, flags, messages.as_mut_ptr(), count) };
            if taken != count {
                let refused =
                    messages.iter().find(|message| message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
                panic!(
                    "cannot produce to {topic}: {}",
                    refused.map_or("?".to_owned(), |message| error_text(message.err))
                );
            }
        }
        self.finish(topic, handle);
    }

    /// Hands one value over to be sent, and does not wait for it; [`Producer::finish_all`] does.
    pub fn put(&self, topic: &str, value: &[u8]) {
        let record = BaseRecord::<(), [u8]>::to(topic).payload(value);
        self.0.send(record).unwrap_or_else(|(error, _)| panic!("cannot produce to {topic}: {error}"));
        // Serves refusals.
        self.0.poll(Duration::ZERO);
    }

    /// Waits until the broker has all that was put.
    pub fn finish_all(&self, topic: &str) {
        self.finish(topic, self.topic(topic));
    }

    fn topic(&self, topic: &str) -> *mut rd_kafka_topic_t {
        let name = std::ffi::CString::new(topic).expect("a topic name has no NUL");
        // SAFETY: a null configuration means the client's own.
        let handle = unsafe { rd_kafka_topic_new(self.0.client().native_ptr(), name.as_ptr(), null_mut()) };
        assert!(!handle.is_null(), "{topic:?} is not a topic name");
        handle
    }

    fn produce(&self, topic: *mut rd_kafka_topic_t, record: &NewRecord) {
        use rd_kafka_vtype_t::*;
        let bytes = |part: &Option<Vec<u8>>| {
            part.as_ref().map_or((null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut(), bytes.len()))
        };
        let (key, key_length) = bytes(&record.key);
        let (value, value_length) = bytes(&record.value);
        let headers = headers(&record.headers);
        // SAFETY: types and values alternate as the call wants them; the bytes are copied, the headers are taken.
        let code = unsafe {
            rd_kafka_producev(
                self.0.client().native_ptr(),
                RD_KAFKA_VTYPE_RKT as c_int,
                topic,
                RD_KAFKA_VTYPE_PARTITION as c_int,
                record.partition.unwrap_or(-1),
                RD_KAFKA_VTYPE_MSGFLAGS as c_int,
                RD_KAFKA_MSG_F_COPY,
                RD_KAFKA_VTYPE_KEY as c_int,
                key,
                key_length,
                RD_KAFKA_VTYPE_VALUE as c_int,
                value,
                value_length,
                RD_KAFKA_VTYPE_TIMESTAMP as c_int,
                record.timestamp.unwrap_or(0),
                RD_KAFKA_VTYPE_HEADERS as c_int,
                headers,
                RD_KAFKA_VTYPE_END as c_int,
            )
        };
        check(code, "producing a record");
    }

    /// Keeps the client's queue below its limit.
    fn make_room(&self) {
        while self.0.in_flight_count() > 400_000 {
            self.0.poll(Duration::from_millis(5));
        }
    }

    fn finish(&self, topic: &str, handle: *mut rd_kafka_topic_t) {
        self.0
            .flush(PATIENCE)
            .unwrap_or_else(|error| panic!("the broker did not take all records of {topic}: {error}"));
        // SAFETY: made by `topic`, freed once, nothing in flight refers to it.
        unsafe { rd_kafka_topic_destroy(handle) };
        let refusals = self.0.context();
        let count = refusals.count.swap(0, Ordering::Relaxed);
        let last = refusals.last.lock().expect("nobody panics holding it").clone();
        assert!(count == 0, "{count} records of {topic} were refused, the last one: {last}");
    }

    /// Waits until the brokers answer this client or refuse its login, whichever comes first.
    pub fn connect(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(patience) = left(deadline) else { return Err(format!("no answer within {PATIENCE:?}")) };
            if self.0.client().fetch_metadata(None, patience.min(Duration::from_millis(500))).is_ok() {
                return Ok(());
            }
            // Serves the client's complaints.
            self.0.poll(Duration::ZERO);
            if let Some(refused) = self.0.context().login.lock().expect("nobody panics holding it").take() {
                return Err(refused);
            }
        }
    }
}

/// A producer that writes in transactions.
pub struct Transactions(Producer);

impl Transactions {
    pub fn new(kafka: &Kafka, id: &str) -> Transactions {
        let mut config = config(kafka.bootstrap());
        config.set("transactional.id", id);
        // One that stays open for a while is meant to.
        config.set("transaction.timeout.ms", "600000");
        let producer = Producer::try_new(config).expect("a producer");
        producer.0.init_transactions(PATIENCE).expect("the broker coordinates transactions");
        Transactions(producer)
    }

    /// One transaction with these records.
    pub fn commit(&mut self, topic: &str, records: &[NewRecord]) {
        self.write(topic, records);
        self.end();
    }

    /// The same, and then it is aborted: the records are in the log, and nobody shall read them.
    pub fn abort(&mut self, topic: &str, records: &[NewRecord]) {
        self.write(topic, records);
        self.0.0.abort_transaction(PATIENCE).expect("a transaction can be aborted");
    }

    /// A transaction that stays open until [`Transactions::end`].
    pub fn begin(&mut self, topic: &str, records: &[NewRecord]) {
        self.write(topic, records);
    }

    /// Commits the one that is open.
    pub fn end(&mut self) {
        self.0.0.commit_transaction(PATIENCE).expect("a transaction can be committed");
    }

    fn write(&mut self, topic: &str, records: &[NewRecord]) {
        self.0.0.begin_transaction().expect("a transaction can begin");
        self.0.send(topic, records);
    }
}

fn message(key: &[u8], value: &[u8]) -> rd_kafka_message_t {
    rd_kafka_message_t {
        err: rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: null_mut(),
        partition: -1,
        payload: value.as_ptr().cast_mut().cast(),
        len: value.len(),
        key: key.as_ptr().cast_mut().cast(),
        key_len: key.len(),
        offset: 0,
        _private: null_mut(),
    }
}

/// Headers as librdkafka holds them; the call that produces takes them.
fn headers(headers: &[(Vec<u8>, Option<Vec<u8>>)]) -> *mut rd_kafka_headers_t {
    // SAFETY: names and values are copied with their lengths; a null value is a null pointer.
    unsafe {
        let list = rd_kafka_headers_new(headers.len());
        for (name, value) in headers {
            let (pointer, length) = value.as_ref().map_or((std::ptr::null(), 0), |value| (value.as_ptr(), value.len()));
            let code =
                rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, pointer.cast(), length as isize);
            check(code, "adding a header");
        }
        list
    }
}
