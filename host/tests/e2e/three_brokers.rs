//! A cluster of three brokers, of which one dies at a time.

use std::time::{Duration, Instant};

use crate::check::{Load, Stage, assert_commits_rise, assert_in_order, difference, output, wait_for_records};
use crate::support::client::{read_all, total};
use crate::support::cluster::{BROKERS, Cluster};
use crate::support::guests::guest;
use crate::support::not_run;

const TEST: &str = "each_of_three_brokers_dies_and_comes_back";
const ROUNDS: usize = 2;
const PARTITIONS: i32 = 6;

/// Proves: while records flow through two hosts, each of three brokers in turn is killed (one asked to end, in the second round)
/// and comes back: leaders and coordinator move, records keep arriving, none is lost or out of order, no commit goes back, and no
/// host loses a partition over it. (By a command; row C1.)
#[test]
#[ignore = "by a command: three brokers, two to three minutes"]
fn each_of_three_brokers_dies_and_comes_back() {
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(missing) => return not_run::report(TEST, &missing),
    };
    let kafka = cluster.kafka();
    let stage = Stage::new(kafka, "three-brokers", PARTITIONS);
    let load = Load::paced(&stage, 100, 512, 2_000);
    let options = stage.manifest(&guest("forward"), "", &output("out", &stage.output));
    let hosts = [options.start(), options.start()];
    for host in &hosts {
        host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], f64::from(PARTITIONS) / 2.0);
    }
    wait_for_records(kafka, &stage.output, 5_000);
    let goes_on = |records: usize| {
        let before = usize::try_from(total(kafka, &stage.output)).expect("a count");
        wait_for_records(kafka, &stage.output, before + records);
    };
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        for number in 0..BROKERS {
            let begun = Instant::now();
            if round == 0 {
                cluster.broker(number).kill();
            } else {
                cluster.broker(number).stop();
            }
            goes_on(5_000);
            longest = longest.max(begun.elapsed());
            cluster.broker(number).start();
            goes_on(5_000);
        }
    }
    let count = load.stop();
    stage.wait_committed();
    let kind = |kind: &str| -> f64 {
        let label = format!("kind=\"{kind}\"");
        hosts.iter().map(|host| host.metric_with("sluicebox_rebalances_total", &[&label]).expect("a figure")).sum()
    };
    let (revoked, lost) = (kind("revoked"), kind("lost"));
    hosts.iter().for_each(|host| host.stop());
    let arrived = read_all(kafka, &stage.output);
    let found = difference(&arrived, count);
    assert_eq!(found.missing, 0, "of {count}");
    assert_in_order(&arrived);
    let commits = assert_commits_rise(&stage);
    assert_eq!(lost, 0.0, "a host lost its partitions");
    eprintln!(
        "{} brokers went one after the other: {count} records, none missing, {} repeated; 5,000 further ones after at most \
         {longest:?}; {commits} commits, {revoked} revocations",
        ROUNDS * BROKERS,
        found.repeated
    );
}
