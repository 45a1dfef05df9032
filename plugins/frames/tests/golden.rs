//! The golden vectors: binary files that every SDK in every language must encode and decode byte for byte.
//!
//! `SLUICEBOX_WRITE_GOLDEN=1 cargo test --test golden` writes them anew; do that only together with a new layout version,
//! once there is a release.

mod documents;

use std::path::PathBuf;

use documents::*;
use sluicebox_frames::{Answer, Frame, Messages, TimestampType, Trigger};

fn message(offset: i64) -> MessageDoc {
    MessageDoc {
        offset,
        timestamp: 1_700_000_000_000,
        timestamp_type: TimestampType::CreateTime,
        key: Some(b"key".to_vec()),
        value: Some(b"value".to_vec()),
        headers: Vec::new(),
        attempt: 1,
        source: 0,
    }
}

/// Null and empty, keys and values.
fn burst_nulls() -> MessagesDoc {
    type Bytes = Option<&'static [u8]>;
    let pairs: [(Bytes, Bytes); 6] = [
        (Some(b"key"), Some(b"value")),
        (None, Some(b"null key")),
        (Some(b""), Some(b"empty key")),
        (Some(b"null value"), None),
        (Some(b"empty value"), Some(b"")),
        (None, None),
    ];
    let messages = pairs.iter().enumerate().map(|(i, (key, value))| MessageDoc {
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        ..message(100 + i as i64)
    });
    MessagesDoc {
        batch: None,
        stop_at_reject: false,
        epoch: 7,
        first_token: 41,
        sources: vec![("orders".to_owned(), 3)],
        messages: messages.collect(),
    }
}

/// Headers of all sorts, the largest numbers, all timestamp types.
fn burst_headers() -> MessagesDoc {
    let headers: HeadersDoc = vec![
        (b"repeated".to_vec(), Some(b"1".to_vec())),
        (b"repeated".to_vec(), Some(b"2".to_vec())),
        (b"binary".to_vec(), Some(vec![0, 255, 128])),
        (b"null".to_vec(), None),
        (b"empty".to_vec(), Some(Vec::new())),
        (vec![0xff, 0xfe], Some(b"a name that is not UTF-8".to_vec())),
        (Vec::new(), Some(b"an empty name".to_vec())),
        // The longest and shortest whose lengths are of one byte, of two, of three.
        (vec![b'n'; 63], Some(vec![b'v'; 64])),
        (vec![b'N'; 64], Some(vec![b'V'; 8191])),
        (b"long".to_vec(), Some(vec![b'w'; 8192])),
    ];
    MessagesDoc {
        batch: None,
        stop_at_reject: true,
        epoch: u64::MAX,
        first_token: 1 << 40,
        sources: vec![("größe.v1-x_y".to_owned(), i32::MAX as u32)],
        messages: vec![
            MessageDoc { headers, ..message(i64::MAX) },
            MessageDoc { timestamp: -1, timestamp_type: TimestampType::None, ..message(0) },
            MessageDoc { timestamp: i64::MAX, timestamp_type: TimestampType::LogAppendTime, ..message(1) },
            MessageDoc { timestamp: 0, attempt: u32::MAX, ..message(2) },
        ],
    }
}

/// A batch whose messages come from several partitions.
fn batch_sources() -> MessagesDoc {
    MessagesDoc {
        batch: Some(BatchDoc { batcher: "totals".to_owned(), batch_key: vec![0, 1, 255], trigger: Trigger::Shutdown }),
        stop_at_reject: false,
        epoch: 1,
        first_token: 0,
        sources: vec![("a".to_owned(), 0), ("b".to_owned(), 0), ("a".to_owned(), 1)],
        messages: vec![
            message(5),
            MessageDoc { source: 1, ..message(5) },
            MessageDoc { source: 2, attempt: 3, ..message(9) },
            MessageDoc { headers: vec![(b"h".to_vec(), Some(b"v".to_vec()))], ..message(6) },
        ],
    }
}

/// A batch of one partition with an empty batch key.
fn batch_default() -> MessagesDoc {
    MessagesDoc {
        batch: Some(BatchDoc { batcher: "default".to_owned(), batch_key: Vec::new(), trigger: Trigger::Timeout }),
        stop_at_reject: false,
        epoch: 2,
        first_token: u64::MAX,
        sources: vec![("orders".to_owned(), 0)],
        messages: vec![message(0)],
    }
}

