//! Several pipelines in one process, from a directory of manifests and the platform team's file.

use crate::check::{Site, Stage, manifest, output, pipeline, sorted_values, wait_committed, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{create_topic, delete_topic, read_all};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::kafka::{Kafka, Options, kafka_or_not_run};
use crate::support::tools::Tools;
use crate::support::unique;

const RECORDS: u64 = 5_000;

/// A host whose only cluster is this one.
fn site(kafka: &Kafka) -> Site {
    Site::new(&Site::cluster("default", kafka))
}

/// Waits until `/readyz` refuses with a reason of this pipeline that contains all of `words`, and the metric says the same.
fn wait_for_reason(host: &SluiceHost, name: &str, words: &[&str]) {
    host.wait_for_answer("/readyz", &format!("that {name} waits: {words:?}"), |answer| {
        // One object per pipeline; the reason follows the name.
        let rest = answer.body.split(&format!("\"name\":\"{name}\"")).nth(1).unwrap_or_default();
        let own = rest.split("\"name\":").next().unwrap_or_default();
        let said = own.contains("\"state\":\"waiting\"") && words.iter().all(|word| own.contains(word));
        answer.status == 503 && said
    });
    wait_for_state(host, name, "waiting", true);
    wait_for_state(host, name, "running", false);
}

fn wait_for_state(host: &SluiceHost, name: &str, state: &str, is_in_it: bool) {
    let labels = [pipeline(name), format!("state=\"{state}\"")];
    host.wait_for_metric("sluicebox_pipeline_state", &[&labels[0], &labels[1]], f64::from(u8::from(is_in_it)));
}

/// Proves: pipelines that read one topic do so each in its own group, through its own handler, to its own output, and each
/// commits all of it; figures are told apart by the pipeline's name.
#[test]
fn each_has_its_own_group_handler_and_output() {
    let kafka = kafka_or_not_run!("each_has_its_own_group_handler_and_output");
    let stage = Stage::new(kafka, "several", 2);
    stage.produce_numbered(0, RECORDS, 60, 16);
    let names: Vec<String> = ["forward", "uppercase"].iter().map(|plugin| unique(plugin)).collect();
    let outputs = [stage.topic("forward", 2), stage.topic("uppercase", 2)];
    let site = site(kafka);
    for ((name, plugin), topic) in names.iter().zip(["forward", "uppercase"]).zip(&outputs) {
        site.add(name, &stage.pipeline(name, &guest(plugin), &output("out", topic)));
    }
    let host = site.start();
    for name in &names {
        wait_committed(kafka, name, &stage.input);
        host.wait_for_metric("sluicebox_messages_consumed_total", &[&pipeline(name)], RECORDS as f64);
    }
    host.wait_for_answer("/readyz", "that all are ready", |answer| answer.status == 200);
    host.stop();
    let (as_it_was, transformed) = (sorted_values(&read_all(kafka, &outputs[0])), read_all(kafka, &outputs[1]));
    assert_eq!(as_it_was, sorted_values(&read_all(kafka, &stage.input)));
    let upper: Vec<String> = as_it_was.iter().map(|value| value.to_uppercase()).collect();
    assert_eq!(sorted_values(&transformed), upper);
}

/// Proves: a pipeline whose topic is missing waits, says so with the nearest name in the log, on `/readyz` and in the
/// metrics, and joins nothing, while the other one does all its work; it starts by itself when the topic is there.
#[test]
fn one_waits_for_its_topic_and_the_other_goes_on() {
    let kafka = kafka_or_not_run!("one_waits_for_its_topic_and_the_other_goes_on");
    let stage = Stage::new(kafka, "beside", 2);
    stage.produce_numbered(0, RECORDS, 60, 16);
    let (busy, waiting) = (unique("busy"), unique("waiting"));
    // A letter short of a topic that is there.
    let near = stage.topic("payments", 1);
    let missing = near.replace("payments", "payment");
    let late = stage.topic("late", 1);
    let site = site(kafka);
    site.add(&busy, &stage.pipeline(&busy, &guest("uppercase"), &output("out", &stage.output)));
    site.add(&waiting, &manifest(&waiting, &guest("forward"), &missing, "", &output("out", &late)));
    let host = site.start();

    let line = host.wait_for_line(&missing, PATIENCE);
    assert!(line.contains("waiting") && line.contains(&near), "the log suggests {near}: {line}");
    wait_for_reason(&host, &waiting, &[&missing, "does not exist", &near]);
    wait_committed(kafka, &busy, &stage.input);
    wait_for_state(&host, &busy, "running", true);
    assert_eq!(read_all(kafka, &stage.output).len() as u64, RECORDS);
    assert_eq!(host.get("/livez").status, 200, "a host that waits is alive");
    let tools = Tools(kafka);
    assert!(!tools.group_exists(&waiting), "it joined its group without its topic");

    create_topic(kafka, &missing, 1);
    tools.console_produce(&missing, "at last\n", None);
    wait_for_records(kafka, &late, 1);
    wait_committed(kafka, &waiting, &missing);
    host.wait_for_answer("/readyz", "that all are ready", |answer| answer.status == 200);
    wait_for_state(&host, &waiting, "running", true);
    host.stop();
    assert_eq!(sorted_values(&read_all(kafka, &late)), ["at last"]);
}

/// Proves: a handler whose `init` fails leaves its pipeline waiting with `init`'s own words and outside of its group, the
/// other one works; it is tried again and again: what is wrong next is what it says next.
#[test]
fn one_whose_init_fails_waits_and_disturbs_no_other() {
    let kafka = kafka_or_not_run!("one_whose_init_fails_waits_and_disturbs_no_other");
    let stage = Stage::new(kafka, "init", 2);
    stage.produce_numbered(0, RECORDS, 60, 16);
    let (busy, failing) = (unique("busy"), unique("failing"));
    let gone = stage.topic("gone", 1);
    let site = site(kafka);
    site.add(&busy, &stage.pipeline(&busy, &guest("uppercase"), &output("out", &stage.output)));
    site.add(&failing, &stage.pipeline(&failing, &guest("init-fails"), &output("out", &gone)));
    let host = site.start();

    wait_for_reason(&host, &failing, &["init", "ok: has to be true"]);
    wait_committed(kafka, &busy, &stage.input);
    wait_for_state(&host, &busy, "running", true);
    assert!(!Tools(kafka).group_exists(&failing), "it joined its group without a handler");
    // Nothing of the handler changes, so a new try shows by what else is missing.
    delete_topic(kafka, &gone);
    wait_for_reason(&host, &failing, &[&gone, "does not exist"]);
    create_topic(kafka, &gone, 1);
    wait_for_reason(&host, &failing, &["ok: has to be true"]);
    wait_for_state(&host, &busy, "running", true);
    host.stop();
    assert_eq!(read_all(kafka, &stage.output).len() as u64, RECORDS);
}

/// Proves: an output may be on another cluster: records arrive there, and only there, before their input is committed; while
/// that cluster is away the pipeline says which one it waits for.
#[test]
fn an_output_on_another_cluster() {
    let kafka = kafka_or_not_run!("an_output_on_another_cluster");
    let far = kafka_or_not_run!("an_output_on_another_cluster", Options { stopped: true, ..Options::default() });
    let stage = Stage::new(kafka, "far", 2);
    stage.produce_numbered(0, RECORDS, 60, 16);
    let site = Site::new(&format!("{}{}", Site::cluster("default", kafka), Site::cluster("far", &far)));
    let name = unique("to-far");
    // The topic has this name on both clusters, and another number of partitions on the far one.
    let rest = format!("{}cluster = \"far\"\n", output("out", &stage.output));
    site.add(&name, &stage.pipeline(&name, &guest("forward"), &rest));
    let host = site.start();
    wait_for_reason(&host, &name, &["cluster `far`", far.bootstrap()]);

    far.start();
    create_topic(&far, &stage.output, 3);
    wait_committed(kafka, &name, &stage.input);
    host.stop();
    let arrived = read_all(&far, &stage.output);
    assert_eq!(sorted_values(&arrived), sorted_values(&read_all(kafka, &stage.input)));
    assert!((0..3).all(|partition| arrived.iter().any(|record| record.partition == partition)), "three partitions");
    assert_eq!(read_all(kafka, &stage.output), vec![], "nothing went to the topic of that name here");
}
