//! Has Kafka's own client write the transcript of a run into a file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;

use super::transcript::{Topics, Transcript};
use crate::support::jars::{self, Missing};
use crate::support::kafka::Kafka;
use crate::support::{PATIENCE, repository};

/// The reader is compiled when it is run, which takes more than a Java runtime.
pub fn possible() -> Result<(), Missing> {
    jars::compiler()
}

/// Writes the transcript of a group that has left into `file`.
pub fn write(kafka: &Kafka, group: &str, topics: &Topics, file: &Path) {
    let out = File::create(file).unwrap_or_else(|error| panic!("cannot make {}: {error}", file.display()));
    let mut command = kafka.java(&[
        "-Xmx1g",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]);
    command.arg(repository().join("tests/kafka/Transcript.java"));
    command.args([kafka.bootstrap(), group, &PATIENCE.as_secs().to_string()]);
    command.args([&topics.input, &topics.out, &topics.batched, &topics.dead]);
    let output = command.stdin(Stdio::null()).stdout(out).output().expect("java was there a moment ago");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the transcript could not be read: {}\n{error}", output.status);
}

/// Reads a transcript back.
pub fn read(topics: Topics, file: &Path) -> Transcript {
    let open = File::open(file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    Transcript::parse(topics, BufReader::new(open)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
