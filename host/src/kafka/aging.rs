//! Asks how long records live in topics, where the records begin that have time left, and where the logs begin: all that is
//! needed to say whether a record will still be there when somebody comes back to it. On a thread of its own: the answers
//! take their time, and nobody waits for them. What cannot be had this time is asked for again the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka_sys as rd;

use super::Code;
use super::consumer::Event;
use super::ffi::{Client, PartitionList, millis};
use super::lookup::BEGINNING;
use super::topic_config;
use crate::delivery::retention::{Facts, notice};
use crate::threads;
use crate::wake::Waker;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(10);

/// Where a partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The oldest record that is not settled.
    pub offset: i64,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aged {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The broker's word.
    pub facts: Facts,
    /// How long before its deletion a record is near it.
    pub notice: Duration,
}

/// See the module's text.
pub(super) struct Aging {
    pub(super) client: Weak<Client>,
    pub(super) standing: Vec<Standing>,
    /// In ms since 1970.
    pub(super) now: i64,
}

impl Aging {
    /// Asks; the answer is an [`Event::Aged`], empty when there is none.
    pub(super) fn begin(self, answers: &SyncSender<Event>, waker: &Waker) -> Result<(), String> {
        let (answers, waker) = (answers.clone(), waker.clone());
        let ask = move || {
            let Some(client) = self.client.upgrade() else { return };
            let aged = self.ask(&client);
            drop(client);
            let aged = aged.unwrap_or_else(|reason| {
                tracing::debug!("cannot ask for retention: {reason}");
                Vec::new()
            });
            if answers.send(Event::Aged(aged)).is_ok() {
                waker.wake();
            }
        };
        let thread = threads::spawn("sb-aging", ask);
        thread.map(drop).map_err(|error| format!("the system gives no thread: {error}"))
    }

    fn ask(&self, client: &Arc<Client>) -> Result<Vec<Aged>, String> {
        let topics: BTreeSet<&str> = self.standing.iter().map(|standing| standing.topic.as_str()).collect();
        // A topic that may not be described is as one whose records never age.
        let described = topic_config::describe(client, &topics, ASK)?;
        let retention: BTreeMap<&str, Option<Duration>> =
            described.iter().map(|(topic, entries)| (topic.as_str(), lifetime(entries))).collect();
        let starts = self.offsets(client, |_| Some(BEGINNING))?;
        let safe = self.offsets(client, |topic| {
            let retention = (*retention.get(topic)?)?;
            let left = i64::try_from((retention - notice(retention)).as_millis()).unwrap_or(i64::MAX);
            Some(self.now.saturating_sub(left).max(0))
        })?;
        let aged = |standing: &Standing| {
            let place = (standing.topic.clone(), standing.partition);
            let retention = retention.get(standing.topic.as_str()).copied().flatten();
            let log_start = (*starts.get(&place)?)?;
            let safe_from = safe.get(&place).copied().flatten();
            let facts = Facts { offset: standing.offset, log_start, safe_from, ages: retention.is_some() };
            let notice = notice(retention.unwrap_or_default());
            Some(Aged { topic: place.0, partition: place.1, facts, notice })
        };
        Ok(self.standing.iter().filter_map(aged).collect())
    }

    /// The first offset of a time, by partition; `None` in it: there is no record so young. Partitions of topics for which
    /// `time` says nothing are left out.
    fn offsets(
        &self,
        client: &Arc<Client>,
        time: impl Fn(&str) -> Option<i64>,
    ) -> Result<BTreeMap<(String, i32), Option<i64>>, String> {
        let mut list = PartitionList::new(self.standing.len());
        for Standing { topic, partition, .. } in &self.standing {
            if let Some(time) = time(topic) {
                list.add(topic, *partition, Some(time))?;
            }
        }
        if list.elements().is_empty() {
            return Ok(BTreeMap::new());
        }
        // SAFETY: live client and list.
        super::consumer::check(unsafe { rd::rd_kafka_offsets_for_times(client.as_ptr(), list.as_ptr(), millis(ASK)) })?;
        let found = list.elements().into_iter().filter(|found| found.error == Code::RD_KAFKA_RESP_ERR_NO_ERROR);
        Ok(found.map(|found| ((found.topic, found.partition), Some(found.offset).filter(|at| *at >= 0))).collect())
    }
}

/// How long age lets a record live; `None`: for ever.
fn lifetime(entries: &BTreeMap<String, String>) -> Option<Duration> {
    let deletes = entries.get("cleanup.policy")?.split(',').any(|policy| policy.trim() == "delete");
    let retention = entries.get("retention.ms")?.parse::<u64>().ok().filter(|_| deletes)?;
    Some(Duration::from_millis(retention))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deletion_by_age_is_a_lifetime() {
        let lifetime = |policy: &str, retention: &str| {
            let entries = [("cleanup.policy", policy), ("retention.ms", retention)];
            lifetime(&entries.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
        };
        let day = Some(Duration::from_secs(86_400));
        assert_eq!([lifetime("delete", "86400000"), lifetime("compact,delete", "86400000")], [day; 2]);
        assert_eq!([lifetime("compact", "86400000"), lifetime("delete", "-1"), lifetime("delete", "")], [None; 3]);
        assert_eq!(super::lifetime(&BTreeMap::new()), None);
    }
}
