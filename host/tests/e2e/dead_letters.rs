//! Records that cannot be processed: what their dead letters hold, how many there are, and that none is acked unwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::check::{Stage, output, sorted_values};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, Record, committed, create_topic, create_topic_with, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;
use crate::support::tools::Tools;
use crate::support::unique;

/// What the host writes after the record's own headers, in this order.
const NAMES: [&str; 10] =
    ["topic", "partition", "offset", "timestamp", "class", "text", "attempts", "stage", "pipeline", "version"];

fn error_header(name: &str) -> Vec<u8> {
    format!("sluicebox-error-{name}").into_bytes()
}

/// A header of the host's as text.
fn header<'a>(letter: &'a Record, name: &str) -> &'a str {
    let value = letter.header(&format!("sluicebox-error-{name}"));
    std::str::from_utf8(value.unwrap_or_else(|| panic!("{letter:?} has no {name}"))).expect("text")
}

/// The lines that send dead letters to a topic after two attempts.
fn errors(dead: &str) -> String {
    format!(
        "[errors]\nretry = {{ attempts = 2, backoff = \"10ms\" }}\nthen = \"dead-letter\"\n\
         dead_letter = {{ topic = \"{dead}\" }}\n"
    )
}

/// Proves: a dead letter is the source record as it was (null, empty and binary key and value, headers in order, repeated,
/// null and empty ones), followed by headers that say where it came from and why, and it is stamped with the time it was
/// written, not with its event time.
#[test]
fn a_dead_letter_is_its_record_and_why() {
    const OLD: i64 = 1_234_567_890_123;
    let kafka = kafka_or_not_run!("a_dead_letter_is_its_record_and_why");
    let stage = Stage::new(kafka, "letter", 2);
    let dead = stage.topic("dead", 1);
    let binary: Vec<u8> = (0..=255).collect();
    let parts = [None, Some(vec![]), Some(b"text".to_vec()), Some(binary.clone())];
    let own: Vec<(Vec<u8>, Option<Vec<u8>>)> = vec![
        (b"twice".to_vec(), Some(b"one".to_vec())),
        (b"null".to_vec(), None),
        (b"\xff\xfe".to_vec(), Some(binary.clone())),
        (b"twice".to_vec(), Some(vec![])),
    ];
    let mut sent = Vec::new();
    for key in &parts {
        for value in &parts {
            sent.push(NewRecord {
                partition: Some(i32::try_from(sent.len() % 2).expect("0 or 1")),
                timestamp: Some(OLD + i64::try_from(sent.len()).expect("a few")),
                key: key.clone(),
                value: value.clone(),
                headers: own.clone(),
            });
        }
    }
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis();
    Producer::new(kafka).send(&stage.input, &sent);
    // Rejects everything that is not `N:…`.
    let host = stage.host(&guest("fan-out")).dead_letter(&dead).start();
    stage.wait_committed();
    let ready = host.get("/readyz").body;
    host.stop();

    let mut letters: BTreeMap<(i32, i64), Record> = BTreeMap::new();
    for letter in read_all(kafka, &dead) {
        let place = (header(&letter, "partition").parse().expect("a number"), header(&letter, "offset").parse());
        let twice = letters.insert((place.0, place.1.expect("a number")), letter);
        assert!(twice.is_none(), "two dead letters of one record: {twice:?}");
    }
    let source = read_all(kafka, &stage.input);
    assert_eq!(letters.len(), source.len());
    for record in source {
        let letter = &letters[&(record.partition, record.offset)];
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
        let (carried, added) = letter.headers.split_at(own.len());
        assert_eq!(carried, own);
        let names: Vec<Vec<u8>> = added.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, NAMES.map(error_header));
        assert_eq!(header(letter, "topic"), stage.input);
        assert_eq!(header(letter, "timestamp"), record.timestamp.to_string());
        assert_eq!((header(letter, "class"), header(letter, "stage")), ("reject", "message"));
        assert!(!header(letter, "text").is_empty());
        assert_eq!(header(letter, "attempts"), "1");
        assert_eq!(header(letter, "pipeline"), stage.group);
        let version = header(letter, "version");
        assert!(version.len() == 64 && ready.contains(version), "{version} is the component's digest: {ready}");
        assert!(letter.timestamp as u128 >= begun, "stamped with {}, written after {begun}", letter.timestamp);
    }
}

