//! What an error of librdkafka means for a pipeline.

use super::Code;

use super::ffi;

/// What to do about a record whose delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing is wrong with the record: try again, for as long as it takes.
    Wait,
    /// The broker (or librdkafka) will never take this record.
    Refused,
    /// The producer cannot go on.
    Fatal,
}

/// Sorts a delivery error.
#[must_use]
pub const fn delivery(code: Code) -> Delivery {
    match code {
        Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE
        | Code::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE
        | Code::RD_KAFKA_RESP_ERR_INVALID_MSG
        | Code::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP
        | Code::RD_KAFKA_RESP_ERR_INVALID_RECORD
        | Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION
        | Code::RD_KAFKA_RESP_ERR__INVALID_ARG
        | Code::RD_KAFKA_RESP_ERR__BAD_MSG => Delivery::Refused,
        Code::RD_KAFKA_RESP_ERR__FATAL | Code::RD_KAFKA_RESP_ERR__FENCED | Code::RD_KAFKA_RESP_ERR__STATE => {
            Delivery::Fatal
        }
        _ => Delivery::Wait,
    }
}

/// Whether a commit failed because the group is being shared out anew, or has gone on without us. Nothing for an operator: what
/// stays ours is committed again, and of what does not a rebalance tells. Everything else is a commit that has to be tried
/// until it succeeds, and that somebody may have to do something about.
#[must_use]
pub const fn is_rebalance(code: Code) -> bool {
    matches!(code, Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS) || is_no_member(code)
}

/// Whether a commit failed because the group does not take it for one of a member as it is now.
#[must_use]
pub const fn is_no_member(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID
            | Code::RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH
            | Code::RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH
    )
}

/// What the operator should look at first, as far as the error tells.
#[must_use]
pub fn hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::RD_KAFKA_RESP_ERR__TRANSPORT | Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN => {
            "is the broker running, and is the address right? A TLS port that is spoken to in plain text (or the other way \
             round) looks like this too"
        }
        Code::RD_KAFKA_RESP_ERR__RESOLVE => "the host name does not resolve here",
        Code::RD_KAFKA_RESP_ERR__AUTHENTICATION | Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED => {
            "check user name, password and SASL mechanism of the cluster in host.toml"
        }
        Code::RD_KAFKA_RESP_ERR__SSL => "check `tls.ca`, certificate and host name of the cluster in host.toml",
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
            "the host's Kafka user may not use this topic: it needs READ and DESCRIBE on inputs, WRITE and DESCRIBE on \
             outputs and the dead-letter topic"
        }
        Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => "the host's Kafka user needs READ on the consumer group",
        Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED => {
            "the host's Kafka user needs IDEMPOTENT_WRITE on the cluster (brokers before 2.8)"
        }
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => {
            "create the topic, or correct its name"
        }
        Code::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL => {
            "members of this group use another assignment strategy: stop them first, or set `source.protocol` to theirs"
        }
        Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID | Code::RD_KAFKA_RESP_ERR_UNRELEASED_INSTANCE_ID => {
            "another member uses the same `source.instance_id`"
        }
        _ => return None,
    })
}

/// `text (NAME); hint`.
#[must_use]
pub fn explain(code: Code, text: &str) -> String {
    let text = if text.is_empty() { ffi::describe(code) } else { text.to_owned() };
    match hint(code) {
        Some(hint) => format!("{text} ({}): {hint}", ffi::name(code)),
        None => format!("{text} ({})", ffi::name(code)),
    }
}
