//! Every command and flag, with its help. Knows the words of the command line and how they become a
//! request; runs nothing.
//!
//! A flag that is malformed in itself ends here with exit code 2; what needs a look at files or
//! other values is left to `config`, so that it is reported together with everything else.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum};

use crate::config::{self, AdminChoice, InlinePipeline, LoadRequest, Purpose};

/// Runs sandboxed WebAssembly handlers over Kafka streams
#[derive(Debug, Parser)]
#[command(
    name = "sluicebox",
    version,
    propagate_version = true,
    styles = styles(),
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
First steps:
  sluicebox dev examples/orders           build a handler and watch records flow, no Kafka needed
  sluicebox check pipeline.toml           find every mistake in a manifest at once
  sluicebox host -f pipeline.toml --bootstrap localhost:9092

Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot connect, 4 not found, 5 precondition, 6 timed out,
130 interrupted"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// What goes to stdout
    #[arg(short = 'o', long = "format", global = true, value_enum, default_value_t = OutputForm::Text, value_name = "FORM")]
    pub format: OutputForm,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say only what failed
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Colours; NO_COLOR switches them off as well
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub color: Colour,
    /// Form of the log on stderr
    #[arg(long, global = true, value_enum, default_value_t = LogForm::Auto, value_name = "FORM")]
    pub log_format: LogForm,
}

impl Global {
    /// Is colour wanted on this stream? `NO_COLOR` counts when it is not empty.
    pub fn colour(&self, is_terminal: bool, no_color: Option<&str>) -> bool {
        match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => is_terminal && no_color.is_none_or(str::is_empty),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Text on a terminal, JSON elsewhere
    Auto,
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run pipelines against a Kafka cluster
    Host(Box<HostArgs>),
    /// Build a handler and run it on an embedded broker
    Dev(DevArgs),
    /// Find every mistake in manifests, without running anything
    Check(CheckArgs),
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  One handler, no file:
    sluicebox host --plugin handler.wasm --topics orders --group enrich --output enriched \\
      --bootstrap localhost:9092
  Two inputs, two outputs by name, settings, a dead-letter topic:
    sluicebox host --plugin handler.wasm --topics orders,returns --group enrich \\
      --output good=orders-enriched --output odd=orders-odd --set region=eu --set limit=10 \\
      --dead-letter orders-dead --bootstrap localhost:9092
  Manifests, and clusters with their credentials from the platform team's file:
    sluicebox host --pipelines /etc/sluicebox/pipelines --config /etc/sluicebox/host.toml

Secrets come from the environment or from files, named by [vars] in host.toml.
Ctrl-C or SIGTERM settles and commits what is in flight; a second one ends at once.")]
pub struct HostArgs {
    /// Manifest of a pipeline; repeatable
    #[arg(short = 'f', long = "file", value_name = "FILE", help_heading = "Pipelines")]
    pub files: Vec<PathBuf>,
    /// Directory of manifests: every *.toml in it
    #[arg(long, value_name = "DIR", help_heading = "Pipelines")]
    pub pipelines: Option<PathBuf>,
    #[command(flatten)]
    pub inline: InlineArgs,
    /// Clusters, security, ceilings: the platform team's file
    #[arg(long, value_name = "FILE", help_heading = "Host")]
    pub config: Option<PathBuf>,
    /// Brokers of the cluster `default`: HOST:PORT, several separated by commas [env: SB_BOOTSTRAP]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Host")]
    pub bootstrap: Option<String>,
    /// librdkafka property for the cluster; repeatable
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = key_value, help_heading = "Host")]
    pub librdkafka: Vec<(String, String)>,
    /// Where health and metrics are served; port 0 takes any free one [default: 127.0.0.1:8321]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "no_admin", help_heading = "Host")]
    pub admin: Option<String>,
    /// Serve neither health nor metrics
    #[arg(long, help_heading = "Host")]
    pub no_admin: bool,
    /// How long a shutdown may take to settle what is in flight [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Host")]
    pub drain: Option<Duration>,
}

