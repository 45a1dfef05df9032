//! Asks now and then how many partitions the topics of a pipeline have, on a thread of its own. Clients keep no one informed of
//! new ones of those that it writes to, and a partition that nobody knows gets no records; nor of those that are no more.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use super::port::{Counted, Survey};
use crate::config::Cluster;
use crate::kafka::metadata::Probe;
use crate::threads;
use crate::wake::Waker;

/// How long a cluster may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// One question.
type Asked = (Cluster, Vec<(Option<usize>, String)>);

/// See the module's text.
pub struct TopicSurvey {
    /// Clusters with their topics, each topic with its place among the outlets if it has one.
    clusters: Vec<Asked>,
    waker: Waker,
    asking: Option<Receiver<Vec<Counted>>>,
}

impl TopicSurvey {
    /// Asks for topics that are written, in the order of the outlets, and for those that are read, by themselves: one that is
    /// missing hides what else was asked with it.
    #[must_use]
    pub fn new(written: Vec<(Cluster, String)>, inputs: (&Cluster, &[String]), waker: &Waker) -> Self {
        let mut clusters: Vec<Asked> = Vec::new();
        for (place, (cluster, topic)) in written.into_iter().enumerate() {
            match clusters.iter_mut().find(|(known, _)| known.name == cluster.name) {
                Some((_, topics)) => topics.push((Some(place), topic)),
                None => clusters.push((cluster, vec![(Some(place), topic)])),
            }
        }
        let (cluster, topics) = inputs;
        clusters.push((cluster.clone(), topics.iter().map(|topic| (None, topic.clone())).collect()));
        Self { clusters, waker: waker.clone(), asking: None }
    }
}

impl Survey for TopicSurvey {
    fn ask(&mut self) {
        if self.asking.is_some() {
            return;
        }
        let (answer, asking) = sync_channel(1);
        let (clusters, waker) = (self.clusters.clone(), self.waker.clone());
        let ask = move || {
            let found = clusters.iter().flat_map(|(cluster, topics)| partitions(cluster, topics)).collect();
            if answer.send(found).is_ok() {
                waker.wake();
            }
        };
        match threads::spawn("sb-survey", ask) {
            Ok(_) => self.asking = Some(asking),
            Err(error) => tracing::warn!("no thread to ask for new partitions: {error}"),
        }
    }

    fn answered(&mut self) -> Option<Vec<Counted>> {
        let answer = self.asking.as_ref()?.try_recv();
        if answer != Err(TryRecvError::Empty) {
            self.asking = None;
        }
        answer.ok()
    }
}

/// What is known now; a cluster that does not answer is asked again the next time.
fn partitions(cluster: &Cluster, topics: &[(Option<usize>, String)]) -> Vec<Counted> {
    let names: Vec<&str> = topics.iter().map(|(_, topic)| topic.as_str()).collect();
    let probe = Probe::new(cluster).map_err(|error| error.to_string());
    let counts = probe.and_then(|probe| probe.partitions(&names, ASK).map_err(|error| error.to_string()));
    let counts: BTreeMap<String, u32> = counts.unwrap_or_default();
    let counted = |(outlet, topic): &(Option<usize>, String)| {
        Some(Counted { outlet: *outlet, topic: topic.clone(), partitions: *counts.get(topic)? })
    };
    topics.iter().filter_map(counted).collect()
}
