//! What a host costs before and without records: its start, idle lanes, idle pipelines.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::input::write_key;
use crate::machine::resident_mib;
use crate::options::Scale;
use crate::plan::{Handler, System, Variant};
use crate::results::{Figures, figures};
use crate::support::client::{Producer, create_topic, delete_topic};
use crate::support::host::SluiceHost;
use crate::support::kafka::Kafka;
use crate::support::process::Process;
use crate::support::{PATIENCE, scratch, unique};
use crate::systems::{Topics, command, manifest_text};
use crate::watermarks::Watermarks;

/// Partitions of the two topics whose difference is that of so many lanes.
const LANES: (i32, i32) = (8, 256);
/// Records of every lane before it is idle: it has an instance, and has used it.
const EACH: u64 = 20;
const PIPELINES: usize = 50;
/// How long a host may calm down before it counts as idle.
const CALM: Duration = Duration::from_secs(3);

/// From the start of the process to the first record that is in the output for good.
pub fn start(kafka: &Kafka, variant: &Variant) -> Figures {
    let topics = topics(kafka, variant.input.partitions);
    fill(kafka, &topics, 1);
    let watermarks = Watermarks::of(kafka.bootstrap(), &topics.output, topics.partitions);
    watermarks.total(PATIENCE);
    let command = command(kafka, variant.system, &topics);
    let started = Instant::now();
    let process = Process::spawn(variant.name, command);
    while watermarks.total(PATIENCE) == 0 {
        let ended = process.wait_exit_within(Duration::from_millis(1)).is_some();
        assert!(!ended && started.elapsed() < PATIENCE, "nothing came out\n{}", process.tail());
    }
    let time = started.elapsed();
    end(kafka, &process, &topics);
    figures([("seconds", time.as_secs_f64())])
}

/// What a lane keeps of memory when it has nothing to do: many against few, both after some records.
pub fn idle_lanes(kafka: &Kafka, variant: &Variant) -> Figures {
    let resident = |partitions: i32| {
        let topics = topics(kafka, partitions);
        let records = fill(kafka, &topics, EACH);
        let watermarks = Watermarks::of(kafka.bootstrap(), &topics.output, partitions);
        let process = Process::spawn(variant.name, command(kafka, variant.system, &topics));
        process.wait_until("its records never came", PATIENCE, || watermarks.total(PATIENCE) == records);
        pause(&process, CALM);
        let resident = resident_mib(process.pid());
        end(kafka, &process, &topics);
        resident
    };
    let (few, many) = (resident(LANES.0), resident(LANES.1));
    let lanes = f64::from(LANES.1 - LANES.0);
    figures([("mib_per_lane", (many - few) / lanes), ("few_mib", few), ("many_mib", many)])
}

/// Pipelines that are assigned and have nothing to do: CPU of all together, and memory.
pub fn idle_pipelines(kafka: &Kafka, variant: &Variant, scale: &Scale) -> Figures {
    let System::Host(handler) = variant.system else { panic!("pipelines are the host's") };
    let first = topics(kafka, variant.input.partitions);
    let directory = scratch().join(unique("pipelines"));
    std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for _ in 0..PIPELINES {
        let group = unique("idle");
        write_manifest(&directory, &handler, &Topics { group, ..first.clone() });
    }
    let path = directory.display().to_string();
    let arguments = ["host", "--pipelines", &path, "--bootstrap", kafka.bootstrap(), "--admin", "127.0.0.1:0"];
    let host = SluiceHost::start(&arguments);
    host.wait_for_answer("/readyz", "that all are ready", |answer| answer.status == 200);
    let process = host.process();
    pause(process, 2 * CALM);
    let cpu = || process.cpu_now().expect("it runs");
    let (from, cpu_from) = (Instant::now(), cpu());
    pause(process, scale.idle());
    let (time, used) = (from.elapsed(), cpu() - cpu_from);
    let resident = resident_mib(process.pid());
    host.stop();
    for topic in [&first.input, &first.output] {
        delete_topic(kafka, topic);
    }
    std::fs::remove_dir_all(&directory).ok();
    figures([
        ("cpu_percent", 100.0 * used.as_secs_f64() / time.as_secs_f64()),
        ("rss_mib", resident),
        ("pipelines", PIPELINES as f64),
    ])
}

fn write_manifest(directory: &Path, handler: &Handler, topics: &Topics) {
    let path = directory.join(format!("{}.toml", topics.group));
    std::fs::write(&path, manifest_text(handler, topics)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn topics(kafka: &Kafka, partitions: i32) -> Topics {
    let [input, output, group] = ["standing-in", "standing-out", "standing"].map(unique);
    create_topic(kafka, &input, partitions);
    create_topic(kafka, &output, partitions);
    Topics { input, partitions, output, group }
}

/// So many records for each partition, in all; their number.
fn fill(kafka: &Kafka, topics: &Topics, each: u64) -> u64 {
    let records = each * u64::from(topics.partitions.unsigned_abs());
    Producer::new(kafka).fill(&topics.input, records, |n, key, value| {
        write_key(n, topics.partitions, key);
        value.resize(100, b'a');
    });
    records
}

fn pause(process: &Process, time: Duration) {
    assert!(process.wait_exit_within(time).is_none(), "it ended early\n{}", process.tail());
}

fn end(kafka: &Kafka, process: &Process, topics: &Topics) {
    process.signal(libc::SIGTERM);
    let exit = process.wait_exit(PATIENCE);
    assert!(exit.status.success(), "it ended with {}\n{}", exit.status, process.tail());
    for topic in [&topics.input, &topics.output] {
        delete_topic(kafka, topic);
    }
}
