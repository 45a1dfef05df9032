//! Topics that vanish while a pipeline runs, and come back.

use crate::check::{Stage, manifest, output, sorted_values, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, create_topic, delete_topic, read_all};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::kafka_or_not_run;

/// A host that notices changes of topics soon.
fn quick(options: HostOptions) -> HostOptions {
    options
        .kafka_property("topic.metadata.refresh.interval.ms", "500")
        .kafka_property("topic.metadata.propagation.max.ms", "1000")
}

/// Waits until `/readyz` names the topic as missing, or as nothing of the kind.
fn wait_until_named(host: &SluiceHost, topic: &str, named: bool) {
    host.wait_for_answer("/readyz", &format!("that {topic} is missing: {named}"), |answer| {
        let says = answer.body.contains(topic) && answer.body.contains("nknown topic");
        (answer.status == 503 && says) == named && (named || answer.status == 200)
    });
}

/// Proves: when one of two input topics is deleted, `/readyz` and the log name it for as long as it is missing, while the other
/// one is worked on; when it is made anew, it is read from its beginning, and the host is ready again, without a restart.
#[test]
fn a_vanished_input_is_named_until_it_is_back() {
    let kafka = kafka_or_not_run!("a_vanished_input_is_named_until_it_is_back");
    let stage = Stage::new(kafka, "vanished-in", 1);
    let side = stage.topic("side", 1);
    let text = manifest(&stage.group, &guest("forward"), &stage.input, "", &output("out", &stage.output));
    let text = text.replacen(&format!("[\"{}\"]", stage.input), &format!("[\"{}\", \"{side}\"]", stage.input), 1);
    let host = quick(HostOptions::manifest(kafka, &stage.group, &text)).start();
    let producer = Producer::new(kafka);
    let send = |topic: &str, value: &str| producer.send(topic, &[NewRecord::new("key", value)]);
    send(&stage.input, "one");
    send(&side, "two");
    wait_for_records(kafka, &stage.output, 2);
    stage.wait_committed();

    delete_topic(kafka, &side);
    wait_until_named(&host, &side, true);
    host.wait_for_line(&side, PATIENCE);
    send(&stage.input, "three");
    wait_for_records(kafka, &stage.output, 3);
    stage.wait_committed();
    wait_until_named(&host, &side, true);

    create_topic(kafka, &side, 1);
    wait_until_named(&host, &side, false);
    // Not with the producer that knew the old one.
    Producer::new(kafka).send(&side, &[NewRecord::new("key", "four")]);
    wait_for_records(kafka, &stage.output, 4);
    host.stop();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), ["four", "one", "three", "two"]);
}

/// Proves: when the topic of an output is deleted, `/readyz` names it, nothing is committed past what cannot be written, and when
/// it is made anew, everything that was open arrives there, without a restart.
#[test]
fn a_vanished_output_is_named_until_it_is_back() {
    let kafka = kafka_or_not_run!("a_vanished_output_is_named_until_it_is_back");
    let stage = Stage::new(kafka, "vanished-out", 1);
    let host = quick(stage.host(&guest("forward"))).start();
    stage.produce(&["one"]);
    wait_for_records(kafka, &stage.output, 1);
    stage.wait_committed();

    delete_topic(kafka, &stage.output);
    stage.produce(&["two", "three"]);
    wait_until_named(&host, &stage.output, true);
    assert_eq!(crate::support::client::committed(kafka, &stage.group, &stage.input), [Some(1)]);

    create_topic(kafka, &stage.output, 1);
    wait_until_named(&host, &stage.output, false);
    stage.wait_committed();
    host.stop();
    assert_eq!(sorted_values(&read_all(kafka, &stage.output)), ["three", "two"]);
}
