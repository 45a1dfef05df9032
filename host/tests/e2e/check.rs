//! What the end to end tests have in common: numbered input, and the comparison of output with input.
//!
//! Record `n` has the key `key-<n mod keys>` and a value that begins with its number, so a loss, a repeat and a change of
//! order can be told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::client::{Commits, NewRecord, Producer, Record, create_topic, read_all, read_within};
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::Kafka;
use crate::support::tools::Tools;
use crate::support::{PATIENCE, scratch, unique};

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
        let text = manifest(&self.group, plugin, &self.input, source, rest);
        HostOptions::manifest(self.kafka, &self.group, &text)
    }

    /// A manifest as a file of a [`Site`]: a pipeline of this name, which is its group too, that reads the input.
    pub fn pipeline(&self, name: &str, plugin: &Path, rest: &str) -> String {
        manifest(name, plugin, &self.input, "", rest)
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
        wait_committed(self.kafka, &self.group, &self.input);
    }

    /// Ends the load, waits until all of it is done and committed, and stops the host: the output has every record once, in
    /// order.
    pub fn assert_done_once(&self, load: Load, host: &SluiceHost) {
        let count = load.stop();
        self.wait_committed();
        host.stop();
        let output = read_all(self.kafka, &self.output);
        assert_eq!(difference(&output, count), Difference::default());
        assert_in_order(&output);
    }
}

/// The text of a manifest: `source` and `rest` are lines of `[source]` and after it.
pub fn manifest(name: &str, plugin: &Path, topic: &str, source: &str, rest: &str) -> String {
    format!(
        "schema = 1\nname = \"{name}\"\n[handler]\ncomponent = \"{plugin}\"\n\
         [source]\ntopics = [\"{topic}\"]\n{source}\n{rest}\n",
        plugin = plugin.display(),
    )
}

/// The lines of a manifest that declare an output.
pub fn output(name: &str, topic: &str) -> String {
    format!("[output.{name}]\ntopic = \"{topic}\"\n")
}

/// A directory of manifests and the platform team's file beside it.
pub struct Site {
    directory: PathBuf,
    config: PathBuf,
}

impl Site {
    /// `config` is the text of the file; clusters are part of it.
    pub fn new(config: &str) -> Site {
        let directory = scratch().join(unique("site"));
        let pipelines = directory.join("pipelines");
        std::fs::create_dir_all(&pipelines).unwrap_or_else(|error| panic!("{}: {error}", pipelines.display()));
        let site = Site { config: directory.join("host.toml"), directory: pipelines };
        site.write(&site.config, config);
        site
    }

    /// The lines that name a cluster.
    pub fn cluster(name: &str, kafka: &Kafka) -> String {
        format!("[cluster.{name}]\nbootstrap = \"{}\"\n", kafka.bootstrap())
    }

    /// Adds a manifest.
    pub fn add(&self, name: &str, text: &str) {
        self.write(&self.directory.join(format!("{name}.toml")), text);
    }

    fn write(&self, path: &Path, text: &str) {
        std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// A host that runs all of it.
    pub fn start(&self) -> SluiceHost {
        let (pipelines, config) = (self.directory.display().to_string(), self.config.display().to_string());
        SluiceHost::start(&["host", "--pipelines", &pipelines, "--config", &config, "--admin", "127.0.0.1:0"])
    }
}

/// Waits until a group has committed all of a topic.
pub fn wait_committed(kafka: &Kafka, group: &str, topic: &str) {
    Commits::of(kafka, group, topic).wait_for_end(kafka, topic, PATIENCE);
}

/// The label of a metric of this pipeline.
pub fn pipeline(name: &str) -> String {
    format!("pipeline=\"{name}\"")
}

/// Numbered records that keep coming until told to stop, so that whatever a test does happens in mid-flow.
pub struct Load {
    stop: SyncSender<()>,
    thread: JoinHandle<u64>,
}

impl Load {
    const CHUNK: u64 = 20_000;
    /// Chunks a second of a load with a rate.
    const BEATS: u64 = 20;
    const BEAT: Duration = Duration::from_millis(1000 / Load::BEATS);

