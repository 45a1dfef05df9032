//! One emission while it is put together.

use std::convert::Infallible;

use sluicebox_frames::headers::push_header;
use sluicebox_frames::{Content, HeaderMode, Headers, NewEmission, ValueWriter};

use crate::Outcome;
use crate::answer::{Answer, To, WHOLE};

/// One message to send on: begun by `emit…` of [`Message`](crate::Message), [`Item`](crate::Item) or
/// [`Batch`](crate::Batch), sent by one of the `send…` methods.
///
/// An emission of a message inherits the message's key, value, headers and event time as long as nothing else is said,
/// and what is inherited is not copied. An emission of a batch as a whole has no source: its key and value are null, it
/// has no headers, its time is now.
#[derive(Debug)]
#[must_use = "an emission goes out when it is sent"]
pub struct Emission<'a> {
    answer: &'a Answer,
    owner: u32,
    to: To<'a>,
    parts: NewEmission<'a>,
    /// A header block (a count, then headers); empty until a header is added.
    headers: Vec<u8>,
    /// What `headers` are to the source's.
    replace: bool,
}

impl<'a> Emission<'a> {
    #[inline]
    pub(crate) fn new(answer: &'a Answer, owner: u32, to: To<'a>) -> Self {
        let mut parts = NewEmission::default();
        if owner == WHOLE {
            parts.key = Content::Null;
            parts.value = Content::Null;
            parts.headers = HeaderMode::None;
        }
        Self { answer, owner, to, parts, headers: Vec::new(), replace: owner == WHOLE }
    }

    #[inline]
    pub(crate) fn batch_key(mut self, key: &'a [u8]) -> Self {
        self.parts.batch_key = key;
        self
    }

    /// These bytes as key, which may be empty.
    #[inline]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.parts.key = Content::Bytes(key.as_ref());
        self
    }

    /// No key (Kafka's null).
    #[inline]
    pub fn null_key(mut self) -> Self {
        self.parts.key = Content::Null;
        self
    }

    /// These bytes as value, which may be empty. They are copied once; [`Emission::send_with`] spares that.
    #[inline]
    pub fn value(mut self, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.parts.value = Content::Bytes(value.as_ref());
        self
    }

    /// No value (Kafka's null: a tombstone in a compacted topic).
    #[inline]
    pub fn null_value(mut self) -> Self {
        self.parts.value = Content::Null;
        self
    }

    /// Adds a header after those that are there, the inherited ones included.
    pub fn header(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.any_header(name.as_ref(), Some(value.as_ref()))
    }

    /// As [`Emission::header`], with Kafka's null as its value.
    pub fn null_header(self, name: impl AsRef<[u8]>) -> Self {
        self.any_header(name.as_ref(), None)
    }

    /// Leaves out the source message's headers and those added so far; [`Emission::header`] may add others.
    pub fn no_headers(mut self) -> Self {
        self.parts.headers = HeaderMode::None;
        self.headers.clear();
        self.replace = true;
        self
    }

    /// These headers in place of the source message's.
    pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(self, headers: impl IntoIterator<Item = (N, Option<V>)>) -> Self {
        headers.into_iter().fold(self.no_headers(), |emission, (name, value)| {
            emission.any_header(name.as_ref(), value.as_ref().map(AsRef::as_ref))
        })
    }

    fn any_header(mut self, name: &[u8], value: Option<&[u8]>) -> Self {
        if self.headers.is_empty() {
            self.headers = self.answer.take_headers();
        }
        push_header(&mut self.headers, 0, name, value);
        self
    }

    /// Event time in milliseconds since 1970-01-01 UTC; 0 or less means now.
    #[inline]
    pub fn timestamp(mut self, millis: i64) -> Self {
        self.parts.timestamp = Some(millis);
        self
    }

    /// The time at which the record is produced.
    #[inline]
    pub fn timestamp_now(self) -> Self {
        self.timestamp(0)
    }

    /// A partition of the output's topic. Without it: by the hash (murmur2, as Java clients do) of the partition key,
    /// else of the key, else sticky.
    #[inline]
    pub fn partition(mut self, partition: u32) -> Self {
        self.parts.partition = Some(partition);
        self
    }

    /// Hashed in place of the key to choose the partition.
    #[inline]
    pub fn partition_key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.parts.partition_key = Some(key.as_ref());
        self
    }

    /// For batchers: close the batch as soon as this message is in it. Without effect on outputs.
    #[inline]
    pub fn flush(mut self) -> Self {
        self.parts.flush = matches!(self.to, To::Batcher(_));
        self
    }

    /// Sends it. Gives [`Outcome::done`], for handlers that end with it.
    #[inline]
    pub fn send(self) -> Outcome {
        let (answer, owner, to) = (self.answer, self.owner, self.to);
        self.with_headers(|parts| answer.emit(owner, to, parts));
        Outcome::done()
    }

    /// Sends it with a value that `write` puts straight into the answer.
    ///
    /// Do not emit from inside `write`: the answer is taken while it runs.
    #[inline]
    pub fn send_with(self, write: impl FnOnce(&mut ValueWriter<'_>)) -> Outcome {
        let written = self.send_with_result(|value| {
            write(value);
            Ok::<(), Infallible>(())
        });
        match written {
            Ok(outcome) => outcome,
            Err(never) => match never {},
        }
    }

    /// Sends it with this value as JSON.
    ///
    /// # Errors
    /// When the value cannot be written as JSON (a map whose keys are no strings); nothing is sent then.
    #[cfg(feature = "json")]
    pub fn send_json(self, value: &(impl serde::Serialize + ?Sized)) -> crate::Result {
        self.send_with_result(|writer| serde_json::to_writer(writer, value))
            .map_err(|error| crate::Error::retry(format_args!("the value cannot be written as JSON: {error}")))
    }

    #[inline]
    fn send_with_result<E>(
        self,
        write: impl FnOnce(&mut ValueWriter<'_>) -> Result<(), E>,
    ) -> std::result::Result<Outcome, E> {
        let (answer, owner, to) = (self.answer, self.owner, self.to);
        self.with_headers(|parts| answer.emit_with(owner, to, parts, write))?;
        Ok(Outcome::done())
    }

    /// Hands all parts to `send`, with the headers as they are now.
    #[inline]
    fn with_headers<T>(self, send: impl FnOnce(NewEmission<'_>) -> T) -> T {
        let Self { parts, headers, replace, answer, .. } = self;
        if headers.is_empty() {
            return send(parts);
        }
        let block = Headers::new(&headers);
        let mode = if replace { HeaderMode::Replace(block) } else { HeaderMode::Append(block) };
        let sent = send(NewEmission { headers: mode, ..parts });
        answer.keep_headers(headers);
        sent
    }
}
