//! The only place that names rdkafka. Everything here is used by one thread, the pipeline's I/O thread, unless it says
//! otherwise; librdkafka's messages never leave this module.
//!
//! - [`ffi`]: owners of librdkafka's handles, each dropped in the order that does not hang.
//! - `raw_headers`: a fetched record's headers, as they lie in the fetch buffer.
//! - [`settings`]: which librdkafka properties a pipeline's clients get.
//! - [`consumer`]: group membership, events, partition queues, commits.
//! - [`partition`]: drains one partition's queue into burst frames.
//! - [`producer`]: self-clocked producing and its reports.
//! - `chunk`: the batch that is with librdkafka, and the one that gathers.
//! - [`event_time`]: event time and headers for batched producing.
//! - [`limits`]: which records a topic may refuse; these travel alone.
//! - [`log`]: librdkafka's lines, into ours.
//! - [`members`]: who is in a group.
//! - [`aging`]: how long records have left at which partitions stand.
//! - `topic_config`: what brokers say of topics' configuration.
//! - [`fetch_wait`]: how long brokers wait for records before they answer.
//! - [`lookup`]: where a group stands in partitions that it was just given.
//! - [`metadata`]: do the topics exist, how many partitions have they.
//! - [`mock`]: a broker in memory, for `sluicebox dev`.
//! - [`offsets`]: where a group stands, where partitions end.
//! - [`problem`]: what an error means: wait, refused for good, or the end of a client.

pub mod aging;
mod chunk;
pub mod consumer;
pub mod event_time;
pub mod fetch_wait;
pub mod ffi;
mod held;
pub mod limits;
mod log;
pub mod lookup;
pub mod members;
pub mod metadata;
pub mod mock;
pub mod offsets;
pub mod partition;
pub mod problem;
pub mod producer;
mod raw_headers;
pub mod reread;
pub mod settings;
mod topic_config;

/// librdkafka's and Kafka's error codes.
pub use rdkafka_sys::types::RDKafkaRespErr as Code;
