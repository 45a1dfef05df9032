//! A message that failed for good, and what a handler may say of it.

use std::ops::Deref;

use crate::Message;

/// A message whose attempts are used up, or that was rejected, as the failing stage saw it. It reads and emits as any
/// message does; what is emitted goes to outputs and is durable before the message's fate is. There is nothing to ack.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) cause: Cause<'a>,
}

/// Why a message failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause<'a> {
    pub(crate) stage: &'a str,
    pub(crate) class: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) attempts: u32,
}

impl<'a> Failed<'a> {
    /// Where it failed: `message`, or the batcher's name.
    #[must_use]
    pub const fn stage(&self) -> &'a str {
        self.cause.stage
    }

    /// `retry` or `reject` when the handler said so, else the class of the fault (`panic`, `deadline`, …).
    #[must_use]
    pub const fn class(&self) -> &'a str {
        self.cause.class
    }

    /// For people.
    #[must_use]
    pub const fn reason(&self) -> &'a str {
        self.cause.reason
    }

    /// How many attempts it had at that stage.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.cause.attempts
    }
}

impl<'a> Deref for Failed<'a> {
    type Target = Message<'a>;

    fn deref(&self) -> &Message<'a> {
        &self.message
    }
}

/// What becomes of a failed message. It stays failed: no verdict makes it done.
///
/// A dead letter is the source record as it was, but for what the methods below change; they are without effect on other
/// verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict(pub(crate) Disposition);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Policy,
    DeadLetter(Letter),
    Drop,
    Block,
    Stop,
}

/// How a dead letter differs from the source record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) key: Part,
    pub(crate) value: Part,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What `headers` are to the source's.
    pub(crate) replace: bool,
}

/// Key or value of a dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Part {
    #[default]
    Inherit,
    Null,
    Bytes(Vec<u8>),
}

impl Verdict {
    /// What the pipeline's configuration says, as if there were no [`FailureHandler`](crate::FailureHandler).
    #[must_use = "it has to be returned"]
    pub const fn policy() -> Self {
        Self(Disposition::Policy)
    }

    /// To the dead-letter topic. A bad answer when the pipeline has none.
    #[must_use = "it has to be returned"]
    pub fn dead_letter() -> Self {
        Self(Disposition::DeadLetter(Letter::default()))
    }

    /// Nothing: the message counts as dropped.
    #[must_use = "it has to be returned"]
    pub const fn drop() -> Self {
        Self(Disposition::Drop)
    }

    /// The partition stays at this message, which is tried again and again.
    #[must_use = "it has to be returned"]
    pub const fn block() -> Self {
        Self(Disposition::Block)
    }

    /// The pipeline stops.
    #[must_use = "it has to be returned"]
    pub const fn stop() -> Self {
        Self(Disposition::Stop)
    }

    /// These bytes as the dead letter's key.
    #[must_use = "it has to be returned"]
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        self.change(|letter| letter.key = Part::Bytes(key.as_ref().to_vec()))
    }

    /// No key.
    #[must_use = "it has to be returned"]
    pub fn null_key(self) -> Self {
        self.change(|letter| letter.key = Part::Null)
    }

    /// These bytes as the dead letter's value.
    #[must_use = "it has to be returned"]
    pub fn value(self, value: impl AsRef<[u8]>) -> Self {
        self.change(|letter| letter.value = Part::Bytes(value.as_ref().to_vec()))
    }

    /// No value.
    #[must_use = "it has to be returned"]
    pub fn null_value(self) -> Self {
        self.change(|letter| letter.value = Part::Null)
    }

    /// Adds a header after those that are there, the source record's included. The host's own come on top of all.
    #[must_use = "it has to be returned"]
    pub fn header(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.change(|letter| letter.headers.push((name.as_ref().to_vec(), Some(value.as_ref().to_vec()))))
    }

    /// As [`Verdict::header`], with Kafka's null as its value.
    #[must_use = "it has to be returned"]
    pub fn null_header(self, name: impl AsRef<[u8]>) -> Self {
        self.change(|letter| letter.headers.push((name.as_ref().to_vec(), None)))
    }

    /// Leaves out the source record's headers and those added so far.
    #[must_use = "it has to be returned"]
    pub fn no_headers(self) -> Self {
        self.change(|letter| {
            letter.headers.clear();
            letter.replace = true;
        })
    }

    fn change(mut self, change: impl FnOnce(&mut Letter)) -> Self {
        if let Disposition::DeadLetter(letter) = &mut self.0 {
            change(letter);
        }
        self
    }
}
