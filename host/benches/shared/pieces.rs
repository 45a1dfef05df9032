//! The pieces of the way of a record that need neither Kafka nor a guest, each as work on one burst. For `micro`, which
//! takes their time, and `instructions`, which counts.

mod lane;

use std::hint::black_box;
use std::time::{Duration, Instant};

use sluicebox::delivery::batcher::{BatchRules, Batcher, Closed, Content as BatchContent};
use sluicebox::delivery::offset_tracker::OffsetTracker;
use sluicebox::delivery::partitioner;
use sluicebox_frames::{
    Answer, AnswerWriter, Content, Frame, Headers, MessagesWriter, NewEmission, NewMessage, Outcome, Source,
    TimestampType,
};

pub const BURST: usize = 256;
/// Bytes of a value; keys have 16.
const SIZE: usize = 100;

/// One piece, ready to work on a burst again and again.
pub struct Piece {
    pub name: &'static str,
    pub make: fn() -> Box<dyn FnMut()>,
}

pub const PIECES: &[Piece] = &[
    Piece { name: "pack", make: || pack(false) },
    Piece { name: "pack_4_headers", make: || pack(true) },
    Piece { name: "check_answer", make: check_answer },
    Piece { name: "partition", make: partition },
    Piece { name: "track_offsets", make: || track_offsets(scattered) },
    Piece { name: "track_runs", make: || track_offsets(in_order) },
    Piece { name: "batch", make: || batch(b"tenant") },
    Piece { name: "batch_no_key", make: || batch(b"") },
    Piece { name: "lane", make: || lane::lane(BURST) },
    Piece { name: "lane_1_key", make: || lane::lane(1) },
];

fn keys() -> Vec<String> {
    (0..BURST).map(|n| format!("key-{n:012}")).collect()
}

fn message<'a>(n: usize, key: &'a str, value: &'a [u8]) -> NewMessage<'a> {
    NewMessage {
        offset: n as i64,
        timestamp: 1_700_000_000_000,
        timestamp_type: TimestampType::CreateTime,
        key: Some(key.as_bytes()),
        value: Some(value),
        attempt: 1,
        source: 0,
    }
}

/// Headers of these names, as a record has them: lengths in zigzag.
fn record_headers(names: &[&str]) -> Vec<u8> {
    let value = b"a value of thirty-two characters";
    let header = |name: &&str| [&[name.len() as u8 * 2], name.as_bytes(), &[value.len() as u8 * 2], value].concat();
    [vec![names.len() as u8 * 2], names.iter().flat_map(header).collect()].concat()
}

/// Records into a burst frame, as `kafka/partition.rs` packs them.
fn pack(headers: bool) -> Box<dyn FnMut()> {
    let (keys, value, mut frame) = (keys(), [b'a'; SIZE], Frame::default());
    let record = record_headers(&["traceparent", "content-type", "source", "tenant"]);
    Box::new(move || {
        let mut writer = MessagesWriter::burst(&mut frame, Source { topic: "orders", partition: 4 }, 1, false);
        for (n, key) in keys.iter().enumerate() {
            let message = message(n, black_box(key), black_box(&value));
            if headers {
                writer.push_with(&message, |writer| assert!(writer.push_record_headers(black_box(&record))));
            } else {
                writer.push(&message, Headers::default());
            }
        }
        writer.finish();
        black_box(&frame);
    })
}

/// An answer with one emission for each message: every word checked, every outcome and emission looked at.
fn check_answer() -> Box<dyn FnMut()> {
    let value = [b'A'; SIZE];
    let mut writer = AnswerWriter::new();
    for _ in 0..BURST {
        writer.emission(&NewEmission { value: Content::Bytes(&value), ..NewEmission::default() });
        writer.done(1);
    }
    let frame = writer.finish();
    Box::new(move || {
        let frame = black_box(&frame);
        let answer = Answer::check(&frame.index, &frame.payload).expect("a good answer");
        let mut next = 0;
        for i in 0..answer.outcome_count() {
            let Outcome::Done { emissions } = answer.outcome(i) else { panic!("outcome {i} is not done") };
            for number in next..next + emissions as usize {
                let emission = answer.emission(number);
                black_box((emission.key(), emission.value(), emission.headers(), emission.timestamp()));
            }
            next += emissions as usize;
        }
    })
}

fn partition() -> Box<dyn FnMut()> {
    let keys = keys();
    Box::new(move || {
        for key in &keys {
            black_box(partitioner::partition(black_box(key.as_bytes()), black_box(8)));
        }
    })
}

/// Each record offered; its one emission, which takes the place of its mark, settled.
fn track_offsets(settle: fn(&mut OffsetTracker, u64)) -> Box<dyn FnMut()> {
    let (mut tracker, mut next) = (OffsetTracker::default(), 0);
    Box::new(move || {
        let first = tracker.next_seq();
        for _ in 0..BURST {
            tracker.offer(next).expect("offsets go up");
            next += 1;
        }
        settle(&mut tracker, first);
        black_box(tracker.committable());
    })
}

/// Two output partitions whose acknowledgements come one after the other, with every other record each.
fn scattered(tracker: &mut OffsetTracker, first: u64) {
    let seqs = first..first + BURST as u64;
    let odd = seqs.clone().filter(|seq| seq % 2 == 1);
    odd.chain(seqs.filter(|seq| seq % 2 == 0)).for_each(|seq| tracker.settle_run(seq, 1));
}

/// One output partition.
fn in_order(tracker: &mut OffsetTracker, first: u64) {
    tracker.settle_run(first, BURST as u32);
}

/// What a batch gathers here: nothing but a number.
struct Count(usize);

impl BatchContent for Count {
    fn messages(&self) -> usize {
        self.0
    }
}

/// Messages into batches of a hundred, all of this batch key.
fn batch(key: &'static [u8]) -> Box<dyn FnMut()> {
    let rules = BatchRules { max_messages: 100, max_bytes: 1 << 20, max_wait: Duration::from_secs(1) };
    let (mut batcher, mut closed): (Batcher<Count>, Vec<Closed<Count>>) = (Batcher::new(rules), Vec::new());
    let now = Instant::now();
    Box::new(move || {
        for _ in 0..BURST {
            let add = |count: &mut Count| count.0 += 1;
            batcher.push(black_box(key), SIZE as u64, false, now, || Count(0), add, &mut closed);
        }
        black_box(closed.len());
        closed.clear();
    })
}
