//! Partitions that do not get on are named with what keeps them, and so are records that retention will not wait for.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::check::{Stage, output, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, Transactions, create_topic_with, delete_records};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::kafka_or_not_run;
use crate::support::unique;

/// Waits until the one partition of a host is named as standing still, which takes a minute.
fn wait_for_stall(host: &SluiceHost, stage: &Stage<'_>, cause: &str, text: &str) {
    let line = host.wait_for_line("stands still for 6", PATIENCE * 2);
    for part in [text, &format!("{}[0]@", stage.input), &format!("\"cause\":\"{cause}\"")] {
        assert!(line.contains(part), "{part}: {line}");
    }
    host.wait_for_metric("sluicebox_stalled_partitions", &[&format!("cause=\"{cause}\"")], 1.0);
    let ready = host.get("/readyz");
    assert!(ready.status == 200 && ready.body.contains(&format!("\"cause\":\"{cause}\"")), "{}", ready.body);
}

/// Proves: a partition that has something to do and does not move for a minute is named in the log, in `/readyz` and in a
/// metric, with what keeps it: a message that fails, one that the handler holds, an open transaction before it. And it is
/// not any more once the cause is gone; the new fetch that the host tries in the third case neither loses nor repeats.
#[test]
fn a_partition_that_stands_still_is_named_with_its_cause() {
    let kafka = kafka_or_not_run!("a_partition_that_stands_still_is_named_with_its_cause");
    let [blocked, held, open] = ["still-blocked", "still-held", "still-open"].map(|name| Stage::new(kafka, name, 1));
    let start =
        |stage: &Stage<'_>, handler: &str| stage.manifest(&guest(handler), "", &output("out", &stage.output)).start();
    blocked.produce(&["bad"]);
    held.produce(&["hold this"]);
    open.produce(&["before"]);
    let mut transactions = Transactions::new(kafka, &unique("still"));
    let records: Vec<NewRecord> = ["in", "it"].map(|value| NewRecord::new("key", value)).into();
    transactions.begin(&open.input, &records);
    let hosts = [start(&blocked, "fan-out"), start(&held, "holder"), start(&open, "forward")];
    wait_for_stall(&hosts[0], &blocked, "blocked", "no colon");
    wait_for_stall(&hosts[1], &held, "held", "the handler holds 1 messages");
    wait_for_stall(&hosts[2], &open, "broker", "an open transaction");

    held.produce(&["release"]);
    hosts[1].wait_for_line("moves again", PATIENCE);
    transactions.end();
    hosts[2].wait_for_line("moves again", PATIENCE);
    open.wait_committed();
    held.wait_committed();
    wait_for_records(kafka, &open.output, 3);
    for host in &hosts[1..] {
        assert_eq!(host.metric("sluicebox_position_resets_total"), Some(0.0), "the position was what it is");
    }
    hosts.iter().for_each(SluiceHost::stop);
    let written = crate::support::client::read_all(kafka, &open.output);
    assert_eq!(written.iter().map(|record| record.value_text()).collect::<Vec<_>>(), ["before", "in", "it"]);
}

/// Proves: of two blocked partitions the one whose record is near its deletion by age is warned about before it is deleted,
/// the other is not; and when the record is deleted all the same, that is said as well.
#[test]
fn a_record_that_retention_will_not_wait_for_is_warned_about() {
    const HOUR: i64 = 3_600_000;
    let kafka = kafka_or_not_run!("a_record_that_retention_will_not_wait_for_is_warned_about");
    let stage = Stage::new(kafka, "aging", 1);
    let input = unique("aging-in");
    create_topic_with(kafka, &input, 2, &[("retention.ms", &HOUR.to_string())]);
    let stage = Stage { input, ..stage };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis();
    let now = i64::try_from(now).expect("before the year 292 million");
    let record = |partition, timestamp| NewRecord {
        partition: Some(partition),
        timestamp: Some(timestamp),
        ..NewRecord::new("key", "bad")
    };
    // A quarter of the hour is the notice. A young record behind the old one keeps their segment.
    let records = [record(0, now - HOUR * 5 / 6), record(0, now), record(1, now - HOUR / 2), record(1, now)];
    Producer::new(kafka).send(&stage.input, &records);
    let host = stage.manifest(&guest("fan-out"), "", &output("out", &stage.output)).start();
    let line = host.wait_for_line("is deleted by its topic's retention", PATIENCE * 2);
    assert!(line.contains(&format!("{}[0]@0", stage.input)) && line.contains("within 900 s"), "{line}");
    host.wait_for_metric("sluicebox_endangered_partitions", &["deletion=\"soon\""], 1.0);
    assert!(host.get("/readyz").body.contains("will soon be deleted by retention in 1 partitions"));
    delete_records(kafka, &stage.input, 0, 1);
    host.wait_for_line("is deleted from its topic", PATIENCE);
    host.wait_for_metric("sluicebox_endangered_partitions", &["deletion=\"done\""], 1.0);
    host.wait_for_metric("sluicebox_endangered_partitions", &["deletion=\"soon\""], 0.0);
    host.stop();
}
