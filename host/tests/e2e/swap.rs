//! Another version of the handler while records flow: its file is replaced, and nothing is lost, repeated, reordered or
//! rebalanced; what does not fit leaves the old version serving.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::check::{Difference, Load, Stage, assert_in_order, difference, manifest, output, wait_for_records};
use crate::judge::{assert_versions_in_order, judge, version};
use crate::support::client::{Reader, Record, delete_topic, read_all, total};
use crate::support::command::sha256 as digest;
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::{Kafka, Options, kafka_or_not_run};
use crate::support::{PATIENCE, scratch, unique};

const PROVENANCE: &str = "provenance = true\n";

/// A component file that is replaced.
pub struct Plugin {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

impl Plugin {
    /// A copy of a guest's component in a place of its own.
    pub fn of(name: &str) -> Plugin {
        let bytes = std::fs::read(guest(name)).expect("it was built");
        let plugin = Plugin { path: scratch().join(format!("{}.wasm", unique(name))), bytes };
        plugin.replace(&plugin.bytes);
        plugin
    }

    /// The same handler with other bytes, and so with another digest: a custom section says `number`.
    pub fn variant(&self, number: usize) -> Vec<u8> {
        let name = b"variant";
        let content = [&[name.len() as u8], &name[..], &number.to_le_bytes()].concat();
        [&self.bytes[..], &[0, content.len() as u8], &content].concat()
    }

