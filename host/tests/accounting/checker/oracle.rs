//! What the handler of `tests/guests/accounted` has to make of a record, told from its number alone.

use super::transcript::Kind;

/// One thing that has to come of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub kind: Kind,
    /// Number among the outputs of the record.
    pub index: u32,
    /// The attempt that succeeds, or the number of those that failed.
    pub attempt: u32,
}

/// Attempts that the manifest of a run allows.
pub const ATTEMPTS: u32 = 4;

/// What comes of record `seq`; nothing when it is filtered out.
pub fn expect(seq: u64) -> &'static [Outcome] {
    const fn one(kind: Kind, attempt: u32) -> [Outcome; 1] {
        [Outcome { kind, index: 0, attempt }]
    }
    const TWO: [Outcome; 2] =
        [Outcome { kind: Kind::Out, index: 0, attempt: 1 }, Outcome { kind: Kind::Out, index: 1, attempt: 1 }];
    const DEAD: [Outcome; 1] = one(Kind::Dead, ATTEMPTS);
    const THIRD: [Outcome; 1] = one(Kind::Out, 3);
    const BATCHED: [Outcome; 1] = one(Kind::Batched, 1);
    const ECHO: [Outcome; 1] = one(Kind::Out, 1);
    match seq {
        _ if seq % 1000 == 3 => &DEAD,
        _ if seq % 1000 == 5 => &THIRD,
        _ if seq.is_multiple_of(7) => &[],
        _ if seq.is_multiple_of(11) => &TWO,
        _ if seq % 5 == 2 => &BATCHED,
        _ => &ECHO,
    }
}
