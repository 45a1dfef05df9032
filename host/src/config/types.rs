//! The checked configuration: what the rest of the host reads.
//!
//! Plain data. A value of these types has passed every check of this module, so nobody downstream
//! checks it again. Knows no file format; may touch nothing. Every duration is a `Duration`, every
//! size is in bytes, every path is resolved against the file that named it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{Origin, Origins, Report};
pub use super::pace::Pace;
pub use super::secret::Secret;
pub use super::source::{Fetch, Isolation, LostOffset, Protocol, Source, Start};
use crate::outbound::Grant;

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;

/// Name of the cluster that is meant when a file names none.
pub const DEFAULT_CLUSTER: &str = "default";
/// Name of the batcher that exists without being declared when the handler exports `handle-batch`.
pub const DEFAULT_BATCHER: &str = "default";

/// Everything one host process runs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of the command line, files of a directory by name.
    pub pipelines: Vec<Pipeline>,
    /// By name. Every cluster that a pipeline names is here.
    pub clusters: BTreeMap<String, Cluster>,
    /// Where health, metrics and control are served; `None` switches them off. Default 127.0.0.1:8321.
    pub admin: Option<SocketAddr>,
    /// The file of the token that callers on other machines have to show; `None`: there are none.
    pub admin_token_file: Option<PathBuf>,
    /// The same of one that lets them look only.
    pub admin_read_only_token_file: Option<PathBuf>,
    /// How long a shutdown may take before it is forced. Default 30 s.
    pub drain: Duration,
    /// Bytes in flight of the whole process, shared by all pipelines. Default 256 MiB.
    pub memory_budget: u64,
    /// Where the host keeps what it can make again: compiled handlers. `None`: it was not said, and the environment names
    /// no place for it. Default /var/lib/sluicebox for root, else the user's state directory.
    pub data_dir: Option<PathBuf>,
    /// Where each librdkafka property was written, by cluster and key, for errors of the client.
    pub property_origins: BTreeMap<(String, String), Origin>,
    /// Findings that do not stop the start; print them once.
    pub warnings: Report,
}

/// A Kafka cluster and how to reach it.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub name: String,
    /// `host:port`, several separated by commas.
    pub bootstrap: String,
    /// librdkafka properties: security and the operator's pass-through, in the order to set them
    /// (a later one of the same key wins). Never one that the host owns.
    pub properties: Vec<(String, Secret)>,
}

/// One consumer group, its topics, handler, batchers and outputs.
#[derive(Clone)]
pub struct Pipeline {
    /// `[a-z0-9-]`, unique in the process.
    pub name: String,
    pub description: String,
    /// The component file.
    pub component: PathBuf,
    /// The handler's settings, a JSON object. May hold secrets: never print it.
    pub settings: serde_json::Value,
    pub limits: HandlerLimits,
    pub recycle: Recycle,
    pub source: Source,
    pub process: Process,
    /// Declared batchers only; see [`Batcher::default`] for the undeclared `default`.
    pub batchers: Vec<Batcher>,
    pub ack: Ack,
    pub hold: Hold,
    /// How often `timer.tick` of the handler is called; `None` = never.
    pub tick: Option<Duration>,
    pub errors: Errors,
    pub swap: Swap,
    /// The same record gives the same answer: bursts of one, a clock and random numbers that come from the record.
    pub deterministic: bool,
    /// Whom the handler may ask by HTTP; `None` = nobody.
    pub http: Option<Grant>,
    /// Topics that the handler may write to, by declared name.
    pub outputs: Vec<Output>,
    /// How `sluicebox dev` builds the component; `None` = not declared.
    pub build: Option<Build>,
    pub dev: Dev,
    /// The text of the manifest that was deployed in the place of the file's; `None`: it is the file's own.
    pub deployed: Option<Arc<str>>,
    /// Where each key was written, for errors found later.
    pub origin: Origins,
}

impl Pipeline {
    /// The same, wherever it was written.
    #[must_use]
    pub fn says_the_same(&self, other: &Pipeline) -> bool {
        let Pipeline {
            name,
            description,
            component,
            settings,
            limits,
            recycle,
            source,
            process,
            batchers,
            ack,
            hold,
            tick,
            errors,
            swap,
            deterministic,
            http,
            outputs,
            build,
            dev,
            deployed: _,
            origin: _,
        } = self;
        (name, description, component, settings, limits, source)
            == (&other.name, &other.description, &other.component, &other.settings, &other.limits, &other.source)
            && (process, batchers, ack, hold, tick, errors)
                == (&other.process, &other.batchers, &other.ack, &other.hold, &other.tick, &other.errors)
            && (recycle, swap, deterministic, http) == (&other.recycle, &other.swap, &other.deterministic, &other.http)
            && (outputs, build, dev) == (&other.outputs, &other.build, &other.dev)
    }
}

