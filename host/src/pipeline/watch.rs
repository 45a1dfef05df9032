//! Asks a cluster that went away, off the pipeline's thread, until it answers. librdkafka itself tells when a cluster goes
//! away, but not when it comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::port::Watch;
use crate::config::Cluster;
use crate::kafka::metadata::Probe;
use crate::threads;
use crate::wake::Waker;

/// See the module's text.
#[derive(Debug)]
pub struct ClusterWatch {
    cluster: Cluster,
    topics: Vec<String>,
    waker: Waker,
    asking: Option<Arc<AtomicBool>>,
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
        let answered = Arc::new(AtomicBool::new(false));
        let (flag, waker) = (Arc::clone(&answered), self.waker.clone());
        let (cluster, topics) = (self.cluster.clone(), self.topics.clone());
        let watcher = threads::spawn("sb-probe", move || {
            // Ends when the cluster answers or the pipeline has dropped its half of the flag.
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            while Arc::strong_count(&flag) > 1 {
                let asked =
                    Probe::new(&cluster).is_ok_and(|probe| probe.partitions(&topics, Duration::from_secs(2)).is_ok());
                if asked {
                    flag.store(true, Ordering::Release);
                    waker.wake();
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(500));
            }
        });
        match watcher {
            Ok(_) => self.asking = Some(answered),
            Err(error) => tracing::warn!("no thread to watch the cluster: {error}"),
        }
    }

    fn answered(&mut self) -> bool {
        self.asking.take_if(|flag| flag.load(Ordering::Acquire)).is_some()
    }
}
