//! Health, metrics and the control of pipelines over HTTP, on a thread of its own. Reads snapshots of what pipelines say of
//! themselves and gives orders by their handles; it waits for no pipeline's thread, so that nobody here can delay a record.
//!
//! - [`connection`]: what a client may cost; [`guard`]: who may do what.
//! - [`health`]: what is up, ready, started.
//! - [`metrics`]: the text of a scrape; [`families`]: which metrics there are; [`handler_metrics`]: those that
//!   handlers name.
//! - [`api`]: the pages under `/v1`, which the commands use; [`pipelines`]: what they say; [`view`]: in which form;
//!   [`steer`]: pause and resume; [`deploy`]: other versions; [`plan`]: what one would change; [`operations`]: what takes time; [`problem`]: errors;
//!   [`openapi`]: the table of all pages.

mod api;
mod connection;
mod deploy;
mod families;
mod guard;
mod handler_metrics;
mod health;
mod metrics;
mod openapi;
mod operations;
mod pipelines;
mod plan;
pub mod problem;
mod steer;
#[cfg(test)]
mod tests;
pub mod view;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::sync::oneshot;

use self::api::Api;
pub use self::api::Managed;
use self::connection::{Caller, Door};
use self::guard::Guard;
pub use self::guard::{TokenError, read_token};
use self::health::Health;
use self::metrics::Metrics;
use self::problem::Problem;
use crate::pipeline::status::PipelineStatus;
use crate::threads;

/// Where the port is, and who may use it from elsewhere.
#[derive(Clone, Debug)]
pub struct Port {
    /// Where it listens.
    pub address: SocketAddr,
    /// The file of the token that others than this machine have to show.
    pub token_file: Option<PathBuf>,
    /// The file of one that lets them look, and change nothing.
    pub read_only_token_file: Option<PathBuf>,
}

/// A port that is served until it is dropped.
pub struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Opens the port and serves it.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub fn start(port: &Port, pipelines: Vec<Managed>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(port.address))?;
        let address = listener.local_addr()?;
        let guard = Guard::new(port.token_file.clone(), port.read_only_token_file.clone());
        let pages = pages(pipelines, guard).into_make_service_with_connect_info::<Caller>();
        let (stop, stopped) = oneshot::channel();
        let thread = threads::spawn("sb-admin", move || {
            runtime.block_on(async {
                tokio::select! {
                    served = axum::serve(Door::new(listener), pages) => {
                        tracing::error!("health and metrics are no longer served: {served:?}");
                    }
                    // Also when the sender is dropped.
                    _ = stopped => {}
                }
            });
            // What was begun on threads of its own is not waited for: a trial instance, a component being compiled.
            runtime.shutdown_background();
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    /// Waits for the thread, so that the port is free afterwards.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Pages {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

fn pages(pipelines: Vec<Managed>, guard: Guard) -> Router {
    let statuses: Arc<[Arc<PipelineStatus>]> = pipelines.iter().map(|pipeline| Arc::clone(&pipeline.status)).collect();
    let pages =
        Pages { health: Arc::new(Health::new(Arc::clone(&statuses))), metrics: Arc::new(Metrics::new(statuses)) };
    Router::new()
        .route("/", get(index))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async |State(pages): State<Pages>| pages.health.ready()))
        .route("/startupz", get(async |State(pages): State<Pages>| pages.health.started()))
        .route("/metrics", get(scrape))
        .route("/openapi.json", get(async || Json(openapi::document())))
        .with_state(pages)
        .merge(api::pages(Arc::new(Api::new(pipelines))))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::new(guard), guarded))
}

/// What holds for every page.
async fn guarded(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let admitted = guard.admits(caller.address, request.method(), request.uri().path(), request.headers());
    let mut response = match admitted {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // One request per connection: then the limits of a connection are those of a request.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn index() -> String {
    format!("sluicebox {}\n\n{}", env!("CARGO_PKG_VERSION"), openapi::index())
}

async fn scrape(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    match pages.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::content_type(accept))], text).into_response(),
        Err(std::fmt::Error) => {
            let detail = "the metrics cannot be written down";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", detail).into_response()
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    let pages: Vec<&str> = openapi::PAGES.iter().map(|page| page.path).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_page", format!("there is no page `{}`", uri.path()))
        .hint(format!("there are {}", pages.join(", ")))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{method} is not possible at `{}`", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail).hint("the header Allow names what is")
}
