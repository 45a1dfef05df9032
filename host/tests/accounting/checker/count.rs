//! Counting: each output goes to the record that it is of, and each record is asked for what it lacks.

use std::collections::{BTreeMap, HashMap};

use super::tally::{Expected, Record, Tally};
use super::transcript::{Kind, Output, Place, Transcript};
use super::verdict::{Sort, Verdict};
use super::{Mode, Rules};

/// What a commit may take to be seen by others, milliseconds.
const VISIBLE: i64 = 100;
/// What was on its way at a crash may arrive so long after it, or, from a batch, come so much later than what follows it,
/// milliseconds.
const ON_ITS_WAY: i64 = 2_000;

/// Counts every output, and finds those that nobody asked for.
pub fn outputs(transcript: &Transcript, rules: &Rules, tally: &mut Tally, verdict: &mut Verdict) {
    let commits = Commits::of(transcript);
    // Who made an outcome that came more than once.
    let mut owners: HashMap<(Place, Kind, u32), Vec<u64>> = HashMap::new();
    for output in &transcript.outputs {
        let mut repeat = false;
        match attribute(output, transcript, rules, tally) {
            Err(why) => verdict.find(Sort::Corrupt, || format!("{}: {why}", name(output))),
            Ok((source, expected)) => {
                let epoch = output.stamp.as_ref().and_then(|stamp| stamp.epoch);
                expected.count += 1;
                if expected.count == 1 {
                    (expected.at, expected.epoch) = (output.at, epoch);
                } else {
                    expected.at = expected.at.min(output.at);
                    repeat = true;
                }
                if let Some(epoch) = epoch {
                    let outcome = (source, expected.outcome.kind, expected.outcome.index);
                    if repeat {
                        let owners = owners.entry(outcome).or_insert_with(|| expected.epoch.into_iter().collect());
                        if owners.contains(&epoch) {
                            let who = || format!("{} is of {source}, which epoch {epoch} made before", name(output));
                            verdict.find(Sort::Doubled, who);
                        }
                        owners.push(epoch);
                    }
                    // An epoch is the microsecond at which its owner got the partition: he begins at what was committed.
                    let begun = i64::try_from(epoch / 1000).unwrap_or(i64::MAX);
                    let committed = commits.before(source.partition, begun - VISIBLE);
                    if source.offset < committed {
                        let who = || {
                            format!(
                                "{} is of {source}, but {committed} was committed when epoch {epoch} began",
                                name(output)
                            )
                        };
                        verdict.find(Sort::Doubled, who);
                    }
                }
            }
        }
        if repeat {
            tally.repeats.push(output.at);
            verdict.repeated += 1;
            if rules.crashes.is_empty() && rules.mode == Mode::AtLeastOnce {
                verdict.find(Sort::Doubled, || format!("{} came again, and nothing had crashed", name(output)));
            }
            if rules.mode == Mode::AtMostOnce {
                verdict.find(Sort::Doubled, || format!("{} came again, and may come at most once", name(output)));
            }
        }
    }
}

/// Asks every record what it lacks.
pub fn outcomes(transcript: &Transcript, rules: &Rules, tally: &Tally, verdict: &mut Verdict) {
    let mut cost = vec![0_u64; rules.crashes.len()];
    for (partition, records) in &tally.partitions {
        let committed = transcript.committed.get(partition).copied().unwrap_or(0);
        let crashes = if rules.mode == Mode::AtMostOnce { crashes_between(records, rules) } else { Vec::new() };
        for (place, record) in records.iter().enumerate() {
            for expected in &record.expected {
                let what = || {
                    let Record { offset, seq, .. } = record;
                    let Expected { outcome, count, .. } = expected;
                    format!("{partition}/{offset} (seq {seq}), committed {committed}: {outcome:?} came {count} times")
                };
                let done = record.offset < committed;
                match (rules.mode, expected.count) {
                    (Mode::AtMostOnce, 0) if done => match crashes[place] {
                        Some(crash) => cost[crash] += 1,
                        None => verdict.find(Sort::Lost, what),
                    },
                    (_, 0) if done => verdict.find(Sort::Lost, what),
                    (Mode::ExactlyOnce, 1..) if !done => verdict.find(Sort::Torn, what),
                    (Mode::ExactlyOnce, 2..) => verdict.find(Sort::Doubled, what),
                    _ => {}
                }
            }
        }
    }
    verdict.given_up = cost.iter().sum();
    verdict.given_up_by_one = cost.into_iter().max().unwrap_or_default();
}

