//! Connections: a name to addresses, each looked at before it is connected to, TLS where the scheme says so. Addresses are
//! looked at every time, so a name that changes its mind gains nothing.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use super::rules::{Range, check_address};

/// How long one address may take to answer before the next is tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses that are tried.
const TRIES: usize = 4;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Names to addresses.
pub trait Resolve: Send + Sync {
    /// All addresses of a name.
    fn resolve(&self, host: &str) -> BoxFuture<io::Result<Vec<IpAddr>>>;
}

/// The system's own resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, host: &str) -> BoxFuture<io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// Makes connections for the pool of one pipeline.
#[derive(Clone)]
pub(super) struct Connector(Arc<Ways>);

struct Ways {
    names: Arc<dyn Resolve>,
    /// What the operator opened.
    named: Vec<Range>,
    tls: Option<TlsConnector>,
}

impl Connector {
    pub(super) fn new(names: Arc<dyn Resolve>, named: Vec<Range>, tls: Option<ClientConfig>) -> Self {
        Self(Arc::new(Ways { names, named, tls: tls.map(|tls| TlsConnector::from(Arc::new(tls))) }))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = Failure;
    type Future = BoxFuture<Result<TokioIo<Wire>, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let ways = Arc::clone(&self.0);
        Box::pin(async move { ways.connect(&uri).await.map(TokioIo::new) })
    }
}

impl Ways {
    async fn connect(&self, uri: &Uri) -> Result<Wire, Failure> {
        // The client has put both there.
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(Failure::Target("it has no host or no port".to_owned()));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = self.addresses(host, bare).await?;
        let to = format!("{host}:{port}");
        let stream = first_of(&addresses, port, &to).await?;
        if uri.scheme_str() != Some("https") {
            return Ok(Wire::Plain(stream));
        }
        let tls = |why: String, certificate| Failure::Tls { to: to.clone(), why, certificate };
        let Some(connector) = &self.tls else { return Err(tls("no HTTPS site is granted".to_owned(), false)) };
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| tls(error.to_string(), true))?;
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            tls(error.to_string(), matches!(cause, Some(rustls::Error::InvalidCertificate(_))))
        })?;
        Ok(Wire::Tls(Box::new(stream)))
    }

    /// The addresses of a host that may be connected to; if there are none, the reason for the first.
    async fn addresses(&self, host: &str, bare: &str) -> Result<Vec<IpAddr>, Failure> {
        let name = |why: String| Failure::Name { host: host.to_owned(), why };
        let all = match bare.parse() {
            Ok(address) => vec![address],
            Err(_) => self.names.resolve(bare).await.map_err(|error| name(error.to_string()))?,
        };
        let open: Vec<_> = all.iter().copied().filter(|address| check_address(*address, &self.named).is_ok()).collect();
        match (all.first(), open.is_empty()) {
            (None, _) => Err(name("it has no address".to_owned())),
            (Some(address), true) => {
                let class = check_address(*address, &self.named).err().unwrap_or_default();
                Err(Failure::Address { host: host.to_owned(), address: *address, class })
            }
            (Some(_), false) => Ok(open),
        }
    }
}

async fn first_of(addresses: &[IpAddr], port: u16, to: &str) -> Result<TcpStream, Failure> {
    let mut why = String::new();
    for address in addresses.iter().take(TRIES) {
        let connecting = TcpStream::connect(SocketAddr::new(*address, port));
        match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(Ok(stream)) => {
                // Requests are written whole; waiting for more of them helps nobody.
                _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("{address} does not answer"),
        }
    }
    Err(Failure::Connect { to: to.to_owned(), why })
}

/// Who is believed: the system's authorities, and those of the operator's file.
pub(super) fn tls(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca {
        let unread = |error: rustls::pki_types::pem::Error| format!("{} cannot be read: {error}", path.display());
        for certificate in CertificateDer::pem_file_iter(path).map_err(unread)? {
            let certificate = certificate.map_err(unread)?;
            roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    if roots.is_empty() {
        return Err("no certificate authority is known, so nobody can be asked by HTTPS: install the system's \
                    (ca-certificates), or name a file as `ca` in [http] of the host's file"
            .to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("no TLS: {error}"))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A connection.
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
