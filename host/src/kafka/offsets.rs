//! Asks a cluster where a group stands and where partitions end: the broker's word, not our own bookkeeping. Blocks; never
//! on the data path.

use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as rd;
use rdkafka_sys::types::RDKafkaRespErr as Code;

use super::consumer::check;
use super::ffi::{self, Client, PartitionList, millis};
use super::settings;
use crate::config::Cluster;

/// A client that names a group but does not join it.
pub struct Offsets(Arc<Client>);

impl Offsets {
    /// For a group of a cluster.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(cluster: &Cluster, group: &str) -> Result<Self, String> {
        let mut conf = settings::asking(cluster, "sluicebox-offsets")?;
        conf.set("group.id", group)?;
        conf.set("enable.auto.commit", "false")?;
        Ok(Self(conf.create(rd::rd_kafka_type_t::RD_KAFKA_CONSUMER)?))
    }

    /// The group's committed (next) offsets of these partitions, in their order; `None` where nothing was committed.
    ///
    /// # Errors
    /// What the broker or librdkafka says.
    pub fn committed(&self, partitions: &[(&str, i32)], limit: Duration) -> Result<Vec<Option<i64>>, String> {
        let mut list = PartitionList::new(partitions.len());
        for (topic, partition) in partitions {
            list.add(topic, *partition, None)?;
        }
        // SAFETY: live client and list. The list is dropped before the client, or that would wait for it for ever.
        check(unsafe { rd::rd_kafka_committed(self.0.as_ptr(), list.as_ptr(), millis(limit)) })?;
        let answers = list.elements();
        partitions
            .iter()
            .map(|(topic, partition)| {
                let answer = answers.iter().find(|answer| answer.topic == *topic && answer.partition == *partition);
                let answer = answer.ok_or_else(|| format!("the broker says nothing of {topic}[{partition}]"))?;
                match answer.error {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok((answer.offset >= 0).then_some(answer.offset)),
                    code => Err(format!("{topic}[{partition}]: {}", super::problem::explain(code, ""))),
                }
            })
            .collect()
    }

    /// The offset that the next record of a partition will get.
    ///
    /// # Errors
    /// As above.
    pub fn end(&self, topic: &str, partition: i32, limit: Duration) -> Result<i64, String> {
        let c_topic = ffi::c_string(topic)?;
        let (mut low, mut high) = (-1i64, -1i64);
        // SAFETY: live client, NUL-terminated name, places for two numbers.
        check(unsafe {
            rd::rd_kafka_query_watermark_offsets(
                self.0.as_ptr(),
                c_topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
                millis(limit),
            )
        })
        .map_err(|error| format!("{topic}[{partition}]: {error}"))?;
        Ok(high)
    }
}
