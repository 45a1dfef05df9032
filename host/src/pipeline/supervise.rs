//! Keeps a pipeline going: makes sure that what it needs is there, starts its loop, and starts it again when it ends for
//! a reason from outside. What it waits for is shown with its reason; only the configuration can end it for good, and
//! that was checked before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::budget::{AHEAD, Budget, Share};
use super::control::Control;
use super::handlers::{HandlerThreads, LaneHandlers, Logs, Surroundings};
use super::names::names;
use super::outlets::{DeadLetterOutlet, Outlet, Outlets};
use super::place::nowhere;
use super::port::{Code, END, PartitionOffset};
use super::reread::TopicRereader;
use super::revision::{Revision, batchers};
use super::run::{Ended, Parts, Run};
use super::status::{Figures, OutputFigures, PipelineStatus, State, TopicFigures};
use super::stop::Stop;
use super::survey::TopicSurvey;
use super::watch::ClusterWatch;
use super::wiring::{Member, Real, drive};
use crate::config::{Batcher, Cluster, Compression, Fetch, OutputTimestamp, Pipeline, Start, Then};
use crate::kafka::consumer::Consumer;
use crate::kafka::limits::TopicLimits;
use crate::kafka::members::Members;
use crate::kafka::metadata::Probe;
use crate::kafka::offsets::Offsets;
use crate::kafka::producer::Producer;
use crate::kafka::settings::{self, FetchBudget};
use crate::outbound::Client;
use crate::plugin::{Instance, InstanceConfig, OutputInfo, Version};
use crate::wake::Waker;

/// First and longest wait before a pipeline that cannot start is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long a cluster may take to say which topics it has.
const ASK: Duration = Duration::from_secs(5);
/// How long it may take to say what they take; without an answer Kafka's defaults hold.
const ASK_LIMITS: Duration = Duration::from_secs(2);
/// A run that lasted so long starts again without the waits that came before it.
const HEALTHY: Duration = Duration::from_secs(60);

/// By cluster and topic.
type ByTopic<T> = BTreeMap<(String, String), T>;

/// What pipelines of a process share, and what this one is.
pub struct Supervised {
    /// What it runs, and what it is told.
    pub control: Control,
    /// The cluster that it reads from.
    pub source_cluster: Cluster,
    /// All clusters by name.
    pub clusters: Arc<BTreeMap<String, Cluster>>,
    /// Where the handler's lines go.
    pub logs: Logs,
    /// Handler threads of the process.
    pub handlers: Arc<HandlerThreads>,
    /// Sends the handler's requests, if it was granted any.
    pub http: Option<Arc<Client>>,
    /// Bytes in flight of the process.
    pub budget: Arc<Budget>,
    /// What the outside sees.
    pub status: Arc<PipelineStatus>,
    /// Asks it to stop.
    pub stop: Stop,
}

impl Supervised {
    /// Runs the pipeline on this thread until it is asked to stop.
    pub fn run(self) {
        let waker = Waker::default();
        waker.attach();
        self.stop.wake(&waker);
        self.control.wake(&waker);
        self.show_names(&self.control.serving());
        let mut wait = RETRY.0;
        let fenced = Arc::new(AtomicBool::new(false));
        while !self.stop.requested() {
            self.control.settle();
            let orders = self.control.changes();
            let serving = self.control.serving();
            self.status.serves(serving.digest(), &serving.config.limits);
            let started = Instant::now();
            let run = || self.start(&serving, &waker, &fenced).and_then(|run| drive(run, &waker));
            let reason = match guarded(run) {
                Ok(Ended::Asked) => break,
                Ok(Ended::Policy(reason)) => {
                    self.stay_stopped(reason, &waker);
                    continue;
                }
                Err(reason) => reason,
            };
            if started.elapsed() >= HEALTHY {
                wait = RETRY.0;
            }
            self.status.set(State::Waiting, Some(reason));
            let until = Instant::now() + wait;
            // What was ordered meanwhile may be what it waits for.
            while !self.stop.requested() && self.control.changes() == orders && Instant::now() < until {
                waker.wait(until.saturating_duration_since(Instant::now()));
            }
            wait = (wait * 2).min(RETRY.1);
        }
        self.status.set(State::Stopped, None);
    }

