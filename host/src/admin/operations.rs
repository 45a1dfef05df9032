//! Long actions: each has a name, a deadline and an end, and can be waited for. Knows no pipeline: what an action does is the
//! future that it is begun with.
//!
//! Invariant: an operation ends. Whatever its future does, at its deadline it has failed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::view::OperationView;

/// Operations that are remembered; beyond that the oldest that ended is forgotten.
const KEPT: usize = 200;
/// Operations that run at a time.
const RUNNING: usize = 32;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// It did what was asked for: in words, and for programs.
    Done(String, Value),
    /// It did not: why, and what to do.
    Failed(String, Option<String>),
    /// Somebody else did something else meanwhile.
    Conflict(String),
    /// It was taken back: why, and for programs.
    RolledBack(String, Value),
}

/// Where an operation says how far it is, and hears that it is not wanted any more.
#[derive(Clone)]
pub struct Progress {
    inner: watch::Sender<Inner>,
    cancelled: watch::Receiver<bool>,
}

impl Progress {
    /// What it is doing now.
    pub fn say(&self, says: impl Into<String>) {
        self.inner.send_modify(|inner| inner.says = says.into());
    }

    /// The same for programs.
    pub fn show(&self, result: Value) {
        self.inner.send_modify(|inner| inner.result = result);
    }

    /// It is to end, with everything as it was before as far as that can be.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.cancelled.borrow()
    }

    /// Waits until that is so.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancelled.clone();
        if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
            // The operation is forgotten: nobody cancels it any more.
            std::future::pending().await
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    says: String,
    result: Value,
    /// How it ended, and after how long.
    end: Option<(&'static str, Duration)>,
    hint: Option<String>,
    code: Option<&'static str>,
}

struct Operation {
    id: String,
    kind: &'static str,
    pipeline: String,
    begun: Instant,
    deadline: Duration,
    inner: watch::Sender<Inner>,
    cancel: watch::Sender<bool>,
}

