//! Both forms of the contract, handlers of messages, of batches and of both, and fan-out.

use std::collections::BTreeMap;

use crate::check::{Stage, sorted_values};
use crate::support::client::{Producer, read_all};
use crate::support::guests::guest;
use crate::support::kafka::{Kafka, kafka_or_not_run};

const RECORDS: u64 = 10_000;

/// Proves: the typed form gives the same records as the frames, one for one.
#[test]
fn typed_and_frames_give_the_same() {
    let kafka = kafka_or_not_run!("typed_and_frames_give_the_same");
    let mut outputs = Vec::new();
    for handler in ["uppercase", "typed-uppercase"] {
        let stage = Stage::new(kafka, handler, 4);
        stage.produce_numbered(0, RECORDS, 120, 64);
        let host = stage.host(&guest(handler)).start();
        stage.wait_committed();
        host.stop();
        let records = read_all(kafka, &stage.output);
        assert_eq!(records.len() as u64, RECORDS);
        outputs.push(records.into_iter().map(|r| (r.partition, r.offset, r.key, r.value)).collect::<Vec<_>>());
    }
    let typed = outputs.pop().expect("two outputs");
    assert!(outputs[0] == typed, "the two forms differ");
    let value = typed[0].3.as_ref().expect("a value");
    // The first 100 bytes are in upper case, the rest is as it was.
    assert!(value[21..100].iter().all(u8::is_ascii_uppercase) && value[100..].iter().all(u8::is_ascii_lowercase));
}

/// Proves: a record that makes none, one or three records settles all the same, and each of its records arrives once.
#[test]
fn fan_out_of_none_one_and_three() {
    let kafka = kafka_or_not_run!("fan_out_of_none_one_and_three");
    let stage = Stage::new(kafka, "fan-out", 2);
    let copies = |n: u64| [0, 1, 3][(n % 3) as usize];
    Producer::new(kafka).fill(&stage.input, 3000, |n, key, value| {
        key.extend_from_slice(format!("key-{}", n % 10).as_bytes());
        value.extend_from_slice(format!("{}:{n}", copies(n)).as_bytes());
    });
    let host = stage.host(&guest("fan-out")).start();
    stage.wait_committed();
    host.stop();
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for record in read_all(kafka, &stage.output) {
        let (_, n) = record.value_text().split_once(':').expect("the value as it was");
        *times.entry(n.parse().expect("a number")).or_default() += 1;
    }
    for n in 0..3000 {
        assert_eq!(times.get(&n).copied().unwrap_or(0), copies(n), "record {n}");
    }
}

/// Proves: a handler of batches alone gets every record once, and its aggregates arrive before their inputs are
/// committed: their counts and sums are those of the input.
#[test]
fn batches_only() {
    let kafka = kafka_or_not_run!("batches_only");
    let stage = Stage::new(kafka, "batch-sum", 2);
    produce_numbers(kafka, &stage.input);
    let host = stage.host(&guest("batch-sum")).start();
    stage.wait_committed();
    // No flush and no end of the host: what is committed must be in the output already.
    let aggregates = read_all(kafka, &stage.output);
    host.stop();
    let figure = |text: &str, name: &str| -> u64 {
        let word = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{text:?} has no {name}"))
    };
    let values = sorted_values(&aggregates);
    assert_eq!(values.iter().map(|value| figure(value, "count")).sum::<u64>(), RECORDS);
    assert_eq!(values.iter().map(|value| figure(value, "sum")).sum::<u64>(), (0..RECORDS).sum::<u64>());
    assert_eq!(read_all(kafka, &stage.output).len(), aggregates.len(), "nothing came after the commit");
}

/// Proves: one handler may route messages to an output and to a batcher; each record arrives by its own way once, and the
/// batch's items and its own record count the same.
#[test]
fn messages_and_batches_in_one_handler() {
    let kafka = kafka_or_not_run!("messages_and_batches_in_one_handler");
    let stage = Stage::new(kafka, "both", 2);
    let (even, odd) = (stage.topic("even", 2), stage.topic("odd", 2));
    produce_numbers(kafka, &stage.input);
    let counts = stage.topic("counts", 1);
    let rest = format!(
        "[batch.odd]\nmax_wait = \"100ms\"\n[output.even]\ntopic = \"{even}\"\n[output.odd]\ntopic = \"{odd}\"\n\
         [output.counts]\ntopic = \"{counts}\""
    );
    let host = stage.manifest(&guest("both"), "", &rest).start();
    stage.wait_committed();
    host.stop();
    let mut evens: Vec<u64> =
        read_all(kafka, &even).iter().map(|r| r.value_text().parse().expect("a number")).collect();
    evens.sort_unstable();
    assert_eq!(evens, (0..RECORDS).filter(|n| n % 2 == 0).collect::<Vec<_>>());
    let mut items: Vec<u64> =
        sorted_values(&read_all(kafka, &odd)).iter().map(|value| value.parse().expect("a number")).collect();
    items.sort_unstable();
    assert_eq!(items, (0..RECORDS).filter(|n| n % 2 == 1).collect::<Vec<_>>());
    // What each batch emits as a whole: how many items it had.
    let counts = sorted_values(&read_all(kafka, &counts));
    let counted: u64 = counts.iter().map(|value| value.parse::<u64>().expect("a count")).sum();
    assert_eq!(counted, items.len() as u64);
}

/// The decimal numbers 0..RECORDS as values, ten keys.
fn produce_numbers(kafka: &Kafka, topic: &str) {
    Producer::new(kafka).fill(topic, RECORDS, |n, key, value| {
        key.extend_from_slice(format!("key-{}", n % 10).as_bytes());
        value.extend_from_slice(n.to_string().as_bytes());
    });
}
