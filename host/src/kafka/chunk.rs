//! What is handed to librdkafka at once: the records of a batch, in memory that it reads from until it reports on them.
//!
//! Invariant: the bytes of a chunk do not move from the time it is sent until its last report.

use std::ptr;

use sluicebox_frames::{Headers, HeadersWriter};

use super::event_time::Extras;
use super::limits::RECORD_OVERHEAD;
use crate::delivery::outgoing::{HEADER_COST, Outgoing};
use crate::delivery::ticket::Ticket;

/// Bytes of a chunk of more than one record, at most; `max.message.bytes` of the topic limits it, too.
pub(super) const CHUNK_BYTES: usize = 900_000;

/// An output partition of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub topic: u16,
    pub partition: u32,
}

#[derive(Default)]
pub(super) struct Chunk {
    pub bytes: Vec<u8>,
    pub entries: Vec<Entry>,
    /// Takes no more records (a part of one that failed, or a record that travels alone).
    pub sealed: bool,
}

pub(super) struct Entry {
    /// Set when the chunk is sent: its bytes do not move from then on.
    pub base: *const u8,
    pub timestamp: i64,
    pub ticket: Ticket,
    /// Number of the topic: two may share one name, and so librdkafka's handle.
    pub topic: u16,
    pub start: u32,
    pub key_len: u32,
    pub value_len: u32,
    pub headers_len: u32,
    /// How many.
    pub headers: u32,
}

const NULL: u32 = u32::MAX;

impl Entry {
    pub fn len(len: u32) -> usize {
        if len == NULL { 0 } else { len as usize }
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        Self::len(self.key_len) + Self::len(self.value_len) + self.headers_len as usize
    }

    /// Bytes that it holds: a record without any content costs something, too, and so does each header.
    pub fn held(&self) -> usize {
        self.size() + size_of::<Self>() + self.headers as usize * HEADER_COST
    }

    /// Key, value and header block of an entry whose chunk is frozen or at hand.
    pub fn parts<'a>(&self, bytes: &'a [u8]) -> (Option<&'a [u8]>, Option<&'a [u8]>, &'a [u8]) {
        let key_end = self.start as usize + Self::len(self.key_len);
        let value_end = key_end + Self::len(self.value_len);
        (
            (self.key_len != NULL).then(|| &bytes[self.start as usize..key_end]),
            (self.value_len != NULL).then(|| &bytes[key_end..value_end]),
            &bytes[value_end..value_end + self.headers_len as usize],
        )
    }
}

impl Extras for Entry {
    fn timestamp(&self) -> i64 {
        self.timestamp
    }

    fn headers(&self) -> Headers<'_> {
        if self.headers_len == 0 {
            return Headers::default();
        }
        let at = self.start as usize + Self::len(self.key_len) + Self::len(self.value_len);
        // SAFETY: called while the chunk is being sent: `base` points to its bytes, which hold this range.
        Headers::new(unsafe { std::slice::from_raw_parts(self.base.add(at), self.headers_len as usize) })
    }
}

impl Chunk {
    pub fn has_room(&self, size: usize, limit: usize) -> bool {
        !self.sealed && self.wire_size() + size + RECORD_OVERHEAD <= limit
    }

    /// Memory that it keeps.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    pub fn wire_size(&self) -> usize {
        self.bytes.len() + self.entries.len() * RECORD_OVERHEAD
    }

    /// Says how many bytes it [holds](Entry::held).
    #[inline]
    pub fn push(&mut self, record: &Outgoing<'_>, timestamp: i64, ticket: Ticket, topic: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record.key.unwrap_or_default());
        self.bytes.extend_from_slice(record.value.unwrap_or_default());
        let headers_at = self.bytes.len();
        match record.headers {
            [a, b] if b.is_empty() => self.bytes.extend_from_slice(a.block()),
            [a, b] => {
                let mut writer = HeadersWriter::new(&mut self.bytes);
                writer.push_all(a);
                writer.push_all(b);
                _ = writer.finish();
            }
        }
        assert!(self.bytes.len() < NULL as usize, "a chunk below 4 GiB");
        let entry = Entry {
            base: ptr::null(),
            timestamp,
            ticket,
            topic,
            start: start as u32,
            key_len: record.key.map_or(NULL, |key| key.len() as u32),
            value_len: record.value.map_or(NULL, |value| value.len() as u32),
            headers_len: (self.bytes.len() - headers_at) as u32,
            headers: record.header_count() as u32,
        };
        let held = entry.held();
        self.entries.push(entry);
        held
    }

    /// Entries of another chunk as a sealed one of their own.
    pub fn part(from: &Self, entries: &[usize]) -> Self {
        let mut part = Self { sealed: true, ..Self::default() };
        for i in entries {
            let entry = &from.entries[*i];
            let (key, value, headers) = entry.parts(&from.bytes);
            let record = Outgoing { key, value, headers: [Headers::new(headers), Headers::default()], timestamp: 0 };
            part.push(&record, entry.timestamp, entry.ticket, entry.topic);
        }
        part
    }
}
