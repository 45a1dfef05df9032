//! Loads the components that a plan names, and finds what does not fit between a manifest and its handler. Each finding
//! has its place in the manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{DEFAULT_BATCHER, Diagnostic, Pipeline, codes};
use crate::plugin::{LoadError, LoadRules, Runtime, Version};

/// Loaded components, each file once for all pipelines that load it by the same rules.
pub struct Components {
    runtime: Arc<Runtime>,
    loaded: BTreeMap<(PathBuf, LoadRules), Arc<Version>>,
}

impl Components {
    /// None yet.
    #[must_use]
    pub const fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime, loaded: BTreeMap::new() }
    }

    /// The component of a pipeline, checked against its manifest.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn load(&mut self, pipeline: &Pipeline) -> Result<Arc<Version>, Vec<Diagnostic>> {
        let rules = LoadRules::of(pipeline);
        let key = (pipeline.component.clone(), rules);
        let version = match self.loaded.get(&key) {
            Some(version) => Arc::clone(version),
            None => {
                let version = Version::load_file(&self.runtime, &pipeline.component, &key.1)
                    .map_err(|error| vec![unloadable(pipeline, &error)])?;
                self.loaded.insert(key, Arc::clone(&version));
                version
            }
        };
        let unreachable = unreachable(pipeline, version.has_message(), version.has_batch());
        if unreachable.is_empty() { Ok(version) } else { Err(unreachable) }
    }
}

fn unloadable(pipeline: &Pipeline, error: &LoadError) -> Diagnostic {
    // "what: fix" is the form of every load error's text.
    let text = error.to_string();
    let at = pipeline.origin.component();
    match text.rsplit_once(": ") {
        Some((what, fix)) => Diagnostic::error(codes::BAD_COMPONENT, what).at(at).help(fix),
        None => Diagnostic::error(codes::BAD_COMPONENT, text).at(at),
    }
}

/// Batchers without a handler for them, and the other way round.
pub(crate) fn unreachable(pipeline: &Pipeline, has_message: bool, has_batch: bool) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for batcher in &pipeline.batchers {
        let at = pipeline.origin.batcher(&batcher.name);
        if !has_batch {
            let what = format!("nothing takes the batches of `{}`: the handler exports no handle-batch", batcher.name);
            let fix = format!("remove [batch.{}], or implement handle_batch", batcher.name);
            found.push(Diagnostic::error(codes::UNREACHABLE, what).at(at).help(fix));
        } else if !has_message && batcher.name != DEFAULT_BATCHER {
            let what = format!(
                "nothing sends to the batcher `{}`: the handler exports no handle-message, so every record goes through \
                 `{DEFAULT_BATCHER}`",
                batcher.name
            );
            let fix = format!("name it [batch.{DEFAULT_BATCHER}]");
            found.push(Diagnostic::error(codes::UNREACHABLE, what).at(at).help(fix));
        }
    }
    found
}
