//! The pages under `/v1`: what pipelines do, and what they are told. Reads snapshots and gives orders; waits for no pipeline:
//! what takes time is an operation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::routing::{get, post};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::connection::{Caller, LIFETIME, REQUEST_BYTES};
use super::deploy::{self, Wanted};
use super::operations::Operations;
use super::pipelines;
use super::problem::Problem;
use super::steer::{self, Steer};
use super::view::{
    ComponentView, DeployRequest, OperationView, PartitionList, PauseRequest, PipelineList, PipelineView, VersionList,
};
use crate::config::nearest;
use crate::live::deployments::Book;
use crate::live::manifests;
use crate::pipeline::status::PipelineStatus;

/// How long a component may take to arrive.
const UPLOAD: Duration = Duration::from_secs(120);
/// How long an operation may be waited for in one request: well within the life of its connection.
const LONGEST_WAIT: Duration = LIFETIME.saturating_sub(Duration::from_secs(5));

/// A pipeline, as the pages see it.
#[derive(Clone)]
pub struct Managed {
    /// What it says of itself.
    pub status: Arc<PipelineStatus>,
    /// What it can be told.
    pub control: Arc<dyn Steer>,
    /// What it runs and ran; nothing: versions are not kept, and none can be deployed.
    pub book: Option<Book>,
}

impl Managed {
    fn view(&self, now: Instant) -> PipelineView {
        // A store that cannot be read is told to whoever wants to change something.
        let generation = self.book.as_ref().and_then(|book| book.generation().ok());
        pipelines::view(&self.status, &self.control.progress(), generation, now)
    }

    fn book(&self) -> Result<&Book, Problem> {
        self.book.as_ref().ok_or_else(|| {
            Problem::new(
                StatusCode::CONFLICT,
                "no_store",
                "this host does not keep versions, so it takes no deployments",
            )
            .hint("its log says why; `data_dir` in host.toml names a place")
        })
    }
}

/// What the pages share.
pub struct Api {
    pipelines: Vec<Managed>,
    operations: Operations,
    /// Components are taken one at a time: each is in memory until it is kept.
    uploads: Semaphore,
}

impl Api {
    /// Pages about these pipelines.
    pub fn new(pipelines: Vec<Managed>) -> Self {
        Self { pipelines, operations: Operations::new(), uploads: Semaphore::new(1) }
    }

    fn find(&self, name: &str) -> Result<&Managed, Problem> {
        self.pipelines.iter().find(|pipeline| pipeline.status.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.pipelines.iter().map(|pipeline| pipeline.status.name.as_str()).collect();
            let problem =
                Problem::new(StatusCode::NOT_FOUND, "no_pipeline", format!("there is no pipeline `{name}` here"));
            match nearest(name, names.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("there are: {}", names.join(", "))),
            }
        })
    }
}

/// Every page under `/v1`.
pub fn pages(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/pipelines", get(list))
        .route("/v1/pipelines/{name}", get(one))
        .route("/v1/pipelines/{name}/partitions", get(partitions))
        .route("/v1/pipelines/{name}/pause", post(pause))
        .route("/v1/pipelines/{name}/resume", post(resume))
        .route("/v1/pipelines/{name}/versions", get(versions))
        .route("/v1/pipelines/{name}/deployments", post(deployment))
        .route("/v1/pipelines/{name}/rollback", post(rollback))
        .route("/v1/components", post(component))
        .route("/v1/operations/{id}", get(operation).delete(cancel))
        .with_state(api)
}

/// The pipeline that a path names.
struct Named(Managed);

impl FromRequestParts<Arc<Api>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, api).await;
        let Path(name) = path.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "path", "the path is no text"))?;
        api.find(&name).cloned().map(Self)
    }
}

async fn list(State(api): State<Arc<Api>>) -> Json<PipelineList> {
    let now = Instant::now();
    let pipelines = api.pipelines.iter().map(|pipeline| pipeline.view(now)).collect();
    Json(PipelineList { pipelines })
}

async fn one(Named(pipeline): Named) -> Json<PipelineView> {
    Json(pipeline.view(Instant::now()))
}

async fn partitions(Named(pipeline): Named) -> Json<PartitionList> {
    Json(PartitionList { partitions: pipelines::partitions(&pipeline.status) })
}

async fn pause(State(api): State<Arc<Api>>, Named(pipeline): Named, body: Bytes) -> Result<Accepted, Problem> {
    let request: PauseRequest = read(&body)?;
    let reason = steer::reason(request.reason.as_deref())?;
    let Managed { status, control, .. } = pipeline;
    steer::is_there(&status)?;
    let name = status.name.clone();
    accepted(api.operations.begin("pause", &name, steer::DEADLINE, |progress| {
        control.pause(&reason);
        steer::paused(status, progress)
    }))
}

async fn resume(State(api): State<Arc<Api>>, Named(pipeline): Named) -> Result<Accepted, Problem> {
    let Managed { status, control, .. } = pipeline;
    steer::is_there(&status)?;
    let name = status.name.clone();
    accepted(api.operations.begin("resume", &name, steer::DEADLINE, |progress| {
        control.resume();
        steer::resumed(status, progress)
    }))
}

type Versions = ([(HeaderName, String); 1], Json<VersionList>);

async fn versions(Named(pipeline): Named) -> Result<Versions, Problem> {
    let history = pipeline.book()?.history().map_err(|error| deploy::stored(&error))?;
    let list = deploy::versions(history);
    Ok(([(ETAG, format!("\"{}\"", list.generation))], Json(list)))
}

