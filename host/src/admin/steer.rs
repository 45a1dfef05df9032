//! Pausing and resuming a pipeline as operations: the order is given at once, and the operation ends when the pipeline says
//! that it is so. Looks at snapshots; waits for no thread of a pipeline.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::operations::{End, Progress};
use super::problem::Problem;
use crate::pipeline::control::{Control, Progress as Swap};
use crate::pipeline::revision::Build;
use crate::pipeline::status::{PipelineStatus, State};

/// How long a pipeline may take to show what it was told. A call under way does not keep it.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How often its snapshot is looked at. It is taken four times a second, and whenever the state changes.
const LOOK: Duration = Duration::from_millis(20);
/// Characters of an operator's reason.
const LONGEST_REASON: usize = 500;

/// What can be asked of a pipeline that runs. Nothing of it waits.
pub trait Steer: Send + Sync {
    /// Offers nothing new to the handler, for this reason.
    fn pause(&self, reason: &str);
    /// Goes on, whatever paused it.
    fn resume(&self);
    /// How far the last change of its version is.
    fn progress(&self) -> Swap;
}

impl<B: Build + Send + Sync> Steer for Control<B> {
    fn pause(&self, reason: &str) {
        Self::pause(self, reason);
    }

    fn resume(&self) {
        Self::resume(self);
    }

    fn progress(&self) -> Swap {
        Self::progress(self)
    }
}

/// The reason of a pause, as it is shown.
///
/// # Errors
/// When nobody would read it.
pub fn reason(given: Option<&str>) -> Result<String, Problem> {
    match given.map(str::trim).filter(|given| !given.is_empty()) {
        None => Ok("by its operator".to_owned()),
        Some(given) if given.chars().count() > LONGEST_REASON => {
            let detail = format!("the reason has more than {LONGEST_REASON} characters");
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too_long", detail).at("/reason"))
        }
        Some(given) => Ok(format!("by its operator: {given}")),
    }
}

/// Nothing is told to a pipeline that has ended.
///
/// # Errors
/// When it has.
pub fn is_there(status: &PipelineStatus) -> Result<(), Problem> {
    match status.state() {
        (State::Stopped | State::Draining, reason, _) => {
            let name = &status.name;
            let detail =
                format!("pipeline `{name}` has ended: {}", reason.as_deref().unwrap_or("the host is being stopped"));
            Err(Problem::new(StatusCode::CONFLICT, "ended", detail).hint("restart the host when that is dealt with"))
        }
        _ => Ok(()),
    }
}

/// Waits until it is paused, or will be as soon as it can run at all.
pub async fn paused(status: Arc<PipelineStatus>, progress: Progress) -> End {
    progress.say("the pipeline is asked to pause");
    let Some(state) = until(&status, &progress, |state| !matches!(state, State::Running)).await else {
        return cancelled("pause", "sluicebox resume", &status);
    };
    let figures = status.figures();
    let result = json!({ "state": state.name(), "in_flight": figures.in_flight });
    let says = match state {
        State::Paused if figures.in_flight > 0 => format!("paused; {} records are being finished", figures.in_flight),
        State::Paused => "paused".to_owned(),
        other => format!("it is {}, and pauses as soon as it runs", other.name()),
    };
    End::Done(says, result)
}

/// Waits until it is not paused any more.
pub async fn resumed(status: Arc<PipelineStatus>, progress: Progress) -> End {
    progress.say("the pipeline is asked to go on");
    let Some(state) = until(&status, &progress, |state| state != State::Paused).await else {
        return cancelled("go on", "sluicebox pause", &status);
    };
    End::Done(state.name().to_owned(), json!({ "state": state.name() }))
}

/// It was told so, and that is not taken back by nobody's waiting for it.
fn cancelled(told: &str, undo: &str, status: &PipelineStatus) -> End {
    let says = format!("nobody waits for it any more; the pipeline was asked to {told} all the same");
    End::Failed(says, Some(format!("{undo} {}", status.name)))
}

/// The state that is right; `None`: it was cancelled before.
async fn until(status: &PipelineStatus, progress: &Progress, right: impl Fn(State) -> bool) -> Option<State> {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let state = status.state().0;
        if right(state) {
            return Some(state);
        }
        if progress.is_cancelled() {
            return None;
        }
    }
}