/// Each outcome, acks and fails.
fn answer_outcomes() -> AnswerDoc {
    AnswerDoc {
        outcomes: vec![
            OutcomeDoc::Done(Vec::new()),
            OutcomeDoc::Done(vec![FORWARD, FORWARD]),
            OutcomeDoc::Hold,
            OutcomeDoc::Reject("not an order: größer als erlaubt".to_owned()),
            OutcomeDoc::Retry { reason: "busy".to_owned(), after: Some(1500) },
            OutcomeDoc::Retry { reason: String::new(), after: None },
        ],
        whole: Vec::new(),
        acks: vec![0, u64::MAX],
        fails: vec![(7, "gone".to_owned()), (8, String::new())],
    }
}

/// Each way to fill in an emission, each destination.
fn answer_emissions() -> AnswerDoc {
    let output = |name: &str| ToDoc::Output(name.to_owned());
    let bytes = |bytes: &[u8]| ContentDoc::Bytes(bytes.to_vec());
    let header = |name: &[u8]| vec![(name.to_vec(), Some(b"v".to_vec())), (name.to_vec(), None)];
    AnswerDoc {
        outcomes: vec![
            OutcomeDoc::Done(vec![
                FORWARD,
                EmissionDoc {
                    to: output("enriched"),
                    key: ContentDoc::Null,
                    value: bytes(b""),
                    headers: HeadersModeDoc::None,
                    ..FORWARD
                },
                EmissionDoc {
                    to: output("alarms"),
                    key: bytes(b"k"),
                    value: ContentDoc::Null,
                    headers: HeadersModeDoc::Replace(header(b"replaced")),
                    timestamp: Some(i64::MAX),
                    partition: Some(0),
                    partition_key: None,
                },
                EmissionDoc {
                    to: output("enriched"),
                    value: bytes(&[0, 255]),
                    headers: HeadersModeDoc::Append(header(&[0xff])),
                    timestamp: Some(0),
                    partition_key: Some(Vec::new()),
                    ..FORWARD
                },
            ]),
            OutcomeDoc::Done(vec![
                EmissionDoc {
                    to: ToDoc::Batcher { name: "enriched".to_owned(), key: b"customer-7".to_vec(), flush: true },
                    partition_key: Some(b"hash me".to_vec()),
                    ..FORWARD
                },
                EmissionDoc {
                    to: ToDoc::Batcher { name: "enriched".to_owned(), key: Vec::new(), flush: false },
                    key: bytes(b"key"),
                    value: bytes(b"value"),
                    headers: HeadersModeDoc::Append(header(b"h")),
                    timestamp: Some(-5),
                    partition: Some(u32::MAX),
                    ..FORWARD
                },
            ]),
        ],
        whole: Vec::new(),
        acks: Vec::new(),
        fails: Vec::new(),
    }
}

/// A batch that is done, with an emission of the batch as a whole.
fn answer_batch_whole() -> AnswerDoc {
    let whole = EmissionDoc {
        to: ToDoc::Output("totals".to_owned()),
        key: ContentDoc::Bytes(b"ada".to_vec()),
        value: ContentDoc::Bytes(b"42".to_vec()),
        headers: HeadersModeDoc::None,
        ..FORWARD
    };
    AnswerDoc { outcomes: Vec::new(), whole: vec![whole], acks: Vec::new(), fails: Vec::new() }
}

/// A batch that is done without a word.
fn answer_batch_done() -> AnswerDoc {
    AnswerDoc { outcomes: Vec::new(), whole: Vec::new(), acks: Vec::new(), fails: Vec::new() }
}

/// The file's bytes, after writing them when that is asked for.
fn golden(name: &str, encoded: &Frame) -> Frame {
    let path = |part: &str| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.{part}"));
    if std::env::var_os("SLUICEBOX_WRITE_GOLDEN").is_some() {
        std::fs::write(path("index"), &encoded.index).expect("a golden file that can be written");
        std::fs::write(path("payload"), &encoded.payload).expect("a golden file that can be written");
    }
    let read = |part: &str| std::fs::read(path(part)).unwrap_or_else(|error| panic!("{name}.{part}: {error}"));
    Frame { index: read("index"), payload: read("payload") }
}

