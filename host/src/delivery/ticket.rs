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

/// Effects that became durable one after the other, of records that came one after the other: most of a topic that is passed on
/// with its keys is settled by few of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub first: Ticket,
    /// How many: of a record and those that follow it, one effect each. Of a gate, one.
    pub count: u32,
}

impl Run {
    /// One effect.
    #[must_use]
    pub const fn of(ticket: Ticket) -> Self {
        Self { first: ticket, count: 1 }
    }

    /// Takes the effect in if it is the next one.
    #[inline]
    pub fn takes(&mut self, ticket: Ticket) -> bool {
        let next = match (self.first.target, ticket.target) {
            (Target::Record(first), Target::Record(seq)) => {
                self.first.lane == ticket.lane && seq == first + u64::from(self.count) && self.count < u32::MAX
            }
            _ => false,
        };
        self.count += u32::from(next);
        next
    }
}

/// One record, or the records behind a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Effect of one record.
    Record(Seq),
    /// Effect of a batch as a whole: number of the gate.
    Gate(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_lane_and_without_gaps() {
        let of = |lane, target| Ticket { lane, target };
        let mut run = Run::of(of(1, Target::Record(7)));
        assert!(run.takes(of(1, Target::Record(8))) && run.takes(of(1, Target::Record(9))));
        for other in [Target::Record(9), Target::Record(11), Target::Record(6), Target::Gate(10)] {
            assert!(!run.takes(of(1, other)), "{other:?}");
        }
        assert!(!run.takes(of(2, Target::Record(10))));
        assert_eq!(run.count, 3);
        let mut gate = Run::of(of(1, Target::Gate(0)));
        assert!(!gate.takes(of(1, Target::Gate(1))) && !gate.takes(of(1, Target::Record(1))));
    }
}
