//! What becomes of a record that failed for good: the handler's own word about it, and the policies that let a pipeline go on
//! without the record, or not at all.

use crate::check::{Stage, output, sorted_values};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, committed, read_all};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::kafka_or_not_run;

fn errors(then: &str, rest: &str) -> String {
    format!("[errors]\nretry = {{ attempts = 2, backoff = \"10ms\" }}\nthen = \"{then}\"\n{rest}")
}

fn wait_for_outcome(host: &SluiceHost, outcome: &str, count: f64) {
    host.wait_for_metric("sluicebox_messages_processed_total", &[&format!("outcome=\"{outcome}\"")], count);
}

/// Proves: a handler that exports `failures` decides about each of its failed records: a dead letter, also one that it changes; a
/// drop; or whatever the policy says. What it emits about them arrives. When it fails itself, or says nothing, the policy decides.
/// (The guest `judge`.)
#[test]
fn the_handler_decides_about_its_failures() {
    let kafka = kafka_or_not_run!("the_handler_decides_about_its_failures");
    let stage = Stage::new(kafka, "verdicts", 1);
    let dead = stage.topic("dead", 1);
    stage.produce(&["policy", "dead-letter changed alert", "drop", "drop alert", "good", "trap", "error", "good"]);
    let rest = errors("dead-letter", &format!("dead_letter = {{ topic = \"{dead}\" }}\n"));
    // The only output is where its alerts and all else go.
    let host = stage.manifest(&guest("judge"), "", &format!("{}{rest}", output("alerts", &stage.output))).start();
    stage.wait_committed();
    wait_for_outcome(&host, "dropped", 2.0);
    wait_for_outcome(&host, "dead_letter", 4.0);
    wait_for_outcome(&host, "ok", 2.0);
    host.stop();
    let letters = read_all(kafka, &dead);
    assert_eq!(sorted_values(&letters), ["error", "it asks for dead-letter", "policy", "trap"]);
    for letter in &letters {
        let changed = letter.value_text() == "it asks for dead-letter";
        assert_eq!(letter.key.is_none(), changed, "{letter:?}");
        assert_eq!(letter.header("changed"), changed.then_some(&b"yes"[..]), "{letter:?}");
        assert_eq!(letter.header("sluicebox-error-class"), Some(&b"reject"[..]), "{letter:?}");
    }
    let said: Vec<String> =
        read_all(kafka, &stage.output).iter().map(|record| record.value_text().to_owned()).collect();
    let expected = ["message reject 1: it asks for dead-letter", "message reject 1: it asks for drop", "good", "good"];
    assert_eq!(said, expected);
}

/// Proves: `block` and `stop` by the handler's word are those of the policy: the one holds its partition and no other, the other
/// one ends the pipeline with its reason, once the rest is settled, and the process lives.
#[test]
fn the_handler_may_block_and_stop() {
    let kafka = kafka_or_not_run!("the_handler_may_block_and_stop");
    let stage = Stage::new(kafka, "verdict-stops", 2);
    let on = |partition: i32, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let producer = Producer::new(kafka);
    let mut records = vec![on(0, "good"), on(0, "block"), on(0, "behind it")];
    records.extend(vec![on(1, "good"); 100]);
    producer.send(&stage.input, &records);
    let host = stage.manifest(&guest("judge"), "", &output("alerts", &stage.output)).start();
    let mut commits = stage.commits();
    let reached = commits.wait_until(PATIENCE, |commits| {
        commits.last(&stage.input, 0) == Some(1) && commits.last(&stage.input, 1) == Some(100)
    });
    assert!(reached, "commits: {:?}\n{}", commits.seen(), host.tail());
    host.wait_for_metric("sluicebox_partitions", &["state=\"blocked\""], 1.0);
    producer.send(&stage.input, &[on(1, "good"), on(1, "stop"), on(1, "behind it")]);
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"stopped\""], 1.0);
    let ready = host.get("/readyz");
    assert!(ready.status == 503 && ready.body.contains("it asks for stop"), "{}", ready.body);
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(1), Some(101)]);
    assert_eq!(host.get("/livez").status, 200);
    host.terminate();
    host.wait_exit(PATIENCE);
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), vec!["good"; 102]);
}

/// Proves: with `then = "drop"` a record that failed for good is counted and named in the log, and everything else is done.
#[test]
fn dropped_records_are_counted_and_named() {
    let kafka = kafka_or_not_run!("dropped_records_are_counted_and_named");
    let stage = Stage::new(kafka, "drop", 1);
    stage.produce(&["good", "reject", "retry-9 is one too many", "good", "trap", "good"]);
    let rest = format!("{}{}", output("out", &stage.output), errors("drop", ""));
    let host = stage.manifest(&guest("faulty"), "", &rest).start();
    stage.wait_committed();
    wait_for_outcome(&host, "dropped", 3.0);
    host.stop();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), vec!["good"; 3]);
    for offset in [1, 2, 4] {
        let offset = format!("\"offset\":{offset},");
        let named = host.output().iter().any(|line| line.contains("dropped: ") && line.contains(&offset));
        assert!(named, "{offset} is not named\n{}", host.tail());
    }
}

/// Proves: with `then = "stop"` the pipeline settles and commits what was before the record, and stays stopped with its reason;
/// the process lives, and a host that is started again meets the record again.
#[test]
fn a_pipeline_that_stops_commits_what_was_before() {
    const BEFORE: i64 = 50;
    let kafka = kafka_or_not_run!("a_pipeline_that_stops_commits_what_was_before");
    let stage = Stage::new(kafka, "stop", 1);
    let mut values = vec!["good"; BEFORE as usize];
    values.extend(["reject", "behind it"]);
    stage.produce(&values);
    let rest = format!("{}{}", output("out", &stage.output), errors("stop", ""));
    let options = stage.manifest(&guest("faulty"), "", &rest);
    for _ in 0..2 {
        let host = options.start();
        host.wait_for_metric("sluicebox_pipeline_state", &["state=\"stopped\""], 1.0);
        let ready = host.get("/readyz");
        let place = format!("{}[0]", stage.input);
        assert!(ready.status == 503 && ready.body.contains(&place) && ready.body.contains("the value asks for it"));
        assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(BEFORE)], "{}", host.tail());
        assert_eq!(host.get("/livez").status, 200);
        host.terminate();
        host.wait_exit(PATIENCE);
    }
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), vec!["good"; BEFORE as usize]);
}
