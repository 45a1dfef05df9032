//! The order of outputs: what one lane writes to one partition comes in the order of its records.
//!
//! A replay goes over what is there already; it must then go on exactly where the furthest had come to.

use std::collections::HashMap;

use super::tally::Tally;
use super::transcript::{Kind, Transcript};
use super::verdict::{Sort, Verdict};

/// Finds outcomes that came before an earlier one of their lane. Outputs that are corrupt are no part of it.
pub fn gaps(transcript: &Transcript, tally: &Tally, verdict: &mut Verdict) {
    // Output stream and source partition, to the rank that comes next.
    let mut next: HashMap<(Kind, i32, i32), usize> = HashMap::new();
    for output in &transcript.outputs {
        let Some(stamp) = &output.stamp else { continue };
        let source = stamp.source;
        let Some(record) = tally.find(source.partition, source.offset) else { continue };
        let wanted = (output.kind, stamp.index);
        let expected = record.expected.iter().find(|one| (one.outcome.kind, one.outcome.index) == wanted);
        let Some(expected) = expected.filter(|_| record.output_partition == output.place.partition) else { continue };
        let next = next.entry((output.kind, output.place.partition, source.partition)).or_default();
        if expected.rank > *next {
            let missing = expected.rank - *next;
            let (kind, place) = (output.kind, output.place);
            verdict.find(Sort::Gap, || format!("{kind:?} {place} is of {source}, {missing} too early"));
        }
        // After a gap that was told the order goes on from there.
        *next = (*next).max(expected.rank + 1);
    }
}
