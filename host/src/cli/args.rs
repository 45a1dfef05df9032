//! Every command and flag, with its help. Knows the words of the command line and how they become a
//! request; runs nothing.
//!
//! A flag that is malformed in itself ends here with exit code 2; what needs a look at files or
//! other values is left to `config`, so that it is reported together with everything else.

mod remote;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::{ArgAction, Args, ColorChoice, Parser, Subcommand, ValueEnum};

pub use self::remote::{
    DeployArgs, PauseArgs, RemoteArgs, ResumeArgs, RollbackArgs, StatusArgs, StrategyWord, VersionsArgs,
};
use crate::config::{self, AdminChoice, InlinePipeline, LoadRequest, Purpose, Secret};
use crate::plugin::COMPILE_SUBCOMMAND;

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
    /// Show what the pipelines of a running host do, and why one does not
    Status(StatusArgs),
    /// Offer nothing new to a pipeline's handler; it stays in its group
    Pause(PauseArgs),
    /// Let a paused pipeline go on
    Resume(ResumeArgs),
    /// Run another version of a pipeline's handler, without a restart
    Deploy(DeployArgs),
    /// Run an earlier version again
    Rollback(RollbackArgs),
    /// List the versions of a pipeline that are kept
    Versions(VersionsArgs),
    /// The host's own child: compiles the component on stdin under limits
    #[command(name = COMPILE_SUBCOMMAND, hide = true)]
    Compile(CompileArgs),
}

#[derive(Args, Clone, Debug)]
pub struct CompileArgs {
    /// Bytes of the call stack
    pub stack: u64,
    /// 1 for a deterministic handler, else 0
    pub deterministic: u64,
    /// Seconds of CPU time
    pub cpu_seconds: u64,
    /// Bytes of memory
    pub memory: u64,
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
    pub librdkafka: Vec<(String, Secret)>,
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
#[group(id = "inline", multiple = true, conflicts_with_all = ["files", "pipelines"])]
pub struct InlineArgs {
    /// The handler: a WebAssembly component
    #[arg(long, value_name = "FILE.wasm", requires_all = ["topics", "group"])]
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
    /// Where a partition without a commit begins: earliest, latest, none (it waits), a time such as
    /// 2026-11-21T08:00:00Z, or how long ago, such as -2h [default: earliest]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true, requires = "plugin")]
    pub start: Option<String>,
    /// Topic for records that cannot be processed; without one their partition waits
    #[arg(long, value_name = "TOPIC", requires = "plugin")]
    pub dead_letter: Option<String>,
    /// Setting of the handler: JSON if it reads as JSON, else a string; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value, requires = "plugin")]
    pub settings: Vec<(String, Secret)>,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  sluicebox dev examples/orders           until Ctrl-C; other clients use 127.0.0.1:19092
  sluicebox dev examples/orders --once    exit 0 when every sample record met its fate

It builds the handler (build.command under [handler], else cargo where there is a Cargo.toml), starts a
broker in this process, feeds the files of `samples` under [dev], and prints what goes in and comes out
on stdout: in, out, dead. -v adds headers and the host's own log, -o json prints one object per record.

A sample file has one record per line, a JSON object; what is left out is null:
  {\"key\": \"c1\", \"value\": {\"amount\": 7}, \"headers\": {\"source\": \"web\"}}
A value that is a string is that text, anything else its JSON.

The broker lives in memory and is not for production: it keeps the newest 5 MiB per partition. kcat and
Kafka's console tools work with it (kafka-console-consumer with --partition: Java's groups do not).")]
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
    #[arg(long, value_name = "N[/s]", value_parser = rate)]
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
            start: self.start.clone(),
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

fn key_value(text: &str) -> Result<(String, Secret), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), Secret::new(value))),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).map_err(|error| format!("{error}; write {}", config::DURATION_FORM))
}

