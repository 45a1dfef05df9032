//! Another version of the handler on a share of the partitions first: a good one is promoted, a bad one is taken back, what
//! it failed at is done by the version before, and nothing is given up because of it.

use std::path::PathBuf;
use std::time::Instant;

use crate::check::{Difference, Load, Stage, assert_in_order, difference, manifest, output};
use crate::judge::{assert_versions_in_order, version};
use crate::support::client::{Record, read_all};
use crate::support::command::{Ended, sha256 as digest, sluicebox};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::{Kafka, kafka_or_not_run};
use crate::support::{PATIENCE, scratch, unique};
use crate::swap::Plugin;

/// What marks the place in the component of `changing` that says what it does.
const MARK: &[u8] = b"sluicebox-test-behaviour:";
/// Bytes of that place.
const PLACE: usize = 64;

/// A host with a handler that can be deployed to, under load.
struct Trial<'a> {
    stage: Stage<'a>,
    plugin: Plugin,
    dead: String,
    host: SluiceHost,
    load: Load,
}

impl<'a> Trial<'a> {
    /// `more` goes into [handler]; `partitions` are fed `per_second` records in all.
    fn start(kafka: &'a Kafka, name: &str, more: &str, partitions: i32, per_second: u64) -> Self {
        let stage = Stage::new(kafka, name, partitions);
        let dead = stage.topic("dead", 1);
        let plugin = Plugin::of("changing");
        let directory = scratch().join(unique(name));
        std::fs::create_dir_all(&directory).expect("a writable directory");
        let rest = format!(
            "[errors]\ndead_letter = {{ topic = \"{dead}\" }}\nretry = {{ attempts = 2, backoff = \"50ms\" }}\n{}\
             provenance = true\n",
            output("out", &stage.output)
        );
        let text = manifest(&stage.group, &plugin.path, &stage.input, "", &rest);
        let text = text.replace("[source]", &format!("{more}\n[source]"));
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a writable directory");
            path.display().to_string()
        };
        let host = format!("data_dir = \"state\"\n[cluster.default]\nbootstrap = \"{}\"\n", kafka.bootstrap());
        let (manifest, config) = (write("pipeline.toml", &text), write("host.toml", &host));
        let host = SluiceHost::start(&["host", "-f", &manifest, "--config", &config, "--admin", "127.0.0.1:0"]);
        let load = Load::paced(&stage, 100, 512, per_second);
        host.wait_for_at_least("sluicebox_messages_consumed_total", &[], 1.0);
        Self { stage, plugin, dead, host, load }
    }

    /// The component that does something else: what it says at its marked place is written over.
    fn that(&self, behaviour: &str) -> Vec<u8> {
        let mut bytes = self.plugin.bytes.clone();
        let found = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
        // The mark itself is a text of the component, too.
        let places: Vec<usize> =
            found.map(|(at, _)| at).filter(|at| bytes[at + MARK.len()..].starts_with(b"forward ")).collect();
        let [place] = places[..] else { panic!("the component has its mark at {places:?}") };
        let text = format!("{:<1$}", behaviour, PLACE - MARK.len());
        bytes[place + MARK.len()..place + PLACE].copy_from_slice(text.as_bytes());
        bytes
    }

    /// A file with it.
    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = scratch().join(format!("{}.wasm", unique("version")));
        std::fs::write(&path, bytes).expect("a writable directory");
        path
    }

    fn deploy(&self, bytes: &[u8], more: &[&str]) -> Ended {
        let path = self.file(bytes).display().to_string();
        self.tell(&[&["deploy", &self.stage.group, &path], more].concat())
    }

    fn tell(&self, arguments: &[&str]) -> Ended {
        let url = format!("http://{}", self.host.admin());
        sluicebox(&[arguments, &["--host", &url]].concat())
    }

    fn status(&self) -> serde_json::Value {
        self.tell(&["status", &self.stage.group, "-o", "json"]).ok().json()["hosts"][0]["pipelines"][0].clone()
    }

    /// Ends the load and waits for the last record; the output and the dead letters.
    fn end(self) -> (Vec<Record>, Vec<Record>, u64, f64) {
        let count = self.load.stop();
        self.stage.wait_committed();
        let rebalances = self.host.metric_with("sluicebox_rebalances_total", &["kind=\"assigned\""]);
        self.host.stop();
        let kafka = self.stage.kafka;
        (read_all(kafka, &self.stage.output), read_all(kafka, &self.dead), count, rebalances.unwrap_or(0.0))
    }
}

