//! The binary under test: started with arguments, watched by its output and its admin port, ended by signals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::PATIENCE;
use super::http::{self, Response};
use super::kafka::Kafka;
use super::process::{Exit, Process};

/// The real `sluicebox`, built by cargo for this very test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sluicebox"))
}

/// The command line of `sluicebox host` for one handler without a file.
#[derive(Clone, Debug)]
pub struct HostOptions {
    bootstrap: String,
    arguments: Vec<String>,
}

impl HostOptions {
    /// One handler that reads `topics` from the earliest offset on, with the admin port on a free port.
    pub fn new(kafka: &Kafka, plugin: &Path, topics: &[&str], group: &str) -> HostOptions {
        let mut options = HostOptions { bootstrap: kafka.bootstrap().to_owned(), arguments: Vec::new() };
        options.push("--plugin", &plugin.display().to_string());
        options.push("--topics", &topics.join(","));
        options.push("--group", group);
        options.push("--start", "earliest");
        options.push("--admin", "127.0.0.1:0");
        options
    }

    /// A manifest in place of flags: what flags cannot say. Cluster and admin port are as in [`HostOptions::new`].
    pub fn manifest(kafka: &Kafka, name: &str, text: &str) -> HostOptions {
        let path = super::scratch().join(format!("{}.toml", super::unique(name)));
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        let mut options = HostOptions { bootstrap: kafka.bootstrap().to_owned(), arguments: Vec::new() };
        options.push("-f", &path.display().to_string());
        options.push("--admin", "127.0.0.1:0");
        options
    }

    fn push(&mut self, name: &str, value: &str) {
        self.arguments.push(name.to_owned());
        self.arguments.push(value.to_owned());
    }

    /// `TOPIC` or `NAME=TOPIC`.
    pub fn output(mut self, output: &str) -> HostOptions {
        self.push("--output", output);
        self
    }

    pub fn dead_letter(mut self, topic: &str) -> HostOptions {
        self.push("--dead-letter", topic);
        self
    }

    /// A setting of the handler.
    pub fn set(mut self, key: &str, value: &str) -> HostOptions {
        self.push("--set", &format!("{key}={value}"));
        self
    }

    /// A key of librdkafka.
    pub fn kafka_property(mut self, key: &str, value: &str) -> HostOptions {
        self.push("-X", &format!("{key}={value}"));
        self
    }

    /// Another broker address than the plain listener's.
    pub fn bootstrap(mut self, bootstrap: &str) -> HostOptions {
        self.bootstrap = bootstrap.to_owned();
        self
    }

    /// Any other argument.
    pub fn argument(mut self, name: &str, value: &str) -> HostOptions {
        self.push(name, value);
        self
    }

    pub fn start(&self) -> SluiceHost {
        let mut arguments: Vec<&str> = vec!["host"];
        arguments.extend(self.arguments.iter().map(String::as_str));
        arguments.extend(["--bootstrap", &self.bootstrap]);
        SluiceHost::start(&arguments)
    }
}

/// A running host.
pub struct SluiceHost {
    process: Process,
    admin: OnceLock<SocketAddr>,
}

impl SluiceHost {
    /// Starts the binary with these arguments.
    pub fn start(arguments: &[&str]) -> SluiceHost {
        let mut command = Command::new(binary());
        command.args(arguments);
        SluiceHost::run(command)
    }

    /// Starts a prepared command of the binary, with a directory or an environment of its own.
    pub fn run(mut command: Command) -> SluiceHost {
        command.env_remove("SB_BOOTSTRAP").env_remove("RUST_LOG").env("NO_COLOR", "1");
        SluiceHost { process: Process::spawn("sluicebox", command), admin: OnceLock::new() }
    }

    /// Waits for the next line (of stderr or stdout) that contains `pattern`.
    pub fn wait_for_line(&self, pattern: &str, patience: Duration) -> String {
        self.process.wait_for(pattern, patience, |line| line.contains(pattern))
    }

