//! Members with instance ids (static membership): they come back without a rebalance, and two of one name do not fight.

use std::time::Duration;

use crate::check::{
    Load, Stage, assert_commits_rise, assert_in_order, difference, output, wait_for_owners, wait_for_records,
};
use crate::support::PATIENCE;
use crate::support::client::{read_all, total};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::kafka_or_not_run;

fn member(stage: &Stage<'_>, protocol: &str, id: &str) -> HostOptions {
    let mut source = format!("protocol = \"{protocol}\"\ninstance_id = \"{id}\"\n");
    if protocol != "consumer" {
        // A member with an instance id does not leave the group: it is gone when its session is over.
        source.push_str("session_timeout = \"10s\"");
    }
    stage.manifest(&guest("forward"), &source, &output("out", &stage.output))
}

fn rebalances(host: &SluiceHost) -> [f64; 3] {
    ["assigned", "revoked", "lost"]
        .map(|kind| host.metric_with("sluicebox_rebalances_total", &[&format!("kind=\"{kind}\"")]).expect("a figure"))
}

/// Proves: all members but one are restarted, five times each, under load: each gets its own partitions back, the one that
/// stayed sees no rebalance at all, and nothing is lost or repeated.
fn a_bounce_is_no_rebalance(test: &str, protocol: &str) {
    const BOUNCES: usize = 5;
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, &format!("bounce-{protocol}"), 6);
    let load = Load::paced(&stage, 100, 512, 10_000);
    let options: Vec<HostOptions> = ["a", "b", "c"].iter().map(|id| member(&stage, protocol, id)).collect();
    let mut hosts: Vec<SluiceHost> = Vec::new();
    for options in &options {
        hosts.push(options.start());
        wait_for_owners(&stage, hosts.len());
    }
    for host in &hosts {
        host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], 2.0);
    }
    // Figures follow a moment after what they count, and the last rebalance was everybody's.
    let now = usize::try_from(total(kafka, &stage.output)).expect("a count");
    wait_for_records(kafka, &stage.output, now + 5_000);
    let before = rebalances(&hosts[0]);
    for _ in 0..BOUNCES {
        for place in 1..hosts.len() {
            hosts[place].stop();
            hosts[place] = options[place].start();
            hosts[place].wait_for_metric("sluicebox_partitions", &["state=\"running\""], 2.0);
        }
    }
    let now = usize::try_from(total(kafka, &stage.output)).expect("a count");
    wait_for_records(kafka, &stage.output, now + 5_000);
    assert_eq!(rebalances(&hosts[0]), before, "the one that stayed saw a rebalance");
    let count = load.stop();
    stage.wait_committed();
    hosts.iter().for_each(SluiceHost::stop);
    let output = read_all(kafka, &stage.output);
    let found = difference(&output, count);
    assert_eq!((found.missing, found.repeated), (0, 0));
    assert_in_order(&output);
}

#[test]
fn a_bounce_is_no_rebalance_cooperative() {
    a_bounce_is_no_rebalance("a_bounce_is_no_rebalance_cooperative", "cooperative");
}

#[test]
fn a_bounce_is_no_rebalance_eager() {
    a_bounce_is_no_rebalance("a_bounce_is_no_rebalance_eager", "range");
}

/// The broker assigns (KIP-848).
#[test]
fn a_bounce_is_no_rebalance_consumer() {
    a_bounce_is_no_rebalance("a_bounce_is_no_rebalance_consumer", "consumer");
}

/// Proves: of two hosts with one instance id only one works; the other one says that another member uses its id, waits, and
/// does not throw the first one out in turn: for twenty seconds nothing changes. When the one that works ends, the other one
/// takes over by itself. Nothing is lost, no commit falls.
fn two_of_one_name(test: &str, protocol: &str) {
    /// Longer than the longest wait between two tries of a pipeline.
    const QUIET: Duration = Duration::from_secs(20);
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, &format!("twins-{protocol}"), 2);
    let load = Load::paced(&stage, 100, 512, 5_000);
    let options = member(&stage, protocol, "twin");
    let first = options.start();
    wait_for_records(kafka, &stage.output, 1_000);
    let second = options.start();
    // Which one is thrown out is the protocol's business.
    let (fenced, working) = match protocol {
        "consumer" => (&second, &first),
        _ => (&first, &second),
    };
    // A commit may be what finds it out, and fails with the same words before the pipeline waits.
    fenced.process().wait_for("waiting because of its name", PATIENCE, |line| {
        line.contains("waiting: ") && line.contains("another member uses the same `source.instance_id`")
    });
    working.wait_for_metric("sluicebox_partitions", &["state=\"running\""], 2.0);
    let before = rebalances(working);
    assert!(working.process().wait_exit_within(QUIET).is_none(), "{}", working.tail());
    assert_eq!(rebalances(working), before, "they fight\n{}", working.tail());
    let ready = fenced.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("instance_id"), "{}", ready.body);
    let now = usize::try_from(total(kafka, &stage.output)).expect("a count");
    wait_for_records(kafka, &stage.output, now + 1_000);

    working.stop();
    fenced.wait_for_metric("sluicebox_partitions", &["state=\"running\""], 2.0);
    let count = load.stop();
    stage.wait_committed();
    fenced.stop();
    let output = read_all(kafka, &stage.output);
    assert_eq!(difference(&output, count).missing, 0);
    assert_in_order(&output);
    assert_commits_rise(&stage);
}

#[test]
fn two_of_one_name_cooperative() {
    two_of_one_name("two_of_one_name_cooperative", "cooperative");
}

/// The broker assigns (KIP-848).
#[test]
fn two_of_one_name_consumer() {
    two_of_one_name("two_of_one_name_consumer", "consumer");
}
