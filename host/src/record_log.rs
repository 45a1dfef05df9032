//! What is said of single records and calls that fail, at a bounded rate: a handler that fails at everything makes thousands
//! of such events a second, and a log that is as fast costs more than the records. Says how many were left out; nothing else
//! is lost by it: dead letters say why each of them is one, metrics count all.

use std::time::{Duration, Instant};

use crate::quota::Quota;
use crate::telemetry;

/// Lines of one kind that are written at once.
const AT_ONCE: u32 = 50;
/// After that one in so much time.
const EVERY: Duration = Duration::from_secs(1);

/// Kinds of events that come as often as records do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordEvent {
    /// An attempt failed, there will be another one.
    Retrying,
    /// A partition stands at its record.
    Blocked,
    /// And goes on.
    Unblocked,
    /// A record goes to the dead-letter topic.
    DeadLetter,
    /// It is given up.
    Dropped,
    /// What was made of it is refused by the broker.
    Refused,
    /// A call for many failed.
    Isolating,
    /// A call for none failed.
    CallFailed,
}

impl RecordEvent {
    /// All of them, in their order, with what is said of those that are left out.
    const ALL: [(Self, &'static str); 8] = [
        (Self::Retrying, "failed attempts; sluicebox_retries_total counts all of them"),
        (Self::Blocked, "blocked partitions; `sluicebox status` shows those that are"),
        (Self::Unblocked, "partitions that went on; `sluicebox status` shows those that did not"),
        (
            Self::DeadLetter,
            "dead letters; each says why it is one, sluicebox_messages_processed_total counts all of them",
        ),
        (Self::Dropped, "dropped records; sluicebox_messages_processed_total counts all of them"),
        (Self::Refused, "refused records; sluicebox_messages_produced_total counts all of them"),
        (Self::Isolating, "failed calls for several messages; sluicebox_handler_traps_total counts all of them"),
        (Self::CallFailed, "failed calls; sluicebox_handler_traps_total counts all of them"),
    ];
}

/// The lines of one pipeline.
#[derive(Debug)]
pub struct RecordLog {
    pipeline: String,
    /// By event.
    quotas: [Quota; RecordEvent::ALL.len()],
}

impl RecordLog {
    /// For a pipeline.
    #[must_use]
    pub fn new(pipeline: &str) -> Self {
        let now = Instant::now();
        Self { pipeline: pipeline.to_owned(), quotas: std::array::from_fn(|_| Quota::new(AT_ONCE, EVERY, now)) }
    }

    /// May a line be written about such an event? If so, that of those before it is written, where some were left out.
    pub fn admits(&mut self, event: RecordEvent) -> bool {
        let taken = self.quotas[event as usize].take(Instant::now());
        if let Some(count) = taken.filter(|count| *count > 0) {
            self.say(event, count);
        }
        taken.is_some()
    }

    /// Says how many were left out, where that may be said now.
    pub fn say_left_out(&mut self) {
        let now = Instant::now();
        for (event, _) in RecordEvent::ALL {
            if let Some(count) = self.quotas[event as usize].take_left_out(now) {
                self.say(event, count);
            }
        }
    }

    fn say(&self, event: RecordEvent, count: u64) {
        let (_, what) = RecordEvent::ALL[event as usize];
        telemetry::records_left_out(&self.pipeline, count, what);
    }
}

impl Drop for RecordLog {
    fn drop(&mut self) {
        for (event, _) in RecordEvent::ALL {
            if let Some(count) = self.quotas[event as usize].end() {
                self.say(event, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_its_place_and_its_own_quota() {
        for (place, (event, _)) in RecordEvent::ALL.iter().enumerate() {
            assert_eq!(*event as usize, place);
        }
        let mut log = RecordLog::new("orders");
        let said = (0..10_000).filter(|_| log.admits(RecordEvent::Dropped)).count();
        assert!((50..100).contains(&said), "{said} of 10,000");
        assert!(log.admits(RecordEvent::DeadLetter), "the flood of the others does not hide it");
    }
}
