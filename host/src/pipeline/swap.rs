//! Brings lanes from one revision of the handler to another: tells each what it has to run, hands switches to the handler's
//! side, and goes back when one lane's switch is refused. What was ordered, and what came of it, is `control`'s.
//!
//! Costs a turn one look at a number while nothing is ordered, and nothing per record ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::{Control, Gaps, LaneProgress, Lanes, Orders, Progress, Served, Stage, Strategy};
use super::lane::{LaneRules, Switched};
use super::port::{Edges, Handlers};
use super::revision::{Build, Revision};
use super::run::{Run, Slot};
use super::sink::Failure;
use crate::config::Canary;
use crate::delivery::rollout::{self, RolloutRules};
use crate::telemetry;

/// A version is new so long: most of its records failing is a reason to go back.
const NEW: Duration = Duration::from_secs(600);

/// So many lanes are on their way at a time: starting an instance takes turns of its thread, which the other lanes go on with
/// what they have on.
const AT_ONCE: usize = 2;
/// A lane that needs longer, for the call that it is in, is not waited for by the others.
const SLOW: Duration = Duration::from_millis(10);

/// A switch that is with the handler.
pub(super) struct Handed<B> {
    to: Arc<Revision<B>>,
    at: Instant,
}

/// What there is of the instance that a lane is to go over to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ahead {
    #[default]
    Nothing,
    Starts,
    /// It waits for the lane.
    Started,
}

/// See the module's text.
pub(super) struct Swap<B> {
    seen: u64,
    orders: Orders<B>,
    /// Every lane runs what it has to.
    settled: bool,
    /// Lanes wait for others that are on their way; until then.
    waits: Option<Instant>,
    /// Which order's switch a lane refused, and why.
    refused: Option<(u64, String)>,
    report: Option<Report>,
}

/// What is told of the last order.
struct Report {
    progress: Progress,
    since: Instant,
    gaps: Vec<Duration>,
    old: Tally,
    new: Tally,
}

impl<B: Build> Swap<B> {
    pub(super) fn new(control: &Control<B>) -> Self {
        let (seen, orders) = control.orders();
        // The first turn looks again: an order may be under way.
        Self { seen: seen.wrapping_sub(1), orders, settled: true, waits: None, refused: None, report: None }
    }

    /// What lanes run that no order is for.
    pub(super) const fn serving(&self) -> &Arc<Revision<B>> {
        &self.orders.serving
    }

    /// What a new lane runs.
    pub(super) fn revision_of(&self, topic: &str, partition: i32, inputs: &BTreeMap<String, u32>) -> Arc<Revision<B>> {
        Arc::clone(self.orders.of(partition, inputs.get(topic).copied().unwrap_or(0)))
    }

    /// What a lane goes by under a revision.
    pub(super) fn rules_of(&self, revision: &Revision<B>) -> Arc<LaneRules> {
        let trial = self.orders.coming.as_ref().is_some_and(|coming| {
            coming.to.number == revision.number && coming.lanes != Lanes::All && coming.back.is_none()
        });
        Arc::clone(if trial { &revision.trial } else { &revision.rules })
    }

    /// A lane is ready for its switch.
    pub(super) fn hand_over<E>(
        &self,
        slot: &mut Slot<E>,
        handlers: &mut E::Handlers,
        now: Instant,
    ) -> Result<(), String>
    where
        E: Edges,
        E::Handlers: Handlers<Build = B>,
    {
        // Nothing is left to go back to for a lane that goes back.
        let must = slot.target.number == self.orders.serving.number;
        handlers.switch(&slot.handle, (&slot.lane.topic, slot.lane.partition), &slot.target, must)?;
        slot.ahead = Ahead::Nothing;
        slot.handed = Some(Handed { to: Arc::clone(&slot.target), at: now });
        Ok(())
    }

