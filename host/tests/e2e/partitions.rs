//! Partitions that are added to topics while a pipeline runs.

use std::time::Instant;

use crate::check::{Stage, sorted_values};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, add_partitions, committed, end_offsets, read_all};
use crate::support::guests::guest;
use crate::support::host::HostOptions;
use crate::support::kafka::{Kafka, kafka_or_not_run};

fn produce(kafka: &Kafka, topic: &str, partition: i32, values: std::ops::Range<i32>) {
    let record = |value: i32| NewRecord {
        partition: Some(partition),
        ..NewRecord::new(format!("key-{value}"), format!("{partition}-{value}"))
    };
    Producer::new(kafka).send(topic, &values.map(record).collect::<Vec<_>>());
}

/// Gives a topic so many partitions; returns when each has a leader.
fn widen(kafka: &Kafka, topic: &str, count: i32) {
    add_partitions(kafka, topic, count);
    let deadline = Instant::now() + PATIENCE;
    while end_offsets(kafka, topic).len() < count.unsigned_abs() as usize {
        assert!(Instant::now() < deadline, "{topic} has no {count} partitions after {PATIENCE:?}");
    }
}

/// A host that looks for new partitions twice a second.
fn host(stage: &Stage<'_>, start: &str) -> HostOptions {
    let output = crate::check::output("out", &stage.output);
    let options = stage.manifest(&guest("forward"), &format!("start = \"{start}\""), &output);
    options.kafka_property("topic.metadata.refresh.interval.ms", "500")
}

/// Proves: partitions that an input topic gets while the pipeline runs are read from their first record on, though `start`
/// is "latest" and their records are older than their discovery. (Row J5.)
#[test]
fn new_input_partitions_are_read_from_their_beginning() {
    let kafka = kafka_or_not_run!("new_input_partitions_are_read_from_their_beginning");
    let stage = Stage::new(kafka, "wider", 1);
    produce(kafka, &stage.input, 0, 0..10);
    let host = host(&stage, "latest").start();
    // Its place is known, and kept, before the first record comes.
    stage.wait_committed();
    produce(kafka, &stage.input, 0, 10..20);
    widen(kafka, &stage.input, 3);
    for partition in [1, 2] {
        produce(kafka, &stage.input, partition, 0..50);
    }
    let line = host.wait_for_line("new partitions, read from their first record on", PATIENCE);
    assert!(line.contains(&format!("{}[1-2]", stage.input)), "{line}");
    stage.wait_committed();
    host.stop();
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(20), Some(50), Some(50)]);
    let mut expected: Vec<String> = (10..20).map(|value| format!("0-{value}")).collect();
    expected.extend([1, 2].into_iter().flat_map(|partition| (0..50).map(move |value| format!("{partition}-{value}"))));
    expected.sort();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), expected);
}

/// Proves: partitions that an output topic gets while the pipeline runs are written to without a restart, nothing is lost or
/// repeated over that, and it is said.
#[test]
fn new_output_partitions_are_written_to() {
    let kafka = kafka_or_not_run!("new_output_partitions_are_written_to");
    let stage = Stage::new(kafka, "spread", 1);
    produce(kafka, &stage.input, 0, 0..50);
    let host = host(&stage, "earliest").start();
    stage.wait_committed();
    widen(kafka, &stage.output, 4);
    let line = host.wait_for_line("has 4 partitions, and had 1", PATIENCE);
    assert!(line.contains(&stage.output), "{line}");
    produce(kafka, &stage.input, 0, 50..250);
    stage.wait_committed();
    host.stop();
    let ends = end_offsets(kafka, &stage.output);
    assert!(ends.len() == 4 && ends.iter().all(|end| *end > 0), "{ends:?}");
    let mut expected: Vec<String> = (0..250).map(|value| format!("0-{value}")).collect();
    expected.sort();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), expected);
}
