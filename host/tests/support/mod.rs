//! What the integration tests and the benchmark share: a real Kafka, independent clients, the real binary, the guests.
//!
//! Every test target includes this tree with `mod support;`. Nothing here knows the host's own code: a test judges the
//! binary from outside.
//!
//! | file | knows |
//! |---|---|
//! | `process` | child processes that never outlive us, their output line by line, their CPU time |
//! | `frozen` | one thread of a child, stopped |
//! | `jars` | where the Kafka jars are, and how Maven brings them |
//! | `kafka` | a broker: shared by the run, or dedicated to a test; `security` its listeners, users, certificates |
//! | `cluster` | three of them |
//! | `mock` | librdkafka's mock cluster: answers with errors, counts requests |
//! | `not_run` | the loud note of a test that could not run |
//! | `client` | our own client, by librdkafka's C interface: topics, producing, reading, commits |
//! | `relay` | a relay in front of a broker, which stalls and cuts |
//! | `random` | chance that a seed fixes |
//! | `tools` | the judges that are not our client: Kafka's own tools and kcat |
//! | `host` | the binary under test, its admin port |
//! | `command` | its other commands |
//! | `guests` | building the guests |
#![allow(dead_code, unused_imports, unused_macros, reason = "each test target uses its own part of the harness")]

pub mod client;
pub mod cluster;
pub mod command;
pub mod frozen;
pub mod guests;
pub mod host;
pub mod http;
pub mod jars;
pub mod kafka;
pub mod mock;
pub mod not_run;
pub mod process;
pub mod random;
pub mod relay;
pub mod security;
pub mod tools;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a test waits for something that must happen. Reaching it is a failure, so it is generous: it has to hold on
/// a slow, busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host package lies inside the repository")
}

/// Scratch space under cargo's target directory.
pub fn scratch() -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&directory)
        .unwrap_or_else(|error| panic!("cannot make the scratch directory {}: {error}", directory.display()));
    directory
}

/// A name that no other test of this or another run uses.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis();
    format!("{stem}-{now:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