/// Proves: a good version runs on its share of the partitions first, both versions' figures are told by `status` meanwhile –
/// to people and to programs –, then it is promoted; every record is done once, in order, and no partition goes back.
#[test]
fn a_good_canary_is_promoted() {
    let kafka = kafka_or_not_run!("a_good_canary_is_promoted");
    let trial = Trial::start(kafka, "promoted", "", 8, 4_000);
    let new = trial.plugin.variant(1);
    let (ended, seen, said) = std::thread::scope(|scope| {
        let begun = scope.spawn(|| trial.deploy(&new, &["--canary", "25%", "--for", "4s", "-o", "json"]));
        let both = |status: &serde_json::Value| {
            let swap = &status["swap"];
            let served = |of: &str| swap[of]["messages"].as_u64().unwrap_or(0);
            swap["stage"] == "canary" && served("old") > 0 && served("new") > 0
        };
        let mut seen = None;
        trial.host.process().wait_until("its canary never showed both figures", PATIENCE, || {
            seen = Some(trial.status()).filter(both);
            seen.is_some()
        });
        let said = trial.tell(&["status", &trial.stage.group]).ok().data;
        (begun.join().expect("no panic"), seen.expect("it was seen"), said)
    });
    assert_eq!((&seen["swap"]["on_new"], &seen["version"]), (&2.into(), &digest(&trial.plugin.bytes).into()), "{seen}");
    for part in ["canary on 2 of 8 partitions: ", "0.0 % failed, p99 ", "; the old version "] {
        assert!(said.contains(part), "no `{part}` in {said}");
    }
    let operation = ended.ok().json()["hosts"][0]["operation"].clone();
    assert_eq!((operation["state"].as_str(), operation["result"]["on_new"].as_u64()), (Some("done"), Some(8)));
    assert_eq!(trial.status()["version"], digest(&new).as_str());
    let order = [digest(&trial.plugin.bytes), digest(&new)];
    let (records, letters, count, rebalances) = trial.end();
    assert_eq!((letters.len(), rebalances), (0, 1.0));
    assert_eq!(difference(&records, count), Difference::default());
    assert_in_order(&records);
    assert_eq!(assert_versions_in_order(&records, &order).len(), 2);
}

/// Proves: whatever is wrong with a version that starts, it is taken back while it runs on its share of the partitions, for a
/// reason that is said; what it failed at is done by the version before; nothing becomes a dead letter because of it, nothing
/// is lost, repeated or done by anybody else, and the group does not rebalance. One version after the other: one that
/// rejects from its first record on, from its 1,000th on, panics, takes long, leaks memory; whose timer fails, whose
/// greeting of its partition fails. (Row G2.)
#[test]
fn a_bad_canary_is_taken_back_and_nothing_is_given_up() {
    let kafka = kafka_or_not_run!("a_bad_canary_is_taken_back_and_nothing_is_given_up");
    let trial = Trial::start(kafka, "taken-back", "tick = \"100ms\"", 8, 2_000);
    let good = digest(&trial.plugin.bytes);
    let mut took = Vec::new();
    for (behaviour, reason) in [
        ("reject 1", "% of its messages fail"),
        ("reject-above 1000", "% of its messages fail"),
        ("panic 1", "% of its messages fail"),
        ("take 20", "(99th percentile), the old version"),
        ("leak 8", "% of its messages fail"),
        ("tick-fails", "keeps failing, on the old version none does"),
        ("greeting-fails", "keeps failing, on the old version none does"),
    ] {
        // Of the next records: a canary has a quarter of the partitions.
        let done = trial.host.metric("sluicebox_messages_consumed_total").expect("it is there") as u64;
        let told = behaviour.replace("above 1000", &format!("above {}", done + 4 * 1000));
        let begun = Instant::now();
        let ended = trial.deploy(&trial.that(&told), &["--canary", "25%", "--for", "60s"]);
        took.push(format!("{behaviour}: {:.1} s", begun.elapsed().as_secs_f64()));
        assert_eq!(ended.code, Some(1), "{behaviour}: {ended:?}");
        assert!(ended.data.contains("serves again: the canary is worse: ") && ended.data.contains(reason), "{ended:?}");
        assert_eq!(trial.status()["version"], good.as_str(), "{behaviour}");
    }
    println!("taken back: {}", took.join(", "));
    let (records, letters, count, rebalances) = trial.end();
    assert_eq!((letters.len(), rebalances), (0, 1.0));
    assert_eq!(difference(&records, count), Difference::default());
    let canaries = records.iter().filter(|record| version(record) != good).count();
    assert!(canaries > 0, "the version that rejects from its 1,000th on did some");
}