    /// The address of the admin port, from the line in which the host names it.
    pub fn admin(&self) -> SocketAddr {
        *self.admin.get_or_init(|| {
            let find = |line: &str| {
                let rest = line.contains("admin").then(|| line.split_once("http://"))??.1;
                rest.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit())
                    .next()?
                    .trim_end_matches(['.', ':'])
                    .parse()
                    .ok()
            };
            // Anywhere in the output: a test may have waited for a later line already.
            let found = || self.process.output().iter().find_map(|line| find(line));
            self.process.wait_until("it never named its admin address", PATIENCE, || found().is_some());
            found().expect("it was there a moment ago")
        })
    }

    /// `GET` from the admin port.
    pub fn get(&self, path: &str) -> Response {
        http::get(self.admin(), path, PATIENCE)
    }

    /// The sum of a metric over all its labels, `None` when it is not there. `name` is the sample's full name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metric_with(name, &[])
    }

    /// The sum of the samples of a metric that have all these labels, written `name="value"`.
    pub fn metric_with(&self, name: &str, labels: &[&str]) -> Option<f64> {
        sum_of(&self.get("/metrics").body, name, labels)
    }

    /// Waits until the samples of a metric that have all these labels add up to `value`.
    pub fn wait_for_metric(&self, name: &str, labels: &[&str], value: f64) {
        self.wait_for_answer("/metrics", &format!("{name}{labels:?} {value}"), |answer| {
            sum_of(&answer.body, name, labels) == Some(value)
        });
    }

    /// Waits until the samples of a metric that have all these labels add up to at least `value`.
    pub fn wait_for_at_least(&self, name: &str, labels: &[&str], value: f64) {
        self.wait_for_answer("/metrics", &format!("{name}{labels:?} >= {value}"), |answer| {
            sum_of(&answer.body, name, labels).is_some_and(|sum| sum >= value)
        });
    }

    /// Waits until an answer of the admin port is `right`; the answer.
    pub fn wait_for_answer(&self, path: &str, what: &str, right: impl Fn(&Response) -> bool) -> Response {
        let mut last = None;
        self.process.wait_until(&format!("GET {path} never said {what}"), PATIENCE, || {
            last = Some(self.get(path));
            last.as_ref().is_some_and(&right)
        });
        last.expect("an answer was right")
    }

    /// Asks for a graceful end (SIGTERM).
    pub fn terminate(&self) {
        self.process.signal(libc::SIGTERM);
    }

    /// Asks for a graceful end as Ctrl-C does (SIGINT).
    pub fn interrupt(&self) {
        self.process.signal(libc::SIGINT);
    }

    /// Ends it without a chance to tidy up (SIGKILL) and waits until it is gone.
    pub fn kill(&self) {
        self.process.signal(libc::SIGKILL);
        self.process.wait_exit(PATIENCE);
    }

    /// Stops it from running at all, threads of librdkafka included (SIGSTOP), until [`SluiceHost::thaw`].
    pub fn freeze(&self) {
        self.process.signal(libc::SIGSTOP);
    }

    /// Lets a frozen one run again (SIGCONT).
    pub fn thaw(&self) {
        self.process.signal(libc::SIGCONT);
    }

    pub fn wait_exit(&self, patience: Duration) -> Exit {
        self.process.wait_exit(patience)
    }

    /// SIGTERM, then the end within `PATIENCE` with exit code 0.
    pub fn stop(&self) {
        self.terminate();
        let exit = self.wait_exit(PATIENCE);
        assert!(exit.status.success(), "a graceful end exits with 0, not {}\n{}", exit.status, self.process.tail());
    }

    pub fn exited(&self) -> Option<Exit> {
        self.process.exited()
    }

    pub fn output(&self) -> Vec<String> {
        self.process.output()
    }

    /// For messages of failed assertions.
    pub fn tail(&self) -> String {
        self.process.tail()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Drop for SluiceHost {
    /// A test that fails shows what its hosts said.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// The sum of the samples of this name that have all these labels.
fn sum_of(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let wanted = |line: &&str| labels.iter().all(|label| line.contains(label));
    let values: Vec<f64> = text.lines().filter(wanted).filter_map(|line| sample(name, line)).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The value of a line of Prometheus text if it is a sample of this name.
fn sample(name: &str, line: &str) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let value = match rest.strip_prefix('{') {
        Some(labels) => labels.rsplit_once('}')?.1,
        None => rest.strip_prefix(' ')?,
    };
    value.split_whitespace().next()?.parse().ok()
}
