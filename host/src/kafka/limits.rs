//! Which records a topic may refuse by its configuration. Such a record travels in a batch of its own: a broker refuses
//! batches as a whole, librdkafka may send one batch as two requests, and of these the second is taken though the first
//! was refused. Halving the first then would put its good records behind the second's, out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::ffi::Client;
use super::topic_config;
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
    client: &Arc<Client>,
    topics: &BTreeSet<&str>,
    limit: Duration,
) -> Result<BTreeMap<String, TopicLimits>, String> {
    let described = topic_config::describe(client, topics, limit)?;
    Ok(described.into_iter().map(|(topic, entries)| (topic, TopicLimits::read(&entries))).collect())
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
