//! What an effect (a produced record, a dead letter) settles once it is durable. Carried through the producer, so small.

/// Number of a lane within one run of a pipeline. Never given twice, so a late report cannot meet another owner's lane:
/// the ownership epoch of design's vocabulary, made an address.
pub type LaneId = u32;

/// Number of a record within its lane, counted from 0 at assignment. (Offsets have gaps, these have none.)
pub type Seq = u64;

/// Where a delivery report goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The lane that caused the effect.
    pub lane: LaneId,
    /// What of that lane is one effect nearer to being settled.
    pub target: Target,
}

/// One record, or the records behind a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Effect of one record.
    Record(Seq),
    /// Effect of a batch as a whole: number of the gate.
    Gate(u64),
}
