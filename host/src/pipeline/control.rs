//! Steering a pipeline from outside while it runs: another version of its handler, a pause. Orders outlive the runs of a
//! pipeline (`supervise.rs` begins one after another); what came of them can be read and waited for.
//!
//! Each order takes the place of the one before, so nothing gathers here. Which revision a lane has to run follows from
//! [`Orders::of`] alone, for lanes that are there and for those that come later.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::revision::{Build, Revision};
use crate::config::Pipeline;
pub use crate::delivery::rollout::Served;
use crate::plugin::Version;
use crate::wake::Waker;

/// Lanes that an order is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// All of them.
    All,
    /// A canary: so many of a hundred partitions, those with the lowest numbers of each topic, at least one of each. Which
    /// these are follows from the partitions of the topics, so it is the same on every host of the group.
    Percent(u8),
}

impl Lanes {
    /// Is a partition among them, of a topic with so many?
    #[must_use]
    pub const fn have(self, partition: i32, partitions: u32) -> bool {
        match self {
            Self::All => true,
            Self::Percent(percent) => {
                let share = (partitions as u64 * percent as u64).div_ceil(100);
                (partition.unsigned_abs() as u64) < if share == 0 { 1 } else { share }
            }
        }
    }
}

/// What becomes of a lane's open batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// They close (trigger `swap`) and run once on the old version.
    Drain,
    /// They close and run on the new version.
    Immediate,
}

/// What had to be done before an order could be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Time for native code: compiling, or taking it from the cache.
    pub compile: Duration,
    /// Time that the trial instance took.
    pub canary: Duration,
}

/// Another version of the handler, or another configuration of it, for a pipeline that runs.
#[derive(Clone, Debug)]
pub struct SwapOrder<B = Arc<Version>> {
    /// Has to be larger than every number before it: who did not see the last order has a number that is taken.
    pub number: u64,
    /// The configuration. What cannot change while a pipeline runs has to be as it was; `live/` sees to that.
    pub config: Arc<Pipeline>,
    /// The build, which was tried.
    pub build: B,
    /// For which lanes.
    pub lanes: Lanes,
    /// A canary that was not worse than the old version (`[swap] canary`) for so long is promoted; `None`: it waits for a word.
    pub promote_after: Option<Duration>,
    /// How they leave the old one.
    pub strategy: Strategy,
    /// For the report.
    pub prepared: Prepared,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Somebody else gave an order meanwhile.
    #[error("order {number} came too late: number {last} was given meanwhile; look at what it did, then try again")]
    Late {
        /// The order that is refused.
        number: u64,
        /// The last that was taken.
        last: u64,
    },
    /// A canary has nothing to be compared with while lanes are on their way.
    #[error("order {last} is still under way, and a canary has to wait for its end; try again in a moment")]
    UnderWay {
        /// The order under way.
        last: u64,
    },
}

/// How far an order is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was ordered yet.
    None,
    /// Lanes are on their way to the new version, at their next burst boundary each.
    Switching,
    /// The canary's lanes run the new version, the others the old one, until it is promoted or taken back.
    Canary,
    /// Every lane runs the new version, and every later one will.
    Done,
    /// Lanes are on their way back to the old version, for this reason.
    RollingBack(String),
    /// Every lane runs the old version again, for this reason.
    RolledBack(String),
}

impl Stage {
    /// Nothing more happens by itself, but for a canary's end.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        !matches!(self, Self::Switching | Self::RollingBack(_))
    }
}

/// One lane's part in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneProgress {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Digest of the version that it runs.
    pub digest: Arc<str>,
    /// It runs what the order wants it to run.
    pub switched: bool,
    /// It runs what was ordered, be that as a canary.
    pub on_new: bool,
    /// How long it could be served by neither version, once it switched.
    pub gap: Option<Duration>,
    /// Records fetched and not settled.
    pub open: u64,
}

/// Per-lane gaps of a swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Lanes that switched.
    pub lanes: usize,
    /// Half of them took at most so long.
    pub p50: Duration,
    /// All but one of a hundred.
    pub p99: Duration,
    /// All of them.
    pub max: Duration,
}

