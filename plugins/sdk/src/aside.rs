//! Calls that bring no message: a tick, a partition that comes, a partition that goes. What may be done in all of them is
//! [`Aside`]'s.

use std::ops::Deref;

use crate::answer::{Answer, To, WHOLE};
use crate::emission::Emission;

/// What a handler may do in a call that brings no message: it may emit, and settle messages that it holds.
#[derive(Clone, Copy, Debug)]
pub struct Aside<'a> {
    pub(crate) answer: &'a Answer,
}

impl<'a> Aside<'a> {
    /// Begins an emission to an output. Like those of a batch as a whole it inherits nothing.
    pub fn emit<'e>(&self, output: &'e str) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, WHOLE, To::Output(output))
    }

    /// As [`Aside::emit`], to the pipeline's only output.
    pub fn emit_default(&self) -> Emission<'a> {
        Emission::new(self.answer, WHOLE, To::Default)
    }

    /// Begins an emission to a batcher. Not when the partition goes: no batch comes after that.
    pub fn emit_to_batcher<'e>(&self, batcher: &'e str, batch_key: &'e (impl AsRef<[u8]> + ?Sized)) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, WHOLE, To::Batcher(batcher)).batch_key(batch_key.as_ref())
    }

    /// A held message is finished. It settles when all emissions of this answer are durable.
    pub fn ack(&self, token: u64) {
        self.answer.ack(token);
    }

    /// A held message failed.
    pub fn fail(&self, token: u64, reason: &str) {
        self.answer.fail(token, crate::answer::cut(reason));
    }
}

/// One call at the interval that the pipeline's configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Tick<'a> {
    pub(crate) now: i64,
    pub(crate) aside: Aside<'a>,
}

impl Tick<'_> {
    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub const fn now(&self) -> i64 {
        self.now
    }
}

impl<'a> Deref for Tick<'a> {
    type Target = Aside<'a>;

    fn deref(&self) -> &Aside<'a> {
        &self.aside
    }
}

/// The partition that this instance is for, before its first message.
#[derive(Clone, Copy, Debug)]
pub struct Assigned<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) next_offset: Option<i64>,
    pub(crate) aside: Aside<'a>,
}

impl<'a> Assigned<'a> {
    /// Its topic.
    #[must_use]
    pub const fn topic(&self) -> &'a str {
        self.topic
    }

    /// Its number.
    #[must_use]
    pub const fn partition(&self) -> u32 {
        self.partition
    }

    /// Offset of the first message that may be offered; `None` when nothing is committed and nothing was read yet.
    #[must_use]
    pub const fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }
}

impl<'a> Deref for Assigned<'a> {
    type Target = Aside<'a>;

    fn deref(&self) -> &Aside<'a> {
        &self.aside
    }
}

/// Why a partition is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    /// The group assigns it to another member.
    Revoked,
    /// The host is shutting down.
    Shutdown,
    /// The pipeline begins anew in the same host.
    Restart,
}

/// The partition of this instance is given back: the last call. What is emitted here is durable, and what is acked here
/// counts, before the last commit.
#[derive(Clone, Copy, Debug)]
pub struct Revoked<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) reason: RevokeReason,
    pub(crate) aside: Aside<'a>,
}

impl<'a> Revoked<'a> {
    /// Its topic.
    #[must_use]
    pub const fn topic(&self) -> &'a str {
        self.topic
    }

    /// Its number.
    #[must_use]
    pub const fn partition(&self) -> u32 {
        self.partition
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> RevokeReason {
        self.reason
    }
}

impl<'a> Deref for Revoked<'a> {
    type Target = Aside<'a>;

    fn deref(&self) -> &Aside<'a> {
        &self.aside
    }
}