async fn deployment(
    State(api): State<Arc<Api>>,
    Named(pipeline): Named,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Accepted, Problem> {
    let book = pipeline.book()?;
    // A manifest in JSON, where a character may take six bytes.
    let limit = 6 * manifests::LONGEST + REQUEST_BYTES;
    caller.allow(limit, LIFETIME);
    let body = axum::body::to_bytes(body, limit).await.map_err(|error| {
        let detail = format!("the request did not arrive whole, or has more than {limit} bytes: {error}");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body", detail)
    })?;
    let wanted = deploy::deployment(book, read(&body)?)?;
    begin(&api, "deploy", &pipeline, book, wanted, &headers)
}

async fn rollback(
    State(api): State<Arc<Api>>,
    Named(pipeline): Named,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Accepted, Problem> {
    let book = pipeline.book()?;
    let wanted = deploy::rollback(book, read::<DeployRequest>(&body)?)?;
    begin(&api, "rollback", &pipeline, book, wanted, &headers)
}

fn begin(
    api: &Api,
    kind: &'static str,
    pipeline: &Managed,
    book: &Book,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Result<Accepted, Problem> {
    steer::is_there(&pipeline.status)?;
    let under_way = book.begin(kind, generation(headers)?).map_err(|error| deploy::not_begun(&error))?;
    let compile = book.live().control.serving().config.limits.compile_time;
    let deadline = wanted.deadline(compile);
    let carry_out = |progress| deploy::carry_out(book.clone(), under_way, wanted, progress);
    accepted(api.operations.begin(kind, &pipeline.status.name, deadline, carry_out))
}

/// `If-Match: "7"`.
fn generation(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|value| value.strip_prefix('"')?.strip_suffix('"')?.parse().ok());
    let wrong = || {
        Problem::new(StatusCode::BAD_REQUEST, "generation", format!("If-Match is no generation: {value:?}"))
            .hint("send the ETag of the pipeline's versions")
    };
    number.map(Some).ok_or_else(wrong)
}

/// Keeps a component. Whoever may deploy may send it; nothing runs it before it is deployed.
async fn component(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<ComponentView>), Problem> {
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != "application/wasm") {
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", "a component is application/wasm");
        return Err(problem);
    }
    let books = api.pipelines.iter().filter_map(|pipeline| pipeline.book.as_ref());
    let limits = books.clone().map(|book| book.live().control.serving().config.limits.component_size);
    let limit = usize::try_from(limits.max().unwrap_or(0)).unwrap_or(usize::MAX);
    let Some(store) = books.map(Book::store).next().cloned() else {
        return Err(Problem::new(StatusCode::CONFLICT, "no_store", "this host does not keep versions")
            .hint("its log says why; `data_dir` in host.toml names a place"));
    };
    let busy =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "another component is on its way; try again soon");
    let _turn = api.uploads.try_acquire().map_err(|_| busy())?;
    caller.allow(limit.saturating_add(REQUEST_BYTES), UPLOAD);
    let bytes = axum::body::to_bytes(body, limit).await.map_err(|error| {
        if std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>) {
            let detail = format!("the component is too large, the limit is {limit} bytes");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "component", detail).hint(
                "build it in release mode, strip its debug information, or raise `component_size` in [handler.limits]",
            );
        }
        let detail = format!("the component did not arrive whole: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "component", detail).hint("send it again")
    })?;
    let size = bytes.len() as u64;
    let kept = tokio::task::spawn_blocking(move || store.keep(&bytes)).await;
    match kept {
        Ok(Ok(digest)) => Ok((StatusCode::CREATED, Json(ComponentView { digest, bytes: size }))),
        Ok(Err(error)) => Err(deploy::stored(&error)),
        Err(error) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", format!("a bug of the host's: {error}")))
        }
    }
}

async fn operation(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<OperationView>, Problem> {
    let wait = waited(uri.query())?;
    let found = api.operations.wait(&id, wait).await;
    found.map(Json).ok_or_else(|| no_operation(&id))
}

/// It ends by itself, and says how.
async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Accepted, Problem> {
    match api.operations.cancel(&id).ok_or_else(|| no_operation(&id))? {
        Ok(operation) => accepted(Some(operation)),
        Err(over) => {
            let detail = format!("operation `{id}` is over: {}", over.state);
            Err(Problem::new(StatusCode::CONFLICT, "over", detail).hint("what it did can be undone by another one"))
        }
    }
}

fn no_operation(id: &str) -> Problem {
    let detail =
        format!("there is no operation `{id}`; operations are forgotten when the host ends, and after many others");
    Problem::new(StatusCode::NOT_FOUND, "no_operation", detail)
}

/// `wait=SECONDS`.
fn waited(query: Option<&str>) -> Result<Duration, Problem> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(Duration::ZERO) };
    let seconds = query.strip_prefix("wait=").and_then(|seconds| seconds.parse().ok());
    match seconds.map(Duration::from_secs) {
        Some(wait) if wait <= LONGEST_WAIT => Ok(wait),
        _ => {
            let detail = format!("`?{query}` is not understood");
            let hint = format!("wait=SECONDS, at most {}", LONGEST_WAIT.as_secs());
            Err(Problem::new(StatusCode::BAD_REQUEST, "query", detail).hint(hint))
        }
    }
}

/// A body of JSON; none at all stands for one that says nothing.
fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "body", format!("the body is not right: {error}"))
    })
}

/// 202, with where the operation is.
type Accepted = (StatusCode, [(HeaderName, String); 1], Json<OperationView>);

fn accepted(operation: Option<OperationView>) -> Result<Accepted, Problem> {
    let busy =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "too many operations are under way; try again soon");
    let operation = operation.ok_or_else(busy)?;
    let location = format!("/v1/operations/{}", operation.id);
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(operation)))
}
