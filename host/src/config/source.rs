//! What a pipeline reads, and as whom: a part of the checked configuration.

use std::time::Duration;

use super::types::MIB;

/// What is read, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub cluster: String,
    /// At least one, each a legal topic name, no two alike.
    pub topics: Vec<String>,
    /// Consumer group. Default: the pipeline's name.
    pub group: String,
    /// Where a partition without a commit begins. Default earliest.
    pub start: Start,
    /// Where a partition goes on whose committed offset is not there any more. Default earliest.
    pub on_lost_offset: LostOffset,
    /// Default read_committed.
    pub isolation: Isolation,
    /// Default cooperative.
    pub protocol: Protocol,
    /// Static membership; `None` = dynamic.
    pub instance_id: Option<String>,
    /// Default 45 s. With [`Protocol::Consumer`] the broker decides and this is to be ignored.
    pub session_timeout: Duration,
    /// How long a pipeline with little to do waits for more messages before it calls handlers with what came. Default 0.
    pub linger: Duration,
    pub fetch: Fetch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// The first record of this time or later, in ms since 1970.
    At(i64),
    /// The first record that is not older than this when the partition is assigned.
    Ago(Duration),
    /// Nowhere: the partition waits until somebody commits an offset for it, and says so.
    None,
}

/// What follows when retention, or a topic made anew, has taken the record of a committed offset away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostOffset {
    /// The oldest record that is there.
    Earliest,
    /// The next record that comes.
    Latest,
    /// Nothing more is read: the pipeline stops with this as its reason.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadCommitted,
    ReadUncommitted,
}

/// How partitions are shared out in the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Cooperative-sticky: a rebalance moves only what has to move.
    Cooperative,
    Range,
    RoundRobin,
    /// The broker assigns (KIP-848).
    Consumer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Bytes that the broker waits for. Default 1 B.
    pub min_bytes: u64,
    /// Bytes per partition and fetch, at most half of its part of `buffer` (or 64 KiB). Default 1 MiB.
    pub max_per_partition: u64,
    /// How long the broker waits for `min_bytes`, when there is no backlog. Default 1 s.
    pub max_wait: Duration,
    /// Bytes fetched ahead by this pipeline. Default 32 MiB, never above the memory budget.
    pub buffer: u64,
}

impl Default for Fetch {
    fn default() -> Self {
        Fetch { min_bytes: 1, max_per_partition: MIB, max_wait: Duration::from_secs(1), buffer: 32 * MIB }
    }
}
