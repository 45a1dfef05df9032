//! What becomes of records on their way: all copies of a fan-out, their partition, their time, their compression; and input
//! that was written in transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::check::{Load, Site, Stage, manifest, output, wait_committed, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, Transactions, committed, create_topic_with, end_offsets, read_all};
use crate::support::guests::guest;
use crate::support::host::HostOptions;
use crate::support::kafka::{Kafka, kafka_or_not_run};
use crate::support::tools::Tools;
use crate::support::unique;

/// Proves: a host killed while its handler makes three records of each leaves no record with fewer: a record is committed
/// only when all of its copies are durable. What was committed at the kill is not made again.
#[test]
fn a_kill_in_mid_fan_out_loses_no_copy() {
    const COPIES: usize = 3;
    let kafka = kafka_or_not_run!("a_kill_in_mid_fan_out_loses_no_copy");
    let stage = Stage::new(kafka, "copies", 4);
    let load = Load::of(&stage, |n, key, value| {
        key.extend_from_slice(format!("key-{}", n % 64).as_bytes());
        value.extend_from_slice(format!("{COPIES}:{n}").as_bytes());
    });
    let source = "session_timeout = \"6s\"";
    let options = stage.manifest(&guest("fan-out"), source, &output("out", &stage.output));
    let first = options.start();
    let mut commits = stage.commits();
    let begun = commits.wait_until(PATIENCE, |commits| commits.total(&stage.input) > 0);
    assert!(begun, "no commit\n{}", first.tail());
    wait_for_records(kafka, &stage.output, 50_000);
    first.kill();
    commits.catch_up(kafka);
    let at_kill: Vec<i64> = (0..4).map(|partition| commits.last(&stage.input, partition).unwrap_or(0)).collect();
    let second = options.start();
    let count = load.stop();
    stage.wait_committed();
    second.stop();

    let number = |value: &str| value.split_once(':').and_then(|(_, n)| n.parse::<usize>().ok()).expect("a number");
    let mut copies = vec![0_usize; usize::try_from(count).expect("a count")];
    for record in read_all(kafka, &stage.output) {
        copies[number(record.value_text())] += 1;
    }
    let lacking: Vec<usize> = (0..copies.len()).filter(|n| copies[*n] < COPIES).collect();
    assert!(lacking.is_empty(), "{} records lack copies, such as {}", lacking.len(), lacking[0]);
    for record in read_all(kafka, &stage.input) {
        let (n, before) = (number(record.value_text()), at_kill[record.partition as usize]);
        assert!(record.offset >= before || copies[n] == COPIES, "{n} was committed and made again: {}", copies[n]);
    }
    eprintln!("{} of {count} records were made again", copies.iter().filter(|copies| **copies > COPIES).count());
}

/// Proves: a record's key puts it on the partition where Kafka's own producer put it, empty and non-English keys too, and
/// records without a key spread over the partitions.
#[test]
fn keys_land_where_javas_producer_puts_them() {
    const PARTITIONS: i32 = 7;
    let kafka = kafka_or_not_run!("keys_land_where_javas_producer_puts_them");
    let stage = Stage::new(kafka, "keys", PARTITIONS);
    let mut keys: Vec<String> = (0..500).map(|n| "x".repeat(n % 13) + &n.to_string()).collect();
    keys.extend(["", " ", "ключ", "鍵", "🔑", "a", "ab", "abc", "abcd"].map(str::to_owned));
    let lines: String = keys.iter().map(|key| format!("{key}\tvalue of {key}\n")).collect();
    Tools(kafka).console_produce(&stage.input, &lines, Some('\t'));
    let host = stage.host(&guest("forward")).start();
    stage.wait_committed();

    let places = |topic: &str| -> BTreeMap<String, i32> {
        read_all(kafka, topic).iter().map(|record| (record.key_text().to_owned(), record.partition)).collect()
    };
    let (by_java, by_us) = (places(&stage.input), places(&stage.output));
    assert_eq!(by_java.len(), keys.len());
    assert_eq!(by_us, by_java);
    assert_eq!(by_us.values().collect::<BTreeSet<_>>().len(), PARTITIONS as usize, "all partitions have keys");

    let before = end_offsets(kafka, &stage.output);
    Producer::new(kafka).send(&stage.input, &vec![NewRecord { key: None, ..NewRecord::new("", "no key") }; 10_000]);
    stage.wait_committed();
    host.stop();
    let after = end_offsets(kafka, &stage.output);
    let spread: Vec<i64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert_eq!(spread.iter().sum::<i64>(), 10_000);
    assert!(spread.iter().all(|count| *count > 0), "records without a key spread: {spread:?}");
}

