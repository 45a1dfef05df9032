//! A pipeline most of whose records fail pauses, says so, and goes on by itself.

use crate::check::{Stage, output, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, committed, read_all};
use crate::support::guests::guest;
use crate::support::host::HostOptions;
use crate::support::kafka::{Kafka, kafka_or_not_run};

/// What a record must be to pass the handler `fan-out`, and what it rejects.
const GOOD: &str = "1:good";
const BAD: &str = "bad";

fn produce(kafka: &Kafka, topic: &str, partition: i32, value: &str, count: usize) {
    let record = || NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    Producer::new(kafka).send(topic, &(0..count).map(|_| record()).collect::<Vec<_>>());
}

/// A host that rejects bad records into `dead`, and pauses for a second when half of 20 are bad.
fn host(stage: &Stage<'_>, dead: &str) -> HostOptions {
    let errors = format!(
        "[errors]\ndead_letter = {{ topic = \"{dead}\" }}\n\
         breaker = {{ failed = 0.5, of_at_least = 20, window = \"1s\" }}\n"
    );
    stage.manifest(&guest("fan-out"), "", &format!("{errors}{}", output("out", &stage.output)))
}

/// Proves: when every record fails, the topic is not drained into the dead-letter topic: the pipeline pauses after the
/// records that its rule needs and what was under way, again and for longer after each trial of a few records; it stays a
/// ready member of its group, names reason, last failure and where to look, and stops in order. (Row E2.)
#[test]
fn when_every_record_fails_the_pipeline_pauses() {
    const RECORDS: usize = 3_000;
    let kafka = kafka_or_not_run!("when_every_record_fails_the_pipeline_pauses");
    let stage = Stage::new(kafka, "breaker", 2);
    let dead = stage.topic("dead", 1);
    for partition in [0, 1] {
        produce(kafka, &stage.input, partition, BAD, RECORDS / 2);
    }
    let host = host(&stage, &dead).start();
    let line = host.wait_for_line("paused: ", PATIENCE);
    for part in ["records failed (errors.breaker)", "reject: ", "tries again after 1 s", &format!("--topic {dead}")] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // Between two pauses it tries some records: then there is no reason for a moment.
    host.wait_for_answer("/readyz", "why it pauses", |answer| {
        answer.status == 200 && answer.body.contains("records failed")
    });
    host.wait_for_line("tries again after 2 s", PATIENCE);
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"paused\""], 1.0);
    let pauses = || host.metric("sluicebox_pauses_total").is_some_and(|pauses| pauses >= 2.0);
    host.process().wait_until("two pauses were never counted", PATIENCE, pauses);
    host.stop();
    // Bursts begin with one record and double, so that not many more are under way than the rule needs.
    let letters = read_all(kafka, &dead).len();
    assert!((20..200).contains(&letters), "{letters} dead letters of {RECORDS} records");
    let done: i64 = committed(kafka, &stage.group, &stage.input).into_iter().flatten().sum();
    assert_eq!(usize::try_from(done).expect("a count"), letters, "what was not offered is left to the next run");
}

/// Proves: once records are good again the pipeline goes on by itself, and each record has met its fate, the bad ones as
/// one dead letter each. (Row E2.)
#[test]
fn the_pipeline_goes_on_by_itself() {
    const FAILED: usize = 40;
    const DONE: usize = 300;
    let kafka = kafka_or_not_run!("the_pipeline_goes_on_by_itself");
    let stage = Stage::new(kafka, "resume", 1);
    let dead = stage.topic("dead", 1);
    produce(kafka, &stage.input, 0, BAD, FAILED);
    produce(kafka, &stage.input, 0, GOOD, DONE);
    let host = host(&stage, &dead).start();
    host.wait_for_line("paused: ", PATIENCE);
    host.wait_for_line("records go through again", PATIENCE);
    wait_for_records(kafka, &stage.output, DONE);
    stage.wait_committed();
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"running\""], 1.0);
    host.wait_for_metric("sluicebox_messages_processed_total", &["outcome=\"dead_letter\""], FAILED as f64);
    host.stop();
    assert_eq!((read_all(kafka, &dead).len(), read_all(kafka, &stage.output).len()), (FAILED, DONE));
}

/// Proves: a pipeline whose breaker is switched off drains its topic, whatever share fails.
#[test]
fn without_a_breaker_everything_is_tried() {
    const RECORDS: usize = 500;
    let kafka = kafka_or_not_run!("without_a_breaker_everything_is_tried");
    let stage = Stage::new(kafka, "no-breaker", 1);
    let dead = stage.topic("dead", 1);
    produce(kafka, &stage.input, 0, BAD, RECORDS);
    let errors = format!("[errors]\ndead_letter = {{ topic = \"{dead}\" }}\nbreaker = false\n");
    let host = stage.manifest(&guest("fan-out"), "", &format!("{errors}{}", output("out", &stage.output))).start();
    stage.wait_committed();
    assert_eq!(host.metric("sluicebox_pauses_total"), Some(0.0));
    host.stop();
    assert_eq!(read_all(kafka, &dead).len(), RECORDS);
}
