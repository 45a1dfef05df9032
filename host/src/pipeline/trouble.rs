//! What is wrong outside the pipeline while it runs: by place, with its reason, until it is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Cluster;
use crate::kafka::metadata::Probe;
use crate::wake::Waker;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Troubles {
    known: BTreeMap<String, String>,
    probing: Option<Arc<AtomicBool>>,
}

impl Troubles {
    /// Something is wrong at a place. True when it is news.
    pub fn add(&mut self, place: &str, reason: String) -> bool {
        self.known.insert(place.to_owned(), reason.clone()) != Some(reason)
    }

    /// A place works (again).
    pub fn over(&mut self, place: &str) {
        if !self.known.is_empty() {
            self.known.remove(place);
        }
    }

    /// Nothing is wrong.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All reasons, for people.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        (!self.known.is_empty()).then(|| self.known.values().cloned().collect::<Vec<_>>().join("; "))
    }

    /// Asks the cluster, off this thread, until it answers; [`Troubles::answered`] then says so. librdkafka itself tells
    /// when a cluster goes away, but not when it comes back.
    pub fn watch(&mut self, cluster: &Cluster, topic: &str, waker: &Waker) {
        if self.probing.is_some() {
            return;
        }
        let answered = Arc::new(AtomicBool::new(false));
        let (flag, waker) = (Arc::clone(&answered), waker.clone());
        let (cluster, topic) = (cluster.clone(), topic.to_owned());
        let watcher = std::thread::Builder::new().name("sb-probe".to_owned()).spawn(move || {
            // Ends when the cluster answers or the pipeline has dropped its half of the flag.
            while Arc::strong_count(&flag) > 1 {
                let asked =
                    Probe::new(&cluster).is_ok_and(|probe| probe.partitions(&[&topic], Duration::from_secs(2)).is_ok());
                if asked {
                    flag.store(true, Ordering::Release);
                    waker.wake();
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(500));
            }
        });
        match watcher {
            Ok(_) => self.probing = Some(answered),
            Err(error) => tracing::warn!("no thread to watch the cluster: {error}"),
        }
    }

    /// True once after a watched cluster answered.
    pub fn answered(&mut self) -> bool {
        match &self.probing {
            Some(flag) if flag.load(Ordering::Acquire) => {
                self.probing = None;
                true
            }
            _ => false,
        }
    }
}
