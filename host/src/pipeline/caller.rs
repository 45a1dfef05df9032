//! One lane's instance and the calls to it. A call runs on the lane's handler thread; one that is expected to be over at once,
//! of a lane whose loop has nothing else to do, begins on the thread of whoever asks: handing it over and its answer back would
//! take longer than the call. So does a switch for which an instance was started, and that calls none. What is not over by the
//! end of its first slice goes on on the handler thread, as does whatever waits, so a handler that takes longer than expected
//! stops its loop for a slice; the loop asks for few such calls a turn.
//!
//! Knows plugin/ and threads' runtimes. Invariant: whoever has the [`Resident`] may call its instance; it is back at its
//! [`Desk`] before the answer is sent.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker as TaskWaker};
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Messages};
use tokio::runtime;
use tokio::sync::mpsc;

use super::lane::{Call, CallKind, Reply, Switched};
use super::port::{Answered, Handle, Renewed};
use super::sink::Failure;
use super::spare::{Spare, Started};
use crate::config::OnStateRefused;
use crate::delivery::ticket::LaneId;
use crate::delivery::verdict::FailedMessage;
use crate::plugin::{Fault, Instance, InstanceConfig, Place, Version};
use crate::wake::Waker;

/// How long a lane stays apart after a fault.
const APART: Duration = Duration::from_secs(60);

/// Sends calls to a lane's instance. Dropping it ends the instance after the call that is under way.
pub struct LaneHandle(Arc<Desk>);

/// What instances are asked.
enum Job {
    Call(Call),
    Switch(Switch),
}

/// Another version for a lane.
struct Switch {
    place: Place,
    to: Handler,
    must: bool,
    /// What was started for it.
    spare: Option<Started>,
}

/// Where answers of one pipeline gather.
#[derive(Clone)]
pub(super) struct AnswerSender {
    pub answers: mpsc::Sender<Answered>,
    pub waker: Waker,
}

/// A version with what its instances are started with.
#[derive(Clone)]
pub(super) struct Handler {
    /// Of its revision.
    pub number: u64,
    pub version: Arc<Version>,
    pub config: Arc<InstanceConfig>,
    pub on_state_refused: OnStateRefused,
}

/// Where a lane's instance is between calls.
struct Desk {
    lane: LaneId,
    answers: AnswerSender,
    ordinary: runtime::Handle,
    apart: runtime::Handle,
    resident: Mutex<Whereabouts>,
    /// For a switch that comes.
    spare: Spare,
    /// The lane runs apart since its last call.
    is_apart: AtomicBool,
    /// A call runs on the thread of whoever asked for it.
    here: AtomicBool,
}

/// Where the resident is.
enum Whereabouts {
    /// At its desk.
    Here(Box<Resident>),
    /// At a call.
    Away,
    /// Nobody asks for it any more: it ends behind the call that is under way.
    Dismissed,
}

impl Whereabouts {
    /// Takes it away, if it is there.
    fn take(&mut self, leaving: Self) -> Option<Box<Resident>> {
        match std::mem::replace(self, leaving) {
            Self::Here(resident) => Some(resident),
            Self::Away | Self::Dismissed => None,
        }
    }
}

/// What a lane's calls go to.
struct Resident {
    handler: Handler,
    instance: Option<Instance>,
    seat: Seat,
}

/// On which of its threads a lane runs.
#[derive(Default)]
struct Seat {
    /// While it is apart.
    apart_until: Option<Instant>,
    /// It changed since the last call.
    changed: bool,
}

impl LaneHandle {
    /// A lane on these two threads. Its instance is started by its first call.
    pub(super) fn new(
        lane: LaneId,
        handler: Handler,
        answers: &AnswerSender,
        ordinary: &runtime::Handle,
        apart: &runtime::Handle,
    ) -> Self {
        let resident = Box::new(Resident { handler, instance: None, seat: Seat::default() });
        Self(Arc::new(Desk {
            lane,
            answers: answers.clone(),
            ordinary: ordinary.clone(),
            apart: apart.clone(),
            resident: Mutex::new(Whereabouts::Here(resident)),
            spare: Spare::default(),
            is_apart: AtomicBool::new(false),
            here: AtomicBool::new(false),
        }))
    }

    /// Begins to start an instance for a switch that comes. Calls go on meanwhile, also those of the lanes beside it: it
    /// takes its turns as they do.
    pub(super) fn prepare(&self, place: Place, to: Handler) {
        let desk = Arc::clone(&self.0);
        let apart = desk.is_apart.load(Ordering::Relaxed);
        let (ticket, before) = desk.spare.begin();
        let preparation = Preparation { desk, ticket };
        self.0.thread_of(apart).spawn(async move {
            if let Some(before) = before {
                before.end();
            }
            let started = Instance::start_for(&to.version, &to.config, Some(place)).await;
            let started = started.map(|instance| Started { revision: to.number, instance: Box::new(instance), apart });
            preparation.over(started.map_err(|fault| failure(&fault)));
        });
    }

