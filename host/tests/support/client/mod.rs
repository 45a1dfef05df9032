//! Our own Kafka client for tests, on librdkafka's C interface where the `rdkafka` crate loses something (null or binary
//! headers, names that are not UTF-8) or is slow.
//!
//! Waiting is always for an event of the broker (a record, an answer) with a deadline, never a pause.

mod admin;
mod commits;
mod native;
mod produce;
mod read;

pub use admin::{
    add_partitions, commit, committed, create_topic, create_topic_with, delete_records, delete_topic, end_offsets,
    total,
};
pub use commits::{Commit, Commits};
pub use native::partition_of;
pub use produce::{NewRecord, Producer, Transactions};
pub use read::{Reader, read_all, read_within};

/// One record with all that Kafka keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub timestamp_type: TimestampType,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// In order, repeated names kept; a name is bytes, a value may be null.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Record {
    /// The key as text, for messages and keys that are known to be text.
    pub fn key_text(&self) -> &str {
        text(self.key.as_deref())
    }

    pub fn value_text(&self) -> &str {
        text(self.value.as_deref())
    }

    /// The value of the first header of this name, where there is one and it is not null.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(key, _)| key == name.as_bytes())?.1.as_deref()
    }
}

fn text(bytes: Option<&[u8]>) -> &str {
    let bytes = bytes.expect("the test expects bytes, not null");
    std::str::from_utf8(bytes).expect("the test expects text")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    None,
    Create,
    LogAppend,
}