/// Settings may come from secrets, so they are left out.
impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("component", &self.component)
            .field("settings", &format_args!("***"))
            .field("limits", &self.limits)
            .field("recycle", &self.recycle)
            .field("source", &self.source)
            .field("process", &self.process)
            .field("batchers", &self.batchers)
            .field("ack", &self.ack)
            .field("hold", &self.hold)
            .field("tick", &self.tick)
            .field("deterministic", &self.deterministic)
            .field("http", &self.http)
            .field("errors", &self.errors)
            .field("swap", &self.swap)
            .field("outputs", &self.outputs)
            .field("build", &self.build)
            .field("dev", &self.dev)
            .finish_non_exhaustive()
    }
}

/// What one handler instance may use. Never above the operator's ceilings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerLimits {
    /// Bytes of all memories of an instance together. Default 64 MiB.
    pub memory: u64,
    /// Time inside the guest, per message. Default 1 s.
    pub running_time: Duration,
    /// Time inside the guest, per batch call. Default 10 s.
    pub batch_running_time: Duration,
    /// Wall clock of a call, host calls included, per message. Default 30 s.
    pub wall_time: Duration,
    /// Wall clock of a batch call, host calls included. Default 60 s.
    pub batch_wall_time: Duration,
    /// Time inside the guest for `init`. Default 3 s.
    pub init_running_time: Duration,
    /// Wall clock of `init`. Default 10 s.
    pub init_wall_time: Duration,
    /// Bytes that an answer may have; a call whose input is larger may answer with twice its input.
    /// Default 16 MiB.
    pub answer_bytes: u64,
    /// Messages that an answer may send on, per message that it answers; a call may send 1,000 besides. Default 10.
    pub emissions: u32,
    /// Bytes that these may come to, with what they inherit. Default 64 MiB.
    pub emission_bytes: u64,
    /// Bytes of the call stack inside the guest. Default 512 KiB.
    pub stack: u64,
    /// Core memories of an instance. Default 8.
    pub memories: u32,
    /// Tables of an instance. Default 64.
    pub tables: u32,
    /// Elements of all tables of an instance together. Default 100,000.
    pub table_elements: u32,
    /// Core instances that an instance is composed of. Default 64.
    pub instances: u32,
    /// Handles to host resources (streams, pollables) that an instance may hold. Default 10,000.
    pub handles: u32,
    /// Bytes of one line of the log; what is longer is cut. Default 4 KiB.
    pub log_line: u64,
    /// Bytes that a pipeline's instances may log per second. Default 64 KiB.
    pub log_rate: u64,
    /// Bytes that they may log at once after a quiet time. Default 256 KiB.
    pub log_burst: u64,
    /// Series of the handler's own metrics, all instances together. Default 500.
    pub metric_series: u32,
    /// Weight of the pipeline where several want CPU time of one handler thread. Default 1.
    pub cpu_share: u32,
    /// Outbound requests of all instances together that may be under way at once; more wait. Default 16.
    pub http_requests: u32,
    /// Bytes of the body of an outbound request, and of its response. Default 8 MiB.
    pub http_body: u64,
    /// Bytes of the headers of either. Default 128 KiB.
    pub http_fields: u64,
    /// From an outbound request to the end of its response, within the wall clock of the call. Default 30 s.
    pub http_time: Duration,
    /// Bytes of the component. Default 64 MiB.
    pub component_size: u64,
    /// CPU time of compiling it. Default 60 s.
    pub compile_time: Duration,
    /// Memory of compiling it. Default 2 GiB.
    pub compile_memory: u64,
}

impl Default for HandlerLimits {
    fn default() -> Self {
        HandlerLimits {
            memory: 64 * MIB,
            running_time: Duration::from_secs(1),
            batch_running_time: Duration::from_secs(10),
            wall_time: Duration::from_secs(30),
            batch_wall_time: Duration::from_secs(60),
            init_running_time: Duration::from_secs(3),
            init_wall_time: Duration::from_secs(10),
            answer_bytes: 16 * MIB,
            emissions: 10,
            emission_bytes: 64 * MIB,
            stack: 512 * KIB,
            // Interpreters are composed of up to 40 modules, and have some 8,000 table elements.
            memories: 8,
            tables: 64,
            table_elements: 100_000,
            instances: 64,
            handles: 10_000,
            log_line: 4 * KIB,
            log_rate: 64 * KIB,
            log_burst: 256 * KIB,
            metric_series: 500,
            cpu_share: 1,
            http_requests: 16,
            http_body: 8 * MIB,
            http_fields: 128 * KIB,
            http_time: Duration::from_secs(30),
            component_size: 64 * MIB,
            compile_time: Duration::from_secs(60),
            compile_memory: 2048 * MIB,
        }
    }
}

