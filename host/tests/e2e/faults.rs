//! What a bad record does to a handler stays with that record.

use crate::check::{Stage, output, sorted_values};
use crate::support::client::{NewRecord, Producer, committed, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

/// Good records around a bad one.
const GOOD: usize = 200;

/// Proves: a record that breaks the handler in this way, and only that, goes to the dead-letter topic, with the bytes it
/// came with and with headers that say why; all others are handled, in order, and everything is committed.
fn only_the_bad_one_fails(test: &str, bad: &str) {
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, test, 1);
    let dead = stage.topic("dead", 1);
    let good: Vec<String> = (0..GOOD).map(|n| format!("good {n:04}")).collect();
    let mut values: Vec<&str> = good.iter().map(String::as_str).collect();
    values.insert(GOOD / 2, bad);
    values.insert(GOOD / 4, bad);
    stage.produce(&values);
    let host = stage.host(&guest("faulty")).dead_letter(&dead).start();
    stage.wait_committed();
    host.stop();
    let output: Vec<String> = read_all(kafka, &stage.output).iter().map(|r| r.value_text().to_owned()).collect();
    assert_eq!(output, good, "{}", host.tail());
    let letters = read_all(kafka, &dead);
    assert_eq!(sorted_values(&letters), [bad, bad]);
    for letter in &letters {
        assert_eq!(letter.key_text(), "key");
        assert!(!letter.headers.is_empty(), "a dead letter says where it comes from and why");
    }
}

#[test]
fn a_trap_fails_its_own_record() {
    only_the_bad_one_fails("a_trap_fails_its_own_record", "trap");
}

#[test]
fn a_panic_fails_its_own_record() {
    only_the_bad_one_fails("a_panic_fails_its_own_record", "panic");
}

#[test]
fn an_endless_loop_fails_its_own_record() {
    only_the_bad_one_fails("an_endless_loop_fails_its_own_record", "loop");
}

#[test]
fn a_memory_hog_fails_its_own_record() {
    only_the_bad_one_fails("a_memory_hog_fails_its_own_record", "hog");
}

#[test]
fn a_reject_fails_its_own_record() {
    only_the_bad_one_fails("a_reject_fails_its_own_record", "reject");
}

/// Proves: a record that is retried is offered again until it is done, and holds its place in the order meanwhile.
#[test]
fn a_retried_record_keeps_its_place() {
    let kafka = kafka_or_not_run!("a_retried_record_keeps_its_place");
    let stage = Stage::new(kafka, "retry", 1);
    let dead = stage.topic("dead", 1);
    let values = ["one", "retry-3", "two", "three"];
    stage.produce(&values);
    let host = stage.host(&guest("faulty")).dead_letter(&dead).start();
    stage.wait_committed();
    host.stop();
    let output: Vec<String> = read_all(kafka, &stage.output).iter().map(|r| r.value_text().to_owned()).collect();
    assert_eq!(output, values);
    assert_eq!(read_all(kafka, &dead), vec![]);
}

/// Proves: attempts are counted by owners: who takes a record over that failed one begins at the first again, each failed attempt
/// is counted, and the record is done at the attempt that it asks for.
#[test]
fn attempts_begin_anew_with_the_next_owner() {
    let kafka = kafka_or_not_run!("attempts_begin_anew_with_the_next_owner");
    let stage = Stage::new(kafka, "attempts", 1);
    stage.produce(&["one", "retry-3", "two"]);
    let start = |backoff: &str| {
        let retry = format!("[errors]\nretry = {{ attempts = 5, backoff = \"{backoff}\", jitter = false }}\n");
        stage
            .manifest(&guest("faulty"), "", &format!("{}provenance = true\n{retry}", output("out", &stage.output)))
            .start()
    };
    let failed = ["error_type=\"retry\""];
    // Stops while it waits for the second attempt.
    let first = start("30s");
    first.wait_for_metric("sluicebox_retries_total", &failed, 1.0);
    first.stop();
    let second = start("10ms");
    stage.wait_committed();
    second.wait_for_metric("sluicebox_retries_total", &failed, 2.0);
    second.stop();
    let arrived = read_all(kafka, &stage.output);
    let attempts: Vec<(&str, Option<&[u8]>)> =
        arrived.iter().map(|record| (record.value_text(), record.header("sluicebox-attempt"))).collect();
    assert_eq!(attempts, [("one", Some(&b"1"[..])), ("retry-3", Some(b"3")), ("two", Some(b"1"))]);
}

/// Proves: without a dead-letter topic a rejected record stops its own lane and no other: the other partition is handled
/// and committed to its end, this one up to the record and not past it.
#[test]
fn a_blocked_lane_stops_no_other() {
    let kafka = kafka_or_not_run!("a_blocked_lane_stops_no_other");
    let stage = Stage::new(kafka, "block", 2);
    let on = |partition: i32, value: String| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let mut records: Vec<NewRecord> = (0..10).map(|n| on(0, format!("before {n}"))).collect();
    records.push(on(0, "reject".to_owned()));
    records.extend((0..10).map(|n| on(0, format!("after {n}"))));
    records.extend((0..1000).map(|n| on(1, format!("beside {n}"))));
    Producer::new(kafka).send(&stage.input, &records);
    let host = stage.host(&guest("faulty")).start();
    let mut commits = stage.commits();
    let reached = commits.wait_until(crate::support::PATIENCE, |commits| {
        commits.last(&stage.input, 1) == Some(1000) && commits.last(&stage.input, 0) == Some(10)
    });
    assert!(reached, "commits: {:?}\n{}", commits.seen(), host.tail());
    host.stop();
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(10), Some(1000)]);
    let output = read_all(kafka, &stage.output);
    assert_eq!(output.iter().filter(|record| record.value_text().starts_with("before")).count(), 10);
    assert_eq!(output.iter().filter(|record| record.value_text().starts_with("beside")).count(), 1000);
    assert_eq!(output.len(), 1010, "nothing after the blocked record was handled");
}
