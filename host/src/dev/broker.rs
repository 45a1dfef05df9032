//! A broker for development: librdkafka's mock cluster behind a fixed port. Knows no pipeline.
//!
//! The mock listens on a port of the system's choice only, so a small TCP proxy stands on the fixed one, and that is the
//! address that the mock tells its clients. Invariant: the proxy listens on 127.0.0.1 and nowhere else.
//!
//! The proxy also mends one answer. Clients begin with the newest `ApiVersions` request that they know, and the mock refuses
//! versions above 2 in a form that Java's client reads as "come back in 20 minutes"; so the proxy refuses them, as a broker
//! does. Everything else passes untouched.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::Cluster;
use crate::kafka::mock::MockCluster;
use crate::threads;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The port cannot be listened on.
    #[error("the embedded broker cannot listen on 127.0.0.1:{port}: {source}")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The mock cluster does not start, or refuses something.
    #[error("the embedded broker does not start: {0}")]
    Mock(String),
}

/// See the module's text.
pub struct EmbeddedBroker {
    // Before the mock: it takes in no more connections then.
    proxy: Proxy,
    mock: MockCluster,
}

impl EmbeddedBroker {
    /// Starts it on this port of 127.0.0.1; 0 takes any free one.
    ///
    /// # Errors
    /// The port is taken, or librdkafka does not want to.
    pub fn start(port: u16) -> Result<Self, BrokerError> {
        let mock = MockCluster::start().map_err(BrokerError::Mock)?;
        let behind = mock.address();
        let behind: SocketAddr =
            behind.parse().map_err(|_| BrokerError::Mock(format!("it listens on `{behind}`, of all places")))?;
        let proxy = Proxy::start(port, behind).map_err(|source| BrokerError::Port { port, source })?;
        mock.advertise(proxy.address.port());
        Ok(Self { proxy, mock })
    }

    /// Where clients find it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), String> {
        self.mock.create_topic(name, partitions).map_err(|error| format!("topic `{name}`: {error}"))
    }

    /// It, under the name by which a pipeline knows its cluster.
    #[must_use]
    pub fn as_cluster(&self, name: &str) -> Cluster {
        Cluster { name: name.to_owned(), bootstrap: self.address().to_string(), properties: Vec::new() }
    }
}

/// Hands connections on. Two threads each: a dev broker has a handful of clients.
struct Proxy {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    fn start(port: u16, behind: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let acceptor = threads::spawn("dev-broker", move || {
            while !seen.load(Ordering::Acquire) {
                // What fails here is one connection; its client tries again.
                if let Ok((client, _)) = listener.accept()
                    && !seen.load(Ordering::Acquire)
                    && let Err(error) = connect(client, behind)
                {
                    tracing::debug!("embedded broker: a connection was not handed on: {error}");
                }
            }
        })?;
        Ok(Self { address, ended, acceptor: Some(acceptor) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the acceptor. Connections that are open end with the mock, which closes its side.
        let woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            _ = acceptor.join();
        }
    }
}

fn connect(client: TcpStream, behind: SocketAddr) -> io::Result<()> {
    let broker = TcpStream::connect(behind)?;
    // Requests and answers are small; waiting to fill a packet would add 40 ms to each.
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = (client.try_clone()?, client.try_clone()?);
    let (from_broker, to_broker) = (broker.try_clone()?, broker);
    let back = move || pump(from_broker, client);
    threads::spawn("dev-broker-in", move || {
        // Nothing comes back before the first request is passed on, so nobody else writes to the client until then. When
        // this fails, all ends of both connections are dropped, which closes them.
        let back = begin(&from_client, &to_client, &to_broker).and_then(|()| threads::spawn("dev-broker-out", back));
        match back {
            Ok(_) => pump(from_client, to_broker),
            Err(error) => tracing::debug!("embedded broker: a connection ended early: {error}"),
        }
    })?;
    Ok(())
}

/// `ApiVersions`: its number, and the highest version that the mock answers well.
const API_VERSIONS: (i16, i16) = (18, 2);
/// `UNSUPPORTED_VERSION`.
const UNSUPPORTED: i16 = 35;
/// Size, API, version, correlation number: how every request begins.
const HEAD: usize = 12;
/// A first request is never so long: it names a client and its version.
const MAX_FIRST: u64 = 64 * 1024;

/// Passes the first request on, or refuses it when the mock would do that badly. The next one is then known to be good.
fn begin(mut client: &TcpStream, mut answers: &TcpStream, mut broker: &TcpStream) -> io::Result<()> {
    let mut head = [0; HEAD];
    client.read_exact(&mut head)?;
    let Some(answer) = refusal(&head) else { return broker.write_all(&head) };
    let size = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
    let rest = (size + 4).saturating_sub(HEAD as u64);
    if rest > MAX_FIRST {
        return Err(io::Error::other("its first request is too long"));
    }
    io::copy(&mut client.take(rest), &mut io::sink())?;
    answers.write_all(&answer)
}

/// A broker's answer to an `ApiVersions` request of a version that it does not know: the error, and the versions that it
/// does know, in the form of version 0 (KIP-511).
fn refusal(head: &[u8; HEAD]) -> Option<Vec<u8>> {
    let word = |at: usize| i16::from_be_bytes([head[at], head[at + 1]]);
    if word(4) != API_VERSIONS.0 || word(6) <= API_VERSIONS.1 {
        return None;
    }
    let mut answer = Vec::with_capacity(20);
    answer.extend_from_slice(&16u32.to_be_bytes());
    answer.extend_from_slice(&head[8..]);
    answer.extend_from_slice(&UNSUPPORTED.to_be_bytes());
    answer.extend_from_slice(&1u32.to_be_bytes());
    for number in [API_VERSIONS.0, 0, API_VERSIONS.1] {
        answer.extend_from_slice(&number.to_be_bytes());
    }
    Some(answer)
}

/// Copies until one side ends, then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream) {
    // However it ends, the connection is over; its client sees that.
    _ = io::copy(&mut from, &mut to);
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::metadata::Probe;
    use crate::kafka::offsets::Offsets;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn clients_find_its_topics_by_the_proxy_alone() {
        let broker = EmbeddedBroker::start(0).expect("a free port");
        broker.create_topic("orders", 5).expect("a topic");
        let cluster = broker.as_cluster("default");
        let probe = Probe::new(&cluster).expect("a client");
        let found = probe.partitions(&["orders"], PATIENCE).expect("an answer");
        assert_eq!(found.get("orders"), Some(&5));
        // Asks the partition's leader, so it goes where the metadata says.
        let offsets = Offsets::new(&cluster, "nobody").expect("a client");
        assert_eq!(offsets.end("orders", 4, PATIENCE), Ok(0));
        assert_eq!(offsets.committed(&[("orders", 0)], PATIENCE), Ok(vec![None]));
    }

    #[test]
    fn new_requests_for_versions_are_refused_as_a_broker_does() {
        let head = |api: u8, version: u8| [0, 0, 0, 40, 0, api, 0, version, 1, 2, 3, 4];
        let answer = [0, 0, 0, 16, 1, 2, 3, 4, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
        assert_eq!(refusal(&head(18, 4)).as_deref(), Some(&answer[..]));
        assert_eq!(refusal(&head(18, 3)).as_deref(), Some(&answer[..]));
        assert_eq!((refusal(&head(18, 2)), refusal(&head(3, 12))), (None, None));
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let error = EmbeddedBroker::start(port).err().expect("the port is taken").to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}: ")), "{error}");
    }
}
