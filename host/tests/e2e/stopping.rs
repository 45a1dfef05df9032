//! The end of a host in mid-flow, asked for or not, and what its successor finds.

use std::collections::BTreeMap;

use crate::check::{Difference, Load, Stage, assert_in_order, difference, number, wait_for_records};
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
    let count = load.stop();
    stage.wait_committed();
    second.stop();
    let output = read_all(kafka, &stage.output);
    assert_eq!(difference(&output, count), Difference::default());
    assert_in_order(&output);
}

/// Proves: SIGKILL under load loses nothing; what is repeated are records that were not committed at the kill, none twice
/// over; their number is shown.
#[test]
fn sigkill_loses_nothing_and_repeats_only_the_uncommitted() {
    let kafka = kafka_or_not_run!("sigkill_loses_nothing_and_repeats_only_the_uncommitted");
    let stage = Stage::new(kafka, "sigkill", 4);
    let load = Load::start(&stage, SIZE, KEYS);
    // The broker gives a dead member's partitions away when its session is over: the shortest one it allows.
    let output = format!("[output.out]\ntopic = \"{}\"", stage.output);
    let options = stage.manifest(&guest("forward"), "session_timeout = \"6s\"", &output);
    let mut commits = stage.commits();
    let first = options.start();
    // A commit, and more output after it: so there is something committed and something not.
    let committed = commits.wait_until(crate::support::PATIENCE, |commits| commits.total(&stage.input) > 0);
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
