//! Where partitions begin, and what follows when a position is lost.

use crate::check::{Stage, output, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{
    NewRecord, Producer, commit, committed, create_topic, delete_records, delete_topic, read_all,
};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::{Kafka, kafka_or_not_run};
use crate::support::tools::Tools;

/// The event time of record 0; each one after it is a second later.
const BEGUN: i64 = 1_700_000_000_000;

/// Records of a partition: the value is the number.
fn produce(kafka: &Kafka, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
    let record = |number: i64| NewRecord {
        partition: Some(partition),
        timestamp: Some(BEGUN + number * 1_000),
        ..NewRecord::new("key", number.to_string())
    };
    Producer::new(kafka).send(topic, &numbers.map(record).collect::<Vec<_>>());
}

/// The numbers that were written to a topic, in order, with their repeats.
fn numbers(kafka: &Kafka, topic: &str) -> Vec<i64> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
    let mut numbers: Vec<i64> = read_all(kafka, topic).iter().map(|record| number(record.value_text())).collect();
    numbers.sort_unstable();
    numbers
}

fn range(numbers: std::ops::Range<i64>) -> Vec<i64> {
    numbers.collect()
}

/// A host that forwards to `out`, with these lines of `[source]`.
fn forward(stage: &Stage<'_>, source: &str, out: &str) -> HostOptions {
    stage.manifest(&guest("forward"), source, &output("out", out))
}

fn assert_lost(host: &SluiceHost, count: f64) {
    host.wait_for_metric("sluicebox_lost_offset_messages_total", &[], count);
}

/// Proves: a partition begins exactly at what its group committed, wherever an operator moved that (higher, then lower than
/// where the host itself came to), and `start` counts only for the one that has no commit. (Row J3.)
#[test]
fn a_partition_begins_at_its_commit_and_start_is_for_others() {
    let kafka = kafka_or_not_run!("a_partition_begins_at_its_commit_and_start_is_for_others");
    let stage = Stage::new(kafka, "start", 2);
    for partition in [0, 1] {
        produce(kafka, &stage.input, partition, 0..100);
    }
    let mut both: Vec<i64> = (30..100).chain(0..100).collect();
    both.sort_unstable();
    for (place, expected) in [(30, both), (90, range(90..100)), (10, range(10..100))] {
        commit(kafka, &stage.group, &stage.input, 0, place);
        let out = stage.topic("out", 1);
        let host = forward(&stage, "start = \"earliest\"", &out).start();
        wait_for_records(kafka, &out, expected.len());
        stage.wait_committed();
        assert_lost(&host, 0.0);
        host.stop();
        assert_eq!(numbers(kafka, &out), expected, "from {place}");
    }
}

/// Proves: `start` by time begins at the first record of that time where there is no commit, at the end where none is that
/// young, and leaves committed partitions alone; what it found is kept by a commit though nothing was read.
#[test]
fn a_start_by_time_is_for_partitions_without_a_commit() {
    let kafka = kafka_or_not_run!("a_start_by_time_is_for_partitions_without_a_commit");
    let stage = Stage::new(kafka, "time", 3);
    produce(kafka, &stage.input, 0, 0..100);
    produce(kafka, &stage.input, 1, 0..100);
    produce(kafka, &stage.input, 2, 0..40);
    commit(kafka, &stage.group, &stage.input, 1, 20);
    // Record 60 is the first that is not older: 1,700,000,060 s.
    let host = forward(&stage, "start = 2023-11-14T22:14:19.5Z", &stage.output).start();
    let mut expected: Vec<i64> = (60..100).chain(20..100).collect();
    expected.sort_unstable();
    wait_for_records(kafka, &stage.output, expected.len());
    stage.wait_committed();
    host.stop();
    assert_eq!(numbers(kafka, &stage.output), expected);
    // The third partition's end is its place by now: what comes later is not skipped by the next start.
    produce(kafka, &stage.input, 2, 40..50);
    let host = forward(&stage, "start = \"latest\"", &stage.output).start();
    stage.wait_committed();
    host.stop();
    expected.extend(40..50);
    expected.sort_unstable();
    assert_eq!(numbers(kafka, &stage.output), expected);
}

