//! Deployments and roll-backs as operations: what was sent is admitted off this thread, ordered, followed until every lane
//! runs it and the first record has passed, and written down. One way for both; what differs is where the version comes from.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};

use super::operations::{End, Progress};
use super::pipelines::swapped;
use super::plan::plan;
use super::problem::Problem;
use super::view::{DeployRequest, VersionList, VersionView, short};
use crate::config::Pipeline;
use crate::live::Rollout;
use crate::live::admission::{Admitted, Refused, Trial};
use crate::live::deployments::{Book, NotBegun, UnderWay};
use crate::live::manifests::ManifestError;
use crate::live::store::{History, How, StoreError};
use crate::pipeline::control::{Lanes, Progress as Swap, Stage, Strategy};
use crate::pipeline::status::State;

/// How long lanes may take to switch, and the first record to pass, unless it is said.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a canary runs unless it is said.
const CANARY: Duration = Duration::from_secs(120);
/// The longest that may be said.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often the progress of an order is looked at; it is published a few times a second.
const LOOK: Duration = Duration::from_millis(20);
/// How long lanes may take to go back.
const BACK: Duration = Duration::from_secs(60);
/// A pipeline that has nothing to do for so long has no first record to wait for.
const IDLE: Duration = Duration::from_secs(1);

/// A request that was understood.
pub struct Wanted {
    digest: String,
    /// The configuration that it comes with; `None`: the one that serves.
    config: Option<Arc<Pipeline>>,
    how: How,
    strategy: Strategy,
    /// Runs on a share of the partitions first, for so long.
    canary: Option<(u8, Duration)>,
    dry_run: bool,
    timeout: Duration,
}

impl Wanted {
    /// Until it has to be over.
    pub fn deadline(&self, compile: Duration) -> Duration {
        // Compiling is CPU time in a child: it may take twice as long on a busy machine.
        2 * compile + self.trial() + self.timeout + BACK
    }

    fn trial(&self) -> Duration {
        self.canary.map_or(Duration::ZERO, |(_, time)| time)
    }
}

/// What a request for a deployment asks for.
///
/// # Errors
/// When it is not understood, or nothing of that digest is kept.
pub fn deployment(book: &Book, request: DeployRequest) -> Result<Wanted, Problem> {
    let serving = || book.live().control.serving().digest().to_string();
    let digest = match (&request.digest, &request.manifest) {
        (Some(digest), _) => digest.clone(),
        (None, Some(_)) => serving(),
        (None, None) => {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "missing", "`digest` is missing");
            return Err(problem.at("/digest").hint("send the component to /v1/components first, or a `manifest`"));
        }
    };
    book.store().read(&digest).map_err(|error| stored(&error).at("/digest"))?;
    let manifest = request.manifest.as_deref();
    let config = manifest.map(|text| book.live().manifests.configuration(Some(text)).map_err(|error| unread(&error)));
    let config = config.transpose()?;
    wanted(request, digest, config, How::Deploy)
}

/// A manifest that is none to run.
fn unread(error: &ManifestError) -> Problem {
    let (text, hint) = match error {
        ManifestError::Refused(report) => {
            let found = report.diagnostics();
            let said = report.to_string();
            let lines = said.lines().zip(found).map(|(line, found)| match found.label.as_str() {
                "" => line.to_owned(),
                label => format!("{line}: {label}"),
            });
            let lines: Vec<String> = lines.collect();
            let help = found.iter().flat_map(|found| found.help.iter().chain(&found.notes)).next().cloned();
            (format!("the manifest is refused: {}", lines.join("; ")), help)
        }
        ManifestError::TooLong | ManifestError::NoneTaken => (error.to_string(), None),
    };
    let hint = hint.unwrap_or_else(|| "`sluicebox check` says more of it".to_owned());
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "manifest", text).at("/manifest").hint(hint)
}

/// What a request for a roll-back asks for.
///
/// # Errors
/// When it is not understood, or there is nothing to go back to.
pub fn rollback(book: &Book, request: DeployRequest) -> Result<Wanted, Problem> {
    let name = book.live().name();
    if request.manifest.is_some() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "value", "a roll-back has its manifest already");
        return Err(problem.at("/manifest").hint("deploy it"));
    }
    let target = book.target(request.digest.as_deref()).map_err(|error| match error {
        StoreError::Unknown { .. } if request.digest.is_none() => Problem::new(
            StatusCode::CONFLICT,
            "no_version",
            format!("`{name}` has no version before the one that runs"),
        )
        .hint("deploy the one that it should run"),
        error => stored(&error).at("/digest").hint(format!("sluicebox versions {name} lists what is kept")),
    })?;
    let config = book.live().manifests.configuration(target.manifest.as_deref()).map_err(|error| unread(&error))?;
    wanted(request, target.digest, Some(config), How::Rollback)
}

