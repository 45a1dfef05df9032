//! The commits of a group as they happen, read from the broker's own log of them (`__consumer_offsets`).
//!
//! That makes "wait until the group has committed …" an event, and keeps the whole history: what was committed at the
//! moment of a kill is the last commit before it.

use std::time::{Duration, Instant};

use super::super::PATIENCE;
use super::super::kafka::Kafka;
use super::admin::{committed, end_offsets};
use super::read::Reader;
use super::{Record, TimestampType};

const TOPIC: &str = "__consumer_offsets";

/// One commit of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub topic: String,
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// When the broker wrote it, milliseconds since 1970.
    pub at: i64,
}

/// The commits of one group, from its first one on.
pub struct Commits {
    group: String,
    reader: Reader,
    seen: Vec<Commit>,
}

impl Commits {
    /// Follows the commits of `group` on `topic`'s cluster. The topic must exist: asking for its offsets makes the broker
    /// create its log of commits.
    pub fn of(kafka: &Kafka, group: &str, topic: &str) -> Commits {
        committed(kafka, group, topic);
        Commits { group: group.to_owned(), reader: Reader::new(kafka, TOPIC), seen: Vec::new() }
    }

    /// All commits seen so far, oldest first.
    pub fn seen(&self) -> &[Commit] {
        &self.seen
    }

    /// The last committed offset of a partition.
    pub fn last(&self, topic: &str, partition: i32) -> Option<i64> {
        self.seen
            .iter()
            .rfind(|commit| commit.topic == topic && commit.partition == partition)
            .map(|commit| commit.offset)
    }

    /// The sum of the last commits of a topic.
    pub fn total(&self, topic: &str) -> i64 {
        let mut last = std::collections::BTreeMap::new();
        for commit in self.seen.iter().filter(|commit| commit.topic == topic) {
            last.insert(commit.partition, commit.offset);
        }
        last.values().sum()
    }

    /// Waits until `enough` holds; `false` when the deadline passed first.
    pub fn wait_until(&mut self, patience: Duration, enough: impl Fn(&Commits) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut records = Vec::new();
        while !enough(self) {
            if !self.reader.read_into(&mut records, deadline) {
                return false;
            }
            let group = self.group.as_str();
            self.seen.extend(records.drain(..).filter_map(|record| parse(group, &record)));
        }
        true
    }

    /// Waits until the group has committed the end offsets that the topic has now, and panics when it does not.
    pub fn wait_for_end(&mut self, kafka: &Kafka, topic: &str, patience: Duration) {
        let ends = end_offsets(kafka, topic);
        let reached = self.wait_until(patience, |commits| {
            let all = ends.iter().enumerate();
            all.filter(|(_, end)| **end > 0).all(|(partition, end)| commits.last(topic, partition as i32) == Some(*end))
        });
        if !reached {
            let (group, log, broker) = (&self.group, self.lasts(topic), committed(kafka, &self.group, topic));
            panic!(
                "{group} did not commit {topic} to its end {ends:?} in {patience:?}; log {log:?}, broker {broker:?}"
            );
        }
    }

    /// Takes in what the broker has logged by now.
    pub fn catch_up(&mut self, kafka: &Kafka) {
        *self = Commits { group: self.group.clone(), reader: Reader::new(kafka, TOPIC), seen: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while !self.reader.at_end() {
            assert!(self.reader.read_into(&mut records, deadline), "the log of commits could not be read");
        }
        let group = self.group.as_str();
        self.seen.extend(records.iter().filter_map(|record| parse(group, record)));
    }

    fn lasts(&self, topic: &str) -> Vec<(i32, Option<i64>)> {
        let mut partitions: Vec<i32> =
            self.seen.iter().filter(|commit| commit.topic == topic).map(|commit| commit.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        partitions.into_iter().map(|partition| (partition, self.last(topic, partition))).collect()
    }
}

/// A commit of this group, if the record is one. Key: version (0 or 1), group, topic, partition. Value: version, offset, ….
fn parse(group: &str, record: &Record) -> Option<Commit> {
    debug_assert!(record.timestamp_type != TimestampType::LogAppend);
    let mut key = Fields(record.key.as_deref()?);
    if key.short()? > 1 || key.text()? != group {
        return None;
    }
    let (topic, partition) = (key.text()?.to_owned(), key.int()?);
    let mut value = Fields(record.value.as_deref()?);
    value.short()?;
    Some(Commit { topic, partition, offset: value.long()?, at: record.timestamp })
}

/// Reads Kafka's big-endian fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn short(&mut self) -> Option<i16> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i16::from_be_bytes(*head))
    }

    fn int(&mut self) -> Option<i32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i32::from_be_bytes(*head))
    }

    fn long(&mut self) -> Option<i64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(i64::from_be_bytes(*head))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.short()?).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}