    /// When lanes are told to go that wait for slow ones.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.waits
    }

    /// It is what every lane is to run.
    fn is_promoted(&self, revision: &Revision<B>) -> bool {
        self.orders.coming.as_ref().is_some_and(|coming| {
            coming.to.number == revision.number && coming.lanes == Lanes::All && coming.back.is_none()
        })
    }

    /// A switch came back from the handler's side. How long it took, if the lane went over.
    pub(super) fn ended<E>(
        &mut self,
        slot: &mut Slot<E>,
        handlers: &mut E::Handlers,
        switched: &Switched,
        took: Duration,
        now: Instant,
    ) -> Option<Duration>
    where
        E: Edges,
        E::Handlers: Handlers<Build = B>,
    {
        let Handed { to, at } = slot.handed.take()?;
        match switched {
            Switched::Over { .. } => {
                // One that was over at once came back in the turn that it was handed over in.
                let gap = now.saturating_duration_since(at).max(took);
                slot.gap = Some(gap);
                slot.revision = to;
                if let Some(report) = &mut self.report {
                    report.gaps.push(gap);
                }
                Some(gap)
            }
            Switched::Refused { failure, .. } => {
                self.refused = Some((to.number, stays(slot, handlers, failure)));
                self.settled = false;
                None
            }
        }
    }

    /// Nothing is under way.
    pub(super) const fn is_settled(&self) -> bool {
        self.settled
    }

    /// A canary wants the old version to try a record.
    pub(super) const fn look_again(&mut self) {
        self.settled = false;
    }

    /// A call ended: with messages, of which some failed an attempt, or without, and failed.
    pub(super) fn served(
        &mut self,
        revision: &Revision<B>,
        messages: usize,
        failed: u64,
        stuck: u64,
        took: Option<Duration>,
    ) {
        let Some(report) = &mut self.report else { return };
        let is_new = revision.number == report.progress.number;
        let tally = if is_new { &mut report.new } else { &mut report.old };
        tally.served.failed += failed;
        tally.served.stuck += stuck;
        tally.served.messages += messages as u64;
        if let Some(took) = took.filter(|_| messages > 0) {
            tally.took(messages, took);
        }
    }
}

/// A lane does not go where it was told to, nor where it was told to go since. Why, for people.
fn stays<E: Edges>(slot: &mut Slot<E>, handlers: &mut E::Handlers, failure: &Failure) -> String {
    slot.target = Arc::clone(&slot.revision);
    recall(slot, handlers);
    format!("{}: {}: {}", slot.name(), failure.class, failure.reason)
}

/// A lane does not go where it was told to go, unless it is with the handler for that; what was started for it is not wanted.
fn recall<E: Edges>(slot: &mut Slot<E>, handlers: &mut E::Handlers) {
    slot.lane.stay();
    if std::mem::take(&mut slot.ahead) != Ahead::Nothing {
        mark!(PreparedInVain);
        handlers.give_up_prepared(&slot.handle);
    }
}

impl<E: Edges> Run<E> {
    /// Looks at what was ordered, if anything was. True when that is so.
    pub(super) fn take_orders(&mut self, now: Instant) -> bool {
        if self.parts.control.changes() == self.swap.seen {
            return false;
        }
        let (seen, orders) = self.parts.control.orders();
        let before = std::mem::replace(&mut self.swap.orders, orders);
        let orders = &self.swap.orders;
        self.swap.seen = seen;
        if let Some(coming) = &orders.coming {
            self.swap.settled = false;
            if self.swap.report.as_ref().is_none_or(|report| report.progress.number != coming.to.number) {
                if before.coming.is_some_and(|before| before.to.number != coming.to.number) {
                    mark!(SwitchOvertaken);
                }
                let in_flight = self.lanes.iter().flatten().map(|slot| slot.lane.open() as u64).sum();
                let progress = Progress { in_flight, ..self.parts.control.progress() };
                let (gaps, old, new) = (Vec::new(), Tally::default(), Tally::default());
                self.swap.report = Some(Report { progress, since: now, gaps, old, new });
            }
        }
        let (pause, resumes) = (orders.pause.clone(), orders.resumes != before.resumes);
        if self.pause.ordered(pause, resumes, now) {
            self.show_troubles();
        }
        true
    }

