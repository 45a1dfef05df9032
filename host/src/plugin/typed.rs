//! The typed form of the contract (`wit/types.wit`) and its conversion: messages of a frame into records for the guest,
//! records of the guest into an answer frame. A caller of an instance sees frames only.
//!
//! What goes to the guest borrows from the frame; what comes back is owned. Names and order of fields and cases are
//! the contract's, which wasmtime compares when a component is loaded.

use sluicebox_frames::{
    AnswerWriter, Content as Bytes, DestinationKind, Frame, HeaderMode, Headers, HeadersWriter, Messages, NewEmission,
    Source,
};
use wasmtime::component::{ComponentType, Lift, Lower};

use super::fault::{Fault, FaultClass};

/// Different destinations in one answer. The table of names is searched one by one; a pipeline declares a few.
const DESTINATIONS: u32 = 1024;

/// A frame on its way to the guest.
#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct FrameRef<'a> {
    index: &'a [u8],
    payload: &'a [u8],
}

impl<'a> From<&'a Frame> for FrameRef<'a> {
    fn from(frame: &'a Frame) -> Self {
        Self { index: &frame.index, payload: &frame.payload }
    }
}

/// A frame on its way back.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct FrameOut {
    index: Vec<u8>,
    payload: Vec<u8>,
}

