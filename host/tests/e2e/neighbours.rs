//! One healthy pipeline beside seven hostile ones, in one host.
//!
//! How much the neighbours cost is measured by a command, on a machine that does nothing else:
//!
//! ```sh
//! cargo test --release --test e2e -- --ignored --nocapture neighbours
//! ```
//!
//! `SLUICEBOX_SECONDS` is how long each of its phases lasts (20), `SLUICEBOX_ROUNDS` how often they are gone through (3).

use std::time::{Duration, Instant};

use crate::check::{Site, Stage, manifest, output, pipeline};
use crate::support::PATIENCE;
use crate::support::client::{Producer, Reader};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::{Kafka, kafka_or_not_run};
use crate::support::unique;

/// Records a second of the healthy pipeline.
const RATE: u32 = 200;

/// A pipeline that means no good: what each of its messages makes its handler do, and its manifest's own lines.
struct Hostile {
    name: &'static str,
    deed: &'static str,
    rest: &'static str,
}

const fn hostile(name: &'static str, deed: &'static str, rest: &'static str) -> Hostile {
    Hostile { name, deed, rest }
}

/// Goes on with the next record at once, whatever happened.
const AT_ONCE: &str = "[errors]\nthen = \"drop\"\nretry = { attempts = 1 }\nbreaker = false\n";
/// Stands at its first record, and comes back to it seldom.
const SELDOM: &str = "[errors]\nretry = { attempts = 1, backoff = \"30s\" }\n";

/// One of each kind.
const MIXED: [Hostile; 7] = [
    hostile("loops", "loop", "[handler.limits]\nrunning_time = \"300ms\"\n"),
    hostile("allocates", "hog", ""),
    hostile("traps", "panic at once", ""),
    hostile("floods-the-log", "flood 3000", ""),
    hostile("waits", "sleep 3600", "[handler.limits]\nwall_time = \"1s\"\n"),
    hostile("answers-too-much", "huge 20000000", ""),
    hostile("answers-nonsense", "noise 5000", ""),
];

/// All that they do is to be in the way.
const QUIET: [Hostile; 7] = [
    hostile("waits", "sleep 3600", "[handler.limits]\nwall_time = \"29s\"\n"),
    hostile("waits-too", "sleep 3600", "[handler.limits]\nwall_time = \"25s\"\n"),
    hostile("traps", "panic at once", ""),
    hostile("exits", "exit 0", ""),
    hostile("divides", "divide", ""),
    hostile("recurses", "recurse", ""),
    hostile("answers-nonsense", "noise 5000", ""),
];

/// Each takes all the CPU time that it gets.
const BURNING: [Hostile; 7] = [
    hostile("loops", "loop", "[handler.limits]\nrunning_time = \"300ms\"\n"),
    hostile("loops-for-long", "loop", "[handler.limits]\nrunning_time = \"5s\"\n"),
    hostile("works", "work 100000", ""),
    hostile("fills", "fill", "[handler.limits]\nrunning_time = \"300ms\"\n"),
    hostile("allocates", "hog", ""),
    hostile("traps", "panic at once", ""),
    hostile("floods-the-log", "flood 3000", ""),
];

/// How long records are sent before their latency counts: clients connect, and the first round of everything is slow.
const WARM_UP: Duration = Duration::from_secs(3);

/// What became of the healthy pipeline's records.
struct Seen {
    sent: usize,
    arrived: usize,
    /// From the time that each was due to be sent to its arrival, sorted; of those behind the beginning.
    latencies: Vec<Duration>,
    /// CPU seconds of each hostile handler.
    burnt: Vec<f64>,
}

impl Seen {
    fn at(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99, most) = (self.at(50), self.at(99), self.at(100));
        write!(f, "{} of {} records, p50 {p50:.1?} p99 {p99:.1?} most {most:.1?}", self.arrived, self.sent)?;
        write!(f, "; CPU of the others {:.1?} s", self.burnt)
    }
}

/// One host with these, and the healthy one at its rate for so long.
fn run(kafka: &Kafka, hostiles: &[Hostile], errors: &str, time: Duration) -> Seen {
    let stage = Stage::new(kafka, "healthy", 1);
    let site = Site::new(&Site::cluster("default", kafka));
    let sink = stage.topic("sink", 1);
    let names: Vec<String> = hostiles.iter().map(|hostile| unique(hostile.name)).collect();
    for (hostile, name) in hostiles.iter().zip(&names) {
        let topic = stage.topic(hostile.name, 1);
        // More than they get through.
        Producer::new(kafka).fill(&topic, 200_000, |_, _, value| value.extend_from_slice(hostile.deed.as_bytes()));
        let rest = format!("{}{errors}{}", hostile.rest, output("out", &sink));
        site.add(name, &manifest(name, &guest("hostile"), &topic, "", &rest));
    }
    let healthy = unique("healthy");
    site.add(&healthy, &stage.pipeline(&healthy, &guest("uppercase"), &output("out", &stage.output)));
    let host = site.start();
    for name in names.iter().chain([&healthy]) {
        host.wait_for_metric("sluicebox_pipeline_state", &[&pipeline(name), "state=\"running\""], 1.0);
    }
    let hostile_at_work = |name: &String| {
        host.wait_for_at_least("sluicebox_messages_consumed_total", &[&pipeline(name)], 1.0);
    };
    names.iter().for_each(hostile_at_work);
    let cpu = |host: &SluiceHost| -> Vec<f64> {
        let of = |name| host.metric_with("sluicebox_handler_running_seconds_total", &[&pipeline(name)]);
        names.iter().map(|name| of(name).unwrap_or_default()).collect()
    };
    let before = cpu(&host);
    let (sent, arrived, latencies) = measure(kafka, &stage, time);
    let burnt = before.iter().zip(cpu(&host)).map(|(before, after)| after - before).collect();

    // Nothing of the healthy one failed, and all of it is committed.
    let own = pipeline(&healthy);
    assert_eq!(host.metric_with("sluicebox_handler_traps_total", &[&own]), Some(0.0));
    assert_eq!(host.metric_with("sluicebox_retries_total", &[&own]).unwrap_or(0.0), 0.0);
    host.wait_for_metric("sluicebox_messages_processed_total", &[&own, "outcome=\"ok\""], sent as f64);
    host.wait_for_metric("sluicebox_uncommitted_messages", &[&own], 0.0);
    host.kill();
    Seen { sent, arrived, latencies, burnt }
}

