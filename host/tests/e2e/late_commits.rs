//! Commits that a broker does not answer in time.

use crate::check::Stage;
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer};
use crate::support::guests::guest;
use crate::support::kafka::{Options, kafka_or_not_run};

/// A record is done after a failed attempt and a pause of 20 ms, with no help of the broker's.
const RECORDS: usize = 3_000;
/// So many are done while the broker is away: for longer than a commit interval.
const DONE_MEANWHILE: f64 = 150.0;

/// Proves: of the commits that a broker cannot answer while it is away, never more than one is under way, so that none
/// overtakes another when it is back: what is committed never goes back, even when the host is asked to leave meanwhile.
#[test]
fn commits_of_an_outage_never_go_back() {
    let kafka = kafka_or_not_run!("commits_of_an_outage_never_go_back", Options::default());
    let stage = Stage::new(&kafka, "late-commits", 1);
    let values: Vec<NewRecord> = (0..RECORDS).map(|n| NewRecord::new("key", format!("err {n}"))).collect();
    Producer::new(&kafka).send(&stage.input, &values);
    let rest = format!(
        "[errors]\nretry = {{ attempts = 2, backoff = \"20ms\", max_backoff = \"20ms\" }}\nthen = \"drop\"\nbreaker = false\n\
         [output.out]\ntopic = \"{}\"",
        stage.output
    );
    let mut commits = stage.commits();
    let host = stage.manifest(&guest("faulty"), "", &rest).start();
    assert!(commits.wait_until(PATIENCE, |commits| commits.total(&stage.input) > 0), "no commit\n{}", host.tail());
    kafka.kill();
    let dropped = || host.metric_with("sluicebox_messages_processed_total", &["outcome=\"dropped\""]).unwrap_or(0.0);
    let before = dropped();
    host.process().wait_until("it stopped when the broker did", PATIENCE, || dropped() >= before + DONE_MEANWHILE);
    // Its last commit now waits for the one before, which waits for the broker.
    host.terminate();
    kafka.start();
    host.wait_exit(PATIENCE);
    commits.catch_up(&kafka);
    let offsets: Vec<i64> = commits.seen().iter().map(|commit| commit.offset).collect();
    assert!(offsets.is_sorted(), "commits went back: {offsets:?}\n{}", host.tail());
}
