//! A broker that goes and comes back, and one that is not there yet.

use crate::check::{Load, Stage, assert_in_order, difference, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, create_topic, read_all, total};
use crate::support::guests::guest;
use crate::support::host::HostOptions;
use crate::support::kafka::{Options, kafka_or_not_run};
use crate::support::unique;

/// Proves: a broker restarted under load costs no record; while it is away `/readyz`, log and metrics say so, and when it is
/// back the host goes on and says that by itself, without a restart of its own.
#[test]
fn the_broker_restarts_under_load() {
    let kafka = kafka_or_not_run!("the_broker_restarts_under_load", Options::default());
    let stage = Stage::new(&kafka, "restart", 4);
    let load = Load::start(&stage, 100, 512);
    let host = stage.host(&guest("forward")).start();
    wait_for_records(&kafka, &stage.output, 20_000);
    kafka.stop();
    host.wait_for_answer("/readyz", "that the broker is away", |answer| {
        answer.status == 503 && answer.body.contains(kafka.bootstrap()) && answer.body.contains("does not answer")
    });
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"waiting\""], 1.0);
    host.wait_for_line("waiting: cluster `default`", PATIENCE);
    kafka.start();
    host.wait_for_answer("/readyz", "that the broker is back", |answer| answer.status == 200);
    let before = usize::try_from(total(&kafka, &stage.output)).expect("a count");
    wait_for_records(&kafka, &stage.output, before + 20_000);
    let count = load.stop();
    stage.wait_committed();
    host.stop();
    let output = read_all(&kafka, &stage.output);
    let found = difference(&output, count);
    assert_eq!(found.missing, 0);
    assert_in_order(&output);
    eprintln!("broker restart: {} of {count} records repeated", found.repeated);
}

/// Proves: a host that starts before its broker and its topics waits, says for what on `/readyz`, and begins by itself
/// when they are there.
#[test]
fn the_host_starts_before_the_broker() {
    let kafka = kafka_or_not_run!("the_host_starts_before_the_broker", Options { stopped: true, ..Options::default() });
    let (input, output, group) = (unique("early-in"), unique("early-out"), unique("early"));
    let host = HostOptions::new(&kafka, &guest("forward"), &[&input], &group).output(&output).start();
    // The admin port serves before the pipelines do.
    host.wait_for_answer("/readyz", "that it waits for the broker", |answer| {
        answer.status == 503 && answer.body.contains(kafka.bootstrap())
    });
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"waiting\""], 1.0);
    host.wait_for_line("waiting: cluster `default`", PATIENCE);
    kafka.start();
    create_topic(&kafka, &input, 1);
    create_topic(&kafka, &output, 1);
    Producer::new(&kafka).send(&input, &[NewRecord::new("key", "at last")]);
    wait_for_records(&kafka, &output, 1);
    host.wait_for_answer("/readyz", "that it is ready", |answer| answer.status == 200);
    host.stop();
    assert_eq!(read_all(&kafka, &output)[0].value_text(), "at last");
}
