//! Handlers that want to hear of their partitions: which came, from where, and which go. (The guest `holder`.)

use std::collections::BTreeSet;

use crate::check::{Stage, output, wait_for_owners, wait_for_records};
use crate::support::client::{NewRecord, Producer, committed, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

const PARTITIONS: i32 = 4;

/// Proves: when another host takes half of the partitions, the instances of those are told so, and of no others; what they ack
/// then is committed, so that the new owner's instances begin behind it. The kept partitions keep their instance with all that it
/// holds: it is told nothing, and can still ack what it held before. At the end each instance hears of the shutdown.
#[test]
fn kept_partitions_keep_their_instance() {
    let kafka = kafka_or_not_run!("kept_partitions_keep_their_instance");
    let stage = Stage::new(kafka, "kept", PARTITIONS);
    let producer = Producer::new(kafka);
    let to_each = |value: &str| {
        let on = |partition| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
        producer.send(&stage.input, &(0..PARTITIONS).map(on).collect::<Vec<_>>());
    };
    to_each("hold this");
    let options = stage.manifest(&guest("holder"), "protocol = \"cooperative\"", &output("out", &stage.output));
    let first = options.start();
    first.wait_for_metric("sluicebox_in_flight_messages", &[], 4.0);
    wait_for_records(kafka, &stage.output, 4);

    let second = options.start();
    wait_for_owners(&stage, 2);
    // Two farewells and two greetings.
    wait_for_records(kafka, &stage.output, 8);
    first.wait_for_metric("sluicebox_in_flight_messages", &[], 2.0);
    let given: Vec<bool> =
        committed(kafka, &stage.group, &stage.input).iter().map(|offset| *offset == Some(1)).collect();
    assert_eq!(given.iter().filter(|given| **given).count(), 2, "{given:?}");

    to_each("release");
    stage.wait_committed();
    second.stop();
    first.stop();
    let said: Vec<String> =
        read_all(kafka, &stage.output).iter().map(|record| record.value_text().to_owned()).collect();
    let count = |text: &str| said.iter().filter(|said| *said == text).count();
    for partition in 0..PARTITIONS {
        let (greeting, moved) =
            (format!("{}-{partition} from start", stage.input), format!("{}-{partition} from 1", stage.input));
        assert_eq!(count(&greeting), 1, "{said:?}");
        assert_eq!(count(&moved), usize::from(given[partition as usize]), "{said:?}");
    }
    // Those of the second host's end go to the first for a moment, or stay with nobody.
    let others: BTreeSet<&str> = said.iter().map(String::as_str).filter(|text| text.starts_with("revoked")).collect();
    assert_eq!((others, count("revoked 1")), (BTreeSet::from(["revoked 1"]), 2), "{said:?}");
    assert_eq!(count("release"), 4, "each is done once: {said:?}");
    assert!(count("shutdown 0") >= 4 && !said.iter().any(|text| text == "shutdown 1"), "{said:?}");
}
