//! What moves in a cluster while a host works on it, on librdkafka's mock cluster: the group's coordinator, a partition's
//! leader, the membership itself, also where nobody says so.

use std::time::{Duration, Instant};

use rdkafka_sys::types::RDKafkaRespErr as Code;
use rdkafka_sys::types::RDKafkaRespErr::*;

use crate::check::{Stage, output, wait_for_records};
use crate::support::client::{NewRecord, Producer, end_offsets, read_all, try_committed};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::mock::{Mock, Request};
use crate::support::{PATIENCE, unique};

const PARTITIONS: i32 = 3;
const EACH: i64 = 30;
/// Heartbeats come every 200 ms here; and a member that sends none is thrown out after 3 s.
const HEARTBEATS: Duration = Duration::from_secs(10);

fn stage(mock: &Mock) -> Stage<'_> {
    let stage =
        Stage { kafka: mock.kafka(), input: unique("in"), output: unique("out"), group: unique("cluster-changes") };
    mock.create_topic(&stage.input, PARTITIONS);
    mock.create_topic(&stage.output, PARTITIONS);
    stage
}

/// A host that notices changes of topics within half a second.
fn options(stage: &Stage<'_>, commit_interval: &str) -> HostOptions {
    let rest = format!("{}[ack]\ncommit_interval = \"{commit_interval}\"\n", output("out", &stage.output));
    stage
        .manifest(&guest("forward"), "protocol = \"consumer\"", &rest)
        .kafka_property("topic.metadata.refresh.interval.ms", "500")
        .kafka_property("topic.metadata.propagation.max.ms", "1000")
}

/// Numbered records, some on each partition.
fn produce(producer: &Producer, stage: &Stage<'_>, first: i64) {
    let record = |n: i64| NewRecord {
        partition: Some(i32::try_from(n % i64::from(PARTITIONS)).expect("a partition")),
        ..NewRecord::new("key", format!("{n:06}"))
    };
    producer.send(&stage.input, &(first..first + EACH).map(record).collect::<Vec<_>>());
}

fn wait_committed(stage: &Stage<'_>, host: &SluiceHost) {
    let ends: Vec<Option<i64>> = end_offsets(stage.kafka, &stage.input).into_iter().map(Some).collect();
    host.process().wait_until(&format!("never committed {ends:?}"), PATIENCE, || {
        try_committed(stage.kafka, &stage.group, &stage.input, PARTITIONS).is_ok_and(|committed| committed == ends)
    });
}

/// Each of the numbers 0..count is in the output; how many are there more than once.
fn repeated(stage: &Stage<'_>, count: i64) -> usize {
    let mut numbers: Vec<i64> = read_all(stage.kafka, &stage.output)
        .iter()
        .map(|record| record.value_text().parse().expect("a number"))
        .collect();
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    all - numbers.len()
}

/// Proves: when the group's coordinator says that this member is none any more, what it had done and not committed is not
/// committed: from then until it owns partitions again not one commit is sent. It joins again by itself, does those records
/// again and commits them then.
fn a_lost_membership(error: Code) {
    let mock = Mock::start(1);
    let stage = stage(&mock);
    let producer = Producer::new(mock.kafka());
    produce(&producer, &stage, 0);
    // Nothing is committed by time while the test runs.
    let host = options(&stage, "60s").start();
    wait_for_records(mock.kafka(), &stage.output, EACH as usize);
    assert_eq!(
        try_committed(mock.kafka(), &stage.group, &stage.input, PARTITIONS),
        Ok(vec![None; PARTITIONS as usize])
    );
    mock.count_requests();
    mock.answer(1, Request::ConsumerGroupHeartbeat, &[(error, 0)]);
    host.wait_for_at_least("sluicebox_rebalances_total", &["kind=\"lost\""], 1.0);
    host.wait_for_metric("sluicebox_partitions", &["state=\"running\""], f64::from(PARTITIONS));
    wait_for_records(mock.kafka(), &stage.output, 2 * EACH as usize);
    assert_eq!(mock.requests(Request::OffsetCommit), 0, "a lost membership committed\n{}", host.tail());
    host.stop();
    assert!(mock.requests(Request::OffsetCommit) > 0, "the mock counts");
    let committed = try_committed(mock.kafka(), &stage.group, &stage.input, PARTITIONS);
    assert_eq!(committed, Ok(vec![Some(EACH / i64::from(PARTITIONS)); PARTITIONS as usize]));
    assert_eq!(repeated(&stage, EACH), EACH as usize);
}

