//! What the API says of pipelines: plain data, the same types for the host that writes it and for the commands that read it.

use serde::{Deserialize, Serialize};

/// `GET /v1/pipelines`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineList {
    /// In the order in which the host was told of them.
    pub pipelines: Vec<PipelineView>,
}

/// `GET /v1/pipelines/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineView {
    /// The pipeline.
    pub name: String,
    /// Its consumer group.
    pub group: String,
    /// Digest of the component that new calls go to.
    pub version: String,
    /// What it is doing: `starting`, `waiting`, `joining`, `running`, `paused`, `draining`, `stopped`.
    pub state: String,
    /// Why, when it is not running.
    pub reason: Option<String>,
    /// In this state for so long.
    pub since_seconds: u64,
    /// Partitions by what they are doing.
    pub partitions: PartitionCounts,
    /// Records behind the newest, as far as known.
    pub lag: u64,
    /// Records in calls, batches and the producer.
    pub in_flight: u64,
    /// What a crash would repeat at most.
    pub uncommitted: u64,
    /// Records since the process began, by their fate.
    pub records: RecordCounts,
    /// What a deployment has to know; nothing: versions are not kept.
    pub generation: Option<u64>,
    /// The last change of the version.
    pub swap: Option<SwapView>,
    /// Everything that is not as it should be, with what to do.
    pub why: Vec<Why>,
    /// Of those how many are not listed.
    pub unlisted: u64,
}

/// Partitions that the pipeline owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionCounts {
    /// All of them.
    pub assigned: usize,
    /// Nothing is wrong.
    pub running: usize,
    /// They wait before another attempt.
    pub backing_off: usize,
    /// They do not go on past a record.
    pub blocked: usize,
    /// They finish what they began.
    pub draining: usize,
    /// Whatever they are doing, they have not moved for a minute.
    pub stalled: usize,
}

/// Records by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordCounts {
    /// Fetched.
    pub consumed: u64,
    /// Settled, however.
    pub settled: u64,
    /// Of these: set aside.
    pub dead_lettered: u64,
    /// Of these: given up.
    pub dropped: u64,
}

/// A change of the version: how far it is, and where the time went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapView {
    /// Digest of the version before.
    pub from: String,
    /// Digest of the version that was ordered.
    pub to: String,
    /// `switching`, `canary`, `done`, `rolling_back`, `rolled_back`.
    pub stage: String,
    /// Why it goes back, or went.
    pub reason: Option<String>,
    /// Partitions of this host that run what they are to run, and all of them.
    pub switched: (usize, usize),
    /// Partitions of this host that run the new version, be that as a canary.
    pub on_new: usize,
    /// Time for native code: compiling, or taking it from the cache.
    pub compile_ms: u64,
    /// Time that the trial instance took.
    pub trial_ms: u64,
    /// How long a partition could be served by neither version: half of them, all but one of a hundred, all.
    pub gap_us: (u64, u64, u64),
    /// From the order to the last partition.
    pub took_ms: u64,
    /// Records in flight at the order.
    pub in_flight: u64,
    /// What the old version did meanwhile.
    pub old: ServedView,
    /// What the new one did.
    pub new: ServedView,
}

impl SwapView {
    /// It is not over.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        matches!(self.stage.as_str(), "switching" | "canary" | "rolling_back")
    }

    /// In one line.
    #[must_use]
    pub fn in_words(&self) -> String {
        let versions = match self.from == self.to {
            true => format!("{} with other settings", short(&self.to)),
            false => format!("{} -> {}", short(&self.from), short(&self.to)),
        };
        let (switched, all) = self.switched;
        match self.stage.as_str() {
            "done" => {
                let (_, p99, max) = self.gap_us;
                format!(
                    "{versions} on {all} partitions in {} ms: compiled in {} ms, tried in {} ms, longest gap of a \
                     partition {:.1} ms (p99 {:.1} ms), {} records in flight",
                    self.took_ms,
                    self.compile_ms,
                    self.trial_ms,
                    millis(max),
                    millis(p99),
                    self.in_flight
                )
            }
            "canary" => format!(
                "{versions}: canary on {} of {all} partitions: {}; the old version {}",
                self.on_new,
                self.new.in_words(),
                self.old.in_words()
            ),
            stage => format!("{versions}: {}, {switched} of {all} partitions", stage.replace('_', " ")),
        }
    }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The beginning of a digest.
