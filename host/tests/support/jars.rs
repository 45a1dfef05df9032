//! The Kafka jars: fetched once by Maven into cargo's target directory, and found there afterwards.
//!
//! Test programs may race: a lock file makes one of them fetch, into a directory beside the final one that is renamed
//! when it is whole. The stamp inside is the text of the pom, so a changed pom fetches again.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Why the real Kafka cannot be had on this machine.
#[derive(Clone, Debug)]
pub struct Missing(String);

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The directory with the jars: that of `SLUICEBOX_TEST_KAFKA_LIBS`, or the fetched one.
pub fn libs() -> Result<PathBuf, Missing> {
    static LIBS: OnceLock<Result<PathBuf, Missing>> = OnceLock::new();
    LIBS.get_or_init(|| {
        needs("java", "-version", "Java 17 or newer")?;
        match std::env::var_os("SLUICEBOX_TEST_KAFKA_LIBS") {
            Some(directory) => Ok(directory.into()),
            None => fetch(),
        }
    })
    .clone()
}

/// Whether Java can run a program from its source: the judge of `tests/kafka/Transcript.java`.
pub fn compiler() -> Result<(), Missing> {
    let name = "a Java development kit (17 or newer; it compiles the reader of transcripts)";
    match Command::new("java").arg("--list-modules").output() {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("jdk.compiler") => Ok(()),
        Ok(_) => Err(Missing(format!("this Java has no compiler: {name} is needed"))),
        Err(error) => Err(Missing(format!("`java` cannot be run ({error}): {name} is needed"))),
    }
}

fn fetch() -> Result<PathBuf, Missing> {
    let pom = super::repository().join("tests/kafka/pom.xml");
    let wanted = std::fs::read_to_string(&pom).unwrap_or_else(|error| panic!("cannot read {}: {error}", pom.display()));
    let scratch = super::scratch();
    let libs = scratch.join("kafka-libs");
    let lock = File::create(scratch.join("kafka-libs.lock")).expect("cannot make the lock file of the Kafka jars");
    lock.lock().expect("cannot lock the lock file of the Kafka jars");
    if std::fs::read_to_string(libs.join("stamp")).is_ok_and(|stamp| stamp == wanted) {
        return Ok(libs);
    }
    needs("mvn", "-version", "Maven (it fetches Apache Kafka)")?;
    let fresh = scratch.join("kafka-libs.new");
    for old in [&fresh, &libs] {
        if old.exists() {
            std::fs::remove_dir_all(old).unwrap_or_else(|error| panic!("cannot remove {}: {error}", old.display()));
        }
    }
    copy_dependencies(&pom, &fresh)?;
    std::fs::write(fresh.join("stamp"), wanted).expect("cannot write the stamp of the Kafka jars");
    std::fs::rename(&fresh, &libs).expect("cannot rename the directory of the Kafka jars");
    Ok(libs)
}

fn copy_dependencies(pom: &Path, into: &Path) -> Result<(), Missing> {
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(pom)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", into.display()))
        .output()
        .expect("mvn was there a moment ago");
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let first: Vec<&str> = text.lines().filter(|line| line.contains("ERROR")).take(2).collect();
    Err(Missing(format!("Maven could not fetch Apache Kafka: {}", first.join(" "))))
}

fn needs(program: &str, argument: &str, name: &str) -> Result<(), Missing> {
    match Command::new(program).arg(argument).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Missing(format!("`{program} {argument}` fails ({}): {name} is needed", output.status))),
        Err(error) => Err(Missing(format!("`{program}` cannot be run ({error}): {name} is needed"))),
    }
}
