//! Input that comes faster than a handler takes it.

use crate::check::{Site, Stage, output, wait_committed, wait_for_records};
use crate::support::client::{NewRecord, Producer, read_all, total};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;
use crate::support::unique;

/// Proves: while every partition is held up by a handler, a host takes in no more than its budget allows, though 200 MB wait
/// at the broker; then it does all of them, within the same bounds.
#[test]
fn a_slow_handler_does_not_fill_the_memory() {
    const PARTITIONS: i32 = 4;
    const RECORDS: u64 = 200_000;
    const BUDGET: f64 = 32.0 * 1024.0 * 1024.0;
    /// The budget, librdkafka's buffers of as much again, four instances, the engine and the host itself.
    const MOST_MEMORY_KIB: u64 = 250 * 1024;
    let kafka = kafka_or_not_run!("a_slow_handler_does_not_fill_the_memory");
    let stage = Stage::new(kafka, "memory", PARTITIONS);
    let dead = stage.topic("dead", 1);
    let stop = |partition| NewRecord { partition: Some(partition), ..NewRecord::new("key", "loop") };
    let producer = Producer::new(kafka);
    producer.send(&stage.input, &(0..PARTITIONS).map(stop).collect::<Vec<_>>());
    producer.fill(&stage.input, RECORDS, |n, key, value| {
        key.extend_from_slice(&n.to_le_bytes());
        value.extend_from_slice(b"good ");
        value.resize(1_000, b'.');
    });
    let name = unique("slow");
    let site = Site::new(&format!("{}[limits]\nmemory = \"32MiB\"\n", Site::cluster("default", kafka)));
    let rest = format!(
        "[handler.limits]\nrunning_time = \"3s\"\n[errors]\nretry = {{ attempts = 1 }}\n\
         dead_letter = {{ topic = \"{dead}\" }}\n{}",
        output("out", &stage.output)
    );
    site.add(&name, &stage.pipeline(&name, &guest("faulty"), &rest));
    let host = site.start();
    // The first handler was cut off after three seconds, alone after three more: so long every partition was held up.
    wait_for_records(kafka, &dead, 1);
    let held = host.metric("sluicebox_buffer_bytes").expect("a figure");
    assert!(held <= BUDGET, "{held} bytes in flight");
    let done = total(kafka, &stage.output);
    assert!(done < i64::try_from(RECORDS).expect("a count"), "nothing waited: {done} were done");
    wait_committed(kafka, &name, &stage.input);
    // Where the kernel tells.
    let used = host.process().most_memory_kib().unwrap_or_default();
    host.stop();
    assert_eq!(total(kafka, &stage.output), i64::try_from(RECORDS).expect("a count"));
    assert_eq!(read_all(kafka, &dead).len(), PARTITIONS as usize);
    assert!(used < MOST_MEMORY_KIB, "it took {used} KiB");
    eprintln!("{} MiB at most for {} MB of input", used / 1024, RECORDS / 1000);
}
