//! The real edges of the loop: librdkafka's clients, handler threads, the clock and a thread that sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluicebox_frames::MessagesWriter;

use super::handlers::LaneHandlers;
use super::port::{
    Code, Edges, Event, Filled, Group, PartitionOffset, Produce, Queue, Refusal, Standing, Start, TopicNumber, Trouble,
};
use super::reread::TopicRereader;
use super::run::{Ended, Run, Step};
use super::survey::TopicSurvey;
use super::watch::ClusterWatch;
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::{self, LaneId, Ticket};
use crate::kafka::consumer::Consumer;
use crate::kafka::fetch_wait::FetchWait;
use crate::kafka::lookup::From;
use crate::kafka::partition::PartitionQueue;
use crate::kafka::producer::Producer;
use crate::wake::Waker;

/// See the module's text.
pub(super) struct Real;

impl Edges for Real {
    type Group = Member;
    type Producer = Producer;
    type Handlers = LaneHandlers;
    type Watch = ClusterWatch;
    type Rereader = TopicRereader;
    type Survey = TopicSurvey;
}

/// Runs the loop on this thread, the waker's, until it is over.
///
/// # Errors
/// Why the pipeline has to begin anew.
pub(super) fn drive(mut run: Run<Real>, waker: &Waker) -> Result<Ended, String> {
    loop {
        let now = Instant::now();
        let step = run.step(now);
        // Times count from when the step began, and it may have made calls.
        let left = |limit: Duration| limit.saturating_sub(now.elapsed());
        match step {
            Step::Again => {}
            Step::Rest(limit) => waker.wait(left(limit)),
            Step::Doze(limit) => waker.doze(left(limit)),
            // Who wakes the thread meanwhile finds it awake: the next wait ends at once.
            Step::Nap(time) => std::thread::sleep(left(time)),
            Step::Over(end) => return end,
        }
    }
}

/// A consumer.
pub(super) struct Member {
    fetch_wait: FetchWait,
    consumer: Consumer,
    /// Set when another member took our instance id; outlives the run, which ends by it.
    fenced: Arc<AtomicBool>,
}

impl Member {
    /// A member whose fetches wait for records so long at most.
    pub(super) fn new(consumer: Consumer, fenced: &Arc<AtomicBool>, max_wait: Duration) -> Result<Self, String> {
        let fetch_wait = FetchWait::new(consumer.client(), max_wait)?;
        Ok(Self { fetch_wait, consumer, fenced: Arc::clone(fenced) })
    }
}

/// So long before `now`, in ms since 1970.
fn before(now: SystemTime, ago: Duration) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Ownership epochs grow within a process and, by the clock, across its restarts.
fn next_epoch() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(clock.max(last + 1)));
    last.map_or(clock, |last| clock.max(last + 1))
}

impl Group for Member {
    type Queue = PartitionQueue;

    #[inline]
    fn poll(&mut self) -> Option<Event> {
        let event = self.consumer.poll();
        if let Some(Event::Problem { code: Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, fatal: true, .. }) = &event {
            self.fenced.store(true, Ordering::Release);
        }
        event
    }

    fn catching_up(&mut self, behind: bool) {
        self.fetch_wait.catching_up(behind);
    }

    fn look_up(&mut self, partitions: &[PartitionOffset], start: Start) -> Result<u64, String> {
        let from = match start {
            Start::Earliest | Start::None => From::Elsewhere,
            Start::Latest => From::End,
            Start::At(time) => From::Time(time),
            Start::Ago(ago) => From::Time(before(SystemTime::now(), ago)),
        };
        self.consumer.look_up(partitions, from)
    }

    fn assign(&mut self, partitions: &[PartitionOffset]) -> Result<Vec<PartitionQueue>, String> {
        self.consumer.assign(partitions)
    }

    fn seek(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), String> {
        self.consumer.seek(topic, partition, offset)
    }

    fn log_start(&self, topic: &str, partition: i32) -> Option<i64> {
        self.consumer.log_start(topic, partition)
    }

    fn unassign(&mut self, partitions: &[PartitionOffset]) -> Result<(), String> {
        self.consumer.unassign(partitions)
    }

    fn commit<'a>(&mut self, offsets: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> Result<(), String> {
        self.consumer.commit(offsets)
    }

    fn positions<'a>(&self, partitions: impl ExactSizeIterator<Item = (&'a str, i32)>) -> Vec<Option<i64>> {
        self.consumer.positions(partitions)
    }

    fn log_end(&self, topic: &str, partition: i32) -> Option<i64> {
        self.consumer.log_end(topic, partition)
    }

    fn ask_for_ages(&mut self, standing: Vec<Standing>) -> Result<(), String> {
        self.consumer.ask_for_ages(standing, before(SystemTime::now(), Duration::ZERO))
    }

    fn look_again(&self) {
        self.consumer.look_again();
    }

    fn begin_close(&mut self) -> Result<(), String> {
        self.consumer.begin_close()
    }

    fn is_closed(&self) -> bool {
        self.consumer.is_closed()
    }

    fn next_epoch(&mut self) -> u64 {
        next_epoch()
    }
}

impl Queue for PartitionQueue {
    #[inline]
    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    #[inline]
    fn is_read_up(&self) -> bool {
        Self::is_read_up(self)
    }

    fn look_again(&self) {
        Self::look_again(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }

    #[inline]
    fn fill<E>(
        &mut self,
        burst: &mut MessagesWriter<'_>,
        max_messages: usize,
        max_bytes: usize,
        each: impl FnMut(i64) -> Result<(), E>,
    ) -> Result<Filled, E> {
        Self::fill(self, burst, max_messages, max_bytes, each)
    }
}

impl Produce for Producer {
    #[inline]
    fn expect(&mut self) {
        Self::expect(self);
    }

    #[inline]
    fn append(&mut self, topic: TopicNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        Self::append(self, topic, partition, record, ticket);
    }

    #[inline]
    fn send(&mut self, now: Instant, refused: &mut Vec<(Ticket, Refusal)>) {
        Self::send(self, now, refused);
    }

    #[inline]
    fn poll(
        &mut self,
        now: Instant,
        delivered: impl FnMut(ticket::Run),
        refused: &mut Vec<(Ticket, Refusal)>,
        trouble: &mut Vec<Trouble>,
    ) {
        Self::poll(self, now, delivered, refused, trouble);
    }

    fn grow(&mut self, topic: TopicNumber, partitions: u32) {
        Self::grow(self, topic, partitions);
    }

    fn forget(&mut self, lanes: &[LaneId]) {
        Self::forget(self, lanes);
    }

    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }

    #[inline]
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    #[inline]
    fn bytes_of(&self, lane: LaneId) -> usize {
        Self::bytes_of(self, lane)
    }

    #[inline]
    fn records(&self) -> usize {
        Self::records(self)
    }

    fn has_sent_all(&self) -> bool {
        Self::has_sent_all(self)
    }

    fn produced(&self, topic: TopicNumber) -> (u64, u64) {
        Self::produced(self, topic)
    }

    fn refused(&self, topic: TopicNumber) -> u64 {
        Self::refused(self, topic)
    }

    fn look_again(&self) {
        Self::look_again(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_grow() {
        let (a, b) = (next_epoch(), next_epoch());
        assert!(b > a);
    }
}
