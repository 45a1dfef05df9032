//! Messages that the handler holds open and finishes later, and calls that no message asks for. (The guest `holder`.)

use crate::check::{Stage, manifest, output, wait_for_records};
use crate::support::client::{committed, read_all};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::kafka_or_not_run;

/// The holder on one partition: `handler` are lines of `[handler]`, `rest` lines after the output.
fn holder(stage: &Stage<'_>, handler: &str, rest: &str) -> HostOptions {
    let rest = format!("{}{rest}", output("out", &stage.output));
    let text = manifest(&stage.group, &guest("holder"), &stage.input, "", &rest);
    let text = text.replacen("[source]", &format!("{handler}\n[source]"), 1);
    HostOptions::manifest(stage.kafka, &stage.group, &text)
}

const KEEP: &str = "settings = { keep = true }";

/// Lines that give up a message after so many attempts, and after a hold of a second.
fn errors(attempts: u32, dead: &str) -> String {
    format!(
        "[hold]\ntimeout = \"1s\"\n[errors]\nretry = {{ attempts = {attempts}, backoff = \"10ms\" }}\n\
         dead_letter = {{ topic = \"{dead}\" }}\n"
    )
}

fn values(stage: &Stage<'_>, topic: &str) -> Vec<String> {
    read_all(stage.kafka, topic).iter().map(|record| record.value_text().to_owned()).collect()
}

/// Waits until the handler has so many messages that are not finished.
fn wait_until_held(host: &SluiceHost, count: f64) {
    host.wait_for_metric("sluicebox_in_flight_messages", &[], count);
}

fn nothing_committed(stage: &Stage<'_>) {
    let committed = committed(stage.kafka, &stage.group, &stage.input);
    assert!(matches!(committed[..], [None | Some(0)]), "{committed:?}");
}

/// Proves: what is held is not committed, though the handler answered; what a later message acks is; and what is still held when
/// a host ends, in order or by a kill, is offered to the next one again.
#[test]
fn held_messages_hold_the_commit_back() {
    let kafka = kafka_or_not_run!("held_messages_hold_the_commit_back");
    let stage = Stage::new(kafka, "hold", 1);
    stage.produce(&["a", "b", "c"]);
    // Nobody commits the place where the group begins before the first host is killed, however slow the machine.
    let options = holder(&stage, KEEP, "[ack]\ncommit_interval = \"10s\"\n");
    let greeting = |from: &str| format!("{}-0 from {from}", stage.input);
    let mut expected = Vec::new();
    for way in [SluiceHost::kill, SluiceHost::stop] {
        let host = options.start();
        wait_until_held(&host, 3.0);
        nothing_committed(&stage);
        expected.push(greeting("start"));
        wait_for_records(kafka, &stage.output, expected.len());
        way(&host);
        if host.exited().is_some_and(|exit| exit.status.success()) {
            expected.push("shutdown 3".to_owned());
        }
    }
    nothing_committed(&stage);
    let host = options.start();
    wait_until_held(&host, 3.0);
    stage.produce(&["release"]);
    stage.wait_committed();
    wait_until_held(&host, 0.0);
    host.stop();
    // The one that ended in order has committed the place that the group has.
    expected.extend([greeting("0"), "release".to_owned(), "shutdown 0".to_owned()]);
    assert_eq!(values(&stage, &stage.output), expected);
}

