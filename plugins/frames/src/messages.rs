//! Burst and batch frames: what the host hands to a handler.

use crate::bytes::{i64_at, length, put, range, u16_at, u32_at, u64_at};
use crate::{Frame, FrameError, Headers, NULL, VERSION};

pub(crate) const KIND_BURST: u16 = 1;
pub(crate) const KIND_BATCH: u16 = 2;
const HEADER: usize = 56;
const SOURCE: usize = 12;
/// Bytes of one message's entry in the index.
pub const ENTRY: usize = 40;
const STOP_AT_REJECT: u32 = 1;

/// Which clock a timestamp came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum TimestampType {
    /// No timestamp.
    #[default]
    None = 0,
    /// Event time, set by the producer.
    CreateTime = 1,
    /// Set by the broker.
    LogAppendTime = 2,
}

/// Why a batch was closed. See `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are those of wit/types.wit, which explains them")]
pub enum Trigger {
    Size = 1,
    Bytes = 2,
    Timeout = 3,
    Flush = 4,
    Pressure = 5,
    Revoke = 6,
    Swap = 7,
    Shutdown = 8,
}

impl Trigger {
    /// All of them, in the order of the contract.
    pub const ALL: [Self; 8] =
        [Self::Size, Self::Bytes, Self::Timeout, Self::Flush, Self::Pressure, Self::Revoke, Self::Swap, Self::Shutdown];

    /// The name in the contract, in metrics and in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Bytes => "bytes",
            Self::Timeout => "timeout",
            Self::Flush => "flush",
            Self::Pressure => "pressure",
            Self::Revoke => "revoke",
            Self::Swap => "swap",
            Self::Shutdown => "shutdown",
        }
    }

    fn from_word(word: u32) -> Option<Self> {
        Self::ALL.get((word as usize).checked_sub(1)?).copied()
    }
}

/// A topic-partition that messages of a frame come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition number.
    pub partition: u32,
}

/// What a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchInfo<'a> {
    /// Name of the batcher.
    pub batcher: &'a str,
    /// What its messages have in common.
    pub batch_key: &'a [u8],
    /// Why it was closed.
    pub trigger: Trigger,
}

/// One message to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// Offset in its partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1 without one.
    pub timestamp: i64,
    /// Where the timestamp came from.
    pub timestamp_type: TimestampType,
    /// `None` = null.
    pub key: Option<&'a [u8]>,
    /// `None` = null.
    pub value: Option<&'a [u8]>,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Index of its source.
    pub source: u16,
}

/// Writes a burst or batch frame, message by message, with no allocation but the frame's own growth.
#[derive(Debug)]
pub struct MessagesWriter<'f> {
    frame: &'f mut Frame,
    count: u32,
}

impl<'f> MessagesWriter<'f> {
    /// Begins a burst of one topic-partition. Clears the frame first.
    pub fn burst(frame: &'f mut Frame, source: Source<'_>, ownership_epoch: u64, stop_at_reject: bool) -> Self {
        Self::begin(frame, KIND_BURST, &[source], ownership_epoch, u32::from(stop_at_reject) * STOP_AT_REJECT, None)
    }