    /// The failure policy, or a lost offset, stopped the pipeline. The process goes on, and so do the other pipelines; this
    /// one does when its operator says so, or gives it another version.
    fn stay_stopped(&self, reason: String, waker: &Waker) {
        self.status.set(State::Stopped, Some(reason));
        let orders = self.control.changes();
        while !self.stop.requested() && self.control.changes() == orders {
            waker.wait(HEALTHY);
        }
    }

    /// With `start = "none"` nobody joins a group that has no place in some partition: an operator can give it one only
    /// while the group has no members.
    fn check_commits(&self, config: &Pipeline, partitions: impl Fn(&str) -> Option<u32>) -> Result<(), String> {
        let source = &config.source;
        if source.start != Start::None {
            return Ok(());
        }
        let all: Vec<(&str, i32)> = source
            .topics
            .iter()
            .flat_map(|topic| (0..partitions(topic).unwrap_or(0)).map(|number| (topic.as_str(), number as i32)))
            .collect();
        let committed = Offsets::new(&self.source_cluster, &source.group)?.committed(&all, ASK)?;
        let without: Vec<PartitionOffset> = (all.iter().zip(committed))
            .filter(|(_, committed)| committed.is_none())
            .map(|((topic, partition), _)| PartitionOffset {
                topic: (*topic).to_owned(),
                partition: *partition,
                offset: END,
                error: Code::RD_KAFKA_RESP_ERR_NO_ERROR,
            })
            .collect();
        if without.is_empty() { Ok(()) } else { Err(nowhere(&source.group, &names(&without))) }
    }

    /// Counters are there from the beginning, as zeros: rates and alerts need that.
    fn show_names(&self, revision: &Revision<Arc<Version>>) {
        let config = &revision.config;
        let mut figures = Figures::default();
        for topic in &config.source.topics {
            figures.topics.insert(topic.as_str().into(), TopicFigures::default());
        }
        let dead = matches!(config.errors.then, Then::DeadLetter(_)).then_some("dead-letter");
        let names = config.outputs.iter().map(|output| output.name.as_str()).chain(dead);
        figures.outputs =
            names.map(|name| OutputFigures { name: name.to_owned(), ..OutputFigures::default() }).collect();
        let batchers = batchers(config, revision.build.has_batch());
        figures.batchers = batchers.into_iter().map(|batcher| batcher.name).collect();
        self.status.publish(figures);
    }

    /// Everything a run needs, or why it cannot be had yet.
    fn start(
        &self,
        revision: &Revision<Arc<Version>>,
        waker: &Waker,
        fenced: &Arc<AtomicBool>,
    ) -> Result<Run<Real>, String> {
        let config = &revision.config;
        self.wait_for_instance_id(config, fenced)?;
        let (counts, limits) = self.ask_topics(config)?;
        let batchers = batchers(config, revision.build.has_batch());
        let count = |cluster: &str, topic: &str| counts.get(&(cluster.to_owned(), topic.to_owned())).copied();
        self.check_commits(config, |topic| count(&config.source.cluster, topic))?;
        let surroundings = Surroundings {
            outputs: config
                .outputs
                .iter()
                .map(|output| OutputInfo {
                    name: output.name.clone(),
                    partitions: count(&output.cluster, &output.topic).unwrap_or(1),
                })
                .collect(),
            logs: Arc::clone(&self.logs),
            usage: Arc::clone(&self.status.usage),
            metrics: Arc::clone(&self.status.handler_metrics),
            http: self.http.clone(),
        };
        self.try_instance(&revision.build, Arc::new(surroundings.instance(config, &revision.build)))?;
        let topics = config.source.topics.iter();
        let inputs: BTreeMap<String, u32> =
            topics.filter_map(|topic| Some((topic.clone(), count(&config.source.cluster, topic)?))).collect();
        let partitions: u64 = inputs.values().copied().map(u64::from).sum();
        let Fetch { buffer, max_per_partition, .. } = config.source.fetch;
        let fetch = FetchBudget::shared(buffer.min(self.budget.limit()), partitions, max_per_partition);
        let conf = settings::consumer(&config.source, &self.source_cluster, &config.name, fetch)?;
        let consumer = Consumer::new(conf, waker)?;
        let outlets = self.outlets(config, &count, &limits, &batchers, waker)?;
        consumer.subscribe(&config.source.topics)?;
        let parts = Parts {
            config: Arc::clone(config),
            cluster: self.source_cluster.clone(),
            inputs,
            control: self.control.clone(),
            status: Arc::clone(&self.status),
            share: Share::new(Arc::clone(&self.budget)),
            ahead: AHEAD,
            stop: self.stop.clone(),
            group: Member::new(consumer, fenced, config.source.fetch.max_wait)?,
            outlets,
            handlers: LaneHandlers::new(&self.handlers, surroundings, waker),
            watch: ClusterWatch::new(self.source_cluster.clone(), &config.source.topics, waker),
            rereader: TopicRereader::new(&config.source, &self.source_cluster, waker),
            survey: self.survey(config, waker)?,
            refresh: settings::topic_refresh(&self.source_cluster),
        };
        Ok(Run::new(parts, Instant::now()))
    }