impl Operation {
    fn view(&self) -> OperationView {
        let inner = self.inner.borrow();
        let (state, took) = inner.end.unwrap_or_else(|| ("running", self.begun.elapsed()));
        OperationView {
            id: self.id.clone(),
            kind: self.kind.to_owned(),
            pipeline: self.pipeline.clone(),
            state: state.to_owned(),
            says: inner.says.clone(),
            code: inner.code.map(str::to_owned),
            hint: inner.hint.clone(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            deadline_seconds: self.deadline.as_secs(),
            result: inner.result.clone(),
        }
    }

    fn is_running(&self) -> bool {
        self.inner.borrow().end.is_none()
    }
}

/// All operations of the process. Cloned freely.
#[derive(Clone)]
pub struct Operations(Arc<Shared>);

struct Shared {
    /// In the order in which they were begun.
    all: Mutex<VecDeque<Arc<Operation>>>,
    next: AtomicU64,
    /// Tells names of this process from those of the one before.
    stem: String,
}

impl Operations {
    /// None yet.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let shared = Shared { all: Mutex::default(), next: AtomicU64::new(1), stem: format!("{now:x}") };
        Self(Arc::new(shared))
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<Arc<Operation>>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one, on the runtime of the caller. `None`: there are too many at a time.
    pub fn begin<F>(
        &self,
        kind: &'static str,
        pipeline: &str,
        deadline: Duration,
        run: impl FnOnce(Progress) -> F,
    ) -> Option<OperationView>
    where
        F: Future<Output = End> + Send + 'static,
    {
        let mut all = self.all();
        if all.iter().filter(|operation| operation.is_running()).count() >= RUNNING {
            return None;
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let operation = Arc::new(Operation {
            id: format!("{}-{number}", self.0.stem),
            kind,
            pipeline: pipeline.to_owned(),
            begun: Instant::now(),
            deadline,
            inner: watch::Sender::new(Inner::default()),
            cancel: watch::Sender::new(false),
        });
        if all.len() >= KEPT
            && let Some(oldest) = all.iter().position(|operation| !operation.is_running())
        {
            all.remove(oldest);
        }
        all.push_back(Arc::clone(&operation));
        drop(all);
        let work = run(Progress { inner: operation.inner.clone(), cancelled: operation.cancel.subscribe() });
        let view = operation.view();
        tokio::spawn(async move {
            // A task of its own: its panic is its own end, and not that of who tells of it.
            let mut work = tokio::spawn(work);
            let end = tokio::time::timeout(deadline, &mut work).await;
            work.abort();
            let took = operation.begun.elapsed();
            operation.inner.send_modify(|inner| match end {
                Ok(Ok(End::Done(says, result))) => {
                    (inner.says, inner.result, inner.end) = (says, result, Some(("done", took)));
                }
                Ok(Ok(End::RolledBack(says, result))) => {
                    (inner.says, inner.result, inner.end) = (says, result, Some(("rolled_back", took)));
                }
                Ok(Ok(End::Failed(says, hint))) => {
                    (inner.says, inner.hint, inner.end) = (says, hint, Some(("failed", took)));
                }
                Ok(Ok(End::Conflict(says))) => {
                    (inner.says, inner.code, inner.end) = (says, Some("conflict"), Some(("failed", took)));
                }
                Ok(Err(error)) => {
                    inner.says = format!("the host failed at it: {error}");
                    inner.hint = Some("this is a bug of sluicebox, please report it; some of it may have happened, see the pipeline's status".to_owned());
                    inner.end = Some(("failed", took));
                }
                Err(_) => {
                    inner.says = format!("not done within {} s: {}", deadline.as_secs(), inner.says);
                    inner.hint = Some("it may still happen; see the pipeline's status".to_owned());
                    inner.end = Some(("failed", took));
                }
            });
        });
        Some(view)
    }

    fn find(&self, id: &str) -> Option<Arc<Operation>> {
        self.all().iter().find(|operation| operation.id == id).cloned()
    }

    /// Tells an operation that it is not wanted any more; it ends by itself then. `Err`: it is over.
    pub fn cancel(&self, id: &str) -> Option<Result<OperationView, OperationView>> {
        let operation = self.find(id)?;
        if !operation.is_running() {
            return Some(Err(operation.view()));
        }
        operation.cancel.send_replace(true);
        Some(Ok(operation.view()))
    }

    /// An operation when it ended, or changed what it says, or so much time has passed.
    pub async fn wait(&self, id: &str, limit: Duration) -> Option<OperationView> {
        let operation = self.find(id)?;
        let mut changes = operation.inner.subscribe();
        if operation.is_running() {
            // Its sender is the operation's own, so it cannot be gone; and an end in time is none either.
            _ = tokio::time::timeout(limit, changes.changed()).await;
        }
        Some(operation.view())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Goal: an operation is seen at work and at its end, by who asks and by who waits. Method: one that waits for the test.
    #[tokio::test]
    async fn an_operation_is_seen_at_work_and_at_its_end() {
        let operations = Operations::new();
        let (go, gone) = oneshot::channel::<()>();
        let begun = operations.begin("pause", "orders", LONG, |progress| async move {
            progress.say("waits");
            gone.await.expect("sent");
            End::Done("paused".to_owned(), json!({"partitions": 3}))
        });
        let begun = begun.expect("the first");
        assert_eq!(
            (begun.kind.as_str(), begun.pipeline.as_str(), begun.state.as_str()),
            ("pause", "orders", "running")
        );
        let mut seen = begun.clone();
        while seen.says != "waits" {
            seen = operations.wait(&begun.id, LONG).await.expect("known");
        }
        go.send(()).expect("waited for");
        while seen.state == "running" {
            seen = operations.wait(&begun.id, LONG).await.expect("known");
        }
        assert_eq!(
            (seen.state.as_str(), seen.says.as_str(), &seen.result),
            ("done", "paused", &json!({"partitions": 3}))
        );
        assert_eq!(operations.wait(&begun.id, LONG).await, Some(seen), "the end is not waited for");
        assert_eq!(operations.wait("another", LONG).await, None);
    }

    /// Proves: what runs hears that it is cancelled, be it asking or waiting; what is over cannot be cancelled.
    #[tokio::test]
    async fn it_hears_that_it_is_cancelled() {
        let operations = Operations::new();
        let begun = operations.begin("deploy", "orders", LONG, |progress| async move {
            progress.cancelled().await;
            assert!(progress.is_cancelled());
            End::RolledBack("it was cancelled".to_owned(), Value::Null)
        });
        let id = begun.expect("the first").id;
        assert!(operations.cancel(&id).is_some_and(|cancelled| cancelled.is_ok_and(|view| view.state == "running")));
        let mut seen = operations.wait(&id, LONG).await.expect("known");
        while seen.state == "running" {
            seen = operations.wait(&id, LONG).await.expect("known");
        }
        assert_eq!(seen.state, "rolled_back");
        assert_eq!(operations.cancel(&id), Some(Err(seen)));
        assert_eq!(operations.cancel("another"), None);
    }

    #[tokio::test]
    async fn at_its_deadline_it_has_failed() {
        let operations = Operations::new();
        let begun = operations.begin("pause", "orders", Duration::from_millis(1), |progress| async move {
            progress.say("the pipeline does not answer");
            std::future::pending().await
        });
        let id = begun.expect("the first").id;
        let mut seen = operations.wait(&id, LONG).await.expect("known");
        while seen.state == "running" {
            seen = operations.wait(&id, LONG).await.expect("known");
        }
        assert_eq!((seen.state.as_str(), seen.milliseconds > 0), ("failed", true));
        assert_eq!(seen.says, "not done within 0 s: the pipeline does not answer");
    }

    /// Proves: an operation ends when its future panics, and says so.
    #[tokio::test]
    async fn a_panic_is_an_end() {
        let operations = Operations::new();
        let begun = operations.begin("pause", "orders", LONG, |_| async { panic!("of all things") });
        let id = begun.expect("the first").id;
        let mut seen = operations.wait(&id, LONG).await.expect("known");
        while seen.state == "running" {
            seen = operations.wait(&id, LONG).await.expect("known");
        }
        assert_eq!(seen.state, "failed");
        assert!(seen.says.starts_with("the host failed at it: ") && seen.says.contains("of all things"), "{seen:?}");
    }

    #[tokio::test]
    async fn they_are_bounded() {
        let operations = Operations::new();
        let endless = |operations: &Operations| operations.begin("pause", "p", LONG, |_| std::future::pending());
        let first = endless(&operations).expect("the first");
        for _ in 1..RUNNING {
            assert!(endless(&operations).is_some());
        }
        assert!(endless(&operations).is_none(), "one too many");

        let operations = Operations::new();
        let running = endless(&operations).expect("the first");
        for _ in 0..2 * KEPT {
            let quick = operations.begin("pause", "p", LONG, |_| async { End::Failed("no".to_owned(), None) });
            let id = quick.expect("a place").id;
            while operations.wait(&id, LONG).await.is_some_and(|seen| seen.state == "running") {}
        }
        assert_eq!(operations.all().len(), KEPT);
        assert!(operations.find(&running.id).is_some(), "what runs is not forgotten");
        assert!(operations.find(&first.id).is_none(), "names differ");
    }
}