/// When an instance is replaced by a new one, between two calls. `None`: not for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recycle {
    /// It lives for so long, or up to a quarter less. Default a day.
    pub age: Option<Duration>,
    /// It was called with messages so often, always more than may be held. Default never.
    pub calls: Option<u64>,
    /// It holds more bytes of memory. Default never.
    pub memory: Option<u64>,
}

impl Default for Recycle {
    fn default() -> Self {
        Recycle { age: Some(Duration::from_secs(24 * 3600)), calls: None, memory: None }
    }
}

/// A limit's value, whatever its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LimitValue {
    Bytes(u64),
    Time(Duration),
    Count(u32),
}

impl HandlerLimits {
    /// Every limit by its name in files, for metrics and documentation.
    #[must_use]
    pub fn all(&self) -> [(&'static str, LimitValue); 28] {
        use LimitValue::{Bytes, Count, Time};
        let HandlerLimits {
            memory,
            running_time,
            batch_running_time,
            wall_time,
            batch_wall_time,
            init_running_time,
            init_wall_time,
            answer_bytes,
            emissions,
            emission_bytes,
            stack,
            memories,
            tables,
            table_elements,
            instances,
            handles,
            log_line,
            log_rate,
            log_burst,
            metric_series,
            cpu_share,
            http_requests,
            http_body,
            http_fields,
            http_time,
            component_size,
            compile_time,
            compile_memory,
        } = *self;
        [
            ("memory", Bytes(memory)),
            ("running_time", Time(running_time)),
            ("batch_running_time", Time(batch_running_time)),
            ("wall_time", Time(wall_time)),
            ("batch_wall_time", Time(batch_wall_time)),
            ("init_running_time", Time(init_running_time)),
            ("init_wall_time", Time(init_wall_time)),
            ("answer_bytes", Bytes(answer_bytes)),
            ("emissions", Count(emissions)),
            ("emission_bytes", Bytes(emission_bytes)),
            ("stack", Bytes(stack)),
            ("memories", Count(memories)),
            ("tables", Count(tables)),
            ("table_elements", Count(table_elements)),
            ("instances", Count(instances)),
            ("handles", Count(handles)),
            ("log_line", Bytes(log_line)),
            ("log_rate", Bytes(log_rate)),
            ("log_burst", Bytes(log_burst)),
            ("metric_series", Count(metric_series)),
            ("cpu_share", Count(cpu_share)),
            ("http_requests", Count(http_requests)),
            ("http_body", Bytes(http_body)),
            ("http_fields", Bytes(http_fields)),
            ("http_time", Time(http_time)),
            ("component_size", Bytes(component_size)),
            ("compile_time", Time(compile_time)),
            ("compile_memory", Bytes(compile_memory)),
        ]
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// How many done records may wait behind an open one, per partition. Default 50,000.
    pub max_ahead: u32,
    /// Messages that this host takes in of the pipeline, at most. Default: as many as come.
    pub rate: Option<Pace>,
}

impl Default for Process {
    fn default() -> Self {
        Process { max_ahead: 50_000, rate: None }
    }
}

/// A grouping stage before `handle_batch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batcher {
    pub name: String,
    /// A batch closes at this many messages. Default 100.
    pub max_messages: u32,
    /// A batch closes at this many bytes. Default 1 MiB.
    pub max_bytes: u64,
    /// A batch closes this long after its first message. Default 1 s; zero = at the end of each
    /// burst.
    pub max_wait: Duration,
}

/// The batcher `default`, which needs no declaration.
impl Default for Batcher {
    fn default() -> Self {
        Batcher {
            name: DEFAULT_BATCHER.to_owned(),
            max_messages: 100,
            max_bytes: MIB,
            max_wait: Duration::from_secs(1),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Default success.
    pub mode: AckMode,
    /// How often the committable offsets are committed. Default 1 s.
    pub commit_interval: Duration,
}

impl Default for Ack {
    fn default() -> Self {
        Ack { mode: AckMode::Success, commit_interval: Duration::from_secs(1) }
    }
}

/// When a record counts as done for Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// When its fate is durable: at least once.
    Success,
    /// Before the handler sees it: at most once.
    Receive,
}

/// How many messages a handler may hold, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Held messages of a lane. Default 10,000.
    pub max: u32,
    /// After this a held message is a failed attempt. Default 5 min.
    pub timeout: Duration,
}

impl Default for Hold {
    fn default() -> Self {
        Hold { max: 10_000, timeout: Duration::from_secs(300) }
    }
}

/// What happens to a record that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// Attempts per stage before the policy decides, at least 1. Default 5.
    pub attempts: u32,
    /// Pause before the second attempt; doubles with each. Default 200 ms.
    pub backoff: Duration,
    /// Longest pause. Default 30 s.
    pub max_backoff: Duration,
    /// Spread the pauses, so that lanes that failed together do not come back together. Default true.
    pub jitter: bool,
    /// Default block, or dead-letter once a dead-letter topic is set.
    pub then: Then,
    /// `None`: switched off.
    pub breaker: Option<Breaker>,
}

