//! A million records through a sandboxed handler, judged by Kafka's own tools as well.

use std::time::{Duration, Instant};

use crate::check::{Stage, number, numbered, output};
use crate::support::PATIENCE;
use crate::support::client::{Commits, NewRecord, Producer, partition_of, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;
use crate::support::tools::Tools;

const RECORDS: u64 = 1_000_000;
const SIZE: usize = 100;
const KEYS: u64 = 4096;
const PARTITIONS: i32 = 8;

/// Proves: each of a million records arrives once, transformed as expected, on the partition that Java would choose, in
/// the order of its key, with key and event time kept; the group's lag is 0 and what it committed is the end, as
/// `kafka-consumer-groups` says.
#[test]
fn a_million_records_arrive_exactly() {
    let kafka = kafka_or_not_run!("a_million_records_arrive_exactly");
    let stage = Stage::new(kafka, "million", PARTITIONS);
    stage.produce_numbered(0, RECORDS, SIZE, KEYS);
    let host = stage.host(&guest("uppercase")).start();
    stage.commits().wait_for_end(kafka, &stage.input, Duration::from_secs(180));
    host.stop();

    let input = read_all(kafka, &stage.input);
    let output = read_all(kafka, &stage.output);
    assert_eq!(output.len() as u64, RECORDS);
    // The input's partitions were chosen by murmur2 of the key, so input and output agree partition by partition, in the
    // very order.
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for (before, after) in input.iter().zip(&output) {
        key.clear();
        value.clear();
        numbered(number(before), SIZE, KEYS, &mut key, &mut value);
        value.make_ascii_uppercase();
        assert_eq!((after.partition, after.offset), (before.partition, before.offset));
        assert_eq!((after.key.as_ref(), after.value.as_ref()), (Some(&key), Some(&value)));
        assert_eq!((after.timestamp, after.timestamp_type), (before.timestamp, before.timestamp_type));
        assert_eq!(after.partition, partition_of(&key, PARTITIONS));
    }

    let tools = Tools(kafka);
    assert_eq!(tools.end_offsets(&stage.output).iter().sum::<i64>(), RECORDS as i64);
    let positions = tools.describe_group(&stage.group);
    assert_eq!(positions.len(), PARTITIONS as usize, "{positions:?}");
    for position in positions {
        assert_eq!((position.committed, position.lag), (Some(position.log_end), Some(0)), "{position:?}");
    }
}

/// Proves: a partition with a backlog is read on though its neighbours have nothing. librdkafka has one fetch under way; one
/// for those neighbours would be answered after ten seconds, here, twenty times over.
#[test]
fn neighbours_without_records_do_not_hold_up_a_backlog() {
    let kafka = kafka_or_not_run!("neighbours_without_records_do_not_hold_up_a_backlog");
    let stage = Stage::new(kafka, "backlog", PARTITIONS);
    let one_key = 1;
    stage.produce_numbered(0, 200_000, SIZE, one_key);
    let host =
        stage.manifest(&guest("uppercase"), "fetch = { max_wait = \"10s\" }\n", &output("out", &stage.output)).start();
    stage.wait_committed();
    host.stop();
    assert_eq!(read_all(kafka, &stage.output).len(), 200_000);
}

/// Proves: partitions with more than their handlers get through do not starve a quiet one, on the same handler threads: its
/// record is done long before they are.
#[test]
fn busy_partitions_do_not_starve_a_quiet_one() {
    /// More than there are handler threads on the machines that run this.
    const BUSY: i32 = 16;
    const EACH: i64 = 5_000;
    let kafka = kafka_or_not_run!("busy_partitions_do_not_starve_a_quiet_one");
    let stage = Stage::new(kafka, "quiet", BUSY + 1);
    let on = |partition, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let producer = Producer::new(kafka);
    // A million turns take a handler about a millisecond.
    producer.send(&stage.input, &(0..BUSY).flat_map(|p| vec![on(p, "slow-1"); EACH as usize]).collect::<Vec<_>>());
    let rest = format!("{}[ack]\ncommit_interval = \"50ms\"\n", output("out", &stage.output));
    let host = stage.manifest(&guest("faulty"), "", &rest).start();
    let mut commits = stage.commits();
    let all_busy = |commits: &Commits| (0..BUSY).all(|p| commits.last(&stage.input, p) > Some(0));
    assert!(commits.wait_until(PATIENCE, all_busy), "they are at work: {:?}\n{}", commits.seen(), host.tail());
    let begun = Instant::now();
    producer.send(&stage.input, &[on(BUSY, "good")]);
    let reached = commits.wait_until(PATIENCE, |commits| commits.last(&stage.input, BUSY) == Some(1));
    let took = begun.elapsed();
    assert!(reached, "commits: {:?}\n{}", commits.seen(), host.tail());
    let busy: Vec<i64> = (0..BUSY).map(|p| commits.last(&stage.input, p).unwrap_or(0)).collect();
    host.kill();
    assert!(busy.iter().all(|done| *done < EACH / 2), "they were through when it was: {busy:?}");
    eprintln!("committed after {took:?} beside {BUSY} busy partitions, which had done {busy:?} of {EACH} each");
}
