//! Which records a topic may refuse by its configuration. Such a record travels in a batch of its own: a broker refuses
//! batches as a whole, librdkafka may send one batch as two requests, and of these the second is taken though the first
//! was refused. Halving the first then would put its good records behind the second's, out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::ptr;
use std::time::{Duration, Instant};

use super::Code;
use rdkafka_sys as rd;

use super::ffi::{self, Client, Queue, c_string};
use crate::delivery::outgoing::Outgoing;

/// What a batch costs beside its records (Kafka's format 2: `RecordBatch.RECORD_BATCH_OVERHEAD`).
const BATCH_OVERHEAD: usize = 61;
/// What a record costs on the wire beside its key, value and headers, at most.
pub(super) const RECORD_OVERHEAD: usize = 36;

/// What a topic takes. The default is the broker's own (Kafka 4), for when it may not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    /// `max.message.bytes`: of a batch, as it is on the wire.
    pub batch_bytes: usize,
    /// `cleanup.policy` has `compact`: a record has a key.
    pub keyed: bool,
    /// `message.timestamp.before.max.ms`: how old a record may be.
    pub before_ms: i64,
    /// `message.timestamp.after.max.ms`: how far in the future.
    pub after_ms: i64,
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self { batch_bytes: 1_048_588, keyed: false, before_ms: i64::MAX, after_ms: 3_600_000 }
    }
}

impl TopicLimits {
    /// May the broker refuse this record? Not certain: a record that is too large may still be small enough compressed.
    /// Times are ms since 1970; a timestamp of 0 is "now".
    #[inline]
    #[must_use]
    pub fn is_doubtful(&self, record: &Outgoing<'_>, timestamp: i64, now: i64) -> bool {
        BATCH_OVERHEAD + RECORD_OVERHEAD + record.bytes() > self.batch_bytes
            || (self.keyed && record.key.is_none())
            || (timestamp != 0
                && (timestamp > now.saturating_add(self.after_ms) || timestamp < now.saturating_sub(self.before_ms)))
    }

    /// Bytes that a batch of several records may have, of `wanted`.
    #[must_use]
    pub fn batch_of(&self, wanted: usize) -> usize {
        wanted.min(self.batch_bytes.saturating_sub(BATCH_OVERHEAD))
    }

    fn read(entries: &BTreeMap<String, String>) -> Self {
        let number = |name: &str| entries.get(name).and_then(|text| text.parse::<i64>().ok());
        // Before KIP-937 one limit for both directions.
        let difference = number("message.timestamp.difference.max.ms");
        let default = Self::default();
        Self {
            batch_bytes: number("max.message.bytes").map_or(default.batch_bytes, |n| usize::try_from(n).unwrap_or(0)),
            keyed: entries.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            before_ms: number("message.timestamp.before.max.ms").or(difference).unwrap_or(default.before_ms),
            after_ms: number("message.timestamp.after.max.ms").or(difference).unwrap_or(default.after_ms),
        }
    }
}

/// Asks for the limits of topics. One that the broker does not describe to us (no `DESCRIBE_CONFIGS`, no answer within
/// `limit`) is not in the answer.
pub(super) fn describe(
    client: &std::sync::Arc<Client>,
    topics: &BTreeSet<&str>,
    limit: Duration,
) -> Result<BTreeMap<String, TopicLimits>, String> {
    let deadline = Instant::now() + limit;
    let mut resources = Vec::new();
    for topic in topics {
        let name = c_string(topic)?;
        // SAFETY: NUL-terminated name; the resource is ours until destroyed below.
        let resource = unsafe {
            rd::rd_kafka_ConfigResource_new(rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr())
        };
        resources.push(resource);
    }
    // SAFETY: live client. The request copies the resources; a request that is not answered in time is dropped with its
    // queue, which is a reference of its own.
    let queue = unsafe {
        let queue = Queue::adopt(client, rd::rd_kafka_queue_new(client.as_ptr()));
        if let Some(queue) = &queue {
            let (all, count) = (resources.as_mut_ptr(), resources.len());
            rd::rd_kafka_DescribeConfigs(client.as_ptr(), all, count, ptr::null(), queue.as_ptr());
        }
        rd::rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
        queue.ok_or("librdkafka gives no queue")?
    };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    let mut found = BTreeMap::new();
    // SAFETY: live queue; the event owns everything read from it and is destroyed after that.
    unsafe {
        let event = rd::rd_kafka_queue_poll(queue.as_ptr(), c_int::try_from(left).unwrap_or(c_int::MAX));
        if event.is_null() {
            return Ok(found);
        }
        let answer = rd::rd_kafka_event_DescribeConfigs_result(event);
        if !answer.is_null() {
            let mut count = 0;
            let described = rd::rd_kafka_DescribeConfigs_result_resources(answer, &raw mut count);
            for i in 0..count {
                let resource = *described.add(i);
                if rd::rd_kafka_ConfigResource_error(resource) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                    continue;
                }
                let name = ffi::text(rd::rd_kafka_ConfigResource_name(resource));
                found.insert(name, TopicLimits::read(&entries(resource)));
            }
        }
        rd::rd_kafka_event_destroy(event);
    }
    Ok(found)
}

/// # Safety
/// A resource of a live answer.
unsafe fn entries(resource: *const rd::rd_kafka_ConfigResource_t) -> BTreeMap<String, String> {
    let mut count = 0;
    // SAFETY: as promised by the caller; names and values are NUL-terminated or null.
    unsafe {
        let all = rd::rd_kafka_ConfigResource_configs(resource, &raw mut count);
        (0..count)
            .map(|i| {
                let entry = *all.add(i);
                (ffi::text(rd::rd_kafka_ConfigEntry_name(entry)), ffi::text(rd::rd_kafka_ConfigEntry_value(entry)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(key: Option<&'a [u8]>, value: &'a [u8]) -> Outgoing<'a> {
        Outgoing { key, value: Some(value), headers: Default::default(), timestamp: 0 }
    }

    #[test]
    fn a_record_at_the_limit_is_not_doubtful() {
        let limits = TopicLimits { batch_bytes: 1_000, ..TopicLimits::default() };
        let room = 1_000 - BATCH_OVERHEAD - RECORD_OVERHEAD;
        assert!(!limits.is_doubtful(&record(None, &vec![0; room]), 0, 0));
        assert!(limits.is_doubtful(&record(None, &vec![0; room + 1]), 0, 0));
    }

    #[test]
    fn a_compacted_topic_wants_keys() {
        let entries = [("cleanup.policy", "compact,delete"), ("max.message.bytes", "2000")];
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let limits = TopicLimits::read(&entries);
        assert_eq!((limits.batch_bytes, limits.keyed), (2_000, true));
        assert!(limits.is_doubtful(&record(None, b"v"), 0, 0) && !limits.is_doubtful(&record(Some(b""), b"v"), 0, 0));
    }

    #[test]
    fn times_are_taken_within_their_limits_and_now_always() {
        let limits = TopicLimits { before_ms: 100, after_ms: 10, ..TopicLimits::default() };
        let doubtful = |timestamp| limits.is_doubtful(&record(None, b""), timestamp, 1_000);
        assert_eq!([899, 900, 1_010, 1_011, 0].map(doubtful), [true, false, false, true, false]);
    }
}
