//! What is different about a pipeline on the embedded broker: its clusters, and settings that suit a broker in memory.
//! Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::{Cluster, Pipeline, Plan, Protocol, Start, Then};

/// The mock does not wake a waiting fetch when records come, so this is the latency of an idle topic (median 344 ms with
/// Kafka's default of 500 ms, 2.5 ms with this).
pub(super) const FETCH_WAIT: Duration = Duration::from_millis(10);
/// Longest time between commits, so that `--once` need not wait for a pipeline that commits every five minutes.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Puts a plan of `Purpose::Dev` on the broker: every cluster that a pipeline names is this one.
///
/// # Errors
/// When that makes a pipeline read its own output, which on clusters of their own it would not.
pub fn embed(plan: &mut Plan, broker: &impl Fn(&str) -> Cluster) -> Result<(), String> {
    for pipeline in &mut plan.pipelines {
        let written: BTreeSet<&str> = written(pipeline).collect();
        if let Some(topic) = pipeline.source.topics.iter().find(|topic| written.contains(topic.as_str())) {
            return Err(format!(
                "pipeline `{}` reads `{topic}` from one cluster and writes to `{topic}` on another; the embedded broker is \
                 one cluster, so it would read its own output. Give one of the topics another name",
                pipeline.name
            ));
        }
        for name in clusters(pipeline) {
            plan.clusters.entry(name.to_owned()).or_insert_with(|| broker(name));
        }
        let source = &mut pipeline.source;
        // Groups of the classic protocol take 44 s to rejoin on the mock; these milliseconds.
        source.protocol = Protocol::Consumer;
        source.instance_id = None;
        // The topics were empty when the pipeline was started, so nothing is old.
        source.start = Start::Earliest;
        source.fetch.max_wait = FETCH_WAIT;
        pipeline.ack.commit_interval = pipeline.ack.commit_interval.min(COMMIT_INTERVAL);
    }
    Ok(())
}

fn clusters(pipeline: &Pipeline) -> Vec<&str> {
    let mut names = vec![pipeline.source.cluster.as_str()];
    names.extend(pipeline.outputs.iter().map(|output| output.cluster.as_str()));
    if let Then::DeadLetter(dead) = &pipeline.errors.then {
        names.push(&dead.cluster);
    }
    names
}

/// Topics that a pipeline writes to.
fn written(pipeline: &Pipeline) -> impl Iterator<Item = &str> {
    let dead = match &pipeline.errors.then {
        Then::DeadLetter(dead) => Some(dead.topic.as_str()),
        Then::Block | Then::Drop | Then::Stop => None,
    };
    pipeline.outputs.iter().map(|output| output.topic.as_str()).chain(dead)
}

/// Topics that a pipeline reads or writes, each once.
#[must_use]
pub fn topics(pipeline: &Pipeline) -> BTreeSet<&str> {
    pipeline.source.topics.iter().map(String::as_str).chain(written(pipeline)).collect()
}
