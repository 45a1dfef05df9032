//! Which librdkafka properties an operator may pass through, and why not the others.
//!
//! Three kinds are refused: those that carry a promise of the host (what is committed, what is
//! acknowledged), those that a file says in words of its own (two places for one truth), and those
//! that load or run foreign code. Pure; the values are judged by librdkafka itself.

/// Why a property is refused, and what to use instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: &'static str,
    /// A key or flag of ours; empty when there is none.
    pub instead: &'static str,
}

/// `None`: the property may be passed through.
pub fn refusal(key: &str) -> Option<Refusal> {
    let key = key.to_ascii_lowercase();
    let exact = GROUPS.iter().find(|group| group.keys.contains(&key.as_str()));
    let group =
        exact.or_else(|| GROUPS.iter().find(|group| group.prefixes.iter().any(|prefix| key.starts_with(prefix))));
    let api_only = key.ends_with("_cb").then_some(API_ONLY);
    group.map(|group| group.refusal).or(api_only)
}

struct Group {
    keys: &'static [&'static str],
    prefixes: &'static [&'static str],
    refusal: Refusal,
}

const fn group(keys: &'static [&'static str], why: &'static str, instead: &'static str) -> Group {
    Group { keys, prefixes: &[], refusal: Refusal { why, instead } }
}

const API_ONLY: Refusal = Refusal { why: "it is not a setting but part of the C interface", instead: "" };

const GROUPS: [Group; 21] = [
    group(
        &["bootstrap.servers", "metadata.broker.list"],
        "a cluster has one address, in `bootstrap`",
        "`bootstrap` in [cluster.NAME], or --bootstrap",
    ),
    group(&["group.id"], "each pipeline has its own consumer group", "`group` in [source], or --group"),
    group(&["group.instance.id"], "it belongs to one pipeline", "`instance_id` in [source]"),
    group(&["session.timeout.ms"], "it belongs to one pipeline", "`session_timeout` in [source]"),
    group(
        &["partition.assignment.strategy", "group.protocol", "group.protocol.type", "group.remote.assignor"],
        "the host drains and commits by the rules of the protocol that it knows of",
        "`protocol` in [source]",
    ),
    group(
        &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        "the host commits, and only what is settled: librdkafka would commit records whose fate is open",
        "`commit_interval` in [ack]",
    ),
    group(&["auto.offset.reset"], "where a group begins is said per pipeline", "`start` in [source], or --start"),
    group(&["isolation.level"], "it belongs to one pipeline", "`isolation` in [source]"),
    group(
        &["fetch.min.bytes", "fetch.wait.max.ms", "fetch.message.max.bytes", "max.partition.fetch.bytes"],
        "it belongs to one pipeline",
        "`fetch` in [source]",
    ),
    group(
        &["queued.max.messages.kbytes"],
        "the host splits its memory budget over the partitions",
        "`fetch.buffer` in [source], `memory` in [limits] of the host's file",
    ),
    group(
        &["enable.partition.eof"],
        "librdkafka counts the end of a partition as a record, which would be skipped after a rebalance",
        "",
    ),
    group(
        &[
            "linger.ms",
            "queue.buffering.max.ms",
            "queue.buffering.max.messages",
            "queue.buffering.max.kbytes",
            "queuing.strategy",
            "sticky.partitioning.linger.ms",
        ],
        "the host gathers and bounds what it sends: what arrives while a batch is under way is the next batch",
        "",
    ),
    group(
        &[
            "acks",
            "request.required.acks",
            "enable.idempotence",
            "enable.gapless.guarantee",
            "max.in.flight",
            "max.in.flight.requests.per.connection",
            "message.timeout.ms",
            "delivery.timeout.ms",
            "message.send.max.retries",
            "retries",
        ],
        "a record is settled only when all replicas have its emissions, once and in order",
        "",
    ),
    group(&["delivery.report.only.error"], "the host settles records by their delivery reports", ""),
    group(
        &["compression.codec", "compression.type"],
        "it belongs to one output",
        "`send = { compression = \"...\" }` in [output.NAME]",
    ),
    group(&["partitioner", "msg_order_cmp"], "the host chooses partitions, as Java clients do (murmur2)", ""),
    group(&["transactional.id", "transaction.timeout.ms"], "transactions are not supported yet", ""),
    Group {
        keys: &["plugin.library.paths", "sasl.kerberos.kinit.cmd"],
        prefixes: &["ssl.engine.", "ssl.providers"],
        refusal: Refusal { why: "it loads or runs foreign code inside the host", instead: "" },
    },
    Group {
        keys: &[],
        prefixes: &["test.mock.", "ut_", "internal."],
        refusal: Refusal {
            why: "it is for librdkafka's own tests",
            instead: "`sluicebox dev`, which has an embedded broker",
        },
    },
    group(&["log.queue", "enabled_events"], "the host reads librdkafka's log and events its own way", ""),
    group(
        &[
            "builtin.features",
            "interceptors",
            "opaque",
            "default_topic_conf",
            "ssl_engine_callback_data",
            "ssl_key",
            "ssl_certificate",
            "ssl_ca",
        ],
        API_ONLY.why,
        API_ONLY.instead,
    ),
];

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn what_the_host_owns_and_what_loads_code_is_refused() {
        let refused = [
            "group.id",
            "bootstrap.servers",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "auto.offset.reset",
            "partition.assignment.strategy",
            "group.protocol",
            "linger.ms",
            "enable.idempotence",
            "acks",
            "message.timeout.ms",
            "delivery.report.only.error",
            "dr_msg_cb",
            "rebalance_cb",
            "enable.partition.eof",
            "isolation.level",
            "log.queue",
            "test.mock.num.brokers",
            "plugin.library.paths",
            "Plugin.Library.Paths",
            "ssl.engine.location",
            "ssl.engine.id",
            "ssl.providers",
            "sasl.kerberos.kinit.cmd",
            "transactional.id",
        ];
        for key in refused {
            assert!(refusal(key).is_some(), "{key}");
        }
    }

    #[test]
    fn the_rest_passes() {
        let passed = ["client.id", "debug", "socket.timeout.ms", "max.poll.interval.ms", "ssl.ca.location"];
        for key in passed {
            assert_eq!(refusal(key), None, "{key}");
        }
    }
}