/// Proves: a bad item of a batch (rejected, trapping, panicking, always retried, failing the whole batch) becomes one dead
/// letter, after the attempts that are due and with the name of its batcher, and every good item of the same batch arrives
/// once.
#[test]
fn one_letter_for_each_bad_item_of_a_batch() {
    /// Value, class, attempts.
    const BAD: [(&str, &str, &str); 5] = [
        ("batch-reject", "reject", "1"),
        ("batch-trap", "trap", "2"),
        ("batch-panic", "panic", "2"),
        ("batch-retry-9", "retry", "2"),
        ("batch-err", "retry", "2"),
    ];
    let kafka = kafka_or_not_run!("one_letter_for_each_bad_item_of_a_batch");
    let stage = Stage::new(kafka, "batch-letters", 1);
    let dead = stage.topic("dead", 1);
    let mut values: Vec<String> = Vec::new();
    for (bad, _, _) in BAD {
        values.extend((0..15).map(|n| format!("batch-good {n:02} before {bad}")));
        values.push(bad.to_owned());
    }
    values.push("batch-retry-2 done with the second attempt".to_owned());
    stage.produce(&values.iter().map(String::as_str).collect::<Vec<_>>());
    let rest = format!(
        "[batch.default]\nmax_messages = 1000\nmax_wait = \"200ms\"\n{}{}",
        errors(&dead),
        output("out", &stage.output)
    );
    let host = stage.manifest(&guest("faulty"), "", &rest).start();
    stage.wait_committed();
    host.stop();

    let letters = read_all(kafka, &dead);
    for (bad, class, attempts) in BAD {
        let own: Vec<&Record> = letters.iter().filter(|letter| letter.value_text() == bad).collect();
        assert_eq!(own.len(), 1, "one dead letter of {bad}\n{}", host.tail());
        let seen = (header(own[0], "class"), header(own[0], "attempts"), header(own[0], "stage"));
        assert_eq!(seen, (class, attempts, "default"), "{bad}");
    }
    assert_eq!(letters.len(), BAD.len());
    let mut good: Vec<String> =
        values.into_iter().filter(|value| !BAD.iter().any(|(bad, _, _)| value == bad)).collect();
    good.sort();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), good);
}

/// Proves: without its dead-letter topic a pipeline does not begin: it waits with that reason, outside of its group, and
/// nothing is committed; it goes on by itself when the topic is there.
#[test]
fn a_missing_dead_letter_topic_is_waited_for() {
    let kafka = kafka_or_not_run!("a_missing_dead_letter_topic_is_waited_for");
    let stage = Stage::new(kafka, "no-dead", 1);
    let dead = unique("dead");
    stage.produce(&["good", "reject", "good"]);
    let host = stage.host(&guest("faulty")).dead_letter(&dead).start();
    host.wait_for_answer("/readyz", "what it waits for", |answer| {
        answer.status == 503 && answer.body.contains(&dead) && answer.body.contains("does not exist")
    });
    assert!(!Tools(kafka).group_exists(&stage.group), "it joined its group");
    assert_eq!(read_all(kafka, &stage.output), vec![]);
    create_topic(kafka, &dead, 1);
    stage.wait_committed();
    host.stop();
    assert_eq!(sorted_values(&read_all(kafka, &dead)), ["reject"]);
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), ["good", "good"]);
}

