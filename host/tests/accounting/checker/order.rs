//! The order of outputs: what one lane writes to one partition comes in the order of its records.
//!
//! A replay goes over what is there already; it must then go on exactly where the furthest had come to. At most once there is
//! no replay: what a crash gave up is left out, and what comes is later than all that came.

use std::collections::HashMap;

use super::tally::Tally;
use super::transcript::{Kind, Transcript};
use super::verdict::{Sort, Verdict};
use super::{Mode, Rules};

/// Finds outcomes that came before an earlier one of their lane. Outputs that are corrupt are no part of it.
pub fn gaps(transcript: &Transcript, rules: &Rules, tally: &Tally, verdict: &mut Verdict) {
    // Output stream and source partition, to the rank that comes next. At most once by owner as well: one that stood still and
    // was given up still does what it had committed, late.
    let mut next: HashMap<(Kind, i32, i32, Option<u64>), usize> = HashMap::new();
    for output in &transcript.outputs {
        let Some(stamp) = &output.stamp else { continue };
        let source = stamp.source;
        let Some(record) = tally.find(source.partition, source.offset) else { continue };
        let wanted = (output.kind, stamp.index);
        let expected = record.expected.iter().find(|one| (one.outcome.kind, one.outcome.index) == wanted);
        let Some(expected) = expected.filter(|_| record.output_partition == output.place.partition) else { continue };
        let owner = stamp.epoch.filter(|_| rules.mode == Mode::AtMostOnce);
        let next = next.entry((output.kind, output.place.partition, source.partition, owner)).or_default();
        let (kind, place) = (output.kind, output.place);
        if rules.mode == Mode::AtMostOnce && expected.rank < *next {
            let passed = *next - expected.rank;
            verdict.find(Sort::Gap, || format!("{kind:?} {place} is of {source}, {passed} too late"));
        }
        if rules.mode != Mode::AtMostOnce && expected.rank > *next {
            let missing = expected.rank - *next;
            verdict.find(Sort::Gap, || format!("{kind:?} {place} is of {source}, {missing} too early"));
        }
        // After a gap that was told the order goes on from there.
        *next = (*next).max(expected.rank + 1);
    }
}