    /// See [`Spare::prepared`].
    pub(super) fn prepared(&self) -> Option<Result<(), Failure>> {
        self.0.spare.prepared()
    }

    /// No switch comes after all.
    pub(super) fn give_up_prepared(&self) {
        self.end(self.0.spare.give_up());
    }

    fn end(&self, unwanted: Option<Started>) {
        if let Some(spare) = unwanted {
            self.0.thread_of(spare.apart).spawn(async move { spare.end() });
        }
    }

    /// Another version, in the instance that was prepared for it, if one was.
    pub(super) fn switch(&self, place: Place, to: Handler, must: bool) -> Result<(), String> {
        let (spare, other) = match self.0.spare.give_up() {
            Some(spare) if spare.revision == to.number => (Some(spare), None),
            other => (None, other),
        };
        self.end(other);
        self.send(Job::Switch(Switch { place, to, must, spare }))
    }

    fn send(&self, job: Job) -> Result<(), String> {
        let Some(resident) = lock(&self.0.resident).take(Whereabouts::Away) else {
            return Err("the lane's handler is at a call still".to_owned());
        };
        let here = resident.seat.is_calm()
            && match &job {
                Job::Call(call) => call.short.is_some() && resident.instance.is_some(),
                Job::Switch(switch) => resident.only_changes_hands(switch),
            };
        let thread = self.0.thread(&resident.seat).clone();
        let mut call: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(resident.serve(Arc::clone(&self.0), job));
        if here {
            // The timers of the call are its own thread's, and so is its turn there.
            let _runtime = thread.enter();
            // Nobody has to be woken: what is not over is polled again on its thread.
            let mut context = Context::from_waker(TaskWaker::noop());
            self.0.here.store(true, Ordering::Relaxed);
            let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context).is_pending()));
            self.0.here.store(false, Ordering::Relaxed);
            match polled {
                Ok(true) => {}
                // A panic was answered on its way here.
                Ok(false) | Err(_) => return Ok(()),
            }
        }
        thread.spawn(call);
        Ok(())
    }
}

impl Handle for LaneHandle {
    fn call(&self, call: Call) -> Result<(), String> {
        self.send(Job::Call(call))
    }
}

impl Drop for LaneHandle {
    fn drop(&mut self) {
        self.give_up_prepared();
        // Giving an instance back takes a while, which is not the loop's.
        if let Some(resident) = lock(&self.0.resident).take(Whereabouts::Dismissed) {
            self.0.thread(&resident.seat).spawn(async move { drop(resident) });
        }
    }
}

impl Desk {
    fn thread(&self, seat: &Seat) -> &runtime::Handle {
        self.thread_of(seat.apart_until.is_some())
    }

    fn thread_of(&self, apart: bool) -> &runtime::Handle {
        if apart { &self.apart } else { &self.ordinary }
    }

    /// A call is over.
    fn seat(&self, resident: Box<Resident>) {
        let mut whereabouts = lock(&self.resident);
        match &*whereabouts {
            Whereabouts::Dismissed => {
                drop(whereabouts);
                drop(resident);
            }
            Whereabouts::Here(_) | Whereabouts::Away => *whereabouts = Whereabouts::Here(resident),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    /// A call is over. What breaks, or broke within a minute, is apart.
    fn after(&mut self, fault: bool, now: Instant) {
        let was_apart = self.apart_until.is_some();
        if fault {
            self.apart_until = Some(now + APART);
        } else if self.apart_until.is_some_and(|until| until <= now) {
            self.apart_until = None;
        }
        self.changed |= was_apart != self.apart_until.is_some();
    }

    /// Nothing speaks against a call on another thread.
    fn is_calm(&self) -> bool {
        self.apart_until.is_none() && !self.changed
    }
}

/// An instance is being started for a switch.
struct Preparation {
    desk: Arc<Desk>,
    ticket: u64,
}

impl Preparation {
    fn over(&self, started: Result<Started, Failure>) {
        if let Some(unwanted) = self.desk.spare.over(self.ticket, started) {
            unwanted.end();
        }
        self.desk.answers.waker.wake();
    }
}

impl Drop for Preparation {
    /// Nobody waits for ever for one that panics (a bug of the host's).
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.over(Err(Failure {
                class: "host",
                reason: "a handler thread panicked, a bug of the host's".to_owned(),
            }));
        }
    }
}

