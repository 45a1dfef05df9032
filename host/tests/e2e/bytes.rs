//! Nothing of a record is lost on the way through the sandbox.

use crate::check::Stage;
use crate::support::client::{NewRecord, Producer, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;
use crate::support::tools::run_kcat;

/// Proves: null and empty keys and values, binary bytes, repeated, binary, null and empty headers in order, header names
/// that are not UTF-8 and event times arrive byte for byte.
#[test]
fn every_byte_arrives() {
    let kafka = kafka_or_not_run!("every_byte_arrives");
    // One partition: the order of the records is then the order of the output, whatever their keys.
    let stage = Stage::new(kafka, "bytes", 1);
    let sent = records();
    Producer::new(kafka).send(&stage.input, &sent);
    let host = stage.host(&guest("forward")).start();
    stage.wait_committed();
    host.stop();
    let arrived = read_all(kafka, &stage.output);
    assert_eq!(arrived.len(), sent.len());
    for (index, (arrived, sent)) in arrived.iter().zip(&sent).enumerate() {
        assert_eq!((&arrived.key, &arrived.value), (&sent.key, &sent.value), "record {index}");
        assert_eq!(arrived.headers, sent.headers, "record {index}");
        assert_eq!(Some(arrived.timestamp), sent.timestamp, "record {index}");
    }
    // kcat prints lengths, -1 for null: a client that is not librdkafka's Rust binding sees the same.
    if let Some(text) = run_kcat(kafka, &["-C", "-t", &stage.output, "-e", "-q", "-f", "%K %S %T\n"], b"") {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        let line = |r: &NewRecord| format!("{} {} {}\n", length(&r.key), length(&r.value), r.timestamp.unwrap_or(-1));
        assert_eq!(String::from_utf8_lossy(&text), sent.iter().map(line).collect::<String>());
    }
}

fn records() -> Vec<NewRecord> {
    let binary: Vec<u8> = (0..=255).collect();
    let header = |name: &[u8], value: Option<&[u8]>| (name.to_vec(), value.map(<[u8]>::to_vec));
    let parts = [None, Some(vec![]), Some(b"text".to_vec()), Some(binary.clone())];
    let mut records = Vec::new();
    for key in &parts {
        for value in &parts {
            records.push(NewRecord { key: key.clone(), value: value.clone(), ..NewRecord::default() });
        }
    }
    let headers = vec![
        header(b"twice", Some(b"one")),
        header(b"\xff\xfe\x80", Some(&binary)),
        header(b"null", None),
        header(b"empty", Some(b"")),
        header(b"twice", Some(b"two")),
        header(b"", Some(b"no name")),
    ];
    records.push(NewRecord { headers, ..NewRecord::new("k", "all headers") });
    records
        .push(NewRecord { headers: vec![header(b"long", Some(&[7; 40_000]))], ..NewRecord::new("k", "a long header") });
    records.push(NewRecord::new("k", vec![b'x'; 300_000]));
    for (index, record) in records.iter_mut().enumerate() {
        record.partition = Some(0);
        // From the first milliseconds of 1970 on; a broker refuses the future.
        record.timestamp = Some([1, 1_600_000_000_000, 1_700_000_000_123][index % 3]);
    }
    records
}
