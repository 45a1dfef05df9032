//! Ends that are asked for while a handler is busy: how long they may take, what they say, how they exit.

use std::time::{Duration, Instant};

use crate::check::{Load, Stage, output, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, committed, total};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::kafka_or_not_run;

/// Records of the partition that is not stuck.
const BESIDE: i64 = 10;
/// What a script reads when a second signal ended the host.
const INTERRUPTED: i32 = 130;

/// A host whose handler is in an endless loop with the only record of partition 0, for as long as `limit` says, and has
/// finished partition 1.
fn stuck(stage: &Stage<'_>, limit: &str, drain: &str) -> SluiceHost {
    let on = |partition: i32, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let mut records = vec![on(0, "loop")];
    records.extend((0..BESIDE).map(|_| on(1, "good")));
    Producer::new(stage.kafka).send(&stage.input, &records);
    let rest = format!(
        "{}[handler.limits]\nrunning_time = \"{limit}\"\nwall_time = \"{limit}\"\n",
        output("out", &stage.output)
    );
    let options: HostOptions = stage.manifest(&guest("faulty"), "", &rest).argument("--drain", drain);
    let host = options.start();
    let mut commits = stage.commits();
    let beside = commits.wait_until(PATIENCE, |commits| commits.last(&stage.input, 1) == Some(BESIDE));
    assert!(beside, "partition 1 was not committed\n{}", host.tail());
    host.wait_for_metric("sluicebox_in_flight_messages", &[], 1.0);
    host
}

/// Proves: a second SIGTERM ends a host at once that is stuck in draining, with the exit code of an interruption; what the
/// stuck handler had is not committed.
#[test]
fn a_second_sigterm_ends_a_stuck_host_at_once() {
    let kafka = kafka_or_not_run!("a_second_sigterm_ends_a_stuck_host_at_once");
    let stage = Stage::new(kafka, "second-signal", 2);
    let host = stuck(&stage, "60s", "10m");
    host.terminate();
    // Comes two seconds after the signal: the second one is no twin of the first.
    let line = host.wait_for_line("busy: ", PATIENCE);
    assert!(line.contains(&format!("{}[0]", stage.input)), "it says who is busy: {line}");
    assert!(!line.contains(&format!("{}[1]", stage.input)), "partition 1 is done: {line}");
    let asked = Instant::now();
    host.terminate();
    let exit = host.wait_exit(PATIENCE);
    assert_eq!(exit.status.code(), Some(INTERRUPTED), "{}", host.tail());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?} is not at once", asked.elapsed());
    assert!(host.output().join("\n").contains("stopped by force"), "{}", host.tail());
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(0), Some(BESIDE)]);
}

/// Proves: two signals close together are one request (tools that stop a process group send two): the host waits for the
/// call to end by its own limit and exits with 0.
#[test]
fn signals_close_together_are_one_request() {
    let kafka = kafka_or_not_run!("signals_close_together_are_one_request");
    let stage = Stage::new(kafka, "twin-signals", 2);
    let host = stuck(&stage, "5s", "60s");
    host.interrupt();
    host.terminate();
    let exit = host.wait_exit(PATIENCE);
    assert!(exit.status.success(), "{}\n{}", exit.status, host.tail());
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(0), Some(BESIDE)]);
}

/// Proves: `--drain` is kept though a handler does not end: the host says which partition is busy, leaves that record to
/// the next owner, leaves the group and ends.
#[test]
fn the_drain_deadline_is_kept() {
    let kafka = kafka_or_not_run!("the_drain_deadline_is_kept");
    let stage = Stage::new(kafka, "drain", 2);
    let host = stuck(&stage, "60s", "3s");
    let asked = Instant::now();
    host.terminate();
    let line = host.wait_for_line("busy: ", PATIENCE);
    assert!(line.contains(&format!("{}[0] (1 open)", stage.input)), "it says who is busy: {line}");
    let line = host.wait_for_line("did not finish in time", PATIENCE);
    assert!(line.contains(&format!("{}[0]", stage.input)), "it says who was not finished: {line}");
    assert!(asked.elapsed() >= Duration::from_secs(3), "it gave up after {:?}", asked.elapsed());
    // Committing and leaving the group have five seconds each.
    let exit = host.wait_exit(Duration::from_secs(20));
    assert_eq!(exit.status.code(), Some(6), "not a clean end: timed out\n{}", host.tail());
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(0), Some(BESIDE)]);
}

/// Proves: SIGINT (Ctrl-C) under load is a graceful end like SIGTERM: exit code 0, and committed is what was produced.
#[test]
fn sigint_works_like_sigterm() {
    let kafka = kafka_or_not_run!("sigint_works_like_sigterm");
    let stage = Stage::new(kafka, "sigint", 4);
    let load = Load::start(&stage, 100, 512);
    let host = stage.host(&guest("forward")).start();
    wait_for_records(kafka, &stage.output, 20_000);
    host.interrupt();
    let exit = host.wait_exit(PATIENCE);
    assert!(exit.status.success(), "{}\n{}", exit.status, host.tail());
    let mut commits = stage.commits();
    commits.catch_up(kafka);
    let done = commits.total(&stage.input);
    assert_eq!(done, total(kafka, &stage.output), "committed is what was produced");
    // The end came in mid-flow: more is written than was done.
    let deadline = Instant::now() + PATIENCE;
    while total(kafka, &stage.input) <= done {
        assert!(Instant::now() < deadline, "the load goes on after the end");
    }
    load.stop();
}