/// Proves: a message that is held for too long has failed an attempt: it is offered again and held again, and when its attempts
/// are used up it is a dead letter that says so. Acks that come after that are counted and change nothing.
#[test]
fn a_hold_that_expires_is_a_failed_attempt() {
    let kafka = kafka_or_not_run!("a_hold_that_expires_is_a_failed_attempt");
    let stage = Stage::new(kafka, "expired", 1);
    let dead = stage.topic("dead", 1);
    stage.produce(&["a"]);
    let host = holder(&stage, KEEP, &errors(2, &dead)).start();
    wait_for_records(kafka, &dead, 1);
    stage.wait_committed();
    let letters = read_all(kafka, &dead);
    let header = |name: &str| {
        let value = letters[0].header(&format!("sluicebox-error-{name}"));
        String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
    };
    assert_eq!((letters.len(), letters[0].value_text()), (1, "a"));
    assert_eq!((header("class"), header("attempts")), ("hold_expired".to_owned(), "2".to_owned()));
    // The handler still has both of its tokens.
    stage.produce(&["release"]);
    stage.wait_committed();
    host.wait_for_metric("sluicebox_late_acks_total", &[], 2.0);
    host.stop();
    assert_eq!(read_all(kafka, &dead).len(), 1, "a late ack does nothing");
}

/// Proves: messages that the handler fails later take the way of failed messages, each by itself.
#[test]
fn held_messages_that_are_failed_are_dead_letters() {
    let kafka = kafka_or_not_run!("held_messages_that_are_failed_are_dead_letters");
    let stage = Stage::new(kafka, "failed-later", 1);
    let dead = stage.topic("dead", 1);
    let rest = errors(1, &dead).replace("timeout = \"1s\"", "timeout = \"5m\"");
    stage.produce(&["a", "b", "fail", "c", "release"]);
    let host = holder(&stage, KEEP, &rest).start();
    stage.wait_committed();
    host.stop();
    let letters = read_all(kafka, &dead);
    assert_eq!(values(&stage, &dead), ["a", "b"]);
    for letter in &letters {
        assert_eq!(letter.header("sluicebox-error-text"), Some(&b"a later message asks for it"[..]));
    }
}

/// Proves: when the instance that holds messages is lost to a fault, nobody could ack them any more: they are offered to the new
/// instance, without an attempt counted, and are done when that one acks them.
#[test]
fn what_a_lost_instance_held_is_offered_again() {
    let kafka = kafka_or_not_run!("what_a_lost_instance_held_is_offered_again");
    let stage = Stage::new(kafka, "lost-instance", 1);
    let dead = stage.topic("dead", 1);
    let rest = errors(1, &dead).replace("timeout = \"1s\"", "timeout = \"5m\"");
    stage.produce(&["a", "b", "trap"]);
    let host = holder(&stage, KEEP, &rest).start();
    wait_for_records(kafka, &dead, 1);
    nothing_committed(&stage);
    wait_until_held(&host, 2.0);
    stage.produce(&["release"]);
    stage.wait_committed();
    host.wait_for_metric("sluicebox_late_acks_total", &[], 0.0);
    host.stop();
    assert_eq!(values(&stage, &dead), ["trap"], "its neighbours failed no attempt");
    let greetings = values(&stage, &stage.output).iter().filter(|text| text.contains("-0 from ")).count();
    assert!(greetings >= 2, "the new instance was told of its partition");
}

/// Proves: the timer of a handler runs on a partition that gets nothing: what it emits arrives, and what it acks is committed.
#[test]
fn a_timer_runs_on_a_quiet_partition() {
    let kafka = kafka_or_not_run!("a_timer_runs_on_a_quiet_partition");
    let stage = Stage::new(kafka, "tick", 1);
    stage.produce(&["a", "b"]);
    let host = holder(&stage, "tick = \"300ms\"", "").start();
    // Each tick acks one, so that two more commit all.
    stage.wait_committed();
    let before = read_all(kafka, &stage.output).len();
    wait_for_records(kafka, &stage.output, before + 3);
    host.stop();
    let said = values(&stage, &stage.output);
    let counts: Vec<u32> = said.iter().filter_map(|text| text.parse().ok()).collect();
    let from = counts.iter().position(|count| *count > 0).expect("a tick with something held");
    assert!(counts[from..].starts_with(&[2, 1, 0, 0, 0]) || counts[from..].starts_with(&[1, 1, 0, 0, 0]), "{said:?}");
}
