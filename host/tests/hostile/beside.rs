//! A healthy handler beside hostile ones, on the same thread; and what the process holds before and after.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use sluicebox::plugin::{Fault, HandlerLimits, Instance};
use sluicebox_frames::{Answer, Content};

use crate::plugin_support::{burst, config, on_handler_thread, thread_time, version};

/// What a healthy handler went through beside a hostile one.
pub struct Healthy {
    /// Its bursts, each answered in full.
    pub bursts: u64,
    /// Most CPU time of the thread that others took between two of its calls.
    pub longest_turn: Duration,
}

/// Megabytes by which the process may have grown after a hostile handler went.
const GROWTH: u64 = 24;

/// Rows run one at a time: what the process holds is everybody's.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs something hostile beside a healthy handler, whose every message has to be answered, and looks that nothing of it
/// stays: memory, file descriptors, threads.
pub fn beside<F: Future>(hostile: impl FnOnce() -> F) -> (F::Output, Healthy) {
    let _alone = alone();
    version("hostile");
    // What is made once per process is there before it is measured.
    on_handler_thread(async {
        drop(start(HandlerLimits::default()).await);
        assert_eq!(healthy(&Rc::new(Cell::new(true)), 1).await.bursts, 1);
    });
    let before = Held::now();
    let result = on_handler_thread(async {
        let over = Rc::new(Cell::new(false));
        let ended = Rc::clone(&over);
        let local = tokio::task::LocalSet::new();
        let healthy = local.spawn_local(async move { healthy(&over, 2).await });
        local
            .run_until(async move {
                let hostile = WhenWoken::new(hostile()).await;
                ended.set(true);
                (hostile, healthy.await.expect("the healthy one has no fault"))
            })
            .await
    });
    before.is_held_again();
    result
}

/// Polls a future only when it asked for it, as an executor does with a task; `run_until` does whenever anything happens.
struct WhenWoken<F> {
    future: Pin<Box<F>>,
    waker: Arc<Woken>,
}

struct Woken {
    asked: AtomicBool,
    outer: Mutex<Option<Waker>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(outer) = &*self.outer.lock().unwrap_or_else(PoisonError::into_inner) {
            outer.wake_by_ref();
        }
    }
}

impl<F> WhenWoken<F> {
    fn new(future: F) -> Self {
        let waker = Arc::new(Woken { asked: AtomicBool::new(true), outer: Mutex::new(None) });
        Self { future: Box::pin(future), waker }
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        *self.waker.outer.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if !self.waker.asked.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.waker));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

/// Answers bursts until the other is over, at least so many.
async fn healthy(over: &Rc<Cell<bool>>, least: u64) -> Healthy {
    let (config, _) = config(HandlerLimits::default(), "{}");
    let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
    let mut seen = Healthy { bursts: 0, longest_turn: Duration::ZERO };
    while !over.get() || seen.bursts < least {
        let values: Vec<_> = (0..10).map(|n| format!("message {n} of burst {}", seen.bursts)).collect();
        let given: Vec<_> = values.iter().map(String::as_str).collect();
        let frame = instance.handle_messages(&burst(&given, false)).await.expect("an answer");
        let answer = Answer::check(&frame.index, &frame.payload).expect("a good answer");
        let text = |i| match answer.emission(i).value() {
            Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?}"),
        };
        let emitted: Vec<_> = (0..values.len()).map(text).collect();
        let expected: Vec<_> = values.iter().map(|value| value.to_ascii_uppercase()).collect();
        assert_eq!(emitted, expected);
        seen.bursts += 1;
        let begin = thread_time();
        tokio::task::yield_now().await;
        seen.longest_turn = seen.longest_turn.max(thread_time() - begin);
    }
    seen
}

pub async fn start(limits: HandlerLimits) -> Instance {
    start_with(limits, "{}").await.expect("it starts")
}

pub async fn start_with(limits: HandlerLimits, settings: &str) -> Result<Instance, Fault> {
    Instance::start(&version("hostile"), &config(limits, settings).0).await
}

/// What a new instance with these limits says to a deed.
pub async fn deed(limits: HandlerLimits, deed: &str) -> Result<(), Fault> {
    start(limits).await.handle_messages(&burst(&[deed], false)).await.map(drop)
}

/// The fault that a deed ends in.
pub async fn fault(limits: HandlerLimits, text: &str) -> Fault {
    deed(limits, text).await.expect_err(text)
}

/// The most memory that the process had at once, from now on.
pub struct Peak {
    megabytes: u64,
}

impl Peak {
    pub fn begin() -> Self {
        // The kernel begins anew with what there is now.
        std::fs::write("/proc/self/clear_refs", "5").expect("a Linux process");
        Self { megabytes: status("VmHWM:") }
    }

    /// It was never more by so many megabytes.
    pub fn stayed_within(&self, megabytes: u64) {
        let most = status("VmHWM:");
        assert!(most <= self.megabytes + megabytes, "from {} to {most} MB", self.megabytes);
    }
}

/// A line of the process's own status, in megabytes.
fn status(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux process");
    let value = status.lines().find_map(|text| text.strip_prefix(line)).expect("a line of it");
    let kilobytes: u64 = value.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes >> 10
}

/// What the process holds.
#[derive(Debug)]
pub struct Held {
    pub megabytes: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    pub fn now() -> Self {
        // Memory that is free and was not given back is not held.
        // SAFETY: takes a number, may be called at any time.
        unsafe { libc::malloc_trim(0) };
        let entries = |directory: &str| std::fs::read_dir(directory).expect("a Linux process");
        // The test program's own come and go with its tests, and are called like them.
        let own = |task: std::io::Result<std::fs::DirEntry>| {
            let name = task.and_then(|task| std::fs::read_to_string(task.path().join("comm"))).unwrap_or_default();
            !name.is_empty() && !name.contains("::") && !name.starts_with("every_row")
        };
        Self {
            megabytes: status("VmRSS:"),
            descriptors: entries("/proc/self/fd").count(),
            threads: entries("/proc/self/task").filter_map(|task| own(task).then_some(())).count(),
        }
    }

    /// What is given back by another thread is waited for.
    fn is_held_again(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = Self::now();
            let same = now.megabytes <= self.megabytes + GROWTH
                && now.descriptors <= self.descriptors
                && now.threads <= self.threads;
            if same {
                return;
            }
            assert!(Instant::now() < deadline, "before {self:?}, after {now:?}");
            std::thread::yield_now();
        }
    }
}