#[test]
fn a_fenced_member_commits_nothing() {
    a_lost_membership(RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH);
}

#[test]
fn an_unknown_member_commits_nothing() {
    a_lost_membership(RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID);
}

/// Proves: however often the group's coordinator and the leaders of partitions move, records keep arriving once each and are
/// committed; how long a move holds a commit up is shown.
#[test]
fn coordinator_and_leaders_move() {
    const MOVES: i64 = 12;
    let mock = Mock::start(3);
    let stage = stage(&mock);
    let producer = Producer::new(mock.kafka());
    let host = options(&stage, "50ms").start();
    let mut longest = Duration::ZERO;
    for turn in 0..MOVES {
        let broker = i32::try_from(turn % 3).expect("small") + 1;
        mock.move_coordinator(&stage.group, broker);
        if turn % 2 == 1 {
            for topic in [&stage.input, &stage.output] {
                mock.move_leader(topic, broker - 1, broker % 3 + 1);
            }
        }
        produce(&producer, &stage, turn * EACH);
        let begun = Instant::now();
        wait_committed(&stage, &host);
        longest = longest.max(begun.elapsed());
    }
    assert_eq!(repeated(&stage, MOVES * EACH), 0);
    let lost = host.metric_with("sluicebox_rebalances_total", &["kind=\"lost\""]);
    assert_eq!(lost, Some(0.0), "a move cost the membership");
    host.stop();
    eprintln!("{MOVES} moves of the coordinator, {} of leaders: a commit took {longest:?} at most", MOVES / 2 * 2);
}

/// Proves: commits that are refused do not keep the member from its heartbeats. librdkafka puts the next one off at each
/// refusal, for the longer the more of them failed, so commits that came every 50 ms would end them for good.
#[test]
fn refused_commits_hold_no_heartbeat_up() {
    let mock = Mock::start(1);
    let stage = stage(&mock);
    let producer = Producer::new(mock.kafka());
    let host = options(&stage, "50ms").start();
    produce(&producer, &stage, 0);
    wait_committed(&stage, &host);
    mock.answer(1, Request::OffsetCommit, &[(RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH, 0); 400]);
    mock.answer(1, Request::ConsumerGroupHeartbeat, &[(RD_KAFKA_RESP_ERR_UNKNOWN, 0); 10]);
    produce(&producer, &stage, EACH);
    host.process().wait_until("heartbeats ended", HEARTBEATS, || mock.left(1, Request::ConsumerGroupHeartbeat) == 0);
    mock.count_requests();
    host.process().wait_until("heartbeats ended", HEARTBEATS, || mock.requests(Request::ConsumerGroupHeartbeat) >= 5);
    let refused = 400 - mock.left(1, Request::OffsetCommit);
    assert!(refused > 0, "no commit was refused");
    eprintln!("{refused} commits were refused meanwhile");
    host.kill();
}

/// Proves: a host whose commits the group refuses for long, without a word of a rebalance, says so and joins anew; then it does
/// again what was not committed, and commits it.
#[test]
fn a_member_that_was_forgotten_joins_anew() {
    // Every two seconds one, and the one of the run's end.
    const REFUSED: usize = 10;
    let mock = Mock::start(1);
    let stage = stage(&mock);
    let producer = Producer::new(mock.kafka());
    let host = options(&stage, "50ms").start();
    produce(&producer, &stage, 0);
    wait_committed(&stage, &host);
    mock.answer(1, Request::OffsetCommit, &[(RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, 0); REFUSED]);
    produce(&producer, &stage, EACH);
    let begun = Instant::now();
    host.wait_for_line("it joins anew", PATIENCE);
    let noticed = begun.elapsed();
    wait_committed(&stage, &host);
    let again = repeated(&stage, 2 * EACH);
    assert!(again <= EACH as usize, "{again} records of {EACH} that were not committed are there again");
    host.stop();
    eprintln!("noticed after {noticed:?}, committed after {:?}, {again} records repeated", begun.elapsed());
}
