//! `sluicebox host`: pipelines against real clusters, until a signal.

use std::sync::Arc;
use std::time::Duration;

use super::args::HostArgs;
use super::exit::Exit;
use crate::app::{self, App, StartError};
use crate::config::{self, Outside, Report};
use crate::kafka::ffi::Conf;
use crate::live::manifests;
use crate::plugin::Code;

/// Signals so close together are one request.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// The world that configuration is read in: this process's environment, and librdkafka's word on its properties.
pub(super) fn outside() -> Outside<'static> {
    Outside { property_fault: &|key, value| Conf::new().set(key, value).err(), ..Outside::process() }
}

/// Runs the command.
pub(super) fn run(args: &HostArgs, colour: bool) -> Exit {
    let plan = match config::load(&args.load_request(), &outside()) {
        Ok(plan) => plan,
        Err(report) => return refuse(&report, colour),
    };
    if !plan.warnings.is_empty() {
        eprint!("{}", plan.warnings.render(colour));
    }
    let runtime = match app::runtime(plan.data_dir.as_deref()) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the WebAssembly engine does not start: {error:#}");
            return Exit::Failed;
        }
    };
    let mut loaded = match app::load(&plan, &runtime) {
        Ok(loaded) => loaded,
        Err(report) => return refuse(&report, colour),
    };
    let store = app::store(plan.data_dir.as_deref());
    let request = args.load_request();
    let read: manifests::Read = Arc::new(move |manifest| config::load_deployed(&request, &outside(), manifest));
    if let Some(Err(report)) = store.as_ref().map(|store| app::deployed(&plan, &mut loaded, &runtime, store, &read)) {
        return refuse(&report, colour);
    }
    for (config, version) in &loaded {
        let code = match version.code() {
            Code::Compiled(took) => format!("compiled in {took:.1?}"),
            Code::Cached(took) => format!("from the cache in {took:.1?}"),
        };
        tracing::info!(
            pipeline = config.name,
            group = config.source.group,
            version = version.digest(),
            "handler {} ({} KiB, {}, {code})",
            config.component.display(),
            version.bytes() / 1024,
            version.forms().join(", ")
        );
    }
    let mut app = match App::start(&plan, loaded, &runtime, store.as_ref(), Some(&read)) {
        Ok(app) => app,
        Err(error @ (StartError::Admin { .. } | StartError::Token(_))) => {
            eprintln!("error: {error}");
            return Exit::Precondition;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Failed;
        }
    };
    if let Some(address) = app.admin() {
        tracing::info!("admin http://{address} (/metrics, /livez, /readyz, /v1)");
    }
    let request = args.load_request();
    let manifests = plan.pipelines.iter().filter_map(|pipeline| pipeline.origin.file().map(Into::into)).collect();
    let reload = Box::new(move || config::load(&request, &outside()).map(|plan| plan.pipelines));
    if let Err(error) = app.watch(manifests, reload) {
        eprintln!("error: {}", StartError::Threads(error));
        return Exit::Failed;
    }
    until_stopped(app, plan.drain)
}

fn refuse(report: &Report, colour: bool) -> Exit {
    eprint!("{}", report.render(colour));
    Exit::Failed
}

/// Waits for a signal, then for the pipelines; a second signal ends the process at once.
pub(super) fn until_stopped(app: App, drain: Duration) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime for signals: {error}");
            return Exit::Failed;
        }
    };
    let forced = runtime.block_on(async {
        let mut signals = Signals::new()?;
        signals.next().await;
        tracing::info!("stopping: draining for at most {} s; a second signal ends it at once", drain.as_secs());
        app.stop(drain);
        let asked = std::time::Instant::now();
        // Draining, the last commit and leaving the group have deadlines of their own.
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                // Tools that stop a process group (timeout(1), some shells) send one request twice.
                () = signals.next() => if asked.elapsed() > SAME_REQUEST { return Ok::<bool, std::io::Error>(true) },
                _ = look.tick() => if app.has_ended() { return Ok(false) },
            }
        }
    });
    let unfinished = app.statuses().iter().any(|status| status.is_unfinished());
    match forced {
        Ok(false) => {
            app.join();
            if unfinished {
                tracing::warn!("stopped, not finished in time: the rest is done by the next owner");
                return Exit::TimedOut;
            }
            tracing::info!("stopped");
            Exit::Ok
        }
        Ok(true) => {
            tracing::warn!("stopped by force: what was not committed is done again by the next owner");
            std::process::exit(Exit::Interrupted as i32)
        }
        Err(error) => {
            eprintln!("error: signals cannot be waited for: {error}");
            Exit::Failed
        }
    }
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
