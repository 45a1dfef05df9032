//! What the preloaded topics hold: keys of 16 bytes, a thousand per partition; values in lower case, numbered, whose first
//! byte is the last digit of their number, which a filter can go by.

use std::io::Write;
use std::time::Instant;

use crate::options::Scale;
use crate::plan::Input;
use crate::support::client::{NewRecord, Producer, create_topic, end_offsets};
use crate::support::kafka::Kafka;
use crate::support::unique;

/// Headers as tracing and routing leave them.
const HEADERS: [(&str, &str); 4] = [
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("content-type", "application/json"),
    ("source", "orders-service"),
    ("tenant", "t-004217"),
];
/// Records with headers are produced in parts of so many.
const PART: u64 = 100_000;

impl Input {
    pub fn records(&self, scale: &Scale) -> u64 {
        scale.records * self.eighths / 8
    }

    /// Of the records, those whose number ends with 1: what a filter of one in ten keeps.
    pub fn come_out(&self, scale: &Scale, one_in: u64) -> u64 {
        let records = self.records(scale);
        if one_in == 1 { records } else { (records + one_in - 2) / one_in }
    }
}

/// Makes a topic and fills it; its name.
pub fn preload(kafka: &Kafka, input: &Input, scale: &Scale) -> String {
    let topic = unique("bench-in");
    create_topic(kafka, &topic, input.partitions);
    let (records, started) = (input.records(scale), Instant::now());
    let producer = Producer::new(kafka);
    if input.headers {
        let headers = HEADERS.map(|(name, value)| (name.into(), Some(value.into())));
        for first in (0..records).step_by(PART as usize) {
            let numbers = first..records.min(first + PART);
            let part: Vec<NewRecord> = numbers.map(|n| with_headers(n, input, &headers)).collect();
            producer.send(&topic, &part);
        }
    } else {
        producer.fill(&topic, records, |n, key, value| write(n, input, key, value));
    }
    let ends = end_offsets(kafka, &topic);
    let (least, sum) = (ends.iter().min().copied().unwrap_or(0), ends.iter().sum::<i64>());
    assert_eq!(ends.len(), input.partitions.unsigned_abs() as usize, "the input has all its partitions");
    assert!(least > 0 && sum.unsigned_abs() == records, "the input lies on all partitions: {ends:?}");
    let with = if input.headers { " with 4 headers" } else { "" };
    let (size, partitions) = (input.size, input.partitions);
    eprintln!("preloaded {records} records of {size} B{with} on {partitions} partitions in {:.1?}", started.elapsed());
    topic
}

/// The key of record `n`.
pub fn write_key(n: u64, partitions: i32, key: &mut Vec<u8>) {
    write!(key, "key-{:012}", n % (1000 * u64::from(partitions.unsigned_abs()))).expect("writing to memory");
}

fn write(n: u64, input: &Input, key: &mut Vec<u8>, value: &mut Vec<u8>) {
    write_key(n, input.partitions, key);
    write!(value, "{}-{n:018}", n % 10).expect("writing to memory");
    value.resize(input.size, b'a' + (n % 26) as u8);
}

fn with_headers(n: u64, input: &Input, headers: &[(Vec<u8>, Option<Vec<u8>>); 4]) -> NewRecord {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    write(n, input, &mut key, &mut value);
    NewRecord { headers: headers.to_vec(), ..NewRecord::new(key, value) }
}