/// Proves: an output carries the event time of its records, or with `timestamp = "now"` the time of sending.
#[test]
fn event_times_are_kept_or_made_new() {
    const OLD: i64 = 1_234_567_890_123;
    let kafka = kafka_or_not_run!("event_times_are_kept_or_made_new");
    let stage = Stage::new(kafka, "times", 1);
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis();
    let begun = i64::try_from(begun).expect("a time");
    let old: Vec<NewRecord> =
        (0..10).map(|n| NewRecord { timestamp: Some(OLD + n), ..NewRecord::new("key", "value") }).collect();
    Producer::new(kafka).send(&stage.input, &old);
    let site = Site::new(&Site::cluster("default", kafka));
    let names = [unique("kept"), unique("now")];
    let outputs = [stage.output.clone(), stage.topic("now", 1)];
    for ((name, topic), timestamp) in names.iter().zip(&outputs).zip(["record", "now"]) {
        let rest = format!("{}timestamp = \"{timestamp}\"\n", output("out", topic));
        site.add(name, &stage.pipeline(name, &guest("forward"), &rest));
    }
    let host = site.start();
    names.iter().for_each(|name| wait_committed(kafka, name, &stage.input));
    host.stop();
    let times = |topic: &str| -> Vec<i64> { read_all(kafka, topic).iter().map(|record| record.timestamp).collect() };
    assert_eq!(times(&outputs[0]), (OLD..OLD + 10).collect::<Vec<_>>());
    let now = times(&outputs[1]);
    assert!(now.len() == 10 && now.iter().all(|time| *time >= begun), "sent after {begun}: {now:?}");
}

/// Proves: each compression of an output is what the broker's log holds, and Kafka's own consumer reads the records.
#[test]
fn compressed_outputs_are_read_by_kafkas_consumer() {
    const COUNT: usize = 200;
    let kafka = kafka_or_not_run!("compressed_outputs_are_read_by_kafkas_consumer");
    let stage = Stage::new(kafka, "compressed", 1);
    let values: Vec<String> = (0..COUNT).map(|n| format!("{n:04} {}", "again and ".repeat(20))).collect();
    stage.produce(&values.iter().map(String::as_str).collect::<Vec<_>>());
    let site = Site::new(&Site::cluster("default", kafka));
    let codecs = ["zstd", "lz4", "snappy", "gzip"];
    let mut made = Vec::new();
    for codec in codecs {
        let (name, topic) = (unique(codec), stage.topic(codec, 1));
        let rest = format!("{}send = {{ compression = \"{codec}\" }}\n", output("out", &topic));
        site.add(&name, &manifest(&name, &guest("forward"), &stage.input, "", &rest));
        made.push((codec, name, topic));
    }
    let host = site.start();
    made.iter().for_each(|(_, name, _)| wait_committed(kafka, name, &stage.input));
    host.stop();
    let tools = Tools(kafka);
    for (codec, _, topic) in &made {
        let log = tools.dump_log(&kafka.segment(topic, 0));
        let batches: Vec<&str> = log.lines().filter(|line| line.contains("compresscodec: ")).collect();
        let right = |line: &&str| line.contains(&format!("compresscodec: {codec}"));
        assert!(!batches.is_empty() && batches.iter().all(right), "not all batches are {codec}:\n{log}");
        assert_eq!(tools.console_consume(topic, COUNT, false), values, "{codec}");
    }
}

/// Proves: a record that its topic refuses (too large) takes none of its neighbours with it, though the broker refuses them
/// as one batch: they arrive once each; its own lane stops at it, says so, and commits nothing past it.
#[test]
fn a_refused_record_stands_alone() {
    let kafka = kafka_or_not_run!("a_refused_record_stands_alone");
    let too_large = NewRecord { partition: Some(0), ..NewRecord::new("key", "x".repeat(10_000)) };
    refused_alone(kafka, &[("max.message.bytes", "2000")], &too_large);
}

