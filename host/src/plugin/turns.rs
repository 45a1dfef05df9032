//! Turns on a handler thread: the calls that are to run there, also those that begin elsewhere in its place, go on one at a
//! time, for a slice each, and the pipeline that had the least for its share is next. Decides who runs; measures nothing and
//! wakes nobody but whose turn it is.
//!
//! A line per thread, known by the thread: whoever makes an instance there stands in it. This is fair queueing by start
//! times: a pipeline's account says what it used, divided by its share, and a pipeline that wanted nothing for a while
//! begins where the others are, a little ahead of them, so that it saves nothing up. A call that comes new waits for the end
//! of the slice that runs, and seldom for more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use crate::handler_usage::Usage;

/// What a pipeline may have used less than the others when it comes back. Between two calls it wants nothing for a moment, and
/// would lose what it is due each time, while one with several lanes never does.
const CREDIT: Duration = Duration::from_millis(10);

thread_local! {
    static HERE: Arc<Mutex<Line>> = Arc::default();
}

/// Why a stretch of running ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// The slice is used up, and there is more to do.
    Slice,
    /// The call is over, or waits for something.
    Over,
}

/// The place of one instance in a thread's line.
#[derive(Debug)]
pub(super) struct Turn {
    line: Arc<Mutex<Line>>,
    pipeline: usize,
    id: u64,
}

/// Who wants to run on one thread.
#[derive(Debug, Default)]
struct Line {
    holder: Option<u64>,
    /// The holder used up its slice, and has not come back to see whether it goes on.
    yielded: bool,
    waiting: Vec<Waiting>,
    accounts: BTreeMap<usize, Account>,
    /// What whoever runs now had on its account when its turn began.
    clock: u64,
    next_id: u64,
    next_place: u64,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    pipeline: usize,
    place: u64,
    waker: Waker,
}

/// What a pipeline used on this thread.
#[derive(Debug)]
struct Account {
    of: Weak<Usage>,
    share: u64,
    /// Nanoseconds by share.
    used: u64,
}

impl Turn {
    /// A place in this thread's line, for an instance of the pipeline that this usage is of.
    pub(super) fn here(pipeline: &Arc<Usage>, share: u32) -> Self {
        Self::stand(&HERE.with(Arc::clone), pipeline, share)
    }

    fn stand(line: &Arc<Mutex<Line>>, pipeline: &Arc<Usage>, share: u32) -> Self {
        let key = Arc::as_ptr(pipeline).addr();
        let id = {
            let line = &mut *lock(line);
            // An account that is kept keeps its address, too: no other pipeline is taken for one that is gone.
            line.accounts.retain(|_, account| account.of.strong_count() > 0);
            let share = u64::from(share.max(1));
            let new = || Account { of: Arc::downgrade(pipeline), share, used: line.clock };
            line.accounts.entry(key).or_insert_with(new).share = share;
            line.next_id += 1;
            line.next_id
        };
        Self { line: Arc::clone(line), pipeline: key, id }
    }

    /// May it run now? If not, the waker is told when it may.
    pub(super) fn is_mine(&self, waker: &Waker) -> bool {
        let line = &mut *lock(&self.line);
        match line.holder {
            Some(holder) if holder == self.id => {
                if line.yielded {
                    line.wait(self.id, self.pipeline, waker);
                    line.pass_on(Some(self.id));
                }
                line.holder == Some(self.id)
            }
            Some(_) => {
                line.wait(self.id, self.pipeline, waker);
                false
            }
            None => {
                line.catch_up(self.pipeline);
                line.begin(self.id, self.pipeline);
                true
            }
        }
    }

    /// It ran for so long.
    pub(super) fn ran(&self, time: Duration, end: Stretch) {
        let line = &mut *lock(&self.line);
        line.charge(self.pipeline, time);
        match end {
            // Others may have come meanwhile: it is decided when this one is back, and all of them stand in the line.
            Stretch::Slice => line.yielded = true,
            Stretch::Over => line.leave(self.id),
        }
    }

