//! Partitions that are given back while something of them is under way: open batches, and a call that does not end in time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::check::{Stage, output, sorted_values, wait_for_owners, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, Record, committed, read_all, total};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::kafka_or_not_run;

const PARTITIONS: i32 = 4;
/// Records of each partition, all of them in one open batch.
const EACH: i64 = 1_000;

/// Records for a batcher that closes nothing by itself while a test runs.
fn open_batches(stage: &Stage<'_>) -> (HostOptions, Vec<String>) {
    let mut records = Vec::new();
    for partition in 0..PARTITIONS {
        for n in 0..EACH {
            let value = format!("batch-good {partition} {n:04}");
            records.push(NewRecord { partition: Some(partition), ..NewRecord::new("key", value) });
        }
    }
    Producer::new(stage.kafka).send(&stage.input, &records);
    let mut values: Vec<String> =
        records.into_iter().map(|record| String::from_utf8(record.value.expect("one each")).expect("text")).collect();
    values.sort();
    let source = format!("protocol = \"{}\"", if stage.group.contains("eager") { "range" } else { "cooperative" });
    let rest = format!(
        "[batch.default]\nmax_messages = 1000000\nmax_bytes = \"16MiB\"\nmax_wait = \"149s\"\n{}",
        output("out", &stage.output)
    );
    (stage.manifest(&guest("faulty"), &source, &rest), values)
}

/// Waits until all records of these partitions are in open batches of the host.
fn wait_until_gathered(host: &SluiceHost, partitions: i32) {
    host.wait_for_metric("sluicebox_in_flight_messages", &[], (i64::from(partitions) * EACH) as f64);
}

/// So many batches were closed by a revocation. Figures follow a moment after what they count.
fn wait_until_closed(host: &SluiceHost, count: f64) {
    host.wait_for_metric("sluicebox_batches_closed_total", &["trigger=\"revoke\""], count);
}

/// Committed to the end, or nothing yet, of each partition.
fn done(stage: &Stage<'_>) -> usize {
    let committed = committed(stage.kafka, &stage.group, &stage.input);
    let ends = committed.iter().filter(|offset| **offset == Some(EACH)).count();
    assert!(committed.iter().all(|offset| matches!(offset, None | Some(0 | EACH))), "{committed:?}");
    ends
}

/// Proves: when a second host takes half of the partitions, the open batches of those, and of no others, are closed, carried
/// out and committed before they go, so that the new owner finds nothing to do; the batches of the kept partitions stay open.
/// SIGTERM then closes those as well and ends within its deadline. Every record arrives once.
#[test]
fn open_batches_of_given_partitions_are_flushed_and_the_others_kept() {
    let test = "open_batches_of_given_partitions_are_flushed_and_the_others_kept";
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, "open-batches", PARTITIONS);
    let (options, values) = open_batches(&stage);
    let first = options.start();
    wait_until_gathered(&first, PARTITIONS);
    assert_eq!(total(kafka, &stage.output), 0);

    let second = options.start();
    wait_for_owners(&stage, 2);
    wait_until_closed(&first, 2.0);
    assert_eq!(done(&stage), 2);
    wait_until_gathered(&first, 2);
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)).len() as i64, 2 * EACH);
    assert_eq!(second.metric("sluicebox_messages_consumed_total"), Some(0.0), "the new owner found nothing to do");
    second.stop();

    let asked = Instant::now();
    first.stop();
    assert!(asked.elapsed() < Duration::from_secs(31), "{:?}", asked.elapsed());
    assert_eq!(done(&stage), 4);
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), values);
}

/// Proves: where all partitions are given back at every rebalance (eager protocols), all open batches are closed, carried out
/// and committed first: a thousand records in flight of each partition, none lost, none repeated.
#[test]
fn open_batches_are_flushed_at_an_eager_rebalance() {
    let kafka = kafka_or_not_run!("open_batches_are_flushed_at_an_eager_rebalance");
    let stage = Stage::new(kafka, "open-batches-eager", PARTITIONS);
    let (options, values) = open_batches(&stage);
    let first = options.start();
    wait_until_gathered(&first, PARTITIONS);
    let second = options.start();
    wait_for_owners(&stage, 2);
    wait_until_closed(&first, 4.0);
    assert_eq!(done(&stage), 4);
    second.stop();
    first.stop();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), values);
}

/// Proves: a call that outlives the budget of a revocation is left behind: what else was done is committed, and when the same
/// partition comes back while the call still runs, it begins a new epoch in which the record is done anew. What the old call
/// answers in the end counts for nothing: one dead letter, nothing stuck.
#[test]
fn a_partition_that_comes_back_before_its_call_ended() {
    const BESIDE: i64 = 100;
    let kafka = kafka_or_not_run!("a_partition_that_comes_back_before_its_call_ended");
    let stage = Stage::new(kafka, "comes-back", 2);
    let dead = stage.topic("dead", 1);
    let on = |partition: i32, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let mut records = vec![on(0, "good"), on(0, "loop"), on(0, "good")];
    records.extend((0..BESIDE).map(|_| on(1, "good")));
    Producer::new(kafka).send(&stage.input, &records);
    // Longer than the five seconds that a revocation may drain.
    let rest = format!(
        "{}[handler.limits]\nrunning_time = \"12s\"\n[errors]\nretry = {{ attempts = 1 }}\n\
         dead_letter = {{ topic = \"{dead}\" }}\n",
        output("out", &stage.output)
    );
    let options =
        stage.manifest(&guest("faulty"), "protocol = \"range\"", &rest).kafka_property("heartbeat.interval.ms", "500");
    let first = options.start();
    wait_for_records(kafka, &stage.output, 1 + BESIDE as usize);
    let second = options.start();
    first.wait_for_line("did not finish in time", PATIENCE);
    // It leaves as soon as it has come: everything goes back to the first one, whose call is still under way.
    second.stop();
    first.wait_for_at_least("sluicebox_rebalances_total", &["kind=\"assigned\""], 2.0);
    wait_for_owners(&stage, 1);
    assert_eq!(total(kafka, &dead), 0, "the first call ended before its partition was back");

    stage.wait_committed();
    first.wait_for_metric("sluicebox_late_results_total", &["kind=\"answer\""], 1.0);
    first.stop();
    let letters: Vec<Record> = read_all(kafka, &dead);
    assert_eq!(sorted_values(&letters), ["loop"]);
    let mut done: BTreeMap<i32, usize> = BTreeMap::new();
    read_all(kafka, &stage.output).iter().for_each(|record| *done.entry(record.partition).or_default() += 1);
    // All have one key, so they are on one partition of the output.
    assert_eq!(done.values().sum::<usize>(), 2 + BESIDE as usize, "nothing is repeated: {done:?}");
}
