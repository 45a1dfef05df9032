//! Apache Kafka for tests: one broker shared by a test program, or one of its own for a test that stops or secures it.
//!
//! A broker has its own data directory and ports and no automatic topics. It is up when it says so (an event, not a
//! pause) and it never outlives this process (see `process`).

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use super::jars::{self, Missing};
use super::process::{Process, remove_at_exit};
use super::relay::Relay;
use super::security::{self, Certificates, Listener, Login, User};

/// How long a broker may take to come up, and to go down, on a slow and busy machine.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// The shared broker, or a return from the test after the loud note that it did not run.
macro_rules! kafka_or_not_run {
    ($test:expr) => {
        match $crate::support::kafka::Kafka::shared() {
            Ok(kafka) => kafka,
            Err(missing) => return $crate::support::not_run::report($test, &missing),
        }
    };
    ($test:expr, $options:expr) => {
        match $crate::support::kafka::Kafka::dedicated($options) {
            Ok(kafka) => kafka,
            Err(missing) => return $crate::support::not_run::report($test, &missing),
        }
    };
}
pub(crate) use kafka_or_not_run;

/// What a dedicated broker has beyond the plain listener.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// TLS and SASL listeners with the users of `security`.
    pub secured: bool,
    /// Rights are checked for whoever does not come by the plain listener.
    pub acls: bool,
    /// So many relays in front of it, each with a listener that clients who come by it are told of.
    pub relays: usize,
    /// Which one it is of a cluster; else it is one by itself.
    pub node: Option<Node>,
    /// Further properties of the broker.
    pub properties: Vec<(String, String)>,
    /// Do not start it yet: `start` does.
    pub stopped: bool,
}

/// One of several brokers that are a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// From 1 on.
    pub id: usize,
    /// The ports of all their controllers, in the order of their numbers.
    pub controllers: Vec<u16>,
}

/// A broker, ours or one named by `SLUICEBOX_TEST_KAFKA=HOST:PORT`.
pub struct Kafka {
    bootstrap: String,
    libs: PathBuf,
    own: Option<Broker>,
}

struct Broker {
    directory: PathBuf,
    listeners: Vec<(Listener, u16)>,
    certificates: Option<Certificates>,
    relays: Vec<Relay>,
    process: Mutex<Option<Process>>,
}

