//! The input of a run with all that has to come of it, each outcome with a place to count it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Rules;
use super::oracle::{self, Outcome};
use super::transcript::{Kind, Transcript};
use super::verdict::{Sort, Verdict};
use crate::support::client::partition_of;

/// An expected outcome and what came of it.
#[derive(Clone, Debug)]
pub struct Expected {
    pub outcome: Outcome,
    /// Its number among the outcomes of the same source partition in the same output partition.
    pub rank: usize,
    pub count: u32,
    /// When the first one was written; `i64::MAX` without one.
    pub at: i64,
    pub epoch: Option<u64>,
}

/// A record of the input.
#[derive(Clone, Debug)]
pub struct Record {
    pub offset: i64,
    pub producer: u32,
    pub seq: u64,
    pub crc: u32,
    pub key: Arc<str>,
    /// The partition of the output topics that the key belongs to.
    pub output_partition: i32,
    pub expected: Vec<Expected>,
}

impl Record {
    /// When the last of its outcomes was first written.
    pub fn done_at(&self) -> Option<i64> {
        self.expected.iter().map(|expected| expected.at).max()
    }
}

/// Every record of the input, by partition in the order of offsets.
#[derive(Debug, Default)]
pub struct Tally {
    pub partitions: BTreeMap<i32, Vec<Record>>,
    /// When something came that had come before.
    pub repeats: Vec<i64>,
    /// The number after the last that a producer wrote to a partition.
    written: HashMap<(i32, u32), u64>,
}

impl Tally {
    /// Takes in the input and says what is wrong with it.
    pub fn of(transcript: &Transcript, rules: &Rules, verdict: &mut Verdict) -> Tally {
        let mut tally = Tally::default();
        let mut partitions: HashMap<Arc<str>, i32> = HashMap::new();
        for (partition, inputs) in &transcript.inputs {
            let mut next_seq: HashMap<u32, u64> = HashMap::new();
            let mut next_key_seq: HashMap<Arc<str>, u64> = HashMap::new();
            let mut ranks: HashMap<(Kind, i32), usize> = HashMap::new();
            let mut records = Vec::with_capacity(inputs.len());
            for input in inputs {
                let at = || format!("input {partition}/{}", input.offset);
                let Some(identity) = &input.identity else {
                    verdict.find(Sort::Void, || format!("{}: no record of the producers", at()));
                    continue;
                };
                if *identity.run != *rules.run || identity.crc != identity.sum {
                    verdict.find(Sort::Void, || format!("{}: of another run, or altered: {identity:?}", at()));
                }
                // A producer that was cut off sends again what it does not know to be written: that is one record more, and
                // the handler has to make of it what it makes of any. But none may be missing.
                let next = next_seq.entry(identity.producer).or_default();
                let next_of_key = next_key_seq.entry(Arc::clone(&identity.key)).or_default();
                if identity.seq > *next || identity.key_seq > *next_of_key {
                    let (next, next_of_key) = (*next, *next_of_key);
                    let what = || format!("{}: {identity:?}, not number {next}, {next_of_key} of its key", at());
                    verdict.find(Sort::Void, what);
                }
                verdict.sent_again += u64::from(identity.seq < *next);
                *next = (*next).max(identity.seq + 1);
                *next_of_key = (*next_of_key).max(identity.key_seq + 1);
                let output_partition = *partitions
                    .entry(Arc::clone(&identity.key))
                    .or_insert_with(|| partition_of(identity.key.as_bytes(), rules.output_partitions));
                let expected = oracle::expect(identity.seq).iter().map(|outcome| {
                    let next = ranks.entry((outcome.kind, output_partition)).or_default();
                    *next += 1;
                    Expected { outcome: *outcome, rank: *next - 1, count: 0, at: i64::MAX, epoch: None }
                });
                records.push(Record {
                    offset: input.offset,
                    producer: identity.producer,
                    seq: identity.seq,
                    crc: identity.crc,
                    key: Arc::clone(&identity.key),
                    output_partition,
                    expected: expected.collect(),
                });
            }
            tally.written.extend(next_seq.into_iter().map(|(producer, next)| ((*partition, producer), next)));
            verdict.records += records.len() as u64;
            tally.partitions.insert(*partition, records);
        }
        tally.compare_with_ledger(rules, verdict);
        tally
    }

    /// What a producer was told is written must be there.
    fn compare_with_ledger(&self, rules: &Rules, verdict: &mut Verdict) {
        for one in &rules.ledger {
            let there = match one.offset {
                Some(offset) => {
                    let found = self.find(one.partition, offset);
                    found.is_some_and(|record| (record.producer, record.seq) == (one.producer, one.seq))
                }
                None => self.written.get(&(one.partition, one.producer)).is_some_and(|next| one.seq < *next),
            };
            if !there {
                verdict.find(Sort::Void, || format!("{one:?} was acknowledged and is not there"));
            }
        }
    }

    pub fn find(&self, partition: i32, offset: i64) -> Option<&Record> {
        let records = self.partitions.get(&partition)?;
        let index = records.binary_search_by_key(&offset, |record| record.offset).ok()?;
        Some(&records[index])
    }

    pub fn find_mut(&mut self, partition: i32, offset: i64) -> Option<&mut Record> {
        let records = self.partitions.get_mut(&partition)?;
        let index = records.binary_search_by_key(&offset, |record| record.offset).ok()?;
        Some(&mut records[index])
    }
}