/// Proves: with `start = "none"` and a partition without a commit nothing is read and the group has no member, so that an
/// operator can commit a place; the reason says so, and the pipeline begins there by itself once he did. (Row J2.)
#[test]
fn without_a_commit_and_with_start_none_it_waits_outside_its_group() {
    let kafka = kafka_or_not_run!("without_a_commit_and_with_start_none_it_waits_outside_its_group");
    let stage = Stage::new(kafka, "none", 2);
    for partition in [0, 1] {
        produce(kafka, &stage.input, partition, 0..10);
    }
    commit(kafka, &stage.group, &stage.input, 0, 4);
    let host = forward(&stage, "start = \"none\"", &stage.output).start();
    let partition = format!("{}[1]", stage.input);
    let line = host.wait_for_line("waiting: group", PATIENCE);
    assert!(line.contains(&partition) && line.contains("--reset-offsets"), "{line}");
    assert!(Tools(kafka).describe_group(&stage.group).iter().all(|place| place.consumer.is_none()), "it joined");
    // Possible only because nobody is in the group.
    commit(kafka, &stage.group, &stage.input, 1, 8);
    wait_for_records(kafka, &stage.output, 8);
    stage.wait_committed();
    host.stop();
    let mut expected: Vec<i64> = (4..10).chain(8..10).collect();
    expected.sort_unstable();
    assert_eq!(numbers(kafka, &stage.output), expected);
}

/// Records 0 to 99, of which the group had read 20 when those below 50 were deleted.
fn deleted<'a>(kafka: &'a Kafka, name: &str) -> Stage<'a> {
    let stage = Stage::new(kafka, name, 1);
    produce(kafka, &stage.input, 0, 0..100);
    commit(kafka, &stage.group, &stage.input, 0, 20);
    delete_records(kafka, &stage.input, 0, 50);
    stage
}

/// Proves: when retention was faster than the group, `on_lost_offset = "earliest"` goes on at the oldest record that is
/// there, and the number of records that nobody will read is in the log and in a metric, and exact. (Row J1.)
#[test]
fn deleted_records_are_counted_and_earliest_goes_on() {
    let kafka = kafka_or_not_run!("deleted_records_are_counted_and_earliest_goes_on");
    let stage = deleted(kafka, "earliest");
    // `start` says something else, and does not count: the group has a commit.
    let host = forward(&stage, "start = \"latest\"\non_lost_offset = \"earliest\"", &stage.output).start();
    let line = host.wait_for_line("were deleted before they were read", PATIENCE);
    assert!(line.contains("from offset 20 on") && line.contains("30 records are skipped"), "{line}");
    wait_for_records(kafka, &stage.output, 50);
    stage.wait_committed();
    assert_lost(&host, 30.0);
    host.wait_for_metric("sluicebox_position_resets_total", &[], 1.0);
    host.stop();
    assert_eq!(numbers(kafka, &stage.output), range(50..100));
}

/// Proves: the same when nothing is left to read that would show it, as after a long night of an idle topic.
#[test]
fn deleted_records_are_counted_though_none_is_left() {
    let kafka = kafka_or_not_run!("deleted_records_are_counted_though_none_is_left");
    let stage = Stage::new(kafka, "emptied", 1);
    produce(kafka, &stage.input, 0, 0..100);
    commit(kafka, &stage.group, &stage.input, 0, 20);
    delete_records(kafka, &stage.input, 0, 100);
    let host = forward(&stage, "", &stage.output).start();
    assert_lost(&host, 80.0);
    stage.wait_committed();
    produce(kafka, &stage.input, 0, 100..110);
    wait_for_records(kafka, &stage.output, 10);
    stage.wait_committed();
    assert_lost(&host, 80.0);
    host.stop();
    assert_eq!(numbers(kafka, &stage.output), range(100..110));
}

/// Proves: `on_lost_offset = "latest"` goes on at the next record that comes, and counts everything before it. (Row J1.)
#[test]
fn deleted_records_are_counted_and_latest_goes_on() {
    let kafka = kafka_or_not_run!("deleted_records_are_counted_and_latest_goes_on");
    let stage = deleted(kafka, "latest");
    let host = forward(&stage, "on_lost_offset = \"latest\"", &stage.output).start();
    host.wait_for_line("offset reset", PATIENCE);
    // librdkafka looks for the end after that line; until a record comes out, further ones are produced.
    let mut next = 100;
    while numbers(kafka, &stage.output).is_empty() {
        produce(kafka, &stage.input, 0, next..next + 1);
        next += 1;
        assert!(next < 1_000, "{}", host.tail());
    }
    stage.wait_committed();
    let written = numbers(kafka, &stage.output);
    let first = written[0];
    assert!(first >= 100, "{written:?}");
    assert_eq!(written, range(first..next));
    assert_lost(&host, (first - 20) as f64);
    host.stop();
}

