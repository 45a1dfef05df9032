//! Handler threads. Lanes are spread over them and stay where they are; on each thread the calls of its lanes take turns of
//! two milliseconds, each pipeline by its share, so a slow or looping lane stops neither the I/O thread nor its neighbours.
//!
//! Knows plugin/ and channels. One message per call crosses to the lane's thread, one comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Messages};
use tokio::sync::{mpsc, oneshot};

use super::lane::{Call, CallKind, Reply};
use super::port::{Answered, Handle, Handlers};
use super::sink::Failure;
use crate::delivery::ticket::LaneId;
use crate::delivery::verdict::FailedMessage;
use crate::plugin::{Fault, Instance, InstanceConfig, Place, Version};
use crate::wake::Waker;

/// Answers of one pipeline that may wait for its I/O thread. Lanes have one call each, so more never wait for long.
const ANSWERS: usize = 1024;

/// The handler threads of the process.
pub struct HandlerThreads {
    threads: Vec<HandlerThread>,
    next: AtomicUsize,
}

struct HandlerThread {
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Sends calls to a lane's instance. Dropping it ends the instance after the call that is under way.
pub struct LaneHandle {
    calls: mpsc::Sender<Call>,
}

impl Handle for LaneHandle {
    fn call(&self, call: Call) -> Result<(), String> {
        self.calls.try_send(call).map_err(|error| format!("the lane's handler takes no call: {error}"))
    }
}

/// Where answers of one pipeline gather.
#[derive(Clone)]
struct AnswerSender {
    answers: mpsc::Sender<Answered>,
    waker: Waker,
}

/// The handler threads, for the lanes of one run.
pub struct LaneHandlers {
    threads: Arc<HandlerThreads>,
    version: Arc<Version>,
    config: Arc<InstanceConfig>,
    answers: AnswerSender,
    answered: mpsc::Receiver<Answered>,
}

impl LaneHandlers {
    /// Instances of this version, with this configuration; answers wake the waker.
    #[must_use]
    pub fn new(
        threads: &Arc<HandlerThreads>,
        version: &Arc<Version>,
        config: Arc<InstanceConfig>,
        waker: &Waker,
    ) -> Self {
        let (answers, answered) = mpsc::channel(ANSWERS);
        let answers = AnswerSender { answers, waker: waker.clone() };
        Self { threads: Arc::clone(threads), version: Arc::clone(version), config, answers, answered }
    }
}

impl Handlers for LaneHandlers {
    type Handle = LaneHandle;

    fn open(&mut self, lane: LaneId) -> LaneHandle {
        self.threads.open(lane, &self.version, &self.config, &self.answers)
    }

    #[inline]
    fn answered(&mut self) -> Option<Answered> {
        self.answered.try_recv().ok()
    }

    fn show_partitions(&mut self, output: usize, partitions: u32) {
        let mut config = InstanceConfig::clone(&self.config);
        let mut outputs = config.outputs.to_vec();
        outputs[output].partitions = partitions;
        config.outputs = outputs.into();
        self.config = Arc::new(config);
    }
}

impl HandlerThreads {
    /// Starts so many threads.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let threads = (0..count.max(1)).map(HandlerThread::start).collect::<std::io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// Gives a lane its place on one of the threads. Its instance is started by its first call.
    fn open(
        &self,
        lane: LaneId,
        version: &Arc<Version>,
        config: &Arc<InstanceConfig>,
        answers: &AnswerSender,
    ) -> LaneHandle {
        let (calls, received) = mpsc::channel(1);
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let task = LaneTask {
            lane,
            version: Arc::clone(version),
            config: Arc::clone(config),
            instance: None,
            answers: answers.clone(),
        };
        self.threads[place].runtime.spawn(task.run(received));
        LaneHandle { calls }
    }

    /// Runs something on one of the threads and waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.threads[0].runtime.spawn(async move {
            let result = work.await;
            // Nobody waits any more when the pipeline was stopped meanwhile.
            _ = sender.send(result);
        });
        receiver.recv().ok()
    }
}

impl HandlerThread {
    fn start(number: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(format!("sb-handler-{number}"))
            // Wasm stack (512 KiB by default) is a fiber's own; this is the host's below it.
            .stack_size(4 * 1024 * 1024)
            .spawn(move || {
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
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a handler thread panicked: a bug of the host's");
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
            let answered = Answered { lane: self.lane, frame, reply: None, took, memory: 0, recycled: false };
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
    version: Arc<Version>,
    config: Arc<InstanceConfig>,
    instance: Option<Instance>,
    answers: AnswerSender,
}

impl LaneTask {
    async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        while let Some(call) = calls.recv().await {
            let started = Instant::now();
            let _alarm = Alarm { lane: self.lane, answers: &self.answers.clone() };
            let reply = Some(self.reply(&call).await);
            let took = started.elapsed();
            let recycled = self.instance.as_ref().and_then(Instance::worn).is_some();
            if recycled {
                self.instance = None;
            }
            let memory = self.instance.as_ref().map_or(0, Instance::memory_bytes);
            let answered = Answered { lane: self.lane, frame: call.frame, reply, took, memory, recycled };
            if self.answers.answers.send(answered).await.is_err() {
                return; // the pipeline has stopped
            }
            self.answers.waker.wake();
        }
    }

    async fn reply(&mut self, call: &Call) -> Reply {
        let failure = |fault: Fault| Failure { class: fault.class.name(), reason: fault.summary() };
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                // The first call may be one without messages: a tick, or that the partition has come.
                let messages = (!call.frame.index.is_empty()).then(|| Messages::new(&call.frame));
                let place = messages.and_then(|messages| Place::of(&messages)).map(Place::without_messages);
                match Instance::start_for(&self.version, &self.config, place).await {
                    Ok(instance) => none.insert(instance),
                    Err(fault) => return Reply::NotStarted(failure(fault)),
                }
            }
        };
        match Self::call(instance, call).await {
            Ok(reply) => reply,
            Err(fault) => {
                // After any error the store is poisoned or leaks: a new one is made for the next call.
                self.instance = None;
                Reply::Fault(failure(fault))
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
        }
    }
}
