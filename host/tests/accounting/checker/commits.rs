//! Commits: where they stand in the end, and that each was true when it was written.

use std::collections::BTreeMap;

use super::tally::Tally;
use super::transcript::{Ends, Transcript};
use super::verdict::{Sort, Verdict};
use super::{Mode, Rules};

/// Every partition is committed to its end, nothing is open, nobody is left.
pub fn places(transcript: &Transcript, verdict: &mut Verdict) {
    if transcript.members > 0 {
        verdict.find(Sort::Hanging, || format!("the group still has {} members", transcript.members));
    }
    let inputs = transcript.input_ends.iter().map(|(partition, ends)| (format!("input {partition}"), *ends));
    let outputs = transcript.output_ends.iter().map(|((kind, p), ends)| (format!("{kind:?} {p}"), *ends));
    for (name, Ends { stable, high, .. }) in inputs.chain(outputs).filter(|(_, ends)| ends.stable < ends.high) {
        verdict.find(Sort::Hanging, || format!("{name}: a transaction holds the end at {stable} of {high}"));
    }
    for (partition, ends) in &transcript.input_ends {
        let committed = transcript.committed.get(partition).copied();
        let records = transcript.inputs.get(partition).map_or(&[][..], Vec::as_slice);
        let from = committed.unwrap_or(ends.start);
        if !(ends.start..=ends.stable).contains(&from) {
            verdict
                .find(Sort::Misplaced, || format!("partition {partition}: committed {committed:?} is not in {ends:?}"));
        }
        let left = records.iter().filter(|record| record.offset >= from).count();
        if left > 0 {
            let found =
                || format!("partition {partition}: {left} records at and after the committed offset {committed:?}");
            verdict.find(Sort::Misplaced, found);
        }
        let last = transcript.commits.iter().rfind(|commit| commit.partition == *partition);
        if last.and_then(|commit| commit.offset) != committed {
            let found =
                || format!("partition {partition}: committed is {committed:?}, the log of commits ends with {last:?}");
            verdict.find(Sort::Misplaced, found);
        }
    }
}

/// A commit never falls, and never comes before the outcomes that it is about; at most once, never after one of them. The broker
/// that writes both has one clock.
pub fn history(transcript: &Transcript, rules: &Rules, tally: &Tally, verdict: &mut Verdict) {
    let at_most_once = rules.mode == Mode::AtMostOnce;
    let wrong = |outcome: i64, commit: i64| if at_most_once { outcome < commit } else { outcome > commit };
    // The record that the next commit has to look at.
    let mut looked: BTreeMap<i32, usize> = BTreeMap::new();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    for commit in &transcript.commits {
        let partition = commit.partition;
        let Some(offset) = commit.offset else {
            last.remove(&partition);
            continue;
        };
        if let Some(before) = last.insert(partition, offset)
            && offset < before
        {
            verdict.find(Sort::StaleCommit, || {
                format!("partition {partition}: {offset} after {before}, at {}", commit.at)
            });
        }
        let records = tally.partitions.get(&partition).map_or(&[][..], Vec::as_slice);
        let looked = looked.entry(partition).or_default();
        while let Some(record) = records.get(*looked).filter(|record| record.offset < offset) {
            *looked += 1;
            for expected in
                record.expected.iter().filter(|expected| expected.count > 0 && wrong(expected.at, commit.at))
            {
                verdict.find(Sort::EarlyCommit, || {
                    let (record, outcome) = (record.offset, expected.outcome);
                    format!(
                        "partition {partition}: {offset} at {}; {outcome:?} of {record} at {}",
                        commit.at, expected.at
                    )
                });
            }
        }
    }
}
