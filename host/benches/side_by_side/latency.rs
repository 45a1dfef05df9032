//! End to end at a fixed rate: a producer writes its send time into every record, an independent consumer of the output
//! reads it there.
//!
//! The send time is the one that the schedule says, so that a producer that is held up does not hide what a record waited.
//! The producer waits for company as producers do by default ([`LINGER`]): that and the clients of this file are part of
//! every latency, the same for all systems. (With less, its thousands of tiny requests are most of the machine's work.)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::input::write_key;
use crate::options::Scale;
use crate::plan::{RATE, Variant};
use crate::results::{Figures, figures};
use crate::support::client::{committed, create_topic, delete_topic};
use crate::support::kafka::Kafka;
use crate::support::process::Process;
use crate::support::{PATIENCE, unique};
use crate::systems::{Topics, command};

/// Milliseconds; librdkafka's and Java's default.
const LINGER: &str = "5";
/// How often the producer looks at its schedule.
const TICK: Duration = Duration::from_millis(1);

/// What producer and consumer share.
struct Course {
    started: Instant,
    /// Nanoseconds after `started` at which the first record came out; 0 before.
    first_out: AtomicU64,
    sent: AtomicU64,
    /// No more will be sent.
    ended: AtomicBool,
}

impl Course {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("a measurement ends before the clock does")
    }
}

pub fn measure(kafka: &Kafka, variant: &Variant, warm_up: Duration, scale: &Scale) -> Figures {
    let partitions = variant.input.partitions;
    let [input, output, group] = ["latency-in", "latency-out", "latency"].map(unique);
    create_topic(kafka, &input, partitions);
    create_topic(kafka, &output, partitions);
    let topics = Topics { input, partitions, output, group };
    let producer = producer(kafka);
    // Asks for the partitions now, so that the first record does not wait for the answer.
    producer.client().fetch_metadata(Some(&topics.input), PATIENCE).expect("the broker answers");
    let consumer = consumer(kafka, &topics.output, partitions);
    let process = Process::spawn(variant.name, command(kafka, variant.system, &topics));
    let course = Course {
        started: Instant::now(),
        first_out: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        ended: AtomicBool::new(false),
    };
    let (window, cpu, broker_cpu, mut latencies) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(&producer, &topics.input, partitions, variant.input.size, &course));
        let receiving = scope.spawn(|| receive(&consumer, &course, &process));
        let cpu = || process.cpu_now().unwrap_or_else(|| panic!("it ended early\n{}", process.tail()));
        let broker = || kafka.cpu_now().unwrap_or_default();
        process.wait_until("nothing came out", PATIENCE, || course.first_out.load(Ordering::Relaxed) > 0);
        pause(&process, warm_up);
        let (from, cpu_from, broker_from) = (course.now(), cpu(), broker());
        pause(&process, scale.latency());
        let (to, cpu_to, broker_to) = (course.now(), cpu(), broker());
        course.ended.store(true, Ordering::Relaxed);
        sending.join().expect("the producer goes on to the end");
        let latencies = receiving.join().expect("the consumer goes on to the end");
        (from..to, cpu_to - cpu_from, broker_to - broker_from, latencies)
    });
    process.signal(libc::SIGTERM);
    let exit = process.wait_exit(PATIENCE);
    assert!(exit.status.success(), "{} ended with {}\n{}", variant.name, exit.status, process.tail());
    let sent = course.sent.load(Ordering::Relaxed);
    let committed: i64 = committed(kafka, &topics.group, &topics.input).into_iter().flatten().sum();
    assert!(committed.unsigned_abs() == sent, "{} committed {committed} records of {sent}", variant.name);
    for topic in [&topics.input, &topics.output] {
        delete_topic(kafka, topic);
    }
    latencies.retain(|(sent_at, _)| window.contains(sent_at));
    let mut waited: Vec<u64> = latencies.into_iter().map(|(_, waited)| waited).collect();
    waited.sort_unstable();
    assert!(!waited.is_empty(), "{}: nothing was sent in the time that counts", variant.name);
    let milliseconds = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    let count = waited.len() as f64;
    figures([
        ("p50_ms", milliseconds(0.5)),
        ("p90_ms", milliseconds(0.9)),
        ("p99_ms", milliseconds(0.99)),
        ("p999_ms", milliseconds(0.999)),
        ("max_ms", milliseconds(1.0)),
        ("records_per_second", count * 1e9 / (window.end - window.start) as f64),
        ("cpu_ns", cpu.as_nanos() as f64 / count),
        ("broker_cpu_ns", broker_cpu.as_nanos() as f64 / count),
        ("max_rss_mib", exit.max_rss_kib as f64 / 1024.0),
    ])
}

/// Lets the system work for a while; an early end fails.
fn pause(process: &Process, time: Duration) {
    assert!(process.wait_exit_within(time).is_none(), "it ended early\n{}", process.tail());
}

fn producer(kafka: &Kafka) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("enable.metrics.push", "false");
    config.set("linger.ms", LINGER).set("partitioner", "murmur2_random").set("acks", "all");
    config.create().expect("a producer")
}

fn consumer(kafka: &Kafka, topic: &str, partitions: i32) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap()).set("enable.metrics.push", "false");
    config.set("group.id", unique("observer")).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition of the topic");
    }
    consumer.assign(&list).expect("partitions can be assigned");
    consumer
}

/// Sends what the schedule says until the course has ended.
fn send(producer: &BaseProducer, topic: &str, partitions: i32, size: usize, course: &Course) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut sent = 0;
    let due_at = |n: u64| n * 1_000_000_000 / RATE;
    while !course.ended.load(Ordering::Relaxed) {
        while due_at(sent) <= course.now() {
            key.clear();
            value.clear();
            write_key(sent, partitions, &mut key);
            // The send time in digits, which upper case leaves as they are.
            value.extend_from_slice(format!("{:020}", due_at(sent)).as_bytes());
            value.resize(size, b'a');
            match producer.send(BaseRecord::to(topic).key(&key).payload(&value)) {
                Ok(()) => sent += 1,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                Err((error, _)) => panic!("cannot produce: {error}"),
            }
        }
        // Serves delivery reports for as long as that.
        producer.poll(TICK);
    }
    producer.flush(PATIENCE).expect("the broker takes what was sent");
    course.sent.store(sent, Ordering::Relaxed);
}

/// Reads the output until all that was sent came out: when each record was sent, and how long it took.
fn receive(consumer: &BaseConsumer, course: &Course, process: &Process) -> Vec<(u64, u64)> {
    let mut latencies = Vec::with_capacity(1_000_000);
    let mut last = Instant::now();
    loop {
        let all = course.sent.load(Ordering::Relaxed);
        if all > 0 && latencies.len() as u64 >= all {
            assert!(latencies.len() as u64 == all, "{} records came out, {all} went in", latencies.len());
            return latencies;
        }
        assert!(last.elapsed() < PATIENCE, "{} of {all} came out\n{}", latencies.len(), process.tail());
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("the output can be read");
        let now = course.now();
        last = Instant::now();
        let digits = message.payload().and_then(|value| value.get(..20)).expect("a value with its send time");
        let sent_at = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        let sent_at: u64 = sent_at.expect("the send time is still there");
        latencies.push((sent_at, now.saturating_sub(sent_at)));
        if latencies.len() == 1 {
            course.first_out.store(now.max(1), Ordering::Relaxed);
        }
    }
}
