//! What comes out of the simulated handlers, and what a record has come to by it.

use super::knobs::Plan;

/// What a record on its way out is. Its value says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// An emission of the message stage.
    Out { offset: i64, number: u8 },
    /// What the batch stage made of an item.
    Item { offset: i64 },
    /// What a batch emitted as a whole: the items it did, and the held messages that its answer acked.
    Total { done: Vec<i64>, acked: Vec<i64> },
    /// The source record.
    Source { offset: i64 },
    /// What became of a message that was held, emitted beside something else.
    Late { offset: i64, stage: u8 },
    /// What a tick emitted as a whole: the held messages it acked.
    Tick(Vec<i64>),
    /// What the handler sent when it was asked about a failure.
    Failed { offset: i64 },
}

impl What {
    /// Bytes of a value; sources carry some more.
    pub(super) fn write(&self, value: &mut Vec<u8>) {
        value.clear();
        let kind = match self {
            Self::Out { .. } => 1,
            Self::Item { .. } => 2,
            Self::Total { .. } => 3,
            Self::Source { .. } => 4,
            Self::Late { .. } => 5,
            Self::Tick(_) => 6,
            Self::Failed { .. } => 7,
        };
        let number = match self {
            Self::Out { number, .. } => *number,
            Self::Late { stage, .. } => *stage,
            _ => 0,
        };
        value.extend_from_slice(&[kind, number]);
        value.extend((self.offsets().len() as u64).to_le_bytes());
        value.extend(self.offsets().iter().chain(self.acked()).flat_map(|offset| offset.to_le_bytes()));
    }

    pub(super) fn read(value: &[u8]) -> Self {
        let (number, rest) = (value[1], &value[10..]);
        let offset = |bytes: &[u8]| i64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let own = 8 * offset(&value[2..]) as usize;
        let all = |bytes: &[u8]| bytes.chunks_exact(8).map(offset).collect();
        match value[0] {
            1 => Self::Out { number, offset: offset(rest) },
            2 => Self::Item { offset: offset(rest) },
            3 => Self::Total { done: all(&rest[..own]), acked: all(&rest[own..]) },
            4 => Self::Source { offset: offset(rest) },
            5 => Self::Late { stage: number, offset: offset(rest) },
            6 => Self::Tick(all(rest)),
            7 => Self::Failed { offset: offset(rest) },
            other => panic!("a value of kind {other}, which no handler of this world makes"),
        }
    }

    /// Records that it is about.
    pub(super) fn offsets(&self) -> &[i64] {
        match self {
            Self::Out { offset, .. }
            | Self::Item { offset }
            | Self::Source { offset }
            | Self::Late { offset, .. }
            | Self::Failed { offset } => std::slice::from_ref(offset),
            Self::Total { done, .. } => done,
            Self::Tick(_) => &[],
        }
    }

    /// Held messages that the same answer acks. They fail with it when it is refused.
    pub(super) fn acked(&self) -> &[i64] {
        match self {
            Self::Total { acked, .. } | Self::Tick(acked) => acked,
            _ => &[],
        }
    }

    /// Its record is not finished before it is reported on. Of what acks a held message, the last counts.
    pub(super) const fn is_awaited(&self) -> bool {
        !matches!(self, Self::Late { .. })
    }

    /// An owner emits it once. What was held may be so again, and a failure may be asked about again.
    pub(super) const fn is_once(&self) -> bool {
        matches!(self, Self::Out { .. } | Self::Item { .. } | Self::Total { .. } | Self::Source { .. })
    }
}

/// What became of a record so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    outs: u8,
    item: bool,
    total: bool,
    dead: bool,
    late: [bool; 2],
    other: bool,
    /// The handler said that it is done, and the host took the answer.
    pub(super) answered: bool,
    /// The same of it when it was held at a stage.
    pub(super) acked: [bool; 2],
    /// Given up by declared policy.
    pub(super) dropped: bool,
}

impl Fate {
    pub(super) fn add(&mut self, what: &What) {
        self.put(what, true);
    }

    pub(super) fn remove(&mut self, what: &What) {
        self.put(what, false);
    }

    fn put(&mut self, what: &What, there: bool) {
        match what {
            What::Out { number, .. } if there => self.outs |= 1 << number,
            What::Out { number, .. } => self.outs &= !(1 << number),
            What::Item { .. } => self.item = there,
            What::Total { .. } => self.total = there,
            What::Source { .. } => self.dead = there,
            What::Late { stage, .. } => self.late[usize::from(*stage)] = there,
            What::Tick(_) | What::Failed { .. } => self.other = there,
        }
    }

    pub(super) fn has(&self, what: &What) -> bool {
        match what {
            What::Out { number, .. } => self.outs & (1 << number) != 0,
            What::Item { .. } => self.item,
            What::Total { .. } => self.total,
            What::Source { .. } => self.dead,
            What::Late { stage, .. } => self.late[usize::from(*stage)],
            What::Tick(_) | What::Failed { .. } => self.other,
        }
    }

    /// Everything is there that its plan wants, or a dead letter is.
    pub(super) fn is_complete(&self, plan: &Plan, totals: bool) -> bool {
        let released = |stage: usize| self.late[stage] && self.acked[stage];
        let emitted = self.outs == (1 << plan.emits) - 1;
        let batched = plan.item.is_none() || released(1) || self.item && (self.total || !totals);
        let answered = self.answered || plan.emits > 0 || plan.item.is_some();
        self.dropped || self.dead || released(0) || emitted && batched && answered
    }
}
