//! The rounds: preload once, then each variant in turn with a fresh group and a fresh output topic.
//!
//! The rate is that of the output's growth as the broker says it, from the first records seen to the last. CPU time is
//! that of the variant's process: in all (by `wait4`, with its start and end) and between those two moments.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::options::{Options, Variant};
use crate::support::client::{Producer, committed, create_topic, delete_topic};
use crate::support::guests::guest;
use crate::support::kafka::Kafka;
use crate::support::process::Process;
use crate::support::{PATIENCE, host, scratch, unique};
use crate::watermarks::Watermarks;

/// How often the output is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// A variant that has not moved for so long has failed.
const STALLED: Duration = Duration::from_secs(60);

/// One variant's figures of one round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    records_per_second: f64,
    /// Per record, from the first record seen to the last.
    cpu_ns: f64,
    /// Per record, of the whole process.
    cpu_ns_in_all: f64,
    broker_cpu_ns: f64,
    max_rss_mib: i64,
}

pub fn run(kafka: &Kafka, options: &Options) {
    let guest = options.variants.contains(&Variant::Sluicebox).then(|| match &options.guest {
        Some(path) => path.clone(),
        None => guest("uppercase"),
    });
    let input = unique("bench-in");
    create_topic(kafka, &input, options.partitions);
    preload(kafka, &input, options);
    // The broker's code is compiled while it runs: nobody's first round counts.
    print("warm-up", Variant::Native, &measure(kafka, &input, Variant::Native, None, options));
    let mut results: Vec<(Variant, Measured)> = Vec::new();
    for round in 0..options.rounds {
        for turn in 0..options.variants.len() {
            let variant = options.variants[(round + turn) % options.variants.len()];
            let measured = measure(kafka, &input, variant, guest.as_deref(), options);
            print(&format!("round {}", round + 1), variant, &measured);
            results.push((variant, measured));
        }
    }
    summary(options, &results);
}

/// Keys of 16 bytes, a thousand per partition; values in lower case, numbered.
fn preload(kafka: &Kafka, topic: &str, options: &Options) {
    let keys = 1000 * options.partitions.unsigned_abs() as u64;
    let started = Instant::now();
    Producer::new(kafka).fill(topic, options.records, |n, key, value| {
        use std::io::Write;
        write!(key, "key-{:012}", n % keys).expect("writing to memory");
        write!(value, "{n:020}").expect("writing to memory");
        value.resize(options.size, b'a' + (n % 26) as u8);
    });
    eprintln!("preloaded {} records of {} B in {:.1?}", options.records, options.size, started.elapsed());
}

fn measure(kafka: &Kafka, input: &str, variant: Variant, guest: Option<&Path>, options: &Options) -> Measured {
    let (output, group) = (unique("bench-out"), unique("bench"));
    create_topic(kafka, &output, options.partitions);
    let watermarks = Watermarks::of(kafka.bootstrap(), &output, options.partitions);
    watermarks.total(PATIENCE);
    let process = Process::spawn(variant.name(), command(kafka, variant, guest, input, &output, &group));
    let (mut first, mut moved, mut seen) = (None, Instant::now(), 0);
    let last = loop {
        let total = watermarks.total(PATIENCE);
        let now = Instant::now();
        if total > seen {
            (seen, moved) = (total, now);
            first.get_or_insert_with(|| (now, total, cpu(&process), kafka.cpu_now().unwrap_or_default()));
        }
        if total >= options.records {
            break (now, cpu(&process), kafka.cpu_now().unwrap_or_default());
        }
        let stalled = now.duration_since(moved) > STALLED;
        assert!(!stalled, "{} stopped at {total} records\n{}", variant.name(), process.tail());
        // The pause between two looks; cut short by a process that ends too early.
        let ended = process.wait_exit_within(LOOK).is_some();
        assert!(!ended, "{} ended early\n{}", variant.name(), process.tail());
    };
    process.signal(libc::SIGTERM);
    let exit = process.wait_exit(PATIENCE);
    assert!(exit.status.success(), "{} ended with {}\n{}", variant.name(), exit.status, process.tail());
    let total = watermarks.total(PATIENCE);
    assert!(total == options.records, "{} wrote {total} records, not {}", variant.name(), options.records);
    let committed: i64 = committed(kafka, &group, input).into_iter().flatten().sum();
    assert!(committed.unsigned_abs() == total, "{} committed {committed} records", variant.name());
    delete_topic(kafka, &output);
    let (start, at_start, cpu_at_start, broker_at_start) = first.expect("records were seen");
    let (end, cpu_at_end, broker_at_end) = last;
    let records = (options.records - at_start).max(1) as f64;
    Measured {
        records_per_second: records / (end - start).as_secs_f64().max(LOOK.as_secs_f64()),
        cpu_ns: (cpu_at_end - cpu_at_start).as_nanos() as f64 / records,
        cpu_ns_in_all: exit.cpu().as_nanos() as f64 / options.records as f64,
        broker_cpu_ns: (broker_at_end - broker_at_start).as_nanos() as f64 / records,
        max_rss_mib: exit.max_rss_kib / 1024,
    }
}