    /// Begins a batch. Clears the frame first. `sources` is not empty.
    pub fn batch(frame: &'f mut Frame, sources: &[Source<'_>], ownership_epoch: u64, info: BatchInfo<'_>) -> Self {
        Self::begin(frame, KIND_BATCH, sources, ownership_epoch, 0, Some(info))
    }

    fn begin(
        frame: &'f mut Frame,
        kind: u16,
        sources: &[Source<'_>],
        ownership_epoch: u64,
        flags: u32,
        info: Option<BatchInfo<'_>>,
    ) -> Self {
        assert!(!sources.is_empty(), "a frame of messages has a source");
        frame.clear();
        let Frame { index, payload } = &mut *frame;
        index.resize(HEADER + sources.len() * SOURCE, 0);
        put(index, 0, VERSION.to_le_bytes());
        put(index, 2, kind.to_le_bytes());
        put(index, 8, flags.to_le_bytes());
        put(index, 12, length(sources.len()).to_le_bytes());
        put(index, 24, ownership_epoch.to_le_bytes());
        put(index, 52, (if sources.len() == 1 { 0 } else { NULL }).to_le_bytes());
        for (i, source) in sources.iter().enumerate() {
            let at = HEADER + i * SOURCE;
            put(index, at, length(payload.len()).to_le_bytes());
            put(index, at + 4, length(source.topic.len()).to_le_bytes());
            put(index, at + 8, source.partition.to_le_bytes());
            payload.extend_from_slice(source.topic.as_bytes());
        }
        if let Some(info) = info {
            for (at, bytes) in [(32, info.batcher.as_bytes()), (40, info.batch_key)] {
                put(index, at, length(payload.len()).to_le_bytes());
                put(index, at + 4, length(bytes.len()).to_le_bytes());
                payload.extend_from_slice(bytes);
            }
            put(index, 48, (info.trigger as u32).to_le_bytes());
        }
        Self { frame, count: 0 }
    }

    /// Goes on with a frame that was begun and finished before.
    pub fn resume(frame: &'f mut Frame) -> Self {
        let count = u32_at(&frame.index, 4);
        Self { frame, count }
    }

    /// Adds a message whose headers are written by `headers` (which may write none).
    #[inline]
    pub fn push_with(&mut self, message: &NewMessage<'_>, headers: impl FnOnce(&mut crate::HeadersWriter<'_>)) {
        self.push_parts(message, |payload| {
            let mut writer = crate::HeadersWriter::new(payload);
            headers(&mut writer);
            writer.finish()
        });
    }

    /// Adds a message with these headers.
    #[inline]
    pub fn push(&mut self, message: &NewMessage<'_>, headers: Headers<'_>) {
        self.push_parts(message, |payload| {
            payload.extend_from_slice(headers.block());
            length(headers.block().len())
        });
    }

    #[inline]
    fn push_parts(&mut self, message: &NewMessage<'_>, headers: impl FnOnce(&mut Vec<u8>) -> u32) {
        let payload = &mut self.frame.payload;
        let start = length(payload.len());
        payload.extend_from_slice(message.key.unwrap_or_default());
        payload.extend_from_slice(message.value.unwrap_or_default());
        let headers_len = headers(payload);
        let mut entry = [0u8; ENTRY];
        entry[0..8].copy_from_slice(&message.offset.to_le_bytes());
        entry[8..16].copy_from_slice(&message.timestamp.to_le_bytes());
        entry[16..20].copy_from_slice(&start.to_le_bytes());
        entry[20..24].copy_from_slice(&message.key.map_or(NULL, |key| length(key.len())).to_le_bytes());
        entry[24..28].copy_from_slice(&message.value.map_or(NULL, |value| length(value.len())).to_le_bytes());
        entry[28..32].copy_from_slice(&headers_len.to_le_bytes());
        entry[32..36].copy_from_slice(&message.attempt.to_le_bytes());
        entry[36..38].copy_from_slice(&message.source.to_le_bytes());
        entry[38] = message.timestamp_type as u8;
        self.frame.index.extend_from_slice(&entry);
        self.count += 1;
    }

    /// Messages written so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Bytes of the payload so far.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.frame.payload.len()
    }

    /// Ends the frame.
    pub fn finish(self) {
        put(&mut self.frame.index, 4, self.count.to_le_bytes());
    }
}

/// Sets the token of a frame's first message; message i has this + i.
pub fn set_first_token(frame: &mut Frame, token: u64) {
    put(&mut frame.index, 16, token.to_le_bytes());
}

/// Sets why a batch was closed.
pub fn set_trigger(frame: &mut Frame, trigger: Trigger) {
    put(&mut frame.index, 48, (trigger as u32).to_le_bytes());
}

/// Says whether the answer to a burst has to stop at the first reject.
pub fn set_stop_at_reject(frame: &mut Frame, stop: bool) {
    put(&mut frame.index, 8, (u32::from(stop) * STOP_AT_REJECT).to_le_bytes());
}