/// Proves: the same for a record without a key and a compacted topic.
#[test]
fn a_record_without_a_key_for_a_compacted_topic_stands_alone() {
    let kafka = kafka_or_not_run!("a_record_without_a_key_for_a_compacted_topic_stands_alone");
    let keyless = NewRecord { partition: Some(0), key: None, ..NewRecord::new("", "no key") };
    refused_alone(kafka, &[("cleanup.policy", "compact")], &keyless);
}

fn refused_alone(kafka: &Kafka, topic: &[(&str, &str)], bad: &NewRecord) {
    const BEFORE: i64 = 50;
    let stage = Stage::new(kafka, "refused", 2);
    let output = unique("particular");
    create_topic_with(kafka, &output, 1, topic);
    let on = |partition: i32, value: String| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let before: Vec<String> = (0..BEFORE).map(|n| format!("before {n:03}")).collect();
    let beside: Vec<String> = (0..500).map(|n| format!("beside {n:03}")).collect();
    let mut records: Vec<NewRecord> = before.iter().map(|value| on(0, value.clone())).collect();
    records.push(bad.clone());
    records.extend(beside.iter().map(|value| on(1, value.clone())));
    Producer::new(kafka).send(&stage.input, &records);
    let options = HostOptions::new(kafka, &guest("forward"), &[&stage.input], &stage.group).output(&output);
    let host = options.start();
    let mut commits = stage.commits();
    let reached = commits.wait_until(PATIENCE, |commits| {
        commits.last(&stage.input, 0) == Some(BEFORE) && commits.last(&stage.input, 1) == Some(500)
    });
    assert!(reached, "commits: {:?}\n{}", commits.seen(), host.tail());
    let line = host.wait_for_line("lane blocked at", PATIENCE);
    let (place, why) = (format!("{}[0]@{BEFORE}", stage.input), format!("topic `{output}` refuses the record"));
    assert!(line.contains(&place) && line.contains(&why), "{line}");
    host.wait_for_metric("sluicebox_messages_produced_total", &["result=\"refused\""], 1.0);
    host.wait_for_metric("sluicebox_messages_produced_total", &["result=\"ok\""], 550.0);
    host.stop();
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(BEFORE), Some(500)]);
    // Order within an input partition survives the splitting of batches.
    let arrived = read_all(kafka, &output);
    let of = |word: &str| -> Vec<&str> {
        arrived.iter().map(|record| record.value_text()).filter(|value| value.starts_with(word)).collect()
    };
    assert_eq!(
        (of("before"), of("beside")),
        (before.iter().map(String::as_str).collect(), beside.iter().map(String::as_str).collect())
    );
}

/// Proves: of input written in transactions only what was committed reaches the handler, and the group commits to the very
/// end of the log, past aborted records and the markers of transactions, so that Kafka's tool sees no lag.
#[test]
fn only_committed_transactions_are_read() {
    let kafka = kafka_or_not_run!("only_committed_transactions_are_read");
    let stage = Stage::new(kafka, "transactions", 1);
    let mut producer = Transactions::new(kafka, &unique("writer"));
    let records =
        |what: &str| -> Vec<NewRecord> { (0..100).map(|n| NewRecord::new("key", format!("{what} {n:03}"))).collect() };
    producer.commit(&stage.input, &records("first"));
    producer.abort(&stage.input, &records("aborted"));
    producer.commit(&stage.input, &records("second"));
    producer.abort(&stage.input, &records("aborted, the last"));
    let host = stage.host(&guest("forward")).start();
    stage.wait_committed();
    host.wait_for_metric("sluicebox_consumer_lag_messages", &[], 0.0);
    // Four transactions of a hundred records and one marker each.
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(404)]);
    // And one more while the host runs.
    producer.commit(&stage.input, &records("third"));
    stage.wait_committed();
    host.stop();
    let expected: Vec<String> = ["first", "second", "third"]
        .iter()
        .flat_map(|what| records(what))
        .map(|record| String::from_utf8(record.value.unwrap_or_default()).expect("text"))
        .collect();
    let arrived: Vec<String> = read_all(kafka, &stage.output).iter().map(|r| r.value_text().to_owned()).collect();
    assert_eq!(arrived, expected);
    let positions = Tools(kafka).describe_group(&stage.group);
    assert_eq!(positions.len(), 1, "{positions:?}");
    assert_eq!((positions[0].committed, positions[0].log_end, positions[0].lag), (Some(505), 505, Some(0)));
}
