//! The rules of delivery, pure: std only, no Kafka, no Wasm, no clock (`now` is an argument), no log.
//!
//! - [`offset_tracker`]: which offset may be committed.
//! - [`gates`]: what has to become durable together holds other things back.
//! - [`batcher`]: which messages make a batch, and when it closes.
//! - [`retry`]: attempts and back-off.
//! - [`breaker`]: is most of it failing?
//! - [`stall`]: does a partition stand still?
//! - [`rollout`]: is a canary worse than what it is to replace?
//! - [`position`], [`retention`]: records that were deleted before they were read, or soon will be.
//! - [`burst`]: how many messages cross to a handler at once.
//! - [`outgoing`]: one record on its way out.
//! - [`policy`]: what becomes of a record that failed for good.
//! - [`partitioner`]: which partition a key belongs to, as Java clients say.
//! - [`ticket`]: what a delivery report has to settle.
//! - [`verdict`]: what a handler says of a failed message; why a partition is given back.

pub mod batcher;
pub mod breaker;
pub mod burst;
pub mod gates;
pub mod offset_tracker;
pub mod outgoing;
pub mod partitioner;
pub mod policy;
pub mod position;
pub mod retention;
pub mod retry;
pub mod rollout;
pub mod stall;
pub mod ticket;
pub mod verdict;