/// Sets the attempt number of one message.
pub fn set_attempt(frame: &mut Frame, message: usize, attempt: u32) {
    let sources = u32_at(&frame.index, 12) as usize;
    put(&mut frame.index, HEADER + sources * SOURCE + message * ENTRY + 32, attempt.to_le_bytes());
}

/// Writes messages `from..from + count` of `frame` as a frame of their own (the same kind, sources and batch).
pub fn copy_range(frame: &Frame, from: usize, count: usize, out: &mut Frame) {
    let all = Messages::new(frame);
    assert!(count > 0 && from + count <= all.len(), "a part of the frame");
    let head = HEADER + all.sources * SOURCE;
    let start = u32_at(all.entry(from), 16) as usize;
    let end = all.end_of(from + count - 1);
    // What lies before the first message: names of sources, batcher and batch key.
    let names = u32_at(all.entry(0), 16) as usize;
    out.clear();
    out.index.extend_from_slice(&frame.index[..head]);
    out.index.extend_from_slice(&frame.index[head + from * ENTRY..head + (from + count) * ENTRY]);
    put(&mut out.index, 4, length(count).to_le_bytes());
    out.payload.extend_from_slice(&frame.payload[..names]);
    out.payload.extend_from_slice(&frame.payload[start..end]);
    for i in 0..count {
        let at = head + i * ENTRY + 16;
        let moved = u32_at(&out.index, at) as usize - start + names;
        put(&mut out.index, at, length(moved).to_le_bytes());
    }
}

/// A burst or batch frame, read. A view: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Messages<'a> {
    index: &'a [u8],
    payload: &'a [u8],
    sources: usize,
    count: usize,
}

impl<'a> Messages<'a> {
    /// A view of a frame that this process wrote itself or that [`Messages::check`] accepted. Wrong bytes panic.
    #[inline]
    #[must_use]
    pub fn new(frame: &'a Frame) -> Self {
        Self::from_parts(&frame.index, &frame.payload)
    }

    /// As [`Messages::new`].
    #[inline]
    #[must_use]
    pub fn from_parts(index: &'a [u8], payload: &'a [u8]) -> Self {
        let sources = u32_at(index, 12) as usize;
        let count = u32_at(index, 4) as usize;
        Self { index, payload, sources, count }
    }

    /// Checks every word of a frame.
    ///
    /// # Errors
    /// Names the first field that breaks the layout.
    pub fn check(index: &'a [u8], payload: &'a [u8]) -> Result<Self, FrameError> {
        let err = |text: String| Err(FrameError::new(text));
        if index.len() < HEADER {
            return err(format!("the index has {} bytes, its header alone has {HEADER}", index.len()));
        }
        if u16_at(index, 0) != VERSION {
            return err(format!("layout version {}, this side reads {VERSION}", u16_at(index, 0)));
        }
        let kind = u16_at(index, 2);
        if kind != KIND_BURST && kind != KIND_BATCH {
            return err(format!("kind {kind} is neither a burst (1) nor a batch (2)"));
        }
        let (count, sources) = (u32_at(index, 4) as usize, u32_at(index, 12) as usize);
        let flags = u32_at(index, 8);
        if flags & !STOP_AT_REJECT != 0 || (kind == KIND_BATCH && flags != 0) {
            return err(format!("flags {flags:#x} hold reserved bits"));
        }
        if count == 0 || sources == 0 {
            return err(format!("{count} messages of {sources} sources: both have to be at least 1"));
        }
        let expected = sources
            .checked_mul(SOURCE)
            .and_then(|n| n.checked_add(count.checked_mul(ENTRY)?))
            .and_then(|n| n.checked_add(HEADER));
        if expected != Some(index.len()) {
            return err(format!("the index has {} bytes, its counts ({count}, {sources}) say otherwise", index.len()));
        }
        if u64_at(index, 16).checked_add(count as u64 - 1).is_none() {
            return err("the tokens run past 2^64-1".to_owned());
        }
        let one_source = u32_at(index, 52);
        if one_source != NULL && one_source as usize >= sources {
            return err(format!("the common source {one_source} is not one of {sources}"));
        }
        for at in [32, 40] {
            if range(payload, u32_at(index, at) as usize, u32_at(index, at + 4) as usize).is_none() {
                return err("batcher or batch key lies outside the payload".to_owned());
            }
        }
        let batcher = range(payload, u32_at(index, 32) as usize, u32_at(index, 36) as usize).unwrap_or_default();
        if std::str::from_utf8(batcher).is_err() {
            return err("the batcher's name is not UTF-8".to_owned());
        }
        let trigger = u32_at(index, 48);
        if (kind == KIND_BURST && (trigger != 0 || index[32..48] != [0; 16]))
            || (kind == KIND_BATCH && Trigger::from_word(trigger).is_none())
        {
            return err(format!("trigger {trigger} or batch fields do not fit kind {kind}"));
        }
        let messages = Self { index, payload, sources, count };
        for i in 0..sources {
            let at = HEADER + i * SOURCE;
            let topic = range(payload, u32_at(index, at) as usize, u32_at(index, at + 4) as usize);
            if topic.and_then(|topic| std::str::from_utf8(topic).ok()).is_none() {
                return err(format!("the topic of source {i} lies outside the payload or is not UTF-8"));
            }
        }
        for i in 0..count {
            messages.check_entry(i)?;
        }
        Ok(messages)
    }