    /// Whoever joins with an instance id throws out the member that has it. So who was thrown out asks first whether the
    /// other one is still there: two hosts of one name would throw each other out for ever.
    fn wait_for_instance_id(&self, config: &Pipeline, fenced: &AtomicBool) -> Result<(), String> {
        let source = &config.source;
        let Some(id) = source.instance_id.as_ref().filter(|_| fenced.load(Ordering::Acquire)) else { return Ok(()) };
        let members = Members::new(&self.source_cluster)?.instance_ids(&source.group, ASK)?;
        if members.contains(id) {
            return Err(format!(
                "another member of group {} uses the same `source.instance_id`, `{id}`: give each host its own, or end the \
                 other one; when it is gone, this one goes on",
                source.group
            ));
        }
        fenced.store(false, Ordering::Release);
        Ok(())
    }

    /// Topics that the pipeline writes with their clusters, in the order of its outlets: dead letters last.
    fn written(config: &Pipeline) -> impl Iterator<Item = (&str, &str)> {
        let dead = match &config.errors.then {
            Then::DeadLetter(dead) => Some((dead.cluster.as_str(), dead.topic.as_str())),
            Then::Block | Then::Drop | Then::Stop => None,
        };
        config.outputs.iter().map(|output| (output.cluster.as_str(), output.topic.as_str())).chain(dead)
    }

    /// Partitions of every topic that the pipeline reads or writes, and what those that it writes say that they take. One
    /// that does not tell has Kafka's defaults: it only decides what travels together.
    fn ask_topics(&self, config: &Pipeline) -> Result<(ByTopic<u32>, ByTopic<TopicLimits>), String> {
        let source = &config.source;
        let read = source.topics.iter().map(|topic| (source.cluster.as_str(), topic.as_str()));
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (cluster, topic) in Self::written(config).chain(read) {
            wanted.entry(cluster).or_default().push(topic);
        }
        let (mut counts, mut limits) = (BTreeMap::new(), BTreeMap::new());
        for (cluster, topics) in wanted {
            let probe = Probe::new(self.cluster(cluster)?)?;
            let found = probe.partitions(&topics, ASK).map_err(|error| {
                self.status.count_broker_error(cluster, error.kind());
                error.to_string()
            });
            counts.extend(found?.into_iter().map(|(topic, count)| ((cluster.to_owned(), topic), count)));
            let written: Vec<&str> =
                Self::written(config).filter(|(of, _)| *of == cluster).map(|(_, topic)| topic).collect();
            let found = probe.limits(&written, ASK_LIMITS)?;
            limits.extend(found.into_iter().map(|(topic, found)| ((cluster.to_owned(), topic), found)));
        }
        Ok((counts, limits))
    }

