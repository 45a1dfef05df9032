//! The typed form of `wit/failures.wit` and of what `wit/partitions.wit` adds: [`crate::delivery::verdict`] for the guest
//! and back. Checks what no later look at the answer can see: how many verdicts there are, and that nothing is for a batcher.

use sluicebox_frames::Messages;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::fault::{Fault, FaultClass};
use super::typed::{
    AnswerBuilder, Content, Destination, Emission, HeaderChange, Message, MessageAnswer, Outcome, TimestampChange,
};
use crate::delivery::verdict;

#[derive(Clone, Copy, Debug, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum RevokeReason {
    #[component(name = "revoked")]
    Revoked,
    #[component(name = "shutdown")]
    Shutdown,
    #[component(name = "restart")]
    Restart,
}

impl From<verdict::RevokeReason> for RevokeReason {
    fn from(reason: verdict::RevokeReason) -> Self {
        match reason {
            verdict::RevokeReason::Revoked => Self::Revoked,
            verdict::RevokeReason::Shutdown => Self::Shutdown,
            verdict::RevokeReason::Restart => Self::Restart,
        }
    }
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct FailedMessage<'a> {
    message: Message<'a>,
    stage: &'a str,
    class: &'a str,
    reason: &'a str,
    attempts: u32,
}

impl<'a> From<&verdict::FailedMessage<'a>> for FailedMessage<'a> {
    fn from(failed: &verdict::FailedMessage<'a>) -> Self {
        let verdict::FailedMessage { frame, stage, class, reason, attempts } = *failed;
        Self { message: Message::from(Messages::new(frame).get(0)), stage, class, reason, attempts }
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct LetterChange {
    key: Content,
    value: Content,
    headers: HeaderChange,
}

impl LetterChange {
    fn is_none(&self) -> bool {
        let headers = match &self.headers {
            HeaderChange::Inherit => true,
            HeaderChange::Append(headers) => headers.is_empty(),
            HeaderChange::Replace(_) => false,
        };
        headers && matches!((&self.key, &self.value), (Content::Inherit, Content::Inherit))
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Disposition {
    #[component(name = "policy")]
    Policy,
    #[component(name = "dead-letter")]
    DeadLetter(LetterChange),
    #[component(name = "drop")]
    Drop,
    #[component(name = "block")]
    Block,
    #[component(name = "stop")]
    Stop,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Verdict {
    disposition: Disposition,
    emissions: Vec<Emission>,
}

/// The verdict on the one message that was asked about. `limit` is what one call may hand over.
pub(super) fn only(verdicts: Vec<Verdict>, limit: u64) -> Result<verdict::Verdict, Fault> {
    let [Verdict { disposition, mut emissions }] = <[Verdict; 1]>::try_from(verdicts).map_err(|verdicts| {
        let text = format!("it gives {} verdicts on one failed message", verdicts.len());
        Fault::new(FaultClass::BadAnswer, text)
    })?;
    outputs_only(&emissions, "a verdict")?;
    let mut letter = false;
    let disposition = match disposition {
        Disposition::Policy => verdict::Disposition::Policy,
        Disposition::DeadLetter(change) => {
            if !change.is_none() {
                letter = true;
                emissions.insert(0, letter_emission(change));
            }
            verdict::Disposition::DeadLetter
        }
        Disposition::Drop => verdict::Disposition::Drop,
        Disposition::Block => verdict::Disposition::Block,
        Disposition::Stop => verdict::Disposition::Stop,
    };
    let mut answer = AnswerBuilder::new(1, limit);
    let done = MessageAnswer { outcome: Outcome::Done(emissions), acks: Vec::new(), fails: Vec::new() };
    answer.message(&done, false)?;
    Ok(verdict::Verdict { disposition, letter, emissions: answer.finish() })
}

fn letter_emission(LetterChange { key, value, headers }: LetterChange) -> Emission {
    Emission {
        to: Destination::DefaultOutput,
        key,
        value,
        headers,
        timestamp: TimestampChange::Inherit,
        partition: None,
        partition_key: None,
    }
}

/// For answers after which no batch can run.
pub(super) fn outputs_only(emissions: &[Emission], whose: &str) -> Result<(), Fault> {
    match emissions.iter().position(|emission| matches!(emission.to, Destination::Batcher(_))) {
        None => Ok(()),
        Some(i) => {
            let text = format!("emission {i} of {whose} is for a batcher, it may go to outputs only");
            Err(Fault::new(FaultClass::BadAnswer, text))
        }
    }
}
