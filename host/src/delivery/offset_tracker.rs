//! Which offset of one partition may be committed, in one ownership epoch.
//!
//! A record enters when it is fetched and holds one *open* mark for its own undecided fate; every effect that must become
//! durable first (an emission, a place in a batch, a dead letter) is one mark more. It is settled when no mark is left.
//! The committable offset follows the settled prefix. Invariant: it is never past a record with an open mark.

use std::collections::VecDeque;

use super::ticket::Seq;

/// See the module's text. One per lane; a new ownership epoch begins with a new tracker.
#[derive(Debug, Default)]
pub struct OffsetTracker {
    /// Number of the front slot.
    first: Seq,
    slots: VecDeque<Slot>,
    committable: Option<i64>,
    last_offset: Option<i64>,
    open_records: usize,
    settled: u64,
}

#[derive(Debug)]
struct Slot {
    offset: i64,
    open: u32,
    failed: bool,
}

/// A record came with an offset that is not above the last one: the position was reset under us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {got} came after offset {last}: the partition's position was reset")]
pub struct PositionReset {
    /// The highest offset seen before.
    pub last: i64,
    /// The one that came.
    pub got: i64,
}

impl OffsetTracker {
    /// Takes in a fetched record, with one open mark. Numbers are consecutive.
    ///
    /// # Errors
    /// When the offset is not above the one before; the ownership epoch ends then.
    #[inline]
    pub fn offer(&mut self, offset: i64) -> Result<Seq, PositionReset> {
        if let Some(last) = self.last_offset.filter(|last| *last >= offset) {
            return Err(PositionReset { last, got: offset });
        }
        self.last_offset = Some(offset);
        // A group without commits has its place by this from its first record on: with `start = "latest"` a restart would
        // else begin at the new end and skip what was seen and not settled.
        self.committable.get_or_insert(offset);
        let seq = self.next_seq();
        self.slots.push_back(Slot { offset, open: 1, failed: false });
        self.open_records += 1;
        Ok(seq)
    }

