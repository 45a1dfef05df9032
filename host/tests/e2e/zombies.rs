//! Hosts that stood still and were given up: what they do when they wake.

use std::time::{Duration, Instant};

use crate::check::{
    Load, Stage, assert_commits_rise, assert_in_order, difference, output, wait_for_owners, wait_for_records,
};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, read_all, total};
use crate::support::frozen::FrozenThread;
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::kafka_or_not_run;
use crate::support::tools::Tools;

const PARTITIONS: i32 = 4;
/// The shortest that the broker allows.
const SHORT_SESSION: &str = "session_timeout = \"6s\"";

/// Two hosts that share the input under load, each with something that is not committed.
fn two_at_work(stage: &Stage<'_>, options: &HostOptions) -> (SluiceHost, SluiceHost) {
    let first = options.start();
    wait_for_records(stage.kafka, &stage.output, 5_000);
    let second = options.start();
    for host in [&first, &second] {
        host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], f64::from(PARTITIONS) / 2.0);
    }
    let before = usize::try_from(total(stage.kafka, &stage.output)).expect("a count");
    wait_for_records(stage.kafka, &stage.output, before + 5_000);
    (first, second)
}

/// The end of both: all of the load arrived, in order, and no commit moved anything back. How many records were repeated.
fn nothing_lost_nothing_moved_back(stage: &Stage<'_>, count: u64, hosts: [&SluiceHost; 2]) -> u64 {
    stage.wait_committed();
    hosts.iter().for_each(|host| host.stop());
    let output = read_all(stage.kafka, &stage.output);
    let found = difference(&output, count);
    assert_eq!(found.missing, 0, "of {count}");
    assert_in_order(&output);
    assert_commits_rise(stage);
    found.repeated
}

/// Proves: a host that is frozen for longer than its session, while another one takes its partitions over and commits past
/// it, moves no commit back when it wakes: it hears that its partitions are lost, joins again by itself, works on, and
/// nothing is lost or out of order.
fn a_frozen_host_wakes(test: &str, protocol: &str) {
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, &format!("frozen-{protocol}"), PARTITIONS);
    let mut source = format!("protocol = \"{protocol}\"\n");
    match protocol {
        "consumer" => Tools(kafka).set_of_group(&stage.group, "consumer.session.timeout.ms=6000"),
        _ => source.push_str(SHORT_SESSION),
    }
    // So short that there is something to commit whenever it wakes.
    let rest = format!("{}[ack]\ncommit_interval = \"50ms\"\n", output("out", &stage.output));
    let mut options = stage.manifest(&guest("forward"), &source, &rest);
    if protocol != "consumer" {
        options = options.kafka_property("heartbeat.interval.ms", "500");
    }
    let load = Load::paced(&stage, 100, 512, 20_000);
    let (first, second) = two_at_work(&stage, &options);

    first.freeze();
    wait_for_owners(&stage, 1);
    // The other one has everything, and has committed past all that the frozen one had.
    let had = total(kafka, &stage.input);
    let mut commits = stage.commits();
    let passed = commits.wait_until(PATIENCE, |commits| commits.total(&stage.input) > had);
    assert!(passed, "commits: {:?}\n{}", commits.total(&stage.input), second.tail());
    first.thaw();
    first.wait_for_at_least("sluicebox_rebalances_total", &["kind=\"lost\""], 1.0);
    for host in [&first, &second] {
        host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], f64::from(PARTITIONS) / 2.0);
    }
    let count = load.stop();
    let repeated = nothing_lost_nothing_moved_back(&stage, count, [&first, &second]);
    eprintln!("{protocol}: {repeated} of {count} records repeated after a freeze");
}

#[test]
fn a_frozen_host_wakes_cooperative() {
    a_frozen_host_wakes("a_frozen_host_wakes_cooperative", "cooperative");
}

#[test]
fn a_frozen_host_wakes_eager() {
    a_frozen_host_wakes("a_frozen_host_wakes_eager", "range");
}

/// The broker assigns (KIP-848).
#[test]
fn a_frozen_host_wakes_consumer() {
    a_frozen_host_wakes("a_frozen_host_wakes_consumer", "consumer");
}

