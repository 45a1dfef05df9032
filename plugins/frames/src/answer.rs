//! Answer frames: what a handler says of a burst or a batch.

use crate::bytes::{i64_at, length, put, range, u16_at, u32_at, u64_at};
use crate::{Frame, FrameError, Headers, NULL, VERSION};

const KIND_ANSWER: u16 = 3;
const HEADER: usize = 32;
const DESTINATION: usize = 12;
const OUTCOME: usize = 16;
const EMISSION: usize = 48;
const ACK: usize = 8;
const FAIL: usize = 16;

const TIMESTAMP: u32 = 1 << 6;
const PARTITION: u32 = 1 << 7;
const PARTITION_KEY: u32 = 1 << 8;
const FLUSH: u32 = 1 << 9;
const KNOWN_FLAGS: u32 = (1 << 10) - 1;

/// Key or value of an emission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content<'a> {
    /// The source message's own.
    #[default]
    Inherit,
    /// Null.
    Null,
    /// These bytes.
    Bytes(&'a [u8]),
}

impl<'a> Content<'a> {
    const fn mode(self) -> u32 {
        match self {
            Self::Inherit => 0,
            Self::Null => 1,
            Self::Bytes(_) => 2,
        }
    }

    const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Headers of an emission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderMode<'a> {
    /// The source message's.
    #[default]
    Inherit,
    /// None.
    None,
    /// These instead of the source message's.
    Replace(Headers<'a>),
    /// The source message's, then these.
    Append(Headers<'a>),
}

/// What an emission goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DestinationKind {
    /// A declared output.
    Output = 0,
    /// A declared batcher.
    Batcher = 1,
}

/// An emission to be written. [`Default`] inherits everything and goes to the default output.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewEmission<'a> {
    /// From [`AnswerWriter::destination`]; `None` = the default output.
    pub destination: Option<u32>,
    /// Key.
    pub key: Content<'a>,
    /// Value.
    pub value: Content<'a>,
    /// Headers.
    pub headers: HeaderMode<'a>,
    /// `None` = inherit; 0 or less = now.
    pub timestamp: Option<i64>,
    /// A partition of the output's topic.
    pub partition: Option<u32>,
    /// Hashed instead of the key.
    pub partition_key: Option<&'a [u8]>,
    /// For batchers.
    pub batch_key: &'a [u8],
    /// For batchers: close the batch with this message.
    pub flush: bool,
}

/// The end of a payload where the value of one emission grows.
#[derive(Debug)]
pub struct ValueWriter<'p> {
    payload: &'p mut Vec<u8>,
    start: usize,
}

impl ValueWriter<'_> {
    /// Adds bytes.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.payload.extend_from_slice(bytes);
    }

    /// Adds one byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.payload.push(byte);
    }

    /// What was written so far, to be changed in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.payload[self.start..]
    }
}

impl Extend<u8> for ValueWriter<'_> {
    #[inline]
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.payload.extend(bytes);
    }
}

