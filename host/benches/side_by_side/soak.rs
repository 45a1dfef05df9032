//! Memory at full speed for a long time: records are produced as fast as they are taken, into topics that keep only the
//! newest part of them.

use std::time::{Duration, Instant};

use crate::input::write_key;
use crate::machine::resident_mib;
use crate::options::Scale;
use crate::plan::Variant;
use crate::results::{Figures, figures, median};
use crate::support::client::{Producer, create_topic_with, delete_topic};
use crate::support::kafka::Kafka;
use crate::support::process::Process;
use crate::support::{PATIENCE, unique};
use crate::systems::{Topics, command};
use crate::watermarks::Watermarks;

/// Records that may wait for the host: enough that it never does, few enough that none is deleted before it was read.
const AHEAD: u64 = 2_000_000;
/// Produced in parts of so many.
const PART: u64 = 250_000;
/// What a partition keeps: several times what may wait, in segments that are deleted as a whole.
const KEPT: [(&str, &str); 2] = [("retention.bytes", "134217728"), ("segment.bytes", "33554432")];

/// What the broker is told so that it looks for old segments often enough.
pub fn broker_properties() -> Vec<(String, String)> {
    let properties = [("log.retention.check.interval.ms", "2000"), ("log.segment.delete.delay.ms", "1000")];
    properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

pub fn measure(kafka: &Kafka, variant: &Variant, scale: &Scale) -> Figures {
    let partitions = variant.input.partitions;
    let [input, output, group] = ["soak-in", "soak-out", "soak"].map(unique);
    create_topic_with(kafka, &input, partitions, &KEPT);
    create_topic_with(kafka, &output, partitions, &KEPT);
    let topics = Topics { input, partitions, output, group };
    let watermarks = Watermarks::of(kafka.bootstrap(), &topics.output, partitions);
    let process = Process::spawn(variant.name, command(kafka, variant.system, &topics));
    let producer = Producer::new(kafka);
    let started = Instant::now();
    let (mut sent, mut resident) = (0, Vec::new());
    let mut looked = started;
    while started.elapsed() < scale.soak() {
        let done = watermarks.total(PATIENCE);
        if sent - done < AHEAD {
            producer.fill(&topics.input, PART, |n, key, value| {
                write_key(sent + n, partitions, key);
                value.resize(variant.input.size, b'a');
            });
            sent += PART;
        } else {
            assert!(process.wait_exit_within(Duration::from_millis(10)).is_none(), "it ended\n{}", process.tail());
        }
        if looked.elapsed() >= Duration::from_secs(1) {
            looked = Instant::now();
            resident.push(resident_mib(process.pid()));
        }
    }
    process.wait_until("its records never came", PATIENCE, || watermarks.total(PATIENCE) == sent);
    let rate = sent as f64 / started.elapsed().as_secs_f64();
    process.signal(libc::SIGTERM);
    let exit = process.wait_exit(PATIENCE);
    assert!(exit.status.success(), "it ended with {}\n{}", exit.status, process.tail());
    for topic in [&topics.input, &topics.output] {
        delete_topic(kafka, topic);
    }
    // The first quarter is the start. Then the second against the last.
    let quarter = resident.len() / 4;
    assert!(quarter > 0, "memory was looked at {} times only", resident.len());
    let middle = |from: usize| median(resident[from..from + quarter].to_vec()).unwrap_or_default();
    let (early, late) = (middle(quarter), middle(resident.len() - quarter));
    figures([
        ("growth", late / early),
        ("early_mib", early),
        ("late_mib", late),
        ("max_rss_mib", exit.max_rss_kib as f64 / 1024.0),
        ("records_per_second", rate),
        ("seconds", started.elapsed().as_secs_f64()),
    ])
}
