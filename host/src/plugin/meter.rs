//! Running time: how long a guest's call really ran, as CPU time, and the end of it. Waiting in a host function, other
//! lanes' turns on the thread and other programs' turns on the core do not count. It runs when it is its turn.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::runtime::{EASY_TICK, Pulse, TICK};
use super::turns::{Stretch, Turn};
use crate::handler_usage::Usage;

/// Calls of an instance that are measured exactly, its start among them.
const YOUNG: u64 = 100;
/// A tick does not end a stretch that began so shortly before it.
const FRESH: Duration = Duration::from_nanos(TICK.as_nanos() as u64 / 2);
/// So the longest stretch takes this.
const LONGEST: Duration = Duration::from_nanos((EASY_TICK.as_nanos() + FRESH.as_nanos()) as u64);

/// The guest used up its running time.
#[derive(Debug, thiserror::Error)]
#[error("the call used up its running time of {limit:?}")]
pub(super) struct RunningTimeOver {
    limit: Duration,
}

/// Sums the stretches during which a call is being polled.
///
/// The clock of a thread's CPU time costs half a microsecond, so that short calls are measured by the ordinary clock: a
/// call's first stretch, which the next tick ends, or the one after it where that comes at once ([`Meter::is_fresh`]), counts
/// as so much at most (more means that the thread had no core, or was in one uninterruptible instruction). Every later one is
/// measured in CPU time, and so is all of the first calls of an instance: one that breaks at each of them never gets to
/// others, and what its start and its faults take is long, and not to be interrupted.
///
/// Written by the thread that runs the call, read by the epoch callback on the same thread; atomics only because the
/// instance may move between threads between two stretches.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    usage: Arc<Usage>,
    /// Nanoseconds of this call before the current stretch.
    used: AtomicU64,
    /// Start of the current stretch: nanoseconds since the origin, or of CPU time.
    since: AtomicU64,
    /// The same by the ordinary clock; calls that follow each other within the stretch do not change it.
    entered: AtomicU64,
    /// When this call began, likewise.
    begun: AtomicU64,
    /// Nanoseconds of the current stretch that were calls before this one.
    before: AtomicU64,
    /// Stretches of this call.
    stretches: AtomicU64,
    calls: AtomicU64,
    limit: AtomicU64,
    /// The current stretch ends because its slice is used up.
    slice_over: AtomicBool,
}

