//! Which librdkafka properties the clients of a pipeline get: the host's own choices (with their reasons), then what the
//! operator passes through. What the host owns cannot be passed through; `config/` refuses it by name.

use std::time::Duration;

use crate::config::{Cluster, Isolation, LostOffset, Protocol, Source};

use super::ffi::Conf;

/// The property that says how often a client looks for new partitions.
const REFRESH: &str = "topic.metadata.refresh.interval.ms";
/// librdkafka's own choice.
const REFRESH_DEFAULT: Duration = Duration::from_secs(300);

/// How often new partitions are looked for.
#[must_use]
pub fn topic_refresh(cluster: &Cluster) -> Duration {
    let chosen = cluster.properties.iter().rfind(|(key, _)| key == REFRESH);
    let millis = chosen.and_then(|(_, value)| value.expose().parse().ok());
    millis.map_or(REFRESH_DEFAULT, Duration::from_millis)
}

/// Longest time between two polls before the group gives our partitions away, ms. librdkafka's default; the I/O thread
/// polls all the time, so it is reached only when the whole process stands still.
pub const MAX_POLL_INTERVAL_MS: u64 = 300_000;

/// Bytes of a partition in one fetch, however many partitions there are. Of all partitions but the first in a response,
/// brokers send only batches that fit into it (KIP-74): where none does, each fetch brings one batch in all. With half of
/// the 32 KiB that were a partition's part, a thousand partitions with batches of 25 kB got 150 records a second.
const FETCHED: u64 = 64 * 1024;
/// What a partition gets of the bytes fetched ahead, however many there are.
const LEAST: u64 = FETCHED + 8 * 1024;
/// What it gets at most, however few: more makes nothing faster.
const MOST: u64 = 8 * 1024 * 1024;
/// A whole response: more than one partition's part of it ever is.
const FETCH_BYTES: u64 = 2 * MOST;

/// What keeps a pipeline's clients within the process's byte budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchBudget {
    /// While so many bytes of a partition wait, librdkafka fetches no more of it.
    pub waiting: u64,
    /// Bytes of a partition in one fetch, which come on top.
    pub fetched: u64,
}

impl FetchBudget {
    /// Each partition's part of `buffer`, of which one fetch may be half, and at most `most_at_once`.
    #[must_use]
    pub fn shared(buffer: u64, partitions: u64, most_at_once: u64) -> Self {
        let part = (buffer / partitions.max(1)).clamp(LEAST, MOST);
        let fetched = most_at_once.min(FETCHED.max(part / 2));
        Self { waiting: part - fetched, fetched }
    }
}

fn common(conf: &mut Conf, cluster: &Cluster, client_id: &str) -> Result<(), String> {
    conf.set("bootstrap.servers", &cluster.bootstrap)?;
    conf.set("client.id", client_id)?;
    conf.set("socket.keepalive.enable", "true")?;
    conf.set("allow.auto.create.topics", "false")?;
    // Telemetry to the broker (KIP-714) is the operator's to ask for.
    conf.set("enable.metrics.push", "false")?;
    // A broker that comes back is found again within a second, not within ten.
    conf.set("reconnect.backoff.max.ms", "1000")?;
    // A topic that is made after us is noticed soon; known topics are refreshed every five minutes.
    conf.set("topic.metadata.refresh.fast.interval.ms", "250")
}

fn pass_through(conf: &mut Conf, cluster: &Cluster) -> Result<(), String> {
    for (key, value) in &cluster.properties {
        conf.set(key, value.expose())?;
    }
    Ok(())
}

/// The configuration of a client that only asks, beside those that carry records.
///
/// # Errors
/// As [`consumer`].
pub fn asking(cluster: &Cluster, client_id: &str) -> Result<Conf, String> {
    let mut conf = Conf::new();
    conf.set("bootstrap.servers", &cluster.bootstrap)?;
    conf.set("client.id", client_id)?;
    conf.set("allow.auto.create.topics", "false")?;
    conf.set("enable.metrics.push", "false")?;
    pass_through(&mut conf, cluster)?;
    // SAFETY: live configuration, a function that lives as long as the program.
    unsafe { rdkafka_sys::rd_kafka_conf_set_log_cb(conf.as_ptr(), Some(super::log::forward)) };
    Ok(conf)
}

