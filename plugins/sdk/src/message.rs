//! One message as a handler sees it: a view over the frame, and the way to emit for it.

use sluicebox_frames::{Headers, TimestampType, messages};

use crate::Outcome;
use crate::answer::{Answer, To};
use crate::emission::Emission;

/// One Kafka record.
///
/// Reading copies nothing: every slice points into the bytes that the host handed over. Emissions are written into the
/// answer at once and count when the message's [`Outcome`] is *done*.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub(crate) view: messages::Message<'a>,
    pub(crate) answer: &'a Answer,
}

impl<'a> Message<'a> {
    /// The key; `None` is Kafka's null, which is not the same as empty.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.key()
    }

    /// The value; `None` is Kafka's null (a tombstone in a compacted topic), which is not the same as empty.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.value()
    }

    /// The headers in their order, repeated names included; not parsed until they are iterated.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.view.headers()
    }

    /// The value of the last header of that name: `None` without one, `Some(None)` when it is null.
    #[must_use]
    pub fn header(&self, name: impl AsRef<[u8]>) -> Option<Option<&'a [u8]>> {
        self.view.headers().last(name)
    }

    /// Topic it came from.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.view.source().topic
    }

    /// Partition it came from.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.view.source().partition
    }

    /// Offset in its partition, 0 to 2^63-1.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.view.offset()
    }

    /// Milliseconds since 1970-01-01 UTC; `None` when the record has none.
    #[inline]
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        (self.view.timestamp_type() != TimestampType::None).then(|| self.view.timestamp())
    }

    /// Which clock the timestamp came from.
    #[inline]
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        self.view.timestamp_type()
    }

    /// Which try this is, from 1.
    #[inline]
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.view.attempt()
    }

    /// Names this offering of the message: keep it with [`Outcome::hold`], hand it back to [`Message::ack`].
    #[inline]
    #[must_use]
    pub fn token(&self) -> u64 {
        self.view.token()
    }

    /// The value as text.
    ///
    /// # Errors
    /// When it is null or not UTF-8.
    pub fn text(&self) -> Result<&'a str, &'static str> {
        std::str::from_utf8(self.value().ok_or("the value is null")?).map_err(|_| "the value is not UTF-8")
    }

    /// The value read as JSON; `T` may borrow from it.
    ///
    /// # Errors
    /// When it is null or not the JSON that `T` wants.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Deserialize<'a>>(&self) -> Result<T, crate::JsonError> {
        let value = self.value().ok_or_else(|| crate::JsonError("the value is null".to_owned()))?;
        serde_json::from_slice(value).map_err(|error| crate::JsonError(error.to_string()))
    }

    #[inline]
    fn owner(&self) -> u32 {
        self.view.number() as u32
    }

    /// Sends the message on to an output as it is; nothing is copied. Gives [`Outcome::done`], for handlers that end
    /// with it.
    #[inline]
    pub fn forward(&self, output: &str) -> Outcome {
        self.emit(output).send()
    }

    /// As [`Message::forward`], to the pipeline's only output.
    #[inline]
    pub fn forward_default(&self) -> Outcome {
        self.emit_default().send()
    }

    /// Sends the message on to a batcher as it is. Messages of one batch key are batched together, in order.
    #[inline]
    pub fn forward_to_batcher(&self, batcher: &str, batch_key: impl AsRef<[u8]>) -> Outcome {
        self.emit_to_batcher(batcher, batch_key.as_ref()).send()
    }

    /// Sends a value to a batcher, as JSON, with the message's key, headers and time.
    /// [`Message::json`] reads it back from the batch's items.
    ///
    /// # Errors
    /// When the value cannot be written as JSON; nothing is sent then.
    #[cfg(feature = "json")]
    pub fn to_batcher(
        &self,
        batcher: &str,
        batch_key: impl AsRef<[u8]>,
        value: &(impl serde::Serialize + ?Sized),
    ) -> crate::Result {
        self.emit_to_batcher(batcher, batch_key.as_ref()).send_json(value)
    }

    /// Begins an emission to an output.
    #[inline]
    pub fn emit<'e>(&self, output: &'e str) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, self.owner(), To::Output(output))
    }

    /// Begins an emission to the pipeline's only output (an error when it has none or several).
    #[inline]
    pub fn emit_default(&self) -> Emission<'a> {
        Emission::new(self.answer, self.owner(), To::Default)
    }

    /// Begins an emission to a batcher. Not for items of a batch: there is no batcher after a batcher.
    #[inline]
    pub fn emit_to_batcher<'e>(&self, batcher: &'e str, batch_key: &'e (impl AsRef<[u8]> + ?Sized)) -> Emission<'e>
    where
        'a: 'e,
    {
        Emission::new(self.answer, self.owner(), To::Batcher(batcher)).batch_key(batch_key.as_ref())
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