fn cpu(process: &Process) -> Duration {
    process.cpu_now().unwrap_or_else(|| panic!("the process ended early\n{}", process.tail()))
}

fn command(kafka: &Kafka, variant: Variant, guest: Option<&Path>, input: &str, output: &str, group: &str) -> Command {
    match variant {
        Variant::Native => {
            let this = std::env::current_exe().expect("a running program has a path");
            let mut command = Command::new(this);
            command.args(["native", kafka.bootstrap(), input, output, group]);
            command
        }
        Variant::Sluicebox => {
            let mut command = Command::new(host::binary());
            command.arg("host").arg("--plugin").arg(guest.expect("the handler was built"));
            command.args(["--topics", input, "--group", group, "--output", output, "--bootstrap", kafka.bootstrap()]);
            command.args(["--start", "earliest", "--admin", "127.0.0.1:0"]);
            command
        }
    }
}

fn summary(options: &Options, results: &[(Variant, Measured)]) {
    let medians: Vec<(Variant, Measured)> =
        options.variants.iter().map(|variant| (*variant, median_of(*variant, results))).collect();
    for (variant, median) in &medians {
        print("median ", *variant, median);
    }
    let mut document = json!({
        "records": options.records, "size": options.size, "partitions": options.partitions,
        "rounds": results.iter().map(|(variant, measured)| figures(*variant, measured)).collect::<Vec<Value>>(),
        "medians": medians.iter().map(|(variant, measured)| figures(*variant, measured)).collect::<Vec<Value>>(),
    });
    if let [(_, native), (_, sluicebox)] = medians.as_slice() {
        let rate = sluicebox.records_per_second / native.records_per_second;
        let cpu = sluicebox.cpu_ns / native.cpu_ns;
        println!("sluicebox / native: {rate:.2} x records/s, {cpu:.2} x CPU per record");
        document["ratio"] = json!({ "records_per_second": rate, "cpu": cpu });
    }
    let path = options.json.clone().unwrap_or_else(default_json);
    let text = serde_json::to_string_pretty(&document).expect("figures can be written");
    std::fs::write(&path, text + "\n").unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    println!("figures: {}", path.display());
}

fn default_json() -> PathBuf {
    scratch().parent().expect("the scratch directory lies inside the target directory").join("side_by_side.json")
}

fn median_of(variant: Variant, results: &[(Variant, Measured)]) -> Measured {
    let of = |figure: fn(&Measured) -> f64| {
        let mut figures: Vec<f64> =
            results.iter().filter(|(which, _)| *which == variant).map(|(_, m)| figure(m)).collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        if figures.len() % 2 == 1 { figures[middle] } else { f64::midpoint(figures[middle - 1], figures[middle]) }
    };
    Measured {
        records_per_second: of(|m| m.records_per_second),
        cpu_ns: of(|m| m.cpu_ns),
        cpu_ns_in_all: of(|m| m.cpu_ns_in_all),
        broker_cpu_ns: of(|m| m.broker_cpu_ns),
        max_rss_mib: of(|m| m.max_rss_mib as f64) as i64,
    }
}

fn print(label: &str, variant: Variant, measured: &Measured) {
    println!(
        "{label}  {:<9}  {:>9.0} records/s  {:>5.0} ns CPU/record ({:.0} with start and end; broker {:.0})  {} MiB",
        variant.name(),
        measured.records_per_second,
        measured.cpu_ns,
        measured.cpu_ns_in_all,
        measured.broker_cpu_ns,
        measured.max_rss_mib,
    );
}

fn figures(variant: Variant, measured: &Measured) -> Value {
    json!({
        "variant": variant.name(),
        "records_per_second": measured.records_per_second.round(),
        "cpu_ns_per_record": measured.cpu_ns.round(),
        "cpu_ns_per_record_in_all": measured.cpu_ns_in_all.round(),
        "broker_cpu_ns_per_record": measured.broker_cpu_ns.round(),
        "max_rss_mib": measured.max_rss_mib,
    })
}
