//! Topics and offsets: made, counted and asked for.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use rdkafka_sys::bindings::rd_kafka_type_t;

use super::super::PATIENCE;
use super::super::kafka::Kafka;
use super::native::{Client, config};

/// Makes a topic; returns when all its partitions have a leader.
pub fn create_topic(kafka: &Kafka, name: &str, partitions: i32) {
    create_topic_with(kafka, name, partitions, &[]);
}

/// The same with properties of the topic.
pub fn create_topic_with(kafka: &Kafka, name: &str, partitions: i32, properties: &[(&str, &str)]) {
    // As many replicas as the brokers have by default.
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    for (key, value) in properties {
        topic = topic.set(key, value);
    }
    let admin: AdminClient<DefaultClientContext> = config(kafka.bootstrap()).create().expect("an admin client");
    // The operation timeout makes the broker answer when the topic is there, not when it is noted.
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let results = block_on(admin.create_topics([&topic], &options)).expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, code)| panic!("cannot make the topic {topic}: {code}"));
    }
    // The controller has made it; clients may use it once the broker has heard of it and leads all its partitions.
    assert_eq!(end_offsets(kafka, name).len(), usize::try_from(partitions).expect("a number of partitions"));
}

/// Gives a topic more partitions, so that it has `count`.
pub fn add_partitions(kafka: &Kafka, topic: &str, count: i32) {
    let admin: AdminClient<DefaultClientContext> = config(kafka.bootstrap()).create().expect("an admin client");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
    let more = NewPartitions::new(topic, usize::try_from(count).expect("a number of partitions"));
    let results = block_on(admin.create_partitions([&more], &options)).expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, code)| panic!("cannot add partitions to {topic}: {code}"));
    }
}

pub fn delete_topic(kafka: &Kafka, name: &str) {
    let admin: AdminClient<DefaultClientContext> = config(kafka.bootstrap()).create().expect("an admin client");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let results = block_on(admin.delete_topics(&[name], &options)).expect("the broker answers");
    for result in results {
        result.unwrap_or_else(|(topic, code)| panic!("cannot delete the topic {topic}: {code}"));
    }
}

/// The next offset of each partition.
pub fn end_offsets(kafka: &Kafka, topic: &str) -> Vec<i64> {
    let client = Client::new(rd_kafka_type_t::RD_KAFKA_CONSUMER, &config(kafka.bootstrap()));
    let partitions = client.partitions(topic, PATIENCE);
    (0..partitions).map(|partition| client.watermarks(topic, partition, PATIENCE).1).collect()
}

/// Records of a topic that was never truncated: the sum of its end offsets.
pub fn total(kafka: &Kafka, topic: &str) -> i64 {
    end_offsets(kafka, topic).iter().sum()
}

/// The committed offset of each partition, `None` where the group has none.
pub fn committed(kafka: &Kafka, group: &str, topic: &str) -> Vec<Option<i64>> {
    let partitions = i32::try_from(end_offsets(kafka, topic).len()).expect("a number of partitions");
    try_committed(kafka, group, topic, partitions).expect("the group's coordinator answers")
}

/// The same of a topic with so many partitions, from a coordinator that may answer with an error.
pub fn try_committed(kafka: &Kafka, group: &str, topic: &str, partitions: i32) -> Result<Vec<Option<i64>>, KafkaError> {
    let consumer: BaseConsumer = config(kafka.bootstrap()).set("group.id", group).create().expect("a consumer");
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(topic, 0, partitions - 1);
    // A broker that just started still loads the group's log; librdkafka leaves asking again to its user here.
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        match consumer.committed_offsets(wanted.clone(), PATIENCE) {
            Ok(found) => break found,
            Err(error) if is_moving(error.rdkafka_error_code()) && Instant::now() < deadline => {
                consumer.poll(Duration::from_millis(100));
            }
            Err(error) => return Err(error),
        }
    };
    let offset = |partition| match found.find_partition(topic, partition).expect("an answer for it").offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    Ok((0..partitions).map(offset).collect())
}

/// Commits an offset for a group that has no members, as an operator does.
pub fn commit(kafka: &Kafka, group: &str, topic: &str, partition: i32, offset: i64) {
    let consumer: BaseConsumer = config(kafka.bootstrap()).set("group.id", group).create().expect("a consumer");
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
    consumer.commit(&place, CommitMode::Sync).unwrap_or_else(|error| panic!("cannot commit for {group}: {error}"));
    assert_eq!(committed(kafka, group, topic)[usize::try_from(partition).expect("a partition")], Some(offset));
}

/// Deletes the records of a partition below an offset.
pub fn delete_records(kafka: &Kafka, topic: &str, partition: i32, before: i64) {
    let admin: AdminClient<DefaultClientContext> = config(kafka.bootstrap()).create().expect("an admin client");
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let deleted = block_on(admin.delete_records(&place, &options)).expect("the broker answers");
    for place in deleted.elements() {
        place.error().unwrap_or_else(|error| panic!("cannot delete records of {topic}: {error}"));
    }
}

fn is_moving(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    matches!(code, Some(NotCoordinator | CoordinatorNotAvailable | CoordinatorLoadInProgress))
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}
