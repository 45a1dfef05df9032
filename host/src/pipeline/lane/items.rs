//! Items of batches: gathering them, and taking some of them out into a batch of their own.

use std::time::Instant;

use sluicebox_frames::{
    BatchInfo, Emission, Frame, Headers, Message, MessagesWriter, NewMessage, Source, TimestampType, Trigger,
};

use super::answer::resolve;
use super::batches::DueBatch;
use super::{Lane, read};
use crate::delivery::batcher::Content;
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::{Seq, Target};
use crate::pipeline::sink::Sink;

/// The messages of a batch.
#[derive(Debug, Default)]
pub(super) struct BatchContent {
    /// As the handler gets them.
    pub(super) frame: Frame,
    /// What each settles: the record behind it, or the gate of the tick that made it.
    pub(super) owners: Vec<Target>,
    /// The source records, message by message, when dead letters may be needed of them (a burst frame); empty otherwise.
    pub(super) sources: Frame,
}

impl Content for BatchContent {
    fn messages(&self) -> usize {
        self.owners.len()
    }
}

impl BatchContent {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len() + self.sources.len()
    }

    /// The source record of an item. A tick's is its own.
    pub(super) fn source(&self, item: usize) -> Message<'_> {
        read(if self.sources.is_empty() { &self.frame } else { &self.sources }).get(item)
    }
}

/// A message of a batch as it was, for another frame.
pub(super) fn copied<'a>(message: &Message<'a>, attempt: u32) -> NewMessage<'a> {
    NewMessage {
        offset: message.offset(),
        timestamp: message.timestamp(),
        timestamp_type: message.timestamp_type(),
        key: message.key(),
        value: message.value(),
        attempt,
        source: 0,
    }
}

/// One message on its way into a batch.
pub(super) struct NewItem<'a> {
    pub key: &'a [u8],
    pub flush: bool,
    pub record: Outgoing<'a>,
    /// `None`: a tick made it.
    pub source: Option<&'a Message<'a>>,
    pub owner: Target,
}

impl NewItem<'_> {
    fn message(&self) -> NewMessage<'_> {
        let bare = NewMessage {
            offset: -1,
            timestamp: -1,
            timestamp_type: TimestampType::None,
            key: None,
            value: None,
            attempt: 1,
            source: 0,
        };
        let mut message = self.source.map_or(bare, |source| copied(source, 1));
        (message.key, message.value) = (self.record.key, self.record.value);
        if self.record.timestamp > 0 {
            message.timestamp = self.record.timestamp;
            if self.source.is_none() {
                message.timestamp_type = TimestampType::CreateTime;
            }
        }
        message
    }

    fn push(&self, frame: &mut Frame) {
        let mut writer = MessagesWriter::resume(frame);
        writer.push_with(&self.message(), |headers| {
            headers.push_all(self.record.headers[0]);
            headers.push_all(self.record.headers[1]);
        });
        writer.finish();
    }

    fn push_source(&self, frame: &mut Frame) {
        match self.source {
            Some(source) => {
                let mut writer = MessagesWriter::resume(frame);
                writer.push(&copied(source, 1), source.headers());
                writer.finish();
            }
            None => self.push(frame),
        }
    }

    fn bytes(&self, with_source: bool) -> u64 {
        let own = self.record.bytes();
        let source = if with_source { self.source.map_or(own, record_bytes) } else { 0 };
        (own + source) as u64
    }
}

impl Lane {
    /// Puts an emission of a message into a batcher.
    pub(super) fn gather(
        &mut self,
        batcher: usize,
        message: &Message<'_>,
        emission: &Emission<'_>,
        owner: Target,
        now: Instant,
    ) {
        let record = resolve(emission, Some(message));
        let (key, flush) = (emission.batch_key(), emission.flush());
        self.gather_item(batcher, &NewItem { key, flush, record, source: Some(message), owner }, now);
    }

    /// Puts all messages of a burst into a batcher, for a handler without a message form.
    pub(super) fn gather_all(&mut self, batcher: usize, burst: &Frame, first: Seq, now: Instant, _sink: &mut dyn Sink) {
        for message in read(burst).iter() {
            let record = Outgoing {
                key: message.key(),
                value: message.value(),
                headers: [message.headers(), Headers::default()],
                timestamp: message.timestamp(),
            };
            let owner = Target::Record(first + message.number() as u64);
            self.gather_item(batcher, &NewItem { key: b"", flush: false, record, source: Some(&message), owner }, now);
        }
        let mut closed = Vec::new();
        self.batchers[batcher].end_of_burst(&mut closed);
        self.enqueue(batcher, &mut closed);
    }

    pub(super) fn gather_item(&mut self, batcher: usize, item: &NewItem<'_>, now: Instant) {
        let mut closed = Vec::new();
        let name = &self.rules.batchers[batcher].0;
        let partition = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
        let (epoch, keep_source) = (self.epoch, self.rules.keeps_sources());
        let spare = &mut self.spare;
        let new = || {
            let mut content = BatchContent { frame: spare.pop().unwrap_or_default(), ..BatchContent::default() };
            let info = BatchInfo { batcher: name, batch_key: item.key, trigger: Trigger::Size };
            MessagesWriter::batch(&mut content.frame, &[partition], epoch, info).finish();
            if keep_source {
                MessagesWriter::burst(&mut content.sources, partition, epoch, false).finish();
            }
            content
        };
        let add = |content: &mut BatchContent| {
            item.push(&mut content.frame);
            if keep_source {
                item.push_source(&mut content.sources);
            }
            content.owners.push(item.owner);
        };
        self.batchers[batcher].push(item.key, item.bytes(keep_source), item.flush, now, new, add, &mut closed);
        self.enqueue(batcher, &mut closed);
    }

    /// One message as the content of a batch.
    pub(super) fn content_of(&mut self, batcher: usize, message: &Message<'_>, owner: Target) -> BatchContent {
        let mut content = BatchContent { frame: self.spare.pop().unwrap_or_default(), ..BatchContent::default() };
        let source = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
        let info = BatchInfo { batcher: &self.rules.batchers[batcher].0, batch_key: b"", trigger: Trigger::Pressure };
        let mut writer = MessagesWriter::batch(&mut content.frame, &[source], self.epoch, info);
        writer.push(&copied(message, 1), message.headers());
        writer.finish();
        content.owners.push(owner);
        content
    }

    /// Some messages of a batch as a batch of their own.
    pub(super) fn part(&mut self, batch: &DueBatch, items: &[usize]) -> DueBatch {
        let all = read(&batch.content.frame);
        let mut content = BatchContent { frame: self.spare.pop().unwrap_or_default(), ..BatchContent::default() };
        let source = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
        let info = all.batch_info().expect("a batch says what it is");
        let mut writer = MessagesWriter::batch(&mut content.frame, &[source], self.epoch, info);
        for i in items {
            let message = all.get(*i);
            writer.push(&copied(&message, message.attempt()), message.headers());
        }
        writer.finish();
        if !batch.content.sources.is_empty() {
            let sources = read(&batch.content.sources);
            let mut writer = MessagesWriter::burst(&mut content.sources, source, self.epoch, false);
            for i in items {
                writer.push(&copied(&sources.get(*i), 1), sources.get(*i).headers());
            }
            writer.finish();
        }
        content.owners = items.iter().map(|i| batch.content.owners[*i]).collect();
        batch.another(content)
    }
}

/// Bytes of a message's content.
fn record_bytes(message: &Message<'_>) -> usize {
    message.key().map_or(0, <[u8]>::len) + message.value().map_or(0, <[u8]>::len) + message.headers().block().len()
}
