//! As fast as it can through a preloaded topic.
//!
//! The rate is that of the output's growth as the broker says it, from a quarter of the records on – before, connections are
//! made and a Java machine compiles – to the last; where nothing is produced, of the group's commits, from the first on. CPU
//! time is that of the system's process: in all (by `wait4`, with its start and end) and between those two moments.

use std::time::{Duration, Instant};

use crate::options::Scale;
use crate::plan::{How, Variant};
use crate::results::{Figures, figures};
use crate::support::client::{committed, create_topic, delete_topic, end_offsets};
use crate::support::kafka::Kafka;
use crate::support::process::Process;
use crate::support::{PATIENCE, unique};
use crate::systems::{Topics, command};
use crate::watermarks::{Commits, Watermarks};

/// How often the output is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// A system that has not moved for so long has failed.
const STALLED: Duration = Duration::from_secs(60);

/// One look at a system that moved.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    /// Records that came out, or were committed.
    total: u64,
    cpu: Duration,
    broker_cpu: Duration,
}

pub fn measure(kafka: &Kafka, variant: &Variant, input: &str, scale: &Scale) -> Figures {
    let partitions = variant.input.partitions;
    let (output, group) = (unique("bench-out"), unique("bench"));
    let topics = Topics { input: input.to_owned(), partitions, output, group };
    create_topic(kafka, &topics.output, partitions);
    let records = variant.input.records(scale);
    let (first, last, peak, in_all) = match variant.how {
        How::Output { one_in } => {
            let come_out = variant.input.come_out(scale, one_in);
            let watermarks = Watermarks::of(kafka.bootstrap(), &topics.output, partitions);
            let watched = watch(kafka, variant, &topics, come_out, || watermarks.total(PATIENCE));
            let came = watermarks.total(PATIENCE);
            assert!(came == come_out, "{} wrote {came} records, not {come_out}", variant.name);
            // Every moment counts what went in, so that a filter's rate is that of its input.
            let scaled = |moment: Moment| Moment { total: moment.total * records / come_out, ..moment };
            let (first, last) = watched.span(come_out / 4, 0);
            (scaled(first), scaled(last), watched.max_rss_mib, watched.cpu)
        }
        How::Commits => {
            let commits = Commits::of(kafka.bootstrap(), &topics.group, input, partitions);
            let watched = watch(kafka, variant, &topics, records, || commits.total(PATIENCE));
            // The last commit may have waited for its time with nothing left to do.
            let (first, last) = watched.span(0, 1);
            (first, last, watched.max_rss_mib, watched.cpu)
        }
        _ => panic!("{} is measured in another way", variant.name),
    };
    let committed: i64 = committed(kafka, &topics.group, input).into_iter().flatten().sum();
    assert!(committed.unsigned_abs() == records, "{} committed {committed} records of {records}", variant.name);
    assert_eq!(end_offsets(kafka, &topics.output).len(), partitions.unsigned_abs() as usize);
    delete_topic(kafka, &topics.output);
    let (time, counted) = (last.at - first.at, (last.total - first.total).max(1) as f64);
    let per_record = |time: Duration| time.as_nanos() as f64 / counted;
    figures([
        ("records_per_second", counted / time.as_secs_f64().max(LOOK.as_secs_f64())),
        ("seconds", time.as_secs_f64()),
        ("cpu_ns", per_record(last.cpu - first.cpu)),
        ("cpu_ns_in_all", in_all.as_nanos() as f64 / records as f64),
        ("broker_cpu_ns", per_record(last.broker_cpu - first.broker_cpu)),
        ("max_rss_mib", peak),
    ])
}

struct Watched {
    /// When the process was started, then whenever it had moved.
    moments: Vec<Moment>,
    max_rss_mib: f64,
    cpu: Duration,
}

impl Watched {
    /// From when more than so many records were seen to the last but for so many looks; with few records, all there is.
    fn span(&self, warm: u64, spared: usize) -> (Moment, Moment) {
        let counted = self.moments.iter().position(|moment| moment.total > warm).map(|first| &self.moments[first..]);
        match (counted, self.moments.as_slice()) {
            (Some(seen), _) if seen.len() >= 2 + spared => (seen[0], seen[seen.len() - 1 - spared]),
            (_, [start, .., last]) => (*start, *last),
            _ => panic!("nothing came"),
        }
    }
}

/// Starts the system, looks at it until `all` came, and ends it.
fn watch(kafka: &Kafka, variant: &Variant, topics: &Topics, all: u64, mut total: impl FnMut() -> u64) -> Watched {
    // The clients that look are connected before the system starts.
    total();
    let name = variant.name;
    let process = Process::spawn(name, command(kafka, variant.system, topics));
    let cpu = || process.cpu_now().unwrap_or_else(|| panic!("{name} ended early\n{}", process.tail()));
    let look = |total, at| Moment { at, total, cpu: cpu(), broker_cpu: kafka.cpu_now().unwrap_or_default() };
    let mut moved = Instant::now();
    let mut moments = vec![look(0, moved)];
    loop {
        let (total, at) = (total(), Instant::now());
        if total > moments[moments.len() - 1].total {
            moved = at;
            moments.push(look(total, at));
        }
        if total >= all {
            break;
        }
        let stalled = at.duration_since(moved) > STALLED;
        assert!(!stalled, "{name} stopped at {total} records\n{}", process.tail());
        // The pause between two looks; cut short by a process that ends too early.
        let ended = process.wait_exit_within(LOOK).is_some();
        assert!(!ended, "{name} ended early\n{}", process.tail());
    }
    process.signal(libc::SIGTERM);
    let exit = process.wait_exit(PATIENCE);
    assert!(exit.status.success(), "{name} ended with {}\n{}", exit.status, process.tail());
    Watched { moments, max_rss_mib: exit.max_rss_kib as f64 / 1024.0, cpu: exit.cpu() }
}