    /// Tells lanes where to go, and sees whether all are there. True when there was something to do.
    pub(super) fn go_on_swapping(&mut self, now: Instant) -> bool {
        self.swap.waits = None;
        if self.swap.settled || self.closing {
            return false;
        }
        if let Some((number, reason)) = self.swap.refused.take()
            && self.parts.control.take_back(number, &format!("the new version does not start: {reason}"))
        {
            self.take_orders(now);
        }
        let drain = self.swap.orders.coming.as_ref().is_some_and(|coming| coming.strategy == Strategy::Drain)
            && self.pause.reason().is_none();
        // What is taken back is taken from all at once, and nobody waits where nobody is served anyway.
        let in_turn = self.pause.reason().is_none()
            && self.swap.orders.coming.as_ref().is_some_and(|coming| coming.back.is_none());
        let here = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let mut under_way: Vec<Instant> =
            here.filter_map(|slot| slot.told).map(|told| told + SLOW).filter(|slow| now < *slow).collect();
        let (mut any, mut all) = (false, true);
        let handlers = &mut self.parts.handlers;
        for id in &self.active {
            let Some(slot) = self.lanes[*id as usize].as_mut() else { continue };
            if slot.lane.is_draining() || slot.lane.stopped().is_some() {
                continue; // it ends with what it has
            }
            let partitions = self.parts.inputs.get(&*slot.lane.topic).copied().unwrap_or(0);
            let mut target = self.swap.orders.of(slot.lane.partition, partitions);
            if target.number == slot.revision.number
                && let Some(offset) = slot.lane.steps_back()
            {
                slot.replays = Some(offset);
            }
            if slot.replays.is_some() {
                let over = slot.revision.number == self.swap.orders.serving.number
                    && slot.replays.is_none_or(|offset| slot.lane.oldest_open().is_none_or(|oldest| oldest > offset));
                if over || target.number == self.swap.orders.serving.number || self.swap.is_promoted(target) {
                    slot.replays = None;
                } else {
                    target = &self.swap.orders.serving;
                    all = false;
                }
            }
            if slot.target.number != target.number {
                if in_turn && slot.told.is_none() && under_way.len() >= AT_ONCE {
                    mark!(SwitchWaited);
                    all = false;
                    self.swap.waits = under_way.iter().min().copied();
                    continue;
                }
                under_way.push(now + SLOW);
                any = true;
                slot.target = Arc::clone(target);
                slot.told = Some(now);
                recall(slot, handlers);
                let is_there = slot.revision.number == target.number && slot.handed.is_none();
                if !is_there && in_turn && target.number != self.swap.orders.serving.number {
                    slot.ahead = Ahead::Starts;
                    handlers.prepare(&slot.handle, (&slot.lane.topic, slot.lane.partition), target);
                } else if !is_there {
                    // Nothing is better than what it leaves.
                    slot.lane.switch(self.swap.rules_of(target), drain);
                }
            }
            if slot.ahead == Ahead::Starts
                && let Some(prepared) = handlers.prepared(&slot.handle)
            {
                any = true;
                match prepared {
                    Ok(()) => {
                        slot.ahead = Ahead::Started;
                        slot.lane.switch(self.swap.rules_of(target), drain);
                    }
                    Err(failure) => {
                        mark!(NotPrepared);
                        slot.ahead = Ahead::Nothing;
                        self.swap.refused = Some((target.number, stays(slot, handlers, &failure)));
                    }
                }
            }
            if slot.revision.number == target.number && self.swap.is_promoted(target) {
                slot.lane.promote(&target.rules);
            }
            if slot.revision.number == target.number {
                // One before it may wait for that.
                any |= slot.told.take().is_some();
            } else {
                all = false;
            }
        }
        if all {
            self.all_switched(now);
        }
        any || all
    }