/// Proves: an emission of a canary that no broker takes is no end of its record: the version before does the record again, and
/// there is no dead letter.
#[test]
fn what_brokers_refuse_of_a_canary_is_done_by_the_version_before() {
    let kafka = kafka_or_not_run!("what_brokers_refuse_of_a_canary_is_done_by_the_version_before");
    let trial = Trial::start(kafka, "refused", "", 4, 1_000);
    let good = digest(&trial.plugin.bytes);
    let bad = trial.that("large 5");
    let ended = trial.deploy(&bad, &["--canary", "25%", "--for", "60s"]);
    assert!(ended.code == Some(1) && ended.data.contains("serves again: the canary is worse: "), "{ended:?}");
    assert_eq!(trial.status()["version"], good.as_str());
    let (records, letters, count, _) = trial.end();
    assert_eq!(letters.len(), 0);
    assert_eq!(difference(&records, count), Difference::default());
}

/// Proves: what does not even start, or is no handler for this pipeline, is refused with its reason and a way out, be it for a
/// canary or for all, and the version that runs is not touched. (Rows G2, G3.)
#[test]
fn what_cannot_run_is_refused_before_anything_switches() {
    let kafka = kafka_or_not_run!("what_cannot_run_is_refused_before_anything_switches");
    let trial = Trial::start(kafka, "refused-at-once", "limits = { init_running_time = \"200ms\" }", 4, 2_000);
    let good = trial.plugin.bytes.clone();
    let read = |name: &str| std::fs::read(guest(name)).expect("it was built");
    let mut versions = vec![
        (trial.that("init-fails"), "does not start (init)", "correct it, or the `settings`"),
        (trial.that("init-loops"), "does not start (deadline)", "correct it, or the `settings`"),
        (read("needs-sockets"), "imports what is not granted", "sockets and name lookup are never granted"),
        (read("wrong-world"), "does not fit sluicebox:plugin@0.1.0", "build it against this host's wit/"),
        (read("raw-signature"), "expected func", "build it against this host's wit/"),
        (read("batch-sum"), "handles batches", "restart the host with it"),
        (b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module", "wasm32-wasip2"),
        (b"#!/bin/sh\n".to_vec(), "no WebAssembly component", "give the .wasm file"),
    ];
    // Cut at every hundredth of its length.
    versions
        .extend((1..100).map(|part| (good[..good.len() * part / 100].to_vec(), "truncated", "copy or build it again")));
    for (number, (bytes, reason, help)) in versions.iter().enumerate() {
        let canary: &[&str] = if number % 2 == 0 { &[] } else { &["--canary", "50%", "--for", "1s"] };
        let ended = trial.deploy(bytes, canary);
        assert_eq!(ended.code, Some(1), "{number}: {ended:?}");
        for part in [reason, help, "the old version serves on"] {
            assert!(ended.talk.contains(part), "{number}: no `{part}` in {ended:?}");
        }
    }
    let consumed = trial.host.metric("sluicebox_messages_consumed_total").expect("it is there");
    trial.host.wait_for_at_least("sluicebox_messages_consumed_total", &[], consumed + 100.0);
    let swaps = |outcome: &str| trial.host.metric_with("sluicebox_swaps_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!([swaps("done"), swaps("refused")], [Some(0.0), Some(versions.len() as f64)], "nothing switched");
    let (records, letters, count, rebalances) = trial.end();
    assert_eq!((letters.len(), rebalances), (0, 1.0));
    assert_eq!(difference(&records, count), Difference::default());
    assert!(records.iter().all(|record| version(record) == digest(&good)));
}
