//! The rules of delivery, pure: std only, no Kafka, no Wasm, no clock (`now` is an argument), no log.
//!
//! - [`offset_tracker`]: which offset may be committed.
//! - [`gates`]: emissions of a whole batch hold back the records of that batch.
//! - [`batcher`]: which messages make a batch, and when it closes.
//! - [`retry`]: attempts and back-off.
//! - [`burst`]: how many messages cross to a handler at once.
//! - [`outgoing`]: one record on its way out.
//! - [`partitioner`]: which partition a key belongs to, as Java clients say.
//! - [`ticket`]: what a delivery report has to settle.
//! - [`verdict`]: what a handler says of a failed message; why a partition is given back.

pub mod batcher;
pub mod burst;
pub mod gates;
pub mod offset_tracker;
pub mod outgoing;
pub mod partitioner;
pub mod retry;
pub mod ticket;
pub mod verdict;