impl Gaps {
    /// Of these, in any order.
    #[must_use]
    pub fn of(gaps: &[Duration]) -> Self {
        let mut gaps = gaps.to_vec();
        gaps.sort_unstable();
        let at = |percent: usize| {
            let place = (gaps.len() * percent).div_ceil(100).saturating_sub(1);
            gaps.get(place).copied().unwrap_or_default()
        };
        Self { lanes: gaps.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

/// How far the last order is. Published by the pipeline's thread when something changes, at most a few times a second
/// while nothing but figures do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which order.
    pub number: u64,
    /// Digest of the version before.
    pub from: Arc<str>,
    /// Digest of the version that was ordered.
    pub to: Arc<str>,
    /// For which lanes.
    pub share: Lanes,
    /// How far it is.
    pub stage: Stage,
    /// The lanes of this host.
    pub lanes: Vec<LaneProgress>,
    /// Of the lanes that switched so far.
    pub gaps: Gaps,
    /// Records in flight when the order was taken.
    pub in_flight: u64,
    /// From taking the order to the last lane's switch; so far, while it is under way.
    pub took: Duration,
    /// What was done before.
    pub prepared: Prepared,
    /// What the old version did meanwhile.
    pub old: Served,
    /// What the new one did.
    pub new: Served,
}

impl Progress {
    /// Nothing was ordered yet; this version serves.
    #[must_use]
    pub fn nothing(serving: &Arc<str>) -> Self {
        Self {
            number: 0,
            from: Arc::clone(serving),
            to: Arc::clone(serving),
            share: Lanes::All,
            stage: Stage::None,
            lanes: Vec::new(),
            gaps: Gaps::default(),
            in_flight: 0,
            took: Duration::ZERO,
            prepared: Prepared::default(),
            old: Served::default(),
            new: Served::default(),
        }
    }
}

/// What a pipeline was told, for its thread.
#[derive(Clone, Debug)]
pub(super) struct Orders<B> {
    /// The last order's number.
    pub(super) last: u64,
    /// What lanes run that the order under way is not for; where it goes back to.
    pub(super) serving: Arc<Revision<B>>,
    /// The order under way.
    pub(super) coming: Option<Coming<B>>,
    /// The operator's reason for a pause.
    pub(super) pause: Option<String>,
    /// How often the operator asked to go on.
    pub(super) resumes: u64,
}

/// An order under way.
#[derive(Clone, Debug)]
pub(super) struct Coming<B> {
    pub(super) to: Arc<Revision<B>>,
    pub(super) lanes: Lanes,
    pub(super) promote_after: Option<Duration>,
    pub(super) strategy: Strategy,
    /// It is taken back.
    pub(super) back: Option<String>,
}

impl<B> Orders<B> {
    /// What the lane of a partition has to run; `partitions`: how many its topic has.
    pub(super) fn of(&self, partition: i32, partitions: u32) -> &Arc<Revision<B>> {
        match &self.coming {
            Some(coming) if coming.back.is_none() && coming.lanes.have(partition, partitions) => &coming.to,
            _ => &self.serving,
        }
    }
}

/// See the module's text. Cloned freely: all clones are the same handle.
#[derive(Debug)]
pub struct Control<B = Arc<Version>>(Arc<Inner<B>>);

impl<B> Clone for Control<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<B> {
    /// Grows with everything that the pipeline's thread has to look at.
    changes: AtomicU64,
    state: Mutex<State<B>>,
    /// Progress was published.
    news: Condvar,
    wakers: Mutex<Vec<Waker>>,
}

#[derive(Debug)]
struct State<B> {
    orders: Orders<B>,
    /// What was served before the last order that went through.
    previous: Option<Arc<Revision<B>>>,
    progress: Progress,
}

impl<B: Build> Control<B> {
    /// A pipeline that begins with this.
    #[must_use]
    pub fn new(config: Arc<Pipeline>, build: B) -> Self {
        let serving = Arc::new(Revision::new(0, config, build));
        let progress = Progress::nothing(serving.digest());
        let orders = Orders { last: 0, serving, coming: None, pause: None, resumes: 0 };
        Self(Arc::new(Inner {
            changes: AtomicU64::new(0),
            state: Mutex::new(State { orders, previous: None, progress }),
            news: Condvar::new(),
            wakers: Mutex::default(),
        }))
    }

    /// Orders a swap. It takes the place of one that is under way; lanes go from wherever they are to the new version.
    /// What it goes back to, if it has to, is the version that was served before both.
    ///
    /// # Errors
    /// When a later order was given, or the same number; and a canary's while every lane is on its way to another version.
    pub fn switch(&self, order: SwapOrder<B>) -> Result<(), Conflict> {
        let SwapOrder { number, config, build, lanes, promote_after, strategy, prepared } = order;
        let mut state = self.state();
        let last = state.orders.last;
        if number <= last {
            return Err(Conflict::Late { number, last });
        }
        let on_their_way = |coming: &Coming<B>| coming.lanes == Lanes::All || coming.back.is_some();
        if lanes != Lanes::All && state.orders.coming.as_ref().is_some_and(on_their_way) {
            return Err(Conflict::UnderWay { last });
        }
        let to = Arc::new(Revision::new(number, config, build));
        state.orders.last = number;
        state.progress = Progress {
            number,
            from: Arc::clone(state.orders.serving.digest()),
            to: Arc::clone(to.digest()),
            share: lanes,
            stage: Stage::Switching,
            lanes: Vec::new(),
            gaps: Gaps::default(),
            in_flight: 0,
            took: Duration::ZERO,
            prepared,
            old: Served::default(),
            new: Served::default(),
        };
        state.orders.coming = Some(Coming { to, lanes, promote_after, strategy, back: None });
        self.changed(state);
        Ok(())
    }

    /// Promotes a canary: every lane gets its version. False when that order is not under way (any more).
    pub fn promote(&self, number: u64) -> bool {
        let mut state = self.state();
        let Some(coming) = under_way(&mut state.orders, number) else { return false };
        coming.lanes = Lanes::All;
        (state.progress.share, state.progress.stage) = (Lanes::All, Stage::Switching);
        self.changed(state);
        true
    }

    /// Takes an order back that is under way: every lane returns to the version before. False when it is not under way
    /// (any more): then going back is an order of its own, with [`Control::previous`].
    pub fn take_back(&self, number: u64, reason: &str) -> bool {
        let mut state = self.state();
        let Some(coming) = under_way(&mut state.orders, number) else { return false };
        coming.back = Some(reason.to_owned());
        state.progress.stage = Stage::RollingBack(reason.to_owned());
        self.changed(state);
        true
    }

    /// Offers nothing new to the handler until [`Control::resume`]. What is under way is finished; the pipeline stays in its
    /// group.
    pub fn pause(&self, reason: &str) {
        let mut state = self.state();
        state.orders.pause = Some(reason.to_owned());
        self.changed(state);
    }

    /// Goes on after a pause: the operator's, and that of the breaker as well.
    pub fn resume(&self) {
        let mut state = self.state();
        state.orders.pause = None;
        state.orders.resumes += 1;
        self.changed(state);
    }

    /// Why the operator has it paused, while that is so.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        self.state().orders.pause.clone()
    }

    /// Number of the last order; the next one has to be larger.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.state().orders.last
    }

