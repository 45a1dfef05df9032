//! The ways in which a group shares its partitions, each under load.

use crate::check::{Load, Stage, output, wait_for_owners, wait_for_records};
use crate::support::client::total;
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;
use crate::support::tools::Tools;

/// Proves: with this `source.protocol` two hosts that come one after the other share the work, and one that leaves gives
/// its part back; nothing is lost, nothing repeated, and the order of keys is kept. Kafka's own tool says that the group
/// shares its partitions by `strategy`.
fn hosts_come_and_go(test: &str, protocol: &str, strategy: &str) {
    let kafka = kafka_or_not_run!(test);
    let stage = Stage::new(kafka, protocol, 4);
    let source = format!("protocol = \"{protocol}\"");
    let options = stage.manifest(&guest("forward"), &source, &output("out", &stage.output));
    let load = Load::start(&stage, 100, 256);
    let first = options.start();
    wait_for_records(kafka, &stage.output, 20_000);
    let second = options.start();
    wait_for_owners(&stage, 2);
    assert_eq!(Tools(kafka).assignment_strategy(&stage.group), strategy);
    let before = usize::try_from(total(kafka, &stage.output)).expect("a count");
    wait_for_records(kafka, &stage.output, before + 20_000);
    first.stop();
    wait_for_owners(&stage, 1);
    stage.assert_done_once(load, &second);
}

#[test]
fn cooperative() {
    hosts_come_and_go("cooperative", "cooperative", "cooperative-sticky");
}

#[test]
fn range() {
    hosts_come_and_go("range", "range", "range");
}

#[test]
fn roundrobin() {
    hosts_come_and_go("roundrobin", "roundrobin", "roundrobin");
}

/// The broker assigns (KIP-848).
#[test]
fn consumer() {
    hosts_come_and_go("consumer", "consumer", "uniform");
}
