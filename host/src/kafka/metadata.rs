//! Asks a cluster which topics there are. Blocks; used before a pipeline joins its group, never on the data path.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Code;
use rdkafka_sys as rd;

use super::ffi::{self, Client, Topic, millis};
use super::limits::{self, TopicLimits};
use super::problem;
use super::settings;
use crate::config::Cluster;

/// Why a cluster or topic cannot be used yet. For people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// No broker answered.
    #[error("cluster `{cluster}` ({bootstrap}) does not answer: {cause}")]
    Unreachable {
        /// Its name in the configuration.
        cluster: String,
        /// The address tried.
        bootstrap: String,
        /// The last thing librdkafka said.
        cause: String,
    },
    /// The topic is not there.
    #[error("topic `{topic}` does not exist on cluster `{cluster}`{}", nearest_text(nearest.as_deref()))]
    NoTopic {
        /// The one that was asked for.
        topic: String,
        /// Where.
        cluster: String,
        /// The name that looks most like it.
        nearest: Option<String>,
    },
    /// The broker refuses the topic.
    #[error("topic `{topic}` on cluster `{cluster}`: {cause}")]
    Refused {
        /// The one that was asked for.
        topic: String,
        /// Where.
        cluster: String,
        /// The broker's words and what they mean.
        cause: String,
    },
}

impl NotReady {
    /// A short name of the kind, for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::NoTopic { .. } => "unknown_topic",
            Self::Refused { .. } => "refused",
        }
    }
}

fn nearest_text(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; create it, the pipeline then starts by itself".to_owned(),
    }
}

/// A short-lived client that only asks.
pub struct Probe {
    client: Arc<Client>,
    // Freed after the client, whose callbacks point to it.
    last_error: Box<Mutex<Option<String>>>,
    cluster: String,
    bootstrap: String,
}

impl Probe {
    /// A client for a cluster.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(cluster: &Cluster) -> Result<Self, String> {
        let mut conf = settings::asking(cluster, "sluicebox-probe")?;
        if !cluster.properties.iter().any(|(key, _)| key == "reconnect.backoff.ms") {
            conf.set("reconnect.backoff.ms", "50")?;
        }
        let last_error = Box::new(Mutex::new(None));
        // SAFETY: live configuration; the box outlives the client (field order).
        unsafe {
            rd::rd_kafka_conf_set_error_cb(conf.as_ptr(), Some(on_error));
            rd::rd_kafka_conf_set_opaque(conf.as_ptr(), (&raw const *last_error).cast_mut().cast());
        }
        let client = conf.create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)?;
        Ok(Self { client, last_error, cluster: cluster.name.clone(), bootstrap: cluster.bootstrap.clone() })
    }

    /// Partition counts of topics that all exist and may be described.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn partitions(&self, topics: &[&str], limit: Duration) -> Result<BTreeMap<String, u32>, NotReady> {
        let deadline = Instant::now() + limit;
        let mut counts = BTreeMap::new();
        for topic in topics {
            let handle = Topic::new(&self.client, topic).map_err(|cause| self.refused(topic, cause))?;
            let found = self.ask(Some(&handle), deadline)?;
            match found.into_iter().find(|found| found.name == **topic) {
                Some(Found { error: Code::RD_KAFKA_RESP_ERR_NO_ERROR, partitions, .. }) if partitions > 0 => {
                    counts.insert((*topic).to_owned(), partitions);
                }
                Some(Found {
                    error:
                        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
                        | Code::RD_KAFKA_RESP_ERR_NO_ERROR,
                    ..
                })
                | None => {
                    let all = self.ask(None, deadline)?;
                    return Err(NotReady::NoTopic {
                        topic: (*topic).to_owned(),
                        cluster: self.cluster.clone(),
                        nearest: nearest(topic, all.iter().map(|found| found.name.as_str())),
                    });
                }
                Some(Found { error, .. }) => return Err(self.refused(topic, problem::explain(error, ""))),
            }
        }
        Ok(counts)
    }

    /// Limits of topics, as far as the cluster tells them; the others have Kafka's defaults.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn limits(&self, topics: &[&str], limit: Duration) -> Result<BTreeMap<String, TopicLimits>, String> {
        let topics: BTreeSet<&str> = topics.iter().copied().collect();
        if topics.is_empty() { Ok(BTreeMap::new()) } else { limits::describe(&self.client, &topics, limit) }
    }

    fn refused(&self, topic: &str, cause: String) -> NotReady {
        NotReady::Refused { topic: topic.to_owned(), cluster: self.cluster.clone(), cause }
    }

    fn ask(&self, topic: Option<&Topic>, deadline: Instant) -> Result<Vec<Found>, NotReady> {
        let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
        // SAFETY: live client, a topic of it or null, a place for the answer.
        let code = unsafe {
            rd::rd_kafka_metadata(
                self.client.as_ptr(),
                c_int::from(topic.is_none()),
                topic.map_or(ptr::null_mut(), Topic::as_ptr),
                &mut metadata,
                millis(left),
            )
        };
        // Errors of connections wait for a poll.
        // SAFETY: live client.
        unsafe { rd::rd_kafka_poll(self.client.as_ptr(), 0) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR || metadata.is_null() {
            let heard = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(NotReady::Unreachable {
                cluster: self.cluster.clone(),
                bootstrap: self.bootstrap.clone(),
                cause: heard.unwrap_or_else(|| problem::explain(code, "")),
            });
        }
        // SAFETY: a live answer with `topic_cnt` topics, destroyed after reading.
        unsafe {
            let answer = &*metadata;
            let found = (0..usize::try_from(answer.topic_cnt).unwrap_or(0))
                .map(|i| {
                    let topic = answer.topics.add(i);
                    Found {
                        name: ffi::text((*topic).topic),
                        partitions: u32::try_from((*topic).partition_cnt).unwrap_or(0),
                        error: ffi::read_code(&raw const (*topic).err),
                    }
                })
                .collect();
            rd::rd_kafka_metadata_destroy(metadata);
            Ok(found)
        }
    }
}

struct Found {
    name: String,
    partitions: u32,
    error: Code,
}

unsafe extern "C" fn on_error(_client: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: the box that `new` gave; NUL-terminated text.
    let (place, text) = unsafe { (&*opaque.cast::<Mutex<Option<String>>>(), ffi::text(reason)) };
    let code = Code::try_from(code).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN);
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    // "All brokers are down" says less than what came before it.
    if code != Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || place.is_none() {
        *place = Some(problem::explain(code, &text));
    }
}

/// The existing name that differs least, if it differs little.
fn nearest<'a>(wanted: &str, existing: impl Iterator<Item = &'a str>) -> Option<String> {
    existing
        .filter(|name| !name.starts_with("__"))
        .map(|name| (distance(wanted, name), name))
        .min()
        .filter(|(distance, _)| *distance <= (wanted.len() / 3).max(1))
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_a_name_that_is_near() {
        let existing = ["orders", "payments", "__consumer_offsets"];
        assert_eq!(nearest("oders", existing.into_iter()).as_deref(), Some("orders"));
        assert_eq!(nearest("clicks", existing.into_iter()), None);
    }

    #[test]
    fn distances() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("same", "same")), (3, 3, 0));
    }
}
