//! How far an output has grown and how far a group has come: the offsets of all partitions by one request.

use std::ffi::{CString, c_char};
use std::ptr::null_mut;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rdkafka_sys::bindings::*;

/// `OffsetSpec.latest`.
const LATEST: i64 = -1;

/// Asks for the end offsets of one topic again and again.
pub struct Watermarks {
    client: *mut rd_kafka_t,
    queue: *mut rd_kafka_queue_t,
    topic: CString,
    partitions: i32,
}

impl Watermarks {
    pub fn of(bootstrap: &str, topic: &str, partitions: i32) -> Watermarks {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("enable.metrics.push", "false");
        let native = config.create_native_config().expect("a valid client configuration");
        let mut text = [0 as c_char; 512];
        // SAFETY: the configuration is duplicated because `rd_kafka_new` takes it.
        let (client, queue) = unsafe {
            let config = rd_kafka_conf_dup(native.ptr());
            let client = rd_kafka_new(rd_kafka_type_t::RD_KAFKA_PRODUCER, config, text.as_mut_ptr(), text.len());
            assert!(!client.is_null(), "cannot make the client that asks for offsets");
            (client, rd_kafka_queue_new(client))
        };
        Watermarks { client, queue, topic: CString::new(topic).expect("a topic name has no NUL"), partitions }
    }

    /// The records of the topic now: the sum of its end offsets.
    pub fn total(&self, patience: Duration) -> u64 {
        let milliseconds = patience.as_millis() as i32;
        // SAFETY: list, event and answer are used and freed in here.
        unsafe {
            let list = rd_kafka_topic_partition_list_new(self.partitions);
            for partition in 0..self.partitions {
                (*rd_kafka_topic_partition_list_add(list, self.topic.as_ptr(), partition)).offset = LATEST;
            }
            rd_kafka_ListOffsets(self.client, list, null_mut(), self.queue);
            let event = rd_kafka_queue_poll(self.queue, milliseconds);
            assert!(!event.is_null(), "no answer about the offsets within {patience:?}");
            let answer = rd_kafka_event_ListOffsets_result(event);
            assert!(!answer.is_null(), "asking for offsets failed");
            let mut count = 0;
            let infos = rd_kafka_ListOffsets_result_infos(answer, &raw mut count);
            let total: i64 = (0..count)
                .map(|index| (*rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index))).offset.max(0))
                .sum();
            rd_kafka_event_destroy(event);
            rd_kafka_topic_partition_list_destroy(list);
            total.unsigned_abs()
        }
    }
}

impl Drop for Watermarks {
    fn drop(&mut self) {
        // SAFETY: freed once, the queue before its client.
        unsafe {
            rd_kafka_queue_destroy(self.queue);
            rd_kafka_destroy(self.client);
        }
    }
}

/// Asks for what a group has committed again and again.
pub struct Commits {
    client: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Commits {
    pub fn of(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> Commits {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("enable.metrics.push", "false").set("group.id", group);
        let client = config.create().expect("a client that asks for commits");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        Commits { client, partitions: list }
    }

    /// The sum of the committed offsets.
    pub fn total(&self, patience: Duration) -> u64 {
        let found = self.client.committed_offsets(self.partitions.clone(), patience).expect("the coordinator answers");
        let offset = |offset| if let Offset::Offset(offset) = offset { offset.unsigned_abs() } else { 0 };
        found.elements().iter().map(|element| offset(element.offset())).sum()
    }
}
