//! The simulation as tests: many seeds, none of which breaks a rule; the same seed twice; every rare branch met.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Instant;

use super::bugs::{Bug, plant};
use super::knobs::Fault;
use super::story::{Ended, play};
use super::world::Point;
use crate::marks::Mark;

/// Seeds of one run, unless `SLUICEBOX_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 200;
/// So many have to meet every rare branch and every fault.
const ENOUGH: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: no number: {text}")))
}

/// Plays seeds on all cores; `each` is told of every one.
fn play_all(seeds: u64, each: impl Fn(u64, &Ended) + Sync) {
    let next = AtomicU64::new(0);
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    each(seed, &play(seed, &[], start, None));
                }
            });
        }
    });
}

/// The faults that a seed needs to fail: all others are left out.
fn needed(seed: u64) -> Vec<Fault> {
    let mut without = Vec::new();
    for fault in Fault::ALL {
        without.push(*fault);
        if play(seed, &without, Instant::now(), None).broken.is_none() {
            without.pop();
        }
    }
    Fault::ALL.iter().copied().filter(|fault| !without.contains(fault)).collect()
}

/// Whatever goes wrong, nothing is lost, nothing is done after a partition was given back, and when it is over everything
/// comes to its end.
#[test]
fn simulation_breaks_no_rule() {
    if let Some(seed) = number("SLUICEBOX_SIM_SEED") {
        let ended = play(seed, &[], Instant::now(), Some(|line| println!("{line}")));
        println!("{ended:?}");
        assert_eq!(ended.broken, None);
        return;
    }
    let seeds = number("SLUICEBOX_SIM_SEEDS").unwrap_or(SEEDS);
    let (failed, sum) = (Mutex::new(BTreeMap::new()), Mutex::new(Sum::default()));
    let begun = Instant::now();
    play_all(seeds, |seed, ended| {
        if let Some(broken) = &ended.broken {
            failed.lock().expect("no panic").insert(seed, broken.clone());
        }
        sum.lock().expect("no panic").add(ended);
    });
    let (failed, sum) = (failed.into_inner().expect("no panic"), sum.into_inner().expect("no panic"));
    println!(
        "simulation: {seeds} seeds in {:.1} s, {} break a rule; {sum}",
        begun.elapsed().as_secs_f64(),
        failed.len()
    );
    for (seed, broken) in failed.iter().take(20) {
        println!("seed {seed}: {broken}");
    }
    if let Some((seed, broken)) = failed.first_key_value() {
        let needs = needed(*seed);
        panic!(
            "{} of {seeds} seeds break a rule; seed {seed}, which needs {needs:?}: {broken}\n\
             again: SLUICEBOX_SIM_SEED={seed} cargo test --release --lib simulation_breaks -- --nocapture",
            failed.len(),
        );
    }
    if seeds >= ENOUGH {
        sum.assert_complete();
    }
}

/// What all seeds together did.
#[derive(Default)]
struct Sum {
    steps: u64,
    checks: u64,
    records: usize,
    disruptions: u64,
    hours: f64,
    faults: BTreeMap<Fault, u64>,
    seen: BTreeMap<String, u64>,
    marks: BTreeMap<Mark, u64>,
}

impl Sum {
    fn add(&mut self, ended: &Ended) {
        self.steps += ended.steps;
        self.checks += ended.checks;
        self.records += ended.records;
        self.disruptions += ended.disruptions;
        self.hours += ended.took.as_secs_f64() / 3600.0;
        for (fault, count) in &ended.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (what, count) in &ended.seen {
            *self.seen.entry(what.clone()).or_default() += count;
        }
        for (mark, count) in crate::marks::take() {
            *self.marks.entry(mark).or_default() += count;
        }
    }

    /// Branches that no seed took are not tested; nor are faults that never struck.
    fn assert_complete(&self) {
        let marks: Vec<&Mark> = Mark::ALL.iter().filter(|mark| !self.marks.contains_key(mark)).collect();
        let faults: Vec<&Fault> = Fault::ALL.iter().filter(|fault| !self.faults.contains_key(fault)).collect();
        let killed = |point: &&Point| !self.seen.contains_key(&format!("killed at {point:?}"));
        let points: Vec<&Point> = Point::ALL.iter().filter(killed).collect();
        assert!(marks.is_empty(), "no seed passed {marks:?}");
        assert!(faults.is_empty(), "in no seed struck {faults:?}");
        assert!(points.is_empty(), "in no seed a host was killed at {points:?}");
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { steps, checks, records, disruptions, hours, faults, seen, marks } = self;
        let struck: u64 = faults.values().sum();
        let (met, all) = (marks.len(), Mark::ALL.len());
        write!(f, "{hours:.0} hours, {records} records, {steps} steps, {checks} checks, ")?;
        writeln!(f, "{struck} faults ({disruptions} from outside), {met} of {all} marks")?;
        writeln!(f, "faults: {faults:?}")?;
        writeln!(f, "marks: {marks:?}")?;
        write!(f, "seen: {seen:?}")
    }
}

/// A seed is a story: played twice, it is the same to the last event.
#[test]
fn simulation_repeats_itself() {
    let start = Instant::now();
    for seed in 0..20 {
        let (first, second) = (play(seed, &[], start, None), play(seed, &[], Instant::now(), None));
        assert_eq!((first.trace, first.steps), (second.trace, second.steps), "seed {seed}");
    }
}

/// The simulation is worth something only if it finds bugs: each of these, in two hundred seeds.
#[test]
fn simulation_finds_planted_bugs() {
    const SEEDS: u64 = 200;
    let start = Instant::now();
    let find = |bug: Bug| {
        plant(Some(bug));
        let play = |seed| quietly(|| play(seed, &[], start, None)).broken.map(|how| (seed, how));
        let found: Vec<(u64, String)> = (0..SEEDS).filter_map(play).collect();
        (bug, found)
    };
    // Bugs are planted by thread.
    let found: Vec<(Bug, Vec<(u64, String)>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = Bug::ALL.into_iter().map(|bug| scope.spawn(move || find(bug))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic but those of hosts")).collect()
    });
    for (bug, found) in found {
        let Some((seed, how)) = found.first() else { panic!("{bug:?} was not found in {SEEDS} seeds") };
        println!("{bug:?}: in {} of {SEEDS} seeds, first in seed {seed}: {how}", found.len());
    }
}

/// Without the words of a panic that is looked for.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    QUIET.set(true);
    let done = work();
    QUIET.set(false);
    done
}