    /// So much was done for it outside its turns.
    pub(super) fn charge(&self, time: Duration) {
        lock(&self.line).charge(self.pipeline, time);
    }

    /// It does not want to run any more.
    pub(super) fn leave(&self) {
        lock(&self.line).leave(self.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn wait(&mut self, id: u64, pipeline: usize, waker: &Waker) {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.id == id) {
            waiting.waker.clone_from(waker);
            return;
        }
        if self.holder != Some(id) {
            self.catch_up(pipeline);
        }
        self.next_place += 1;
        self.waiting.push(Waiting { id, pipeline, place: self.next_place, waker: waker.clone() });
    }

    /// A pipeline that wanted nothing begins where the others are, or a little ahead.
    fn catch_up(&mut self, pipeline: usize) {
        let clock = self.clock;
        if let Some(account) = self.accounts.get_mut(&pipeline) {
            account.used = account.used.max(clock.saturating_sub(nanos(CREDIT) / account.share));
        }
    }

    fn charge(&mut self, pipeline: usize, time: Duration) {
        if let Some(account) = self.accounts.get_mut(&pipeline) {
            account.used = account.used.saturating_add(nanos(time) / account.share);
        }
    }

    fn used(&self, pipeline: usize) -> u64 {
        self.accounts.get(&pipeline).map_or(self.clock, |account| account.used)
    }

    fn begin(&mut self, id: u64, pipeline: usize) {
        self.holder = Some(id);
        self.yielded = false;
        self.clock = self.clock.max(self.used(pipeline));
    }

    /// The turn goes to whose pipeline had least; among equals, to who waits longest. `awake` need not be woken for it.
    fn pass_on(&mut self, awake: Option<u64>) {
        self.holder = None;
        let least = |i: &usize| (self.used(self.waiting[*i].pipeline), self.waiting[*i].place);
        let Some(next) = (0..self.waiting.len()).min_by_key(least) else { return };
        let next = self.waiting.swap_remove(next);
        self.begin(next.id, next.pipeline);
        if awake != Some(next.id) {
            next.waker.wake();
        }
    }

    fn leave(&mut self, id: u64) {
        if self.holder == Some(id) {
            self.pass_on(None);
        } else {
            self.waiting.retain(|waiting| waiting.id != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(2);

    struct Thread {
        line: Arc<Mutex<Line>>,
        pipelines: Vec<(Arc<Usage>, u32)>,
    }

    impl Thread {
        fn new(shares: &[u32]) -> Self {
            Self { line: Arc::default(), pipelines: shares.iter().map(|share| (Arc::default(), *share)).collect() }
        }

        fn stand(&self, pipeline: usize) -> Turn {
            let (usage, share) = &self.pipelines[pipeline];
            Turn::stand(&self.line, usage, *share)
        }
    }

    /// Slices that each of these had, when all of them want all the time.
    fn slices(turns: &[&Turn], count: usize) -> Vec<usize> {
        let mut had = vec![0; turns.len()];
        for _ in 0..count {
            let mine: Vec<bool> = turns.iter().map(|turn| turn.is_mine(Waker::noop())).collect();
            // The one before may have passed it on to one that was asked already.
            let again: Vec<bool> = turns.iter().map(|turn| turn.is_mine(Waker::noop())).collect();
            let runs = (0..turns.len()).find(|i| mine[*i] || again[*i]).expect("one of them runs");
            assert_eq!(again.iter().filter(|mine| **mine).count(), 1, "one at a time");
            turns[runs].ran(SLICE, Stretch::Slice);
            had[runs] += 1;
        }
        had
    }

    #[test]
    fn whoever_is_alone_goes_on() {
        let thread = Thread::new(&[1]);
        let turn = thread.stand(0);
        for _ in 0..100 {
            assert!(turn.is_mine(Waker::noop()));
            turn.ran(SLICE, Stretch::Slice);
        }
        turn.ran(SLICE, Stretch::Over);
        assert!(turn.is_mine(Waker::noop()));
    }

    #[test]
    fn pipelines_get_their_shares_however_many_lanes_they_have() {
        let thread = Thread::new(&[1, 3, 2]);
        let lanes = [thread.stand(0), thread.stand(1), thread.stand(2), thread.stand(2), thread.stand(2)];
        let had = slices(&lanes.each_ref(), 6000);
        let near = |had: usize, due: usize| had.abs_diff(due) <= 5;
        assert!(near(had[0], 1000) && near(had[1], 3000), "{had:?}");
        assert!((2..5).all(|lane| near(had[lane], 667)), "{had:?}");
    }

    /// Proves: who comes for a moment now and then is next every time, whatever the others have used by then; and who did
    /// nothing for long has nothing saved up.
    #[test]
    fn who_comes_seldom_waits_for_one_slice() {
        let thread = Thread::new(&[1, 1, 1, 1]);
        let (busy, seldom) = ([thread.stand(0), thread.stand(1), thread.stand(2)], thread.stand(3));
        for _ in 0..50 {
            let had = slices(&busy.each_ref(), 30);
            assert_eq!(had, [10; 3]);
            assert!(!seldom.is_mine(Waker::noop()), "one of the others runs");
            let back: Vec<bool> = busy.iter().map(|turn| turn.is_mine(Waker::noop())).collect();
            assert_eq!(back, [false; 3], "the slice is over, and the new one is next");
            assert!(seldom.is_mine(Waker::noop()));
            seldom.ran(Duration::from_micros(100), Stretch::Over);
            assert_eq!(busy.iter().filter(|turn| turn.is_mine(Waker::noop())).count(), 1);
        }
        let all = [&busy[0], &busy[1], &busy[2], &seldom];
        let had = slices(&all, 400);
        assert!(had.iter().all(|had| had.abs_diff(100) <= 5), "{had:?}");
    }

    /// Proves: a pipeline whose calls are short, so that it is out of the line for a moment between them, gets as much as one
    /// that never leaves it.
    #[test]
    fn short_calls_lose_nothing() {
        let thread = Thread::new(&[1, 1]);
        let (long, short) = (thread.stand(0), thread.stand(1));
        // In half slices: what they had, and what is left of the short one's call.
        let (mut had, mut left, mut away) = ([0; 2], 5, false);
        for _ in 0..4000 {
            let here = !std::mem::take(&mut away);
            let first = here && short.is_mine(Waker::noop());
            let long_runs = long.is_mine(Waker::noop());
            if first || here && short.is_mine(Waker::noop()) {
                let halves = left.min(2);
                (had[1], left) = (had[1] + halves, left - halves);
                let over = left == 0;
                short.ran(SLICE / 2 * halves, if over { Stretch::Over } else { Stretch::Slice });
                if over {
                    (left, away) = (5, true);
                }
            } else {
                assert!(long_runs, "one of them runs");
                had[0] += 2;
                long.ran(SLICE, Stretch::Slice);
            }
        }
        let part = f64::from(had[1]) / f64::from(had[0] + had[1]);
        assert!((0.48..0.52).contains(&part), "half is due, it had {part:.3}");
    }

    #[test]
    fn whoever_goes_passes_the_turn_on() {
        let thread = Thread::new(&[1, 1]);
        let (first, second, third) = (thread.stand(0), thread.stand(1), thread.stand(1));
        assert!(first.is_mine(Waker::noop()));
        assert!(!second.is_mine(Waker::noop()) && !third.is_mine(Waker::noop()));
        drop(second);
        // Its slice is over, but it is never asked again: its call was given up.
        first.ran(SLICE, Stretch::Slice);
        drop(first);
        assert!(third.is_mine(Waker::noop()));
        third.leave();
        assert_eq!(lock(&thread.line).holder, None);
    }

    #[test]
    fn pipelines_that_are_gone_are_forgotten() {
        let mut thread = Thread::new(&[1, 1]);
        drop(thread.stand(0));
        thread.pipelines.remove(0);
        drop(thread.stand(0));
        assert_eq!(lock(&thread.line).accounts.len(), 1);
    }
}