impl Kafka {
    /// The broker that all tests of this program share; started by the first who asks.
    pub fn shared() -> Result<&'static Kafka, Missing> {
        static SHARED: OnceLock<Result<Kafka, Missing>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var("SLUICEBOX_TEST_KAFKA") {
            Ok(bootstrap) if !bootstrap.is_empty() => Ok(Kafka { bootstrap, libs: ready()?, own: None }),
            _ => Kafka::dedicated(Options::default()),
        });
        shared.as_ref().map_err(Clone::clone)
    }

    /// A broker of its own, gone when dropped.
    pub fn dedicated(options: Options) -> Result<Kafka, Missing> {
        let libs = ready()?;
        let directory = own_directory();
        let certificates = options.secured.then(|| Certificates::make(&directory));
        let port = reserve_port();
        let node = options.node.unwrap_or_else(|| Node { id: 1, controllers: vec![reserve_port()] });
        let secured: &[Listener] = if options.secured { &Listener::ALL } else { &[] };
        let listeners: Vec<(Listener, u16)> = secured.iter().map(|listener| (*listener, reserve_port())).collect();
        let relayed: Vec<u16> = (0..options.relays).map(|_| reserve_port()).collect();
        let relays: Vec<Relay> = relayed.iter().map(|port| Relay::to(*port)).collect();
        let mut addresses = vec![Address::of("PLAINTEXT", port)];
        addresses.extend(listeners.iter().map(|(listener, port)| Address::of(listener.name(), *port)));
        addresses.extend(relays.iter().zip(&relayed).enumerate().map(|(number, (relay, port))| Address {
            name: format!("RELAYED{number}"),
            advertised: relay.address().port(),
            ..Address::of("PLAINTEXT", *port)
        }));
        let mut properties = base_properties(&directory, &node, &addresses);
        properties.extend(certificates.iter().flat_map(Certificates::properties));
        if options.acls {
            properties.extend(security::acl_properties());
        }
        properties.extend(options.properties);
        let text: String = properties.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        std::fs::write(directory.join("server.properties"), text).expect("cannot write the broker's properties");
        let broker = Broker { directory, listeners, certificates, relays, process: Mutex::default() };
        let kafka = Kafka { bootstrap: format!("127.0.0.1:{port}"), libs, own: Some(broker) };
        kafka.format(options.secured);
        if !options.stopped {
            kafka.start();
        }
        Ok(kafka)
    }

    /// Brokers that somebody else keeps, and that Kafka's own tools are not used with.
    pub fn elsewhere(bootstrap: String) -> Kafka {
        Kafka { bootstrap, libs: PathBuf::new(), own: None }
    }

    /// `HOST:PORT` of the plain listener.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn libs(&self) -> &Path {
        &self.libs
    }

    /// `HOST:PORT` of a secured listener.
    pub fn secured(&self, listener: Listener) -> String {
        let port =
            self.broker().listeners.iter().find(|(which, _)| *which == listener).expect("the broker is secured").1;
        format!("127.0.0.1:{port}")
    }

    /// A relay in front of the broker: clients who come by its address stay behind it.
    pub fn relay(&self, number: usize) -> &Relay {
        &self.broker().relays[number]
    }

    /// The authority's certificate of the TLS listeners.
    pub fn ca(&self) -> &Path {
        &self.broker().certificates.as_ref().expect("the broker is secured").ca
    }

    /// What a client sets to come by `listener` as `user`.
    pub fn login(&self, listener: Listener, mechanism: &str, user: User) -> Login {
        Login::new(listener, mechanism, user.name, user.password, self.ca())
    }

    /// Starts a stopped broker on its old ports and data; returns when it serves.
    pub fn start(&self) {
        let mut command = self.java(&["-Xms512m", "-Xmx768m"]);
        command.arg("kafka.Kafka").arg(self.broker().directory.join("server.properties"));
        let process = Process::spawn("kafka", command);
        process.wait_for("Kafka Server started", START, |line| line.contains("Kafka Server started"));
        *self.process() = Some(process);
    }

    /// Stops the broker as an operator would (SIGTERM) and waits for its end.
    pub fn stop(&self) {
        let process = self.process().take().expect("the broker runs");
        process.signal(libc::SIGTERM);
        process.wait_exit(STOP);
    }

    /// Ends the broker without a chance to tidy up (SIGKILL).
    pub fn kill(&self) {
        let process = self.process().take().expect("the broker runs");
        process.signal(libc::SIGKILL);
        process.wait_exit(STOP);
    }

    /// CPU time that a broker of ours has used so far.
    pub fn cpu_now(&self) -> Option<Duration> {
        self.own.as_ref()?;
        self.process().as_ref()?.cpu_now()
    }

    /// `java` with the jars on its class path.
    pub fn java(&self, options: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.args(options).arg("-cp").arg(self.libs.join("*"));
        command
    }

    /// The first file of a partition's log, which holds all of a test's few records.
    pub fn segment(&self, topic: &str, partition: i32) -> PathBuf {
        self.broker().directory.join(format!("data/{topic}-{partition}/00000000000000000000.log"))
    }

    fn format(&self, secured: bool) {
        let mut command = self.java(&["-Xmx256m", "-XX:TieredStopAtLevel=1"]);
        // Any 16 bytes in URL-safe base64 name a cluster; brokers of others know nothing of this one.
        command.args(["kafka.tools.StorageTool", "format", "--cluster-id", "c2x1aWNlYm94LXRlc3RzMQ", "--config"]);
        command.arg(self.broker().directory.join("server.properties"));
        if secured {
            command.args(security::scram_users());
        }
        let output = command.output().expect("java was there a moment ago");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cannot format the broker's storage: {error}");
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.broker().process.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn broker(&self) -> &Broker {
        self.own.as_ref().expect("a broker of ours, not the one of SLUICEBOX_TEST_KAFKA")
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let Some(broker) = self.own.take() else { return };
        let process = broker.process.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(process) = process {
            process.signal(libc::SIGKILL);
            process.wait_exit_within(STOP);
        }
        std::fs::remove_dir_all(&broker.directory).ok();
    }
}

