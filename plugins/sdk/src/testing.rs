//! Unit tests of a handler on the native target, without any host: `cargo test`.
//!
//! What a test hands over is packed into frames, read by the same code as in the component, and the answer is checked
//! like the host checks it. What comes back is owned and says what a broker would see: inherited parts are filled in.

use std::fmt;
use std::sync::PoisonError;

use sluicebox_frames as frames;
use sluicebox_frames::{
    Answer, BatchInfo, Content, DestinationKind, Frame, HeaderMode, MessagesWriter, NewMessage, Source, TimestampType,
    Trigger,
};

use crate::failed::{Cause, Disposition, Part};
use crate::imports::Output;
use crate::imports::host::{SERIES, STAND_IN};
use crate::instance::Instance;
use crate::log::Level;
use crate::{
    BatchHandler, FailureHandler, Handler, MessageHandler, PartitionHandler, RevokeReason, StateHandler, TickHandler,
};

/// Headers, owned.
pub type OwnedHeaders = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A message for a handler. Starts as topic `test`, partition 0, offset 0, time 0 (create time), first attempt, with
/// neither key nor headers.
#[derive(Clone, Debug)]
#[must_use]
pub struct TestMessage {
    topic: String,
    partition: u32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
    attempt: u32,
}

/// A message with this value.
pub fn message(value: impl AsRef<[u8]>) -> TestMessage {
    TestMessage {
        topic: "test".to_owned(),
        partition: 0,
        offset: 0,
        timestamp: Some(0),
        key: None,
        value: Some(value.as_ref().to_vec()),
        headers: Vec::new(),
        attempt: 1,
    }
}

/// A message with this value as JSON.
///
/// # Panics
/// When it cannot be written as JSON.
#[cfg(feature = "json")]
pub fn json_message(value: &impl serde::Serialize) -> TestMessage {
    message(serde_json::to_vec(value).expect("a value that can be written as JSON"))
}

impl TestMessage {
    /// With this key.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// Without a value (Kafka's null).
    pub fn null_value(mut self) -> Self {
        self.value = None;
        self
    }

    /// With one more header.
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), Some(value.as_ref().to_vec())));
        self
    }

    /// With one more header whose value is null.
    pub fn null_header(mut self, name: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), None));
        self
    }

    /// From this topic-partition. The messages of one burst or batch share the first one's.
    pub fn from(mut self, topic: &str, partition: u32) -> Self {
        self.topic = topic.to_owned();
        self.partition = partition;
        self
    }

    /// With this offset.
    pub fn offset(mut self, offset: i64) -> Self {
        self.offset = offset;
        self
    }

    /// With this event time, or none.
    pub fn timestamp(mut self, timestamp: Option<i64>) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// As this attempt, from 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    fn write(&self, writer: &mut MessagesWriter<'_>) {
        let timestamp_type = self.timestamp.map_or(TimestampType::None, |_| TimestampType::CreateTime);
        let message = NewMessage {
            offset: self.offset,
            timestamp: self.timestamp.unwrap_or(-1),
            timestamp_type,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            attempt: self.attempt,
            source: 0,
        };
        writer.push_with(&message, |headers| {
            for (name, value) in &self.headers {
                headers.push(name, value.as_deref());
            }
        });
    }
}

/// What a handler said of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with what was sent on.
    Done(Vec<Emission>),
    /// Try again.
    Retry {
        /// For people.
        reason: String,
        /// Milliseconds; `None` = the pipeline's back-off.
        after: Option<u32>,
    },
    /// Will never work, for this reason.
    Reject(String),
    /// Stays open.
    Hold,
}

impl Outcome {
    /// What was sent on.
    ///
    /// # Panics
    /// When the outcome is not done.
    #[must_use]
    #[track_caller]
    pub fn emissions(self) -> Vec<Emission> {
        match self {
            Self::Done(emissions) => emissions,
            other => panic!("done was expected, got {other:?}"),
        }
    }

    /// The one message that was sent on.
    ///
    /// # Panics
    /// When the outcome is not done, or with another number of emissions.
    #[must_use]
    #[track_caller]
    pub fn emission(self) -> Emission {
        let emissions = self.emissions();
        match <[Emission; 1]>::try_from(emissions) {
            Ok([emission]) => emission,
            Err(emissions) => panic!("one emission was expected, got {emissions:?}"),
        }
    }
}

/// Where an emission goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// The pipeline's only output.
    DefaultOutput,
    /// An output.
    Output(String),
    /// A batcher.
    Batcher {
        /// Its name.
        name: String,
        /// Batch key.
        key: Vec<u8>,
        /// Whether the batch is to be closed with this message.
        flush: bool,
    },
}