/// For each record of a partition the crash that happened between what came of those before it and what came of those after
/// it, if there was one: that is when it was on its way.
fn crashes_between(records: &[Record], rules: &Rules) -> Vec<Option<usize>> {
    let first_at = |record: &Record| record.expected.iter().map(|expected| expected.at).min().unwrap_or(i64::MAX);
    let last_at = |record: &Record| {
        let came = record.expected.iter().filter(|expected| expected.count > 0);
        came.map(|expected| expected.at).max().unwrap_or(i64::MIN)
    };
    let mut after = vec![i64::MAX; records.len()];
    for place in (1..records.len()).rev() {
        after[place - 1] = after[place].min(first_at(&records[place]));
    }
    let mut before = i64::MIN;
    let mut found = Vec::with_capacity(records.len());
    for (record, after) in records.iter().zip(after) {
        let from = rules.crashes.partition_point(|crash| crash.at < before.saturating_sub(ON_ITS_WAY));
        let crash = rules.crashes.get(from).filter(|crash| crash.at <= after.saturating_add(ON_ITS_WAY));
        found.push(crash.map(|_| from));
        before = before.max(last_at(record));
    }
    found
}

/// The record and the outcome that an output is, or what is wrong with it.
fn attribute<'t>(
    output: &Output,
    transcript: &Transcript,
    rules: &Rules,
    tally: &'t mut Tally,
) -> Result<(Place, &'t mut Expected), String> {
    let (Some(identity), Some(stamp)) = (&output.identity, &output.stamp) else {
        return Err("it does not say what it is, or of what".to_owned());
    };
    if *stamp.topic != *transcript.topics.input {
        return Err(format!("it is of the topic {}", stamp.topic));
    }
    if !rules.versions.contains(&*stamp.version) {
        return Err(format!("version {} never ran", stamp.version));
    }
    let source = stamp.source;
    let Some(record) = tally.find_mut(source.partition, source.offset) else {
        return Err(format!("there is no record {source}"));
    };
    let of_record = (record.producer, record.seq, record.crc, &record.key);
    let of_output = (identity.producer, identity.seq, identity.crc, &identity.key);
    if of_record != of_output || identity.crc != identity.sum || *identity.run != *rules.run {
        return Err(format!("it is not what {source} is, which is {of_record:?}: {identity:?}"));
    }
    if record.output_partition != output.place.partition {
        return Err(format!("the key of {source} belongs to partition {}", record.output_partition));
    }
    let wanted = (output.kind, stamp.index);
    let found = record.expected.iter_mut().find(|one| (one.outcome.kind, one.outcome.index) == wanted);
    let expected = found.ok_or_else(|| format!("{source} has no such outcome: {wanted:?}"))?;
    if stamp.attempt != expected.outcome.attempt {
        return Err(format!("of attempt {} of {source}, not {}", stamp.attempt, expected.outcome.attempt));
    }
    Ok((source, expected))
}

fn name(output: &Output) -> String {
    format!("{:?} {} of {}", output.kind, output.place, output.at)
}

/// The highest commit up to a moment.
struct Commits(BTreeMap<i32, Vec<(i64, i64)>>);

impl Commits {
    fn of(transcript: &Transcript) -> Commits {
        let mut partitions: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        for commit in &transcript.commits {
            let Some(offset) = commit.offset else { continue };
            partitions.entry(commit.partition).or_default().push((commit.at, offset));
        }
        Commits(partitions)
    }

    fn before(&self, partition: i32, moment: i64) -> i64 {
        let Some(commits) = self.0.get(&partition) else { return 0 };
        let index = commits.partition_point(|(at, _)| *at < moment);
        index.checked_sub(1).map_or(0, |last| commits[last].1)
    }
}
