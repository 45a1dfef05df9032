//! The manifest of a pipeline that runs: the file that the host has, and what is deployed in its place. Both are read by one
//! function, so that a deployed one is held to the same rules.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::hex;
use crate::config::{Deployed, Pipeline, Report};

/// Bytes of a manifest that is deployed.
pub const LONGEST: usize = 64 << 10;

/// Reads a manifest that was deployed as this process reads its files.
pub type Read = Arc<dyn Fn(&Deployed<'_>) -> Result<Pipeline, Report> + Send + Sync>;

/// Why a manifest is not one to run.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Something is wrong with it.
    #[error("the manifest is refused: {0}")]
    Refused(Report),
    /// Longer than [`LONGEST`].
    #[error("the manifest has more than {LONGEST} bytes")]
    TooLong,
    /// This process has pipelines of its own making, as `dev` does.
    #[error("this host takes no manifests")]
    NoneTaken,
}

/// See the module's text. Cloned freely.
#[derive(Clone)]
pub struct Manifests {
    /// The host's file.
    file: Option<PathBuf>,
    read: Option<Read>,
    /// What the file says, as far as it counts.
    of_file: Arc<Mutex<Arc<Pipeline>>>,
}

impl Manifests {
    /// Of a pipeline whose file says this.
    #[must_use]
    pub fn new(of_file: Arc<Pipeline>, read: Option<Read>) -> Self {
        let file = of_file.origin.file().map(PathBuf::from);
        Self { file, read, of_file: Arc::new(Mutex::new(of_file)) }
    }

    /// What the file says.
    #[must_use]
    pub fn of_file(&self) -> Arc<Pipeline> {
        Arc::clone(&self.of_file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file says something else from now on. What it said before.
    pub(super) fn file_says(&self, config: Arc<Pipeline>) -> Arc<Pipeline> {
        std::mem::replace(&mut self.of_file.lock().unwrap_or_else(PoisonError::into_inner), config)
    }

    /// What the pipeline is to be by a manifest that was deployed; without one, by its file.
    ///
    /// # Errors
    /// When that manifest is none to run.
    pub fn configuration(&self, deployed: Option<&str>) -> Result<Arc<Pipeline>, ManifestError> {
        let of_file = self.of_file();
        let Some(text) = deployed else { return Ok(of_file) };
        let read = self.read.as_ref().ok_or(ManifestError::NoneTaken)?;
        if text.len() > LONGEST {
            return Err(ManifestError::TooLong);
        }
        // A pipeline of flags has no file, and gets a place that says whose it is.
        let place = self.file.clone().unwrap_or_else(|| format!("{}.toml", of_file.name).into());
        let manifest = Deployed { name: &of_file.name, text, place: &place, component: &of_file.component };
        read(&manifest).map(Arc::new).map_err(ManifestError::Refused)
    }

    /// SHA-256 of what the file holds now.
    #[must_use]
    pub fn digest_of_file(&self) -> Option<String> {
        let text = std::fs::read(self.file.as_ref()?).ok()?;
        Some(hex(&Sha256::digest(text)))
    }
}
