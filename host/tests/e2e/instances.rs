//! Instances that are replaced because they are old.

use crate::check::{Stage, output};
use crate::support::client::read_all;
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

/// Proves: when an instance is old, a new one goes on between two calls; with the old one's state it has what that held, no
/// attempt is counted for the change, and everything is committed.
#[test]
fn what_an_old_instance_held_goes_to_the_new_one() {
    const RELEASES: usize = 100;
    let kafka = kafka_or_not_run!("what_an_old_instance_held_goes_to_the_new_one");
    let stage = Stage::new(kafka, "recycled", 1);
    // Four are held, and the fifth acks them, some by tokens that an earlier instance was given: no more than five may be held,
    // so that there are a hundred calls at least.
    stage.produce(&["held", "held", "held", "held", "release"].repeat(RELEASES));
    let rest = format!("[handler.recycle]\ncalls = 6\n[hold]\nmax = 5\n{}", output("out", &stage.output));
    let host = stage.manifest(&guest("holder"), "", &rest).start();
    stage.wait_committed();
    host.wait_for_at_least("sluicebox_handler_recycled_total", &["reason=\"calls\""], 4.0);
    assert_eq!(host.metric("sluicebox_retries_total").unwrap_or(0.0), 0.0);
    assert_eq!(host.metric("sluicebox_handler_traps_total"), Some(0.0));
    host.stop();
    let said = read_all(kafka, &stage.output);
    assert_eq!(said.iter().filter(|record| record.value_text() == "release").count(), RELEASES);
    let greetings = said.iter().filter(|record| record.value_text().contains(" from ")).count();
    assert!(greetings > 4, "each new instance hears of its partition: {greetings}");
}
