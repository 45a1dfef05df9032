//! Changing what a pipeline runs while it runs. There is one way to another version, whoever asks for it – a file that
//! changed, a deployment, a rollback –: what comes is admitted ([`admission`]), off the data path, and only then ordered
//! (`pipeline::control`), and lanes go over one by one. Whatever fails before that leaves the old version serving, and says
//! why and what to do.
//!
//! - [`admission`]: does a component fit this host, this pipeline and its configuration, does an instance start, and is it done
//!   with the records of the pipeline's sample (`sample.rs`)?
//! - [`watch`]: components and manifests that change on disk.
//! - [`manifests`]: the manifest's file, and what was deployed in its place.
//! - [`store`]: versions on disk; [`deployments`]: which of them a pipeline is to run, one deployment at a time.

pub mod admission;
pub mod deployments;
pub mod manifests;
mod sample;
pub mod store;
pub mod watch;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use self::admission::{Admitted, Refused, Trial};
use self::manifests::Manifests;
use crate::config::{Cluster, Pipeline};
use crate::outbound::Client;
use crate::pipeline::control::{Conflict, Control, Lanes, Strategy, SwapOrder};
use crate::pipeline::handlers::Logs;
use crate::pipeline::status::PipelineStatus;
use crate::plugin::Runtime;

/// How a version takes the place of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// On which lanes.
    pub lanes: Lanes,
    /// When a canary is promoted by itself.
    pub promote_after: Option<Duration>,
    /// What becomes of open batches.
    pub strategy: Strategy,
    /// The last order that whoever asks knows of; `None`: whatever the last is.
    pub after: Option<u64>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { lanes: Lanes::All, promote_after: None, strategy: Strategy::Drain, after: None }
    }
}

/// One pipeline that runs, for those who change it. Cloned freely.
#[derive(Clone)]
pub struct Live {
    /// What it runs, and what it is told.
    pub control: Control,
    /// What it says of itself.
    pub status: Arc<PipelineStatus>,
    /// The cluster that it reads from.
    pub cluster: Cluster,
    /// Its manifest.
    pub manifests: Manifests,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) logs: Logs,
    pub(crate) http: Option<Arc<Client>>,
}

impl Live {
    /// The pipeline's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.status.name
    }

    /// Sees whether a component may take the place of the one that runs, under this configuration. Compiles it, and starts
    /// an instance: takes from milliseconds to many seconds on this thread, which must not be one that serves anything. The
    /// sample is for what is new: a version that one goes back to has had its records.
    ///
    /// # Errors
    /// What is wrong, and what to do. Nothing has changed then.
    pub fn admit(&self, config: &Arc<Pipeline>, bytes: &[u8], trial: Trial) -> Result<Admitted, Refused> {
        admission::admit(self, config, bytes, trial)
    }

    /// Orders what was admitted. Gives the order's number, by which its progress is known.
    ///
    /// # Errors
    /// When somebody else gave an order since.
    pub fn order(&self, admitted: Admitted, rollout: Rollout) -> Result<u64, Conflict> {
        let Admitted { config, version: build, prepared } = admitted;
        let Rollout { lanes, promote_after, strategy, after } = rollout;
        let number = after.unwrap_or_else(|| self.control.last()) + 1;
        self.control.switch(SwapOrder { number, config, build, lanes, promote_after, strategy, prepared })?;
        Ok(number)
    }
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to memory does not fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}
