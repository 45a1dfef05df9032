//! The end of a host in mid-flow, asked for or not, and what its successor finds.

use std::collections::BTreeMap;

use crate::check::{Load, Stage, assert_in_order, difference, number, output, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{read_all, total};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

const SIZE: usize = 100;
const KEYS: u64 = 512;
/// Records in the output when the host is ended: it is well on its way.
const UNDER_WAY: usize = 50_000;

/// Proves: SIGTERM under load drains and commits exactly what was produced, exits with 0, and the next host goes on from
/// there: nothing lost, nothing repeated, order kept.
#[test]
fn sigterm_loses_and_repeats_nothing() {
    let kafka = kafka_or_not_run!("sigterm_loses_and_repeats_nothing");
    let stage = Stage::new(kafka, "sigterm", 4);
    let load = Load::start(&stage, SIZE, KEYS);
    let first = stage.host(&guest("forward")).start();
    wait_for_records(kafka, &stage.output, UNDER_WAY);
    first.stop();
    let mut commits = stage.commits();
    commits.catch_up(kafka);
    assert_eq!(commits.total(&stage.input), total(kafka, &stage.output), "committed is what was produced");

    let second = stage.host(&guest("forward")).start();
    wait_for_records(kafka, &stage.output, UNDER_WAY * 2);
    stage.assert_done_once(load, &second);
}

/// Proves: SIGKILL under load loses nothing; what is repeated are records that were not committed at the kill, none twice
/// over; their number is shown.
#[test]
fn sigkill_loses_nothing_and_repeats_only_the_uncommitted() {
    let kafka = kafka_or_not_run!("sigkill_loses_nothing_and_repeats_only_the_uncommitted");
    let stage = Stage::new(kafka, "sigkill", 4);
    let load = Load::start(&stage, SIZE, KEYS);
    // The broker gives a dead member's partitions away when its session is over: the shortest one it allows.
    let rest = output("out", &stage.output);
    let options = stage.manifest(&guest("forward"), "session_timeout = \"6s\"", &rest);
    let mut commits = stage.commits();
    let first = options.start();
    // A commit, and more output after it: so there is something committed and something not.
    let committed = commits.wait_until(PATIENCE, |commits| commits.total(&stage.input) > 0);
    assert!(committed, "no commit\n{}", first.tail());
    wait_for_records(kafka, &stage.output, UNDER_WAY);
    first.kill();
    commits.catch_up(kafka);
    let at_kill: BTreeMap<i32, i64> =
        (0..4).map(|partition| (partition, commits.last(&stage.input, partition).unwrap_or(0))).collect();

    let second = options.start();
    let count = load.stop();
    stage.wait_committed();
    second.stop();
    let (input, output) = (read_all(kafka, &stage.input), read_all(kafka, &stage.output));
    let found = difference(&output, count);
    assert_eq!(found.missing, 0);
    assert_in_order(&output);
    let place: BTreeMap<u64, (i32, i64)> = input.iter().map(|r| (number(r), (r.partition, r.offset))).collect();
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for record in &output {
        *times.entry(number(record)).or_default() += 1;
    }
    for (n, times) in times.into_iter().filter(|(_, times)| *times > 1) {
        let (partition, offset) = place[&n];
        assert_eq!(times, 2, "record {n} was repeated more than once by one kill");
        assert!(offset >= at_kill[&partition], "record {n} at {partition}/{offset} was committed and repeated");
    }
    eprintln!("SIGKILL: {} of {count} records repeated", found.repeated);
}

/// Proves: when records finish out of their order and the host is killed, the next one goes on from the oldest that was open,
/// though all after it were done: that one is not skipped, what was done before it is not repeated.
#[test]
fn a_kill_goes_back_to_the_oldest_open_record() {
    const BEFORE: usize = 4;
    const AFTER: usize = 995;
    let kafka = kafka_or_not_run!("a_kill_goes_back_to_the_oldest_open_record");
    let stage = Stage::new(kafka, "oldest", 1);
    let mut values: Vec<String> = (0..BEFORE).map(|n| format!("before {n}")).collect();
    // Waits in a batch while those after it go straight on.
    values.push("batch-open".to_owned());
    values.extend((0..AFTER).map(|n| format!("after {n:04}")));
    stage.produce(&values.iter().map(String::as_str).collect::<Vec<_>>());
    let options = |wait: &str| {
        let rest = format!(
            "[batch.default]\nmax_messages = 1000\nmax_wait = \"{wait}\"\n{}[ack]\ncommit_interval = \"50ms\"\n",
            output("out", &stage.output)
        );
        stage.manifest(&guest("faulty"), "session_timeout = \"6s\"", &rest)
    };
    let first = options("149s").start();
    wait_for_records(kafka, &stage.output, BEFORE + AFTER);
    // All but one are durable.
    first.wait_for_metric("sluicebox_in_flight_messages", &[], 1.0);
    let mut commits = stage.commits();
    let reached = commits.wait_until(PATIENCE, |commits| commits.last(&stage.input, 0) == Some(BEFORE as i64));
    assert!(reached, "{:?}\n{}", commits.seen(), first.tail());
    first.kill();
    commits.catch_up(kafka);
    assert_eq!(commits.last(&stage.input, 0), Some(BEFORE as i64), "nothing past the open one was committed");

    let second = options("0s").start();
    stage.wait_committed();
    second.stop();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for record in read_all(kafka, &stage.output) {
        *times.entry(record.value_text().to_owned()).or_default() += 1;
    }
    for value in &values {
        let expected = if value.starts_with("after") { 2 } else { 1 };
        assert_eq!(times.get(value), Some(&expected), "{value}");
    }
}