    /// Every lane runs what it has to.
    fn all_switched(&mut self, now: Instant) {
        self.swap.settled = true;
        let Some(coming) = self.swap.orders.coming.take() else { return };
        let number = coming.to.number;
        let replayed = self.swap.report.as_ref().is_some_and(|report| report.progress.stage == Stage::Canary);
        if replayed && coming.lanes != Lanes::All && coming.back.is_none() {
            self.swap.orders.coming = Some(coming);
            return;
        }
        let stage = if let Some(reason) = coming.back {
            mark!(SwitchRolledBack);
            self.parts.control.returned(number);
            self.parts.outlets.figures.swaps[1] += 1;
            Stage::RolledBack(reason)
        } else if coming.lanes == Lanes::All {
            self.parts.control.arrived(number);
            self.parts.outlets.figures.swaps[0] += 1;
            self.swap.orders.serving = coming.to;
            Stage::Done
        } else {
            self.swap.orders.coming = Some(coming);
            Stage::Canary
        };
        if stage != Stage::Canary {
            let serving = &self.swap.orders.serving;
            self.parts.config = Arc::clone(&serving.config);
            self.parts.status.serves(serving.digest(), &serving.config.limits);
            self.pause.follow(&serving.config.errors, now);
        }
        if let Some(report) = &mut self.swap.report {
            report.progress.stage = stage;
            report.progress.took = now.saturating_duration_since(report.since);
            report.progress.gaps = Gaps::of(&report.gaps);
            telemetry::swapped(&self.parts.config.name, &report.progress);
        }
        self.show_troubles();
        self.publish_swap();
    }

    /// Most records fail. True when that is the doing of a version that lanes are leaving already, or do from now on.
    pub(super) fn leaves_what_fails(&self, why: &str, now: Instant) -> bool {
        // Calls under way when the version was taken back still end on it: no reason to pause the one before.
        if self.swap.orders.coming.as_ref().is_some_and(|coming| coming.back.is_some()) {
            mark!(FailedWhileGoingBack);
            return true;
        }
        // Lanes are on their way to it, and those that are there fail: nobody waits for the others.
        if self.takes_back_what_fails(why) {
            mark!(FailedWhileSwitching);
            return true;
        }
        self.goes_back_from_new(why, now)
    }

    /// Most records fail, and the version that they fail on is new here: the one before comes back. False when there is none.
    fn goes_back_from_new(&self, why: &str, now: Instant) -> bool {
        let Some(report) = &self.swap.report else { return false };
        let is_new = report.progress.stage == Stage::Done && now.saturating_duration_since(report.since) < NEW;
        is_new && self.parts.control.go_back(report.progress.number, why)
    }

    /// Most records fail while lanes are on their way to a version. It goes back if that is the new one's doing: false else.
    fn takes_back_what_fails(&self, why: &str) -> bool {
        let (Some(coming), Some(report)) = (&self.swap.orders.coming, &self.swap.report) else { return false };
        let Some(breaker) = &self.parts.config.errors.breaker else { return false };
        let (new, old) = (report.new.served, report.old.served);
        // What was counted before the order is not the new one's doing.
        let enough = u64::from(breaker.of_at_least.max(1));
        let fails = |of: Served| of.messages >= enough && of.failed * 100 >= of.messages * u64::from(breaker.percent);
        coming.lanes == Lanes::All && fails(new) && !fails(old) && self.parts.control.take_back(coming.to.number, why)
    }

    /// Compares a canary with the version before, and takes it back or promotes it when it is time.
    pub(super) fn judge_canary(&mut self, now: Instant) {
        let (Some(coming), Some(report)) = (&self.swap.orders.coming, &self.swap.report) else { return };
        if coming.lanes == Lanes::All || coming.back.is_some() {
            return;
        }
        let Canary { failed, slower, of_at_least } = coming.to.config.swap.canary;
        let rules = RolloutRules { of_at_least: of_at_least.into(), failed, slower };
        let number = coming.to.number;
        if let Some(worse) = rollout::worse(&report.old.served(), &report.new.served(), &rules) {
            self.parts.control.take_back(number, &format!("the canary is worse: {worse}"));
        } else if coming.promote_after.is_some_and(|wait| now.saturating_duration_since(report.since) >= wait) {
            self.parts.control.promote(number);
        }
    }

