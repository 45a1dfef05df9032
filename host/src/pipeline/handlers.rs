//! Handler threads. Lanes are spread over them and stay where they are; on each thread the calls of its lanes take turns of
//! two milliseconds, each pipeline by its share, so a slow or looping lane stops neither the I/O thread nor its neighbours.
//! What a fault costs is no guest's code and cannot be divided into turns: a trap is traced to its source line, an instance is
//! given up, another one started. So lanes whose handlers break go apart, to threads of their own, until they have been well for
//! a minute: between threads the system divides what cannot be divided here.
//!
//! Knows plugin/ and channels. One message per call crosses to the lane's thread, one comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Messages};
use tokio::sync::{mpsc, oneshot};

use super::lane::{Call, CallKind, Exports, Reply, Switched};
use super::port::{Answered, Handle, Handlers, Renewed};
use super::revision::{self, Build, Offered, Revision};
use super::sink::Failure;
use crate::config::{OnStateRefused, Pipeline};
use crate::delivery::ticket::LaneId;
use crate::delivery::verdict::FailedMessage;
use crate::handler_metrics::HandlerMetrics;
use crate::handler_usage::Usage;
use crate::outbound::Client;
use crate::plugin::{Fault, HandlerLog, Instance, InstanceConfig, OutputInfo, Place, Version};
use crate::threads;
use crate::wake::Waker;

/// Answers of one pipeline that may wait for its I/O thread. Lanes have one call each, so more never wait for long.
const ANSWERS: usize = 1024;
/// Wasm stack (512 KiB by default) is a fiber's own; this is the host's below it.
const STACK: usize = 4 * 1024 * 1024;
/// How long a lane stays apart after a fault.
const APART: Duration = Duration::from_secs(60);
/// Revisions that lanes may be on their way between: the one before, the canary, the one after.
const REVISIONS: usize = 4;

/// The handler threads of the process.
pub struct HandlerThreads {
    threads: Vec<Pair>,
    next: AtomicUsize,
}

/// A thread, and the one for those of its lanes that are apart.
struct Pair {
    ordinary: HandlerThread,
    apart: HandlerThread,
}

struct HandlerThread {
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Sends calls to a lane's instance. Dropping it ends the instance after the call that is under way.
pub struct LaneHandle {
    jobs: mpsc::Sender<Job>,
}

/// What a lane's task does.
enum Job {
    Call(Call),
    Switch { place: Place, to: Handler, must: bool },
}

impl LaneHandle {
    fn send(&self, job: Job) -> Result<(), String> {
        self.jobs.try_send(job).map_err(|error| format!("the lane's handler takes no call: {error}"))
    }
}

impl Handle for LaneHandle {
    fn call(&self, call: Call) -> Result<(), String> {
        self.send(Job::Call(call))
    }
}

impl Build for Arc<Version> {
    fn digest(&self) -> &str {
        Version::digest(self)
    }

    fn offers(&self) -> Offered {
        Offered {
            messages: self.has_message(),
            batches: self.has_batch(),
            tick: self.has_tick(),
            exports: Exports { partitions: self.has_partitions(), failures: self.has_failures() },
        }
    }
}

/// Where answers of one pipeline gather.
#[derive(Clone)]
struct AnswerSender {
    answers: mpsc::Sender<Answered>,
    waker: Waker,
}

/// Makes the log of a version's instances.
pub type Logs = Arc<dyn Fn(&Version) -> Arc<dyn HandlerLog> + Send + Sync>;

/// What instances of a pipeline have in common, whatever the version.
#[derive(Clone)]
pub struct Surroundings {
    /// Declared outputs, in the order of the configuration.
    pub outputs: Arc<[OutputInfo]>,
    /// Where lines go.
    pub logs: Logs,
    /// Where it is counted what instances use.
    pub usage: Arc<Usage>,
    /// Figures of the handlers' own.
    pub metrics: Arc<HandlerMetrics>,
    /// Sends their requests, if they were granted any.
    pub http: Option<Arc<Client>>,
}

impl Surroundings {
    /// What instances of a build are started with.
    #[must_use]
    pub fn instance(&self, config: &Pipeline, version: &Version) -> InstanceConfig {
        let batchers = revision::batchers(config, version.has_batch());
        InstanceConfig {
            limits: config.limits.clone(),
            recycle: config.recycle.clone(),
            settings: config.settings.to_string().into(),
            outputs: Arc::clone(&self.outputs),
            batchers: batchers.into_iter().map(|batcher| batcher.name).collect(),
            log: (self.logs)(version),
            usage: Arc::clone(&self.usage),
            metrics: Arc::clone(&self.metrics),
            http: self.http.clone(),
        }
    }
}

/// A version with what its instances are started with.
#[derive(Clone)]
struct Handler {
    version: Arc<Version>,
    config: Arc<InstanceConfig>,
    on_state_refused: OnStateRefused,
}

/// The handler threads, for the lanes of one run.
pub struct LaneHandlers {
    threads: Arc<HandlerThreads>,
    surroundings: Surroundings,
    /// By number of the revision; the newest few.
    known: VecDeque<(u64, Handler)>,
    answers: AnswerSender,
    answered: mpsc::Receiver<Answered>,
}

impl LaneHandlers {
    /// Instances in these surroundings; answers wake the waker.
    #[must_use]
    pub fn new(threads: &Arc<HandlerThreads>, surroundings: Surroundings, waker: &Waker) -> Self {
        let (answers, answered) = mpsc::channel(ANSWERS);
        let answers = AnswerSender { answers, waker: waker.clone() };
        Self { threads: Arc::clone(threads), surroundings, known: VecDeque::new(), answers, answered }
    }

