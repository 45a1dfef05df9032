//! How much a producer holds that no broker has confirmed: in all, and of each lane.

use super::chunk::Entry;
use crate::delivery::ticket::{LaneId, Run};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) bytes: usize,
    pub(super) records: usize,
    /// By lane number; these begin at 0 with each run and are not used twice, so this grows by a word per lane.
    by_lane: Vec<usize>,
}

impl Held {
    /// A record of a lane was taken in.
    #[inline]
    pub(super) fn take(&mut self, lane: LaneId, bytes: usize) {
        let lane = lane as usize;
        if lane >= self.by_lane.len() {
            self.by_lane.resize(lane + 1, 0);
        }
        self.by_lane[lane] += bytes;
        self.bytes += bytes;
        self.records += 1;
    }

    /// Brokers have these: they are held no more, and `delivered` gets their tickets. Bytes of keys, values and headers.
    #[inline]
    pub(super) fn settle(&mut self, entries: &[Entry], delivered: &mut impl FnMut(Run)) -> usize {
        let mut rest = entries.iter();
        let Some(first) = rest.next() else { return 0 };
        let mut all = first.size();
        let (mut run, mut held) = (Run::of(first.ticket), first.held());
        for entry in rest {
            if !run.takes(entry.ticket) {
                self.release_run(run, held);
                delivered(std::mem::replace(&mut run, Run::of(entry.ticket)));
                held = 0;
            }
            held += entry.held();
            all += entry.size();
        }
        self.release_run(run, held);
        delivered(run);
        all
    }

    fn release_run(&mut self, run: Run, held: usize) {
        self.by_lane[run.first.lane as usize] -= held;
        self.bytes -= held;
        self.records -= run.count as usize;
    }

    /// A record of a lane that was taken in is held no more.
    #[inline]
    pub(super) fn release(&mut self, lane: LaneId, bytes: usize) {
        self.by_lane[lane as usize] -= bytes;
        self.bytes -= bytes;
        self.records -= 1;
    }

    /// Bytes of one lane.
    #[inline]
    pub(super) fn of(&self, lane: LaneId) -> usize {
        self.by_lane.get(lane as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_counted_apart_and_together() {
        let mut held = Held::default();
        held.take(3, 10);
        held.take(0, 5);
        held.take(3, 1);
        assert_eq!((held.bytes, held.records), (16, 3));
        assert_eq!([held.of(0), held.of(1), held.of(3), held.of(9)], [5, 0, 11, 0]);
        held.release(3, 10);
        assert_eq!((held.bytes, held.records, held.of(3)), (6, 2, 1));
    }
}