    /// Shows how far the last order is.
    pub(super) fn publish_swap(&mut self) {
        let Some(report) = &mut self.swap.report else { return };
        let orders = &self.swap.orders;
        let slots = self.active.iter().filter_map(|id| self.lanes[*id as usize].as_ref());
        let lanes = slots.map(|slot| {
            let partitions = self.parts.inputs.get(&*slot.lane.topic).copied().unwrap_or(0);
            LaneProgress {
                topic: Arc::clone(&slot.lane.topic),
                partition: slot.lane.partition,
                digest: Arc::clone(slot.revision.digest()),
                on_new: slot.revision.number == report.progress.number,
                switched: slot.revision.number == orders.of(slot.lane.partition, partitions).number,
                gap: slot.gap,
                open: slot.lane.open() as u64,
            }
        });
        report.progress.lanes = lanes.collect();
        report.progress.lanes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        if let Some(coming) = &orders.coming {
            report.progress.share = coming.lanes;
            if !self.swap.settled {
                report.progress.stage = coming.back.clone().map_or(Stage::Switching, Stage::RollingBack);
            }
        }
        report.progress.gaps = Gaps::of(&report.gaps);
        (report.progress.old, report.progress.new) = (report.old.served(), report.new.served());
        self.parts.control.publish(self.swap.seen, report.progress.clone());
    }
}

/// What a version did, with the distribution of its calls' times: buckets that grow by a quarter of an octave.
#[derive(Debug)]
struct Tally {
    served: Served,
    buckets: [u32; BUCKETS],
}

/// From a microsecond to more than an hour.
const BUCKETS: usize = 4 * 34;

impl Default for Tally {
    fn default() -> Self {
        Self { served: Served::default(), buckets: [0; BUCKETS] }
    }
}

impl Tally {
    /// A call with messages.
    fn took(&mut self, messages: usize, took: Duration) {
        self.served.calls += 1;
        let bucket = &mut self.buckets[bucket(took / u32::try_from(messages).unwrap_or(u32::MAX).max(1))];
        *bucket = bucket.saturating_add(1);
    }

    fn served(&self) -> Served {
        let all: u64 = self.buckets.iter().copied().map(u64::from).sum();
        let mut left = all - all / 100;
        let last = self.buckets.iter().position(|count| {
            left = left.saturating_sub(u64::from(*count));
            left == 0
        });
        Served { p99: last.filter(|_| all > 0).map_or(Duration::ZERO, upper), ..self.served }
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let octave = 63 - micros.leading_zeros() as usize;
    // The two bits below the first.
    (4 * (octave - 2) + (micros >> (octave - 2)) as usize - 4).min(BUCKETS - 1)
}

/// The longest time of a bucket.
fn upper(bucket: usize) -> Duration {
    Duration::from_micros(((bucket % 4 + 5) as u64) << (bucket / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: a time is never above the bound of its bucket, and never more than a quarter below.
    #[test]
    fn call_times_are_known_to_a_quarter() {
        for micros in (4..3_000).chain([1 << 20, (1 << 20) - 1, 3_600_000_000]) {
            let (took, bound) = (Duration::from_micros(micros), upper(bucket(Duration::from_micros(micros))));
            assert!(took < bound && bound <= took * 5 / 4 + Duration::from_micros(1), "{took:?} {bound:?}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_slowest_of_a_hundred_does_not_count() {
        let mut tally = Tally::default();
        assert_eq!(tally.served(), Served::default());
        for _ in 0..99 {
            tally.took(1, Duration::from_micros(100));
        }
        tally.took(1, Duration::from_secs(1));
        let served = tally.served();
        assert_eq!(served.calls, 100);
        assert!(served.p99 < Duration::from_micros(130), "{:?}", served.p99);
        tally.took(1, Duration::from_secs(1));
        assert!(tally.served().p99 >= Duration::from_secs(1));
    }
}
