//! librdkafka's mock cluster inside the test program: brokers that answer with the errors they are told to, and count what they
//! are asked. For what no real broker does on request.
//!
//! What it cannot do: groups of the classic protocol that rejoin (use `protocol = "consumer"`), topics that clients make, more
//! than 5 MiB a partition, telling apart records that are sent twice (idempotence), errors for requests of metadata.

use std::ffi::{CStr, CString};

use rdkafka_sys::bindings::*;

use super::client::{Client, config};
use super::kafka::Kafka;

/// Requests by Kafka's numbers of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i16)]
pub enum Request {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    ApiVersions = 18,
    InitProducerId = 22,
    ConsumerGroupHeartbeat = 68,
}

/// A running mock cluster; brokers have the numbers from 1 on.
pub struct Mock {
    cluster: *mut rd_kafka_mock_cluster_t,
    kafka: Kafka,
    // It lives on this client, which connects to nobody. Goes after the cluster (see `drop`).
    _client: Client,
}

// SAFETY: the mock is driven by a thread of its own; its functions lock or send it a message.
unsafe impl Send for Mock {}
// SAFETY: as above.
unsafe impl Sync for Mock {}

impl Mock {
    pub fn start(brokers: i32) -> Mock {
        let client = Client::new(rd_kafka_type_t::RD_KAFKA_PRODUCER, &config("127.0.0.1:1"));
        // SAFETY: a live client, which outlives the cluster.
        let cluster = unsafe { rd_kafka_mock_cluster_new(client.as_ptr(), brokers) };
        assert!(!cluster.is_null(), "the mock cluster does not start");
        // SAFETY: a live cluster; the list of addresses is its own and is copied.
        let bootstrap = unsafe {
            // What a rebalance waits for, and how long a member that was thrown out stays in the way: the defaults are 3 s
            // and 45 s.
            rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster, 200);
            rd_kafka_mock_set_group_consumer_session_timeout_ms(cluster, 3_000);
            CStr::from_ptr(rd_kafka_mock_cluster_bootstraps(cluster)).to_string_lossy().into_owned()
        };
        Mock { cluster, kafka: Kafka::elsewhere(bootstrap), _client: client }
    }

    /// The cluster as clients see it. Kafka's own tools do not work with it.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        let c_name = CString::new(name).expect("a topic name has no NUL");
        // SAFETY: a live cluster; the name is copied.
        let code = unsafe { rd_kafka_mock_topic_create(self.cluster, c_name.as_ptr(), partitions, 1) };
        assert_eq!(code, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "cannot make {name}");
    }

    /// A broker answers its requests of this kind so: one after the other, each with its error (0: none) and after so many
    /// milliseconds. `_TRANSPORT` closes the connection instead.
    pub fn answer(&self, broker: i32, request: Request, answers: &[(rd_kafka_resp_err_t, i32)]) {
        for (error, milliseconds) in answers {
            // SAFETY: a live cluster; one pair of arguments, as the count says.
            let code = unsafe {
                rd_kafka_mock_broker_push_request_error_rtts(
                    self.cluster,
                    broker,
                    request as i16,
                    1,
                    *error as i32,
                    *milliseconds,
                )
            };
            assert_eq!(code, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "no broker {broker}");
        }
    }

    /// How many of the answers it was told to give a broker has not given yet.
    pub fn left(&self, broker: i32, request: Request) -> usize {
        let mut left = 0;
        // SAFETY: a live cluster; writes the count.
        unsafe { rd_kafka_mock_broker_error_stack_cnt(self.cluster, broker, request as i16, &raw mut left) };
        left
    }

    /// Another broker coordinates this group from now on.
    pub fn move_coordinator(&self, group: &str, broker: i32) {
        let group = CString::new(group).expect("a group has no NUL");
        // SAFETY: a live cluster; the texts are copied.
        let code = unsafe { rd_kafka_mock_coordinator_set(self.cluster, c"group".as_ptr(), group.as_ptr(), broker) };
        assert_eq!(code, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "no broker {broker}");
    }

    /// Another broker leads a partition from now on.
    pub fn move_leader(&self, topic: &str, partition: i32, broker: i32) {
        let topic = CString::new(topic).expect("a topic name has no NUL");
        // SAFETY: a live cluster; the name is copied.
        let code = unsafe { rd_kafka_mock_partition_set_leader(self.cluster, topic.as_ptr(), partition, broker) };
        assert_eq!(code, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "no broker {broker}");
    }

    /// Begins to count requests, from none.
    pub fn count_requests(&self) {
        // SAFETY: a live cluster.
        unsafe {
            rd_kafka_mock_clear_requests(self.cluster);
            rd_kafka_mock_start_request_tracking(self.cluster);
        }
    }

    /// How many requests of this kind came since.
    pub fn requests(&self, request: Request) -> usize {
        let mut count = 0;
        // SAFETY: a live cluster; the list and its elements are ours, and freed after they were read.
        unsafe {
            let list = rd_kafka_mock_get_requests(self.cluster, &raw mut count);
            let of_this_kind =
                (0..count).filter(|i| rd_kafka_mock_request_api_key(*list.add(*i)) == request as i16).count();
            rd_kafka_mock_request_destroy_array(list, count);
            of_this_kind
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // SAFETY: owned; its client is live until the fields go.
        unsafe { rd_kafka_mock_cluster_destroy(self.cluster) };
    }
}