impl std::io::Write for ValueWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.payload.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.payload.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A place in an answer that is being written: see [`AnswerWriter::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    destinations: usize,
    outcomes: usize,
    emissions: usize,
    acks: usize,
    fails: usize,
    payload: usize,
}

/// Writes an answer frame.
#[derive(Debug, Default)]
pub struct AnswerWriter {
    destinations: Vec<u8>,
    outcomes: Vec<u8>,
    emissions: Vec<u8>,
    acks: Vec<u8>,
    fails: Vec<u8>,
    payload: Vec<u8>,
}

impl AnswerWriter {
    /// An empty answer: to a batch it says that all is done.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for the answer to `messages` messages whose emissions carry `bytes` bytes in all.
    #[must_use]
    pub fn with_capacity(messages: usize, bytes: usize) -> Self {
        Self {
            outcomes: Vec::with_capacity(messages * OUTCOME),
            emissions: Vec::with_capacity(messages * EMISSION),
            payload: Vec::with_capacity(bytes),
            ..Self::default()
        }
    }

    /// The index of a destination, entered into the table at its first use.
    pub fn destination(&mut self, kind: DestinationKind, name: &str) -> u32 {
        for (i, entry) in self.destinations.chunks_exact(DESTINATION).enumerate() {
            let (at, len) = (u32_at(entry, 4) as usize, u32_at(entry, 8) as usize);
            if u32_at(entry, 0) == kind as u32 && &self.payload[at..at + len] == name.as_bytes() {
                return i as u32;
            }
        }
        let place = length(self.destinations.len() / DESTINATION);
        self.destinations.extend_from_slice(&(kind as u32).to_le_bytes());
        self.destinations.extend_from_slice(&length(self.payload.len()).to_le_bytes());
        self.destinations.extend_from_slice(&length(name.len()).to_le_bytes());
        self.payload.extend_from_slice(name.as_bytes());
        place
    }

    /// Adds an emission. Those of a message come before its [`AnswerWriter::done`]; those of a batch as a whole come
    /// after the last outcome.
    #[inline]
    pub fn emission(&mut self, emission: &NewEmission<'_>) {
        let start = self.payload.len();
        self.payload.extend_from_slice(emission.key.bytes());
        self.payload.extend_from_slice(emission.value.bytes());
        self.after_value(emission, emission.value.mode(), start);
    }

    /// As [`AnswerWriter::emission`], with a value that `write` puts straight into the payload (`emission.value` is not
    /// looked at).
    ///
    /// # Errors
    /// What `write` gives; the emission is not added then.
    #[inline]
    pub fn emission_with<E>(
        &mut self,
        emission: &NewEmission<'_>,
        write: impl FnOnce(&mut ValueWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.payload.len();
        self.payload.extend_from_slice(emission.key.bytes());
        let value_start = self.payload.len();
        if let Err(error) = write(&mut ValueWriter { payload: &mut self.payload, start: value_start }) {
            self.payload.truncate(start);
            return Err(error);
        }
        self.after_value(emission, Content::Bytes(&[]).mode(), start);
        Ok(())
    }

    /// Writes what follows key and value, and the entry.
    #[inline(always)]
    fn after_value(&mut self, emission: &NewEmission<'_>, value_mode: u32, start: usize) {
        let payload = &mut self.payload;
        let key_len = emission.key.bytes().len();
        let value_len = payload.len() - start - key_len;
        let (header_mode, block): (u32, &[u8]) = match emission.headers {
            HeaderMode::Inherit => (0, &[]),
            HeaderMode::None => (1, &[]),
            // A block without headers is no block: "replace by nothing" and "append nothing" have modes of their own.
            HeaderMode::Replace(headers) if headers.is_empty() => (1, &[]),
            HeaderMode::Append(headers) if headers.is_empty() => (0, &[]),
            HeaderMode::Replace(headers) => (2, headers.block()),
            HeaderMode::Append(headers) => (3, headers.block()),
        };
        payload.extend_from_slice(block);
        let partition_key = emission.partition_key.unwrap_or_default();
        payload.extend_from_slice(partition_key);
        payload.extend_from_slice(emission.batch_key);
        let flags = emission.key.mode()
            | (value_mode << 2)
            | (header_mode << 4)
            | (u32::from(emission.timestamp.is_some()) * TIMESTAMP)
            | (u32::from(emission.partition.is_some()) * PARTITION)
            | (u32::from(emission.partition_key.is_some()) * PARTITION_KEY)
            | (u32::from(emission.flush) * FLUSH);
        let mut entry = [0u8; EMISSION];
        put(&mut entry, 0, emission.destination.unwrap_or(NULL).to_le_bytes());
        put(&mut entry, 4, flags.to_le_bytes());
        put(&mut entry, 8, length(start).to_le_bytes());
        put(&mut entry, 12, length(key_len).to_le_bytes());
        put(&mut entry, 16, length(value_len).to_le_bytes());
        put(&mut entry, 20, length(block.len()).to_le_bytes());
        put(&mut entry, 24, length(partition_key.len()).to_le_bytes());
        put(&mut entry, 28, length(emission.batch_key.len()).to_le_bytes());
        put(&mut entry, 32, emission.timestamp.unwrap_or(0).to_le_bytes());
        put(&mut entry, 40, emission.partition.unwrap_or(0).to_le_bytes());
        self.emissions.extend_from_slice(&entry);
    }

    /// How many emissions were written after the mark.
    #[inline]
    #[must_use]
    pub fn emissions_since(&self, mark: Mark) -> u32 {
        length((self.emissions.len() - mark.emissions) / EMISSION)
    }

    /// How many emissions there are so far.
    #[must_use]
    pub fn emission_count(&self) -> u32 {
        length(self.emissions.len() / EMISSION)
    }

    /// How many acks and fails there are so far.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.acks.len() / ACK + self.fails.len() / FAIL
    }

    fn outcome(&mut self, words: [u32; 4]) {
        let mut entry = [0u8; OUTCOME];
        for (place, word) in entry.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.outcomes.extend_from_slice(&entry);
    }

    fn text(&mut self, text: &str) -> (u32, u32) {
        let at = length(self.payload.len());
        self.payload.extend_from_slice(text.as_bytes());
        (at, length(text.len()))
    }

    /// The next message is done, and so many of the emissions are its own.
    #[inline]
    pub fn done(&mut self, emissions: u32) {
        self.outcome([0, emissions, 0, 0]);
    }

    /// The next message is to be tried again. `after` is in milliseconds; `None` = the pipeline's back-off. A longer
    /// time than 2^32-2 ms (49 days) is written as that.
    pub fn retry(&mut self, reason: &str, after: Option<u64>) {
        let (at, len) = self.text(reason);
        let after = after.map_or(NULL, |after| u32::try_from(after).unwrap_or(NULL - 1).min(NULL - 1));
        self.outcome([1, at, len, after]);
    }

    /// The next message is rejected.
    pub fn reject(&mut self, reason: &str) {
        let (at, len) = self.text(reason);
        self.outcome([2, at, len, 0]);
    }

    /// The next message stays open.
    pub fn hold(&mut self) {
        self.outcome([3, 0, 0, 0]);
    }

    /// Where the answer stands, for [`AnswerWriter::rewind`].
    #[inline]
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            destinations: self.destinations.len(),
            outcomes: self.outcomes.len(),
            emissions: self.emissions.len(),
            acks: self.acks.len(),
            fails: self.fails.len(),
            payload: self.payload.len(),
        }
    }

    /// Takes back all that was written after the mark (a handler's error after it emitted).
    pub fn rewind(&mut self, mark: Mark) {
        self.destinations.truncate(mark.destinations);
        self.outcomes.truncate(mark.outcomes);
        self.emissions.truncate(mark.emissions);
        self.acks.truncate(mark.acks);
        self.fails.truncate(mark.fails);
        self.payload.truncate(mark.payload);
    }

    /// Puts the emissions with these numbers, in this order, in place of all that were written (a batch's items may
    /// emit in any order).
    ///
    /// # Panics
    /// When there is no emission of such a number.
    pub fn select_emissions(&mut self, numbers: impl IntoIterator<Item = usize>) {
        let mut selected = Vec::with_capacity(self.emissions.len());
        for number in numbers {
            selected.extend_from_slice(&self.emissions[number * EMISSION..(number + 1) * EMISSION]);
        }
        self.emissions = selected;
    }

    /// A held message is finished.
    pub fn ack(&mut self, token: u64) {
        self.acks.extend_from_slice(&token.to_le_bytes());
    }

    /// A held message failed.
    pub fn fail(&mut self, token: u64, reason: &str) {
        let (at, len) = self.text(reason);
        self.fails.extend_from_slice(&token.to_le_bytes());
        self.fails.extend_from_slice(&at.to_le_bytes());
        self.fails.extend_from_slice(&len.to_le_bytes());
    }

    /// The frame.
    #[must_use]
    pub fn finish(self) -> Frame {
        let mut index = Vec::with_capacity(
            HEADER
                + self.destinations.len()
                + self.outcomes.len()
                + self.emissions.len()
                + self.acks.len()
                + self.fails.len(),
        );
        index.resize(HEADER, 0);
        put(&mut index, 0, VERSION.to_le_bytes());
        put(&mut index, 2, KIND_ANSWER.to_le_bytes());
        put(&mut index, 4, length(self.outcomes.len() / OUTCOME).to_le_bytes());
        put(&mut index, 8, length(self.emissions.len() / EMISSION).to_le_bytes());
        put(&mut index, 12, length(self.destinations.len() / DESTINATION).to_le_bytes());
        put(&mut index, 16, length(self.acks.len() / ACK).to_le_bytes());
        put(&mut index, 20, length(self.fails.len() / FAIL).to_le_bytes());
        for part in [&self.destinations, &self.outcomes, &self.emissions, &self.acks, &self.fails] {
            index.extend_from_slice(part);
        }
        Frame { index, payload: self.payload }
    }
}

/// What a handler said of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Done; so many of the next emissions are its own.
    Done {
        /// Number of emissions.
        emissions: u32,
    },
    /// Try again.
    Retry {
        /// For people.
        reason: &'a str,
        /// Milliseconds; `None` = the pipeline's back-off.
        after: Option<u32>,
    },
    /// Will never work.
    Reject {
        /// For people.
        reason: &'a str,
    },
    /// Stays open.
    Hold,
}

/// An answer frame that kept the layout. Every range in it lies inside its payload.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    payload: &'a [u8],
    destinations: &'a [u8],
    outcomes: &'a [u8],
    emissions: &'a [u8],
    acks: &'a [u8],
    fails: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Checks every word of an answer. How many outcomes a burst or a batch needs is for the caller to say.
    ///
    /// # Errors
    /// Names the first entry and field that break the layout.
    pub fn check(index: &'a [u8], payload: &'a [u8]) -> Result<Self, FrameError> {
        let err = |text: String| Err(FrameError::new(text));
        if index.len() < HEADER {
            return err(format!("the answer's index has {} bytes, its header alone has {HEADER}", index.len()));
        }
        if u16_at(index, 0) != VERSION {
            return err(format!("the answer has layout version {}, this host reads {VERSION}", u16_at(index, 0)));
        }
        if u16_at(index, 2) != KIND_ANSWER {
            return err(format!("frame of kind {} where an answer ({KIND_ANSWER}) is due", u16_at(index, 2)));
        }
        if index[24..32] != [0; 8] {
            return err("reserved words of the answer's header are not zero".to_owned());
        }
        let mut at = HEADER;
        let mut part = |count_at: usize, size: usize| -> Option<&'a [u8]> {
            let part = range(index, at, (u32_at(index, count_at) as usize).checked_mul(size)?)?;
            at += part.len();
            Some(part)
        };
        let parts = (|| {
            let destinations = part(12, DESTINATION)?;
            let outcomes = part(4, OUTCOME)?;
            let emissions = part(8, EMISSION)?;
            let acks = part(16, ACK)?;
            let fails = part(20, FAIL)?;
            Some(Self { payload, destinations, outcomes, emissions, acks, fails })
        })();
        let Some(answer) = parts.filter(|_| at == index.len()) else {
            return err(format!("the answer's index has {} bytes, its counts say otherwise", index.len()));
        };
        for (i, entry) in answer.destinations.chunks_exact(DESTINATION).enumerate() {
            if u32_at(entry, 0) > 1 {
                return err(format!("destination {i} has the unknown kind {}", u32_at(entry, 0)));
            }
            answer.text(entry, 4, || format!("name of destination {i}"))?;
        }
        let own = answer.check_outcomes()?;
        if own > answer.emission_count() as u64 {
            return err(format!("the outcomes claim {own} emissions, there are {}", answer.emission_count()));
        }
        let destinations = answer.destinations.len() / DESTINATION;
        for (i, entry) in answer.emissions.chunks_exact(EMISSION).filter_map(<[u8]>::first_chunk).enumerate() {
            answer.check_emission(i, entry, destinations)?;
        }
        for (i, entry) in answer.fails.chunks_exact(FAIL).enumerate() {
            answer.text(entry, 8, || format!("reason of fail {i}"))?;
        }
        Ok(answer)
    }

    /// Checks outcomes; gives the number of emissions they claim.
    fn check_outcomes(&self) -> Result<u64, FrameError> {
        let mut own = 0u64;
        for (i, entry) in self.outcomes.chunks_exact(OUTCOME).enumerate() {
            match u32_at(entry, 0) {
                0 if entry[8..16] == [0; 8] => own += u64::from(u32_at(entry, 4)),
                1 => _ = self.text(entry, 4, || format!("reason of outcome {i}"))?,
                2 if u32_at(entry, 12) == 0 => _ = self.text(entry, 4, || format!("reason of outcome {i}"))?,
                3 if entry[4..16] == [0; 12] => {}
                kind @ 0..=3 => {
                    return Err(FrameError::new(format!("outcome {i} (kind {kind}): an unused word is not zero")));
                }
                kind => return Err(FrameError::new(format!("outcome {i} has the unknown kind {kind}"))),
            }
        }
        Ok(own)
    }

    /// One emission's words. All of them are looked at in one go, since nearly always all are right; which one is wrong is
    /// looked for only then.
    #[inline]
    fn check_emission(&self, i: usize, entry: &[u8; EMISSION], destinations: usize) -> Result<(), FrameError> {
        let word = |at: usize| u32_at(entry, at);
        let (destination, flags) = (word(0), word(4));
        let (key, value, headers) = (flags & 3, flags >> 2 & 3, flags >> 4 & 3);
        let kind = match destination {
            NULL => 0,
            known if (known as usize) < destinations => u32_at(self.destinations, known as usize * DESTINATION),
            _ => NULL,
        };
        let own = [12, 16, 20, 24, 28].map(|at| u64::from(word(at)));
        let end = u64::from(word(8)) + own.iter().sum::<u64>();
        let wrong = (flags & !KNOWN_FLAGS != 0)
            | (key == 3)
            | (value == 3)
            | (word(44) != 0)
            | ((key != 2) & (own[0] != 0))
            | ((value != 2) & (own[1] != 0))
            | ((headers < 2) != (own[2] == 0))
            | ((flags & PARTITION_KEY == 0) & (own[3] != 0))
            | ((flags & TIMESTAMP == 0) & (i64_at(entry, 32) != 0))
            | ((flags & PARTITION == 0) & (word(40) != 0))
            | (kind == NULL)
            | ((kind == 0) & ((flags & FLUSH != 0) | (own[4] != 0)))
            | (own[2] != 0)
            | (end > self.payload.len() as u64);
        if wrong { self.check_emission_closely(i, entry, destinations) } else { Ok(()) }
    }

    /// The same word by word, with the headers that only few emissions have.
    #[cold]
    fn check_emission_closely(&self, i: usize, entry: &[u8], destinations: usize) -> Result<(), FrameError> {
        let err = |text: String| Err(FrameError::new(format!("emission {i}: {text}")));
        let destination = u32_at(entry, 0);
        if destination != NULL && destination as usize >= destinations {
            return err(format!("destination {destination} is not one of {destinations}"));
        }
        let flags = u32_at(entry, 4);
        let (key, value, headers) = (flags & 3, flags >> 2 & 3, flags >> 4 & 3);
        if flags & !KNOWN_FLAGS != 0 || key == 3 || value == 3 || u32_at(entry, 44) != 0 {
            return err(format!("flags {flags:#x} or the reserved word hold unknown bits"));
        }
        let len = |at: usize| u32_at(entry, at) as usize;
        if (key != 2 && len(12) != 0)
            || (value != 2 && len(16) != 0)
            || ((headers < 2) != (len(20) == 0))
            || (flags & PARTITION_KEY == 0 && len(24) != 0)
            || (flags & TIMESTAMP == 0 && i64_at(entry, 32) != 0)
            || (flags & PARTITION == 0 && u32_at(entry, 40) != 0)
        {
            return err(format!("a length or value that its flags ({flags:#x}) do not announce"));
        }
        let to_batcher = destination != NULL && u32_at(self.destinations, destination as usize * DESTINATION) == 1;
        if !to_batcher && (flags & FLUSH != 0 || len(28) != 0) {
            return err("flush and a batch key are for batchers, it goes to an output".to_owned());
        }
        let block_at = len(8).checked_add(len(12)).and_then(|n| n.checked_add(len(16)));
        let block = block_at.and_then(|at| range(self.payload, at, len(20)));
        let end = block_at
            .and_then(|n| n.checked_add(len(20)))
            .and_then(|n| n.checked_add(len(24)))
            .and_then(|n| n.checked_add(len(28)));
        let (Some(block), Some(_)) = (block, end.filter(|end| *end <= self.payload.len())) else {
            return err(format!("it ends outside the payload ({} bytes)", self.payload.len()));
        };
        match Headers::check(block) {
            Ok(_) => Ok(()),
            Err(error) => err(error.to_string()),
        }
    }

    fn text(&self, entry: &[u8], at: usize, what: impl FnOnce() -> String) -> Result<&'a str, FrameError> {
        let bytes = range(self.payload, u32_at(entry, at) as usize, u32_at(entry, at + 4) as usize);
        match bytes.map(std::str::from_utf8) {
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(FrameError::new(format!("{} is not UTF-8", what()))),
            None => Err(FrameError::new(format!("{} lies outside the payload", what()))),
        }
    }

    fn checked_text(&self, entry: &[u8], at: usize) -> &'a str {
        self.text(entry, at, String::new).expect("checked when the answer was")
    }

    /// Number of outcomes.
    #[must_use]
    pub const fn outcome_count(&self) -> usize {
        self.outcomes.len() / OUTCOME
    }

    /// Number of emissions, those of the batch as a whole included.
    #[must_use]
    pub const fn emission_count(&self) -> usize {
        self.emissions.len() / EMISSION
    }

    /// Kind and name of each destination.
    pub fn destinations(&self) -> impl ExactSizeIterator<Item = (DestinationKind, &'a str)> + use<'a> {
        let answer = *self;
        self.destinations.chunks_exact(DESTINATION).map(move |entry| {
            let kind = if u32_at(entry, 0) == 0 { DestinationKind::Output } else { DestinationKind::Batcher };
            (kind, answer.checked_text(entry, 4))
        })
    }

    /// Outcome `i`.
    #[inline]
    #[must_use]
    pub fn outcome(&self, i: usize) -> Outcome<'a> {
        let entry = &self.outcomes[i * OUTCOME..(i + 1) * OUTCOME];
        match u32_at(entry, 0) {
            0 => Outcome::Done { emissions: u32_at(entry, 4) },
            1 => {
                let after = u32_at(entry, 12);
                Outcome::Retry { reason: self.checked_text(entry, 4), after: (after != NULL).then_some(after) }
            }
            2 => Outcome::Reject { reason: self.checked_text(entry, 4) },
            _ => Outcome::Hold,
        }
    }

    /// Emission `i`.
    #[inline]
    #[must_use]
    pub fn emission(&self, i: usize) -> Emission<'a> {
        Emission { entry: &self.emissions[i * EMISSION..(i + 1) * EMISSION], payload: self.payload }
    }

    /// Tokens of held messages that are finished.
    pub fn acks(&self) -> impl ExactSizeIterator<Item = u64> + use<'a> {
        self.acks.chunks_exact(ACK).map(|entry| u64_at(entry, 0))
    }

    /// Tokens of held messages that failed, with the reason.
    pub fn fails(&self) -> impl ExactSizeIterator<Item = (u64, &'a str)> + use<'a> {
        let answer = *self;
        self.fails.chunks_exact(FAIL).map(move |entry| (u64_at(entry, 0), answer.checked_text(entry, 8)))
    }
}

/// One emission of a checked answer, read on demand.
#[derive(Clone, Copy, Debug)]
pub struct Emission<'a> {
    entry: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Emission<'a> {
    #[inline]
    fn len(&self, at: usize) -> usize {
        u32_at(self.entry, at) as usize
    }

    #[inline]
    fn flags(&self) -> u32 {
        u32_at(self.entry, 4)
    }

    #[inline]
    fn slice(&self, skip: usize, len: usize) -> &'a [u8] {
        let start = self.len(8) + skip;
        &self.payload[start..start + len]
    }

    /// Index into the destinations; `None` = the default output.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Option<usize> {
        let destination = u32_at(self.entry, 0);
        (destination != NULL).then_some(destination as usize)
    }

    /// Key.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Content<'a> {
        match self.flags() & 3 {
            0 => Content::Inherit,
            1 => Content::Null,
            _ => Content::Bytes(self.slice(0, self.len(12))),
        }
    }

    /// Value.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Content<'a> {
        match self.flags() >> 2 & 3 {
            0 => Content::Inherit,
            1 => Content::Null,
            _ => Content::Bytes(self.slice(self.len(12), self.len(16))),
        }
    }

    /// Headers.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> HeaderMode<'a> {
        let mode = self.flags() >> 4 & 3;
        match mode {
            0 => HeaderMode::Inherit,
            1 => HeaderMode::None,
            _ => {
                let headers = Headers::new(self.slice(self.len(12) + self.len(16), self.len(20)));
                if mode == 2 { HeaderMode::Replace(headers) } else { HeaderMode::Append(headers) }
            }
        }
    }

    /// `None` = inherit; 0 or less = now.
    #[inline]
    #[must_use]
    pub fn timestamp(&self) -> Option<i64> {
        (self.flags() & TIMESTAMP != 0).then(|| i64_at(self.entry, 32))
    }

    /// The partition it asks for.
    #[inline]
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        (self.flags() & PARTITION != 0).then(|| u32_at(self.entry, 40))
    }

    /// What is hashed in place of the key.
    #[inline]
    #[must_use]
    pub fn partition_key(&self) -> Option<&'a [u8]> {
        (self.flags() & PARTITION_KEY != 0)
            .then(|| self.slice(self.len(12) + self.len(16) + self.len(20), self.len(24)))
    }

    /// Bytes of the payload that are its own.
    #[inline]
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        self.len(12) + self.len(16) + self.len(20) + self.len(24) + self.len(28)
    }

    /// Batch key.
    #[inline]
    #[must_use]
    pub fn batch_key(&self) -> &'a [u8] {
        self.slice(self.len(12) + self.len(16) + self.len(20) + self.len(24), self.len(28))
    }

    /// Nothing but a destination, a timestamp, a key, a value: no partition, no headers of its own.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.flags() & (PARTITION | PARTITION_KEY | 0b10 << 4) == 0
    }

    /// Close the batch with this message.
    #[inline]
    #[must_use]
    pub fn flush(&self) -> bool {
        self.flags() & FLUSH != 0
    }
}