impl To {
    /// An output of this name.
    #[must_use]
    pub fn output(name: &str) -> Self {
        Self::Output(name.to_owned())
    }

    /// A batcher of this name, without `flush`.
    #[must_use]
    pub fn batcher(name: &str, key: impl AsRef<[u8]>) -> Self {
        Self::Batcher { name: name.to_owned(), key: key.as_ref().to_vec(), flush: false }
    }
}

/// One message that a handler sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// Where it goes.
    pub to: To,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: OwnedHeaders,
    /// Event time; `None` = now.
    pub timestamp: Option<i64>,
    /// The partition that it asks for.
    pub partition: Option<u32>,
    /// What is hashed in place of the key.
    pub partition_key: Option<Vec<u8>>,
}

impl Emission {
    /// The value as text.
    ///
    /// # Panics
    /// When it is null or not UTF-8.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        let value = self.value.as_deref().expect("a value that is not null");
        std::str::from_utf8(value).expect("a value that is text")
    }

    /// The value read as JSON.
    ///
    /// # Panics
    /// When it is null or not JSON.
    #[cfg(feature = "json")]
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().expect("a value that is not null");
        serde_json::from_slice(value).expect("a value that is JSON")
    }
}

/// What a handler said of a burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BurstAnswer {
    /// Of the first messages of the burst, as far as the answer went.
    pub outcomes: Vec<Outcome>,
    /// Tokens of held messages that are finished.
    pub acks: Vec<u64>,
    /// Tokens of held messages that failed, with the reason.
    pub fails: Vec<(u64, String)>,
}

/// What a handler said of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAnswer {
    /// Of each message.
    pub outcomes: Vec<Outcome>,
    /// Emissions of the batch as a whole.
    pub emissions: Vec<Emission>,
    /// Tokens of held messages that are finished.
    pub acks: Vec<u64>,
    /// Tokens of held messages that failed, with the reason.
    pub fails: Vec<(u64, String)>,
}

/// What a handler did at a tick, or when its partition came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickAnswer {
    /// Emissions.
    pub emissions: Vec<Emission>,
    /// Tokens of held messages that are finished.
    pub acks: Vec<u64>,
    /// Tokens of held messages that failed, with the reason.
    pub fails: Vec<(u64, String)>,
}

/// What a handler said of a failed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub fate: Fate,
    /// Emissions.
    pub emissions: Vec<Emission>,
}

/// What becomes of a failed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// What the pipeline's configuration says.
    Policy,
    /// A dead letter.
    DeadLetter {
        /// Its key.
        key: Option<Vec<u8>>,
        /// Its value.
        value: Option<Vec<u8>>,
        /// Its headers, without the host's own.
        headers: OwnedHeaders,
    },
    /// Nothing.
    Drop,
    /// The partition stays at it.
    Block,
    /// The pipeline stops.
    Stop,
}

/// A handler under test.
pub struct TestHandler<H> {
    instance: Instance<H>,
    next_token: u64,
}

/// Says nothing of the handler, which need not be `Debug`: `unwrap_err` on [`handler`] wants this.
impl<H> fmt::Debug for TestHandler<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHandler").finish_non_exhaustive()
    }
}

/// Makes a handler with these settings (anything that serde can write, [`json!`](crate::json) for one).
///
/// # Errors
/// The text that `init` would give the host.
#[cfg(feature = "json")]
pub fn handler<H: Handler>(settings: impl serde::Serialize) -> Result<TestHandler<H>, String> {
    handler_from_text(&serde_json::to_string(&settings).map_err(|error| error.to_string())?)
}

/// Makes a handler with these settings, as JSON text.
///
/// # Errors
/// The text that `init` would give the host.
pub fn handler_from_text<H: Handler>(settings: &str) -> Result<TestHandler<H>, String> {
    Ok(TestHandler { instance: Instance::new(settings)?, next_token: 1 })
}

impl<H> TestHandler<H> {
    /// The handler itself, to look at its state.
    pub fn state(&mut self) -> &mut H {
        &mut self.instance.handler
    }

    fn take_tokens(&mut self, frame: &mut Frame, count: usize) {
        frames::messages::set_first_token(frame, self.next_token);
        self.next_token += count as u64;
    }
}

impl<H: MessageHandler> TestHandler<H> {
    /// What the handler says of one message.
    pub fn message(&mut self, message: TestMessage) -> Outcome {
        self.burst(&[message], false).outcomes.remove(0)
    }

