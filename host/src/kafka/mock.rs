//! librdkafka's mock cluster: one broker inside this process, everything in memory. Thread-safe.
//!
//! What it cannot do (measured): groups of the classic protocol that rejoin (44 s until they are served; Java's members are
//! disconnected), transactions that hold back records, topics made or described by clients, more than 5 MiB per partition
//! (the oldest goes).

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka_sys as rd;

use super::ffi::{self, Client, Conf};

/// The one broker's number.
const BROKER: i32 = 1;
/// Members of KIP-848 groups call this often, ms: what a rebalance waits for. The mock's default is 3 s.
const HEARTBEAT_MS: c_int = 200;

/// See the module's text.
pub struct MockCluster {
    cluster: NonNull<rd::rd_kafka_mock_cluster_t>,
    // The mock logs through it; it connects to nobody. Goes after the cluster (see `drop`).
    _client: Arc<Client>,
}

// SAFETY: the mock is driven by a thread of its own; its functions lock or send it a message.
unsafe impl Send for MockCluster {}
// SAFETY: as above.
unsafe impl Sync for MockCluster {}

impl MockCluster {
    /// Starts the broker on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn start() -> Result<Self, String> {
        let mut conf = Conf::new();
        // SAFETY: live configuration.
        unsafe { rd::rd_kafka_conf_set_log_cb(conf.as_ptr(), Some(super::log::forward)) };
        let client = conf.create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)?;
        // SAFETY: live client, which outlives the cluster.
        let cluster = unsafe { rd::rd_kafka_mock_cluster_new(client.as_ptr(), 1) };
        let cluster = NonNull::new(cluster).ok_or("librdkafka's mock cluster does not start")?;
        // SAFETY: live cluster.
        unsafe {
            rd::rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(cluster.as_ptr(), HEARTBEAT_MS);
            // Groups of the classic protocol (other clients) wait 3 s for more members otherwise.
            rd::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster.as_ptr(), 0);
        }
        Ok(Self { cluster, _client: client })
    }

    /// Where it listens: `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        // SAFETY: live cluster; its own NUL-terminated string.
        ffi::text(unsafe { rd::rd_kafka_mock_cluster_bootstraps(self.cluster.as_ptr()) })
    }

    /// Tells clients to come to this address of 127.0.0.1 instead of where it listens.
    pub fn advertise(&self, port: u16) {
        // SAFETY: live cluster, NUL-terminated text (copied).
        unsafe {
            rd::rd_kafka_mock_broker_set_host_port(self.cluster.as_ptr(), BROKER, c"127.0.0.1".as_ptr(), port.into());
        }
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), String> {
        let c_name = ffi::c_string(name)?;
        let partitions = c_int::try_from(partitions).map_err(|_| format!("{partitions} partitions are too many"))?;
        // SAFETY: live cluster, NUL-terminated name (copied).
        let code = unsafe { rd::rd_kafka_mock_topic_create(self.cluster.as_ptr(), c_name.as_ptr(), partitions, 1) };
        super::consumer::check(code)
    }
}

impl Drop for MockCluster {
    fn drop(&mut self) {
        // SAFETY: owned; its client is live until the fields go.
        unsafe { rd::rd_kafka_mock_cluster_destroy(self.cluster.as_ptr()) }
    }
}
