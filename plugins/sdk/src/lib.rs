#![doc = include_str!("../README.md")]

mod answer;
mod batch;
#[doc(hidden)]
pub mod bindings;
mod emission;
mod export;
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
mod tick;

pub use batch::{Batch, Item, Items};
pub use emission::Emission;
pub use handler::{BatchHandler, Handler, MessageHandler, TickHandler};
pub use imports::{Output, batchers, outputs};
pub use message::Message;
pub use outcome::{Error, JsonError, OrReject, Outcome, Result};
pub use settings::Settings;
pub use sluicebox_frames::{BatchInfo, Headers, Source, TimestampType, Trigger, ValueWriter};
pub use tick::Tick;

#[cfg(feature = "json")]
pub use serde_json::{self, json};

/// Everything a handler names: `use sluicebox_sdk::prelude::*;`
pub mod prelude {
    pub use crate::{
        Batch, BatchHandler, Error, Handler, Item, Message, MessageHandler, OrReject, Outcome, Result, Settings, Tick,
        TickHandler, log, metrics,
    };
}

/// For [`export!`] alone.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings;
    pub use crate::export::{Slot, batch, message, tick};
    pub use crate::tick::typed;
}
