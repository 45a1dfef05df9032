//! The client of one pipeline: holds each request to the grant and to its limits. A request is a task on the outbound
//! thread, which owns all that it costs – its turn, its connection, its time – and ends with the handler's interest in the
//! answer, or with its time, whichever is first.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioTimer;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::connect::{Connector, Resolve, tls};
use super::failure::Failure;
use super::rules::{Scheme, Site};
use super::{Grant, Outbound};
use crate::config::HandlerLimits;

/// Connections to a site that are kept for the next request, and for how long.
const IDLE: usize = 4;
const IDLE_TIME: Duration = Duration::from_secs(30);
/// Headers of a response.
const HEADERS: usize = 256;
/// Bytes of a response's head besides its headers, and of what comes with it in one read.
const HEAD_ROOM: usize = 64 << 10;

/// Headers that are about the connection, which is the host's, or that would say another target than the one that was looked
/// at. Dropped if a handler sends them.
const DROPPED: [HeaderName; 13] = [
    header::HOST,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    // Made anew from the body's size.
    header::CONTENT_LENGTH,
    HeaderName::from_static("http2-settings"),
];

/// A body on its way out.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What every request of a pipeline is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at once.
    pub requests: u32,
    /// Bytes of a body, either way.
    pub body: u64,
    /// Bytes of the headers of a response.
    pub fields: u64,
    /// From asking to the end of the answer.
    pub time: Duration,
}

impl From<&HandlerLimits> for Limits {
    fn from(limits: &HandlerLimits) -> Self {
        let HandlerLimits { http_requests, http_body, http_fields, http_time, .. } = *limits;
        Self { requests: http_requests, body: http_body, fields: http_fields, time: http_time }
    }
}

/// Shorter times that a request asks for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// To the response's head.
    pub first: Option<Duration>,
    /// Between two pieces of its body.
    pub between: Option<Duration>,
}

/// See the module's text.
pub struct Client {
    sites: Vec<Site>,
    limits: Limits,
    turns: Arc<Semaphore>,
    pool: legacy::Client<Connector, Sent>,
    runtime: Handle,
}

impl Client {
    /// A client for what was granted. Names are resolved by `names`.
    ///
    /// # Errors
    /// Why nobody could be asked.
    pub fn new(
        grant: &Grant,
        limits: Limits,
        outbound: &Outbound,
        names: Arc<dyn Resolve>,
    ) -> Result<Arc<Self>, String> {
        let secure = grant.sites.iter().any(|site| site.scheme == Scheme::Https);
        let tls = secure.then(|| tls(grant.ca.as_deref())).transpose()?;
        let runtime = outbound.runtime().map_err(|error| format!("no thread for outbound requests: {error}"))?;
        let connector = Connector::new(names, grant.addresses.clone(), tls);
        // Looked at between two reads only: a bound of memory, below which headers are counted.
        let buffer = usize::try_from(limits.fields).unwrap_or(usize::MAX).saturating_add(HEAD_ROOM);
        let pool = legacy::Client::builder(OnRuntime(runtime.clone()))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE)
            .http1_max_buf_size(buffer)
            .http1_max_headers(HEADERS)
            .build(connector);
        let turns = Arc::new(Semaphore::new(limits.requests as usize));
        Ok(Arc::new(Self { sites: grant.sites.clone(), limits, turns, pool, runtime }))
    }

    /// Sends a request, if it may be sent. The answer's head comes by the channel; dropping what is on this side of it, or
    /// of the body, ends the request.
    ///
    /// # Errors
    /// When nothing is sent.
    pub fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        times: Times,
    ) -> Result<oneshot::Receiver<Result<Response<Answer>, Failure>>, Failure> {
        let request = self.checked(request)?;
        let (answer, answered) = oneshot::channel();
        self.runtime.spawn(Arc::clone(self).exchange(request, times, answer));
        Ok(answered)
    }

    /// The request as it leaves: for a granted site, with a target and headers of the host's making.
    fn checked(&self, request: Request<RequestBody>) -> Result<Request<Sent>, Failure> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT || head.method == Method::TRACE {
            return Err(Failure::Method(head.method.to_string()));
        }
        let authority = head.uri.authority().map_or("", http::uri::Authority::as_str);
        let path = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let site = Site::of_request(head.uri.scheme_str().unwrap_or_default(), authority, path);
        let site = site.map_err(Failure::Target)?;
        if !self.sites.contains(&site) {
            return Err(Failure::NotGranted(site));
        }
        let target = Uri::builder()
            .scheme(site.scheme.name())
            .authority(format!("{}:{}", site.host, site.port))
            .path_and_query(path)
            .build();
        head.uri = target.map_err(|error| Failure::Target(error.to_string()))?;
        head.version = http::Version::HTTP_11;
        head.extensions.clear();
        let length = content_length(&head.headers)?;
        if length.is_some_and(|length| length > self.limits.body) {
            return Err(Failure::RequestBody(self.limits.body));
        }
        for name in &DROPPED {
            head.headers.remove(name);
        }
        Ok(Request::from_parts(head, Sent { body, length, sent: 0, limit: self.limits.body }))
    }

    async fn exchange(
        self: Arc<Self>,
        request: Request<Sent>,
        times: Times,
        mut answer: oneshot::Sender<Result<Response<Answer>, Failure>>,
    ) {
        let time = self.limits.time;
        let deadline = Instant::now() + time;
        let first = times.first.map_or(time, |first| first.min(time));
        let begun = tokio::select! {
            biased;
            () = answer.closed() => return,
            begun = self.begin(request, Instant::now() + first) => begun,
        };
        let (turn, response) = match begun {
            Ok(begun) => begun,
            // Who asked may have gone just now.
            Err(failure) => return drop(answer.send(Err(failure))),
        };
        let (head, incoming) = response.into_parts();
        if lines(&head.headers) > self.limits.fields {
            return drop(answer.send(Err(Failure::ResponseFields(self.limits.fields))));
        }
        if incoming.size_hint().lower() > self.limits.body {
            return drop(answer.send(Err(Failure::ResponseBody(self.limits.body))));
        }
        let (pieces, received) = mpsc::channel(1);
        let body = Answer { pieces: received, time, ended: false };
        if answer.send(Ok(Response::from_parts(head, body))).is_err() {
            return;
        }
        let between = times.between.unwrap_or(time);
        tokio::select! {
            biased;
            () = pieces.closed() => {}
            // Over its time: the channel ends without an end of the body, which says so.
            _ = timeout_at(deadline, hand_over(incoming, &pieces, self.limits.body, between)) => {}
        }
        drop(turn);
    }

    /// Waits for a turn, and for the head of the answer.
    async fn begin(
        &self,
        request: Request<Sent>,
        until: Instant,
    ) -> Result<(OwnedSemaphorePermit, Response<Incoming>), Failure> {
        let Limits { requests, time, .. } = self.limits;
        let turn = timeout_at(until, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Failure::Busy(requests))?;
        // Nobody closes it.
        let turn = turn.map_err(|closed| Failure::Protocol(closed.to_string()))?;
        let response = timeout_at(until, self.pool.request(request)).await.map_err(|_| Failure::Time(time))?;
        Ok((turn, response.map_err(|error| cause(&error))?))
    }
}

