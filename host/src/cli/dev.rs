//! `sluicebox dev`: builds a handler, runs it on the embedded broker, feeds samples and shows what comes of them.
//!
//! Records go to stdout, everything else to stderr. This file is the preparation, in its order; `session.rs` is what
//! happens then.

mod session;

use std::io::{self, IsTerminal, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use self::session::Session;
use super::args::{DevArgs, Global, OutputForm};
use super::exit::Exit;
use super::host;
use crate::app::{self, App, StartError};
use crate::config::{self, Pipeline, Plan};
use crate::dev::broker::{BrokerError, EmbeddedBroker};
use crate::dev::build::{self, Artifact, BuildError, BuildPlan, Output};
use crate::dev::embed;
use crate::dev::feed::{self, Feed, TopicSamples};
use crate::dev::watch::Watch;
use crate::kafka::offsets::Offsets;

/// Why it does not go on. The text is printed as it is.
struct Refusal(Exit, String);

impl Refusal {
    fn new(exit: Exit, error: impl std::fmt::Display) -> Self {
        Self(exit, format!("error: {error}\n"))
    }
}

/// What is said beside the records.
#[derive(Clone, Copy)]
struct Talk {
    quiet: bool,
}

impl Talk {
    fn say(self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &DevArgs, global: &Global, colour: bool) -> Exit {
    match prepare(args, global, colour).and_then(Session::run) {
        Ok(exit) => exit,
        Err(Refusal(exit, text)) => {
            eprint!("{text}");
            exit
        }
    }
}

fn prepare(args: &DevArgs, global: &Global, colour: bool) -> Result<Session, Refusal> {
    let talk = Talk { quiet: global.quiet };
    look_for_manifest(&args.path)?;
    let report = |report: config::Report| Refusal(Exit::Failed, report.render(colour));
    let mut plan = config::load(&args.load_request(), &host::outside()).map_err(report)?;
    if !plan.warnings.is_empty() {
        eprint!("{}", plan.warnings.render(colour));
    }
    let pipeline = the_pipeline(&plan)?;
    let samples = samples(&pipeline, args.once)?;
    look_at_admin(&plan)?;

    let broker = EmbeddedBroker::start(args.broker_port).map_err(refused_broker)?;
    talk.say(format_args!(
        "embedded broker {} ({} partitions, data is temporary, not for production)",
        broker.address(),
        pipeline.dev.partitions
    ));
    embed::embed(&mut plan, &|name| broker.as_cluster(name)).map_err(|error| Refusal::new(Exit::Failed, error))?;
    let pipeline = the_pipeline(&plan)?;
    for topic in embed::topics(&pipeline) {
        broker.create_topic(topic, pipeline.dev.partitions).map_err(|error| Refusal::new(Exit::Failed, error))?;
    }

    built(&pipeline, manifest_directory(&args.path), global, talk)?;
    let runtime = app::runtime(plan.data_dir.as_deref()).map_err(|error| {
        Refusal::new(Exit::Failed, format_args!("the WebAssembly engine does not start: {error:#}"))
    })?;
    let loaded = app::load(&plan, &runtime).map_err(report)?;

    let cluster = broker.as_cluster(&pipeline.source.cluster);
    let failed = |error: String| Refusal::new(Exit::Failed, error);
    let watch = Watch::start(&cluster, &pipeline).map_err(failed)?;
    let offsets = Offsets::new(&cluster, &pipeline.source.group).map_err(failed)?;
    let rate = args.rate.or((!args.once).then_some(DEFAULT_RATE));
    let feed = Feed::new(&cluster, pipeline.dev.partitions, samples, rate).map_err(failed)?;
    let mut app = App::start(&plan, loaded, &runtime, None, None).map_err(|error| match error {
        StartError::Admin { .. } => Refusal(Exit::Precondition, taken_admin(&error)),
        StartError::Token(_) | StartError::Outbound { .. } | StartError::Threads(_) => {
            Refusal::new(Exit::Failed, error)
        }
    })?;
    if !args.once {
        // A build that is made anew takes the place of the one that runs, by the way that `host` has.
        app.watch(Vec::new(), Box::new(|| Ok(Vec::new())))
            .map_err(|error| Refusal::new(Exit::Failed, StartError::Threads(error)))?;
    }
    if let Some(address) = app.admin() {
        talk.say(format_args!("admin http://{address} (/metrics, /livez, /readyz)"));
    }
    Ok(Session {
        app,
        feed,
        watch,
        offsets,
        broker,
        pipeline,
        talk,
        drain: plan.drain,
        once: args.once,
        json: global.format == OutputForm::Json,
        headers: global.verbose > 0,
    })
}

/// Sample records per second when nothing else is asked for, and nobody waits for the end.
const DEFAULT_RATE: u32 = 5;

fn look_for_manifest(path: &Path) -> Result<(), Refusal> {
    let shown = path.display();
    let lacks = if path.is_dir() {
        if path.join("pipeline.toml").is_file() {
            return Ok(());
        }
        format!("there is no pipeline.toml in {shown}")
    } else if path.exists() {
        return Ok(());
    } else {
        format!("there is no {shown}")
    };
    let help = "name a directory with a pipeline.toml, or the manifest itself: sluicebox dev DIR";
    Err(Refusal::new(Exit::NotFound, format_args!("{lacks}; {help}")))
}

fn manifest_directory(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

/// A manifest is one pipeline.
fn the_pipeline(plan: &Plan) -> Result<Arc<Pipeline>, Refusal> {
    match &plan.pipelines[..] {
        [pipeline] => Ok(Arc::new(pipeline.clone())),
        others => Err(Refusal::new(Exit::Failed, format_args!("one pipeline was expected, not {}", others.len()))),
    }
}

fn samples(pipeline: &Pipeline, once: bool) -> Result<Vec<TopicSamples>, Refusal> {
    let samples = feed::read_all(&pipeline.dev.samples).map_err(|errors| {
        let lines: String = errors.iter().map(|error| format!("error: {error}\n")).collect();
        Refusal(Exit::Failed, lines)
    })?;
    if once && samples.iter().all(|topic| topic.samples.is_empty()) {
        let topic = pipeline.source.topics.first().map_or("TOPIC", String::as_str);
        return Err(Refusal::new(
            Exit::Failed,
            format_args!(
                "--once needs sample records, and there are none; add to {}:\n[dev]\nsamples = {{ {topic} = \
                 \"samples/{topic}.ndjson\" }}",
                pipeline.origin.root().file()
            ),
        ));
    }
    Ok(samples)
}

/// A taken port is better found before a build than after it.
fn look_at_admin(plan: &Plan) -> Result<(), Refusal> {
    match plan.admin.map(|address| (address, TcpListener::bind(address))) {
        Some((address, Err(source))) => {
            Err(Refusal(Exit::Precondition, taken_admin(&StartError::Admin { address, source })))
        }
        _ => Ok(()),
    }
}

fn taken_admin(error: &StartError) -> String {
    match error {
        StartError::Admin { address, source } => {
            format!(
                "error: the admin port {address} cannot be opened: {source}; choose another with --port, 0 takes any\n"
            )
        }
        StartError::Token(_) | StartError::Outbound { .. } | StartError::Threads(_) => format!("error: {error}\n"),
    }
}

fn refused_broker(error: BrokerError) -> Refusal {
    match error {
        BrokerError::Port { .. } => Refusal::new(
            Exit::Precondition,
            format_args!("{error}; choose another port with --broker-port, 0 takes any"),
        ),
        BrokerError::Mock(_) => Refusal::new(Exit::Failed, error),
    }
}

/// Builds the component, if there is a way to, and looks at it.
fn built(pipeline: &Pipeline, directory: &Path, global: &Global, talk: Talk) -> Result<(), Refusal> {
    let component = pipeline.component.display();
    let Some(plan) = BuildPlan::of(pipeline, directory) else {
        let artifact = Artifact::of(&pipeline.component).map_err(|error| {
            let help = "build it, or say how: build.command = \"…\" under [handler]";
            Refusal::new(Exit::Failed, format_args!("the component {component} cannot be read: {error}; {help}"))
        })?;
        talk.say(format_args!("load   {artifact}"));
        return Ok(());
    };
    let shown = global.verbose > 0 || (!global.quiet && io::stderr().is_terminal());
    let began = Instant::now();
    build::prepare(&plan, &mut |text| talk.say(text)).map_err(refused_build)?;
    if !shown {
        talk.say(format_args!("building: {} (in {})", plan.command, plan.directory.display()));
    }
    build::build(&plan, if shown { Output::Shown } else { Output::Kept }).map_err(refused_build)?;
    let took = began.elapsed().as_secs_f64();
    let artifact = Artifact::of(&pipeline.component).map_err(|error| {
        let help = "`component` under [handler] says where the build puts it";
        Refusal::new(Exit::Failed, format_args!("the build worked, but {component} cannot be read: {error}; {help}"))
    })?;
    talk.say(format_args!("build  {}   {took:.1} s   {artifact}", plan.command));
    Ok(())
}

fn refused_build(error: BuildError) -> Refusal {
    let mut talk = io::stderr().lock();
    if let BuildError::Failed { output, .. } = &error {
        // A closed stderr has nobody to be told.
        _ = talk.write_all(output);
    }
    Refusal::new(Exit::Failed, error)
}
