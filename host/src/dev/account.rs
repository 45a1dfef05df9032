//! Did a swap lose or repeat anything? Two counts are compared that do not know of each other: offsets that the group may
//! commit, and records that came and met their fate one by one. Pure.
//!
//! The embedded broker's topics begin at offset 0 and have no holes, so every offset is a record.

use crate::pipeline::status::Figures;

/// What the comparison says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Offsets that were passed, and no record was settled for them.
    pub lost: u64,
    /// Records that came again.
    pub repeated: u64,
}

/// Compares the counts. `None`: something is under way, so that they differ in any case.
#[must_use]
pub fn account(figures: &Figures) -> Option<Account> {
    if figures.lanes.iter().any(|lane| lane.open > 0) || figures.in_flight > 0 {
        return None;
    }
    let passed: u64 = figures.lanes.iter().filter_map(|lane| u64::try_from(lane.committable?).ok()).sum();
    let sum =
        |count: fn(&crate::pipeline::status::TopicFigures) -> u64| figures.topics.values().map(count).sum::<u64>();
    let (consumed, settled) = (sum(|topic| topic.consumed), sum(|topic| topic.settled));
    Some(Account { lost: passed.saturating_sub(settled), repeated: consumed.max(settled).saturating_sub(passed) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::retention::Danger;
    use crate::pipeline::lane::LaneState;
    use crate::pipeline::status::{LaneFigures, TopicFigures};

    fn figures(consumed: u64, settled: u64, committable: &[Option<i64>], open: u64) -> Figures {
        let lane = |(partition, committable): (i32, &Option<i64>)| LaneFigures {
            topic: "in".into(),
            partition,
            state: LaneState::Running,
            version: "c0ffee".into(),
            committed: None,
            committable: *committable,
            open,
            lag: None,
            stalled: None,
            danger: Danger::None,
        };
        let topic = TopicFigures { consumed, settled, ..TopicFigures::default() };
        Figures {
            topics: [("in".into(), topic)].into(),
            lanes: (0..).zip(committable).map(lane).collect(),
            ..Figures::default()
        }
    }

    #[test]
    fn what_is_missing_and_what_came_twice_is_counted() {
        let of = |consumed, settled, committable: &[Option<i64>]| account(&figures(consumed, settled, committable, 0));
        assert_eq!(of(12, 12, &[Some(7), Some(5), None]), Some(Account::default()));
        assert_eq!(of(12, 10, &[Some(7), Some(5)]), Some(Account { lost: 2, repeated: 0 }));
        assert_eq!(of(15, 15, &[Some(7), Some(5)]), Some(Account { lost: 0, repeated: 3 }));
        assert_eq!(of(13, 12, &[Some(7), Some(5)]), Some(Account { lost: 0, repeated: 1 }));
        assert_eq!(account(&figures(12, 11, &[Some(11)], 1)), None, "one is under way");
    }
}