#[must_use]
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// What a version did while a change was under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedView {
    /// Messages of its calls.
    pub messages: u64,
    /// Of these, how many failed an attempt.
    pub failed: u64,
    /// All but one of a hundred calls took at most so long per message.
    pub p99_us: u64,
}

impl ServedView {
    fn in_words(&self) -> String {
        let percent = self.failed.min(self.messages) as f64 * 100.0 / self.messages.max(1) as f64;
        format!("{} messages, {percent:.1} % failed, p99 {:.3} ms", self.messages, millis(self.p99_us))
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The partition that it is about, as `TOPIC[NUMBER]`; nothing: the whole pipeline.
    pub partition: Option<String>,
    /// What kind of thing, one word.
    pub cause: String,
    /// What it is.
    pub reason: String,
    /// For how long, where that is known.
    pub seconds: Option<u64>,
    /// Commands that help, or show more.
    pub next: Vec<String>,
}

/// `GET /v1/pipelines/NAME/partitions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionList {
    /// By topic and number.
    pub partitions: Vec<PartitionView>,
}

/// One partition that the pipeline owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionView {
    /// Topic.
    pub topic: String,
    /// Number.
    pub partition: i32,
    /// `running`, `backing_off`, `blocked`, `draining`.
    pub state: String,
    /// Why it is not running, or does not move.
    pub reason: Option<String>,
    /// The next offset, as the group knows it.
    pub committed: Option<i64>,
    /// The next offset that could be committed.
    pub committable: Option<i64>,
    /// Records that were fetched and are not settled.
    pub open: u64,
    /// Records behind the newest.
    pub lag: Option<u64>,
    /// It has not moved for so long.
    pub stalled_seconds: Option<u64>,
}

/// A long action: what was asked for, how far it is, how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationView {
    /// Its name under `/v1/operations`.
    pub id: String,
    /// `pause`, `resume`, `deploy`, `rollback`.
    pub kind: String,
    /// The pipeline.
    pub pipeline: String,
    /// `running`, `done`, `failed`, `rolled_back`.
    pub state: String,
    /// What it is doing, or what came of it.
    pub says: String,
    /// Why it failed, for programs: `conflict`, or nothing in particular.
    #[serde(default)]
    pub code: Option<String>,
    /// What to do when it failed.
    pub hint: Option<String>,
    /// It runs, or ran, for so long.
    pub milliseconds: u64,
    /// After so long it fails.
    pub deadline_seconds: u64,
    /// What came of it, for programs.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub result: serde_json::Value,
}

/// `GET /v1/pipelines/NAME/versions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionList {
    /// Grows with every change of the current version; what a deployment has to know.
    pub generation: u64,
    /// The current one first, then those before it. All of them are kept and can be returned to.
    pub versions: Vec<VersionView>,
}

/// One version of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionView {
    /// SHA-256 of the component.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// When it became the current one, in ms since 1970.
    pub since: u64,
    /// How: `start`, `watch`, `deploy`, `rollback`.
    pub how: String,
    /// It is served now.
    pub current: bool,
    /// SHA-256 of the manifest that was deployed with it; nothing: it goes with the pipeline's own file.
    pub settings: Option<String>,
}

/// The answer to `POST /v1/components`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentView {
    /// SHA-256 of what came.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
}

/// The body of `POST /v1/pipelines/NAME/deployments`, and of `…/rollback`, which may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeployRequest {
    /// SHA-256 of a component that was sent before; with a manifest alone nothing: the one that serves. Of a roll-back the
    /// beginning of one, or of a manifest's; nothing: the version before.
    pub digest: Option<String>,
    /// The text of a manifest that takes the place of the pipeline's own; not of a roll-back.
    pub manifest: Option<String>,
    /// `drain` (open batches run once on the old version) or `immediate` (on the new one).
    pub strategy: Option<String>,
    /// A share of a hundred partitions runs it first.
    pub canary_percent: Option<u8>,
    /// For so long.
    pub canary_seconds: Option<u64>,
    /// Looks only: what would happen?
    pub dry_run: bool,
    /// How long lanes may take to switch, and the first record to pass.
    pub timeout_seconds: Option<u64>,
}

/// The body of `POST /v1/pipelines/NAME/pause`; may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// For those who ask why it stands still.
    pub reason: Option<String>,
}
