//! What `check` asks beyond the configuration: does the component load, and fit its manifest; with `--connect`, do the
//! brokers answer and have the topics?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::args::CheckArgs;
use super::check::ComponentCheck;
use crate::app;
use crate::components::Components;
use crate::config::{self, Cluster, Diagnostic, Outside, Pipeline, Then, codes};
use crate::kafka::metadata::Probe;
use crate::plugin::Runtime;

/// How long a cluster may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// The checks that the arguments ask for.
pub(super) fn checks(args: &CheckArgs, outside: &Outside<'_>) -> Vec<Box<dyn ComponentCheck>> {
    let mut checks: Vec<Box<dyn ComponentCheck>> = Vec::new();
    // Compiled each time: looking at files leaves none behind.
    match app::runtime(None) {
        Ok(runtime) => checks.push(Box::new(Loads(runtime))),
        Err(error) => {
            eprintln!("error: the WebAssembly engine does not start, components are not checked: {error:#}");
        }
    }
    if args.connect
        && let Ok(plan) = config::load(&args.load_request(), outside)
    {
        checks.push(Box::new(Answers(plan.clusters)));
    }
    checks
}

struct Loads(Arc<Runtime>);

impl ComponentCheck for Loads {
    fn check(&self, pipeline: &Pipeline) -> Vec<Diagnostic> {
        Components::new(Arc::clone(&self.0)).load(pipeline).err().unwrap_or_default()
    }
}

struct Answers(BTreeMap<String, Cluster>);

impl ComponentCheck for Answers {
    fn check(&self, pipeline: &Pipeline) -> Vec<Diagnostic> {
        let source = &pipeline.source;
        let mut topics: Vec<(&str, &str, config::Origin)> = source
            .topics
            .iter()
            .map(|topic| (source.cluster.as_str(), topic.as_str(), pipeline.origin.of("source.topics")))
            .collect();
        for output in &pipeline.outputs {
            topics.push((&output.cluster, &output.topic, pipeline.origin.output(&output.name)));
        }
        if let Then::DeadLetter(dead) = &pipeline.errors.then {
            topics.push((&dead.cluster, &dead.topic, pipeline.origin.of("errors.dead_letter")));
        }
        let mut found = Vec::new();
        let mut probes: BTreeMap<&str, Result<Probe, String>> = BTreeMap::new();
        for (name, topic, at) in topics {
            let Some(cluster) = self.0.get(name) else {
                let what = format!("cluster `{name}` is not defined, so it cannot be asked for topic `{topic}`");
                let help = "give its address with --bootstrap, or host.toml with --config";
                found.push(Diagnostic::error(codes::NOT_READY, what).at(at).help(help));
                continue;
            };
            let probe = probes.entry(name).or_insert_with(|| Probe::new(cluster));
            let answer = match probe {
                Ok(probe) => probe.partitions(&[topic], ASK).map(drop).map_err(|error| error.to_string()),
                Err(reason) => Err(reason.clone()),
            };
            if let Err(reason) = answer {
                found.push(Diagnostic::error(codes::NOT_READY, reason).at(at));
            }
        }
        found
    }
}