    /// What every lane runs that no order under way is for.
    #[must_use]
    pub fn serving(&self) -> Arc<Revision<B>> {
        Arc::clone(&self.state().orders.serving)
    }

    /// What was ordered last, unless it is taken back: what every lane will run if all goes well.
    #[must_use]
    pub fn latest(&self) -> Arc<Revision<B>> {
        let state = self.state();
        let coming = state.orders.coming.as_ref().filter(|coming| coming.back.is_none());
        Arc::clone(coming.map_or(&state.orders.serving, |coming| &coming.to))
    }

    /// What was served before, in this process.
    #[must_use]
    pub fn previous(&self) -> Option<Arc<Revision<B>>> {
        self.state().previous.clone()
    }

    /// How far the last order is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.state().progress.clone()
    }

    /// Waits, on this thread, until the progress is such. Gives the last one that was looked at, right or not.
    pub fn wait(&self, deadline: Instant, mut until: impl FnMut(&Progress) -> bool) -> (Progress, bool) {
        let mut state = self.state();
        loop {
            if until(&state.progress) {
                return (state.progress.clone(), true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return (state.progress.clone(), false);
            }
            state = self.0.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    // ---- the pipeline's side ----

    /// Wakes this one, too, when there is something to look at.
    pub(super) fn wake(&self, waker: &Waker) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
    }

    /// Another number than before: there is something to look at.
    #[inline]
    pub(super) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// What it was told, with the number of changes that this is.
    pub(super) fn orders(&self) -> (u64, Orders<B>) {
        let state = self.state();
        (self.changes(), state.orders.clone())
    }

    /// The pipeline has no lanes: what was ordered for all of them is what it begins with.
    pub(super) fn settle(&self) {
        let mut state = self.state();
        let State { orders, previous, progress } = &mut *state;
        let Some(coming) = orders.coming.take_if(|coming| coming.back.is_some() || coming.lanes == Lanes::All) else {
            return;
        };
        progress.stage = match coming.back {
            Some(reason) => Stage::RolledBack(reason),
            None => {
                *previous = Some(std::mem::replace(&mut orders.serving, coming.to));
                Stage::Done
            }
        };
        drop(state);
        self.0.news.notify_all();
    }

    /// What order `number` brought, and every lane runs, proves bad: the order is taken back after all. False when something
    /// else was ordered since, or nobody knows what was before.
    pub(super) fn go_back(&self, number: u64, reason: &str) -> bool {
        let mut state = self.state();
        if state.orders.coming.is_some() || state.orders.serving.number != number {
            return false;
        }
        let Some(previous) = state.previous.take() else { return false };
        let to = std::mem::replace(&mut state.orders.serving, previous);
        let (lanes, promote_after, strategy) = (Lanes::All, None, Strategy::Immediate);
        state.orders.coming = Some(Coming { to, lanes, promote_after, strategy, back: Some(reason.to_owned()) });
        state.progress.stage = Stage::RollingBack(reason.to_owned());
        self.changed(state);
        true
    }

    /// Every lane runs what order `number` brought: it is what is served from now on.
    pub(super) fn arrived(&self, number: u64) {
        let mut state = self.state();
        let state = &mut *state;
        if let Some(coming) = state.orders.coming.take_if(|coming| coming.to.number == number && coming.back.is_none())
        {
            state.previous = Some(std::mem::replace(&mut state.orders.serving, coming.to));
        }
    }

    /// Every lane is back at what was served before order `number`.
    pub(super) fn returned(&self, number: u64) {
        self.state().orders.coming.take_if(|coming| coming.to.number == number && coming.back.is_some());
    }

    /// Shows how far the order is, unless something was ordered after change number `seen`.
    pub(super) fn publish(&self, seen: u64, progress: Progress) {
        let mut state = self.state();
        if self.changes() == seen {
            state.progress = progress;
            drop(state);
            self.0.news.notify_all();
        }
    }
}

impl<B> Control<B> {
    fn state(&self) -> MutexGuard<'_, State<B>> {
        // Every change behind the lock is whole when something could panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, state: MutexGuard<'_, State<B>>) {
        self.0.changes.fetch_add(1, Ordering::Release);
        drop(state);
        self.0.news.notify_all();
        for waker in &*self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
    }
}

fn under_way<B>(orders: &mut Orders<B>, number: u64) -> Option<&mut Coming<B>> {
    orders.coming.as_mut().filter(|coming| coming.to.number == number && coming.back.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_has_at_least_one_partition_and_never_more_than_all() {
        let count = |percent, partitions: u32| {
            (0..partitions as i32).filter(|partition| Lanes::Percent(percent).have(*partition, partitions)).count()
        };
        assert_eq!((count(10, 8), count(10, 100), count(1, 1), count(50, 3), count(100, 7)), (1, 10, 1, 2, 7));
        assert_eq!(count(0, 5), 1);
        // A partition that the topic got since is another number than all of them.
        assert!(!Lanes::Percent(50).have(9, 8) && Lanes::All.have(9, 8));
    }

    #[test]
    fn gaps_are_summed_up() {
        let gaps: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        let micros = Duration::from_micros;
        assert_eq!(Gaps::of(&gaps), Gaps { lanes: 200, p50: micros(100), p99: micros(198), max: micros(200) });
        assert_eq!(Gaps::of(&[micros(7)]), Gaps { lanes: 1, p50: micros(7), p99: micros(7), max: micros(7) });
        assert_eq!(Gaps::of(&[]), Gaps::default());
    }
}
