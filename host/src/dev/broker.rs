//! A broker for development: librdkafka's mock cluster behind a fixed port. Knows no pipeline.
//!
//! The mock listens on a port of the system's choice only, so a small TCP proxy stands on the fixed one, and that is the
//! address that the mock tells its clients. Invariant: the proxy listens on 127.0.0.1 and nowhere else.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::Cluster;
use crate::kafka::mock::MockCluster;

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
        let acceptor = std::thread::Builder::new().name("dev-broker".to_owned()).spawn(move || {
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
    let back = (broker.try_clone()?, client.try_clone()?);
    pump(client, broker)?;
    pump(back.0, back.1)
}

/// Copies until one side ends, then ends both.
fn pump(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let copy = move || {
        // However it ends, the connection is over; its client sees that.
        _ = io::copy(&mut from, &mut to);
        _ = from.shutdown(Shutdown::Both);
        _ = to.shutdown(Shutdown::Both);
    };
    std::thread::Builder::new().name("dev-broker-pump".to_owned()).spawn(copy).map(drop)
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
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let error = EmbeddedBroker::start(port).err().expect("the port is taken").to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}: ")), "{error}");
    }
}
