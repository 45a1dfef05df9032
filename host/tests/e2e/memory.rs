//! Input that comes faster than a handler takes it.

use crate::check::{Site, Stage, output, wait_committed, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, create_topic, end_offsets, read_all, total};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::{Kafka, kafka_or_not_run};
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

/// Proves: a thousand partitions, each held up by its first record while 300 MB wait at the broker, share one budget: what the
/// host takes in for them is bounded by that and by what it fetches ahead, not by their number. Then all of them go on, and
/// each is done and committed to its end. (What a lane at work has besides, its instance and the burst and answer of a call,
/// has a limit of its own for each.)
#[test]
fn a_thousand_partitions_share_one_budget() {
    const EACH: usize = 12;
    /// The budget, as much fetched ahead, what librdkafka has in hand while it takes a fetch apart, and the same again for
    /// what an allocator holds on to. A third of what waits at the broker.
    const MOST_MORE_KIB: u64 = 110 * 1024;
    let kafka = kafka_or_not_run!("a_thousand_partitions_share_one_budget");
    let (few, many) = (Thousand::new(kafka, 0), Thousand::new(kafka, EACH));
    let idle = {
        let host = few.start();
        host.process().memory_kib().unwrap_or_default()
    };
    let host = many.start();
    let mut held_up = 0;
    host.process().wait_until("no lane went on", PATIENCE, || {
        let most = host.process().most_memory_kib().unwrap_or_default();
        let goes_on = total(kafka, &many.stage.output) > 0;
        held_up = if goes_on { held_up } else { most };
        goes_on
    });
    wait_committed(kafka, &many.stage.group, &many.stage.input);
    host.wait_for_metric("sluicebox_consumer_lag_messages", &[], 0.0);
    host.stop();
    let done = EACH as i64 + 1;
    assert_eq!(end_offsets(kafka, &many.stage.input), vec![done; Thousand::PARTITIONS as usize]);
    assert_eq!(total(kafka, &many.stage.output), i64::from(Thousand::PARTITIONS) * done);
    eprintln!("{} MiB with a thousand idle lanes, {} MiB while all were held up", idle / 1024, held_up / 1024);
    let more = held_up.saturating_sub(idle);
    assert!(more < MOST_MORE_KIB, "it took {more} KiB more than the {idle} KiB of its idle lanes");
}

/// A topic of a thousand partitions, and what waits in it.
struct Thousand<'a> {
    stage: Stage<'a>,
}

impl Thousand<'_> {
    const PARTITIONS: i32 = 1_000;

    /// In each partition a record that fails at first, and `each` of 25 kB behind it.
    fn new(kafka: &Kafka, each: usize) -> Thousand<'_> {
        let (input, output) = (unique("thousand-in"), unique("thousand-out"));
        create_topic(kafka, &input, Thousand::PARTITIONS);
        create_topic(kafka, &output, 4);
        let producer = Producer::singly(kafka);
        let large = &format!("good {}", "x".repeat(25_000));
        for first in (0..Thousand::PARTITIONS).step_by(100) {
            let on = |partition, value: &str| NewRecord { partition: Some(partition), ..NewRecord::new("key", value) };
            let records = (first..first + 100).flat_map(|partition| {
                std::iter::once(on(partition, "retry-2")).chain((0..each).map(move |_| on(partition, large)))
            });
            producer.send(&input, &records.collect::<Vec<_>>());
        }
        Thousand { stage: Stage { kafka, input, output, group: unique("thousand") } }
    }

    /// A host of which every lane has its instance and waits for the second attempt of its first record.
    fn start(&self) -> SluiceHost {
        let cluster = Site::cluster("default", self.stage.kafka);
        let site = Site::new(&format!("{cluster}[limits]\nmemory = \"32MiB\"\n"));
        let rest = format!(
            "[errors]\nretry = {{ attempts = 2, backoff = \"40s\", max_backoff = \"40s\", jitter = false }}\n{}",
            output("out", &self.stage.output)
        );
        site.add(&self.stage.group, &self.stage.pipeline(&self.stage.group, &guest("faulty"), &rest));
        let host = site.start();
        host.wait_for_metric("sluicebox_retries_total", &[], f64::from(Thousand::PARTITIONS));
        host
    }
}