impl From<FrameOut> for Frame {
    fn from(frame: FrameOut) -> Self {
        Self { index: frame.index, payload: frame.payload }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Header<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum TimestampType {
    #[component(name = "none")]
    None,
    #[component(name = "create-time")]
    CreateTime,
    #[component(name = "log-append-time")]
    LogAppendTime,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Message<'a> {
    topic: &'a str,
    partition: u32,
    offset: i64,
    timestamp: i64,
    #[component(name = "timestamp-type")]
    timestamp_type: TimestampType,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<Header<'a>>,
    attempt: u32,
    token: u64,
}

impl<'a> From<sluicebox_frames::Message<'a>> for Message<'a> {
    fn from(message: sluicebox_frames::Message<'a>) -> Self {
        let Source { topic, partition } = message.source();
        Self {
            topic,
            partition,
            offset: message.offset(),
            timestamp: message.timestamp(),
            timestamp_type: match message.timestamp_type() {
                sluicebox_frames::TimestampType::None => TimestampType::None,
                sluicebox_frames::TimestampType::CreateTime => TimestampType::CreateTime,
                sluicebox_frames::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            key: message.key(),
            value: message.value(),
            headers: message.headers().iter().map(|(name, value)| Header { name, value }).collect(),
            attempt: message.attempt(),
            token: message.token(),
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct TopicPartition<'a> {
    topic: &'a str,
    partition: u32,
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum Trigger {
    #[component(name = "size")]
    Size,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "flush")]
    Flush,
    #[component(name = "pressure")]
    Pressure,
    #[component(name = "revoke")]
    Revoke,
    #[component(name = "swap")]
    Swap,
    #[component(name = "shutdown")]
    Shutdown,
}

impl From<sluicebox_frames::Trigger> for Trigger {
    fn from(trigger: sluicebox_frames::Trigger) -> Self {
        match trigger {
            sluicebox_frames::Trigger::Size => Self::Size,
            sluicebox_frames::Trigger::Bytes => Self::Bytes,
            sluicebox_frames::Trigger::Timeout => Self::Timeout,
            sluicebox_frames::Trigger::Flush => Self::Flush,
            sluicebox_frames::Trigger::Pressure => Self::Pressure,
            sluicebox_frames::Trigger::Revoke => Self::Revoke,
            sluicebox_frames::Trigger::Swap => Self::Swap,
            sluicebox_frames::Trigger::Shutdown => Self::Shutdown,
        }
    }
}

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct BatchInfo<'a> {
    batcher: &'a str,
    #[component(name = "batch-key")]
    batch_key: &'a [u8],
    #[component(name = "topic-partition")]
    topic_partition: Option<TopicPartition<'a>>,
    trigger: Trigger,
    #[component(name = "ownership-epoch")]
    ownership_epoch: u64,
}

/// The parameters of `batch-handler.handle-batch`; `None` when the frame is no batch.
pub(super) fn batch_params(batch: &Frame) -> Option<(BatchInfo<'_>, Vec<Message<'_>>)> {
    let messages = Messages::new(batch);
    let info = messages.batch_info()?;
    let info = BatchInfo {
        batcher: info.batcher,
        batch_key: info.batch_key,
        topic_partition: messages
            .common_source()
            .map(|Source { topic, partition }| TopicPartition { topic, partition }),
        trigger: info.trigger.into(),
        ownership_epoch: messages.ownership_epoch(),
    };
    Some((info, messages.iter().map(Message::from).collect()))
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Content {
    #[component(name = "inherit")]
    Inherit,
    #[component(name = "null")]
    Null,
    #[component(name = "bytes")]
    Bytes(Vec<u8>),
}

impl Content {
    fn borrow(&self) -> Bytes<'_> {
        match self {
            Self::Inherit => Bytes::Inherit,
            Self::Null => Bytes::Null,
            Self::Bytes(bytes) => Bytes::Bytes(bytes),
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct OwnedHeader {
    name: Vec<u8>,
    value: Option<Vec<u8>>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum HeaderChange {
    #[component(name = "inherit")]
    Inherit,
    #[component(name = "replace")]
    Replace(Vec<OwnedHeader>),
    #[component(name = "append")]
    Append(Vec<OwnedHeader>),
}

impl HeaderChange {
    /// Bytes that it takes, known before any is written.
    fn bytes(&self) -> usize {
        let one = |header: &OwnedHeader| 8 + header.name.len() + header.value.as_ref().map_or(0, Vec::len);
        match self {
            Self::Inherit => 0,
            Self::Replace(headers) | Self::Append(headers) => headers.iter().map(one).sum(),
        }
    }

    /// Writes the headers into `block`, which the answer then borrows.
    fn borrow<'b>(&self, block: &'b mut Vec<u8>) -> HeaderMode<'b> {
        block.clear();
        let mut written = |headers: &[OwnedHeader]| {
            let mut writer = HeadersWriter::new(block);
            for header in headers {
                writer.push(&header.name, header.value.as_deref());
            }
            _ = writer.finish();
        };
        match self {
            Self::Inherit => HeaderMode::Inherit,
            Self::Replace(headers) => {
                written(headers);
                HeaderMode::Replace(Headers::new(block))
            }
            Self::Append(headers) => {
                written(headers);
                HeaderMode::Append(Headers::new(block))
            }
        }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum TimestampChange {
    #[component(name = "inherit")]
    Inherit,
    #[component(name = "at")]
    At(i64),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct ToBatcher {
    name: String,
    #[component(name = "batch-key")]
    batch_key: Vec<u8>,
    flush: bool,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Destination {
    #[component(name = "default-output")]
    DefaultOutput,
    #[component(name = "output")]
    Output(String),
    #[component(name = "batcher")]
    Batcher(ToBatcher),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Emission {
    pub to: Destination,
    pub key: Content,
    pub value: Content,
    pub headers: HeaderChange,
    pub timestamp: TimestampChange,
    pub partition: Option<u32>,
    #[component(name = "partition-key")]
    pub partition_key: Option<Vec<u8>>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Retry {
    reason: String,
    after: Option<u64>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Outcome {
    #[component(name = "done")]
    Done(Vec<Emission>),
    #[component(name = "retry")]
    Retry(Retry),
    #[component(name = "reject")]
    Reject(String),
    #[component(name = "hold")]
    Hold,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct FailedToken {
    token: u64,
    reason: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct MessageAnswer {
    pub outcome: Outcome,
    pub acks: Vec<u64>,
    pub fails: Vec<FailedToken>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct BatchAnswer {
    outcomes: Vec<Outcome>,
    emissions: Vec<Emission>,
    acks: Vec<u64>,
    fails: Vec<FailedToken>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct TickAnswer {
    pub emissions: Vec<Emission>,
    acks: Vec<u64>,
    fails: Vec<FailedToken>,
}

/// Gathers typed answers into an answer frame.
pub(super) struct AnswerBuilder {
    writer: AnswerWriter,
    /// Scratch of [`HeaderChange::borrow`].
    block: Vec<u8>,
    /// Payload so far and at most.
    bytes: u64,
    limit: u64,
}

/// Bytes of an answer frame that is put together from typed answers: its offsets are 32 bits wide.
const FRAME_BYTES: u64 = 1 << 31;

/// Whether more messages of the burst may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Offer,
    Stop,
}

impl AnswerBuilder {
    /// `limit` is what one call may hand over; a burst's calls may together, give or take one answer.
    pub(super) fn new(messages: usize, limit: u64) -> Self {
        let writer = AnswerWriter::with_capacity(messages, 0);
        Self { writer, block: Vec::new(), bytes: 0, limit: limit.min(FRAME_BYTES) }
    }

    /// One message's answer. Says stop where the burst's answer has to end: at a retry, at a reject if asked to, and
    /// where it becomes too large.
    pub(super) fn message(&mut self, answer: &MessageAnswer, stop_at_reject: bool) -> Result<Next, Fault> {
        self.outcome(&answer.outcome)?;
        self.tokens(&answer.acks, &answer.fails)?;
        let last = match answer.outcome {
            Outcome::Retry(_) => true,
            Outcome::Reject(_) => stop_at_reject,
            Outcome::Done(_) | Outcome::Hold => false,
        };
        Ok(if last || self.bytes >= self.limit { Next::Stop } else { Next::Offer })
    }

    pub(super) fn batch(&mut self, answer: &BatchAnswer) -> Result<(), Fault> {
        for outcome in &answer.outcomes {
            self.outcome(outcome)?;
        }
        self.emissions(&answer.emissions)?;
        self.tokens(&answer.acks, &answer.fails)
    }

    pub(super) fn tick(&mut self, answer: &TickAnswer) -> Result<(), Fault> {
        self.emissions(&answer.emissions)?;
        self.tokens(&answer.acks, &answer.fails)
    }

    pub(super) fn finish(self) -> Frame {
        self.writer.finish()
    }

    /// Counts bytes before they are written: a frame's offsets must not overflow whatever a guest answers.
    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes += bytes as u64;
        if self.bytes > self.limit.saturating_add(FRAME_BYTES / 2).min(FRAME_BYTES) {
            return Err(Fault::new(FaultClass::OutputLimit, format!("the answer has more than {} bytes", self.bytes)));
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        match outcome {
            Outcome::Done(emissions) => {
                let before = self.writer.emission_count();
                self.emissions(emissions)?;
                self.take(16)?;
                self.writer.done(self.writer.emission_count() - before);
            }
            Outcome::Retry(Retry { reason, after }) => {
                self.take(16 + reason.len())?;
                self.writer.retry(reason, *after);
            }
            Outcome::Reject(reason) => {
                self.take(16 + reason.len())?;
                self.writer.reject(reason);
            }
            Outcome::Hold => {
                self.take(16)?;
                self.writer.hold();
            }
        }
        Ok(())
    }

    fn tokens(&mut self, acks: &[u64], fails: &[FailedToken]) -> Result<(), Fault> {
        self.take(acks.len() * 8)?;
        for token in acks {
            self.writer.ack(*token);
        }
        for FailedToken { token, reason } in fails {
            self.take(16 + reason.len())?;
            self.writer.fail(*token, reason);
        }
        Ok(())
    }

    fn emissions(&mut self, emissions: &[Emission]) -> Result<(), Fault> {
        let mut block = std::mem::take(&mut self.block);
        let done = emissions.iter().try_for_each(|emission| self.emission(emission, &mut block));
        self.block = block;
        done
    }

    fn emission(&mut self, emission: &Emission, block: &mut Vec<u8>) -> Result<(), Fault> {
        let len = |content: &Content| if let Content::Bytes(bytes) = content { bytes.len() } else { 0 };
        let partition_key = emission.partition_key.as_deref();
        let headers = emission.headers.bytes();
        self.take(48 + len(&emission.key) + len(&emission.value) + headers + partition_key.map_or(0, <[u8]>::len))?;
        let headers = emission.headers.borrow(block);
        let (destination, batch_key, flush): (_, &[u8], _) = match &emission.to {
            Destination::DefaultOutput => (None, &[], false),
            Destination::Output(name) => (Some(self.destination(DestinationKind::Output, name)?), &[], false),
            Destination::Batcher(ToBatcher { name, batch_key, flush }) => {
                self.take(batch_key.len())?;
                (Some(self.destination(DestinationKind::Batcher, name)?), batch_key, *flush)
            }
        };
        self.writer.emission(&NewEmission {
            destination,
            key: emission.key.borrow(),
            value: emission.value.borrow(),
            headers,
            timestamp: match emission.timestamp {
                TimestampChange::Inherit => None,
                TimestampChange::At(at) => Some(at),
            },
            partition: emission.partition,
            partition_key,
            batch_key,
            flush,
        });
        Ok(())
    }

    fn destination(&mut self, kind: DestinationKind, name: &str) -> Result<u32, Fault> {
        self.take(12 + name.len())?;
        let destination = self.writer.destination(kind, name);
        if destination >= DESTINATIONS {
            let text = format!("the answer names more than {DESTINATIONS} different destinations");
            return Err(Fault::new(FaultClass::BadAnswer, text));
        }
        Ok(destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_frames::Answer;

    fn emission(to: Destination) -> Emission {
        Emission {
            to,
            key: Content::Inherit,
            value: Content::Bytes(b"v".to_vec()),
            headers: HeaderChange::Inherit,
            timestamp: TimestampChange::Inherit,
            partition: None,
            partition_key: None,
        }
    }

    fn answer(outcome: Outcome) -> MessageAnswer {
        MessageAnswer { outcome, acks: Vec::new(), fails: Vec::new() }
    }

    #[test]
    fn a_burst_stops_where_the_contract_says() {
        let retry = || answer(Outcome::Retry(Retry { reason: "later".to_owned(), after: Some(5) }));
        let reject = || answer(Outcome::Reject("never".to_owned()));
        let mut builder = AnswerBuilder::new(4, 1000);
        assert_eq!(builder.message(&answer(Outcome::Done(Vec::new())), true), Ok(Next::Offer));
        assert_eq!(builder.message(&answer(Outcome::Hold), true), Ok(Next::Offer));
        assert_eq!(builder.message(&reject(), false), Ok(Next::Offer));
        assert_eq!(builder.message(&reject(), true), Ok(Next::Stop));
        assert_eq!(builder.message(&retry(), false), Ok(Next::Stop));
    }

    #[test]
    fn a_burst_stops_where_its_answer_grows_large() {
        let mut builder = AnswerBuilder::new(4, 100);
        let large = answer(Outcome::Done(vec![emission(Destination::DefaultOutput)]));
        assert_eq!(builder.message(&large, false), Ok(Next::Offer));
        assert_eq!(builder.message(&large, false), Ok(Next::Stop));
        let frame = builder.finish();
        assert_eq!(Answer::check(&frame.index, &frame.payload).expect("a good answer").outcome_count(), 2);
    }

    #[test]
    fn an_answer_cannot_name_destinations_without_end() {
        let mut builder = AnswerBuilder::new(1, 1 << 30);
        let names = (0..=DESTINATIONS).map(|i| emission(Destination::Output(i.to_string()))).collect();
        let fault = builder.message(&answer(Outcome::Done(names)), false).expect_err("too many");
        assert_eq!(fault.class, FaultClass::BadAnswer);
    }
}