    /// As many records as the broker takes.
    pub fn start(stage: &Stage<'_>, size: usize, keys: u64) -> Load {
        Load::of(stage, move |n, key, value| numbered(n, size, keys, key, value))
    }

    /// About so many records a second: for tests that take long.
    pub fn paced(stage: &Stage<'_>, size: usize, keys: u64, per_second: u64) -> Load {
        let fill = move |n, key: &mut Vec<u8>, value: &mut Vec<u8>| numbered(n, size, keys, key, value);
        Load::run(stage.kafka, &stage.input, per_second / Load::BEATS, Load::BEAT, fill)
    }

    /// The same to another topic, with other keys.
    pub fn beside(stage: &Stage<'_>, topic: &str, per_second: u64) -> Load {
        let fill = |n, key: &mut Vec<u8>, value: &mut Vec<u8>| {
            key.extend_from_slice(b"beside-");
            numbered(n, 100, 512, key, value);
        };
        Load::run(stage.kafka, topic, per_second / Load::BEATS, Load::BEAT, fill)
    }

    /// Records that `fill` writes by their numbers.
    pub fn of(stage: &Stage<'_>, fill: impl Fn(u64, &mut Vec<u8>, &mut Vec<u8>) + Send + 'static) -> Load {
        Load::run(stage.kafka, &stage.input, Load::CHUNK, Duration::ZERO, fill)
    }

    fn run(
        kafka: &Kafka,
        topic: &str,
        chunk: u64,
        pause: Duration,
        fill: impl Fn(u64, &mut Vec<u8>, &mut Vec<u8>) + Send + 'static,
    ) -> Load {
        let (producer, topic) = (Producer::new(kafka), topic.to_owned());
        let (stop, stopped) = sync_channel(1);
        let run = move || {
            let mut first = 0;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                producer.fill(&topic, chunk, |n, key, value| fill(first + n, key, value));
                first += chunk;
            }
            first
        };
        Load { stop, thread: std::thread::spawn(run) }
    }

    /// Ends the load; how many records were produced in all.
    pub fn stop(self) -> u64 {
        // A load that failed has hung up, and says why when it is joined.
        self.stop.send(()).ok();
        self.thread.join().expect("producing went well")
    }
}

/// Waits until a topic has `count` records.
pub fn wait_for_records(kafka: &Kafka, topic: &str, count: usize) {
    let found = read_within(kafka, topic, count, PATIENCE).len();
    assert!(found >= count, "{topic} has {found} records after {PATIENCE:?}, not {count}");
}

/// Waits until all partitions are owned, by so many members, as Kafka's own tool says. Each look takes it a second.
pub fn wait_for_owners(stage: &Stage<'_>, members: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let positions = Tools(stage.kafka).describe_group(&stage.group);
        let owners: BTreeSet<&str> = positions.iter().filter_map(|position| position.consumer.as_deref()).collect();
        if owners.len() == members && positions.iter().all(|position| position.consumer.is_some()) {
            return;
        }
        assert!(Instant::now() < deadline, "{members} members never owned all partitions: {positions:?}");
    }
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

/// What a group committed never fell, on any partition: nobody who was thrown out of it moved anything back. How many commits
/// there were.
pub fn assert_commits_rise(stage: &Stage<'_>) -> usize {
    let mut commits = stage.commits();
    commits.catch_up(stage.kafka);
    let mut last: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for commit in commits.seen() {
        let before = last.insert((&commit.topic, commit.partition), commit.offset).unwrap_or(0);
        assert!(before <= commit.offset, "{}[{}] fell from {before}: {commit:?}", commit.topic, commit.partition);
    }
    commits.seen().len()
}

/// Values as text, sorted, for comparisons in which order plays no part.
pub fn sorted_values(records: &[Record]) -> Vec<String> {
    let mut values: Vec<String> = records.iter().map(|record| record.value_text().to_owned()).collect();
    values.sort();
    values
}
