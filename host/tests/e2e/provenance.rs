//! Outputs that say what they were made of: `[output.X] provenance = true`.

use sha2::Digest;

use crate::check::{Stage, output, wait_for_records};
use crate::support::client::{NewRecord, Producer, Record, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let value = record.header(&format!("sluicebox-{name}"));
    std::str::from_utf8(value.unwrap_or_else(|| panic!("{record:?} has no {name}"))).expect("text")
}

/// Proves: each output names the topic, partition and offset of its record, the attempt that made it, the digest of the component
/// and the number of the ownership, which is another one after a restart; a dead letter's and an earlier hop's headers do not
/// pile up; and an output without the key has none of it.
#[test]
fn outputs_name_their_record_and_their_owner() {
    let kafka = kafka_or_not_run!("outputs_name_their_record_and_their_owner");
    let stage = Stage::new(kafka, "provenance", 2);
    let own =
        vec![(b"own".to_vec(), Some(b"stays".to_vec())), (b"sluicebox-source".to_vec(), Some(b"far/0/1".to_vec()))];
    let on = |partition: i32, value: &str| NewRecord {
        partition: Some(partition),
        headers: own.clone(),
        ..NewRecord::new("key", value)
    };
    let producer = Producer::new(kafka);
    producer.send(&stage.input, &[on(0, "one"), on(0, "retry-3"), on(1, "two")]);
    let rest = format!(
        "{}provenance = true\n[errors]\nretry = {{ attempts = 5, backoff = \"10ms\" }}\n",
        output("out", &stage.output)
    );
    let options = stage.manifest(&guest("faulty"), "", &rest);
    let host = options.start();
    stage.wait_committed();
    host.stop();
    producer.send(&stage.input, &[on(0, "three")]);
    let host = options.start();
    stage.wait_committed();
    host.stop();

    let component = std::fs::read(guest("faulty")).expect("the component can be read");
    let digest = sha2::Sha256::digest(&component).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let records = read_all(kafka, &stage.output);
    let find = |value: &str| records.iter().find(|record| record.value_text() == value).expect("it arrived once");
    assert_eq!(records.len(), 4);
    for (value, place, attempt) in
        [("one", "0/0", "1"), ("retry-3", "0/1", "3"), ("two", "1/0", "1"), ("three", "0/2", "1")]
    {
        let record = find(value);
        assert_eq!(header(record, "source"), format!("{}/{place}", stage.input));
        assert_eq!((header(record, "attempt"), header(record, "index")), (attempt, "0"), "{value}");
        assert_eq!(header(record, "version"), digest);
        assert_eq!(record.header("own"), Some(&b"stays"[..]));
        assert_eq!(record.headers.len(), 6, "{:?}", record.headers);
    }
    let epoch = |value: &str| header(find(value), "epoch").parse::<u64>().expect("a number");
    assert_eq!(epoch("one"), epoch("retry-3"), "one ownership");
    assert_ne!(epoch("one"), epoch("two"), "another partition");
    assert!(epoch("three") > epoch("one"), "a later ownership has a larger number");
}

/// Proves: what is emitted for a batch as a whole names the first and the last of its records.
#[test]
fn outputs_of_a_batch_name_its_first_and_its_last() {
    let kafka = kafka_or_not_run!("outputs_of_a_batch_name_its_first_and_its_last");
    let stage = Stage::new(kafka, "provenance-batch", 1);
    stage.produce(&["1", "3", "5"]);
    let outputs: String = ["even", "odd"].iter().map(|name| output(name, &stage.output)).collect();
    let counts = stage.topic("counts", 1);
    let rest = format!(
        "[batch.odd]\nmax_messages = 3\nmax_wait = \"60s\"\n{outputs}provenance = true\n{}provenance = true\n",
        output("counts", &counts)
    );
    let host = stage.manifest(&guest("both"), "", &rest).start();
    wait_for_records(kafka, &counts, 1);
    stage.wait_committed();
    host.stop();
    assert_eq!(header(&read_all(kafka, &counts)[0], "source"), format!("{}/0/0-2", stage.input));
    let odd = read_all(kafka, &stage.output);
    let sources: Vec<&str> = odd.iter().map(|record| header(record, "source")).collect();
    assert_eq!(sources, (0..3).map(|offset| format!("{}/0/{offset}", stage.input)).collect::<Vec<_>>());
}