fn ready() -> Result<PathBuf, Missing> {
    super::not_run::forget_earlier_runs();
    jars::libs()
}

/// A listener.
struct Address {
    name: String,
    protocol: &'static str,
    port: u16,
    /// The port that clients are told.
    advertised: u16,
}

impl Address {
    fn of(protocol: &'static str, port: u16) -> Address {
        Address { name: protocol.to_owned(), protocol, port, advertised: port }
    }
}

fn base_properties(directory: &Path, node: &Node, addresses: &[Address]) -> Vec<(String, String)> {
    let (mut listeners, mut advertised) = (String::new(), String::new());
    let mut protocols = "CONTROLLER:PLAINTEXT".to_owned();
    for Address { name, protocol, port, advertised: told } in addresses {
        listeners.push_str(&format!("{name}://127.0.0.1:{port},"));
        advertised.push_str(&format!("{name}://127.0.0.1:{told},"));
        protocols.push_str(&format!(",{name}:{protocol}"));
    }
    let voters = node.controllers.iter().enumerate().map(|(place, port)| format!("{}@127.0.0.1:{port}", place + 1));
    let controller = node.controllers[node.id - 1];
    let properties = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", node.id.to_string()),
        ("controller.quorum.voters", voters.collect::<Vec<_>>().join(",")),
        ("listeners", format!("{listeners}CONTROLLER://127.0.0.1:{controller}")),
        ("advertised.listeners", advertised.trim_end_matches(',').to_owned()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("listener.security.protocol.map", protocols),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        ("log.dirs", directory.join("data").display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        // Event times of tests are old on purpose; retention would delete such records.
        ("log.retention.ms", "-1".to_owned()),
        ("num.partitions", "1".to_owned()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("offsets.topic.num.partitions", "1".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("transaction.state.log.num.partitions", "1".to_owned()),
        ("share.coordinator.state.topic.replication.factor", "1".to_owned()),
        ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        // Groups of the newer protocol may ask for as short a session as those of the classic one.
        ("group.consumer.min.session.timeout.ms", "6000".to_owned()),
        ("group.consumer.min.heartbeat.interval.ms", "1000".to_owned()),
    ];
    properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A directory that says whose it is; those of test programs that were killed are removed on the way.
fn own_directory() -> PathBuf {
    let scratch = super::scratch();
    let entries = std::fs::read_dir(&scratch).expect("cannot list the scratch directory");
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("broker-").and_then(|rest| rest.split('-').next()?.parse::<i32>().ok());
        // SAFETY: signal 0 only asks whether the process exists.
        if owner.is_some_and(|pid| unsafe { libc::kill(pid, 0) } != 0) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
    let prefix = format!("broker-{}-", std::process::id());
    let directory =
        tempfile::Builder::new().prefix(&prefix).tempdir_in(&scratch).expect("cannot make a data directory");
    let path = directory.keep();
    remove_at_exit(path.clone());
    path
}

/// A free port that nobody else is given in the next minute: a closed connection of ours lingers on it (`TIME_WAIT`), so
/// the kernel hands it out to nobody, while a server that asks for this very port may have it.
pub fn reserve_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("cannot bind a loopback port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let client = TcpStream::connect(address).expect("cannot connect on the loopback address");
    let (server, _) = listener.accept().expect("cannot accept on the loopback address");
    drop(server);
    drop(client);
    address.port()
}
