//! How each system is started: the native loops (this program), the host with a manifest, Kafka Streams.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::native::{Job, Kind};
use crate::plan::{Handler, QUICK_COMMITS, System, Variant};
use crate::support::guests::guest;
use crate::support::kafka::Kafka;
use crate::support::{host, repository, scratch, unique};

/// Where a system reads and writes.
#[derive(Clone, Debug)]
pub struct Topics {
    pub input: String,
    pub partitions: i32,
    pub output: String,
    pub group: String,
}

/// Builds what a variant needs, so that nothing is built while others are measured.
pub fn prepare(variant: &Variant) {
    match variant.system {
        System::Native(_) => {}
        System::Host(Handler { guest: name, .. }) => drop(guest(name)),
        System::Guest => drop(guest("uppercase")),
        System::Streams { .. } => drop(streams()),
    }
}

/// The command that starts the system.
pub fn command(kafka: &Kafka, system: System, topics: &Topics) -> Command {
    match system {
        System::Native(kind) => native(kafka, kind, topics),
        System::Host(handler) => {
            let manifest = scratch().join(format!("{}.toml", topics.group));
            std::fs::write(&manifest, manifest_text(&handler, topics))
                .unwrap_or_else(|error| panic!("cannot write {}: {error}", manifest.display()));
            let mut command = Command::new(host::binary());
            command.arg("host").arg("-f").arg(manifest);
            command.args(["--bootstrap", kafka.bootstrap(), "--admin", "127.0.0.1:0"]);
            command.env_remove("SB_BOOTSTRAP").env_remove("RUST_LOG");
            command
        }
        System::Streams { linger_ms } => {
            let built = streams();
            let mut command = Command::new("java");
            command.args(["-Xms768m", "-Xmx768m", "-XX:+UseParallelGC"]);
            command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
            command.arg("-cp").arg(format!("{}:{}", built.join("classes").display(), built.join("libs/*").display()));
            command.args(["UppercasePeer", kafka.bootstrap(), &topics.input, &topics.output, &topics.group]);
            command.arg(scratch().join(unique("streams-state"))).arg(linger_ms.to_string());
            command
        }
        System::Guest => panic!("a guest alone is no process"),
    }
}

fn native(kafka: &Kafka, kind: Kind, topics: &Topics) -> Command {
    let job = Job {
        kind,
        bootstrap: kafka.bootstrap().to_owned(),
        input: topics.input.clone(),
        output: topics.output.clone(),
        group: topics.group.clone(),
        partitions: topics.partitions.unsigned_abs(),
        commit_interval: if kind == Kind::Consume { QUICK_COMMITS } else { Duration::from_secs(1) },
    };
    let mut command = Command::new(std::env::current_exe().expect("a running program has a path"));
    command.arg("native").args(job.arguments());
    command
}

/// A manifest with everything at its default but what the handler asks for.
pub fn manifest_text(handler: &Handler, topics: &Topics) -> String {
    let Topics { input, output, group, .. } = topics;
    let component = guest(handler.guest).display().to_string();
    let Handler { tables, output: further, .. } = handler;
    format!(
        "schema = 1\nname = \"{group}\"\n[handler]\ncomponent = {component:?}\n[source]\ntopics = [\"{input}\"]\n\
         {tables}[output.out]\ntopic = \"{output}\"\n{further}"
    )
}

/// The directory with Kafka Streams and the peer's classes, built by Maven once per program.
fn streams() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let into = scratch().join("streams-peer");
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-P", "streams", "-f"]).arg(repository().join("tests/kafka/pom.xml"));
        maven.args(["compile", "dependency:copy-dependencies"]);
        maven.arg(format!("-Dpeer.directory={}", into.display()));
        maven.arg(format!("-DoutputDirectory={}", into.join("libs").display()));
        let output = maven.output().unwrap_or_else(|error| panic!("cannot run mvn: {error}"));
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "Kafka Streams cannot be built:\n{}", String::from_utf8_lossy(&text));
        into
    };
    BUILT.get_or_init(build).clone()
}