    /// Counts the topics behind the outlets, and the inputs.
    fn survey(&self, config: &Pipeline, waker: &Waker) -> Result<TopicSurvey, String> {
        let topics =
            Self::written(config).map(|(cluster, topic)| Ok((self.cluster(cluster)?.clone(), topic.to_owned())));
        let inputs = (&self.source_cluster, &config.source.topics[..]);
        Ok(TopicSurvey::new(topics.collect::<Result<_, String>>()?, inputs, waker))
    }

    fn cluster(&self, name: &str) -> Result<&Cluster, String> {
        self.clusters.get(name).ok_or_else(|| format!("cluster `{name}` is not configured"))
    }

    /// An instance that cannot start says so before partitions are taken.
    fn try_instance(&self, version: &Arc<Version>, config: Arc<InstanceConfig>) -> Result<(), String> {
        let version = Arc::clone(version);
        let tried = self.handlers.run(async move { Instance::start(&version, &config).await.map(drop) });
        match tried {
            Some(Ok(())) => Ok(()),
            Some(Err(fault)) => {
                Err(format!("the handler does not start ({}): {}", fault.class.name(), fault.summary()))
            }
            None => Err("the handler threads are gone".to_owned()),
        }
    }

    fn outlets(
        &self,
        config: &Pipeline,
        count: &dyn Fn(&str, &str) -> Option<u32>,
        limits: &ByTopic<TopicLimits>,
        batchers: &[Batcher],
        waker: &Waker,
    ) -> Result<Outlets<Producer>, String> {
        let mut producers: Vec<(String, Producer)> = Vec::new();
        let mut outlet = |cluster: &str, topic: &str, timestamp, compression| -> Result<Outlet, String> {
            let place = match producers.iter().position(|(name, _)| name == cluster) {
                Some(place) => place,
                None => {
                    let conf = settings::producer(self.cluster(cluster)?, &config.name)?;
                    producers.push((cluster.to_owned(), Producer::new(conf, waker)?));
                    producers.len() - 1
                }
            };
            let partitions = count(cluster, topic).ok_or_else(|| format!("topic `{topic}` has no partitions"))?;
            let limits = limits.get(&(cluster.to_owned(), topic.to_owned())).copied().unwrap_or_default();
            let topic = producers[place].1.add_topic(topic, partitions, timestamp, compression, limits)?;
            Ok(Outlet { producer: place, topic, partitions })
        };
        let mut outputs = Vec::new();
        for output in &config.outputs {
            let place = outlet(&output.cluster, &output.topic, output.timestamp, output.compression)?;
            outputs.push((output.name.clone(), place));
        }
        let dead_letter = match &config.errors.then {
            Then::Block | Then::Drop | Then::Stop => None,
            Then::DeadLetter(dead) => Some(DeadLetterOutlet {
                outlet: outlet(&dead.cluster, &dead.topic, OutputTimestamp::Now, Compression::None)?,
                prefix: dead.header_prefix.clone(),
            }),
        };
        let producers = producers.into_iter().map(|(_, producer)| producer).collect();
        let names = batchers.iter().map(|batcher| batcher.name.clone()).collect();
        Ok(Outlets::new(&config.name, producers, outputs, dead_letter, names))
    }
}

/// Runs; a panic is a reason to begin anew. A bug of the host's ends the run before anything more is committed; the next one
/// begins from what is.
fn guarded(run: impl FnOnce() -> Result<Ended, String>) -> Result<Ended, String> {
    let bug = "the host stopped this pipeline because of a bug of its own, see the log; it starts again";
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| Err(bug.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a run says is passed on, and a panic in it is a reason that begins the next one.
    #[test]
    fn a_panic_begins_a_pipeline_anew() {
        assert_eq!(guarded(|| Ok(Ended::Asked)), Ok(Ended::Asked));
        assert_eq!(guarded(|| Err("not yet".to_owned())), Err("not yet".to_owned()));
        let reason = guarded(|| panic!("a bug, on purpose")).expect_err("no end");
        assert!(reason.contains("it starts again"), "{reason}");
    }
}