fn wanted(request: DeployRequest, digest: String, config: Option<Arc<Pipeline>>, how: How) -> Result<Wanted, Problem> {
    let wrong = |pointer: &str, detail: String, hint: &str| {
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "value", detail).at(pointer).hint(hint))
    };
    let strategy = match request.strategy.as_deref() {
        None | Some("drain") => Strategy::Drain,
        Some("immediate") => Strategy::Immediate,
        Some(other) => return wrong("/strategy", format!("`{other}` is no strategy"), "`drain` or `immediate`"),
    };
    let timeout = request.timeout_seconds.map_or(TIMEOUT, Duration::from_secs);
    if timeout.is_zero() || timeout > LONGEST {
        let hint = format!("1 to {}", LONGEST.as_secs());
        return wrong("/timeout_seconds", format!("{} s is no timeout", timeout.as_secs()), &hint);
    }
    let time = request.canary_seconds.map_or(CANARY, Duration::from_secs);
    let canary = match request.canary_percent {
        None if request.canary_seconds.is_some() => {
            return wrong("/canary_seconds", "a time for no canary".to_owned(), "say `canary_percent` as well");
        }
        None => None,
        Some(1..=99) if time.is_zero() || time > LONGEST => {
            let hint = format!("1 to {}", LONGEST.as_secs());
            return wrong("/canary_seconds", format!("{} s is no time for a canary", time.as_secs()), &hint);
        }
        Some(percent @ 1..=99) => Some((percent, time)),
        Some(percent) => {
            return wrong("/canary_percent", format!("{percent} % of the partitions are no canary"), "1 to 99");
        }
    };
    Ok(Wanted { digest, config, how, strategy, canary, dry_run: request.dry_run, timeout })
}

/// The versions that are kept.
pub fn versions(history: Option<History>) -> VersionList {
    let Some(history) = history else { return VersionList::default() };
    let how = |how| match how {
        How::Start => "start",
        How::Watch => "watch",
        How::Deploy => "deploy",
        How::Rollback => "rollback",
    };
    let versions = history.versions.into_iter().enumerate().map(|(place, kept)| VersionView {
        settings: kept.settings(),
        digest: kept.digest,
        bytes: kept.bytes,
        since: kept.since,
        how: how(kept.how).to_owned(),
        current: place == 0,
    });
    VersionList { generation: history.generation, versions: versions.collect() }
}

/// A problem of the store, for whom asked.
pub fn stored(error: &StoreError) -> Problem {
    match error {
        StoreError::Unknown { .. } => Problem::new(StatusCode::NOT_FOUND, "no_version", error.to_string()),
        StoreError::Conflict { .. } => Problem::new(StatusCode::CONFLICT, "conflict", error.to_string()),
        _ => {
            tracing::error!("{error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "store", error.to_string())
        }
    }
}

/// Why it did not begin.
pub fn not_begun(error: &NotBegun) -> Problem {
    match error {
        NotBegun::UnderWay { .. } | NotBegun::Stale { .. } => {
            Problem::new(StatusCode::CONFLICT, "conflict", error.to_string())
        }
        NotBegun::Store(error) => stored(error),
    }
}

/// Carries it out.
pub async fn carry_out(book: Book, under_way: UnderWay, wanted: Wanted, progress: Progress) -> End {
    let live = book.live().clone();
    let (serving, last) = (live.control.serving(), live.control.last());
    let from = serving.digest().to_string();
    // What says the same changes nothing, whoever says it.
    let config = wanted.config.clone().filter(|config| !config.says_the_same(&serving.config));
    let config = config.unwrap_or_else(|| Arc::clone(&serving.config));
    if from == wanted.digest && Arc::ptr_eq(&config, &serving.config) && !wanted.dry_run {
        let result = json!({ "from": from, "to": wanted.digest, "changed": false });
        return End::Done(format!("{} is what it serves already", short(&from)), result);
    }
    progress.say(format!("{} is looked at: {} serves", short(&wanted.digest), short(&from)));
    let admitted = tokio::select! {
        admitted = admit(&book, &wanted, config) => admitted,
        () = progress.cancelled() => Err(End::Failed("it was cancelled before anything changed".to_owned(), None)),
    };
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(end) => {
            if !wanted.dry_run && matches!(end, End::Failed(..)) && !progress.is_cancelled() {
                live.status.refuses_version();
            }
            return end;
        }
    };
    if wanted.dry_run {
        return plan(&serving, &admitted);
    }
    let rollout = Rollout {
        lanes: wanted.canary.map_or(Lanes::All, |(percent, _)| Lanes::Percent(percent)),
        promote_after: wanted.canary.map(|(_, time)| time),
        strategy: wanted.strategy,
        after: Some(last),
    };
    let number = match live.order(admitted, rollout) {
        Ok(number) => number,
        Err(conflict) => return End::Conflict(conflict.to_string()),
    };
    let end = follow(&book, number, &wanted, &progress).await;
    drop(under_way);
    end
}

async fn admit(book: &Book, wanted: &Wanted, config: Arc<Pipeline>) -> Result<Admitted, End> {
    let (book, digest) = (book.clone(), wanted.digest.clone());
    let trial = if wanted.how == How::Rollback { Trial::Start } else { Trial::Sample };
    let admission = move || -> Result<Admitted, End> {
        let bytes = book.store().read(&digest).map_err(|error| End::Failed(error.to_string(), None))?;
        book.live().admit(&config, &bytes, trial).map_err(|refused| failed(&refused))
    };
    match tokio::task::spawn_blocking(admission).await {
        Ok(admitted) => admitted,
        Err(error) => Err(End::Failed(format!("a bug of the host's: {error}"), Some("see its log".to_owned()))),
    }
}

