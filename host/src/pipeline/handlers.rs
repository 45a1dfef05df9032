//! Handler threads. Lanes are spread over them and stay where they are; on each thread the calls of its lanes take turns of
//! two milliseconds (a little more after short ones), each pipeline by its share, so a slow or looping lane stops neither the I/O thread nor its neighbours.
//! What a fault costs is no guest's code and cannot be divided into turns: a trap is traced to its source line, an instance is
//! given up, another one started. So lanes whose handlers break go apart, to threads of their own, until they have been well for
//! a minute: between threads the system divides what cannot be divided here.
//!
//! What a lane's calls do there is `caller`'s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

pub use super::caller::LaneHandle;
use super::caller::{AnswerSender, Handler};
use super::lane::Exports;
use super::port::{Answered, Handlers};
use super::revision::{self, Build, Offered, Revision};
use super::sink::Failure;
use crate::config::Pipeline;
use crate::delivery::ticket::LaneId;
use crate::handler_metrics::HandlerMetrics;
use crate::handler_usage::Usage;
use crate::outbound::Client;
use crate::plugin::{HandlerLog, InstanceConfig, OutputInfo, Place, Version};
use crate::threads;
use crate::wake::Waker;

/// Answers of one pipeline that may wait for its I/O thread. Lanes have one call each, so more never wait for long.
const ANSWERS: usize = 1024;
/// Wasm stack (512 KiB by default) is a fiber's own; this is the host's below it.
const STACK: usize = 4 * 1024 * 1024;
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

/// The handler threads, for the lanes of one run.
pub struct LaneHandlers {
    threads: Arc<HandlerThreads>,
    surroundings: Surroundings,
    /// The newest few.
    known: VecDeque<Handler>,
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
        if let Some(known) = self.known.iter().find(|known| known.number == revision.number) {
            return known.clone();
        }
        let handler = Handler {
            number: revision.number,
            version: Arc::clone(&revision.build),
            config: Arc::new(self.surroundings.instance(&revision.config, &revision.build)),
            on_state_refused: revision.config.swap.on_state_refused,
        };
        self.known.truncate(REVISIONS - 1);
        self.known.push_front(handler.clone());
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

    fn prepare(&mut self, handle: &LaneHandle, (topic, partition): (&Arc<str>, i32), to: &Arc<Revision<Arc<Version>>>) {
        let place = Place::of_partition(topic, partition.unsigned_abs());
        handle.prepare(place, self.handler(to));
    }

    fn prepared(&mut self, handle: &LaneHandle) -> Option<Result<(), Failure>> {
        handle.prepared()
    }

    fn give_up_prepared(&mut self, handle: &LaneHandle) {
        handle.give_up_prepared();
    }

    fn switch(
        &mut self,
        handle: &LaneHandle,
        (topic, partition): (&Arc<str>, i32),
        to: &Arc<Revision<Arc<Version>>>,
        must: bool,
    ) -> Result<(), String> {
        let place = Place::of_partition(topic, partition.unsigned_abs());
        handle.switch(place, self.handler(to), must)
    }

    #[inline]
    fn answered(&mut self) -> Option<Answered> {
        self.answered.try_recv().ok()
    }

    fn show_partitions(&mut self, output: usize, partitions: u32) {
        let mut outputs = self.surroundings.outputs.to_vec();
        outputs[output].partitions = partitions;
        self.surroundings.outputs = outputs.into();
        for handler in &mut self.known {
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
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let Pair { ordinary, apart } = &self.threads[place];
        LaneHandle::new(lane, handler, answers, &ordinary.runtime, &apart.runtime)
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
