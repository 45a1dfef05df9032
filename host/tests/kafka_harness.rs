//! Proves the harness itself on the real broker, so that the other tests may trust it.

mod support;

use std::time::{Duration, Instant};

use support::client::{
    Commits, NewRecord, Producer, Reader, TimestampType, committed, create_topic, create_topic_with, end_offsets,
    partition_of, read_all, read_within,
};
use support::kafka::{Kafka, Options, kafka_or_not_run};
use support::security::{ALICE, Listener, Login};
use support::tools::{Tools, run_kcat};
use support::{PATIENCE, unique};

/// Every distinction that Kafka makes survives our producer and reader: null and empty, binary bytes, header names that
/// are not UTF-8, null header values, repeated headers in order, event time.
#[test]
fn every_byte_and_null_survives() {
    let kafka = kafka_or_not_run!("every_byte_and_null_survives");
    let topic = unique("bytes");
    create_topic(kafka, &topic, 2);
    let binary: Vec<u8> = (0..=255).collect();
    let header = |name: &[u8], value: Option<&[u8]>| (name.to_vec(), value.map(<[u8]>::to_vec));
    let sent = vec![
        NewRecord { partition: Some(0), timestamp: Some(1), ..NewRecord::default() },
        NewRecord {
            partition: Some(0),
            key: Some(vec![]),
            value: Some(vec![]),
            timestamp: Some(2),
            ..NewRecord::default()
        },
        NewRecord {
            partition: Some(1),
            timestamp: Some(1_700_000_000_123),
            key: Some(binary.clone()),
            value: Some(binary.iter().rev().copied().collect()),
            headers: vec![
                header(b"twice", Some(b"one")),
                header(b"\xff\xfe\x80", Some(&binary)),
                header(b"null", None),
                header(b"empty", Some(b"")),
                header(b"twice", Some(b"two")),
                header(b"", Some(b"no name")),
            ],
        },
    ];
    Producer::new(kafka).send(&topic, &sent);
    let read = read_all(kafka, &topic);
    assert_eq!(read.len(), sent.len());
    for (read, sent) in read.iter().zip(&sent) {
        assert_eq!(Some(read.partition), sent.partition);
        assert_eq!((&read.key, &read.value, &read.headers), (&sent.key, &sent.value, &sent.headers));
        assert_eq!((Some(read.timestamp), read.timestamp_type), (sent.timestamp, TimestampType::Create));
    }
}

/// What our client writes Kafka's own tools see, and the other way round: the judge and the judged agree.
#[test]
fn console_tools_agree_with_our_client() {
    let kafka = kafka_or_not_run!("console_tools_agree_with_our_client");
    let (topic, group) = (unique("tools"), unique("group"));
    let tools = Tools(kafka);
    tools.create_topic(&topic, 3);
    assert!(tools.describe_topic(&topic).contains("PartitionCount: 3"));
    Producer::new(kafka).fill(&topic, 300, |n, key, value| {
        key.extend_from_slice(format!("key-{}", n % 7).as_bytes());
        value.extend_from_slice(format!("value-{n}").as_bytes());
    });
    tools.console_produce(&topic, "key-0:by console\n", Some(':'));
    assert_eq!(tools.end_offsets(&topic), end_offsets(kafka, &topic));
    let records = read_all(kafka, &topic);
    let mut ours: Vec<String> = records.iter().map(|r| format!("{}\t{}", r.key_text(), r.value_text())).collect();
    let mut theirs = tools.console_consume(&topic, 301, true);
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    for record in &records {
        // Java's producer and librdkafka's murmur2 chose the same partition for one key.
        assert_eq!(record.partition, partition_of(record.key.as_ref().expect("all have keys"), 3));
    }
    let consumer_group = ["--topic", &topic, "--from-beginning", "--max-messages", "301", "--group", &group];
    tools.run("org.apache.kafka.tools.consumer.ConsoleConsumer", &consumer_group, b"");
    let mut commits = Commits::of(kafka, &group, &topic);
    commits.wait_for_end(kafka, &topic, PATIENCE);
    let ends: Vec<Option<i64>> = end_offsets(kafka, &topic).into_iter().map(Some).collect();
    assert_eq!(committed(kafka, &group, &topic), ends);
    let positions = tools.describe_group(&group);
    assert_eq!(positions.len(), 3);
    assert!(positions.iter().all(|position| position.lag == Some(0) && position.committed == Some(position.log_end)));
    if let Some(text) = run_kcat(kafka, &["-C", "-t", &topic, "-e", "-q", "-f", "%k\t%s\n"], b"") {
        let mut theirs: Vec<String> = String::from_utf8(text).expect("text").lines().map(str::to_owned).collect();
        theirs.sort();
        assert_eq!(ours, theirs);
    }
}