/// A pipeline from flags alone. `--plugin` asks for the others, and none of them goes with files:
/// a flag must never change half of what a manifest says.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "One handler without a file")]
pub struct InlineArgs {
    /// The handler: a WebAssembly component
    #[arg(
        long,
        value_name = "FILE.wasm",
        conflicts_with_all = ["files", "pipelines"],
        requires_all = ["topics", "group"]
    )]
    pub plugin: Option<PathBuf>,
    /// Topics to read
    #[arg(long, value_name = "A[,B]", value_delimiter = ',', requires = "plugin")]
    pub topics: Vec<String>,
    /// Consumer group
    #[arg(long, value_name = "GROUP", requires = "plugin")]
    pub group: Option<String>,
    /// Topic to write to; without a name it has its topic's; repeatable
    #[arg(long = "output", value_name = "[NAME=]TOPIC", requires = "plugin")]
    pub outputs: Vec<String>,
    /// Where a group without commits begins [default: earliest]
    #[arg(long, value_enum, requires = "plugin")]
    pub start: Option<StartArg>,
    /// Topic for records that cannot be processed; without one their partition waits
    #[arg(long, value_name = "TOPIC", requires = "plugin")]
    pub dead_letter: Option<String>,
    /// Setting of the handler: JSON if it reads as JSON, else a string; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    pub settings: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StartArg {
    Earliest,
    Latest,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sluicebox dev examples/orders           until Ctrl-C; use Kafka's own tools on 127.0.0.1:19092
  sluicebox dev examples/orders --once    exit 0 when every sample record met its fate

The broker lives in memory and is not for production.")]
pub struct DevArgs {
    /// Directory with a pipeline.toml, or the manifest itself
    #[arg(value_name = "DIR", default_value = ".")]
    pub path: PathBuf,
    /// End when every sample record is settled: 0, or 1 when one is blocked, dropped or undelivered
    #[arg(long)]
    pub once: bool,
    /// Port of the embedded broker; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = 19092)]
    pub broker_port: u16,
    /// Port of health and metrics; 0 takes any free one
    #[arg(long, value_name = "PORT", default_value_t = config::DEFAULT_ADMIN.port())]
    pub port: u16,
    /// Sample records per second; without it, all at once with --once and 5 otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sluicebox check pipeline.toml
  sluicebox check pipelines/*.toml --config host.toml
  sluicebox check examples/orders -o json | jq '.diagnostics[].code'")]
pub struct CheckArgs {
    /// Manifests, or directories with a pipeline.toml
    #[arg(value_name = "PATH", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Compare with the clusters and ceilings of this host
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Ask the brokers as well: are they there, and the topics
    #[arg(long)]
    pub connect: bool,
    /// Brokers of the cluster `default` [env: SB_BOOTSTRAP]
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: Option<String>,
}

impl HostArgs {
    pub fn load_request(&self) -> LoadRequest {
        LoadRequest {
            purpose: Purpose::Host,
            manifests: self.files.clone(),
            pipelines_dir: self.pipelines.clone(),
            host_config: self.config.clone(),
            bootstrap: self.bootstrap.clone(),
            librdkafka: self.librdkafka.clone(),
            inline: self.inline.pipeline(),
            admin: match &self.admin {
                _ if self.no_admin => AdminChoice::Off,
                Some(listen) => AdminChoice::At(listen.clone()),
                None => AdminChoice::Configured,
            },
            drain: self.drain,
        }
    }
}

impl InlineArgs {
    fn pipeline(&self) -> Option<InlinePipeline> {
        Some(InlinePipeline {
            plugin: self.plugin.clone()?,
            topics: self.topics.clone(),
            group: self.group.clone().unwrap_or_default(),
            outputs: self.outputs.clone(),
            start_latest: self.start == Some(StartArg::Latest),
            dead_letter: self.dead_letter.clone(),
            settings: self.settings.clone(),
        })
    }
}

impl DevArgs {
    pub fn load_request(&self) -> LoadRequest {
        LoadRequest {
            purpose: Purpose::Dev,
            manifests: vec![manifest_of(&self.path)],
            admin: AdminChoice::At(format!("127.0.0.1:{}", self.port)),
            ..LoadRequest::default()
        }
    }
}

impl CheckArgs {
    pub fn load_request(&self) -> LoadRequest {
        LoadRequest {
            purpose: Purpose::Check,
            manifests: self.paths.iter().map(|path| manifest_of(path)).collect(),
            host_config: self.config.clone(),
            bootstrap: self.bootstrap.clone(),
            ..LoadRequest::default()
        }
    }
}

/// The manifest that a path stands for.
fn manifest_of(path: &std::path::Path) -> PathBuf {
    match path {
        _ if !path.is_dir() => path.to_owned(),
        _ if path == std::path::Path::new(".") => PathBuf::from("pipeline.toml"),
        _ => path.join("pipeline.toml"),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).map_err(|error| format!("{error}; write {}", config::DURATION_FORM))
}

fn styles() -> Styles {
    Styles::styled()
        .header(AnsiColor::Green.on_default() | Effects::BOLD)
        .usage(AnsiColor::Green.on_default() | Effects::BOLD)
        .literal(AnsiColor::Cyan.on_default() | Effects::BOLD)
        .placeholder(AnsiColor::Cyan.on_default())
}

/// What clap itself should do about colour, before it has read `--color`.
pub fn clap_colour(no_color: Option<&str>) -> ColorChoice {
    match no_color {
        Some(value) if !value.is_empty() => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}
