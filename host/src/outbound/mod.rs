//! Outbound HTTP for handlers that were granted it: one client per pipeline, whose connections are pooled, on a thread of
//! the process's own.
//!
//! [`rules`] says what may be asked and which addresses are reached (pure); [`client`] holds a request to its limits;
//! [`connect`] resolves names, looks at the addresses and connects; [`failure`] says what went wrong, to authors. Knows
//! nothing of WebAssembly.
//!
//! Invariants: a request is looked at before anything is sent, each on its own: redirects are answers like others, so
//! whoever follows one asks again. What is connected to is the address that was looked at, never a name. A request ends at
//! its time, whatever the handler does.

mod client;
mod connect;
mod failure;
pub mod rules;
mod thread;

pub use client::{Answer, Client, Limits, RequestBody, Times};
pub use connect::{Resolve, SystemNames};
pub use failure::Failure;
pub use thread::Outbound;

use std::path::PathBuf;

use rules::{Range, Site};

/// What a pipeline may ask: the author's sites, with what the operator adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// At least one.
    pub sites: Vec<Site>,
    /// Addresses that are refused to others.
    pub addresses: Vec<Range>,
    /// Certificate authorities beside the system's, as PEM.
    pub ca: Option<PathBuf>,
}