    /// What the handler says of a burst; `stop_at_reject` is what the host asks for when a reject blocks.
    ///
    /// # Panics
    /// When there is no message, or when the answer breaks the layout.
    pub fn burst(&mut self, messages: &[TestMessage], stop_at_reject: bool) -> BurstAnswer {
        let mut frame = Frame::default();
        let source = Source { topic: &messages[0].topic, partition: messages[0].partition };
        let mut writer = MessagesWriter::burst(&mut frame, source, 1, stop_at_reject);
        messages.iter().for_each(|message| message.write(&mut writer));
        writer.finish();
        self.take_tokens(&mut frame, messages.len());
        let answer = self.instance.handle_burst(&frame.index, &frame.payload);
        let answer = checked(&answer);
        assert!((1..=messages.len()).contains(&answer.outcome_count()), "an answer to some of the messages");
        let mut next = 0;
        let outcomes = outcomes(&answer, messages, &mut next);
        assert_eq!(next, answer.emission_count(), "emissions that belong to no message");
        BurstAnswer { outcomes, acks: answer.acks().collect(), fails: fails(&answer) }
    }
}

impl<H: BatchHandler> TestHandler<H> {
    /// What the handler says of a batch (trigger `size`).
    ///
    /// # Errors
    /// The text of the handler's error.
    ///
    /// # Panics
    /// When there is no message, or when the answer breaks the layout.
    pub fn batch(
        &mut self,
        batcher: &str,
        batch_key: impl AsRef<[u8]>,
        messages: &[TestMessage],
    ) -> Result<BatchAnswer, String> {
        let mut frame = Frame::default();
        let source = Source { topic: &messages[0].topic, partition: messages[0].partition };
        let info = BatchInfo { batcher, batch_key: batch_key.as_ref(), trigger: Trigger::Size };
        let mut writer = MessagesWriter::batch(&mut frame, &[source], 1, info);
        messages.iter().for_each(|message| message.write(&mut writer));
        writer.finish();
        self.take_tokens(&mut frame, messages.len());
        let answer = self.instance.handle_batch(&frame.index, &frame.payload)?;
        let answer = checked(&answer);
        let mut next = 0;
        let outcomes = match answer.outcome_count() {
            0 => vec![Outcome::Done(Vec::new()); messages.len()],
            count => {
                assert_eq!(count, messages.len(), "an outcome for each message");
                outcomes(&answer, messages, &mut next)
            }
        };
        let emissions = (next..answer.emission_count()).map(|i| emission(&answer, i, None)).collect();
        Ok(BatchAnswer { outcomes, emissions, acks: answer.acks().collect(), fails: fails(&answer) })
    }
}

impl<H: TickHandler> TestHandler<H> {
    /// What the handler does at a tick.
    pub fn tick(&mut self, now: i64) -> TickAnswer {
        aside(&self.instance.handle_tick(now))
    }
}

impl<H: PartitionHandler> TestHandler<H> {
    /// What the handler does when its partition comes.
    pub fn assigned(&mut self, topic: &str, partition: u32, next_offset: Option<i64>) -> TickAnswer {
        aside(&self.instance.partition_assigned(topic, partition, next_offset))
    }

    /// What the handler does when its partition goes.
    pub fn revoked(&mut self, topic: &str, partition: u32, reason: RevokeReason) -> TickAnswer {
        aside(&self.instance.partition_revoked(topic, partition, reason))
    }
}

impl<H: StateHandler> TestHandler<H> {
    /// The state that the next version would get.
    ///
    /// # Panics
    /// When the handler has none to give.
    pub fn snapshot(&mut self) -> Vec<u8> {
        self.instance.snapshot()
    }

    /// Gives the handler a state.
    ///
    /// # Errors
    /// The text of its error.
    pub fn restore(&mut self, state: &[u8], from_version: &str) -> Result<(), String> {
        self.instance.restore(state, from_version)
    }
}

impl<H: FailureHandler> TestHandler<H> {
    /// What the handler says of a message that failed at `stage` (`message`, or a batcher's name) with its last attempt. The
    /// message stands for the source record, too, of which a dead letter is made.
    pub fn failed(&mut self, stage: &str, class: &str, reason: &str, message: &TestMessage) -> Verdict {
        let mut frame = Frame::default();
        let source = Source { topic: &message.topic, partition: message.partition };
        let mut writer = MessagesWriter::burst(&mut frame, source, 1, false);
        message.write(&mut writer);
        writer.finish();
        self.take_tokens(&mut frame, 1);
        let cause = Cause { stage, class, reason, attempts: message.attempt };
        let (verdict, answer) = self.instance.handle_failed(&frame, cause);
        let answer = checked(&answer);
        let part = |part, inherited: &Option<Vec<u8>>| match part {
            Part::Inherit => inherited.clone(),
            Part::Null => None,
            Part::Bytes(bytes) => Some(bytes),
        };
        let fate = match verdict.0 {
            Disposition::Policy => Fate::Policy,
            Disposition::DeadLetter(letter) => {
                let inherited = if letter.replace { Vec::new() } else { message.headers.clone() };
                Fate::DeadLetter {
                    key: part(letter.key, &message.key),
                    value: part(letter.value, &message.value),
                    headers: [inherited, letter.headers].concat(),
                }
            }
            Disposition::Drop => Fate::Drop,
            Disposition::Block => Fate::Block,
            Disposition::Stop => Fate::Stop,
        };
        let emissions = (0..answer.emission_count()).map(|i| emission(&answer, i, Some(message))).collect();
        Verdict { fate, emissions }
    }
}

