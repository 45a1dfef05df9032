//! What a client may cost: how many connections there are at once, how long one lives, how much of it is read. Knows
//! sockets; knows nothing of HTTP, which the server above reads one request per connection from. A page that takes a large
//! body says so ([`Caller::allow`]) once it knows whose it is.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at once; more wait in the system's queue. Probes and a few scrapers need one each for some milliseconds.
const CONNECTIONS: usize = 32;
/// From accepting a connection to its end. Prometheus itself gives up a scrape after ten seconds.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// Bytes that are read from a connection: a request line and headers, with a browser's cookies among them, and a small body.
pub const REQUEST_BYTES: usize = 32 * 1024;

/// A port with limits.
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    lifetime: Duration,
}

impl Door {
    /// Puts limits before a port.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS)), lifetime: LIFETIME }
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // Fails only when the semaphore is closed, which nobody does.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(tokio::time::sleep(self.lifetime));
        (Connection { stream, end, left: REQUEST_BYTES, more: Arc::default(), _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends by itself.
pub struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    /// Bytes that may still be read.
    left: usize,
    more: Arc<More>,
    _place: Option<OwnedSemaphorePermit>,
}

/// What a connection was granted beyond the limits of all.
#[derive(Debug, Default)]
struct More {
    /// Bytes that were granted and not taken yet. Given by a page, taken by the connection.
    bytes: AtomicUsize,
    /// The end that holds instead, given once.
    until: OnceLock<Instant>,
}

/// Whose request it is, for the pages.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where it comes from.
    pub address: SocketAddr,
    more: Arc<More>,
}

impl Caller {
    /// Lets the connection read so many bytes more, and live for so long from now on. Once.
    pub fn allow(&self, bytes: usize, time: Duration) {
        if self.more.until.set(Instant::now() + time).is_ok() {
            self.more.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Connected<IncomingStream<'_, Door>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self { address: *stream.remote_addr(), more: Arc::clone(&stream.io().more) }
    }
}

impl Connection {
    /// Fails when the time is over; else has this task woken when it is.
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.end.as_mut().poll(context).is_ready() {
            match self.more.until.get() {
                Some(until) if *until > self.end.deadline() => self.end.as_mut().reset(*until),
                _ => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        if self.left == 0 {
            self.left = self.more.bytes.swap(0, Ordering::Relaxed);
        }
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        // One read too many at most, which the reader's buffer bounds.
        self.left = self.left.saturating_sub(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn door(lifetime: Duration) -> (Door, SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (Door { lifetime, ..Door::new(listener) }, address)
    }

    #[tokio::test]
    async fn a_silent_client_is_let_go() {
        let (mut door, address) = door(Duration::from_millis(1)).await;
        let _silent = TcpStream::connect(address).await.expect("listens");
        let (mut connection, _) = door.accept().await;
        let read = connection.read(&mut [0; 8]).await;
        assert_eq!(read.expect_err("nothing came").kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn no_more_is_read_than_a_request_may_have() {
        let (mut door, address) = door(LIFETIME).await;
        let mut client = TcpStream::connect(address).await.expect("listens");
        let sender =
            tokio::spawn(async move { client.write_all(&vec![b'x'; 2 * REQUEST_BYTES]).await.map(|()| client) });
        let (mut connection, _) = door.accept().await;
        let mut buffer = Vec::new();
        let read = connection.read_to_end(&mut buffer).await;
        assert_eq!(read.expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
        assert!((REQUEST_BYTES..2 * REQUEST_BYTES).contains(&buffer.len()), "{}", buffer.len());
        sender.abort();
    }

    /// Proves: a page that takes a large body gets it, to the byte that it allowed, and the time for it.
    #[tokio::test]
    async fn a_caller_may_be_allowed_more() {
        let (mut door, address) = door(Duration::from_millis(1)).await;
        let mut client = TcpStream::connect(address).await.expect("listens");
        let sender =
            tokio::spawn(async move { client.write_all(&vec![b'x'; 4 * REQUEST_BYTES]).await.map(|()| client) });
        let (mut connection, peer) = door.accept().await;
        let caller = Caller { address: peer, more: Arc::clone(&connection.more) };
        caller.allow(REQUEST_BYTES, LIFETIME);
        caller.allow(REQUEST_BYTES, LIFETIME);
        let mut chunk = [0; 1024];
        let mut read = 0;
        let end = loop {
            match connection.read(&mut chunk).await {
                Ok(bytes) => read += bytes,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(end, io::ErrorKind::FileTooLarge, "the time was not over");
        assert!((2 * REQUEST_BYTES..2 * REQUEST_BYTES + 2 * chunk.len()).contains(&read), "{read}");
        sender.abort();
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_a_place() {
        let (mut door, address) = door(LIFETIME).await;
        let mut clients = Vec::new();
        let mut taken = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(TcpStream::connect(address).await.expect("listens"));
            taken.push(door.accept().await);
        }
        clients.push(TcpStream::connect(address).await.expect("waits in the queue"));
        assert_eq!(door.places.available_permits(), 0);
        taken.pop();
        let _next = door.accept().await;
        assert_eq!(door.places.available_permits(), 0);
    }
}
