//! Commands that talk to running hosts, with their flags and help.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;

/// Which hosts a command talks to.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Host")]
pub struct RemoteArgs {
    /// A running host's admin port; repeatable
    #[arg(
        long = "host",
        value_name = "URL",
        env = "SB_HOST",
        value_delimiter = ',',
        default_value = DEFAULT_HOST,
        hide_env_values = true
    )]
    pub hosts: Vec<String>,
    /// File with the token that hosts on other machines ask for
    #[arg(long, value_name = "FILE", env = "SB_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
}

/// Where a host listens unless it was told otherwise.
const DEFAULT_HOST: &str = "http://127.0.0.1:8321";

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sluicebox status
  sluicebox status orders-enrich --partitions --why
  sluicebox status -o json | jq '.hosts[].pipelines[] | select(.state != \"running\")'

A line per pipeline: state, version (the beginning of its digest), partitions that this host owns, lag, records
in flight, records done. What is not as it should be follows with its reason and the next command; --why shows
all of it.")]
pub struct StatusArgs {
    /// One pipeline; all of them without it
    #[arg(value_name = "NAME", value_parser = pipeline_name)]
    pub name: Option<String>,
    /// Each partition, too
    #[arg(long)]
    pub partitions: bool,
    /// Everything that is not as it should be, not only the first
    #[arg(long)]
    pub why: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  sluicebox pause orders-enrich --reason \"the table is being moved\"

What the handler has begun is finished and committed. A pause ends with `sluicebox resume`, or with the host.")]
pub struct PauseArgs {
    /// The pipeline
    #[arg(value_name = "NAME", value_parser = pipeline_name)]
    pub name: String,
    /// For those who ask why it stands still
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  sluicebox resume orders-enrich

Ends a pause by `sluicebox pause`, and one that the pipeline took because most of its records failed.")]
pub struct ResumeArgs {
    /// The pipeline
    #[arg(value_name = "NAME", value_parser = pipeline_name)]
    pub name: String,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "sluicebox deploy [OPTIONS] [NAME] <PATH>",
    after_help = "\
Examples:
  sluicebox deploy orders-enrich target/wasm32-wasip2/release/orders.wasm
  sluicebox deploy orders.wasm --plan                    what would change; of the only pipeline
  sluicebox deploy orders-enrich orders.wasm --canary 10% --for 2m
  sluicebox deploy pipeline.toml                         the component that it names, with its settings
  sluicebox deploy pipeline.toml --settings-only --plan  what its settings would change
  sluicebox deploy orders-enrich orders.wasm --host http://a:8321 --host http://b:8321

The host looks at the component first: its form, its world, its imports, whether an instance of it starts. Then
each partition switches between two calls: nothing is lost, nothing is done twice, no rebalance. Whatever fails
leaves the old version serving. The command ends when a record has passed the new version, or says why none did.
The version outlives a restart, until the file that the manifest names changes. Who deployed after somebody else
did meanwhile is told so: exit code 5.

A manifest names its pipeline. Settings, limits, batches, retries and the like change by it in the same way; what
cannot change while the pipeline runs (its topics, group, outputs) is refused by name. It takes the place of the
host's own file until that changes; the host's ceilings, clusters and variables hold for it."
)]
pub struct DeployArgs {
    /// The pipeline, which need not be named where the host has only one
    #[arg(value_name = "NAME")]
    first: PathBuf,
    /// The component: a .wasm file; or a manifest: a .toml file
    #[arg(value_name = "PATH")]
    second: Option<PathBuf>,
    /// Of a manifest take the settings, and leave the component as it is
    #[arg(long)]
    pub settings_only: bool,
    /// Look only: would it be taken, and what would change?
    #[arg(long)]
    pub plan: bool,
    /// What becomes of open batches: they run once on the old version, or on the new one [default: drain]
    #[arg(long, value_enum, value_name = "HOW")]
    pub strategy: Option<StrategyWord>,
    /// Let a share of the partitions run it first; when they do worse than the others, it is taken back
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub canary: Option<u8>,
    /// For so long [default: 2m]
    #[arg(long = "for", value_name = "TIME", value_parser = duration, requires = "canary")]
    pub canary_for: Option<Duration>,
    /// Of several hosts, switch those that can though others cannot
    #[arg(long)]
    pub force: bool,
    /// How long partitions may take to switch, and the first record to pass; then it is taken back [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StrategyWord {
    Drain,
    Immediate,
}

impl StrategyWord {
    pub fn word(self) -> &'static str {
        match self {
            StrategyWord::Drain => "drain",
            StrategyWord::Immediate => "immediate",
        }
    }
}

impl DeployArgs {
    /// Pipeline, if it was named, and file.
    ///
    /// # Errors
    /// When that is no name.
    pub fn what(&self) -> Result<(Option<String>, &Path), String> {
        match &self.second {
            Some(path) => Ok((Some(pipeline_name(&self.first.to_string_lossy())?), path)),
            None => Ok((None, &self.first)),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sluicebox rollback orders-enrich                       to the version before
  sluicebox rollback orders-enrich --to 9f3c04aa

The host keeps the last versions of a pipeline, with their manifests (`keep_versions` in [swap], five), so nothing has
to be built or fetched.")]
pub struct RollbackArgs {
    /// The pipeline
    #[arg(value_name = "NAME", value_parser = pipeline_name)]
    pub name: String,
    /// The version, by the beginning of its digest or of its manifest's [default: the one before]
    #[arg(long, value_name = "DIGEST")]
    pub to: Option<String>,
    /// Look only: would it be taken, and what would change?
    #[arg(long)]
    pub plan: bool,
    /// Of several hosts, switch those that can though others cannot
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Args, Clone, Debug)]
pub struct VersionsArgs {
    /// The pipeline
    #[arg(value_name = "NAME", value_parser = pipeline_name)]
    pub name: String,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// What a manifest may be named; nothing else has a place in a path.
fn pipeline_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !text.is_empty() && text.chars().all(legal) {
        true => Ok(text.to_owned()),
        false => Err("names of pipelines have lower-case letters, digits and `-`".to_owned()),
    }
}

/// `10%` or `10`.
fn percent(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        _ => Err("write a share of the partitions, 1% to 99%".to_owned()),
    }
}