fn aside(answer: &Frame) -> TickAnswer {
    let answer = checked(answer);
    let emissions = (0..answer.emission_count()).map(|i| emission(&answer, i, None)).collect();
    TickAnswer { emissions, acks: answer.acks().collect(), fails: fails(&answer) }
}

fn checked(frame: &Frame) -> Answer<'_> {
    Answer::check(&frame.index, &frame.payload).expect("an answer that keeps the layout")
}

fn fails(answer: &Answer<'_>) -> Vec<(u64, String)> {
    answer.fails().map(|(token, reason)| (token, reason.to_owned())).collect()
}

fn outcomes(answer: &Answer<'_>, messages: &[TestMessage], next: &mut usize) -> Vec<Outcome> {
    let outcome = |(i, message)| match answer.outcome(i) {
        frames::Outcome::Done { emissions } => {
            let first = *next;
            *next += emissions as usize;
            Outcome::Done((first..*next).map(|i| emission(answer, i, Some(message))).collect())
        }
        frames::Outcome::Retry { reason, after } => Outcome::Retry { reason: reason.to_owned(), after },
        frames::Outcome::Reject { reason } => Outcome::Reject(reason.to_owned()),
        frames::Outcome::Hold => Outcome::Hold,
    };
    messages.iter().take(answer.outcome_count()).enumerate().map(outcome).collect()
}

fn emission(answer: &Answer<'_>, i: usize, source: Option<&TestMessage>) -> Emission {
    const INHERITS: &str = "an emission without a source message cannot inherit";
    let emission = answer.emission(i);
    let content = |content, inherited: fn(&TestMessage) -> &Option<Vec<u8>>| match content {
        Content::Inherit => inherited(source.expect(INHERITS)).clone(),
        Content::Null => None,
        Content::Bytes(bytes) => Some(bytes.to_vec()),
    };
    let own = |headers: frames::Headers<'_>| -> OwnedHeaders {
        headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect()
    };
    let inherited = || source.expect(INHERITS).headers.clone();
    Emission {
        to: match emission.destination() {
            None => To::DefaultOutput,
            Some(destination) => match answer.destinations().nth(destination).expect("a destination of the table") {
                (DestinationKind::Output, name) => To::output(name),
                (DestinationKind::Batcher, name) => {
                    let (key, flush) = (emission.batch_key().to_vec(), emission.flush());
                    To::Batcher { name: name.to_owned(), key, flush }
                }
            },
        },
        key: content(emission.key(), |message| &message.key),
        value: content(emission.value(), |message| &message.value),
        headers: match emission.headers() {
            HeaderMode::Inherit => inherited(),
            HeaderMode::None => Vec::new(),
            HeaderMode::Replace(headers) => own(headers),
            HeaderMode::Append(headers) => [inherited(), own(headers)].concat(),
        },
        timestamp: match emission.timestamp() {
            Some(timestamp) => (timestamp > 0).then_some(timestamp),
            None => source.and_then(|message| message.timestamp),
        },
        partition: emission.partition(),
        partition_key: emission.partition_key().map(<[u8]>::to_vec),
    }
}

/// The lines that were logged on this thread since the last call.
#[must_use]
pub fn take_log() -> Vec<(Level, String)> {
    STAND_IN.with_borrow_mut(|host| std::mem::take(&mut host.log))
}

/// Declares outputs (name, partitions) and batchers on this thread, for handlers that ask for them.
pub fn declare(outputs: &[(&str, u32)], batchers: &[&str]) {
    STAND_IN.with_borrow_mut(|host| {
        host.outputs = outputs
            .iter()
            .map(|(name, partitions)| Output { name: (*name).to_owned(), partitions: *partitions })
            .collect();
        host.batchers = batchers.iter().map(|name| (*name).to_owned()).collect();
    });
}

/// What was added, set and observed on this thread since the last call, by `name` or `name{label=value}`, sorted.
#[must_use]
pub fn take_metrics() -> Vec<(String, Vec<f64>)> {
    let taken = STAND_IN.with_borrow_mut(|host| std::mem::take(&mut host.metrics));
    let names = SERIES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all: Vec<_> = taken.into_iter().map(|(number, values)| (names[number as usize].clone(), values)).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
