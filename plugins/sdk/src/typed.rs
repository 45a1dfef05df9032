//! The contract's typed form of what has no frames because it is rare: ticks, partitions and failures. Called by what
//! [`crate::export!`] makes.

use sluicebox_frames as frames;
use sluicebox_frames::{Frame, MessagesWriter, NewMessage, Source, TimestampType};

use crate::bindings::failures::exports::sluicebox::plugin::failures as wit_failures;
use crate::bindings::partitions::exports::sluicebox::plugin::partitions as wit_partitions;
use crate::bindings::timer::sluicebox::plugin::types as wit;
use crate::failed::{Cause, Disposition, Letter, Part, Verdict};
use crate::instance::Instance;
use crate::{FailureHandler, RevokeReason};

/// What a call without a message wrote.
#[must_use]
pub fn aside(answer: &Frame) -> wit::TickAnswer {
    let answer = check(answer);
    wit::TickAnswer {
        emissions: emissions(&answer),
        acks: answer.acks().collect(),
        fails: answer.fails().map(|(token, reason)| wit::FailedToken { token, reason: reason.to_owned() }).collect(),
    }
}

impl From<wit_partitions::RevokeReason> for RevokeReason {
    fn from(reason: wit_partitions::RevokeReason) -> Self {
        match reason {
            wit_partitions::RevokeReason::Revoked => Self::Revoked,
            wit_partitions::RevokeReason::Shutdown => Self::Shutdown,
            wit_partitions::RevokeReason::Restart => Self::Restart,
        }
    }
}

/// `failures.handle-failed`: asks the handler of each message in turn.
pub fn handle_failed<H: FailureHandler>(
    instance: &mut Instance<H>,
    failed: &[wit_failures::FailedMessage],
) -> Vec<wit_failures::Verdict> {
    let mut one = |failed: &wit_failures::FailedMessage| {
        let wit_failures::FailedMessage { message, stage, class, reason, attempts } = failed;
        let cause = Cause { stage, class, reason, attempts: *attempts };
        let (verdict, answer) = instance.handle_failed(&frame_of(message), cause);
        wit_failures::Verdict { disposition: disposition(verdict), emissions: emissions(&check(&answer)) }
    };
    failed.iter().map(&mut one).collect()
}

/// One message as a burst, which is what handlers read.
fn frame_of(message: &wit::Message) -> Frame {
    let mut frame = Frame::default();
    let source = Source { topic: &message.topic, partition: message.partition };
    let mut writer = MessagesWriter::burst(&mut frame, source, 0, false);
    let new = NewMessage {
        offset: message.offset,
        timestamp: message.timestamp,
        timestamp_type: match message.timestamp_type {
            wit::TimestampType::None => TimestampType::None,
            wit::TimestampType::CreateTime => TimestampType::CreateTime,
            wit::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        key: message.key.as_deref(),
        value: message.value.as_deref(),
        attempt: message.attempt,
        source: 0,
    };
    writer.push_with(&new, |headers| {
        for header in &message.headers {
            headers.push(&header.name, header.value.as_deref());
        }
    });
    writer.finish();
    frames::messages::set_first_token(&mut frame, message.token);
    frame
}

fn disposition(verdict: Verdict) -> wit_failures::Disposition {
    let content = |part| match part {
        Part::Inherit => wit::Content::Inherit,
        Part::Null => wit::Content::Null,
        Part::Bytes(bytes) => wit::Content::Bytes(bytes),
    };
    match verdict.0 {
        Disposition::Policy => wit_failures::Disposition::Policy,
        Disposition::DeadLetter(Letter { key, value, headers, replace }) => {
            let headers = headers.into_iter().map(|(name, value)| wit::Header { name, value }).collect();
            wit_failures::Disposition::DeadLetter(wit_failures::LetterChange {
                key: content(key),
                value: content(value),
                headers: match replace {
                    true => wit::HeaderChange::Replace(headers),
                    false => wit::HeaderChange::Append(headers),
                },
            })
        }
        Disposition::Drop => wit_failures::Disposition::Drop,
        Disposition::Block => wit_failures::Disposition::Block,
        Disposition::Stop => wit_failures::Disposition::Stop,
    }
}

fn check(answer: &Frame) -> frames::Answer<'_> {
    frames::Answer::check(&answer.index, &answer.payload).expect("written by this crate")
}

fn emissions(answer: &frames::Answer<'_>) -> Vec<wit::Emission> {
    let names: Vec<_> = answer.destinations().collect();
    let emission = |i| {
        let emission = answer.emission(i);
        let content = |content| match content {
            frames::Content::Inherit => wit::Content::Inherit,
            frames::Content::Null => wit::Content::Null,
            frames::Content::Bytes(bytes) => wit::Content::Bytes(bytes.to_vec()),
        };
        wit::Emission {
            to: match emission.destination().map(|place| names[place]) {
                None => wit::Destination::DefaultOutput,
                Some((frames::DestinationKind::Output, name)) => wit::Destination::Output(name.to_owned()),
                Some((frames::DestinationKind::Batcher, name)) => wit::Destination::Batcher(wit::ToBatcher {
                    name: name.to_owned(),
                    batch_key: emission.batch_key().to_vec(),
                    flush: emission.flush(),
                }),
            },
            key: content(emission.key()),
            value: content(emission.value()),
            headers: match emission.headers() {
                frames::HeaderMode::Inherit => wit::HeaderChange::Inherit,
                frames::HeaderMode::None => wit::HeaderChange::Replace(Vec::new()),
                frames::HeaderMode::Replace(headers) => wit::HeaderChange::Replace(owned(headers)),
                frames::HeaderMode::Append(headers) => wit::HeaderChange::Append(owned(headers)),
            },
            timestamp: emission.timestamp().map_or(wit::TimestampChange::Inherit, wit::TimestampChange::At),
            partition: emission.partition(),
            partition_key: emission.partition_key().map(<[u8]>::to_vec),
        }
    };
    (0..answer.emission_count()).map(emission).collect()
}

fn owned(headers: frames::Headers<'_>) -> Vec<wit::Header> {
    let header =
        |(name, value): (&[u8], Option<&[u8]>)| wit::Header { name: name.to_vec(), value: value.map(<[u8]>::to_vec) };
    headers.iter().map(header).collect()
}