impl Started {
    /// Nobody wants it. Called on its thread.
    fn end(self) {
        let mut instance = self.instance;
        instance.move_here();
    }
}

/// Answers a call that panics (a bug of the host's): else its lane would wait for ever.
struct Alarm<'a> {
    lane: LaneId,
    answers: &'a AnswerSender,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (frame, took) = (Frame::default(), Duration::ZERO);
            let answered = Answered { lane: self.lane, frame, reply: None, took, memory: 0, renewed: None };
            // A full channel is emptied soon, but this cannot wait; the pipeline's next stop finds the lane then.
            _ = self.answers.answers.try_send(answered);
            self.answers.waker.wake();
        }
    }
}

/// Milliseconds since 1970, as handlers are told.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Resident {
    /// Does one job and answers it.
    async fn serve(mut self: Box<Self>, desk: Arc<Desk>, job: Job) {
        if std::mem::take(&mut self.seat.changed)
            && let Some(instance) = &mut self.instance
        {
            instance.move_here();
        }
        let started = Instant::now();
        let _alarm = Alarm { lane: desk.lane, answers: &desk.answers };
        let (frame, reply, gone) = match job {
            Job::Call(call) => {
                let (reply, broken) = self.reply(&call).await;
                (call.frame, reply, broken)
            }
            Job::Switch(switch) => {
                let (switched, old) = self.switch(switch, desk.here.load(Ordering::Relaxed)).await;
                (Frame::default(), Reply::Switched(switched), old)
            }
        };
        let took = started.elapsed();
        let fault = matches!(reply, Reply::Fault(_) | Reply::NotStarted(_));
        let renewed = self.renew(&desk).await;
        let memory = self.instance.as_ref().map_or(0, Instance::memory_bytes);
        self.seat.after(fault, started + took);
        desk.is_apart.store(self.seat.apart_until.is_some(), Ordering::Relaxed);
        if let Some(mut gone) = gone {
            // What it takes to give it up is done where the lane goes on, which does not wait for it.
            desk.thread(&self.seat).spawn(async move {
                gone.move_here();
                drop(gone);
            });
        }
        desk.seat(self);
        let answered = Answered { lane: desk.lane, frame, reply: Some(reply), took, memory, renewed };
        // Without anybody to take it the pipeline has stopped. Whoever asked here looks for it by itself.
        if desk.answers.answers.send(answered).await.is_ok() && !desk.here.load(Ordering::Relaxed) {
            desk.answers.waker.wake();
        }
    }

    /// An instance that is old makes way for another, which gets its state where the handler has such.
    async fn renew(&mut self, desk: &Desk) -> Option<Renewed> {
        let old = self.instance.as_mut().filter(|instance| instance.worn().is_some())?;
        if desk.here.load(Ordering::Relaxed) {
            // Starting one takes longer than a call.
            tokio::task::yield_now().await;
        }
        let Handler { version, config, .. } = &self.handler;
        let new = if version.has_state() { Instance::start_for(version, config, old.place()).await.ok() } else { None };
        if let Some(mut new) = new
            && hand_over(old, &mut new, version).await.is_ok()
        {
            self.instance = Some(new);
            return Some(Renewed::Restored);
        }
        self.instance = None;
        Some(Renewed::Fresh)
    }

    /// Such a switch calls neither instance.
    fn only_changes_hands(&self, switch: &Switch) -> bool {
        switch.spare.as_ref().is_some_and(|spare| !spare.apart) && !self.hands_state_over(&switch.to)
    }

    fn hands_state_over(&self, to: &Handler) -> bool {
        self.instance.is_some() && self.handler.version.has_state() && to.version.has_state()
    }

    /// A new instance first, if none was prepared, then the old one's state for it. Gives out the old one.
    async fn switch(&mut self, switch: Switch, here: bool) -> (Switched, Option<Instance>) {
        let Switch { place, to, must, spare } = switch;
        let refused = |fault: &Fault, lost| Switched::Refused { failure: failure(fault), lost };
        let start = || Instance::start_for(&to.version, &to.config, Some(place.clone()));
        let mut new = match spare {
            Some(Started { mut instance, .. }) => {
                if !here {
                    // The lane may have changed threads meanwhile.
                    instance.move_here();
                }
                Some(*instance)
            }
            None => match start().await {
                Ok(new) => Some(new),
                Err(_) if must => None, // reported; its next call tries again, as after any fault
                Err(fault) => return (refused(&fault, false), None),
            },
        };
        let mut restored = false;
        if self.hands_state_over(&to)
            && let (Some(old), Some(into)) = (&mut self.instance, &mut new)
        {
            match hand_over(old, into, &self.handler.version).await {
                Ok(()) => restored = true,
                Err((fault, lost)) => {
                    let gone = if lost { self.instance.take() } else { None };
                    if to.on_state_refused == OnStateRefused::Refuse && !must {
                        return (refused(&fault, lost), gone);
                    }
                    // One that has seen half of a state is no fresh one.
                    drop(new.take());
                    new = match start().await {
                        Ok(new) => Some(new),
                        Err(_) if must => None,
                        Err(fault) => return (refused(&fault, lost), gone),
                    };
                }
            }
        }
        self.handler = to;
        (Switched::Over { restored }, std::mem::replace(&mut self.instance, new))
    }

    /// Makes a call. After any error the store is poisoned or leaks: the instance is handed out to be given up, and a new one is
    /// made for the next call.
    async fn reply(&mut self, call: &Call) -> (Reply, Option<Instance>) {
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                // The first call may be one without messages: a tick, or that the partition has come.
                let messages = (!call.frame.index.is_empty()).then(|| Messages::new(&call.frame));
                let place = messages.and_then(|messages| Place::of(&messages)).map(Place::without_messages);
                match Instance::start_for(&self.handler.version, &self.handler.config, place).await {
                    Ok(instance) => none.insert(instance),
                    Err(fault) => return (Reply::NotStarted(failure(&fault)), None),
                }
            }
        };
        match Self::call(instance, call).await {
            Ok(reply) => (reply, None),
            Err(fault) => (Reply::Fault(failure(&fault)), self.instance.take()),
        }
    }

    async fn call(instance: &mut Instance, call: &Call) -> Result<Reply, Fault> {
        match &call.kind {
            CallKind::Messages => instance.handle_messages(&call.frame).await.map(Reply::Answer),
            CallKind::Batch => instance
                .handle_batch(&call.frame)
                .await
                .map(|answer| answer.map_or_else(Reply::BatchError, Reply::Answer)),
            CallKind::Tick => instance.tick(now_ms()).await.map(Reply::Answer),
            CallKind::Assigned { topic, partition, next_offset } => {
                instance.partition_assigned(topic, *partition, *next_offset).await.map(Reply::Answer)
            }
            CallKind::Revoked { topic, partition, reason } => {
                instance.partition_revoked(topic, *partition, *reason).await.map(Reply::Answer)
            }
            CallKind::Failed { failure, stage, attempts } => {
                let Failure { class, reason } = failure;
                let failed = FailedMessage { frame: &call.frame, stage, class, reason, attempts: *attempts };
                instance.handle_failed(&failed).await.map(Reply::Verdict)
            }
            CallKind::Switch => unreachable!("a switch is a job of its own"),
        }
    }
}

