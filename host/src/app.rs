//! The one wiring file: from a checked plan to running pipelines, and from a stop to their end.
//!
//! Order of a start: components (all errors at once) → admin port → handler threads → one thread per pipeline. Order of a
//! stop: pipelines drain and leave their groups → handler threads → admin.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::admin::{Admin, Managed, Port, TokenError, read_token};
use crate::components::Components;
use crate::config::{Diagnostic, Pipeline, Plan, Report, codes};
use crate::handler_log::PipelineLog;
use crate::live::Live;
use crate::live::deployments::{Book, Scribe, begin_with, place_of};
use crate::live::manifests::{self, Manifests};
use crate::live::store::Store;
use crate::live::watch::{FileWatch, Reload};
use crate::outbound::{Client, Outbound, SystemNames};
use crate::pipeline::budget::Budget;
use crate::pipeline::control::Control;
use crate::pipeline::handlers::{HandlerThreads, Logs};
use crate::pipeline::status::PipelineStatus;
use crate::pipeline::stop::Stop;
use crate::pipeline::supervise::Supervised;
use crate::plugin::{Cache, Compiler, HandlerLog, Runtime, Version};
use crate::telemetry;
use crate::threads;

/// A pipeline with its loaded component.
pub type Loaded = (Arc<Pipeline>, Arc<Version>);

/// Pipelines that run.
pub struct App {
    statuses: Vec<Arc<PipelineStatus>>,
    threads: Vec<JoinHandle<()>>,
    stop: Stop,
    admin: Option<Admin>,
    live: Vec<Live>,
    watch: Option<FileWatch>,
    // Before the pipelines' threads, like the two above: all of them look at what runs.
    _scribe: Option<Scribe>,
    // After the pipelines' threads, which use it.
    _handlers: Arc<HandlerThreads>,
    _outbound: Outbound,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin port is taken, or may not be listened on.
    #[error(
        "the admin port {address} cannot be opened: {source}; choose another with --admin, or none with --no-admin"
    )]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Nobody could be kept out.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A handler may ask others, and nothing can be asked.
    #[error("pipeline `{pipeline}`: its handler could not ask anybody by HTTP: {reason}")]
    Outbound {
        /// Which.
        pipeline: String,
        /// Why.
        reason: String,
    },
    /// The system gives no threads.
    #[error("the system gives no thread: {0}")]
    Threads(#[from] std::io::Error),
}

/// The versions that this host keeps. Without a place for them nothing can be deployed.
#[must_use]
pub fn store(data_dir: Option<&Path>) -> Option<Store> {
    let opened = Store::open(&data_dir?.join("versions"));
    opened.map_err(|error| telemetry::no_store(&error)).ok()
}

/// Puts in the place of what manifests name what was deployed since.
///
/// # Errors
/// Every pipeline whose version cannot be had.
pub fn deployed(
    plan: &Plan,
    loaded: &mut [Loaded],
    runtime: &Arc<Runtime>,
    store: &Store,
    read: &manifests::Read,
) -> Result<(), Report> {
    let mut report = Report::default();
    for (config, version) in loaded {
        let Some(cluster) = plan.clusters.get(&config.source.cluster) else { continue };
        let place = place_of(config, cluster);
        let manifests = Manifests::new(Arc::clone(config), Some(Arc::clone(read)));
        match begin_with(store, &place, runtime, &manifests, Arc::clone(version)) {
            Ok(begins) => (*config, *version) = begins,
            Err(error) => {
                let what = format!("pipeline `{}` does not begin with what was deployed: {error}", config.name);
                report.push(Diagnostic::error(codes::BAD_COMPONENT, what).at(config.origin.component()));
            }
        }
    }
    if report.has_errors() { Err(report) } else { Ok(()) }
}

/// The sandbox of this process. Without a place for compiled handlers they are compiled at every start.
///
/// # Errors
/// When the engine does not start.
pub fn runtime(data_dir: Option<&Path>) -> anyhow::Result<Arc<Runtime>> {
    let cache = data_dir.and_then(|directory| match Cache::open(&directory.join("compiled")) {
        Ok(cache) => Some(cache),
        Err(error) => {
            telemetry::no_cache(&error);
            None
        }
    });
    Runtime::new(Compiler::this_program(), cache)
}

/// Loads all components of a plan.
///
/// # Errors
/// Everything that does not fit, of all pipelines.
pub fn load(plan: &Plan, runtime: &Arc<Runtime>) -> Result<Vec<Loaded>, Report> {
    let mut components = Components::new(Arc::clone(runtime));
    let mut report = Report::default();
    let mut loaded = Vec::new();
    for pipeline in &plan.pipelines {
        match components.load(pipeline) {
            Ok(version) => loaded.push((Arc::new(pipeline.clone()), version)),
            Err(found) => found.into_iter().for_each(|diagnostic: Diagnostic| report.push(diagnostic)),
        }
    }
    if report.has_errors() { Err(report) } else { Ok(loaded) }
}

/// Asks for a pipeline's handler, if it may ask anybody.
fn client(config: &Pipeline, outbound: &Outbound) -> Result<Option<Arc<Client>>, StartError> {
    let Some(grant) = &config.http else { return Ok(None) };
    let client = Client::new(grant, (&config.limits).into(), outbound, Arc::new(SystemNames));
    client.map(Some).map_err(|reason| StartError::Outbound { pipeline: config.name.clone(), reason })
}

