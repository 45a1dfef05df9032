//! What has to become durable together holds other things back: no done record of a batch is settled before all emissions
//! of the batch as a whole are durable, and no held message before everything is that the answer which acks it sent. A
//! gate is opened by the last of the effects that it waits for, and gives the marks behind it back.

use std::collections::HashMap;

use super::ticket::{Seq, Target};

/// The gates of one lane.
#[derive(Debug, Default)]
pub struct Gates {
    next: u64,
    closed: HashMap<u64, Gate>,
}

#[derive(Debug)]
struct Gate {
    effects: u32,
    behind: Vec<Target>,
    of: Option<Seq>,
}

impl Gates {
    /// Closes a gate before the marks `behind`, until so many effects are durable (at least one).
    pub fn close(&mut self, effects: u32, behind: Vec<Target>) -> u64 {
        self.close_of(None, effects, behind)
    }

    /// As [`Gates::close`], for effects of one record.
    pub fn close_of(&mut self, of: Option<Seq>, effects: u32, behind: Vec<Target>) -> u64 {
        assert!(effects > 0, "a gate waits for something");
        let number = self.next;
        self.next += 1;
        self.closed.insert(number, Gate { effects, behind, of });
        number
    }

    fn gate(&mut self, number: u64) -> &mut Gate {
        match self.closed.get_mut(&number) {
            Some(gate) => gate,
            None => panic!("gate {number} is open already"),
        }
    }

    /// It waits for more effects.
    pub fn add(&mut self, number: u64, effects: u32) {
        self.gate(number).effects += effects;
    }

    /// It holds back more marks.
    pub fn hold_back(&mut self, number: u64, marks: impl IntoIterator<Item = Target>) {
        self.gate(number).behind.extend(marks);
    }

    /// The record whose effects a gate waits for, if they are one record's.
    #[must_use]
    pub fn record(&self, number: u64) -> Option<Seq> {
        self.closed.get(&number).and_then(|gate| gate.of)
    }

    /// One of the effects is durable. At the last one: the marks that were held back, each to be taken away once.
    pub fn settle(&mut self, number: u64) -> Option<Vec<Target>> {
        let gate = self.gate(number);
        gate.effects -= 1;
        if gate.effects > 0 {
            return None;
        }
        self.closed.remove(&number).map(|gate| gate.behind)
    }

    /// The marks behind a gate.
    #[must_use]
    pub fn behind(&self, number: u64) -> &[Target] {
        self.closed.get(&number).map_or(&[], |gate| &gate.behind)
    }

    /// Takes the marks out from behind a gate: one of the effects can never be durable. The other effects still find it.
    pub fn release(&mut self, number: u64) -> Vec<Target> {
        std::mem::take(&mut self.gate(number).behind)
    }

    /// How many are closed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.closed.len()
    }

    /// True when nothing is held back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn record(seq: Seq) -> Target {
        Target::Record(seq)
    }

    #[test]
    fn marks_come_back_with_the_last_effect() {
        let mut gates = Gates::default();
        let (a, b) = (gates.close(2, vec![record(1), record(2)]), gates.close(1, vec![record(3)]));
        gates.add(b, 1);
        gates.hold_back(b, [record(4)]);
        assert_eq!(gates.settle(a), None);
        assert_eq!(gates.settle(b), None);
        assert_eq!(gates.settle(b), Some(vec![record(3), record(4)]));
        assert_eq!(gates.settle(a), Some(vec![record(1), record(2)]));
        assert!(gates.is_empty());
    }

    #[test]
    fn marks_are_released_once() {
        let mut gates = Gates::default();
        let gate = gates.close_of(Some(7), 2, vec![record(1), record(2)]);
        assert_eq!((gates.record(gate), gates.release(gate)), (Some(7), vec![record(1), record(2)]));
        assert_eq!((gates.settle(gate), gates.settle(gate)), (None, Some(Vec::new())));
    }

    proptest! {
        /// However effects of many gates mix: each mark comes back once, and not before the last effect of its gate.
        #[test]
        fn every_mark_comes_back_once(
            effects in prop::collection::vec(1u32..5, 1..20),
            order in prop::collection::vec(any::<prop::sample::Index>(), 100),
        ) {
            let mut gates = Gates::default();
            let numbers: Vec<u64> = effects
                .iter()
                .enumerate()
                .map(|(i, n)| gates.close(*n, vec![record(i as u64)]))
                .collect();
            let mut left: Vec<(usize, u32)> = effects.iter().copied().enumerate().collect();
            let mut back = Vec::new();
            for index in order {
                if left.is_empty() {
                    break;
                }
                let at = index.index(left.len());
                let which = left[at].0;
                left[at].1 -= 1;
                let over = left[at].1 == 0;
                if over {
                    left.swap_remove(at);
                }
                let marks = gates.settle(numbers[which]);
                prop_assert_eq!(marks.is_some(), over);
                back.extend(marks.unwrap_or_default());
            }
            let done = effects.len() - left.len();
            prop_assert_eq!((back.len(), gates.len()), (done, left.len()));
        }
    }

    #[test]
    #[should_panic(expected = "open already")]
    fn a_report_too_many_stops_the_pipeline() {
        let mut gates = Gates::default();
        let gate = gates.close(1, vec![record(0)]);
        gates.settle(gate);
        gates.settle(gate);
    }
}
