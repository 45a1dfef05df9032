//! What the command line asks to load.

use std::path::{Path, PathBuf};

use super::types::Secret;
use super::vars::Env;

/// What the result is for; commands differ in what has to exist already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Everything has to exist.
    #[default]
    Host,
    /// The component may not be built yet, and every cluster is the embedded broker: the plan has
    /// no clusters.
    Dev,
    /// Clusters are compared only when the host's file or a bootstrap is given.
    Check,
}

/// Where health and metrics go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminChoice {
    /// As `host.toml` says, or 127.0.0.1:8321.
    #[default]
    Configured,
    /// `--admin ADDRESS:PORT`.
    At(String),
    /// `--no-admin`.
    Off,
}

/// One load: flags as they were written, nothing checked yet.
#[derive(Clone, Debug, Default)]
pub struct LoadRequest {
    pub purpose: Purpose,
    /// `-f`, in order.
    pub manifests: Vec<PathBuf>,
    /// `--pipelines`: every `*.toml` in it, by name.
    pub pipelines_dir: Option<PathBuf>,
    /// `--config`.
    pub host_config: Option<PathBuf>,
    /// `--bootstrap`; without it the environment variable `SB_BOOTSTRAP`.
    pub bootstrap: Option<String>,
    /// `-X KEY=VALUE`, in order.
    pub librdkafka: Vec<(String, Secret)>,
    /// The pipeline of the flags `--plugin` and others.
    pub inline: Option<InlinePipeline>,
    pub admin: AdminChoice,
    /// `--drain`.
    pub drain: Option<std::time::Duration>,
}

/// A manifest that was deployed to a pipeline, and is read in the place of what the host has.
#[derive(Clone, Copy, Debug)]
pub struct Deployed<'a> {
    /// The pipeline that it was deployed to.
    pub name: &'a str,
    pub text: &'a str,
    /// Where the host has its own, or would have it: relative paths are resolved against it.
    pub place: &'a Path,
    /// The component's file that the host looks at; the manifest's own means another machine.
    pub component: &'a Path,
}

/// A pipeline without a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InlinePipeline {
    pub plugin: PathBuf,
    pub topics: Vec<String>,
    pub group: String,
    /// `[NAME=]TOPIC` each.
    pub outputs: Vec<String>,
    /// `--start`; without it, earliest.
    pub start: Option<String>,
    pub dead_letter: Option<String>,
    /// `--set KEY=VALUE`.
    pub settings: Vec<(String, Secret)>,
}

/// The world outside, as far as loading may ask it.
#[derive(Clone, Copy)]
pub struct Outside<'e> {
    pub env: Env<'e>,
    /// What librdkafka says against a property and its value, if anything.
    pub property_fault: &'e dyn Fn(&str, &str) -> Option<String>,
}

impl Outside<'static> {
    /// The process environment; properties are left for librdkafka to judge when a client is made.
    pub fn process() -> Self {
        Outside { env: &|name| std::env::var(name).ok(), property_fault: &|_, _| None }
    }
}
