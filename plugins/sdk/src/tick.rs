//! A tick, and its answer in the contract's typed form (ticks have no frames: they are rare).

use sluicebox_frames as frames;

use crate::answer::{Answer, To, WHOLE};
use crate::bindings::timer::sluicebox::plugin::types as wit;
use crate::emission::Emission;

/// One call at the interval that the pipeline's configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Tick<'a> {
    pub(crate) now: i64,
    pub(crate) answer: &'a Answer,
}

impl<'a> Tick<'a> {
    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn now(&self) -> i64 {
        self.now
    }

    /// Begins an emission to an output. Like those of a batch as a whole it inherits nothing.
    pub fn emit<'e>(&self, output: &'e str) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, WHOLE, To::Output(output))
    }

    /// As [`Tick::emit`], to the pipeline's only output.
    pub fn emit_default(&self) -> Emission<'a> {
        Emission::new(self.answer, WHOLE, To::Default)
    }

    /// Begins an emission to a batcher.
    pub fn emit_to_batcher<'e>(&self, batcher: &'e str, batch_key: &'e (impl AsRef<[u8]> + ?Sized)) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, WHOLE, To::Batcher(batcher)).batch_key(batch_key.as_ref())
    }

    /// A held message is finished. It settles when all emissions of this tick are durable.
    pub fn ack(&self, token: u64) {
        self.answer.ack(token);
    }

    /// A held message failed.
    pub fn fail(&self, token: u64, reason: &str) {
        self.answer.fail(token, crate::answer::cut(reason));
    }
}

/// The typed form of what a tick wrote.
pub fn typed(answer: &frames::Frame) -> wit::TickAnswer {
    let answer = frames::Answer::check(&answer.index, &answer.payload).expect("written by this crate");
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
    wit::TickAnswer {
        emissions: (0..answer.emission_count()).map(emission).collect(),
        acks: answer.acks().collect(),
        fails: answer.fails().map(|(token, reason)| wit::FailedToken { token, reason: reason.to_owned() }).collect(),
    }
}

fn owned(headers: frames::Headers<'_>) -> Vec<wit::Header> {
    let header =
        |(name, value): (&[u8], Option<&[u8]>)| wit::Header { name: name.to_vec(), value: value.map(<[u8]>::to_vec) };
    headers.iter().map(header).collect()
}
