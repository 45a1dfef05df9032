//! Who writes the input: producers that number what they send and note what they were told is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use crate::checker::Acknowledged;
use crate::support::PATIENCE;
use crate::support::kafka::Kafka;

const PRODUCERS: u32 = 2;
/// Keys of a producer in one partition; no key is in two, so each has one order.
const KEYS: u64 = 16;
/// Time between two handfuls.
const TURN: Duration = Duration::from_millis(10);
/// Records that wait for a broker that is away.
const MOST_WAITING: i32 = 20_000;

/// See the module's text.
pub struct Producers {
    stop: Arc<AtomicBool>,
    partitions: Arc<AtomicI32>,
    threads: Vec<JoinHandle<Vec<Acknowledged>>>,
}

impl Producers {
    /// Together they write `rate` records a second to the partitions in turn.
    pub fn start(kafka: &Kafka, topic: &str, run: &str, partitions: i32, rate: u64) -> Producers {
        let (stop, partitions) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(partitions)));
        let start = |number| {
            let mut config = ClientConfig::new();
            config
                .set("bootstrap.servers", kafka.bootstrap())
                .set("enable.idempotence", "true")
                // With more on their way at once, the first batch of a partition that was just made may be refused
                // (its leader does not know of it yet) while the second is taken; the first, sent again, is then taken
                // for a repeat, and is gone though it was acknowledged.
                .set("max.in.flight.requests.per.connection", "1")
                .set("linger.ms", "5")
                // An outage is waited out, whatever its length; new partitions are seen at once.
                .set("message.timeout.ms", "0")
                .set("reconnect.backoff.max.ms", "250")
                .set("topic.metadata.refresh.interval.ms", "500")
                .set("enable.metrics.push", "false")
                .set("log_level", "0");
            let producer = config.create_with_context(Ledger::default()).expect("a producer");
            let sender = Sender {
                producer,
                number,
                topic: topic.to_owned(),
                run: run.to_owned(),
                next_seq: HashMap::new(),
                next_key_seq: HashMap::new(),
                next_partition: 0,
            };
            let (stop, partitions) = (Arc::clone(&stop), Arc::clone(&partitions));
            std::thread::spawn(move || sender.run(rate as f64 / f64::from(PRODUCERS), &stop, &partitions))
        };
        let threads = (0..PRODUCERS).map(start).collect();
        Producers { stop, partitions, threads }
    }

    /// The topic has more partitions now.
    pub fn use_partitions(&self, count: i32) {
        self.partitions.store(count, Ordering::Relaxed);
    }

    /// Ends them when the broker has everything they sent; what they were told is written.
    pub fn stop(&mut self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).flat_map(|thread| thread.join().expect("producing went well")).collect()
    }
}

#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<Vec<(i32, i64, u64)>>,
    refused: Mutex<Option<String>>,
}

impl ClientContext for Ledger {
    /// Brokers come and go here.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Ledger {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, seq: usize) {
        match result {
            Ok(record) => {
                let one = (record.partition(), record.offset(), seq as u64);
                self.acknowledged.lock().expect("nobody panics holding it").push(one);
            }
            Err((error, _)) => *self.refused.lock().expect("nobody panics holding it") = Some(error.to_string()),
        }
    }
}

struct Sender {
    producer: BaseProducer<Ledger>,
    number: u32,
    topic: String,
    run: String,
    next_seq: HashMap<i32, u64>,
    next_key_seq: HashMap<String, u64>,
    next_partition: i32,
}

impl Sender {
    fn run(mut self, rate: f64, stop: &AtomicBool, partitions: &AtomicI32) -> Vec<Acknowledged> {
        let mut last = Instant::now();
        let mut owed = 0.0;
        while !stop.load(Ordering::Relaxed) {
            // Serves reports until the turn is over.
            self.producer.poll(TURN);
            let now = Instant::now();
            // What a broker that is away holds up is not made up for: it would come as a flood.
            owed = (owed + rate * (now - last).as_secs_f64()).min(rate);
            last = now;
            while owed >= 1.0 && self.producer.in_flight_count() < MOST_WAITING {
                owed -= 1.0;
                self.next_partition = (self.next_partition + 1) % partitions.load(Ordering::Relaxed);
                self.send(self.next_partition);
            }
        }
        self.producer.flush(PATIENCE).expect("the broker takes everything");
        let ledger = self.producer.context();
        let refused = ledger.refused.lock().expect("nobody panics holding it").take();
        assert!(refused.is_none(), "the broker refused a record of producer {}: {refused:?}", self.number);
        let acknowledged = std::mem::take(&mut *ledger.acknowledged.lock().expect("nobody panics holding it"));
        let one = |(partition, offset, seq)| {
            let offset = (offset >= 0).then_some(offset);
            Acknowledged { partition, offset, producer: self.number, seq }
        };
        acknowledged.into_iter().map(one).collect()
    }

    fn send(&mut self, partition: i32) {
        let seq = self.next_seq.entry(partition).or_default();
        let (q, number) = (self.number.to_string(), seq.to_string());
        let key = format!("q{q}p{partition}k{}", *seq % KEYS);
        let key_seq = self.next_key_seq.entry(key.clone()).or_default();
        let value = format!("record {number} of {q} for {partition}");
        let crc = crc32c(&[key.as_bytes(), value.as_bytes(), q.as_bytes(), number.as_bytes()]);
        let headers = [("run", &self.run), ("q", &q), ("seq", &number)].map(|(name, value)| (name, value.clone()));
        let headers = headers.into_iter().chain([("kseq", key_seq.to_string()), ("crc", format!("{crc:x}"))]);
        let headers =
            headers.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(&value) }));
        let record = BaseRecord::with_opaque_to(&self.topic, *seq as usize);
        match self.producer.send(record.partition(partition).key(&key).payload(&value).headers(headers)) {
            Ok(()) => {
                *seq += 1;
                *key_seq += 1;
            }
            // A partition that was just made, and that this client has not heard of yet.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), _)) => {}
            Err((error, _)) => panic!("producer {q} cannot send: {error}"),
        }
    }
}

/// CRC-32C of the parts one after the other.
fn crc32c(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().copied().flatten();
    !bytes.fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
