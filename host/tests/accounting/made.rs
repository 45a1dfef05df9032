//! Good transcripts, made: what a run leaves behind when everything is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::checker::oracle::expect;
use crate::checker::transcript::{Commit, Ends, Identity, Input, Kind, Output, Place, Stamp, Topics, Transcript};
use crate::checker::{Acknowledged, Crash, Mode, Rules};
use crate::support::client::partition_of;
use crate::support::random::Random;

pub const PARTITIONS: i32 = 3;
const OUTPUT_PARTITIONS: i32 = 4;
const EACH: usize = 1200;
const COMMIT_EVERY: usize = 100;
/// The owner dies when it has made so many of each partition.
const CRASH_AT: usize = 650;
/// Records in all.
pub const RECORDS: u64 = PARTITIONS as u64 * EACH as u64;
const START: i64 = 1_760_000_000_000;
/// Between two outputs, milliseconds.
pub const STEP: i64 = 2;
/// Records of each partition that the owner has committed and not made when it dies, where it commits first.
pub const GIVEN_UP: std::ops::Range<usize> = CRASH_AT..(CRASH_AT / COMMIT_EVERY + 1) * COMMIT_EVERY;
/// After everything.
pub const END: i64 = START + 1_000_000;
/// How long nobody owns the partitions after the crash, seconds.
pub const DOWN: f64 = 3.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    Quiet,
    /// The one owner dies with work that is not committed, and another begins at the commit.
    Crash,
}

/// A transcript in which all is well, and the rules that it kept.
pub fn make(mode: Mode, story: Story) -> (Transcript, Rules) {
    let named = |name: &str| name.to_owned();
    let topics = Topics { input: named("in"), out: named("out"), batched: named("batched"), dead: named("dead") };
    let mut run = Run { transcript: Transcript::empty(topics), now: START, ends: BTreeMap::new() };
    let mut ledger = Vec::new();
    for partition in 0..PARTITIONS {
        let inputs = inputs(partition);
        ledger.extend(inputs.iter().step_by(3).map(|input| {
            let Identity { producer, seq, .. } = *input.identity.as_ref().expect("it has one");
            Acknowledged { partition, offset: (input.offset % 2 == 0).then_some(input.offset), producer, seq }
        }));
        let end = EACH as i64;
        run.transcript.input_ends.insert(partition, Ends { start: 0, stable: end, high: end });
        run.transcript.inputs.insert(partition, inputs);
    }
    let mut crashes = Vec::new();
    let mut from = 0;
    if story == Story::Crash {
        from = CRASH_AT / COMMIT_EVERY * COMMIT_EVERY;
        if mode == Mode::AtMostOnce {
            from += COMMIT_EVERY;
        }
        run.own(mode, 0, CRASH_AT, from);
        crashes.push(Crash { at: run.now, what: named("the owner dies") });
        run.now += (DOWN * 1000.0) as i64;
    }
    run.own(mode, from, EACH, EACH);
    for kind in Kind::ALL {
        for partition in 0..OUTPUT_PARTITIONS {
            let high = run.ends.get(&(kind, partition)).copied().unwrap_or_default();
            run.transcript.output_ends.insert((kind, partition), Ends { start: 0, stable: high, high });
        }
    }
    assert!(run.now < END, "the story ends in time");
    let rules = Rules {
        mode,
        run: named("this"),
        versions: BTreeSet::from([named("d16e57")]),
        output_partitions: OUTPUT_PARTITIONS,
        crashes,
        ledger,
    };
    (run.transcript, rules)
}

/// Two producers in turn, eight keys.
fn inputs(partition: i32) -> Vec<Input> {
    let mut key_seqs = [0; 8];
    let record = |offset: usize| {
        let key = offset % 8;
        key_seqs[key] += 1;
        let crc = (offset as u32).wrapping_mul(2_654_435_761) ^ partition as u32;
        let identity = Identity {
            run: "this".into(),
            producer: (offset % 2) as u32,
            seq: offset as u64 / 2,
            key_seq: key_seqs[key] - 1,
            crc,
            sum: crc,
            key: format!("p{partition}k{key}").into(),
        };
        Input { offset: offset as i64, identity: Some(identity) }
    };
    (0..EACH).map(record).collect()
}

struct Run {
    transcript: Transcript,
    now: i64,
    ends: BTreeMap<(Kind, i32), i64>,
}

impl Run {
    /// One owner of all partitions makes the records `from..to` of each, in turn, and commits every so often, up to a place: what
    /// it has made; or, at most once, what it makes next.
    fn own(&mut self, mode: Mode, from: usize, to: usize, commit_to: usize) {
        let epochs: Vec<u64> = (0..PARTITIONS).map(|partition| self.now as u64 * 1000 + partition as u64).collect();
        self.now += STEP;
        let before = mode == Mode::AtMostOnce;
        for offset in from..to {
            if before && offset % COMMIT_EVERY == 0 {
                self.commit((offset + COMMIT_EVERY).min(commit_to));
            }
            for partition in 0..PARTITIONS {
                let input = self.transcript.inputs[&partition][offset].clone();
                self.outcomes(partition, &input, epochs[partition as usize]);
            }
            let next = offset + 1;
            if !before && (next % COMMIT_EVERY == 0 || next == to) && next <= commit_to {
                self.commit(next);
            }
        }
    }

    fn commit(&mut self, next: usize) {
        self.now += STEP;
        for partition in 0..PARTITIONS {
            self.transcript.commits.push(Commit { partition, offset: Some(next as i64), at: self.now });
            self.transcript.committed.insert(partition, next as i64);
        }
    }

    fn outcomes(&mut self, partition: i32, input: &Input, epoch: u64) {
        let identity = input.identity.as_ref().expect("it has one");
        let output_partition = partition_of(identity.key.as_bytes(), OUTPUT_PARTITIONS);
        for outcome in expect(identity.seq) {
            self.now += STEP;
            let end = self.ends.entry((outcome.kind, output_partition)).or_default();
            let version: Arc<str> = "d16e57".into();
            self.transcript.outputs.push(Output {
                kind: outcome.kind,
                place: Place { partition: output_partition, offset: *end },
                at: self.now,
                identity: Some(identity.clone()),
                stamp: Some(Stamp {
                    topic: "in".into(),
                    source: Place { partition, offset: input.offset },
                    epoch: (outcome.kind != Kind::Dead).then_some(epoch),
                    attempt: outcome.attempt,
                    version,
                    index: outcome.index,
                }),
            });
            *end += 1;
        }
    }
}

/// Chooses by chance, the same for the same seed.
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Random::of(seed))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    /// The index of some output.
    pub fn output(&mut self, transcript: &Transcript) -> usize {
        self.below(transcript.outputs.len())
    }

    /// The index of some output of which this holds.
    pub fn find(&mut self, transcript: &Transcript, holds: impl Fn(&Output) -> bool) -> usize {
        let all: Vec<usize> =
            transcript.outputs.iter().enumerate().filter(|(_, output)| holds(output)).map(|(at, _)| at).collect();
        all[self.below(all.len())]
    }
}
