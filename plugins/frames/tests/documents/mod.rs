//! Frames as owned documents: what is encoded and what decoding gives back, to be compared field for field.

#![allow(dead_code, reason = "each test file uses its part")]

use sluicebox_frames::messages::set_first_token;
use sluicebox_frames::{
    Answer, AnswerWriter, BatchInfo, Content, DestinationKind, Frame, HeaderMode, Headers, HeadersWriter, Messages,
    MessagesWriter, NewEmission, NewMessage, Outcome, Source, TimestampType, Trigger,
};

pub type HeadersDoc = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageDoc {
    pub offset: i64,
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: HeadersDoc,
    pub attempt: u32,
    pub source: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchDoc {
    pub batcher: String,
    pub batch_key: Vec<u8>,
    pub trigger: Trigger,
}

/// A burst (without `batch`) or a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessagesDoc {
    pub batch: Option<BatchDoc>,
    pub stop_at_reject: bool,
    pub epoch: u64,
    pub first_token: u64,
    pub sources: Vec<(String, u32)>,
    pub messages: Vec<MessageDoc>,
}

impl MessagesDoc {
    pub fn encode(&self) -> Frame {
        let mut frame = Frame::default();
        let sources: Vec<_> =
            self.sources.iter().map(|(topic, partition)| Source { topic, partition: *partition }).collect();
        let mut writer = match &self.batch {
            None => MessagesWriter::burst(&mut frame, sources[0], self.epoch, self.stop_at_reject),
            Some(BatchDoc { batcher, batch_key, trigger }) => {
                let info = BatchInfo { batcher, batch_key, trigger: *trigger };
                MessagesWriter::batch(&mut frame, &sources, self.epoch, info)
            }
        };
        for message in &self.messages {
            let new = NewMessage {
                offset: message.offset,
                timestamp: message.timestamp,
                timestamp_type: message.timestamp_type,
                key: message.key.as_deref(),
                value: message.value.as_deref(),
                attempt: message.attempt,
                source: message.source,
            };
            writer.push_with(&new, |headers| push_headers(headers, &message.headers));
        }
        writer.finish();
        set_first_token(&mut frame, self.first_token);
        frame
    }

    /// Reads everything that a view gives.
    pub fn read(view: &Messages<'_>) -> Self {
        let mut sources: Vec<(String, u32)> = Vec::new();
        let messages: Vec<_> = view.iter().map(|message| read_message(&message, &mut sources)).collect();
        if let Some(source) = view.common_source() {
            assert_eq!(sources, [(source.topic.to_owned(), source.partition)], "the common source is each one's");
        }
        for (i, message) in view.iter().enumerate() {
            assert_eq!((message.number(), message.token()), (i, view.first_token() + i as u64));
        }
        let batch = view.batch_info().map(|info| BatchDoc {
            batcher: info.batcher.to_owned(),
            batch_key: info.batch_key.to_vec(),
            trigger: info.trigger,
        });
        Self {
            batch,
            stop_at_reject: view.stop_at_reject(),
            epoch: view.ownership_epoch(),
            first_token: view.first_token(),
            sources,
            messages,
        }
    }
}

