//! Instances that do not start: no message is to blame for that, so it counts for none. The lane waits, longer each time,
//! and asks for another one.

use std::time::{Duration, Instant};

use sluicebox_frames::Frame;

use super::failed::Of;
use super::{Lane, Running};
use crate::pipeline::sink::{Failure, Notice, Sink};

/// The first wait, and the longest.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// An instance that worked for so long is followed by the first wait again.
const HEALTHY: Duration = Duration::from_secs(60);

/// Waits between starts.
#[derive(Debug, Default)]
pub(super) struct Restart {
    /// Starts that failed.
    failed: u32,
    not_before: Option<Instant>,
    reason: Option<String>,
    /// An instance works, since then.
    works: Option<Instant>,
}

impl Restart {
    /// When the next one may start, if that is not now.
    pub(super) const fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Why there is no instance.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// A call has to wait.
    pub(super) fn holds(&mut self, now: Instant) -> bool {
        if self.not_before.is_some_and(|at| at <= now) {
            self.not_before = None;
        }
        self.not_before.is_some()
    }

    /// Another version may start where this one did not.
    pub(super) fn go_on(&mut self) {
        (self.not_before, self.reason) = (None, None);
    }

    /// A call was answered.
    pub(super) fn works(&mut self, now: Instant) {
        if self.works.is_none() {
            self.works = Some(now);
            self.reason = None;
        }
    }

    /// The instance is gone.
    pub(super) fn gone(&mut self, now: Instant) {
        if self.works.take().is_some_and(|since| now.saturating_duration_since(since) >= HEALTHY) {
            self.failed = 0;
        }
    }

    /// None started: so long is the wait.
    fn fail(&mut self, failure: &Failure, now: Instant) -> Duration {
        let wait = WAIT.0.saturating_mul(2_u32.saturating_pow(self.failed)).min(WAIT.1);
        self.failed = self.failed.saturating_add(1);
        self.not_before = Some(now + wait);
        self.reason =
            Some(format!("the handler does not start: {}: {} (try {})", failure.class, failure.reason, self.failed));
        wait
    }
}

impl Lane {
    /// No instance could be started for this call. Everything is as it was before, but for the time.
    pub(super) fn on_not_started(
        &mut self,
        running: Running,
        frame: Frame,
        failure: &Failure,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        mark!(NotStarted);
        match running {
            Running::Messages { whole, .. } => match &mut self.pending {
                Some(pending) if whole => pending.frame = frame,
                _ => self.spare.push(frame),
            },
            Running::Again { mut work, .. } => {
                work.frame = frame;
                self.offer_again(work);
            }
            Running::Batch(mut batch) => {
                batch.content.frame = frame;
                self.put_back(batch);
            }
            Running::Verdict(asked) => match asked.of {
                Of::Head => self.spare.push(frame),
                Of::Single(mut work) => {
                    work.frame = frame;
                    self.offer_again(work);
                }
                Of::Item(mut batch) => {
                    batch.content.frame = frame;
                    self.put_back(batch);
                }
            },
            Running::Tick | Running::Assigned | Running::Revoked | Running::Switch(_) => {}
        }
        let wait = self.restart.fail(failure, now);
        let attempt = self.restart.failed;
        sink.notice(Notice::CallFailed { what: "starting the handler", attempt, failure, blocks: false, wait });
    }
}
