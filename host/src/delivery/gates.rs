//! Emissions of a batch as a whole gate their inputs: no done record of the batch is settled before all of them are
//! durable. A gate is opened by its last emission's delivery report and gives its records' marks back.

use std::collections::HashMap;

use super::ticket::Seq;

/// The gates of one lane.
#[derive(Debug, Default)]
pub struct Gates {
    next: u64,
    closed: HashMap<u64, Gate>,
}

#[derive(Debug)]
struct Gate {
    emissions: u32,
    records: Vec<Seq>,
}

impl Gates {
    /// Closes a gate before `records`, until so many emissions are durable (at least one).
    pub fn close(&mut self, emissions: u32, records: Vec<Seq>) -> u64 {
        assert!(emissions > 0, "a gate waits for something");
        let number = self.next;
        self.next += 1;
        self.closed.insert(number, Gate { emissions, records });
        number
    }

    /// One of the emissions is durable. At the last one: the records that were held back, each to be settled once.
    pub fn settle(&mut self, number: u64) -> Option<Vec<Seq>> {
        let Some(gate) = self.closed.get_mut(&number) else { panic!("gate {number} is open already") };
        gate.emissions -= 1;
        if gate.emissions > 0 {
            return None;
        }
        self.closed.remove(&number).map(|gate| gate.records)
    }

    /// The records behind a gate (one of its emissions was refused).
    #[must_use]
    pub fn records(&self, number: u64) -> &[Seq] {
        self.closed.get(&number).map_or(&[], |gate| &gate.records)
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
    use super::*;

    #[test]
    fn records_come_back_with_the_last_emission() {
        let mut gates = Gates::default();
        let (a, b) = (gates.close(2, vec![1, 2]), gates.close(1, vec![3]));
        assert_eq!(gates.settle(a), None);
        assert_eq!(gates.settle(b), Some(vec![3]));
        assert_eq!(gates.settle(a), Some(vec![1, 2]));
        assert!(gates.is_empty());
    }

    #[test]
    #[should_panic(expected = "open already")]
    fn a_report_too_many_stops_the_pipeline() {
        let mut gates = Gates::default();
        let gate = gates.close(1, vec![0]);
        gates.settle(gate);
        gates.settle(gate);
    }
}