    /// The number that the next record gets.
    #[inline]
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.first + self.slots.len() as u64
    }

    /// The log continues at `next_offset`; what lies between the last record and that (transaction markers, compacted
    /// records) will never come.
    pub fn skip_to(&mut self, next_offset: i64) {
        let last = next_offset - 1;
        if self.last_offset.is_some_and(|seen| seen >= last) {
            return;
        }
        self.last_offset = Some(last);
        match self.slots.back_mut() {
            // A slot of its own, settled from the start, keeps "what is below is settled" true whatever is still open.
            Some(_) => self.slots.push_back(Slot { offset: last, open: 0, failed: false }),
            None => self.committable = Some(next_offset),
        }
    }

    /// Adds open marks to a record that still has one.
    #[inline]
    pub fn add(&mut self, seq: Seq, effects: u32) {
        let slot = self.slot(seq);
        slot.open += effects;
    }

    /// Takes one open mark away; at the last one the record is settled.
    #[inline]
    pub fn settle(&mut self, seq: Seq) {
        self.settle_run(seq, 1);
    }

    /// The same of so many records, one after the other.
    #[inline]
    pub fn settle_run(&mut self, seq: Seq, count: u32) {
        let place = seq.checked_sub(self.first).map(|place| place as usize);
        let end = place.and_then(|place| place.checked_add(count as usize)).filter(|end| *end <= self.slots.len());
        let (Some(place), Some(end)) = (place, end) else {
            panic!("records from {seq} on, {count} of them, are settled already (open records begin at {})", self.first)
        };
        let mut done = 0;
        for slot in self.slots.range_mut(place..end) {
            // A second settlement of one effect would let a commit run ahead of a record: stop here instead.
            assert!(slot.open > 0, "record at offset {} is settled already", slot.offset);
            slot.open -= 1;
            done += usize::from(slot.open == 0);
        }
        self.open_records -= done;
        self.settled += done as u64;
        if seq == self.first {
            self.advance();
        }
    }

    fn advance(&mut self) {
        while let Some(slot) = self.slots.front().filter(|slot| slot.open == 0) {
            self.committable = Some(slot.offset + 1);
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Says that the record failed for good; true the first time. (A record of several batch items has one dead letter.)
    pub fn mark_failed(&mut self, seq: Seq) -> bool {
        !std::mem::replace(&mut self.slot(seq).failed, true)
    }

    #[inline]
    fn slot(&mut self, seq: Seq) -> &mut Slot {
        let place = seq.checked_sub(self.first).map(|place| place as usize);
        match place.and_then(|place| self.slots.get_mut(place)) {
            Some(slot) if slot.open > 0 => slot,
            // A second settlement of one effect would let a commit run ahead of a record: stop here instead.
            _ => panic!("record {seq} is settled already (open records begin at {})", self.first),
        }
    }

    /// The next offset such that everything below is settled; `None` before anything was.
    #[inline]
    #[must_use]
    pub fn committable(&self) -> Option<i64> {
        self.committable
    }

    /// How far the newest record is ahead of the oldest open one, in records.
    #[inline]
    #[must_use]
    pub fn span(&self) -> usize {
        self.slots.len()
    }

    /// Records that are not settled.
    #[inline]
    #[must_use]
    pub fn open(&self) -> usize {
        self.open_records
    }

    /// Records settled so far.
    #[must_use]
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// The offset after the last record that came.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.last_offset.map(|last| last + 1)
    }

    /// Offset of a record that is not settled.
    #[must_use]
    pub fn offset_of(&self, seq: Seq) -> Option<i64> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.slots.get(place).map(|slot| slot.offset)
    }

    /// Offset of the oldest open record.
    #[must_use]
    pub fn oldest_open(&self) -> Option<i64> {
        self.slots.front().map(|slot| slot.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Offer(i64),
        Skip(i64),
        Add(usize, u32),
        Settle(usize),
        SettleRun(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1i64..4).prop_map(Step::Offer),
            1 => (1i64..5).prop_map(Step::Skip),
            2 => (any::<usize>(), 1u32..4).prop_map(|(which, n)| Step::Add(which, n)),
            6 => any::<usize>().prop_map(Step::Settle),
            2 => (any::<usize>(), 1usize..6).prop_map(|(which, n)| Step::SettleRun(which, n)),
        ]
    }

    proptest! {
        /// Against a model that keeps every record for ever: the committable offset is the end of the settled prefix,
        /// never past an open record, and reaches the end when nothing is open.
        #[test]
        fn follows_the_settled_prefix(steps in prop::collection::vec(step(), 1..200)) {
            let mut tracker = OffsetTracker::default();
            let mut open: BTreeMap<Seq, (i64, u32)> = BTreeMap::new();
            let mut end = 0i64;
            let mut anything = false;
            for step in steps {
                match step {
                    Step::Offer(gap) => {
                        let offset = end + gap - 1;
                        let seq = tracker.offer(offset).unwrap();
                        open.insert(seq, (offset, 1));
                        end = offset + 1;
                        anything = true;
                    }
                    Step::Skip(by) => {
                        end += by;
                        tracker.skip_to(end);
                        anything = true;
                    }
                    Step::Add(which, n) if !open.is_empty() => {
                        let seq = *open.keys().nth(which % open.len()).unwrap();
                        tracker.add(seq, n);
                        open.get_mut(&seq).unwrap().1 += n;
                    }
                    Step::Settle(which) if !open.is_empty() => {
                        let seq = *open.keys().nth(which % open.len()).unwrap();
                        tracker.settle(seq);
                        let left = &mut open.get_mut(&seq).unwrap().1;
                        *left -= 1;
                        if *left == 0 {
                            open.remove(&seq);
                        }
                    }
                    Step::SettleRun(which, most) if !open.is_empty() => {
                        let first = *open.keys().nth(which % open.len()).unwrap();
                        let run: Vec<Seq> = (first..).take(most).take_while(|seq| open.contains_key(seq)).collect();
                        tracker.settle_run(first, run.len() as u32);
                        for seq in run {
                            let left = &mut open.get_mut(&seq).unwrap().1;
                            *left -= 1;
                            if *left == 0 {
                                open.remove(&seq);
                            }
                        }
                    }
                    Step::Add(..) | Step::Settle(_) | Step::SettleRun(..) => {}
                }
                prop_assert_eq!(tracker.open(), open.len());
                match open.values().next() {
                    // Never past an open record; and everything below the oldest open one is settled, so a gap right
                    // before it may or may not be counted yet, but no record is left out.
                    Some((oldest, _)) => prop_assert!(tracker.committable().unwrap_or(0) <= *oldest),
                    None => prop_assert_eq!(tracker.committable(), anything.then_some(end)),
                }
            }
        }
    }

    #[test]
    fn a_record_waits_for_all_its_effects() {
        let mut tracker = OffsetTracker::default();
        let seq = tracker.offer(7).unwrap();
        tracker.add(seq, 2);
        tracker.settle(seq);
        tracker.settle(seq);
        assert_eq!(tracker.committable(), Some(7));
        tracker.settle(seq);
        assert_eq!(tracker.committable(), Some(8));
    }

    #[test]
    fn later_records_do_not_overtake() {
        let mut tracker = OffsetTracker::default();
        let (a, b) = (tracker.offer(0).unwrap(), tracker.offer(1).unwrap());
        tracker.settle(b);
        assert_eq!((tracker.committable(), tracker.span(), tracker.open()), (Some(0), 2, 1));
        tracker.settle(a);
        assert_eq!((tracker.committable(), tracker.span()), (Some(2), 0));
    }

    #[test]
    #[should_panic(expected = "settled already")]
    fn settling_twice_stops_the_pipeline() {
        let mut tracker = OffsetTracker::default();
        let seq = tracker.offer(0).unwrap();
        tracker.settle(seq);
        tracker.settle(seq);
    }

    #[test]
    #[should_panic(expected = "settled already")]
    fn a_run_over_a_settled_record_stops_the_pipeline() {
        let mut tracker = OffsetTracker::default();
        let first = tracker.offer(0).unwrap();
        tracker.offer(1).unwrap();
        tracker.settle(first + 1);
        tracker.settle_run(first, 2);
    }

    #[test]
    #[should_panic(expected = "settled already")]
    fn a_run_past_the_last_record_stops_the_pipeline() {
        let mut tracker = OffsetTracker::default();
        let first = tracker.offer(0).unwrap();
        tracker.settle_run(first, 2);
    }

    #[test]
    fn a_reset_position_is_an_error() {
        let mut tracker = OffsetTracker::default();
        tracker.offer(5).unwrap();
        assert_eq!(tracker.offer(5), Err(PositionReset { last: 5, got: 5 }));
        assert_eq!(tracker.offer(2), Err(PositionReset { last: 5, got: 2 }));
    }

    #[test]
    fn one_dead_letter_per_record() {
        let mut tracker = OffsetTracker::default();
        let seq = tracker.offer(0).unwrap();
        assert!(tracker.mark_failed(seq));
        assert!(!tracker.mark_failed(seq));
    }

    #[test]
    fn offsets_reach_the_largest() {
        let mut tracker = OffsetTracker::default();
        let seq = tracker.offer(i64::MAX - 1).unwrap();
        tracker.settle(seq);
        assert_eq!(tracker.committable(), Some(i64::MAX));
    }
}