/// A consumer's configuration.
///
/// # Errors
/// librdkafka's text, when it refuses a property (one that the operator passes through).
pub fn consumer(source: &Source, cluster: &Cluster, pipeline: &str, budget: FetchBudget) -> Result<Conf, String> {
    let mut conf = Conf::new();
    let host = &mut conf;
    common(host, cluster, &format!("sluicebox-{pipeline}"))?;
    host.set("group.id", &source.group)?;
    host.set("enable.auto.commit", "false")?;
    host.set("enable.auto.offset.store", "false")?;
    // librdkafka 2.12 counts an end-of-partition event as a record in its position (confluentinc/librdkafka#4844): kept
    // partitions would resume one too far after a rebalance, "out of range", and begin anew. The end is seen by
    // `Consumer::positions` instead.
    host.set("enable.partition.eof", "false")?;
    // Where a partition goes on whose position is not there any more. The host gives every partition its place, so this is
    // not where one without a commit begins. Never "error": librdkafka stops such a partition's fetcher, and only a new
    // assignment would start it again. Before anything is skipped `pipeline/position.rs` sees it, and stops where it must.
    host.set(
        "auto.offset.reset",
        match source.on_lost_offset {
            LostOffset::Earliest | LostOffset::Stop => "earliest",
            LostOffset::Latest => "latest",
        },
    )?;
    host.set(
        "isolation.level",
        match source.isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        },
    )?;
    match source.protocol {
        // KIP-848: the broker decides on session time-out and assignor; setting them is an error.
        Protocol::Consumer => host.set("group.protocol", "consumer")?,
        Protocol::Cooperative => host.set("partition.assignment.strategy", "cooperative-sticky")?,
        Protocol::Range => host.set("partition.assignment.strategy", "range")?,
        Protocol::RoundRobin => host.set("partition.assignment.strategy", "roundrobin")?,
    }
    if source.protocol != Protocol::Consumer {
        host.set("session.timeout.ms", &source.session_timeout.as_millis().to_string())?;
        // librdkafka's heartbeats come every 3 s whatever the session: a short one would be over between two of them.
        let heartbeat = (source.session_timeout.as_millis() / 3).min(3_000);
        host.set("heartbeat.interval.ms", &heartbeat.to_string())?;
    }
    if let Some(instance) = &source.instance_id {
        host.set("group.instance.id", instance)?;
    }
    host.set("max.poll.interval.ms", &MAX_POLL_INTERVAL_MS.to_string())?;
    host.set("fetch.min.bytes", &source.fetch.min_bytes.to_string())?;
    // A batch that is larger still comes, alone.
    host.set("fetch.message.max.bytes", &budget.fetched.to_string())?;
    host.set("fetch.wait.max.ms", &source.fetch.max_wait.as_millis().to_string())?;
    // One response pins its memory until its last record is freed.
    host.set("fetch.max.bytes", &FETCH_BYTES.to_string())?;
    host.set("receive.message.max.bytes", "100000000")?;
    // With the default of 1 s a consumer that drains slowly was measured 23 times slower: its queue runs dry first.
    host.set("fetch.queue.backoff.ms", "10")?;
    host.set("fetch.error.backoff.ms", "100")?;
    host.set("queued.min.messages", "10000")?;
    host.set("queued.max.messages.kbytes", &(budget.waiting / 1024).max(1).to_string())?;
    pass_through(host, cluster)?;
    Ok(conf)
}

/// A producer's configuration.
///
/// # Errors
/// As [`consumer`].
pub fn producer(cluster: &Cluster, pipeline: &str) -> Result<Conf, String> {
    let mut conf = Conf::new();
    let host = &mut conf;
    common(host, cluster, &format!("sluicebox-{pipeline}"))?;
    host.set("enable.idempotence", "true")?;
    host.set("acks", "all")?;
    // The host gathers batches itself, one in flight per partition: librdkafka's own lingering spins and stalls.
    host.set("linger.ms", "0")?;
    host.set("batch.num.messages", "100000")?;
    // Which records are too large is the topic's to say; librdkafka's own limit is below the broker's default.
    host.set("message.max.bytes", "100000000")?;
    // A record is never given up: an outage is waited out, whatever its length.
    host.set("message.timeout.ms", "0")?;
    host.set("queue.buffering.max.messages", "0")?;
    host.set("queue.buffering.max.kbytes", "2097151")?;
    pass_through(host, cluster)?;
    Ok(conf)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// What all partitions may have together stays within the buffer, up to as many as get the least of each.
    #[test]
    fn partitions_share_one_buffer() {
        for buffer in [MIB, 32 * MIB, 256 * MIB] {
            for partitions in (1..=buffer / LEAST).step_by(7) {
                let FetchBudget { waiting, fetched } = FetchBudget::shared(buffer, partitions, MIB);
                assert!((waiting + fetched) * partitions <= buffer, "{partitions}: {waiting} and {fetched}");
                assert!(fetched >= FETCHED && waiting >= LEAST - FETCHED, "{partitions}: {waiting} and {fetched}");
            }
        }
        assert_eq!(FetchBudget::shared(32 * MIB, 8, MIB), FetchBudget { waiting: 3 * MIB, fetched: MIB });
        assert_eq!(FetchBudget::shared(32 * MIB, 1, MIB), FetchBudget { waiting: 7 * MIB, fetched: MIB });
        assert_eq!(FetchBudget::shared(32 * MIB, 256, MIB), FetchBudget { waiting: 64 * 1024, fetched: 64 * 1024 });
        assert_eq!(FetchBudget::shared(32 * MIB, 1_000_000, MIB), FetchBudget { waiting: 8 * 1024, fetched: FETCHED });
        assert_eq!(FetchBudget::shared(32 * MIB, 0, 1024).fetched, 1024, "what the manifest says, where that is less");
    }
}
