//! What all lanes of a pipeline have in common.

use std::sync::Arc;
use std::time::Duration;

use crate::delivery::batcher::BatchRules;
use crate::delivery::policy::Then;
use crate::delivery::retry::RetryRules;

/// The rules of a pipeline's lanes.
#[derive(Clone, Debug)]
pub struct LaneRules {
    /// Names of the declared outputs.
    pub outputs: Vec<String>,
    /// Outputs whose records say where they come from.
    pub provenance: Vec<bool>,
    /// Digest of the component, for that.
    pub version: Arc<str>,
    /// Names and rules of the batchers.
    pub batchers: Vec<(Arc<str>, BatchRules)>,
    /// The batcher that gets every record, when the handler has no message form.
    pub straight_to: Option<usize>,
    /// Most messages of a burst.
    pub max_burst: usize,
    /// Retries.
    pub retry: RetryRules,
    /// What becomes of failed records.
    pub then: Then,
    /// How far records may run ahead of the oldest open one.
    pub max_ahead: usize,
    /// What an answer may send on.
    pub emissions: EmissionRules,
    /// Held messages.
    pub hold: HoldRules,
    /// How often the handler's timer is called.
    pub tick: Option<Duration>,
    /// Optional exports that the handler has.
    pub exports: Exports,
    /// The version is a canary: what it fails at for good is for the old version to try, and no verdict on the record.
    pub trial: bool,
    /// Mode "receive": offsets are committed before their messages are offered.
    pub receive: bool,
}

/// Bounds of what an answer sends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmissionRules {
    /// Emissions per message; an answer may have 1,000 besides. Default 10.
    pub per_message: usize,
    /// Their bytes, inherited ones and 64 for each header included. Default 64 MiB.
    pub bytes: usize,
}

impl Default for EmissionRules {
    fn default() -> Self {
        Self { per_message: 10, bytes: 64 << 20 }
    }
}

/// Bounds of held messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldRules {
    /// How many a lane may hold; at that, it takes no new ones. A batch that is held may go beyond. Default 10,000.
    pub max: usize,
    /// How long one may be held; then that was a failed attempt. Default 5 minutes.
    pub timeout: Duration,
}

impl Default for HoldRules {
    fn default() -> Self {
        Self { max: 10_000, timeout: Duration::from_secs(300) }
    }
}

/// Optional exports that change what a lane does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// `partition-assigned` and `partition-revoked`.
    pub partitions: bool,
    /// `handle-failed`.
    pub failures: bool,
}

impl LaneRules {
    /// Messages after a rejected one must not be handled before its fate is known.
    pub(super) fn stops_at_reject(&self) -> bool {
        self.then.stops_at_reject() || self.exports.failures || self.trial
    }

    /// Source records are kept beside batches, for dead letters.
    pub(super) fn keeps_sources(&self) -> bool {
        self.then == Then::DeadLetter && self.straight_to.is_none()
    }
}
