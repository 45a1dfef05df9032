//! Asks where a group stands in partitions, on a thread of its own: librdkafka's call waits. It asks until it has an answer
//! or its client is gone.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Code;
use super::consumer::Event;
use super::ffi::{Client, PartitionList, PartitionOffset, millis};
use crate::threads;
use crate::wake::Waker;
use rdkafka_sys as rd;

/// librdkafka's word for the oldest record of a partition.
pub const BEGINNING: i64 = rd::RD_KAFKA_OFFSET_BEGINNING as i64;
/// librdkafka's word for the next record that comes.
pub const END: i64 = rd::RD_KAFKA_OFFSET_END as i64;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(5);
/// Pause between questions that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// Where a partition begins that has no commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At [`BEGINNING`], or nowhere: nothing needs to be asked.
    Elsewhere,
    /// At the end, as it is now: by its number, so that it can be kept by a commit though no record comes.
    End,
    /// At the first record of this time or later, in ms since 1970; without one, at the end.
    Time(i64),
}

/// Where a partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The (next) offset that the group committed.
    pub committed: Option<i64>,
    /// Without one, and if it was asked for: the first offset of a time, or the end.
    pub since: Option<i64>,
}

/// See the module's text.
pub(super) struct Lookup {
    pub(super) client: Weak<Client>,
    pub(super) number: u64,
    pub(super) partitions: Vec<(String, i32)>,
    pub(super) start: From,
}

impl Lookup {
    /// Asks. Each failure is told as a problem, the answer as [`Event::Placed`].
    pub(super) fn begin(self, answers: &SyncSender<Event>, waker: &Waker) -> Result<(), String> {
        let (answers, waker) = (answers.clone(), waker.clone());
        let ask = move || {
            loop {
                // Held while asking only: whoever drops the client last waits for librdkafka.
                let Some(client) = self.client.upgrade() else { return };
                let answer = self.ask(&client);
                drop(client);
                let (event, again) = match answer {
                    Ok(places) => (Event::Placed { number: self.number, places }, false),
                    Err(code) => {
                        let text = format!("cannot read committed offsets: {}", super::ffi::describe(code));
                        (Event::Problem { code, text, fatal: false }, true)
                    }
                };
                let heard = answers.send(event).is_ok();
                waker.wake();
                if !again || !heard {
                    return;
                }
                std::thread::park_timeout(AGAIN);
            }
        };
        let thread = threads::spawn("sb-lookup", ask);
        thread.map(drop).map_err(|error| format!("the system gives no thread: {error}"))
    }

    fn ask(&self, client: &Arc<Client>) -> Result<Vec<Place>, Code> {
        if self.partitions.is_empty() {
            return Ok(Vec::new());
        }
        let list = self.list(self.partitions.iter().map(|(topic, partition)| (topic, *partition, None)))?;
        // SAFETY: live client and list. Lists are dropped before the client, or that would wait for them for ever.
        done(unsafe { rd::rd_kafka_committed(client.as_ptr(), list.as_ptr(), millis(ASK)) })?;
        let mut places = Vec::with_capacity(self.partitions.len());
        for PartitionOffset { topic, partition, offset, error } in list.elements() {
            done(error)?;
            places.push(Place { topic, partition, committed: (offset >= 0).then_some(offset), since: None });
        }
        if let From::Time(time) = self.start {
            self.ask_for_time(client, time.max(0), &mut places)?;
        }
        if self.start != From::Elsewhere {
            self.ask_for_time(client, END, &mut places)?;
        }
        Ok(places)
    }

    /// `time` may be [`END`], which brokers know as well.
    fn ask_for_time(&self, client: &Arc<Client>, time: i64, places: &mut [Place]) -> Result<(), Code> {
        let unknown = |place: &Place| place.committed.or(place.since).is_none();
        let asked = places.iter().filter(|place| unknown(place));
        let list = self.list(asked.map(|place| (&place.topic, place.partition, Some(time))))?;
        if list.elements().is_empty() {
            return Ok(());
        }
        // SAFETY: as above.
        done(unsafe { rd::rd_kafka_offsets_for_times(client.as_ptr(), list.as_ptr(), millis(ASK)) })?;
        let found = list.elements();
        for place in places.iter_mut().filter(|place| unknown(place)) {
            let of = |found: &&PartitionOffset| found.topic == place.topic && found.partition == place.partition;
            let found = found.iter().find(of).ok_or(Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)?;
            done(found.error)?;
            place.since = (found.offset >= 0).then_some(found.offset);
        }
        Ok(())
    }

    fn list<'a>(
        &self,
        partitions: impl Iterator<Item = (&'a String, i32, Option<i64>)>,
    ) -> Result<PartitionList, Code> {
        let mut list = PartitionList::new(self.partitions.len());
        for (topic, partition, offset) in partitions {
            list.add(topic, partition, offset).map_err(|_| Code::RD_KAFKA_RESP_ERR__INVALID_ARG)?;
        }
        Ok(list)
    }
}

fn done(code: Code) -> Result<(), Code> {
    if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(code) }
}
