//! The crossing alone: a burst packed from records, the call into a real guest, its answer checked and taken apart. No
//! Kafka. For `side_by_side`, `micro` and `limits`.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use sluicebox::plugin::{
    Compiler, Fault, HandlerLimits, HandlerLog, Instance, InstanceConfig, LoadRules, LogLevel, OutputInfo, Place,
    Recycle, Runtime as Engine, Version,
};
use sluicebox_frames::{
    Answer, Content, Frame, Headers, Message, Messages, MessagesWriter, NewMessage, Outcome, Source, TimestampType,
};

use crate::support::guests::guest;

pub const BURST: usize = 256;
/// Bytes of a value; keys have 16.
const SIZE: usize = 100;

/// Bursts of the same records to a guest.
pub struct Crossing<G = Hosted> {
    guest: G,
    records: Vec<(String, Vec<u8>)>,
    burst: Frame,
}

/// What answers bursts.
pub trait Guest {
    fn answer(&mut self, burst: &Frame) -> Frame;
}

/// A handler thread with an instance on it, as the host has them.
pub struct Hosted {
    thread: tokio::runtime::Runtime,
    instance: Instance,
}

struct Silent;

impl HandlerLog for Silent {
    fn enabled(&self, _: LogLevel) -> bool {
        false
    }

    fn line(&self, _: LogLevel, _: &str, _: bool, _: Option<&Place>) {}

    fn fault(&self, _: &Fault, _: Option<&Place>) {}
}

impl Hosted {
    /// With the guest `uppercase` and the limits that a host has by default.
    fn new() -> Self {
        let engine = Engine::new(Compiler::in_this_process(), None).expect("an engine");
        let version = Version::load_file(&engine, &guest("uppercase"), &LoadRules::default()).expect("the guest loads");
        let config = Arc::new(InstanceConfig {
            limits: HandlerLimits::default(),
            recycle: Recycle::default(),
            settings: "{}".into(),
            outputs: [OutputInfo { name: "out".to_owned(), partitions: 8 }].into(),
            batchers: [].into(),
            log: Arc::new(Silent),
            usage: Arc::default(),
            metrics: Arc::default(),
            http: None,
        });
        let thread = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let instance = thread.block_on(Instance::start(&version, &config)).expect("the guest starts");
        Self { thread, instance }
    }
}

impl Guest for Hosted {
    fn answer(&mut self, burst: &Frame) -> Frame {
        self.thread.block_on(self.instance.handle_messages(burst)).expect("the guest answers")
    }
}

impl Crossing {
    /// As the host has it.
    pub fn new() -> Self {
        Self::with(Hosted::new())
    }
}

impl<G: Guest> Crossing<G> {
    pub fn with(guest: G) -> Self {
        let records = (0..BURST).map(|n| (format!("key-{n:012}"), vec![b'a' + (n % 26) as u8; SIZE])).collect();
        Self { guest, records, burst: Frame::default() }
    }

    /// One burst there and back; the bytes that came out.
    pub fn burst(&mut self) -> usize {
        pack(&self.records, &mut self.burst);
        let answer = self.guest.answer(&self.burst);
        unpack(&self.burst, &answer)
    }

    /// CPU time of this thread for a record, over so many bursts.
    pub fn nanoseconds_per_record(&mut self, bursts: usize) -> f64 {
        let before = thread_time();
        (0..bursts).for_each(|_| _ = black_box(self.burst()));
        (thread_time() - before).as_nanos() as f64 / (bursts * BURST) as f64
    }
}

/// As `kafka/partition.rs` does from librdkafka's messages.
fn pack(records: &[(String, Vec<u8>)], burst: &mut Frame) {
    let mut writer = MessagesWriter::burst(burst, Source { topic: "orders", partition: 4 }, 1, false);
    for (n, (key, value)) in records.iter().enumerate() {
        let message = NewMessage {
            offset: n as i64,
            timestamp: 1_700_000_000_000,
            timestamp_type: TimestampType::CreateTime,
            key: Some(key.as_bytes()),
            value: Some(value),
            attempt: 1,
            source: 0,
        };
        writer.push(&message, Headers::default());
    }
    writer.finish();
}

/// As the lane does: looks at every outcome and emission, and resolves what is inherited.
fn unpack(burst: &Frame, answer: &Frame) -> usize {
    let messages = Messages::new(burst);
    let answer = Answer::check(&answer.index, &answer.payload).expect("a good answer");
    assert_eq!(answer.outcome_count(), BURST);
    let (mut next, mut bytes) = (0, 0);
    for (i, message) in messages.iter().enumerate() {
        let Outcome::Done { emissions } = answer.outcome(i) else { panic!("outcome {i} is not done") };
        for number in next..next + emissions as usize {
            bytes += emission_bytes(&answer, number, &message);
        }
        next += emissions as usize;
    }
    bytes
}

fn emission_bytes(answer: &Answer<'_>, number: usize, message: &Message<'_>) -> usize {
    let emission = answer.emission(number);
    let resolve = |content: Content<'_>, own: Option<&[u8]>| match content {
        Content::Inherit => own.map_or(0, <[u8]>::len),
        Content::Null => 0,
        Content::Bytes(bytes) => bytes.len(),
    };
    black_box(emission.timestamp());
    resolve(emission.key(), message.key()) + resolve(emission.value(), message.value())
}

/// The median of rounds of bursts, by the CPU time of this thread.
pub fn nanoseconds_per_record() -> f64 {
    const ROUNDS: usize = 5;
    const BURSTS: usize = 2000;
    let mut crossing = Crossing::new();
    // Warms caches, and the clock of the processor.
    (0..BURSTS).for_each(|_| _ = black_box(crossing.burst()));
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| crossing.nanoseconds_per_record(BURSTS)).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let said = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(said, 0, "every system we run on counts a thread's time");
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