impl App {
    /// Starts every pipeline of a plan. Without a store, versions come from files alone; without a reader, manifests do.
    ///
    /// # Errors
    /// When nothing was started.
    pub fn start(
        plan: &Plan,
        loaded: Vec<Loaded>,
        runtime: &Arc<Runtime>,
        store: Option<&Store>,
        read: Option<&manifests::Read>,
    ) -> Result<Self, StartError> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let handlers = Arc::new(HandlerThreads::start(threads)?);
        let outbound = Outbound::default();
        let clients = loaded.iter().map(|(config, _)| client(config, &outbound)).collect::<Result<Vec<_>, _>>()?;
        let clusters = Arc::new(plan.clusters.clone());
        let budget = Budget::new(plan.memory_budget);
        let stop = Stop::default();
        let (mut live, mut pipelines) = (Vec::new(), Vec::new());
        for (((config, version), http), of_file) in loaded.into_iter().zip(clients).zip(&plan.pipelines) {
            let status = PipelineStatus::new(&config.name, &config.source.group, version.digest());
            let status = Arc::new(status.with_limits(&config.limits));
            let source_cluster = clusters.get(&config.source.cluster).cloned();
            let source_cluster = source_cluster.expect("the plan has every cluster that a pipeline names");
            let logs = logs_of(&config.name, &source_cluster.bootstrap);
            let control = Control::new(config, version);
            live.push(Live {
                control: control.clone(),
                status: Arc::clone(&status),
                cluster: source_cluster.clone(),
                manifests: Manifests::new(Arc::new(of_file.clone()), read.cloned()),
                runtime: Arc::clone(runtime),
                logs: Arc::clone(&logs),
                http: http.clone(),
            });
            pipelines.push(Supervised {
                control,
                logs,
                source_cluster,
                clusters: Arc::clone(&clusters),
                handlers: Arc::clone(&handlers),
                http,
                budget: Arc::clone(&budget),
                stop: stop.clone(),
                status,
            });
        }
        let books: Vec<Option<Book>> = live.iter().map(|live| book(live, store)).collect();
        let admin = plan.admin.map(|address| serve(address, plan, &live, &books)).transpose()?;
        let books: Vec<Book> = books.into_iter().flatten().collect();
        let scribe = if books.is_empty() { None } else { Some(Scribe::start(books)?) };
        let statuses = live.iter().map(|live| Arc::clone(&live.status)).collect();
        let (threads, watch) = (Vec::new(), None);
        let (_handlers, _outbound) = (handlers, outbound);
        let mut app = Self { statuses, threads, stop, admin, live, watch, _scribe: scribe, _handlers, _outbound };
        for pipeline in pipelines {
            let name = format!("sb-io-{}", pipeline.status.name);
            app.threads.push(threads::spawn(&name, || pipeline.run())?);
        }
        Ok(app)
    }

    /// Takes over components that change on disk from here on, and what manifests say.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(&mut self, manifests: Vec<PathBuf>, reload: Reload) -> std::io::Result<()> {
        self.watch = Some(FileWatch::start(self.live.clone(), manifests, reload)?);
        Ok(())
    }

    /// The pipelines, for those who change what they run, in the order of the plan.
    #[must_use]
    pub fn live(&self) -> &[Live] {
        &self.live
    }

    /// What the pipelines say of themselves, in the order of the plan.
    #[must_use]
    pub fn statuses(&self) -> &[Arc<PipelineStatus>] {
        &self.statuses
    }

    /// Where health and metrics are served.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Asks the pipelines to finish within so much time.
    pub fn stop(&self, drain: Duration) {
        self.stop.request(drain);
    }

    /// True when every pipeline has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the end of every pipeline.
    pub fn join(self) {
        for thread in self.threads {
            _ = thread.join();
        }
    }
}

/// Opens the admin port.
fn serve(address: SocketAddr, plan: &Plan, live: &[Live], books: &[Option<Book>]) -> Result<Admin, StartError> {
    let (token_file, read_only_token_file) = (plan.admin_token_file.clone(), plan.admin_read_only_token_file.clone());
    for file in [&token_file, &read_only_token_file].into_iter().flatten() {
        read_token(file)?;
    }
    let managed = live.iter().zip(books).map(|(live, book)| Managed {
        status: Arc::clone(&live.status),
        control: Arc::new(live.control.clone()),
        book: book.clone(),
    });
    let port = Port { address, token_file, read_only_token_file };
    Admin::start(&port, managed.collect()).map_err(|source| StartError::Admin { address, source })
}

/// The book of a pipeline. One that cannot be opened is said, and the pipeline runs all the same.
fn book(live: &Live, store: Option<&Store>) -> Option<Book> {
    let place = place_of(&live.control.serving().config, &live.cluster);
    let opened = Book::open(live.clone(), store?.clone(), place);
    opened.map_err(|error| telemetry::no_store(&error)).ok()
}

/// Logs of a pipeline's handler, one per version.
fn logs_of(pipeline: &str, bootstrap: &str) -> Logs {
    let (pipeline, bootstrap) = (pipeline.to_owned(), bootstrap.to_owned());
    Arc::new(move |version: &Version| -> Arc<dyn HandlerLog> {
        Arc::new(PipelineLog::new(&pipeline, version.digest(), &bootstrap))
    })
}
