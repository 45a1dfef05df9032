//! Records as large as topics and handlers allow, and larger.

use crate::check::{Stage, output, wait_for_records};
use crate::support::client::{NewRecord, Producer, create_topic_with, read_all};
use crate::support::guests::guest;
use crate::support::kafka::{Kafka, kafka_or_not_run};
use crate::support::{PATIENCE, unique};

const MIB: usize = 1024 * 1024;
/// Kafka's own limit of a batch.
const LIMIT: usize = 1_048_588;
/// What the topics of these tests take.
const TOPIC: usize = 32 * MIB;

fn large_topic(kafka: &Kafka, name: &str) -> String {
    let topic = unique(name);
    create_topic_with(kafka, &topic, 1, &[("max.message.bytes", &TOPIC.to_string())]);
    topic
}

/// Text of so many bytes that differs from place to place, so that a shift would show.
fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| b'a' + (place / 7 % 23) as u8).collect()
}

fn producer(kafka: &Kafka) -> Producer {
    Producer::large(kafka, TOPIC)
}

/// Proves: records from just below Kafka's own limit to 24 MiB, in value, key and header, go through a handler and arrive byte for
/// byte in their order, with small ones between them, though a fetch asks for 1 MiB of a partition.
#[test]
fn large_records_arrive_whole() {
    let kafka = kafka_or_not_run!("large_records_arrive_whole");
    let stage = Stage {
        input: large_topic(kafka, "large-in"),
        output: large_topic(kafka, "large-out"),
        ..Stage::new(kafka, "large", 1)
    };
    let mut sent = Vec::new();
    for value in [LIMIT - 200, LIMIT, 4 * MIB, 10 * MIB, 24 * MIB] {
        sent.push(NewRecord::new("key", text(value)));
        sent.push(NewRecord::new("key", "small"));
    }
    sent.push(NewRecord::new(text(2 * MIB), "a long key"));
    let headers = vec![(b"long".to_vec(), Some(text(3 * MIB))), (b"short".to_vec(), None)];
    sent.push(NewRecord { headers, ..NewRecord::new("key", text(MIB)) });
    producer(kafka).send(&stage.input, &sent);
    let limits = "[handler.limits]\nmemory = \"128MiB\"\n";
    let options = stage.manifest(&guest("forward"), "", &format!("{limits}{}", output("out", &stage.output)));
    let host = options.start();
    stage.wait_committed();
    host.stop();
    let arrived = read_all(kafka, &stage.output);
    assert_eq!(arrived.len(), sent.len());
    for (index, (arrived, sent)) in arrived.iter().zip(&sent).enumerate() {
        // Not with assert_eq: it would print them.
        let same = (&arrived.key, &arrived.value, &arrived.headers) == (&sent.key, &sent.value, &sent.headers);
        assert!(same, "record {index} has changed");
    }
}

/// Proves: a record that does not fit into the handler's memory fails by itself, with that reason: its dead letter is the record
/// whole, and the small ones around it are done.
#[test]
fn a_record_larger_than_the_handlers_memory_fails_alone() {
    let kafka = kafka_or_not_run!("a_record_larger_than_the_handlers_memory_fails_alone");
    let stage = Stage { input: large_topic(kafka, "huge-in"), ..Stage::new(kafka, "huge", 1) };
    let dead = large_topic(kafka, "huge-dead");
    let huge = text(16 * MIB);
    let small = |n: usize| NewRecord::new("key", format!("small {n}"));
    let mut records: Vec<NewRecord> = (0..10).map(small).collect();
    records.push(NewRecord::new("key", huge.clone()));
    records.extend((10..20).map(small));
    producer(kafka).send(&stage.input, &records);
    let rest = format!(
        "[handler.limits]\nmemory = \"8MiB\"\n[errors]\nretry = {{ attempts = 2, backoff = \"10ms\" }}\n\
         dead_letter = {{ topic = \"{dead}\" }}\n{}",
        output("out", &stage.output)
    );
    let host = stage.manifest(&guest("forward"), "", &rest).start();
    stage.wait_committed();
    host.wait_for_line("memory", PATIENCE);
    host.stop();
    let letters = read_all(kafka, &dead);
    assert!(letters.len() == 1 && letters[0].value.as_deref() == Some(&huge), "{} dead letters", letters.len());
    let class = letters[0].header("sluicebox-error-class").map(String::from_utf8_lossy);
    assert_eq!(class.as_deref(), Some("memory"));
    let arrived: Vec<String> = read_all(kafka, &stage.output).iter().map(|r| r.value_text().to_owned()).collect();
    assert_eq!(arrived, (0..20).map(|n| format!("small {n}")).collect::<Vec<_>>());
}

/// Proves: near the limit of a topic that nobody changed, what fits is taken though it travels with others, and what does not is
/// refused by itself.
#[test]
fn near_the_limit_of_a_topic_only_what_is_too_large_is_refused() {
    let kafka = kafka_or_not_run!("near_the_limit_of_a_topic_only_what_is_too_large_is_refused");
    let stage = Stage { input: large_topic(kafka, "border-in"), ..Stage::new(kafka, "border", 1) };
    let dead = large_topic(kafka, "border-dead");
    let sizes = [LIMIT - 200, 10, LIMIT + 1, LIMIT / 2, LIMIT / 2, LIMIT + 1, 10, LIMIT - 200, LIMIT - 200];
    producer(kafka).send(&stage.input, &sizes.map(|bytes| NewRecord::new("key", text(bytes))));
    let rest = format!("{}[errors]\ndead_letter = {{ topic = \"{dead}\" }}\n", output("out", &stage.output));
    let host = stage.manifest(&guest("forward"), "", &rest).start();
    wait_for_records(kafka, &dead, 2);
    stage.wait_committed();
    host.stop();
    let arrived = |topic: &str| -> Vec<usize> {
        read_all(kafka, topic).iter().map(|record| record.value.as_ref().map_or(0, Vec::len)).collect()
    };
    assert_eq!(arrived(&stage.output), [LIMIT - 200, 10, LIMIT / 2, LIMIT / 2, 10, LIMIT - 200, LIMIT - 200]);
    assert_eq!(arrived(&dead), [LIMIT + 1; 2]);
}