    fn check_entry(&self, i: usize) -> Result<(), FrameError> {
        let entry = self.entry(i);
        let present = |at| match u32_at(entry, at) {
            NULL => 0,
            len => len as usize,
        };
        let headers_len = u32_at(entry, 28) as usize;
        let end = (u32_at(entry, 16) as usize)
            .checked_add(present(20))
            .and_then(|end| end.checked_add(present(24)))
            .and_then(|end| end.checked_add(headers_len));
        let Some(end) = end.filter(|end| *end <= self.payload.len()) else {
            return Err(FrameError::new(format!(
                "message {i} ends outside the payload ({} bytes)",
                self.payload.len()
            )));
        };
        Headers::check(&self.payload[end - headers_len..end])
            .map_err(|error| FrameError::new(format!("message {i}: {error}")))?;
        if u16_at(entry, 36) as usize >= self.sources {
            return Err(FrameError::new(format!("message {i}: source {} is not one of them", u16_at(entry, 36))));
        }
        if u32_at(self.index, 52) != NULL && u32_at(self.index, 52) != u32::from(u16_at(entry, 36)) {
            return Err(FrameError::new(format!("message {i}: its source is not the one of all messages")));
        }
        if entry[38] > 2 || entry[39] != 0 || u32_at(entry, 32) == 0 {
            return Err(FrameError::new(format!("message {i}: timestamp type, reserved byte or attempt is wrong")));
        }
        Ok(())
    }

