//! A healthy handler beside hostile ones, on the same thread; and what the process holds before and after.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
fn alone() -> MutexGuard<'static, ()> {
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
        drop(healthy(&Rc::new(Cell::new(true)), 1).await);
    });
    let before = Held::now();
    let result = on_handler_thread(async {
        let over = Rc::new(Cell::new(false));
        let ended = Rc::clone(&over);
        let local = tokio::task::LocalSet::new();
        let healthy = local.spawn_local(async move { healthy(&over, 2).await });
        local
            .run_until(async move {
                let hostile = hostile().await;
                ended.set(true);
                (hostile, healthy.await.expect("the healthy one has no fault"))
            })
            .await
    });
    before.is_held_again();
    result
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

/// What the process holds.
#[derive(Debug)]
struct Held {
    megabytes: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn now() -> Self {
        // Memory that is free and was not given back is not held.
        // SAFETY: takes a number, may be called at any time.
        unsafe { libc::malloc_trim(0) };
        let status = std::fs::read_to_string("/proc/self/status").expect("a Linux process");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        let count = |directory: &str| std::fs::read_dir(directory).expect("a Linux process").count();
        Self { megabytes: kilobytes >> 10, descriptors: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }

    /// The threads of the test programme come and go with its tests; they are waited for.
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
