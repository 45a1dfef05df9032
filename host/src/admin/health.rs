//! Health: what is ready, what has started, and why not. Reads the pipelines' status; asks nobody else, Kafka least of
//! all: pipelines do that and say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;

use crate::delivery::retention::Danger;
use crate::pipeline::lane::LaneState;
use crate::pipeline::status::{Figures, PipelineStatus, Stalled, State};

/// Partitions of a pipeline that are listed as blocked, or as standing still, so that a probe's answer stays small; the others are counted.
const BLOCKED_LISTED: usize = 100;
/// Characters of a reason; reasons carry backtraces and handlers' texts, which the log has in full.
const REASON_CHARS: usize = 1_000;

/// See the module's text.
pub struct Health {
    statuses: Arc<[Arc<PipelineStatus>]>,
    /// Every pipeline has joined, once; what happens later does not undo it.
    started: AtomicBool,
}

/// The body of `/readyz` and `/startupz`.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<bool>,
    pipelines: Vec<PipelineReport>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PipelineReport {
    name: String,
    group: String,
    version: String,
    state: &'static str,
    reason: Option<String>,
    since_seconds: u64,
    partitions: usize,
    blocked: Vec<BlockedReport>,
    stalled: Vec<StalledReport>,
    #[serde(skip)]
    joined: bool,
}

#[derive(Debug, Serialize)]
struct BlockedReport {
    topic: String,
    partition: i32,
    reason: String,
}

#[derive(Debug, Serialize)]
struct StalledReport {
    topic: String,
    partition: i32,
    cause: &'static str,
    reason: String,
    seconds: u64,
}

impl Health {
    /// Health of these pipelines.
    pub const fn new(statuses: Arc<[Arc<PipelineStatus>]>) -> Self {
        Self { statuses, started: AtomicBool::new(false) }
    }

    /// Every pipeline is a working member of its group. One without partitions is, and so is one with a blocked lane or one
    /// that pauses because its records fail: sending work elsewhere would not help it.
    pub fn ready(&self) -> (StatusCode, Json<Report>) {
        let mut report = self.look();
        let works = [State::Running, State::Paused].map(State::name);
        let ready = report.pipelines.iter().all(|pipeline| works.contains(&pipeline.state));
        report.ready = Some(ready);
        (code(ready), Json(report))
    }

    /// Every pipeline has joined its group at some time. Components were compiled before the port was opened.
    pub fn started(&self) -> (StatusCode, Json<Report>) {
        let mut report = self.look();
        let joined = report.pipelines.iter().all(|pipeline| pipeline.joined);
        let started = self.started.fetch_or(joined, Ordering::Relaxed) || joined;
        report.started = Some(started);
        (code(started), Json(report))
    }

    fn look(&self) -> Report {
        let now = Instant::now();
        let mut warnings = Vec::new();
        let pipelines = self.statuses.iter().map(|status| look_at(status, now, &mut warnings)).collect();
        Report { ready: None, started: None, pipelines, warnings }
    }
}

fn look_at(status: &PipelineStatus, now: Instant, warnings: &mut Vec<String>) -> PipelineReport {
    let (state, reason, since) = status.state();
    let figures = status.figures();
    let name = &status.name;
    if let (State::Running | State::Paused, Some(reason)) = (state, &reason) {
        let paused = if state == State::Paused { "paused: " } else { "" };
        warnings.push(format!("pipeline `{name}`: {paused}{}", clip(reason)));
    }
    let mut blocked = Vec::new();
    let mut unlisted = 0;
    for lane in &figures.lanes {
        let LaneState::Blocked(reason) = &lane.state else { continue };
        if blocked.len() == BLOCKED_LISTED {
            unlisted += 1;
            continue;
        }
        let (topic, partition, reason) = (lane.topic.to_string(), lane.partition, clip(reason));
        warnings.push(format!("pipeline `{name}`: {topic}[{partition}] is blocked: {reason}"));
        blocked.push(BlockedReport { topic, partition, reason });
    }
    if unlisted > 0 {
        warnings.push(format!("pipeline `{name}`: {unlisted} more partitions are blocked"));
    }
    let stalled = stalled(&figures, name, warnings);
    for (danger, what) in [(Danger::Soon, "will soon be"), (Danger::Gone, "is")] {
        let count = figures.lanes.iter().filter(|lane| lane.danger == danger).count();
        if count > 0 {
            warnings.push(format!(
                "pipeline `{name}`: the oldest open message {what} deleted by retention in {count} partitions"
            ));
        }
    }
    PipelineReport {
        name: name.clone(),
        group: status.group.clone(),
        version: status.version().to_string(),
        state: state.name(),
        reason: reason.as_deref().map(clip),
        since_seconds: now.saturating_duration_since(since).as_secs(),
        partitions: figures.lanes.len(),
        blocked,
        stalled,
        joined: matches!(state, State::Running | State::Paused) || figures.rebalances[0] > 0,
    }
}

fn stalled(figures: &Figures, name: &str, warnings: &mut Vec<String>) -> Vec<StalledReport> {
    let mut reports = Vec::new();
    let mut unlisted = 0;
    for lane in &figures.lanes {
        let Some(Stalled { cause, reason, time }) = &lane.stalled else { continue };
        if reports.len() == BLOCKED_LISTED {
            unlisted += 1;
            continue;
        }
        let (topic, partition, seconds) = (lane.topic.to_string(), lane.partition, time.as_secs());
        let (cause, reason) = (cause.name(), clip(reason));
        // A blocked one has its warning.
        if !matches!(lane.state, LaneState::Blocked(_)) {
            warnings.push(format!("pipeline `{name}`: {topic}[{partition}] stands still for {seconds} s: {reason}"));
        }
        reports.push(StalledReport { topic, partition, cause, reason, seconds });
    }
    if unlisted > 0 {
        warnings.push(format!("pipeline `{name}`: {unlisted} more partitions stand still"));
    }
    reports
}

const fn code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// A reason that stays small.
pub(super) fn clip(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}
