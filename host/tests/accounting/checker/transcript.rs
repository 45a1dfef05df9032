//! What a run left on the broker, and its text form: one line each, as `tests/kafka/Transcript.java` documents it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::sync::Arc;

/// The topics of a run by what they are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What the handler emits for a message.
    Out,
    /// What the handler emits for an item of a batch.
    Batched,
    /// Dead letters.
    Dead,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Out, Kind::Batched, Kind::Dead];
}

/// Names of the topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub input: String,
    pub out: String,
    pub batched: String,
    pub dead: String,
}

impl Topics {
    pub fn of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Out => &self.out,
            Kind::Batched => &self.batched,
            Kind::Dead => &self.dead,
        }
    }

    fn kind(&self, topic: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| self.of(*kind) == topic)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: i32,
    pub offset: i64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

/// Who a record is: the headers that its producer gave it, and whether its bytes still are what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub run: Arc<str>,
    pub producer: u32,
    /// From 0, per producer and partition.
    pub seq: u64,
    /// From 0, per key.
    pub key_seq: u64,
    /// CRC-32C of key, value, producer and seq, as the producer reckoned it.
    pub crc: u32,
    /// The same, as the reader reckoned it of what is there.
    pub sum: u32,
    pub key: Arc<str>,
}

/// What an output says about where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub topic: Arc<str>,
    pub source: Place,
    /// Ownership epoch; dead letters name none.
    pub epoch: Option<u64>,
    /// The attempt that made it.
    pub attempt: u32,
    /// Digest of the component.
    pub version: Arc<str>,
    /// Number among the outputs of that record, from 0.
    pub index: u32,
}

#[derive(Clone, Debug)]
pub struct Input {
    pub offset: i64,
    /// Without, it is nobody's record.
    pub identity: Option<Identity>,
}

#[derive(Clone, Debug)]
pub struct Output {
    pub kind: Kind,
    pub place: Place,
    /// When the broker wrote it, milliseconds since 1970.
    pub at: i64,
    pub identity: Option<Identity>,
    pub stamp: Option<Stamp>,
}

/// A commit, in the order of the broker's log of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    pub partition: i32,
    /// The next offset to read; `None`: what was committed is forgotten.
    pub offset: Option<i64>,
    pub at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub start: i64,
    /// The last stable offset: where those who read committed end.
    pub stable: i64,
    pub high: i64,
}

#[derive(Clone, Debug)]
pub struct Transcript {
    pub topics: Topics,
    pub members: u32,
    pub input_ends: BTreeMap<i32, Ends>,
    pub output_ends: BTreeMap<(Kind, i32), Ends>,
    pub committed: BTreeMap<i32, i64>,
    pub commits: Vec<Commit>,
    /// By partition, in the order of offsets.
    pub inputs: BTreeMap<i32, Vec<Input>>,
    /// Those of one partition in the order of offsets.
    pub outputs: Vec<Output>,
}

impl Transcript {
    pub fn empty(topics: Topics) -> Transcript {
        Transcript {
            topics,
            members: 0,
            input_ends: BTreeMap::new(),
            output_ends: BTreeMap::new(),
            committed: BTreeMap::new(),
            commits: Vec::new(),
            inputs: BTreeMap::new(),
            outputs: Vec::new(),
        }
    }

