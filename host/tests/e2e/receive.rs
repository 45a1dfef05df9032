//! At most once by choice: `[ack] mode = "receive"`.

use crate::check::{Stage, output, wait_for_records};
use crate::support::PATIENCE;
use crate::support::client::{committed, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

/// Proves: the commit is answered before the handler sees the records: while it is at work on one, that is committed already, and
/// a crash costs it and those behind it in the same burst. What came before is done, and nothing is done twice.
#[test]
fn a_crash_costs_what_the_handler_had_and_repeats_nothing() {
    let kafka = kafka_or_not_run!("a_crash_costs_what_the_handler_had_and_repeats_nothing");
    let stage = Stage::new(kafka, "receive", 1);
    stage.produce(&["good 1", "loop", "good 2"]);
    let rest = format!(
        "{}[ack]\nmode = \"receive\"\n[handler.limits]\nrunning_time = \"20s\"\n[errors]\nthen = \"drop\"\n",
        output("out", &stage.output)
    );
    let options = stage.manifest(&guest("faulty"), "", &rest);
    let host = options.start();
    wait_for_records(kafka, &stage.output, 1);
    let mut commits = stage.commits();
    let reached = commits.wait_until(PATIENCE, |commits| commits.last(&stage.input, 0) >= Some(2));
    assert!(reached, "the record that the handler is at work on is committed: {:?}\n{}", commits.seen(), host.tail());
    host.kill();
    let kept = committed(kafka, &stage.group, &stage.input)[0].expect("a commit");
    assert!((2..=3).contains(&kept), "{kept}");

    stage.produce(&["good 3"]);
    let host = options.start();
    stage.wait_committed();
    host.stop();
    let done: Vec<String> =
        read_all(kafka, &stage.output).iter().map(|record| record.value_text().to_owned()).collect();
    // What was fetched with the loop and committed with it is gone; what was not is done now.
    let expected: &[&str] = if kept == 3 { &["good 1", "good 3"] } else { &["good 1", "good 2", "good 3"] };
    assert_eq!(done, expected);
}

/// Proves: without a fault every record is done once, in order, and what fails for good takes the way of the policy.
#[test]
fn without_a_crash_every_record_is_done_once() {
    const COUNT: usize = 2_000;
    let kafka = kafka_or_not_run!("without_a_crash_every_record_is_done_once");
    let stage = Stage::new(kafka, "receive-all", 1);
    let dead = stage.topic("dead", 1);
    let value = |n: usize| if n % 500 == 7 { format!("reject {n}") } else { format!("good {n}") };
    let values: Vec<String> = (0..COUNT).map(value).collect();
    stage.produce(&values.iter().map(String::as_str).collect::<Vec<_>>());
    let rest = format!(
        "{}[ack]\nmode = \"receive\"\ncommit_interval = \"50ms\"\n[errors]\ndead_letter = {{ topic = \"{dead}\" }}\n",
        output("out", &stage.output)
    );
    let host = stage.manifest(&guest("faulty"), "", &rest).start();
    wait_for_records(kafka, &stage.output, COUNT - COUNT / 500);
    wait_for_records(kafka, &dead, COUNT / 500);
    host.stop();
    let text = |topic: &str| -> Vec<String> {
        read_all(kafka, topic).iter().map(|record| record.value_text().to_owned()).collect()
    };
    let (bad, good): (Vec<String>, Vec<String>) = values.into_iter().partition(|value| value.starts_with("reject"));
    assert_eq!((text(&stage.output), text(&dead)), (good, bad));
    assert_eq!(committed(kafka, &stage.group, &stage.input), [Some(COUNT as i64)]);
}