impl Meter {
    /// For an instance of the pipeline that the usage is of.
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        let zero = || AtomicU64::new(0);
        let (used, since, entered, begun, before) = (zero(), zero(), zero(), zero(), zero());
        let (stretches, calls, limit) = (zero(), zero(), zero());
        let slice_over = AtomicBool::new(false);
        Self { origin: Instant::now(), usage, used, since, entered, begun, before, stretches, calls, limit, slice_over }
    }

    /// Begins a call that may run so long.
    pub(super) fn arm(&self, limit: Duration) {
        self.used.store(0, Ordering::Relaxed);
        self.stretches.store(0, Ordering::Relaxed);
        self.calls.store(self.calls.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        self.limit.store(nanos(limit), Ordering::Relaxed);
    }

    /// The ordinary clock.
    pub(super) fn ordinary(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    /// The current stretch is as long as a slice, by the ordinary clock.
    pub(super) fn has_had_its_slice(&self, ordinary: u64) -> bool {
        ordinary.saturating_sub(self.entered.load(Ordering::Relaxed)) >= nanos(TICK)
    }

    /// Begins another call within the current stretch, behind one that is over.
    pub(super) fn arm_next(&self, limit: Duration, ordinary: u64) {
        let before = self.stretch(self.on_its_clock(ordinary));
        self.usage.ran(before);
        self.before.store(self.before.load(Ordering::Relaxed).saturating_add(before), Ordering::Relaxed);
        self.arm(limit);
        self.stretches.store(1, Ordering::Relaxed);
        self.since.store(self.on_its_clock(ordinary), Ordering::Relaxed);
        self.begun.store(ordinary, Ordering::Relaxed);
    }

    /// Now, by the ordinary clock or by that of the current stretch.
    fn on_its_clock(&self, ordinary: u64) -> u64 {
        if self.is_coarse() { ordinary } else { nanos(thread_time()) }
    }

    /// By the clock of the current stretch.
    fn now(&self) -> u64 {
        self.on_its_clock(self.ordinary())
    }

    /// The current stretch is measured by the ordinary clock.
    fn is_coarse(&self) -> bool {
        self.stretches.load(Ordering::Relaxed) <= 1 && self.calls.load(Ordering::Relaxed) > YOUNG
    }

    fn resume(&self) {
        let ordinary = self.ordinary();
        if self.stretches.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begun.store(ordinary, Ordering::Relaxed);
        }
        self.entered.store(ordinary, Ordering::Relaxed);
        self.since.store(self.on_its_clock(ordinary), Ordering::Relaxed);
    }

    fn stretch(&self, now: u64) -> u64 {
        let stretch = now.saturating_sub(self.since.load(Ordering::Relaxed));
        if self.is_coarse() { stretch.min(nanos(LONGEST)) } else { stretch }
    }

    fn pause(&self) -> Duration {
        let stretch = self.stretch(self.now());
        self.used.store(self.used.load(Ordering::Relaxed).saturating_add(stretch), Ordering::Relaxed);
        self.usage.ran(stretch);
        Duration::from_nanos(stretch)
    }

    /// What the call ran before it was paused last.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Looked at once a tick, from inside the guest.
    pub(super) fn check(&self) -> Result<(), RunningTimeOver> {
        self.check_at(self.now())
    }

    /// The current stretch has just begun: the tick that passes found it by chance.
    pub(super) fn is_fresh(&self) -> bool {
        self.ordinary().saturating_sub(self.entered.load(Ordering::Relaxed)) < nanos(FRESH)
    }

    fn check_at(&self, now: u64) -> Result<(), RunningTimeOver> {
        let limit = self.limit.load(Ordering::Relaxed);
        let spent = self.used.load(Ordering::Relaxed).saturating_add(self.stretch(now));
        if spent <= limit { Ok(()) } else { Err(RunningTimeOver { limit: Duration::from_nanos(limit) }) }
    }

    /// The guest is about to let others run.
    pub(super) fn end_slice(&self) {
        self.slice_over.store(true, Ordering::Relaxed);
    }

    /// Until the time of the call that is under way is over. Costs nothing until it is waited for.
    pub(super) async fn wall_clock(&self, limit: Duration) {
        let past = self.ordinary().saturating_sub(self.begun.load(Ordering::Relaxed));
        tokio::time::sleep(limit.saturating_sub(Duration::from_nanos(past))).await;
    }

    /// Runs a guest call in its turns, measured.
    pub(super) async fn run<F: Future>(&self, turn: &Turn, pulse: &Pulse, call: F) -> F::Output {
        // Also when the call is given up half way.
        let _leaving = Leaving(turn);
        let mut call = pin!(call);
        poll_fn(|context| {
            if !turn.is_mine(context.waker()) {
                return Poll::Pending;
            }
            pulse.touch();
            self.resume();
            let polled = call.as_mut().poll(context);
            let ran = self.pause() + Duration::from_nanos(self.before.swap(0, Ordering::Relaxed));
            let slice = self.slice_over.swap(false, Ordering::Relaxed) && polled.is_pending();
            turn.ran(ran, if slice { Stretch::Slice } else { Stretch::Over });
            polled
        })
        .await
    }
}

