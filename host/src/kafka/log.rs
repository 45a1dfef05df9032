//! librdkafka's log lines, into ours. Called from any of librdkafka's threads.

use std::ffi::{c_char, c_int};

use rdkafka_sys as rd;

use super::ffi::text;

/// Log callback of every client.
pub(super) unsafe extern "C" fn forward(
    client: *const rd::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka hands over a live client (null while it is being made) and NUL-terminated strings.
    let client = if client.is_null() { String::new() } else { text(unsafe { rd::rd_kafka_name(client) }) };
    let (facility, line) = (text(facility), text(line));
    // syslog levels. What an operator has to act on is said by the pipeline's state, with its reason; these lines are the
    // details behind it.
    match level {
        0..=4 => tracing::info!(target: "librdkafka", client, facility, "{line}"),
        5 | 6 => tracing::debug!(target: "librdkafka", client, facility, "{line}"),
        _ => tracing::trace!(target: "librdkafka", client, facility, "{line}"),
    }
}