/// "what: fix" is the form of every refusal's text.
fn failed(refused: &Refused) -> End {
    let text = refused.to_string();
    match text.rsplit_once(": ") {
        Some((what, fix)) => End::Failed(format!("{what}; the old version serves on"), Some(fix.to_owned())),
        None => End::Failed(format!("{text}; the old version serves on"), None),
    }
}

/// Follows an order to its end, and writes the new version down when it is there.
async fn follow(book: &Book, number: u64, wanted: &Wanted, progress: &Progress) -> End {
    let control = &book.live().control;
    let mut deadline = Instant::now() + wanted.trial() + wanted.timeout;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut cancelled) = (None, false);
    loop {
        look.tick().await;
        let swap = control.progress();
        let view = swapped(&swap).unwrap_or_default();
        if swap.number != number {
            return End::Conflict(format!("another order took the place of {}", short(&wanted.digest)));
        }
        if told.as_ref() != Some(&view) {
            progress.say(view.in_words());
            progress.show(json!(view));
            told = Some(view.clone());
        }
        match &swap.stage {
            Stage::Done => break,
            Stage::Switching | Stage::Canary if progress.is_cancelled() && !cancelled => {
                cancelled = true;
                control.take_back(number, "it was cancelled");
                deadline = Instant::now() + BACK;
            }
            Stage::RolledBack(reason) => {
                return End::RolledBack(format!("{} serves again: {reason}", short(&swap.from)), json!(view));
            }
            _ if Instant::now() < deadline => {}
            Stage::RollingBack(_) => {
                return End::Failed(format!("not every partition is back at {}", short(&swap.from)), status_of(book));
            }
            Stage::None | Stage::Switching | Stage::Canary => {
                let busy = swap.lanes.iter().filter(|lane| !lane.switched);
                let busy: Vec<String> =
                    busy.map(|lane| format!("{}[{}]", lane.topic, lane.partition)).take(8).collect();
                let who = if busy.is_empty() { waits_for(book) } else { busy.join(", ") };
                let reason = format!("not done within {} s: {who}", wanted.timeout.as_secs());
                // False: it came through in this moment, which the next look sees.
                control.take_back(number, &reason);
                deadline = Instant::now() + BACK;
            }
        }
    }
    if let Err(error) = book.note(wanted.how) {
        let what =
            format!("{} serves, but a restart would begin with the version before: {error}", short(&wanted.digest));
        return End::Failed(what, Some("mend that, then deploy it again".to_owned()));
    }
    first_record(book, number, wanted, progress).await
}

fn status_of(book: &Book) -> Option<String> {
    Some(format!("sluicebox status {} --partitions", book.live().name()))
}

/// Why a pipeline without partitions does not switch.
fn waits_for(book: &Book) -> String {
    let (state, reason, _) = book.live().status.state();
    format!("the pipeline is {}: {}", state.name(), reason.as_deref().unwrap_or("it has not begun yet"))
}

/// The new version serves. Waits until a record has passed it, or says why none does.
async fn first_record(book: &Book, number: u64, wanted: &Wanted, progress: &Progress) -> End {
    let live = book.live();
    let begun = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = |swap: &Swap, passed: bool| {
        let mut result = json!(swapped(swap));
        result["changed"] = json!(true);
        result["first_record"] = json!(passed);
        result
    };
    loop {
        look.tick().await;
        let swap = live.control.progress();
        if swap.number != number {
            return End::Conflict(format!("another order took the place of {}", short(&wanted.digest)));
        }
        let line = swapped(&swap).map_or_else(String::new, |view| view.in_words());
        if let Stage::RollingBack(reason) | Stage::RolledBack(reason) = &swap.stage {
            return End::RolledBack(reason.clone(), result(&swap, false));
        }
        if swap.new.messages > swap.new.failed {
            return End::Done(line, result(&swap, true));
        }
        if progress.is_cancelled() {
            return End::Done(format!("{line}; no record was waited for, it was cancelled"), result(&swap, false));
        }
        let (state, reason, _) = live.status.state();
        let figures = live.status.figures();
        let idle = figures.topics.values().all(|topic| topic.lag == 0) && figures.in_flight == 0;
        let why = match state {
            State::Running if idle && begun.elapsed() >= IDLE => "no record waits for it".to_owned(),
            State::Running if begun.elapsed() >= wanted.timeout => {
                let what = format!("{line}; but no record passes it, {} failed", swap.new.failed);
                return End::Failed(
                    what,
                    Some(format!("sluicebox status {0} --why, or sluicebox rollback {0}", live.name())),
                );
            }
            State::Running => {
                progress.say(format!("{line}; the first record is waited for"));
                continue;
            }
            other => format!("no record passes: {}", reason.unwrap_or_else(|| other.name().to_owned())),
        };
        return End::Done(format!("{line}; {why}"), result(&swap, false));
    }
}
