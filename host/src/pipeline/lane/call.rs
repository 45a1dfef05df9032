//! What a lane asks of its handler, and how that ends.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_frames::Frame;

use crate::delivery::verdict::{RevokeReason, Verdict};
use crate::pipeline::sink::Failure;

/// What the handler is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// `handle-message`, in either form.
    Messages,
    /// `handle-batch`, in either form.
    Batch,
    /// `tick`, with the time when it is made.
    Tick,
    /// `partition-assigned`.
    Assigned {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: u32,
        /// Where it begins, if that is known.
        next_offset: Option<i64>,
    },
    /// `partition-revoked`.
    Revoked {
        /// Topic.
        topic: Arc<str>,
        /// Partition.
        partition: u32,
        /// Why.
        reason: RevokeReason,
    },
    /// `handle-failed`, for the first message of the frame.
    Failed {
        /// Why it failed.
        failure: Failure,
        /// `message` or the batcher's name.
        stage: Arc<str>,
        /// Attempts so far.
        attempts: u32,
    },
    /// Nothing of the handler's: its instance is replaced by one of another version.
    Switch,
}

/// A call to make. The frame comes back with the answer; it is empty where the call takes none.
#[derive(Debug)]
pub struct Call {
    /// Which export.
    pub kind: CallKind,
    /// Its messages.
    pub frame: Frame,
    /// How long it is expected to take, where that is so little that handing it to another thread would take longer.
    pub short: Option<Duration>,
}

/// How a call ended.
#[derive(Debug)]
pub enum Reply {
    /// An answer frame, not looked at yet.
    Answer(Frame),
    /// `handle-batch` said `err`.
    BatchError(String),
    /// `handle-failed` said what becomes of the message.
    Verdict(Verdict),
    /// The instance was replaced, or not.
    Switched(Switched),
    /// The instance is gone.
    Fault(Failure),
    /// There was none, and none could be started.
    NotStarted(Failure),
}

/// How a switch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switched {
    /// The new version serves.
    Over {
        /// The new instance has the old one's state.
        restored: bool,
    },
    /// The lane stays with the version that it has.
    Refused {
        /// Why.
        failure: Failure,
        /// The old instance did not outlive the attempt.
        lost: bool,
    },
}

impl Reply {
    /// Why the call counts as failed.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Fault(failure) | Self::NotStarted(failure) => failure,
            Self::BatchError(reason) => Failure { class: "retry", reason },
            Self::Answer(_) | Self::Verdict(_) | Self::Switched(_) => {
                Failure { class: "host", reason: "an answer of another call's kind".to_owned() }
            }
        }
    }
}