/// The source is found again by its name: sources are numbered in the order in which messages use them.
fn read_message(message: &sluicebox_frames::Message<'_>, sources: &mut Vec<(String, u32)>) -> MessageDoc {
    let source = (message.source().topic.to_owned(), message.source().partition);
    let place = sources.iter().position(|known| *known == source).unwrap_or_else(|| {
        sources.push(source);
        sources.len() - 1
    });
    MessageDoc {
        offset: message.offset(),
        timestamp: message.timestamp(),
        timestamp_type: message.timestamp_type(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.value().map(<[u8]>::to_vec),
        headers: read_headers(message.headers()),
        attempt: message.attempt(),
        source: place as u16,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentDoc {
    Inherit,
    Null,
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadersModeDoc {
    Inherit,
    None,
    /// Not empty.
    Replace(HeadersDoc),
    /// Not empty.
    Append(HeadersDoc),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToDoc {
    Default,
    Output(String),
    Batcher { name: String, key: Vec<u8>, flush: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmissionDoc {
    pub to: ToDoc,
    pub key: ContentDoc,
    pub value: ContentDoc,
    pub headers: HeadersModeDoc,
    pub timestamp: Option<i64>,
    pub partition: Option<u32>,
    pub partition_key: Option<Vec<u8>>,
}

/// Inherits everything and goes to the default output.
pub const FORWARD: EmissionDoc = EmissionDoc {
    to: ToDoc::Default,
    key: ContentDoc::Inherit,
    value: ContentDoc::Inherit,
    headers: HeadersModeDoc::Inherit,
    timestamp: None,
    partition: None,
    partition_key: None,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeDoc {
    Done(Vec<EmissionDoc>),
    Retry { reason: String, after: Option<u32> },
    Reject(String),
    Hold,
}

/// Encoded in this order: each outcome with its emissions before it, the emissions of the batch as a whole, acks,
/// fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerDoc {
    pub outcomes: Vec<OutcomeDoc>,
    pub whole: Vec<EmissionDoc>,
    pub acks: Vec<u64>,
    pub fails: Vec<(u64, String)>,
}

impl AnswerDoc {
    pub fn encode(&self) -> Frame {
        let mut writer = AnswerWriter::new();
        for outcome in &self.outcomes {
            match outcome {
                OutcomeDoc::Done(emissions) => {
                    emissions.iter().for_each(|emission| write_emission(&mut writer, emission));
                    writer.done(emissions.len() as u32);
                }
                OutcomeDoc::Retry { reason, after } => writer.retry(reason, after.map(u64::from)),
                OutcomeDoc::Reject(reason) => writer.reject(reason),
                OutcomeDoc::Hold => writer.hold(),
            }
        }
        self.whole.iter().for_each(|emission| write_emission(&mut writer, emission));
        self.acks.iter().for_each(|token| writer.ack(*token));
        self.fails.iter().for_each(|(token, reason)| writer.fail(*token, reason));
        writer.finish()
    }

    /// Reads everything that a view gives.
    pub fn read(view: &Answer<'_>) -> Self {
        let names: Vec<_> = view.destinations().collect();
        let mut next = 0;
        let mut take = |count: usize| {
            next += count;
            (next - count..next).map(|i| read_emission(&view.emission(i), &names)).collect::<Vec<_>>()
        };
        let outcomes = (0..view.outcome_count())
            .map(|i| match view.outcome(i) {
                Outcome::Done { emissions } => OutcomeDoc::Done(take(emissions as usize)),
                Outcome::Retry { reason, after } => OutcomeDoc::Retry { reason: reason.to_owned(), after },
                Outcome::Reject { reason } => OutcomeDoc::Reject(reason.to_owned()),
                Outcome::Hold => OutcomeDoc::Hold,
            })
            .collect();
        let whole = (next..view.emission_count()).map(|i| read_emission(&view.emission(i), &names)).collect();
        let fails = view.fails().map(|(token, reason)| (token, reason.to_owned())).collect();
        Self { outcomes, whole, acks: view.acks().collect(), fails }
    }
}

fn write_emission(writer: &mut AnswerWriter, emission: &EmissionDoc) {
    let (destination, batch_key, flush): (_, &[u8], _) = match &emission.to {
        ToDoc::Default => (None, &[], false),
        ToDoc::Output(name) => (Some(writer.destination(DestinationKind::Output, name)), &[], false),
        ToDoc::Batcher { name, key, flush } => (Some(writer.destination(DestinationKind::Batcher, name)), key, *flush),
    };
    let mut memory = Vec::new();
    let block = |headers: &HeadersDoc, memory: &mut Vec<u8>| {
        let mut writer = HeadersWriter::new(memory);
        push_headers(&mut writer, headers);
        _ = writer.finish();
    };
    let headers = match &emission.headers {
        HeadersModeDoc::Inherit => HeaderMode::Inherit,
        HeadersModeDoc::None => HeaderMode::None,
        HeadersModeDoc::Replace(headers) => {
            block(headers, &mut memory);
            HeaderMode::Replace(Headers::new(&memory))
        }
        HeadersModeDoc::Append(headers) => {
            block(headers, &mut memory);
            HeaderMode::Append(Headers::new(&memory))
        }
    };
    writer.emission(&NewEmission {
        destination,
        key: content(&emission.key),
        value: content(&emission.value),
        headers,
        timestamp: emission.timestamp,
        partition: emission.partition,
        partition_key: emission.partition_key.as_deref(),
        batch_key,
        flush,
    });
}

fn content(content: &ContentDoc) -> Content<'_> {
    match content {
        ContentDoc::Inherit => Content::Inherit,
        ContentDoc::Null => Content::Null,
        ContentDoc::Bytes(bytes) => Content::Bytes(bytes),
    }
}

fn read_emission(emission: &sluicebox_frames::Emission<'_>, names: &[(DestinationKind, &str)]) -> EmissionDoc {
    let content = |content: Content<'_>| match content {
        Content::Inherit => ContentDoc::Inherit,
        Content::Null => ContentDoc::Null,
        Content::Bytes(bytes) => ContentDoc::Bytes(bytes.to_vec()),
    };
    EmissionDoc {
        to: match emission.destination().map(|place| names[place]) {
            None => ToDoc::Default,
            Some((DestinationKind::Output, name)) => ToDoc::Output(name.to_owned()),
            Some((DestinationKind::Batcher, name)) => {
                ToDoc::Batcher { name: name.to_owned(), key: emission.batch_key().to_vec(), flush: emission.flush() }
            }
        },
        key: content(emission.key()),
        value: content(emission.value()),
        headers: match emission.headers() {
            HeaderMode::Inherit => HeadersModeDoc::Inherit,
            HeaderMode::None => HeadersModeDoc::None,
            HeaderMode::Replace(headers) => HeadersModeDoc::Replace(read_headers(headers)),
            HeaderMode::Append(headers) => HeadersModeDoc::Append(read_headers(headers)),
        },
        timestamp: emission.timestamp(),
        partition: emission.partition(),
        partition_key: emission.partition_key().map(<[u8]>::to_vec),
    }
}

fn push_headers(writer: &mut HeadersWriter<'_>, headers: &HeadersDoc) {
    headers.iter().for_each(|(name, value)| writer.push(name, value.as_deref()));
}

fn read_headers(headers: Headers<'_>) -> HeadersDoc {
    headers.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect()
}
