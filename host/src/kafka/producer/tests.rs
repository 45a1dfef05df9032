//! The producer without a broker: what becomes of records that nobody takes.

use sluicebox_frames::Headers;

use super::*;
use crate::delivery::ticket::Target;
use crate::kafka::mock::MockCluster;

/// A partition is given back while a record of it is with librdkafka, which gives it up: it is not sent again, but that
/// of another partition is.
#[test]
fn what_fails_after_its_partition_was_given_back_is_not_sent_again() {
    let waker = Waker::default();
    waker.attach();
    let mut conf = Conf::new();
    // Nobody listens there.
    for (key, value) in [("bootstrap.servers", "127.0.0.1:9"), ("message.timeout.ms", "50")] {
        conf.set(key, value).expect("a property of librdkafka");
    }
    let mut producer = Producer::new(conf, &waker).expect("a producer");
    let topic =
        producer.add_topic("t", 2, OutputTimestamp::Now, Compression::None, TopicLimits::default()).expect("a topic");
    let record = Outgoing { key: None, value: Some(b"x"), headers: [Headers::default(); 2], timestamp: 0 };
    // The first record of an output partition travels alone, so each has one of its own.
    for (partition, lane) in [(0, 1), (1, 2)] {
        producer.append(topic, partition, &record, Ticket { lane, target: Target::Record(0) });
    }
    let (mut refused, mut trouble, begun) = (Vec::new(), Vec::new(), Instant::now());
    producer.send(begun, &mut refused);
    producer.forget(&[1]);
    assert_eq!(producer.records(), 2, "both are with librdkafka");
    let given_up = |trouble: &Trouble| trouble.code == Code::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
    while producer.records() > 1 || !trouble.iter().any(given_up) {
        assert!(begun.elapsed() < Duration::from_secs(30), "librdkafka gives up after 50 ms");
        waker.wait(Duration::from_millis(100));
        producer.poll(begun, |_| panic!("nobody took it"), &mut refused, &mut trouble);
    }
    assert_eq!((producer.records(), refused.len()), (1, 0));
    producer.forget(&[2]);
    assert_eq!((producer.records(), producer.bytes()), (0, 0), "what waits to be sent again is dropped at once");
}

/// A producer on a mock cluster that has the topic `t` of two partitions, with this property.
fn on_a_cluster(key: &str, value: &str) -> (MockCluster, Producer, Waker) {
    let cluster = MockCluster::start().expect("a cluster");
    cluster.create_topic("t", 2).expect("a topic");
    let waker = Waker::default();
    waker.attach();
    let mut conf = Conf::new();
    for (key, value) in
        [("bootstrap.servers", cluster.address().as_str()), ("enable.idempotence", "true"), (key, value)]
    {
        conf.set(key, value).expect("a property of librdkafka");
    }
    let producer = Producer::new(conf, &waker).expect("a producer");
    (cluster, producer, waker)
}

/// Sends until everything is reported on; the numbers of the records, by lane.
fn settle_all(producer: &mut Producer, waker: &Waker, settled: &mut [Vec<u64>]) {
    let (mut refused, mut trouble, begun) = (Vec::new(), Vec::new(), Instant::now());
    while producer.records() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} records were not reported on", producer.records());
        let now = Instant::now();
        producer.send(now, &mut refused);
        let take = |run: Run| {
            let Target::Record(first) = run.first.target else { panic!("no gate was handed over") };
            settled[run.first.lane as usize].extend(first..first + u64::from(run.count));
        };
        producer.poll(now, take, &mut refused, &mut trouble);
        waker.wait(Duration::from_millis(10));
    }
    assert!(refused.is_empty(), "{refused:?}");
}

/// A chunk is handed over in parts, and librdkafka has no room for all of it: what did not fit is sent again, each record
/// once, and none is lost between the parts.
#[test]
fn what_finds_no_room_is_sent_again() {
    const RECORDS: u64 = 1_000;
    let (_cluster, mut producer, waker) = on_a_cluster("queue.buffering.max.messages", "300");
    let topic =
        producer.add_topic("t", 2, OutputTimestamp::Now, Compression::None, TopicLimits::default()).expect("a topic");
    let record = Outgoing { key: None, value: Some(b"x"), headers: [Headers::default(); 2], timestamp: 0 };
    for i in 0..RECORDS {
        producer.append(topic, 0, &record, Ticket { lane: 0, target: Target::Record(i) });
    }
    let mut settled = [Vec::new()];
    settle_all(&mut producer, &waker, &mut settled);
    assert!(settled[0].iter().copied().eq(0..RECORDS), "each once, in order: {:?}", settled[0]);
    assert_eq!((producer.produced(topic).0, producer.bytes()), (RECORDS, 0));
}

/// Two outputs may name one topic, of which librdkafka has one handle: each gets the reports of its own records, however many
/// are under way at once.
#[test]
fn topics_of_one_name_are_told_apart() {
    const RECORDS: u64 = 500;
    let (_cluster, mut producer, waker) = on_a_cluster("linger.ms", "0");
    let mut add = || {
        producer.add_topic("t", 2, OutputTimestamp::Now, Compression::None, TopicLimits::default()).expect("a topic")
    };
    let topics = [add(), add()];
    let record = Outgoing { key: None, value: Some(b"x"), headers: [Headers::default(); 2], timestamp: 0 };
    let mut settled = [Vec::new(), Vec::new()];
    for round in 0..4 {
        // The second one has more, and is sent first.
        for (lane, count) in [(1, RECORDS), (0, RECORDS / 5)] {
            for i in 0..count {
                let ticket = Ticket { lane, target: Target::Record(round * count + i) };
                producer.append(topics[lane as usize], (i % 2) as u32, &record, ticket);
            }
        }
        settle_all(&mut producer, &waker, &mut settled);
    }
    for (lane, count) in [(0, 4 * RECORDS / 5), (1, 4 * RECORDS)] {
        settled[lane].sort_unstable();
        assert!(settled[lane].iter().copied().eq(0..count), "lane {lane}: each record once");
        assert_eq!(producer.produced(topics[lane]).0, count);
    }
    assert_eq!(producer.bytes(), 0);
}