/// Reading stops at the deadline when records are missing, and a reader sees records that come after it was made.
#[test]
fn reading_waits_for_events_and_has_an_end() {
    let kafka = kafka_or_not_run!("reading_waits_for_events_and_has_an_end");
    let topic = unique("events");
    create_topic_with(kafka, &topic, 1, &[("message.timestamp.type", "LogAppendTime")]);
    assert_eq!(read_all(kafka, &topic), vec![]);
    let producer = Producer::new(kafka);
    let mut reader = Reader::new(kafka, &topic);
    producer.send(&topic, &[NewRecord::new("k", "v")]);
    let mut records = Vec::new();
    while records.is_empty() {
        assert!(reader.read_into(&mut records, Instant::now() + PATIENCE), "the record never came");
    }
    assert_eq!((records[0].value_text(), records[0].timestamp_type), ("v", TimestampType::LogAppend));
    assert_eq!(read_within(kafka, &topic, 2, Duration::from_millis(300)).len(), 1);
}

/// A dedicated broker keeps its address and data over a stop and over a kill.
#[test]
fn a_restarted_broker_keeps_its_data() {
    let kafka = kafka_or_not_run!("a_restarted_broker_keeps_its_data", Options::default());
    let topic = unique("kept");
    create_topic(&kafka, &topic, 1);
    let producer = Producer::new(&kafka);
    producer.send(&topic, &[NewRecord::new("k", "before the stop")]);
    kafka.stop();
    kafka.start();
    producer.send(&topic, &[NewRecord::new("k", "before the kill")]);
    kafka.kill();
    kafka.start();
    producer.send(&topic, &[NewRecord::new("k", "after both")]);
    let values: Vec<String> = read_all(&kafka, &topic).iter().map(|record| record.value_text().to_owned()).collect();
    assert_eq!(values, ["before the stop", "before the kill", "after both"]);
}

/// TLS, SASL PLAIN and SCRAM let the right password in and keep the wrong one out; a user has the rights it was given.
#[test]
fn logins_and_rights_are_checked() {
    let options = Options { secured: true, acls: true, ..Options::default() };
    let kafka = kafka_or_not_run!("logins_and_rights_are_checked", options);
    let topic = unique("secured");
    create_topic(&kafka, &topic, 1);
    Tools(&kafka).allow(ALICE.name, &["--operation", "Write", "--operation", "Describe", "--topic", &topic]);
    Tools(&kafka).allow("ANONYMOUS", &["--operation", "All", "--topic", "*"]);
    for (listener, mechanism) in [
        (Listener::SaslSsl, "SCRAM-SHA-512"),
        (Listener::SaslSsl, "PLAIN"),
        (Listener::SaslPlaintext, "SCRAM-SHA-256"),
        (Listener::Ssl, "none"),
    ] {
        let right = client(&kafka, listener, &kafka.login(listener, mechanism, ALICE));
        right.connect().unwrap_or_else(|error| panic!("{listener:?} with {mechanism}: {error}"));
        right.send(&topic, &[NewRecord::new("k", mechanism)]);
        if listener != Listener::Ssl {
            let login = Login::new(listener, mechanism, ALICE.name, "wrong", kafka.ca());
            let wrong = client(&kafka, listener, &login);
            let refused = wrong.connect().expect_err("a wrong password let someone in");
            assert!(refused.contains("uthenti"), "{listener:?} with {mechanism}: {refused}");
        }
    }
    let values: Vec<String> = read_all(&kafka, &topic).iter().map(|record| record.value_text().to_owned()).collect();
    assert_eq!(values, ["SCRAM-SHA-512", "PLAIN", "SCRAM-SHA-256", "none"]);
    let forbidden = unique("forbidden");
    create_topic(&kafka, &forbidden, 1);
    let alice = client(&kafka, Listener::SaslSsl, &kafka.login(Listener::SaslSsl, "PLAIN", ALICE));
    let refused = std::panic::catch_unwind(|| alice.send(&forbidden, &[NewRecord::new("k", "v")]));
    assert!(refused.is_err(), "a topic that nobody allowed was written");
}

fn client(kafka: &Kafka, listener: Listener, login: &Login) -> Producer {
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", kafka.secured(listener));
    login.apply(&mut config);
    Producer::try_new(config).expect("a producer")
}
