//! Health and metrics over HTTP, on a thread of its own. Reads snapshots of what pipelines say of themselves and touches
//! no pipeline, so that no reader of these pages can delay a record.
//!
//! - [`connection`]: what a client may cost.
//! - [`health`]: what is up, ready, started.
//! - [`metrics`]: the text of a scrape; [`families`]: which metrics there are; [`handler_metrics`]: those that
//!   handlers name.

mod connection;
mod families;
mod handler_metrics;
mod health;
mod metrics;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::oneshot;

use self::connection::Door;
use self::health::Health;
use self::metrics::Metrics;
use crate::pipeline::status::PipelineStatus;
use crate::threads;

/// Every page, with what it says.
const PAGES: [(&str, &str); 4] = [
    ("/livez", "200 while the process answers"),
    ("/readyz", "200 when every pipeline is running, else 503, with the reasons"),
    ("/startupz", "200 once every pipeline has joined its group"),
    ("/metrics", "OpenMetrics text, for Prometheus"),
];

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
    pub fn start(address: SocketAddr, statuses: &[Arc<PipelineStatus>]) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let pages = pages(statuses.into(), address);
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
            // The runtime ends here, and with it the port and every open connection.
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

fn pages(statuses: Arc<[Arc<PipelineStatus>]>, address: SocketAddr) -> Router {
    let pages =
        Pages { health: Arc::new(Health::new(Arc::clone(&statuses))), metrics: Arc::new(Metrics::new(statuses)) };
    Router::new()
        .route("/", get(index))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async |State(pages): State<Pages>| pages.health.ready()))
        .route("/startupz", get(async |State(pages): State<Pages>| pages.health.started()))
        .route("/metrics", get(scrape))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(pages)
        .layer(middleware::from_fn_with_state(address.ip().is_loopback(), guard))
}

/// What holds for every page.
async fn guard(State(loopback): State<bool>, request: Request, next: Next) -> Response {
    let mut response = match request.headers().get(HOST) {
        Some(host) if loopback && !is_local(host) => problem(
            StatusCode::FORBIDDEN,
            "the Host header names another machine; a web page may not read this port under its own name".to_owned(),
            Some("use localhost or an IP address"),
        ),
        _ => next.run(request).await,
    };
    // One request per connection: then the limits of a connection are those of a request.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An address, or the one name that cannot be made to point here by somebody else's name server (DNS rebinding).
fn is_local(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let address = host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok();
    let bare_ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    address || bare_ipv6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) || name.eq_ignore_ascii_case("localhost")
}

async fn index() -> String {
    let mut text = format!("sluicebox {}\n\n", env!("CARGO_PKG_VERSION"));
    for (path, says) in PAGES {
        text.push_str(&format!("{path:<10} {says}\n"));
    }
    text
}

async fn scrape(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    match pages.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, metrics::content_type(accept))], text).into_response(),
        Err(std::fmt::Error) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down".to_owned(), None)
        }
    }
}

async fn not_found(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, format!("there is no page `{}`", uri.path()), Some("see `paths`"))
}

async fn method_not_allowed(method: Method) -> Response {
    problem(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible here"), Some("use GET or HEAD"))
}

/// RFC 9457.
fn problem(status: StatusCode, detail: String, hint: Option<&str>) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "hint": hint,
        "paths": PAGES.map(|(path, _)| path),
    });
    let kind = HeaderValue::from_static("application/problem+json");
    (status, [(CONTENT_TYPE, kind)], Json(body)).into_response()
}