/// Proves: a host whose own loop stands still for longer than `max.poll.interval.ms`, though its heartbeats go on, leaves the
/// group: the other one takes over. When it goes on it says why it begins anew, joins again by itself and commits nothing of
/// what it had.
#[test]
fn a_host_that_does_not_poll_leaves_and_comes_back() {
    let kafka = kafka_or_not_run!("a_host_that_does_not_poll_leaves_and_comes_back");
    let stage = Stage::new(kafka, "no-poll", PARTITIONS);
    let rest = format!(
        "{}[ack]\ncommit_interval = \"50ms\"\n[handler.limits]\nwall_time = \"2s\"\nbatch_wall_time = \"2s\"\n",
        output("out", &stage.output)
    );
    let options = stage
        .manifest(&guest("forward"), SHORT_SESSION, &rest)
        .kafka_property("max.poll.interval.ms", "6100")
        .kafka_property("heartbeat.interval.ms", "500");
    let load = Load::paced(&stage, 100, 512, 20_000);
    let (first, second) = two_at_work(&stage, &options);

    let stopped = FrozenThread::of(first.process().pid(), "sb-io-");
    wait_for_owners(&stage, 1);
    let had = total(kafka, &stage.input);
    let mut commits = stage.commits();
    let passed = commits.wait_until(PATIENCE, |commits| commits.total(&stage.input) > had);
    assert!(passed, "commits: {:?}\n{}", commits.total(&stage.input), second.tail());
    drop(stopped);
    let line = first.wait_for_line("the process stood still", PATIENCE);
    assert!(line.contains("waiting: ") && line.contains("maximum poll interval"), "it says why: {line}");
    for host in [&first, &second] {
        host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], f64::from(PARTITIONS) / 2.0);
    }
    let count = load.stop();
    let repeated = nothing_lost_nothing_moved_back(&stage, count, [&first, &second]);
    eprintln!("no poll: {repeated} of {count} records repeated");
}

/// Proves: a record on which the handler works for three times `max.poll.interval.ms`, in calls that each keep their limit,
/// costs no membership: no rebalance, and the other partition goes on meanwhile.
#[test]
fn a_slow_record_costs_no_membership() {
    const INTERVAL: Duration = Duration::from_millis(6100);
    let kafka = kafka_or_not_run!("a_slow_record_costs_no_membership");
    let stage = Stage::new(kafka, "slow-record", 2);
    let dead = stage.topic("dead", 1);
    // Ten calls, each ended by the running time. Eight would do: with two to spare it does not matter how late the first is seen.
    let rest = format!(
        "{}[handler.limits]\nrunning_time = \"2400ms\"\nwall_time = \"3s\"\nbatch_wall_time = \"3s\"\n\
         [errors]\nretry = {{ attempts = 10, backoff = \"1ms\", max_backoff = \"1ms\" }}\n\
         dead_letter = {{ topic = \"{dead}\" }}\n",
        output("out", &stage.output)
    );
    let options = stage
        .manifest(&guest("faulty"), SHORT_SESSION, &rest)
        .kafka_property("max.poll.interval.ms", &INTERVAL.as_millis().to_string());
    let on = |partition: i32, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let producer = Producer::new(kafka);
    producer.send(&stage.input, &[on(0, "loop")]);
    let host = options.start();
    host.wait_for_metric("sluicebox_in_flight_messages", &[], 1.0);
    let begun = Instant::now();
    // The other partition's records arrive while this one is at work.
    producer.send(&stage.input, &vec![on(1, "good"); 1_000]);
    wait_for_records(kafka, &stage.output, 1_000);
    assert_eq!(total(kafka, &dead), 0, "the slow record was done before the others");
    wait_for_records(kafka, &dead, 1);
    assert!(begun.elapsed() > 3 * INTERVAL, "it took {:?} only", begun.elapsed());
    stage.wait_committed();
    let rebalances: Vec<f64> = ["assigned", "revoked", "lost"]
        .iter()
        .map(|kind| host.metric_with("sluicebox_rebalances_total", &[&format!("kind=\"{kind}\"")]).expect("a figure"))
        .collect();
    assert_eq!(rebalances, [1.0, 0.0, 0.0]);
    host.stop();
    assert_eq!(read_all(kafka, &stage.output).len(), 1_000);
}
