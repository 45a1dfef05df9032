//! What `sluicebox dev` is made of. Prints nothing and reads no clock: the command (`cli/dev.rs`) does.
//!
//! - [`broker`]: a broker in this process, on a port that does not change.
//! - [`embed`]: what is different about a pipeline that runs on it.
//! - [`build`]: the handler's build.
//! - [`feed`]: the way of sample files into the topics.
//! - [`watch`], [`show`]: what is in the topics, as lines.
//! - [`fate`]: has every record met its fate? [`account`]: did a swap lose or repeat any?

pub mod account;
pub mod broker;
pub mod build;
pub mod embed;
pub mod fate;
pub mod feed;
pub mod show;
pub mod watch;