/// Proves: a dead letter that its topic refuses is not acked: the lane stops, says at which record and why, nothing past it is
/// committed, the other partition goes on; with a topic that takes it, the next host goes on where this one stopped.
#[test]
fn a_refused_dead_letter_blocks_its_lane() {
    const BEFORE: i64 = 10;
    let kafka = kafka_or_not_run!("a_refused_dead_letter_blocks_its_lane");
    let stage = Stage::new(kafka, "refused-letter", 2);
    let dead = unique("small");
    create_topic_with(kafka, &dead, 1, &[("max.message.bytes", "2000")]);
    let on = |partition: i32, value: String| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
    let large = format!("reject {}", "x".repeat(10_000));
    let mut records: Vec<NewRecord> = (0..BEFORE).map(|n| on(0, format!("before {n}"))).collect();
    records.push(on(0, large.clone()));
    records.extend((0..5).map(|n| on(0, format!("after {n}"))));
    records.extend((0..100).map(|n| on(1, format!("beside {n}"))));
    records.push(on(1, "reject small".to_owned()));
    Producer::new(kafka).send(&stage.input, &records);
    let options = stage.host(&guest("faulty")).dead_letter(&dead);
    let host = options.start();
    let mut commits = stage.commits();
    let reached = commits.wait_until(PATIENCE, |commits| {
        commits.last(&stage.input, 0) == Some(BEFORE) && commits.last(&stage.input, 1) == Some(101)
    });
    assert!(reached, "commits: {:?}\n{}", commits.seen(), host.tail());
    let line = host.wait_for_line("lane blocked at", PATIENCE);
    let (place, why) = (format!("{}[0]@{BEFORE}", stage.input), format!("topic `{dead}` refuses the record"));
    assert!(line.contains(&place) && line.contains(&why), "the log names the record: {line}");
    host.wait_for_metric("sluicebox_partitions", &["state=\"blocked\""], 1.0);
    let ready = host.get("/readyz");
    let place = format!("{}[0] is blocked", stage.input);
    assert!(ready.body.contains(&place) && ready.body.contains(&dead), "who and why: {}", ready.body);
    let refused = ["output=\"dead-letter\"", "result=\"refused\""];
    host.wait_for_metric("sluicebox_messages_produced_total", &refused, 1.0);
    host.stop();
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(BEFORE), Some(101)]);

    let entity = ["--entity-type", "topics", "--entity-name", &dead];
    let change = ["--alter", "--add-config", "max.message.bytes=1000000"];
    Tools(kafka).run("kafka.admin.ConfigCommand", &[entity.as_slice(), &change].concat(), b"");
    let host = options.start();
    stage.wait_committed();
    host.stop();
    assert_eq!(sorted_values(&read_all(kafka, &dead)), ["reject small", large.as_str()]);
    // What came after it was done by the first host, but could not be committed: it may be done twice.
    let arrived = read_all(kafka, &stage.output);
    let after: BTreeSet<&str> =
        arrived.iter().map(|r| r.value_text()).filter(|value| value.starts_with("after")).collect();
    assert_eq!(after.len(), 5, "{after:?}");
    let before = arrived.iter().filter(|r| r.value_text().starts_with("before")).count();
    assert_eq!(i64::try_from(before).expect("a few"), BEFORE, "what was committed is not done again");
}

/// Proves: when the topic of an output refuses what was made of a record for good, and there is a dead-letter topic, the dead
/// letter is the source record, read again, whole; nothing is made again for it, its neighbours arrive once, all is committed.
#[test]
fn a_refused_emission_is_a_dead_letter_of_its_source() {
    let kafka = kafka_or_not_run!("a_refused_emission_is_a_dead_letter_of_its_source");
    let stage = Stage::new(kafka, "refused-emission", 1);
    let (dead, small) = (stage.topic("dead", 1), unique("small-out"));
    create_topic_with(kafka, &small, 1, &[("max.message.bytes", "2000")]);
    let large = "x".repeat(10_000);
    let headers = vec![(b"own".to_vec(), Some(b"stays".to_vec()))];
    let record = |value: &str| NewRecord { headers: headers.clone(), ..NewRecord::new("key", value) };
    let mut records: Vec<NewRecord> = (0..50).map(|n| record(&format!("before {n:02}"))).collect();
    records.push(record(&large));
    records.extend((0..50).map(|n| record(&format!("behind {n:02}"))));
    Producer::new(kafka).send(&stage.input, &records);
    let rest = format!("{}{}", errors(&dead), output("out", &small));
    let host = stage.manifest(&guest("forward"), "", &rest).start();
    stage.wait_committed();
    host.wait_for_metric("sluicebox_messages_processed_total", &["outcome=\"dead_letter\""], 1.0);
    host.stop();
    let letters = read_all(kafka, &dead);
    assert_eq!((letters.len(), letters[0].key_text(), letters[0].value_text()), (1, "key", large.as_str()));
    assert_eq!((header(&letters[0], "class"), header(&letters[0], "offset")), ("refused", "50"));
    assert!(header(&letters[0], "text").contains(&small), "it says who refused it: {}", header(&letters[0], "text"));
    assert_eq!(letters[0].header("own"), Some(&b"stays"[..]));
    let expected: Vec<String> =
        ["before", "behind"].iter().flat_map(|word| (0..50).map(move |n| format!("{word} {n:02}"))).collect();
    assert_eq!(sorted_values(&read_all(kafka, &small)), expected);
}
