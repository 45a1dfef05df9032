//! What the end to end tests have in common: numbered input, and the comparison of output with input.
//!
//! Record `n` has the key `key-<n mod keys>` and a value that begins with its number, so a loss, a repeat and a change of
//! order can be told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::client::{Commits, NewRecord, Producer, Record, create_topic, read_within};
use crate::support::host::HostOptions;
use crate::support::kafka::Kafka;
use crate::support::{PATIENCE, unique};

/// The topics and the group of one test.
pub struct Stage<'a> {
    pub kafka: &'a Kafka,
    pub input: String,
    pub output: String,
    pub group: String,
}

impl<'a> Stage<'a> {
    /// Fresh topics of `partitions` each and a fresh group.
    pub fn new(kafka: &'a Kafka, name: &str, partitions: i32) -> Stage<'a> {
        let stage = Stage {
            kafka,
            input: unique(&format!("{name}-in")),
            output: unique(&format!("{name}-out")),
            group: unique(name),
        };
        create_topic(kafka, &stage.input, partitions);
        create_topic(kafka, &stage.output, partitions);
        stage
    }

    /// A host with this handler from the input to the output.
    pub fn host(&self, plugin: &Path) -> HostOptions {
        HostOptions::new(self.kafka, plugin, &[&self.input], &self.group).output(&self.output)
    }

    /// The same as a manifest: `source` and `rest` are lines of `[source]` and after it.
    pub fn manifest(&self, plugin: &Path, source: &str, rest: &str) -> HostOptions {
        let text = format!(
            "schema = 1\nname = \"{group}\"\n[handler]\ncomponent = \"{plugin}\"\n\
             [source]\ntopics = [\"{input}\"]\n{source}\n{rest}\n",
            group = self.group,
            plugin = plugin.display(),
            input = self.input,
        );
        HostOptions::manifest(self.kafka, &self.group, &text)
    }

    /// A further topic of this test.
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        let topic = unique(&format!("{}-{name}", self.input));
        create_topic(self.kafka, &topic, partitions);
        topic
    }

    /// `count` numbered records of `size` bytes, from number `first` on.
    pub fn produce_numbered(&self, first: u64, count: u64, size: usize, keys: u64) {
        Producer::new(self.kafka).fill(&self.input, count, |n, key, value| numbered(first + n, size, keys, key, value));
    }

    /// These values, one record each, all with the same key.
    pub fn produce(&self, values: &[&str]) {
        let records: Vec<NewRecord> = values.iter().map(|value| NewRecord::new("key", *value)).collect();
        Producer::new(self.kafka).send(&self.input, &records);
    }

    pub fn commits(&self) -> Commits {
        Commits::of(self.kafka, &self.group, &self.input)
    }

    /// Waits until the group has committed all of the input.
    pub fn wait_committed(&self) {
        self.commits().wait_for_end(self.kafka, &self.input, PATIENCE);
    }
}

/// Numbered records that keep coming until told to stop, so that whatever a test does happens in mid-flow.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    const CHUNK: u64 = 20_000;

    pub fn start(stage: &Stage<'_>, size: usize, keys: u64) -> Load {
        let (producer, topic) = (Producer::new(stage.kafka), stage.input.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || {
            let mut first = 0;
            while !stopped.load(Ordering::Relaxed) {
                producer.fill(&topic, Load::CHUNK, |n, key, value| numbered(first + n, size, keys, key, value));
                first += Load::CHUNK;
            }
            first
        };
        Load { stop, thread: std::thread::spawn(run) }
    }

    /// Ends the load; how many records were produced in all.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("producing went well")
    }
}

/// Waits until a topic has `count` records.
pub fn wait_for_records(kafka: &Kafka, topic: &str, count: usize) {
    let found = read_within(kafka, topic, count, PATIENCE).len();
    assert!(found >= count, "{topic} has {found} records after {PATIENCE:?}, not {count}");
}

/// Writes record `n`.
pub fn numbered(n: u64, size: usize, keys: u64, key: &mut Vec<u8>, value: &mut Vec<u8>) {
    use std::io::Write;
    write!(key, "key-{:08}", n % keys).expect("writing to memory");
    write!(value, "{n:020} ").expect("writing to memory");
    value.resize(size, b'a' + (n % 26) as u8);
}

/// The number of a record.
pub fn number(record: &Record) -> u64 {
    record.value_text()[..20].parse().expect("a numbered record")
}

/// How the output differs from "every number of 0..count once".
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub missing: u64,
    /// Records beyond the first of their number.
    pub repeated: u64,
}

/// Compares the numbers in the output with 0..count.
pub fn difference(output: &[Record], count: u64) -> Difference {
    let mut seen = vec![0_u32; usize::try_from(count).expect("a count fits")];
    for record in output {
        let n = number(record);
        assert!(n < count, "record {n} was never produced");
        seen[n as usize] += 1;
    }
    Difference {
        missing: seen.iter().filter(|times| **times == 0).count() as u64,
        repeated: seen.iter().map(|times| u64::from(times.saturating_sub(1))).sum(),
    }
}

/// The first appearances of each key's records are in the order they were produced in.
pub fn assert_in_order(output: &[Record]) {
    let mut last: BTreeMap<(i32, &str), u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in output {
        let n = number(record);
        if !seen.insert(n) {
            continue;
        }
        if let Some(before) = last.insert((record.partition, record.key_text()), n) {
            assert!(before < n, "{} of {} came after {before} in {}", n, record.key_text(), record.partition);
        }
    }
}

/// Values as text, sorted, for comparisons in which order plays no part.
pub fn sorted_values(records: &[Record]) -> Vec<String> {
    let mut values: Vec<String> = records.iter().map(|record| record.value_text().to_owned()).collect();
    values.sort();
    values
}
