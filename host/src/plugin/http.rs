//! Outbound HTTP for guests: `wasi:http/outgoing-handler` and the types it needs, linked only for handlers that were granted
//! somebody to ask. Requests go to the pipeline's client, which looks at them; what is wrong with one is an error code for
//! the guest and a line with the reason in its log.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use super::instance::{InstanceConfig, State};
use super::output::{LogLevel, Output};
use crate::handler_usage::{Asked, Usage};
use crate::outbound::{Client, Failure, Times};

/// Every interface that is linked with a grant, as package and interface.
pub(super) const LINKED: [(&str, &str); 2] = [("wasi:http", "types"), ("wasi:http", "outgoing-handler")];

/// Bytes of a request's body that wait for the network, at most.
const CHUNK: usize = 64 << 10;

/// Links what [`LINKED`] says.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let options = bindings::LinkOptions::default();
    bindings::http::outgoing_handler::add_to_linker::<State, WasiHttp>(linker, State::http)?;
    bindings::http::types::add_to_linker::<State, WasiHttp>(linker, &options.into(), State::http)
}

/// What one instance has of it.
pub(super) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    client: Option<Arc<Client>>,
    output: Arc<Output>,
    usage: Arc<Usage>,
    pending: Arc<Pending>,
}

/// Requests under way, for the report of a call that takes too long.
#[derive(Default)]
struct Pending {
    count: AtomicUsize,
    last: Mutex<String>,
}

/// A request counts until its answer was read, or nobody wants it.
struct UnderWay(Arc<Pending>);

impl UnderWay {
    fn begin(pending: &Arc<Pending>, what: &str) -> Self {
        pending.count.fetch_add(1, Ordering::Relaxed);
        what.clone_into(&mut pending.last.lock().unwrap_or_else(PoisonError::into_inner));
        Self(Arc::clone(pending))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Http {
    pub(super) fn new(config: &InstanceConfig, output: &Arc<Output>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(usize::try_from(config.limits.http_fields).unwrap_or(usize::MAX));
        let (client, output, usage) = (config.http.clone(), Arc::clone(output), Arc::clone(&config.usage));
        let hooks = Hooks { client, output, usage, pending: Arc::default() };
        Self { context, hooks }
    }

    /// What the guest may be waiting for, as the end of a sentence.
    pub(super) fn waits_for(&self) -> String {
        match self.hooks.pending.count.load(Ordering::Relaxed) {
            0 => String::new(),
            count => {
                let last = self.hooks.pending.last.lock().unwrap_or_else(PoisonError::into_inner);
                let requests = if count == 1 { "request" } else { "requests" };
                format!(", with {count} HTTP {requests} under way, the last {last}")
            }
        }
    }
}

impl State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let Http { context, hooks } = &mut self.http;
        WasiHttpCtxView { hooks, table: &mut self.table, ctx: context }
    }
}

/// What WASI lets go on beside a request; the pipeline's client needs none of it.
type Beside = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Beside), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Beside,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        // Without path and query, where secrets may be.
        let (scheme, authority) = (request.uri().scheme_str().unwrap_or_default(), request.uri().authority());
        let what = format!("{} {scheme}://{}", request.method(), authority.map_or("", |authority| authority.as_str()));
        let under_way = UnderWay::begin(&self.pending, &what);
        let (output, usage) = (Arc::clone(&self.output), Arc::clone(&self.usage));
        let failed = move |failure: Failure| {
            output.log(LogLevel::Warn, &format!("{what}: {failure}"));
            code(failure)
        };
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let sent = match &self.client {
            Some(client) => client.send(request, times(options)),
            None => Err(Failure::Target("nothing is granted".to_owned())),
        };
        Box::new(async move {
            let answered = match sent {
                Ok(answer) => answer.await.unwrap_or_else(|_| Err(Failure::Protocol("the host ends".to_owned()))),
                Err(failure) => Err(failure),
            };
            usage.has_asked(match &answered {
                Ok(_) => Asked::Ok,
                Err(failure) if failure.is_refusal() => Asked::Refused,
                Err(_) => Asked::Failed,
            });
            let answer = answered.map_err(&failed)?;
            let answer = answer.map(|body| {
                let failed = move |failure| {
                    // Ends with the body.
                    let _ = &under_way;
                    failed(failure)
                };
                body.map_err(failed).boxed_unsync()
            });
            let beside: Beside = Box::new(async { Ok(()) });
            Ok((answer, beside))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

/// The guest's own wishes. It may ask for less time than the limit, not for more.
fn times(options: Option<RequestOptions>) -> Times {
    let Some(RequestOptions { connect_timeout, first_byte_timeout, between_bytes_timeout }) = options else {
        return Times::default();
    };
    let first = connect_timeout.zip(first_byte_timeout).map(|(connect, first)| connect.saturating_add(first));
    Times { first: first.or(first_byte_timeout), between: between_bytes_timeout }
}

/// The code that WASI has for it.
fn code(failure: Failure) -> Error {
    match failure {
        Failure::Target(_) => Error::HttpRequestUriInvalid,
        Failure::Method(_) => Error::HttpRequestMethodInvalid,
        Failure::NotGranted(_) => Error::HttpRequestDenied,
        Failure::Address { .. } => Error::DestinationIpProhibited,
        Failure::Name { .. } => Error::DnsError { rcode: None, info_code: None },
        Failure::Connect { .. } => Error::ConnectionRefused,
        Failure::Tls { certificate: true, .. } => Error::TlsCertificateError,
        Failure::Tls { certificate: false, .. } => Error::TlsProtocolError,
        Failure::Busy(_) => Error::ConnectionLimitReached,
        Failure::Time(_) => Error::HttpResponseTimeout,
        Failure::RequestBody(limit) => Error::HttpRequestBodySize(Some(limit)),
        Failure::ResponseBody(limit) => Error::HttpResponseBodySize(Some(limit)),
        Failure::ResponseFields(limit) => Error::HttpResponseHeaderSectionSize(u32::try_from(limit).ok()),
        Failure::Protocol(_) => Error::HttpProtocolError,
    }
}
