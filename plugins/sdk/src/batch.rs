//! One batch as a handler sees it.

use std::ops::Deref;

use sluicebox_frames::{BatchInfo, Messages, Source};

use crate::answer::{Answer, To, WHOLE};
use crate::emission::Emission;
use crate::{Message, Outcome, Result};

/// The messages that a batcher gathered. All of them are done when `handle_batch` returns `Ok`, but for those whose
/// item says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub(crate) messages: Messages<'a>,
    pub(crate) info: BatchInfo<'a>,
    pub(crate) answer: &'a Answer,
}

impl<'a> Batch<'a> {
    /// Batcher, batch key and trigger.
    #[must_use]
    pub const fn info(&self) -> BatchInfo<'a> {
        self.info
    }

    /// What the messages have in common.
    #[must_use]
    pub const fn key(&self) -> &'a [u8] {
        self.info.batch_key
    }

    /// The one topic-partition all messages come from, if they do.
    #[must_use]
    pub fn source(&self) -> Option<Source<'a>> {
        self.messages.common_source()
    }

    /// Changes with every assignment of the partition to this host and every reset of its position.
    #[must_use]
    pub fn ownership_epoch(&self) -> u64 {
        self.messages.ownership_epoch()
    }

    /// How many messages it has, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub const fn len(&self) -> usize {
        self.messages.len()
    }

    /// Message `i`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn item(&self, i: usize) -> Item<'a> {
        Item { message: Message { view: self.messages.get(i), answer: self.answer } }
    }

    /// All messages, in order.
    pub fn iter(&self) -> Items<'a> {
        self.into_iter()
    }

    /// Gives each item to `handle` and keeps its outcome; an error means that this one item is tried again (or
    /// rejected), not the batch.
    pub fn each(&self, mut handle: impl FnMut(Item<'a>) -> Result<Outcome>) {
        for item in self.iter() {
            item.answer(handle(item).unwrap_or_else(Outcome::from));
        }
    }

    /// Begins an emission of the batch as a whole. No done message of the batch is acked before it is durable.
    pub fn emit<'e>(&self, output: &'e str) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, WHOLE, To::Output(output))
    }

    /// As [`Batch::emit`], to the pipeline's only output.
    pub fn emit_default(&self) -> Emission<'a> {
        Emission::new(self.answer, WHOLE, To::Default)
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

impl<'a> IntoIterator for Batch<'a> {
    type Item = Item<'a>;
    type IntoIter = Items<'a>;

    fn into_iter(self) -> Items<'a> {
        Items { batch: self, next: 0 }
    }
}

/// See [`Batch::iter`].
#[derive(Clone, Debug)]
pub struct Items<'a> {
    batch: Batch<'a>,
    next: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let i = self.next;
        (i < self.batch.len()).then(|| {
            self.next += 1;
            self.batch.item(i)
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batch.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Items<'_> {}

/// One message of a batch. Its emissions inherit from it and go to outputs.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    message: Message<'a>,
}

impl Item<'_> {
    /// What becomes of this one message; done when nothing is said, and the last word counts.
    pub fn answer(&self, outcome: Outcome) {
        self.message.answer.set_item(self.message.view.number() as u32, outcome);
    }
}

impl<'a> Deref for Item<'a> {
    type Target = Message<'a>;

    fn deref(&self) -> &Message<'a> {
        &self.message
    }
}