    /// Reads the text form. An error names the line; a text that breaks off is one.
    pub fn parse(topics: Topics, text: impl BufRead) -> Result<Transcript, String> {
        let mut transcript = Transcript::empty(topics);
        let mut names = Names::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.map_err(|error| format!("line {}: {error}", number + 1))?;
            if line == "end" {
                return Ok(transcript);
            }
            transcript
                .take(&line, &mut names)
                .ok_or_else(|| format!("line {} is no line of a transcript: {line}", number + 1))?;
        }
        Err("the transcript breaks off: it has no line `end`".to_owned())
    }

    fn take(&mut self, line: &str, names: &mut Names) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match *fields.as_slice() {
            ["members", count] => self.members = count.parse().ok()?,
            ["ends", topic, partition, start, stable, high] => {
                let [start, stable, high] = [start.parse().ok()?, stable.parse().ok()?, high.parse().ok()?];
                let (ends, partition) = (Ends { start, stable, high }, partition.parse().ok()?);
                if topic == self.topics.input {
                    self.input_ends.insert(partition, ends);
                } else {
                    self.output_ends.insert((self.topics.kind(topic)?, partition), ends);
                }
            }
            ["committed", partition, offset] => {
                self.committed.insert(partition.parse().ok()?, offset.parse().ok()?);
            }
            ["commit", partition, offset, at] => {
                let (partition, offset, at) = (partition.parse().ok()?, offset.parse().ok()?, at.parse().ok()?);
                self.commits.push(Commit { partition, offset: Some(offset), at });
            }
            ["forgotten", partition] => {
                self.commits.push(Commit { partition: partition.parse().ok()?, offset: None, at: 0 });
            }
            ["record", topic, partition, offset, at, sum, key, ref headers @ ..] => {
                let place = Place { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
                let headers = Headers::parse(headers);
                let identity = headers.identity(u32::from_str_radix(sum, 16).ok()?, &plain(key), names);
                if topic == self.topics.input {
                    let records = self.inputs.entry(place.partition).or_default();
                    records.push(Input { offset: place.offset, identity });
                } else {
                    let kind = self.topics.kind(topic)?;
                    let stamp = if kind == Kind::Dead { headers.origin(names) } else { headers.stamp(names) };
                    self.outputs.push(Output { kind, place, at: at.parse().ok()?, identity, stamp });
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// Each text once: there are millions of records, and few keys, topics and versions.
#[derive(Default)]
struct Names(BTreeSet<Arc<str>>);

impl Names {
    fn one(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// Names and values, in their order.
struct Headers<'a>(Vec<(&'a str, String)>);

impl<'a> Headers<'a> {
    fn parse(fields: &[&'a str]) -> Headers<'a> {
        Headers(fields.iter().filter_map(|field| field.split_once('=')).map(|(n, v)| (n, plain(v))).collect())
    }

    /// The last of that name.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn identity(&self, sum: u32, key: &str, names: &mut Names) -> Option<Identity> {
        Some(Identity {
            run: names.one(self.text("run")?),
            producer: self.number("q")?,
            seq: self.number("seq")?,
            key_seq: self.number("kseq")?,
            crc: u32::from_str_radix(self.text("crc")?, 16).ok()?,
            sum,
            key: names.one(key),
        })
    }

    /// The stamp of an output with provenance.
    fn stamp(&self, names: &mut Names) -> Option<Stamp> {
        let mut source = self.text("sluicebox-source")?.rsplitn(3, '/');
        let (offset, partition, topic) = (source.next()?, source.next()?, source.next()?);
        Some(Stamp {
            topic: names.one(topic),
            source: Place { partition: partition.parse().ok()?, offset: offset.parse().ok()? },
            epoch: Some(self.number("sluicebox-epoch")?),
            attempt: self.number("sluicebox-attempt")?,
            version: names.one(self.text("sluicebox-version")?),
            index: self.number("sluicebox-index")?,
        })
    }

    /// The same of a dead letter, which has headers of its own for it.
    fn origin(&self, names: &mut Names) -> Option<Stamp> {
        Some(Stamp {
            topic: names.one(self.text("sluicebox-error-topic")?),
            source: Place {
                partition: self.number("sluicebox-error-partition")?,
                offset: self.number("sluicebox-error-offset")?,
            },
            epoch: None,
            attempt: self.number("sluicebox-error-attempts")?,
            version: names.one(self.text("sluicebox-error-version")?),
            index: 0,
        })
    }
}

/// A field as it was before the reader wrote it.
fn plain(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}