fn failure(fault: &Fault) -> Failure {
    Failure { class: fault.class.name(), reason: fault.summary() }
}

/// Gives the old instance's state to the new one. The error says whether the old one is lost by it.
async fn hand_over(old: &mut Instance, new: &mut Instance, from: &Version) -> Result<(), (Fault, bool)> {
    let state = old.snapshot().await.map_err(|fault| (fault, true))?;
    new.restore(&state, from.digest()).await.map_err(|fault| (fault, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves: a fault sends a lane apart, another one keeps it there for longer, and a minute without any brings it back.
    #[test]
    fn a_lane_is_apart_for_a_minute_after_its_last_fault() {
        let mut seat = Seat::default();
        let begin = Instant::now();
        let mut moves = |fault: bool, second: u64| {
            seat.after(fault, begin + Duration::from_secs(second));
            std::mem::take(&mut seat.changed)
        };
        assert!(!moves(false, 0));
        assert!(moves(true, 1), "goes apart");
        assert!(!moves(false, 2) && !moves(true, 31) && !moves(false, 61), "stays");
        assert!(!moves(false, 90));
        assert!(moves(false, 91), "comes back");
        assert!(!moves(false, 92) && moves(true, 93));
    }

    /// Proves: calls may begin elsewhere than on their thread only while a lane is well and its instance knows its thread.
    #[test]
    fn a_lane_that_broke_is_called_on_its_own_thread() {
        let mut seat = Seat::default();
        let begin = Instant::now();
        assert!(seat.is_calm());
        seat.after(true, begin);
        assert!(!seat.is_calm());
        seat.changed = false;
        assert!(!seat.is_calm(), "it is apart");
        seat.after(false, begin + APART);
        assert!(!seat.is_calm(), "its instance has to come back first");
        seat.changed = false;
        assert!(seat.is_calm());
    }
}