    #[inline]
    fn entry(&self, i: usize) -> &'a [u8] {
        let at = HEADER + self.sources * SOURCE + i * ENTRY;
        &self.index[at..at + ENTRY]
    }

    /// Payload offset of the first byte after message `i`.
    fn end_of(&self, i: usize) -> usize {
        let entry = self.entry(i);
        let present = |at| match u32_at(entry, at) {
            NULL => 0,
            len => len as usize,
        };
        u32_at(entry, 16) as usize + present(20) + present(24) + u32_at(entry, 28) as usize
    }

    /// How many messages there are.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Never true for a valid frame.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True when the answer has to stop at the first reject.
    #[must_use]
    pub fn stop_at_reject(&self) -> bool {
        u32_at(self.index, 8) & STOP_AT_REJECT != 0
    }

    /// Token of the first message.
    #[must_use]
    pub fn first_token(&self) -> u64 {
        u64_at(self.index, 16)
    }

    /// Ownership epoch of the lane.
    #[must_use]
    pub fn ownership_epoch(&self) -> u64 {
        u64_at(self.index, 24)
    }

    /// What the batch is; `None` in a burst.
    #[must_use]
    pub fn batch_info(&self) -> Option<BatchInfo<'a>> {
        let text = |at| {
            let start = u32_at(self.index, at) as usize;
            &self.payload[start..start + u32_at(self.index, at + 4) as usize]
        };
        let trigger = Trigger::from_word(u32_at(self.index, 48))?;
        Some(BatchInfo { batcher: utf8(text(32)), batch_key: text(40), trigger })
    }

    /// The source of all messages, when it is one.
    #[must_use]
    pub fn common_source(&self) -> Option<Source<'a>> {
        match u32_at(self.index, 52) {
            NULL => None,
            i => Some(self.source(i as usize)),
        }
    }

    /// One of the sources.
    #[must_use]
    pub fn source(&self, i: usize) -> Source<'a> {
        assert!(i < self.sources, "source {i} of {}", self.sources);
        let at = HEADER + i * SOURCE;
        let start = u32_at(self.index, at) as usize;
        let topic = &self.payload[start..start + u32_at(self.index, at + 4) as usize];
        Source { topic: utf8(topic), partition: u32_at(self.index, at + 8) }
    }

    /// Message `i`.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> Message<'a> {
        assert!(i < self.count, "message {i} of {}", self.count);
        Message { messages: *self, entry: self.entry(i), number: i as u32 }
    }

    /// All messages in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Message<'a>> + use<'a> {
        let all = *self;
        (0..self.count).map(move |i| all.get(i))
    }
}

/// A string of the host's own or one that `check` looked at.
fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("names in a checked frame are UTF-8")
}

/// One message, read on demand.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    messages: Messages<'a>,
    entry: &'a [u8],
    number: u32,
}

impl<'a> Message<'a> {
    /// Its place in the frame, from 0.
    #[inline]
    #[must_use]
    pub const fn number(&self) -> usize {
        self.number as usize
    }

    /// Offset in its partition, 0 to 2^63-1.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> i64 {
        i64_at(self.entry, 0)
    }

    /// Milliseconds since 1970, -1 without a timestamp.
    #[inline]
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        i64_at(self.entry, 8)
    }

    /// Where the timestamp came from.
    #[inline]
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.entry[38] {
            1 => TimestampType::CreateTime,
            2 => TimestampType::LogAppendTime,
            _ => TimestampType::None,
        }
    }

    #[inline]
    fn start(&self) -> usize {
        u32_at(self.entry, 16) as usize
    }

    #[inline]
    fn key_len(&self) -> u32 {
        u32_at(self.entry, 20)
    }

    #[inline]
    fn value_start(&self) -> usize {
        let key_len = self.key_len();
        self.start() + if key_len == NULL { 0 } else { key_len as usize }
    }

    /// `None` = null.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        let len = self.key_len();
        let start = self.start();
        (len != NULL).then(|| &self.messages.payload[start..start + len as usize])
    }

    /// `None` = null.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        let len = u32_at(self.entry, 24);
        let start = self.value_start();
        (len != NULL).then(|| &self.messages.payload[start..start + len as usize])
    }

    /// Headers, not parsed until iterated.
    #[inline]
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        let len = u32_at(self.entry, 28) as usize;
        if len == 0 {
            return Headers::default();
        }
        let value_len = u32_at(self.entry, 24);
        let start = self.value_start() + if value_len == NULL { 0 } else { value_len as usize };
        Headers::new(&self.messages.payload[start..start + len])
    }

    /// Attempt, from 1.
    #[inline]
    #[must_use]
    pub fn attempt(&self) -> u32 {
        u32_at(self.entry, 32)
    }

    /// Its token.
    #[inline]
    #[must_use]
    pub fn token(&self) -> u64 {
        self.messages.first_token() + u64::from(self.number)
    }

    /// Topic-partition it came from.
    #[must_use]
    pub fn source(&self) -> Source<'a> {
        self.messages.source(u16_at(self.entry, 36) as usize)
    }
}