/// What the call gives, unless its time is over before. What comes at the very end of its time counts.
pub(super) async fn within<T>(call: impl Future<Output = T>, over: impl Future<Output = ()>) -> Option<T> {
    let (mut call, mut over) = (pin!(call), pin!(over));
    poll_fn(|context| match call.as_mut().poll(context) {
        Poll::Ready(given) => Poll::Ready(Some(given)),
        Poll::Pending => over.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// Where an instance stands in its thread's line. What its end takes – its memory is given back, which is long for much of it
/// – is its pipeline's, too.
#[derive(Debug)]
pub(super) struct Seat {
    pub turn: Turn,
    usage: Arc<Usage>,
    share: u32,
    /// CPU time of the thread when the end began.
    ends: Option<Duration>,
}

impl Seat {
    /// On this thread, for an instance of the pipeline that the usage is of.
    pub(super) fn here(usage: &Arc<Usage>, share: u32) -> Self {
        Self { turn: Turn::here(usage, share), usage: Arc::clone(usage), share, ends: None }
    }

    /// The instance goes on on this thread, which may be another one.
    pub(super) fn move_here(&mut self) {
        self.turn = Turn::here(&self.usage, self.share);
    }

    /// Waits for the first turn of a call.
    pub(super) async fn turn(&self) {
        let waits = Leaving(&self.turn);
        poll_fn(|context| if self.turn.is_mine(context.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
        // The call keeps it.
        std::mem::forget(waits);
    }

    /// From here to its own end, all that is done is the end of the instance.
    pub(super) fn end(&mut self) {
        self.ends = Some(thread_time());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(begin) = self.ends {
            let took = thread_time().saturating_sub(begin);
            self.usage.ran(nanos(took));
            self.turn.charge(took);
        }
    }
}

/// Gives the turn up when it goes.
struct Leaving<'a>(&'a Turn);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// CPU time that this thread has used.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let said = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(said, 0, "every system that the engine runs on counts a thread's time");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(duration: Duration) {
        let begin = thread_time();
        while thread_time() - begin < duration {
            std::hint::spin_loop();
        }
    }

    /// Of an instance that has had its first calls.
    fn grown(usage: Arc<Usage>) -> Meter {
        let meter = Meter::new(usage);
        (0..YOUNG).for_each(|_| meter.arm(Duration::ZERO));
        meter
    }

    /// Proves: a call may run for exactly its limit, and for no nanosecond more, in its first stretch and in a later one. The
    /// clock is a number here.
    #[test]
    fn a_call_runs_up_to_its_limit() {
        for stretches in [1, 2, 7] {
            for limit in [nanos(TICK) / 2, nanos(TICK) * 500] {
                let meter = Meter::new(Arc::default());
                meter.arm(Duration::from_nanos(limit));
                meter.stretches.store(stretches, Ordering::Relaxed);
                meter.used.store(limit / 3, Ordering::Relaxed);
                meter.since.store(1_000, Ordering::Relaxed);
                for (spent, over) in [(limit - 1, false), (limit, false), (limit + 1, true)] {
                    assert_eq!(meter.check_at(1_000 + spent - limit / 3).is_err(), over, "{spent} of {limit}");
                }
            }
        }
    }

    /// Proves: a call that is answered at its limit is answered, and one that would be a moment later is not. The clock is a
    /// number here, and moves only when both wait.
    #[test]
    fn a_call_has_its_wall_clock_up_to_the_limit() {
        const LIMIT: u32 = 30_000;
        for (takes, answered) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
            let clock = std::cell::Cell::new(0);
            let at = |time: u32| {
                let clock = &clock;
                poll_fn(move |_| if clock.get() >= time { Poll::Ready(()) } else { Poll::Pending })
            };
            let mut call = pin!(within(at(takes), at(LIMIT)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let given = loop {
                match call.as_mut().poll(&mut context) {
                    Poll::Ready(given) => break given,
                    Poll::Pending => clock.set(clock.get() + 1),
                }
            };
            assert_eq!((given.is_some(), clock.get()), (answered, takes.min(LIMIT)));
        }
    }

    /// Proves: what a young instance does in one go counts in full, and of an older one as much as a stretch can take.
    #[test]
    fn a_long_first_stretch_of_a_young_instance_counts() {
        let long = TICK * 10;
        for (meter, expected) in [(Meter::new(Arc::default()), long), (grown(Arc::default()), LONGEST)] {
            meter.arm(Duration::from_secs(1));
            meter.resume();
            spin(long);
            let ran = meter.pause();
            assert!(ran >= expected && (expected == long || ran == LONGEST), "{ran:?}, {expected:?} is due");
        }
    }

    /// Proves: the end of an instance is charged to its pipeline, as running time and in the line for the next turn.
    #[test]
    fn the_end_of_an_instance_is_its_pipelines() {
        let usages: [Arc<Usage>; 2] = Default::default();
        let [seat, other] = usages.each_ref().map(|usage| Seat::here(usage, 1));
        let mut ending = Seat::here(&usages[0], 1);
        ending.end();
        spin(TICK * 10);
        drop(ending);
        assert!(usages[0].running() >= TICK * 10 && usages[1].running().is_zero(), "{:?}", usages[0].running());
        // A third holds the turn while both come; the first waits longer, and yet is not next.
        let third = Seat::here(&Arc::default(), 1);
        assert!(third.turn.is_mine(std::task::Waker::noop()));
        assert!(!seat.turn.is_mine(std::task::Waker::noop()) && !other.turn.is_mine(std::task::Waker::noop()));
        third.turn.ran(TICK, Stretch::Over);
        assert!(!seat.turn.is_mine(std::task::Waker::noop()) && other.turn.is_mine(std::task::Waker::noop()));
    }

    /// Proves: of calls that follow each other in one stretch each has a time of its own, their pipeline all of it, and the
    /// stretch one slice.
    #[test]
    fn calls_within_a_stretch_have_times_of_their_own() {
        for young in [true, false] {
            let usage = Arc::new(Usage::default());
            let meter = if young { Meter::new(Arc::clone(&usage)) } else { grown(Arc::clone(&usage)) };
            meter.arm(Duration::from_secs(1));
            meter.resume();
            spin(TICK * 2);
            let now = meter.ordinary();
            assert!(meter.has_had_its_slice(now));
            meter.arm_next(Duration::from_millis(1), now);
            assert!(meter.has_had_its_slice(now), "as before: it is one stretch");
            assert!(meter.check_at(meter.since.load(Ordering::Relaxed)).is_ok(), "the one before does not count");
            spin(Duration::from_millis(2));
            assert!(meter.check().is_err());
            let ran = meter.pause();
            assert_eq!(ran, meter.used());
            assert!(usage.running() >= ran + TICK * 2, "{:?}, {ran:?} of it the second", usage.running());
        }
    }

    /// Proves: a stretch of many calls costs a pipeline its place in the line as one long call would.
    #[tokio::test]
    async fn calls_within_a_stretch_are_charged_to_their_pipeline() {
        let usages: [Arc<Usage>; 2] = Default::default();
        let [many, other, third] = [&usages[0], &usages[1], &Arc::default()].map(|usage| Seat::here(usage, 1));
        let (meter, pulse) = (grown(Arc::clone(&usages[0])), Pulse::default());
        meter.arm(Duration::from_secs(1));
        let calls = async {
            for _ in 0..10 {
                spin(TICK / 2);
                meter.arm_next(Duration::from_secs(1), meter.ordinary());
            }
        };
        meter.run(&many.turn, &pulse, calls).await;
        // The other one has had less, so that it is next although it comes later.
        assert!(third.turn.is_mine(std::task::Waker::noop()));
        assert!(!many.turn.is_mine(std::task::Waker::noop()) && !other.turn.is_mine(std::task::Waker::noop()));
        third.turn.ran(TICK, Stretch::Over);
        assert!(!many.turn.is_mine(std::task::Waker::noop()) && other.turn.is_mine(std::task::Waker::noop()));
    }

    #[test]
    fn only_running_counts() {
        let usage = Arc::new(Usage::default());
        let meter = grown(Arc::clone(&usage));
        meter.arm(Duration::from_millis(50));
        for _ in 0..3 {
            meter.resume();
            spin(Duration::from_millis(10));
            meter.pause();
            // Between the stretches time passes that does not count.
            spin(Duration::from_millis(30));
        }
        // The first one counts as the longest that there is.
        assert!(
            meter.used() >= Duration::from_millis(20) + LONGEST.min(Duration::from_millis(10)),
            "{:?}",
            meter.used()
        );
        assert!(meter.used() < Duration::from_millis(45), "{:?}", meter.used());
        assert_eq!(usage.running(), meter.used());
        meter.resume();
        assert!(meter.check().is_ok());
        spin(Duration::from_millis(30));
        assert!(meter.check().is_err());
        meter.pause();
        meter.arm(Duration::from_millis(50));
        assert_eq!(meter.used(), Duration::ZERO);
    }

    /// Goal: a thread that has to wait for a core is not taken for one that runs. Method: it waits.
    #[test]
    fn a_thread_without_a_core_does_not_run() {
        let meter = grown(Arc::default());
        meter.arm(Duration::from_secs(1));
        for _ in 0..2 {
            meter.resume();
            std::thread::park_timeout(Duration::from_millis(100));
            meter.pause();
        }
        assert!(meter.used() < Duration::from_millis(50), "{:?}", meter.used());
    }
}