/// Bytes of headers, each with its colon, space and line end.
fn lines(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

/// Hands the body over, piece by piece, as the handler takes it.
async fn hand_over(mut body: Incoming, pieces: &mpsc::Sender<Piece>, limit: u64, between: Duration) {
    let mut taken = 0;
    loop {
        let Ok(frame) = tokio::time::timeout(between, body.frame()).await else { return };
        let piece = match frame {
            None => Piece::End,
            Some(Err(error)) => Piece::Failed(cause(&error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    taken += data.len() as u64;
                    if taken > limit { Piece::Failed(Failure::ResponseBody(limit)) } else { Piece::Data(data) }
                }
                // Trailers: nobody asked for any.
                Err(_) => continue,
            },
        };
        let more = matches!(piece, Piece::Data(_));
        if pieces.send(piece).await.is_err() || !more {
            return;
        }
    }
}

/// The failure inside an error of the client's, or its innermost text.
fn cause(error: &(dyn Error + 'static)) -> Failure {
    let mut inner = error;
    loop {
        if let Some(failure) = inner.downcast_ref::<Failure>() {
            return failure.clone();
        }
        match inner.source() {
            Some(source) => inner = source,
            None => return Failure::Protocol(inner.to_string()),
        }
    }
}

/// The one length that a request says its body has.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.and_then(|digits| digits.parse().ok()), values.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(Failure::Target("its content-length is not one number".to_owned())),
    }
}

/// A request's body on its way: as long as it says, and never over the limit.
struct Sent {
    body: RequestBody,
    length: Option<u64>,
    sent: u64,
    limit: u64,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let broken = |why: &str| Poll::Ready(Some(Err(Failure::Protocol(why.to_owned()))));
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                return match self.length {
                    Some(length) if self.sent < length => {
                        broken("the request's body is shorter than its content-length")
                    }
                    _ => Poll::Ready(None),
                };
            };
            // Trailers would be headers that nobody looked at.
            match frame.map(Frame::into_data) {
                Err(_) => return broken("the handler did not finish the request's body"),
                Ok(Err(_)) => {}
                Ok(Ok(data)) => {
                    self.sent += data.len() as u64;
                    if self.sent > self.limit {
                        return Poll::Ready(Some(Err(Failure::RequestBody(self.limit))));
                    }
                    if self.length.is_some_and(|length| self.sent > length) {
                        return broken("the request's body is longer than its content-length");
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length.is_none_or(|length| length == self.sent) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(|| self.body.size_hint(), |length| SizeHint::with_exact(length - self.sent.min(length)))
    }
}

enum Piece {
    Data(Bytes),
    Failed(Failure),
    End,
}

/// The body of an answer.
pub struct Answer {
    pieces: mpsc::Receiver<Piece>,
    time: Duration,
    ended: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            Some(Piece::Failed(failure)) => {
                self.ended = true;
                Some(Err(failure))
            }
            None => {
                self.ended = true;
                Some(Err(Failure::Time(self.time)))
            }
        })
    }
}

/// Tasks of the pool run where the requests do, whoever asks.
#[derive(Clone)]
struct OnRuntime(Handle);

impl<F> hyper::rt::Executor<F> for OnRuntime
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
