//! Asks now and then how many partitions the topics have that the pipeline writes to, on a thread of its own. Clients keep
//! no one informed of new ones, and a partition that nobody knows gets no records.

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

/// See the module's text.
pub struct TopicSurvey {
    /// Clusters with their topics, each topic with its place among the outlets.
    clusters: Vec<(Cluster, Vec<(usize, String)>)>,
    waker: Waker,
    asking: Option<Receiver<Vec<Counted>>>,
}

impl TopicSurvey {
    /// Asks for these topics, in the order of the outlets.
    #[must_use]
    pub fn new(topics: Vec<(Cluster, String)>, waker: &Waker) -> Self {
        let mut clusters: Vec<(Cluster, Vec<(usize, String)>)> = Vec::new();
        for (place, (cluster, topic)) in topics.into_iter().enumerate() {
            match clusters.iter_mut().find(|(known, _)| known.name == cluster.name) {
                Some((_, topics)) => topics.push((place, topic)),
                None => clusters.push((cluster, vec![(place, topic)])),
            }
        }
        Self { clusters, waker: waker.clone(), asking: None }
    }
}

impl Survey for TopicSurvey {
    fn ask(&mut self) {
        if self.asking.is_some() || self.clusters.is_empty() {
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
fn partitions(cluster: &Cluster, topics: &[(usize, String)]) -> Vec<Counted> {
    let names: Vec<&str> = topics.iter().map(|(_, topic)| topic.as_str()).collect();
    let probe = Probe::new(cluster).map_err(|error| error.to_string());
    let counts = probe.and_then(|probe| probe.partitions(&names, ASK).map_err(|error| error.to_string()));
    let counts: BTreeMap<String, u32> = counts.unwrap_or_default();
    let counted = |(outlet, topic): &(usize, String)| {
        Some(Counted { outlet: *outlet, topic: topic.clone(), partitions: *counts.get(topic)? })
    };
    topics.iter().filter_map(counted).collect()
}