/// Sends at the rate, however late it is, and takes in what comes out. How many were sent and arrived, and how long each took
/// from when it was due.
fn measure(kafka: &Kafka, stage: &Stage<'_>, time: Duration) -> (usize, usize, Vec<Duration>) {
    let count = ((WARM_UP + time).as_secs_f64() * f64::from(RATE)) as usize;
    let due = |n: usize| Duration::from_secs(1) * n as u32 / RATE;
    let mut reader = Reader::new(kafka, &stage.output);
    let producer = Producer::prompt(kafka);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // None waits for another one's way: who is late catches up, and the records know when they should have gone.
            for n in 0..count {
                while let Some(early) = due(n).checked_sub(begin.elapsed()) {
                    std::thread::park_timeout(early);
                }
                producer.put(&stage.input, format!("{n:020}").as_bytes());
            }
            producer.finish_all(&stage.input);
        });
        let (mut records, mut latencies) = (Vec::new(), Vec::new());
        let mut seen = vec![false; count];
        let (mut arrived, deadline) = (0, begin + WARM_UP + time + PATIENCE);
        while arrived < count && reader.read_into(&mut records, deadline) {
            let now = begin.elapsed();
            for record in records.drain(..) {
                let n: usize = record.value_text().parse().expect("a number");
                assert!(!std::mem::replace(&mut seen[n], true), "record {n} came twice");
                arrived += 1;
                if due(n) >= WARM_UP {
                    latencies.push(now.saturating_sub(due(n)));
                }
            }
        }
        latencies.sort_unstable();
        (count, arrived, latencies)
    })
}

/// Proves: beside seven pipelines that loop, allocate, trap, flood the log, wait, answer too much and answer nonsense, one
/// record after another, a healthy one keeps its rate: every record of it arrives once, none fails, all are committed. How long
/// they may take is generous here: the machine has other work.
#[test]
fn a_healthy_pipeline_beside_seven_hostile_ones() {
    let kafka = kafka_or_not_run!("a_healthy_pipeline_beside_seven_hostile_ones");
    let seen = run(kafka, &MIXED, AT_ONCE, Duration::from_secs(10));
    println!("beside one of each kind: {seen}");
    assert_eq!(seen.arrived, seen.sent, "nothing is lost");
    assert!(seen.at(50) < Duration::from_millis(250), "{seen}");
    assert!(seen.at(99) < Duration::from_secs(2), "{seen}");
    assert!(seen.burnt.iter().sum::<f64>() > 2.0, "the others were at work: {seen}");
}

/// Proves: the latency of a healthy pipeline at the 99th percentile is within a tenth of what it is alone beside seven that burn
/// no CPU time, and within twice that and 20 ms beside seven that do. Rounds of all three, and the median of each, since one is
/// the machine's weather.
#[test]
#[ignore = "by a command: minutes, on a machine that does nothing else"]
fn neighbours_cost_little() {
    let kafka = kafka_or_not_run!("neighbours_cost_little");
    let number = |variable: &str, default: u64| {
        std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text}")))
    };
    let (time, rounds) = (Duration::from_secs(number("SLUICEBOX_SECONDS", 20)), number("SLUICEBOX_ROUNDS", 3));
    let phases: [(&str, &[Hostile], &str); 4] = [
        ("alone", &[], ""),
        ("beside seven that burn no CPU time", &QUIET, SELDOM),
        ("beside one of each kind", &MIXED, AT_ONCE),
        ("beside seven that burn all they get", &BURNING, AT_ONCE),
    ];
    let mut p99 = [const { Vec::new() }; 4];
    for round in 1..=rounds {
        for (i, (what, hostiles, errors)) in phases.iter().enumerate() {
            let seen = run(kafka, hostiles, errors, time);
            println!("round {round}, {what}: {seen}");
            assert_eq!(seen.arrived, seen.sent, "{what}: nothing is lost");
            p99[i].push(seen.at(99));
        }
    }
    let median = p99.map(|mut all| {
        all.sort_unstable();
        all[all.len() / 2]
    });
    println!("p99, median of {rounds} rounds: {median:.1?}");
    let [alone, quiet, mixed, burning] = median;
    assert!(quiet <= alone + alone / 10, "{quiet:?} beside those that burn nothing, {alone:?} alone");
    let most = alone * 2 + Duration::from_millis(20);
    assert!(mixed <= most && burning <= most, "{mixed:?} and {burning:?}, at most {most:?}");
}