fn check_messages(name: &str, document: &MessagesDoc) {
    let encoded = document.encode();
    let file = golden(name, &encoded);
    assert_eq!(encoded, file, "{name} is encoded as in the file");
    let view = Messages::check(&file.index, &file.payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(MessagesDoc::read(&view), *document, "{name} is decoded to what was encoded");
}

fn check_answer(name: &str, document: &AnswerDoc) {
    let encoded = document.encode();
    let file = golden(name, &encoded);
    assert_eq!(encoded, file, "{name} is encoded as in the file");
    let view = Answer::check(&file.index, &file.payload).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(AnswerDoc::read(&view), *document, "{name} is decoded to what was encoded");
}

#[test]
fn bursts_and_batches_are_those_of_the_files() {
    check_messages("burst-nulls", &burst_nulls());
    check_messages("burst-headers", &burst_headers());
    check_messages("batch-sources", &batch_sources());
    check_messages("batch-default", &batch_default());
}

#[test]
fn answers_are_those_of_the_files() {
    check_answer("answer-outcomes", &answer_outcomes());
    check_answer("answer-emissions", &answer_emissions());
    check_answer("answer-batch-whole", &answer_batch_whole());
    check_answer("answer-batch-done", &answer_batch_done());
}

/// The first file's bytes written out by hand from `wit/frames.md`, so that the codec does not only agree with itself.
#[test]
fn the_smallest_batch_is_what_the_layout_says() {
    let mut index: Vec<u8> = Vec::new();
    index.extend(1u16.to_le_bytes()); // version
    index.extend(2u16.to_le_bytes()); // batch
    index.extend(1u32.to_le_bytes()); // messages
    index.extend(0u32.to_le_bytes()); // flags
    index.extend(1u32.to_le_bytes()); // sources
    index.extend(u64::MAX.to_le_bytes()); // first token
    index.extend(2u64.to_le_bytes()); // epoch
    index.extend([6u32, 7].map(u32::to_le_bytes).concat()); // batcher, after the topic's name
    index.extend([13u32, 0].map(u32::to_le_bytes).concat()); // batch key
    index.extend(3u32.to_le_bytes()); // trigger
    index.extend(0u32.to_le_bytes()); // the one source
    index.extend([0u32, 6, 0].map(u32::to_le_bytes).concat()); // topic, partition
    index.extend(0i64.to_le_bytes()); // offset
    index.extend(1_700_000_000_000i64.to_le_bytes()); // timestamp
    index.extend([13u32, 3, 5, 0, 1].map(u32::to_le_bytes).concat()); // start, key, value, headers, attempt
    index.extend([0, 0, 1, 0]); // source, timestamp type, reserved
    let payload = b"ordersdefaultkeyvalue".to_vec();
    assert_eq!(golden("batch-default", &batch_default().encode()), Frame { index, payload });
}

/// Proves: the fuzzer begins at these frames, and not at some that are refused at their first word.
#[test]
fn the_fuzzers_seeds_are_the_golden_frames() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/frames");
    let messages = [
        ("burst-nulls", burst_nulls()),
        ("burst-headers", burst_headers()),
        ("batch-sources", batch_sources()),
        ("batch-default", batch_default()),
    ];
    let answers = [
        ("answer-outcomes", answer_outcomes()),
        ("answer-emissions", answer_emissions()),
        ("answer-batch-whole", answer_batch_whole()),
        ("answer-batch-done", answer_batch_done()),
    ];
    let messages = messages.iter().map(|(name, document)| (name, document.encode()));
    for (name, frame) in messages.chain(answers.iter().map(|(name, document)| (name, document.encode()))) {
        let length = u16::try_from(frame.index.len()).expect("a small frame");
        let seed = [&length.to_le_bytes()[..], &frame.index, &frame.payload].concat();
        let path = folder.join(name);
        if std::env::var_os("SLUICEBOX_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &seed).expect("a seed that can be written");
        }
        assert!(std::fs::read(&path).expect("a seed") == seed, "{} is another frame", path.display());
    }
}