    /// The same for all lanes that come to a revision: they share a log, which bounds what it says.
    fn handler(&mut self, revision: &Revision<Arc<Version>>) -> Handler {
        if let Some((_, known)) = self.known.iter().find(|(number, _)| *number == revision.number) {
            return known.clone();
        }
        let handler = Handler {
            version: Arc::clone(&revision.build),
            config: Arc::new(self.surroundings.instance(&revision.config, &revision.build)),
            on_state_refused: revision.config.swap.on_state_refused,
        };
        self.known.truncate(REVISIONS - 1);
        self.known.push_front((revision.number, handler.clone()));
        handler
    }
}

impl Handlers for LaneHandlers {
    type Build = Arc<Version>;
    type Handle = LaneHandle;

    fn open(&mut self, lane: LaneId, revision: &Arc<Revision<Arc<Version>>>) -> LaneHandle {
        let handler = self.handler(revision);
        self.threads.open(lane, handler, &self.answers)
    }

    fn switch(
        &mut self,
        handle: &LaneHandle,
        (topic, partition): (&Arc<str>, i32),
        to: &Arc<Revision<Arc<Version>>>,
        must: bool,
    ) -> Result<(), String> {
        let place = Place::of_partition(topic, partition.unsigned_abs());
        handle.send(Job::Switch { place, to: self.handler(to), must })
    }

    #[inline]
    fn answered(&mut self) -> Option<Answered> {
        self.answered.try_recv().ok()
    }

    fn show_partitions(&mut self, output: usize, partitions: u32) {
        let mut outputs = self.surroundings.outputs.to_vec();
        outputs[output].partitions = partitions;
        self.surroundings.outputs = outputs.into();
        for (_, handler) in &mut self.known {
            let config = InstanceConfig::clone(&handler.config);
            handler.config = Arc::new(InstanceConfig { outputs: Arc::clone(&self.surroundings.outputs), ..config });
        }
    }
}

impl HandlerThreads {
    /// Starts so many threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let start = |number| {
            let ordinary = HandlerThread::start(&format!("sb-handler-{number}"))?;
            Ok(Pair { ordinary, apart: HandlerThread::start(&format!("sb-apart-{number}"))? })
        };
        let threads = (0..count.max(1)).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// Gives a lane its place on one of the threads. Its instance is started by its first call.
    fn open(&self, lane: LaneId, handler: Handler, answers: &AnswerSender) -> LaneHandle {
        let (jobs, received) = mpsc::channel(1);
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let Pair { ordinary, apart } = &self.threads[place];
        let seats = Seats { ordinary: ordinary.runtime.clone(), apart: apart.runtime.clone(), apart_until: None };
        let answers = answers.clone();
        LaneTask { lane, handler, instance: None, broken: None, answers, seats }.go_on(received);
        LaneHandle { jobs }
    }

    /// Runs something on one of the threads and waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.threads[0].ordinary.runtime.spawn(async move {
            let result = work.await;
            // Nobody waits any more when the pipeline was stopped meanwhile.
            _ = sender.send(result);
        });
        receiver.recv().ok()
    }
}

