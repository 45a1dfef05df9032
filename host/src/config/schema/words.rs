//! The words that keys of a manifest take: those that work, and those that are specified for later.

use crate::config::types::{AckMode, Compression, Isolation, LostOffset, OnStateRefused, OutputTimestamp, Protocol};
use crate::config::values::Choices;

pub const ON_LOST_OFFSET: Choices<LostOffset> = Choices {
    now: &[("earliest", LostOffset::Earliest), ("latest", LostOffset::Latest), ("stop", LostOffset::Stop)],
    later: &[],
};
pub const ISOLATION: Choices<Isolation> = Choices {
    now: &[("read_committed", Isolation::ReadCommitted), ("read_uncommitted", Isolation::ReadUncommitted)],
    later: &[],
};
pub const PROTOCOL: Choices<Protocol> = Choices {
    now: &[
        ("cooperative", Protocol::Cooperative),
        ("range", Protocol::Range),
        ("roundrobin", Protocol::RoundRobin),
        ("consumer", Protocol::Consumer),
    ],
    later: &[],
};
pub const ORDERING: Choices<()> = Choices { now: &[("partition", ())], later: &["key", "none"] };
pub const GROUP_BY: Choices<()> = Choices { now: &[("partition", ())], later: &["none"] };
pub const ACK_MODE: Choices<AckMode> =
    Choices { now: &[("success", AckMode::Success), ("receive", AckMode::Receive)], later: &[] };
pub const ON_STATE_REFUSED: Choices<OnStateRefused> =
    Choices { now: &[("fresh", OnStateRefused::Fresh), ("refuse", OnStateRefused::Refuse)], later: &[] };
pub const MODE: Choices<()> = Choices { now: &[("auto", ())], later: &["message", "batch"] };
pub const PARTITIONER: Choices<()> = Choices { now: &[("murmur2", ())], later: &[] };
pub const ACKS: Choices<()> = Choices { now: &[("all", ())], later: &[] };
pub const TIMESTAMP: Choices<OutputTimestamp> =
    Choices { now: &[("record", OutputTimestamp::Record), ("now", OutputTimestamp::Now)], later: &[] };
pub const COMPRESSION: Choices<Compression> = Choices {
    now: &[
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ],
    later: &[],
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ThenWord {
    Block,
    DeadLetter,
    Drop,
    Stop,
}
pub const THEN: Choices<ThenWord> = Choices {
    now: &[
        ("block", ThenWord::Block),
        ("dead-letter", ThenWord::DeadLetter),
        ("drop", ThenWord::Drop),
        ("stop", ThenWord::Stop),
    ],
    later: &[],
};