impl Default for Errors {
    fn default() -> Self {
        Errors {
            attempts: 5,
            backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
            jitter: true,
            then: Then::Block,
            breaker: Some(Breaker::default()),
        }
    }
}

/// Pauses a pipeline most of whose records fail, instead of sending them all the way of the failure policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// It opens when this many of a hundred records failed. Default 50.
    pub percent: u32,
    /// Of fewer records than this nothing is concluded. Default 100.
    pub of_at_least: u32,
    /// Only records of this last stretch of time count. Default 1 min.
    pub window: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { percent: 50, of_at_least: 100, window: Duration::from_secs(60) }
    }
}

/// How another version of the handler takes the place of the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// A component or manifest that changes on disk is taken over by itself. Default true.
    pub watch: bool,
    /// Default fresh.
    pub on_state_refused: OnStateRefused,
    /// Versions that are kept for a roll-back, the current one among them. Default 5.
    pub keep_versions: u32,
    /// Records that a new version has to be done with before it gets any of the topics'. Default none.
    pub sample: Option<PathBuf>,
    pub canary: Canary,
}

impl Default for Swap {
    fn default() -> Self {
        Swap {
            watch: true,
            on_state_refused: OnStateRefused::Fresh,
            keep_versions: 5,
            sample: None,
            canary: Canary::default(),
        }
    }
}

/// A canary that is worse than this is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// By so many of a hundred messages more fail than on the old version. Default 5.
    pub failed: u32,
    /// So many times as long do its calls take, per message. Default 3.
    pub slower: u32,
    /// Of fewer messages than this nothing is concluded. Default 100.
    pub of_at_least: u32,
}

impl Default for Canary {
    fn default() -> Self {
        Canary { failed: 5, slower: 3, of_at_least: 100 }
    }
}

/// What follows when the old instance's state cannot be handed over to the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStateRefused {
    /// The new instance begins without one; held messages are offered again.
    Fresh,
    /// The swap is refused, and the old version goes on.
    Refuse,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// The lane keeps retrying at `max_backoff` and says why.
    Block,
    /// The record goes to a topic of its own, and the lane goes on.
    DeadLetter(DeadLetter),
    /// The record is counted and logged, and the lane goes on.
    Drop,
    /// The pipeline settles what is in flight, commits, leaves the group and stays stopped.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Default: the cluster of the source.
    pub cluster: String,
    pub topic: String,
    /// Prefix of the headers that tell origin and error. Default `sluicebox-error`.
    pub header_prefix: String,
}

/// A topic that the handler may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The name that the handler uses.
    pub name: String,
    pub cluster: String,
    pub topic: String,
    /// Default record.
    pub timestamp: OutputTimestamp,
    /// Default none.
    pub compression: Compression,
    /// Each record carries headers that say which record it was made of, and by whom. Default false.
    pub provenance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputTimestamp {
    /// The event time that the emission carries.
    Record,
    /// The time of sending.
    Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// The word that librdkafka's `compression.type` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Run by the shell.
    pub command: String,
    /// Where it runs. Default: the manifest's directory.
    pub workdir: PathBuf,
}

/// What only `sluicebox dev` reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dev {
    /// Source topic to a file of sample records.
    pub samples: BTreeMap<String, PathBuf>,
    /// Partitions of each topic that is made on the embedded broker. Default 3.
    pub partitions: u32,
}

impl Default for Dev {
    fn default() -> Self {
        Dev { samples: BTreeMap::new(), partitions: 3 }
    }
}