/// Proves: `on_lost_offset = "stop"` reads nothing and commits nothing; the pipeline is stopped with its reason, the process
/// lives and another pipeline goes on, and the end is an ordinary one. (Row J1.)
#[test]
fn deleted_records_stop_the_pipeline_that_wants_it() {
    let kafka = kafka_or_not_run!("deleted_records_stop_the_pipeline_that_wants_it");
    let stage = deleted(kafka, "stop");
    let host = forward(&stage, "on_lost_offset = \"stop\"", &stage.output).start();
    let line = host.wait_for_line("stopped: ", PATIENCE);
    assert!(line.contains("30 of them") && line.contains("on_lost_offset"), "{line}");
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"stopped\""], 1.0);
    assert_lost(&host, 30.0);
    let ready = host.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("were deleted before they were read"), "{}", ready.body);
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(20)]);
    host.stop();
    assert_eq!(numbers(kafka, &stage.output), range(0..0));
}

/// Proves: records that are deleted while a partition waits at an earlier one are counted when it goes on; what had been
/// fetched before is processed all the same, so that every record was either written or counted, once.
#[test]
fn records_deleted_under_a_lane_are_counted_or_written() {
    const COUNT: i64 = 600;
    let kafka = kafka_or_not_run!("records_deleted_under_a_lane_are_counted_or_written");
    let stage = Stage::new(kafka, "under", 1);
    // The first is tried again for some seconds, during which little is fetched ahead: 64 KiB of 20 MB.
    let mut records = vec![NewRecord::new("key", "retry-4")];
    let filling = "x".repeat(32 * 1024);
    records.extend((1..COUNT).map(|number| NewRecord::new("key", format!("{number} {filling}"))));
    Producer::new(kafka).send(&stage.input, &records);
    let errors = "[errors]\nretry = { attempts = 9, backoff = \"1s\", jitter = false }\n";
    let rest = format!("{errors}{}", output("out", &stage.output));
    let source = "fetch = { max_per_partition = \"64KiB\", buffer = \"64KiB\" }";
    let host = stage.manifest(&guest("faulty"), source, &rest).start();
    host.wait_for_line("attempt 1 failed", PATIENCE);
    delete_records(kafka, &stage.input, 0, COUNT - 10);
    stage.wait_committed();
    let written = read_all(kafka, &stage.output).len();
    assert!((11..COUNT as usize - 10).contains(&written), "{written}");
    assert_lost(&host, (COUNT as usize - written) as f64);
    host.wait_for_metric("sluicebox_position_resets_total", &[], 1.0);
    host.stop();
}

/// Proves: a topic that is deleted and made anew under the pipeline, with so many partitions and fewer records, is read from
/// its beginning, nothing of the old one is committed onto it, its lag becomes 0, and as many partitions as it has are
/// worked on. (Row J4.)
fn a_topic_made_anew(test: &str, before: i32, after: i32) {
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, "anew", before);
    for partition in 0..before {
        produce(kafka, &stage.input, partition, 0..500);
    }
    let host = forward(&stage, "", &stage.output).kafka_property("topic.metadata.refresh.interval.ms", "500").start();
    stage.wait_committed();
    delete_topic(kafka, &stage.input);
    create_topic(kafka, &stage.input, after);
    for partition in 0..after {
        produce(kafka, &stage.input, partition, 1_000..1_020);
    }
    let both = |n: std::ops::Range<i64>, partitions: i32| n.flat_map(move |n| (0..partitions).map(move |_| n));
    let mut expected: Vec<i64> = both(0..500, before).chain(both(1_000..1_020, after)).collect();
    wait_for_records(kafka, &stage.output, expected.len());
    stage.wait_committed();
    host.wait_for_metric("sluicebox_consumer_lag_messages", &[], 0.0);
    host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], f64::from(after));
    host.wait_for_answer("/readyz", "that it is ready", |answer| answer.status == 200);
    host.stop();
    assert_eq!(committed(kafka, &stage.group, &stage.input), vec![Some(20); after as usize]);
    expected.sort_unstable();
    let written = numbers(kafka, &stage.output);
    // What was in flight when the topic went may be repeated; nothing may be missing.
    let count = |numbers: &[i64], number: i64| numbers.iter().filter(|other| **other == number).count();
    let missing = expected.iter().find(|number| count(&written, **number) < count(&expected, **number));
    assert_eq!(missing, None, "{} written", written.len());
}

#[test]
fn a_topic_made_anew_is_read_from_its_beginning() {
    a_topic_made_anew("a_topic_made_anew_is_read_from_its_beginning", 1, 3);
}

#[test]
fn a_topic_made_anew_with_as_many_partitions_is_read_from_its_beginning() {
    a_topic_made_anew("a_topic_made_anew_with_as_many_partitions_is_read_from_its_beginning", 2, 2);
}

#[test]
fn a_topic_made_anew_with_fewer_partitions_is_read_from_its_beginning() {
    a_topic_made_anew("a_topic_made_anew_with_fewer_partitions_is_read_from_its_beginning", 4, 2);
}
