//! Two hosts in one group under load: one joins, one leaves.

use crate::check::{Load, Stage, wait_for_owners, wait_for_records};
use crate::support::client::total;
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

/// Proves: partitions move to a host that joins and back from a host that leaves while records flow; a revoked partition
/// is drained and committed before it goes, so nothing is lost, nothing repeated, and the order of keys is kept.
#[test]
fn a_host_joins_and_a_host_leaves_under_load() {
    let kafka = kafka_or_not_run!("a_host_joins_and_a_host_leaves_under_load");
    let stage = Stage::new(kafka, "group", 8);
    let load = Load::start(&stage, 100, 512);
    let first = stage.host(&guest("forward")).start();
    wait_for_records(kafka, &stage.output, 20_000);
    let second = stage.host(&guest("forward")).start();
    wait_for_owners(&stage, 2);
    // Both work: more than the topic had when the second came in.
    let before = usize::try_from(total(kafka, &stage.output)).expect("a count");
    wait_for_records(kafka, &stage.output, before + 20_000);
    first.stop();
    wait_for_owners(&stage, 1);
    stage.assert_done_once(load, &second);
}
