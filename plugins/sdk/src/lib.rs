#![doc = include_str!("../README.md")]

mod answer;
mod aside;
mod batch;
#[doc(hidden)]
pub mod bindings;
mod emission;
mod export;
mod failed;
mod handler;
mod imports;
mod instance;
pub mod log;
mod message;
pub mod metrics;
mod outcome;
mod settings;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod typed;

pub use aside::{Aside, Assigned, RevokeReason, Revoked, Tick};
pub use batch::{Batch, Item, Items};
pub use emission::Emission;
pub use failed::{Failed, Verdict};
pub use handler::{BatchHandler, FailureHandler, Handler, MessageHandler, PartitionHandler, StateHandler, TickHandler};
pub use imports::{Output, batchers, outputs};
pub use message::Message;
pub use outcome::{Error, JsonError, OrReject, Outcome, Result};
pub use settings::Settings;
pub use sluicebox_frames::{BatchInfo, Headers, Source, TimestampType, Trigger, ValueWriter};

#[cfg(feature = "json")]
pub use serde_json::{self, json};

/// Everything a handler names: `use sluicebox_sdk::prelude::*;`
pub mod prelude {
    pub use crate::{
        Assigned, Batch, BatchHandler, Error, Failed, FailureHandler, Handler, Item, Message, MessageHandler, OrReject,
        Outcome, PartitionHandler, Result, RevokeReason, Revoked, Settings, StateHandler, Tick, TickHandler, Verdict,
        log, metrics,
    };
}

/// For [`export!`] alone.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::export::{Slot, batch, failures, message, partitions, state, tick};
    pub use crate::typed::{aside, handle_failed};
}