    /// As a build or a deployment does it: a new file takes the place of the old one.
    pub fn replace(&self, bytes: &[u8]) -> String {
        let new = self.path.with_extension("new");
        std::fs::write(&new, bytes).expect("a writable directory");
        std::fs::rename(&new, &self.path).expect("the same directory");
        digest(bytes)
    }
}

/// A host that runs a manifest, whose file stays where the test can change it.
fn start(stage: &Stage<'_>, path: &Path, text: &str) -> SluiceHost {
    std::fs::write(path, text).expect("a writable directory");
    let path = path.display().to_string();
    SluiceHost::start(&["host", "-f", &path, "--admin", "127.0.0.1:0", "--bootstrap", stage.kafka.bootstrap()])
}

fn manifest_path() -> PathBuf {
    scratch().join(format!("{}.toml", unique("swap")))
}

/// Waits until every partition runs this version; the line that says so.
fn wait_for_swap(host: &SluiceHost, digest: &str) -> String {
    let what = format!("that it swapped to {digest}");
    host.process().wait_for(&what, PATIENCE, |line| line.contains("swapped:") && line.contains(digest))
}

/// A figure of such a line.
fn figure(line: &str, name: &str) -> f64 {
    let line: serde_json::Value = serde_json::from_str(line).expect("a line of the log is JSON");
    line[name].as_f64().unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// Proves: the component's file is replaced again and again while the host reads as fast as it can, and every record is in the
/// output once, in order, with the digest of the version that made it; no partition returns to an earlier version; the group
/// does not rebalance; the time in which a partition is served by nobody is short and said. (Rows G1, G7, G9.)
#[test]
fn swaps_at_full_speed_lose_repeat_and_reorder_nothing() {
    let kafka = kafka_or_not_run!("swaps_at_full_speed_lose_repeat_and_reorder_nothing");
    swap_at_full_speed(kafka, 32, 8_000_000);
}

/// Proves: the same of as many swaps as the catalogue has. (Row G1.)
#[test]
#[ignore = "takes a quarter of an hour"]
fn five_hundred_swaps_lose_repeat_and_reorder_nothing() {
    let kafka = kafka_or_not_run!("five_hundred_swaps_lose_repeat_and_reorder_nothing");
    swap_at_full_speed(kafka, 500, 16_000_000);
}

/// What swaps of one host were found to be.
#[derive(Default)]
struct Swaps {
    /// The longest gap of each, ms.
    gaps: Vec<f64>,
    /// Partitions that went over within 5 ms, of all that did.
    short: (f64, f64),
    records: u64,
    /// Records, and the seconds that they took.
    rate: (u64, f64),
}

/// At least so many swaps, each while a host has a backlog before it: as many backlogs of this size as that takes, one after the
/// other, each with topics, a group and a host of its own.
fn swap_at_full_speed(kafka: &Kafka, swaps: usize, backlog: u64) {
    let mut all = Swaps::default();
    while all.gaps.len() < swaps {
        swap_through_backlog(kafka, backlog, &mut all);
    }
    all.gaps.sort_by(f64::total_cmp);
    let count = all.gaps.len();
    let (p50, p99, longest) = (all.gaps[count / 2], all.gaps[count * 99 / 100], all.gaps[count - 1]);
    println!(
        "{count} swaps of 8 partitions at {:.0} records/s, {} records judged: {:.2} % of the partitions' gaps are at most 5 ms; \
         the longest gap of a swap: p50 {p50} ms, p99 {p99} ms, of all {longest} ms",
        all.rate.0 as f64 / all.rate.1,
        all.records,
        all.short.0 / all.short.1 * 100.0
    );
    assert!(p50 < 250.0, "half of the swaps were over in {p50} ms");
}

/// Swaps as often as it goes, until the host has nearly done its backlog.
fn swap_through_backlog(kafka: &Kafka, backlog: u64, all: &mut Swaps) {
    let stage = Stage::new(kafka, "swaps", 8);
    stage.produce_numbered(0, backlog, 100, 512);
    let plugin = Plugin::of("forward");
    let text = manifest(&stage.group, &plugin.path, &stage.input, "", &(output("out", &stage.output) + PROVENANCE));
    let host = start(&stage, &manifest_path(), &text);
    let consumed = || host.metric("sluicebox_messages_consumed_total").unwrap_or(0.0) as u64;
    host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
    let (begun, mut order) = (Instant::now(), vec![digest(&plugin.bytes)]);
    // What counts is over while there still is a backlog.
    while consumed() < backlog / 4 * 3 {
        let number = order.len();
        order.push(plugin.replace(&plugin.variant(number)));
        let line = wait_for_swap(&host, &order[number]);
        assert!(figure(&line, "lanes") == 8.0 && line.contains(&order[number - 1]), "{line}");
        all.gaps.push(figure(&line, "gap_max_ms"));
        assert!(consumed() < backlog, "there was no backlog any more before swap {number} was over: take a larger one");
    }
    all.rate = (all.rate.0 + consumed(), all.rate.1 + begun.elapsed().as_secs_f64());
    let swaps = order.len() - 1;
    stage.wait_committed();
    host.wait_for_metric("sluicebox_pipeline_info", &[&format!("version=\"{}\"", order[swaps])], 1.0);
    assert_eq!(host.metric_with("sluicebox_rebalances_total", &["kind=\"assigned\""]), Some(1.0));
    host.wait_for_metric("sluicebox_swaps_total", &["outcome=\"done\""], swaps as f64);
    all.short.0 += host.metric_with("sluicebox_swap_gap_seconds_bucket", &["le=\"0.005\""]).expect("a bucket");
    let of = host.metric("sluicebox_swap_gap_seconds_count").expect("a histogram");
    assert_eq!(of, 8.0 * swaps as f64, "every partition switched every time");
    all.short.1 += of;
    host.stop();
    let judged = judge(&mut Reader::new(kafka, &stage.output), backlog, &order);
    assert_eq!(judged.difference, Difference::default());
    // Each was served for as long as the next one took: nearly all of them made something.
    assert!(judged.made.len() > swaps / 2, "{} of {} versions made a record", judged.made.len(), swaps + 1);
    all.records += backlog;
    delete_topic(kafka, &stage.input);
    delete_topic(kafka, &stage.output);
}

/// Proves: whatever takes the place of the file – cut off at many points, no component, one of another world, one whose `init`
/// fails or never ends, one that handles other things – the old version goes on, and the log says what is wrong and what to
/// do, once for each; a file that is put together slowly is never served before it is whole; the next good one is. (Rows G2,
/// G3.)
#[test]
fn what_does_not_fit_leaves_the_old_version_serving() {
    let kafka = kafka_or_not_run!("what_does_not_fit_leaves_the_old_version_serving");
    let stage = Stage::new(kafka, "unfit", 4);
    let plugin = Plugin::of("forward");
    let read = |name: &str| std::fs::read(guest(name)).expect("it was built");
    let text = manifest(&stage.group, &plugin.path, &stage.input, "", &(output("out", &stage.output) + PROVENANCE));
    let host = start(&stage, &manifest_path(), &text);
    let load = Load::paced(&stage, 100, 512, 5_000);
    host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
    let cut = |at: usize| plugin.bytes[..at].to_vec();
    let length = plugin.bytes.len();
    for (bytes, reason) in [
        (cut(0), "the file is empty"),
        (cut(5), "truncated"),
        (cut(length / 3), "truncated"),
        (cut(length - 1), "truncated"),
        (b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module"),
        (b"#!/bin/sh\n".to_vec(), "no WebAssembly component"),
        (read("wrong-world"), "does not fit sluicebox:plugin"),
        (read("needs-sockets"), "not granted"),
        (read("init-fails"), "does not start (init)"),
        (read("uppercase-batch"), "restart the host with it"),
    ] {
        let refused = plugin.replace(&bytes);
        let line = host.process().wait_for(&format!("that {refused} is refused"), PATIENCE, |line| {
            line.contains("is not taken over") && line.contains(&refused)
        });
        assert!(line.contains(reason), "{reason}: {line}");
    }
    // Written in place, slowly: the first half is looked at and refused, the whole is taken over.
    let whole = plugin.variant(1);
    std::fs::write(&plugin.path, &whole[..length / 2]).expect("a writable file");
    host.wait_for_line("is not taken over", PATIENCE);
    std::fs::write(&plugin.path, &whole).expect("a writable file");
    wait_for_swap(&host, &digest(&whole));
    let count = load.stop();
    stage.wait_committed();
    let said = host.output().iter().filter(|line| line.contains("is not taken over")).count();
    assert_eq!(said, 11, "once for each");
    assert_eq!(host.metric_with("sluicebox_rebalances_total", &["kind=\"assigned\""]), Some(1.0));
    host.stop();
    let records = read_all(kafka, &stage.output);
    assert_eq!(difference(&records, count), Difference::default());
    assert_versions_in_order(&records, &[digest(&plugin.bytes), digest(&whole)]);
}

/// Proves: a manifest that changes is taken over as well, with the same component; what cannot change while the pipeline runs
/// is refused by its name, and a manifest that is broken changes nothing; neither stops the pipeline, and both are said.
/// (Row H2.)
#[test]
fn a_changed_manifest_is_taken_over_or_refused_by_name() {
    let kafka = kafka_or_not_run!("a_changed_manifest_is_taken_over_or_refused_by_name");
    let stage = Stage::new(kafka, "reload", 2);
    let path = manifest_path();
    let rest = output("out", &stage.output);
    let plain = manifest(&stage.group, &guest("init-fails"), &stage.input, "", &rest);
    let with = |more: &str| plain.replace("[source]", &format!("{more}\n[source]"));
    let good = with("settings = { ok = true }");
    let host = start(&stage, &path, &good);
    stage.produce(&["one"]);
    stage.wait_committed();
    let write = |text: &str| std::fs::write(&path, text).expect("a writable directory");

    write("this is no manifest");
    host.wait_for_line("a manifest changed and is not taken over", PATIENCE);
    write(&good.replace(&format!("topics = [\"{}\"]", stage.input), "topics = [\"another\"]"));
    host.wait_for_line("[source] cannot change while the pipeline runs", PATIENCE);
    write(&with("settings = { ok = false }"));
    host.wait_for_line("does not start (init): init: settings: ok: has to be true", PATIENCE);
    stage.produce(&["two"]);
    stage.wait_committed();

    write(&with("settings = { ok = true }\nlimits = { memory = \"48MiB\" }"));
    host.wait_for_line("swapped:", PATIENCE);
    host.wait_for_metric("sluicebox_handler_limit", &["limit=\"memory\""], f64::from(48 << 20));
    stage.produce(&["three"]);
    stage.wait_committed();
    host.stop();
    let values: Vec<String> = crate::check::sorted_values(&read_all(kafka, &stage.output));
    assert_eq!(values, ["one", "three", "two"]);
}

/// Proves: a version on which most records fail is taken back by itself, soon and without a pause: the version before goes on,
/// and what failed meanwhile is in the dead-letter topic, once, and not much of it. (Row G2, a version that fails later.)
#[test]
fn a_version_on_which_most_records_fail_is_taken_back() {
    let kafka = kafka_or_not_run!("a_version_on_which_most_records_fail_is_taken_back");
    let stage = Stage::new(kafka, "taken-back", 2);
    let dead = stage.topic("dead", 1);
    let plugin = Plugin::of("forward");
    let errors = format!(
        "[errors]\ndead_letter = {{ topic = \"{dead}\" }}\n\
         breaker = {{ failed = 0.5, of_at_least = 20, window = \"10s\" }}\n"
    );
    let rest = format!("{errors}{}{PROVENANCE}", output("out", &stage.output));
    let host = start(&stage, &manifest_path(), &manifest(&stage.group, &plugin.path, &stage.input, "", &rest));
    let load = Load::paced(&stage, 100, 64, 1_000);
    host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
    // It rejects every number that has nothing after it to say where to go.
    let bad = plugin.replace(&std::fs::read(guest("fan-out")).expect("it was built"));
    wait_for_swap(&host, &bad);
    let line = host.wait_for_line("went back to the version before", PATIENCE);
    assert!(line.contains("records failed (errors.breaker)"), "{line}");
    let consumed = host.metric("sluicebox_messages_consumed_total").expect("it is there");
    host.wait_for_at_least("sluicebox_messages_consumed_total", &[], consumed + 500.0);
    let count = load.stop();
    stage.wait_committed();
    assert_eq!(host.metric("sluicebox_pauses_total"), Some(0.0));
    host.wait_for_metric("sluicebox_swaps_total", &["outcome=\"rolled_back\""], 1.0);
    host.wait_for_metric("sluicebox_pipeline_info", &[&format!("version=\"{}\"", digest(&plugin.bytes))], 1.0);
    host.stop();
    let (records, letters) = (read_all(kafka, &stage.output), read_all(kafka, &dead));
    assert!((1..500).contains(&letters.len()), "{} dead letters", letters.len());
    assert!(letters.iter().all(|letter| letter.header("sluicebox-error-version") == Some(bad.as_bytes())));
    assert!(records.iter().all(|record| version(record) == digest(&plugin.bytes)));
    let all: Vec<Record> = records.into_iter().chain(letters).collect();
    assert_eq!(difference(&all, count), Difference::default());
}

/// Proves: a partition whose handler keeps failing at a record is released by a version that does not, without a restart, and
/// the record is neither lost nor given up. (Row G4, back-off.)
#[test]
fn a_blocked_partition_is_released_by_a_better_version() {
    let kafka = kafka_or_not_run!("a_blocked_partition_is_released_by_a_better_version");
    let stage = Stage::new(kafka, "released", 1);
    let plugin = Plugin::of("fan-out");
    let errors = "[errors.retry]\nattempts = 2\nmax_backoff = \"1h\"\n";
    let text =
        manifest(&stage.group, &plugin.path, &stage.input, "", &format!("{}{errors}", output("out", &stage.output)));
    let host = start(&stage, &manifest_path(), &text);
    stage.produce(&["1:good", "bad", "1:better"]);
    host.wait_for_metric("sluicebox_partitions", &["state=\"blocked\""], 1.0);
    plugin.replace(&std::fs::read(guest("forward")).expect("it was built"));
    stage.wait_committed();
    host.wait_for_metric("sluicebox_partitions", &["state=\"blocked\""], 0.0);
    host.stop();
    assert_eq!(read_all(kafka, &stage.output).len(), 3);
    assert!(Duration::from_secs(3600) > PATIENCE, "it did not wait for its next attempt");
}

/// Records that a run reads, as a backlog: for longer than some swaps take.
const BACKLOG: u64 = 12_000_000;
/// Between swaps.
const EVERY: Duration = Duration::from_secs(5);

/// Proves: a pipeline that is behind and swaps its handler every five seconds is as fast as one that does not, to some percent.
/// Method: both read the same backlog, in turns, side by side; what counts is the median of the ratios.
#[test]
#[ignore = "takes some minutes, on a machine that does nothing else"]
fn swaps_cost_no_throughput() {
    let kafka = kafka_or_not_run!("swaps_cost_no_throughput");
    let stage = Stage::new(kafka, "swap-speed", 8);
    stage.produce_numbered(0, BACKLOG, 100, 512);
    let mut ratios = Vec::new();
    for round in 0..3 {
        let mut rates = [0.0, 0.0];
        // Who is first changes: the broker's cache is warmer for the second.
        for swapping in [round % 2 == 0, round % 2 == 1] {
            let (rate, swaps) = backlog_run(&stage, swapping);
            println!("{} {rate:.0} records/s, {swaps} swaps", if swapping { "with swaps" } else { "without   " });
            assert_eq!(swaps > 0, swapping, "a run is long enough for a swap");
            rates[usize::from(swapping)] = rate;
        }
        ratios.push(rates[1] / rates[0]);
    }
    ratios.sort_by(f64::total_cmp);
    println!("throughput with a swap every {} s: {:.3} of that without ({ratios:.3?})", EVERY.as_secs(), ratios[1]);
    assert!(ratios[1] >= 0.95, "{ratios:?}");
}

/// Reads the backlog with a group of its own: records per second, and how often it swapped meanwhile.
fn backlog_run(stage: &Stage<'_>, swapping: bool) -> (f64, usize) {
    let plugin = Plugin::of("forward");
    let (group, out) = (unique("swap-speed"), stage.topic("out", 8));
    let host = start(stage, &manifest_path(), &manifest(&group, &plugin.path, &stage.input, "", &output("out", &out)));
    host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
    let (begun, mut swaps) = (Instant::now(), 0);
    let mut next = begun + EVERY / 2;
    let produced = ["output=\"out\"", "result=\"ok\""];
    host.process().wait_until("it never did its backlog", 2 * PATIENCE, || {
        if swapping && Instant::now() >= next {
            swaps += 1;
            plugin.replace(&plugin.variant(swaps));
            next += EVERY;
        }
        host.metric_with("sluicebox_messages_produced_total", &produced) >= Some(BACKLOG as f64)
    });
    let rate = BACKLOG as f64 / begun.elapsed().as_secs_f64();
    let done = host.metric_with("sluicebox_swaps_total", &["outcome=\"done\""]).unwrap_or(0.0) as usize;
    assert!(done + 1 >= swaps, "{done} of {swaps} swaps were done");
    host.stop();
    delete_topic(stage.kafka, &out);
    (rate, swaps)
}

/// Proves: swaps while a second host comes and goes – before, in and after the rebalances, drains and assignments that this
/// makes – lose and repeat nothing and keep the order. (Row G4, rebalance and drain; where the race matters: the simulation.)
#[test]
fn swaps_meet_rebalances() {
    let kafka = kafka_or_not_run!("swaps_meet_rebalances");
    let stage = Stage::new(kafka, "swap-rebalance", 8);
    let plugin = Plugin::of("forward");
    let path = manifest_path();
    let text = manifest(&stage.group, &plugin.path, &stage.input, "", &(output("out", &stage.output) + PROVENANCE));
    let host = start(&stage, &path, &text);
    let load = Load::paced(&stage, 100, 512, 5_000);
    host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
    for round in 0..4 {
        let guest = start(&stage, &path, &text);
        // While it joins; the next while both have partitions; the last while it leaves.
        let joining = plugin.replace(&plugin.variant(3 * round));
        wait_for_swap(&host, &joining);
        guest.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
        let both = plugin.replace(&plugin.variant(3 * round + 1));
        wait_for_swap(&host, &both);
        guest.wait_for_metric("sluicebox_pipeline_info", &[&format!("version=\"{both}\"")], 1.0);
        let leaving = plugin.replace(&plugin.variant(3 * round + 2));
        guest.stop();
        wait_for_swap(&host, &leaving);
    }
    stage.assert_done_once(load, &host);
}

/// Proves: a host that is asked to stop while it swaps – as it tries the new version, or as its partitions go over – ends in
/// order and in time, and the next one goes on where it was: nothing is lost or repeated. (Row G4, shutdown.)
#[test]
fn swaps_meet_a_shutdown() {
    let kafka = kafka_or_not_run!("swaps_meet_a_shutdown");
    let stage = Stage::new(kafka, "swap-stop", 4);
    let plugin = Plugin::of("forward");
    let text = manifest(&stage.group, &plugin.path, &stage.input, "", &(output("out", &stage.output) + PROVENANCE));
    let load = Load::paced(&stage, 100, 512, 5_000);
    for round in 0..4 {
        let host = start(&stage, &manifest_path(), &text);
        host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
        plugin.replace(&plugin.variant(round));
        let word = if round % 2 == 0 { "changed: trying it" } else { "swapped:" };
        host.wait_for_line(word, PATIENCE);
        host.stop();
    }
    let host = start(&stage, &manifest_path(), &text);
    stage.assert_done_once(load, &host);
}

/// Proves: a swap while no broker is there is over all the same: partitions go over with what they have, nothing of it is lost,
/// and what comes after the outage is the new version's. (Row G4, outage.)
#[test]
fn swaps_meet_an_outage() {
    let kafka = kafka_or_not_run!("swaps_meet_an_outage", Options::default());
    let stage = Stage::new(&kafka, "swap-outage", 4);
    let plugin = Plugin::of("forward");
    let text = manifest(&stage.group, &plugin.path, &stage.input, "", &(output("out", &stage.output) + PROVENANCE));
    let load = Load::start(&stage, 100, 512);
    let host = start(&stage, &manifest_path(), &text);
    wait_for_records(&kafka, &stage.output, 20_000);
    kafka.stop();
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"waiting\""], 1.0);
    let mut order = vec![digest(&plugin.bytes)];
    for number in 1..=3 {
        order.push(plugin.replace(&plugin.variant(number)));
        wait_for_swap(&host, &order[number]);
    }
    kafka.start();
    host.wait_for_answer("/readyz", "that the broker is back", |answer| answer.status == 200);
    let before = usize::try_from(total(&kafka, &stage.output)).expect("a count");
    wait_for_records(&kafka, &stage.output, before + 20_000);
    let count = load.stop();
    stage.wait_committed();
    host.stop();
    let records = read_all(&kafka, &stage.output);
    // What was on its way to a broker that dies may be there twice.
    assert_eq!(difference(&records, count).missing, 0);
    assert_in_order(&records);
    let last = records.iter().filter(|record| version(record) == order[3]).count();
    assert!(last > 0, "the last version serves after the outage");
}
