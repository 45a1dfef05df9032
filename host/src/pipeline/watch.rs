//! Asks a cluster that went away, off the pipeline's thread, until it answers. librdkafka itself tells when a cluster goes
//! away, but not when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::port::{Heard, Watch};
use crate::config::Cluster;
use crate::kafka::metadata::{NotReady, Probe};
use crate::threads;
use crate::wake::Waker;

/// What was heard, as a number.
const NOTHING: u8 = 0;
const CLUSTER: u8 = 1;
const TOPICS: u8 = 2;

/// See the module's text.
#[derive(Debug)]
pub struct ClusterWatch {
    cluster: Cluster,
    topics: Vec<String>,
    waker: Waker,
    asking: Option<Arc<AtomicU8>>,
}

impl ClusterWatch {
    /// Asks for these topics, which are those that the pipeline reads: one that is missing is no good answer.
    #[must_use]
    pub fn new(cluster: Cluster, topics: &[String], waker: &Waker) -> Self {
        Self { cluster, topics: topics.to_vec(), waker: waker.clone(), asking: None }
    }
}

impl Watch for ClusterWatch {
    fn begin(&mut self) {
        if self.asking.is_some() {
            return;
        }
        let heard = Arc::new(AtomicU8::new(NOTHING));
        let tell = Arc::clone(&heard);
        let (cluster, topics, waker) = (self.cluster.clone(), self.topics.clone(), self.waker.clone());
        let watcher = threads::spawn("sb-probe", move || ask(&cluster, &topics, &tell, &waker));
        match watcher {
            Ok(_) => self.asking = Some(heard),
            Err(error) => tracing::warn!("no thread to watch the cluster: {error}"),
        }
    }

    fn answered(&mut self) -> Option<Heard> {
        match self.asking.as_ref()?.swap(NOTHING, Ordering::AcqRel) {
            NOTHING => None,
            CLUSTER => Some(Heard::Cluster),
            _ => {
                self.asking = None;
                Some(Heard::Topics)
            }
        }
    }
}

/// Asks until every topic is there, or the pipeline has dropped its half of the word.
fn ask(cluster: &Cluster, topics: &[String], tell: &Arc<AtomicU8>, waker: &Waker) {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    while Arc::strong_count(tell) > 1 {
        let heard = match Probe::new(cluster).map(|probe| probe.partitions(&topics, Duration::from_secs(2))) {
            Ok(Ok(_)) => TOPICS,
            Ok(Err(NotReady::NoTopic { .. } | NotReady::Refused { .. })) => CLUSTER,
            Ok(Err(NotReady::Unreachable { .. })) | Err(_) => NOTHING,
        };
        if heard != NOTHING {
            tell.store(heard, Ordering::Release);
            waker.wake();
        }
        if heard == TOPICS {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
}