/// `N` or `N/s`.
fn rate(text: &str) -> Result<u32, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse() {
        Ok(rate @ 1..=1_000_000) => Ok(rate),
        _ => Err("write records per second, 1 to 1000000, as `20` or `20/s`".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn host(arguments: &[&str]) -> Result<HostArgs, clap::Error> {
        let arguments = ["sluicebox", "host"].iter().chain(arguments);
        match Cli::try_parse_from(arguments)?.command {
            Command::Host(args) => Ok(*args),
            other => panic!("not host: {other:?}"),
        }
    }

    fn refused(arguments: &[&str]) -> String {
        match host(arguments) {
            Ok(args) => panic!("{arguments:?} gave {args:?}"),
            Err(error) => {
                assert_eq!(error.exit_code(), i32::from(crate::cli::exit::Exit::Usage as u8));
                error.to_string()
            }
        }
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_a_request() {
        let args = host(&[
            "--plugin",
            "h.wasm",
            "--topics",
            "a,b",
            "--group",
            "g",
            "--output",
            "x=y",
            "--output",
            "z",
            "--start",
            "latest",
            "--dead-letter",
            "d",
            "--set",
            "k=v=w",
            "-X",
            "debug=all",
            "--admin",
            "127.0.0.1:0",
            "--drain",
            "5s",
            "--bootstrap",
            "b:1",
        ]);
        let request = args.map(|args| args.load_request()).unwrap_or_default();
        let pairs = |key: &str, value: &str| vec![(key.to_owned(), Secret::new(value))];
        let expected = InlinePipeline {
            plugin: PathBuf::from("h.wasm"),
            topics: vec!["a".to_owned(), "b".to_owned()],
            group: "g".to_owned(),
            outputs: vec!["x=y".to_owned(), "z".to_owned()],
            start: Some("latest".to_owned()),
            dead_letter: Some("d".to_owned()),
            settings: pairs("k", "v=w"),
        };
        assert_eq!(request.inline, Some(expected));
        assert_eq!(request.librdkafka, pairs("debug", "all"));
        assert_eq!(request.admin, AdminChoice::At("127.0.0.1:0".to_owned()));
        assert_eq!(request.drain, Some(Duration::from_secs(5)));
        assert_eq!(request.bootstrap.as_deref(), Some("b:1"));
    }

    #[test]
    fn files_are_repeatable_and_in_order() {
        let request = host(&["-f", "b.toml", "-f", "a.toml", "--no-admin"]);
        let request = request.map(|args| args.load_request()).unwrap_or_default();
        assert_eq!(request.manifests, [PathBuf::from("b.toml"), PathBuf::from("a.toml")]);
        assert_eq!((request.inline, request.admin), (None, AdminChoice::Off));
    }

    #[test]
    fn one_handler_and_files_exclude_each_other() {
        let plugin = ["--plugin", "h.wasm", "--topics", "a", "--group", "g"];
        for files in [["-f", "a.toml"], ["--pipelines", "d"]] {
            let text = refused(&[&plugin[..], &files[..]].concat());
            assert!(text.contains("cannot be used with"), "{text}");
        }
        // A flag of the one without `--plugin` must not be swallowed by the other.
        for flag in [["--output", "x"], ["--group", "g"], ["--topics", "t"], ["--set", "a=b"]] {
            refused(&[&["-f", "a.toml"][..], &flag[..]].concat());
            let text = refused(&flag);
            assert!(text.contains("--plugin"), "{text}");
        }
        let text = refused(&["--plugin", "h.wasm"]);
        assert!(text.contains("--topics") && text.contains("--group"), "{text}");
    }

    #[test]
    fn malformed_values_are_refused_with_the_form_to_use() {
        let text = refused(&["-f", "a.toml", "--drain", "30"]);
        assert!(text.contains("it has no unit: `30s` or `30ms`?"), "{text}");
        let text = refused(&["-f", "a.toml", "-X", "debug"]);
        assert!(text.contains("write KEY=VALUE"), "{text}");
        refused(&["-f", "a.toml", "--admin", "127.0.0.1:1", "--no-admin"]);
    }

    #[test]
    fn a_rate_may_say_its_unit() {
        assert_eq!((rate("5"), rate("20/s")), (Ok(5), Ok(20)));
        for wrong in ["0", "x", "5/m", "-1", "1000001"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_names_the_default_of_the_loader() {
        let admin = config::DEFAULT_ADMIN.to_string();
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("host").map(|host| host.render_long_help().to_string());
        assert!(help.is_some_and(|help| help.contains(&format!("[default: {admin}]"))));
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for (flag, kind) in [("--help", ErrorKind::DisplayHelp), ("--version", ErrorKind::DisplayVersion)] {
            let shown = Cli::try_parse_from(["sluicebox", flag]).err().map(|error| error.kind());
            assert_eq!(shown, Some(kind));
        }
    }

    #[test]
    fn colour_follows_the_flag_then_no_color_then_the_terminal() {
        let global = |when: &str| Cli::try_parse_from(["sluicebox", "check", "--color", when]).map(|cli| cli.global);
        let colour = |when: &str, terminal, no_color| global(when).map(|global| global.colour(terminal, no_color)).ok();
        assert_eq!(colour("auto", true, None), Some(true));
        assert_eq!(colour("auto", true, Some("1")), Some(false));
        assert_eq!(colour("auto", true, Some("")), Some(true));
        assert_eq!(colour("auto", false, None), Some(false));
        assert_eq!(colour("always", false, Some("1")), Some(true));
        assert_eq!(colour("never", true, None), Some(false));
    }
}