impl HandlerThread {
    fn start(name: &str) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = threads::spawn_deep(name, STACK, move || {
            // Ends when the sender is dropped, too.
            _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for HandlerThread {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Answers a call whose task panics (a bug of the host's): else its lane would wait for ever.
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

struct LaneTask {
    lane: LaneId,
    handler: Handler,
    instance: Option<Instance>,
    /// After any error the store is poisoned or leaks: a new one is made for the next call, and this is given up after the
    /// answer, where the lane goes on.
    broken: Option<Instance>,
    answers: AnswerSender,
    seats: Seats,
}

/// Where a lane may run, and where it does.
struct Seats {
    ordinary: tokio::runtime::Handle,
    apart: tokio::runtime::Handle,
    /// While it is apart.
    apart_until: Option<Instant>,
}

impl Seats {
    /// A call is over; true when the lane is to go on on the other thread.
    fn change(&mut self, fault: bool, now: Instant) -> bool {
        let was_apart = self.apart_until.is_some();
        if fault {
            self.apart_until = Some(now + APART);
        } else if self.apart_until.is_some_and(|until| until <= now) {
            self.apart_until = None;
        }
        was_apart != self.apart_until.is_some()
    }
}

impl LaneTask {
    /// Takes jobs on the thread that is the lane's now.
    fn go_on(self, jobs: mpsc::Receiver<Job>) {
        let seat = if self.seats.apart_until.is_some() { &self.seats.apart } else { &self.seats.ordinary };
        seat.clone().spawn(self.run(jobs));
    }

    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        self.instance.iter_mut().chain(&mut self.broken).for_each(Instance::move_here);
        self.broken = None;
        while let Some(job) = jobs.recv().await {
            let started = Instant::now();
            let _alarm = Alarm { lane: self.lane, answers: &self.answers.clone() };
            let (frame, reply) = match job {
                Job::Call(call) => {
                    let reply = self.reply(&call).await;
                    (call.frame, reply)
                }
                Job::Switch { place, to, must } => {
                    (Frame::default(), Reply::Switched(self.switch(place, to, must).await))
                }
            };
            let took = started.elapsed();
            let fault = matches!(reply, Reply::Fault(_) | Reply::NotStarted(_));
            let renewed = self.renew().await;
            let memory = self.instance.as_ref().map_or(0, Instance::memory_bytes);
            let answered = Answered { lane: self.lane, frame, reply: Some(reply), took, memory, renewed };
            if self.answers.answers.send(answered).await.is_err() {
                return; // the pipeline has stopped
            }
            self.answers.waker.wake();
            if self.seats.change(fault, started + took) {
                return self.go_on(jobs);
            }
            self.broken = None;
        }
    }

    /// An instance that is old makes way for another, which gets its state where the handler has such.
    async fn renew(&mut self) -> Option<Renewed> {
        let old = self.instance.as_mut().filter(|instance| instance.worn().is_some())?;
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

    /// A new instance first, then the old one's state for it, then the end of the old one.
    async fn switch(&mut self, place: Place, to: Handler, must: bool) -> Switched {
        let refused = |fault: &Fault, lost| Switched::Refused { failure: failure(fault), lost };
        let start = || Instance::start_for(&to.version, &to.config, Some(place.clone()));
        let mut new = match start().await {
            Ok(new) => Some(new),
            Err(_) if must => None, // reported; its next call tries again, as after any fault
            Err(fault) => return refused(&fault, false),
        };
        let mut restored = false;
        if let (Some(old), Some(into)) = (&mut self.instance, &mut new)
            && self.handler.version.has_state()
            && to.version.has_state()
        {
            match hand_over(old, into, &self.handler.version).await {
                Ok(()) => restored = true,
                Err((fault, lost)) => {
                    if lost {
                        self.instance = None;
                    }
                    if to.on_state_refused == OnStateRefused::Refuse && !must {
                        return refused(&fault, lost);
                    }
                    // One that has seen half of a state is no fresh one.
                    drop(new.take());
                    new = match start().await {
                        Ok(new) => Some(new),
                        Err(_) if must => None,
                        Err(fault) => return refused(&fault, lost),
                    };
                }
            }
        }
        (self.handler, self.instance) = (to, new);
        Switched::Over { restored }
    }

    async fn reply(&mut self, call: &Call) -> Reply {
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                // The first call may be one without messages: a tick, or that the partition has come.
                let messages = (!call.frame.index.is_empty()).then(|| Messages::new(&call.frame));
                let place = messages.and_then(|messages| Place::of(&messages)).map(Place::without_messages);
                match Instance::start_for(&self.handler.version, &self.handler.config, place).await {
                    Ok(instance) => none.insert(instance),
                    Err(fault) => return Reply::NotStarted(failure(&fault)),
                }
            }
        };
        match Self::call(instance, call).await {
            Ok(reply) => reply,
            Err(fault) => {
                self.broken = self.instance.take();
                Reply::Fault(failure(&fault))
            }
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (ordinary, apart) = (runtime.handle().clone(), runtime.handle().clone());
        let mut seats = Seats { ordinary, apart, apart_until: None };
        let begin = Instant::now();
        let mut moves = |fault: bool, second: u64| seats.change(fault, begin + Duration::from_secs(second));
        assert!(!moves(false, 0));
        assert!(moves(true, 1), "goes apart");
        assert!(!moves(false, 2) && !moves(true, 31) && !moves(false, 61), "stays");
        assert!(!moves(false, 90));
        assert!(moves(false, 91), "comes back");
        assert!(!moves(false, 92) && moves(true, 93));
    }
}
