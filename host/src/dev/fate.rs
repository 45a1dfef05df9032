//! Has every record of the inputs met its fate? Pure: takes the broker's offsets and the pipeline's word on its lanes.

use crate::pipeline::lane::LaneState;
use crate::pipeline::status::LaneFigures;

/// What is known of one input partition.
#[derive(Clone, Debug)]
pub struct InputPartition {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Where it ends, by the broker.
    pub end: i64,
    /// What is committed, by the broker.
    pub committed: Option<i64>,
    /// Its lane, when the pipeline has it.
    pub lane: Option<LaneFigures>,
}

impl InputPartition {
    /// Records between what is committed and the end. The embedded broker begins every partition at 0.
    #[must_use]
    pub fn lag(&self) -> u64 {
        u64::try_from(self.end - self.committed.unwrap_or(0)).unwrap_or(0)
    }

    fn name(&self) -> String {
        format!("{}[{}]", self.topic, self.partition)
    }

    /// Why it is blocked, if it is.
    fn blocked(&self) -> Option<String> {
        let lane = self.lane.as_ref()?;
        let LaneState::Blocked(reason) = &lane.state else { return None };
        let offset = lane.committable.or(self.committed).unwrap_or(0);
        Some(format!("{}@{offset} is blocked: {reason}", self.name()))
    }

    /// What its records wait for.
    fn open(&self) -> String {
        let name = self.name();
        let from = self.lane.as_ref().and_then(|lane| lane.committable).or(self.committed).unwrap_or(0);
        let count = u64::try_from(self.end - from).unwrap_or(0);
        match &self.lane {
            None => format!("{name}: nobody has the partition, {count} records wait"),
            Some(_) if count == 0 => format!("{name}: all is settled, but not committed"),
            Some(LaneFigures { state: LaneState::BackingOff(reason), .. }) => {
                format!("{name}@{from} is tried again: {reason}")
            }
            Some(LaneFigures { open: 0, .. }) => format!("{name}@{from}: {count} records were not fetched"),
            Some(lane) => format!(
                "{name}@{from}: {} records are open: in the handler, in a batch that waits for more (see max_wait), or on \
                 their way out",
                lane.open
            ),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Every record is settled and committed.
    Settled,
    /// What is not settled is blocked: this is why.
    Blocked(Vec<String>),
    /// Some are on their way: this is where. Blocked ones come first.
    Open(Vec<String>),
}

/// Looks at all input partitions.
#[must_use]
pub fn fate(partitions: &[InputPartition]) -> Fate {
    let (mut blocked, mut open) = (Vec::new(), Vec::new());
    for partition in partitions.iter().filter(|partition| partition.lag() > 0) {
        match partition.blocked() {
            Some(reason) => blocked.push(reason),
            None => open.push(partition.open()),
        }
    }
    match (blocked.is_empty(), open.is_empty()) {
        (true, true) => Fate::Settled,
        (false, true) => Fate::Blocked(blocked),
        (_, false) => Fate::Open(blocked.into_iter().chain(open).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::retention::Danger;

    fn at(partition: i32, end: i64, committed: Option<i64>, lane: Option<(LaneState, i64, u64)>) -> InputPartition {
        let lane = lane.map(|(state, committable, open)| LaneFigures {
            topic: "t".into(),
            partition,
            state,
            version: "v".into(),
            committed,
            committable: Some(committable),
            open,
            lag: None,
            stalled: None,
            danger: Danger::None,
        });
        InputPartition { topic: "t".to_owned(), partition, end, committed, lane }
    }

    #[test]
    fn settled_is_committed_to_the_end() {
        let running = |committable, open| Some((LaneState::Running, committable, open));
        assert_eq!(fate(&[at(0, 3, Some(3), running(3, 0)), at(1, 0, None, running(0, 0))]), Fate::Settled);
        let Fate::Open(open) = fate(&[at(0, 3, Some(2), running(3, 0))]) else { panic!("not committed") };
        assert_eq!(open, ["t[0]: all is settled, but not committed"]);
        // The pipeline's own word counts for nothing.
        assert!(matches!(fate(&[at(0, 3, None, running(3, 0))]), Fate::Open(_)));
    }

    #[test]
    fn blocked_only_when_nothing_else_goes_on() {
        let blocked = || at(0, 5, Some(1), Some((LaneState::Blocked("trap: oh".to_owned()), 2, 3)));
        assert_eq!(fate(&[blocked()]), Fate::Blocked(vec!["t[0]@2 is blocked: trap: oh".to_owned()]));
        let on_its_way = at(1, 5, None, Some((LaneState::Running, 0, 2)));
        let Fate::Open(open) = fate(&[on_its_way, blocked()]) else { panic!("one is on its way") };
        assert!(open[0].contains("t[0]@2 is blocked") && open[1].starts_with("t[1]@0: 2 records are open"), "{open:?}");
    }

    #[test]
    fn says_what_is_waited_for() {
        let open = |partition| match fate(&[partition]) {
            Fate::Open(open) => open[0].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(open(at(0, 5, Some(2), None)), "t[0]: nobody has the partition, 3 records wait");
        let lane = Some((LaneState::BackingOff("retry: later".to_owned()), 2, 3));
        assert_eq!(open(at(0, 5, Some(2), lane)), "t[0]@2 is tried again: retry: later");
        let lane = Some((LaneState::Running, 2, 0));
        assert_eq!(open(at(0, 5, Some(2), lane)), "t[0]@2: 3 records were not fetched");
    }
}
