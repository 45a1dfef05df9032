//! Where lanes' effects go: the pipeline's producers, one per cluster that it writes to.

use std::time::Instant;

use super::dead_letter::{self, Origin};
use super::lane::RefusedEmission;
use super::port::{Produce, Refusal, TopicNumber, Trouble};
use super::sink::{DeadLetter, Failure, Notice, OutputNumber, Sink};
use super::status::{Figures, OutputFigures};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::{self, LaneId, Ticket};
use crate::record_log::{RecordEvent, RecordLog};
use crate::telemetry::{self, At};

/// A topic of one of the producers.
#[derive(Clone, Copy, Debug)]
pub struct Outlet {
    /// Place of the producer.
    pub producer: usize,
    /// Its topic.
    pub topic: TopicNumber,
    /// Partitions of the topic.
    pub partitions: u32,
}

/// Where dead letters go, and how they are marked.
#[derive(Debug)]
pub struct DeadLetterOutlet {
    /// The topic.
    pub outlet: Outlet,
    /// Prefix of header names.
    pub prefix: String,
}

/// See the module's text.
pub struct Outlets<P> {
    pipeline: String,
    producers: Vec<P>,
    outputs: Vec<(String, Outlet)>,
    dead_letter: Option<DeadLetterOutlet>,
    /// Used again for every dead letter.
    block: Vec<u8>,
    /// Used again for every look at a producer.
    refusals: Vec<(Ticket, Refusal)>,
    /// Records that failed for good, blocked ones included.
    pub failed: u64,
    /// Attempts that failed, the last ones included: at records, and calls for several or for none.
    pub failed_attempts: u64,
    /// Calls without messages that keep failing after as many attempts as there are.
    pub stuck_calls: u64,
    /// The last of them, and why.
    pub last_failure: Option<String>,
    /// Counts of the pipeline.
    pub figures: Figures,
    /// The lane that is being served: where notices come from.
    at: (std::sync::Arc<str>, i32),
    log: RecordLog,
}

impl<P: Produce> Outlets<P> {
    /// Producers and the topics they were given.
    #[must_use]
    pub fn new(
        pipeline: &str,
        producers: Vec<P>,
        outputs: Vec<(String, Outlet)>,
        dead_letter: Option<DeadLetterOutlet>,
        batchers: Vec<String>,
    ) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            producers,
            outputs,
            dead_letter,
            block: Vec::new(),
            refusals: Vec::new(),
            failed: 0,
            failed_attempts: 0,
            stuck_calls: 0,
            last_failure: None,
            figures: Figures { batchers, ..Figures::default() },
            at: ("".into(), 0),
            log: RecordLog::new(pipeline),
        }
    }

    /// Says which lane is served from now on.
    #[inline]
    pub fn serve(&mut self, topic: &std::sync::Arc<str>, partition: i32) {
        if !std::sync::Arc::ptr_eq(&self.at.0, topic) {
            self.at.0 = std::sync::Arc::clone(topic);
        }
        self.at.1 = partition;
    }

    /// Hands gathered records to the brokers.
    pub fn send(&mut self, now: Instant, refused: &mut Vec<(Ticket, RefusedEmission)>) {
        for place in 0..self.producers.len() {
            let mut refusals = std::mem::take(&mut self.refusals);
            self.producers[place].send(now, &mut refusals);
            self.name_refused(place, refusals, refused);
        }
    }

    /// Says which output each refused record was for.
    fn name_refused(
        &mut self,
        producer: usize,
        mut refusals: Vec<(Ticket, Refusal)>,
        refused: &mut Vec<(Ticket, RefusedEmission)>,
    ) {
        for (ticket, refusal) in refusals.drain(..) {
            let ours = |outlet: &Outlet| outlet.producer == producer && outlet.topic == refusal.topic;
            // An output may share its topic with another one, or with the dead letters; then they share their settings.
            let output = self.outputs.iter().position(|(_, outlet)| ours(outlet));
            let Refusal { partition, record, text, .. } = refusal;
            refused.push((ticket, RefusedEmission { output, partition, record, reason: text }));
        }
        self.refusals = refusals;
    }

    /// Records are about to come.
    #[inline]
    pub fn expect(&mut self) {
        self.producers.iter_mut().for_each(P::expect);
    }

    /// Takes in delivery reports.
    pub fn poll(
        &mut self,
        now: Instant,
        mut delivered: impl FnMut(ticket::Run),
        refused: &mut Vec<(Ticket, RefusedEmission)>,
        trouble: &mut Vec<Trouble>,
    ) {
        for place in 0..self.producers.len() {
            let mut refusals = std::mem::take(&mut self.refusals);
            self.producers[place].poll(now, &mut delivered, &mut refusals, trouble);
            self.name_refused(place, refusals, refused);
        }
    }

    /// Partitions of the topic behind an outlet: an output's, or behind the last one that of the dead letters.
    #[must_use]
    pub fn partitions_of(&self, outlet: usize) -> Option<u32> {
        let dead = self.dead_letter.as_ref().map(|dead| &dead.outlet).filter(|_| outlet == self.outputs.len());
        self.outputs.get(outlet).map(|(_, outlet)| outlet).or(dead).map(|outlet| outlet.partitions)
    }

    /// The topic behind an outlet has more partitions than it had. True when it is an output's.
    pub fn grow(&mut self, outlet: usize, partitions: u32) -> bool {
        let is_output = outlet < self.outputs.len();
        let outlet = match self.outputs.get_mut(outlet) {
            Some((_, outlet)) => Some(outlet),
            None => self.dead_letter.as_mut().map(|dead| &mut dead.outlet),
        };
        if let Some(outlet) = outlet {
            outlet.partitions = partitions;
            self.producers[outlet.producer].grow(outlet.topic, partitions);
        }
        is_output
    }

    /// Drops what waits to be sent for lanes whose partitions are given back.
    pub fn forget(&mut self, lanes: &[LaneId]) {
        for producer in &mut self.producers {
            producer.forget(lanes);
        }
    }

    /// Looks for reports though nobody announced any.
    pub fn look_again(&self) {
        self.producers.iter().for_each(P::look_again);
    }

    /// Bytes that are not reported on.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.producers.iter().map(P::bytes).sum()
    }

    /// Bytes of one lane that are not reported on.
    #[must_use]
    pub fn bytes_of(&self, lane: LaneId) -> usize {
        self.producers.iter().map(|producer| producer.bytes_of(lane)).sum()
    }

    /// Records that are not reported on.
    #[must_use]
    pub fn records(&self) -> usize {
        self.producers.iter().map(P::records).sum()
    }

    /// Reports are to come, and nothing waits for them.
    #[must_use]
    pub fn only_reports_are_due(&self) -> bool {
        self.records() > 0 && self.producers.iter().all(P::has_sent_all)
    }

    /// When a producer has something to do by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.producers.iter().filter_map(P::deadline).min()
    }

    /// Figures of the outputs.
    #[must_use]
    pub fn output_figures(&self) -> Vec<OutputFigures> {
        let figures = |name: &str, outlet: &Outlet| {
            let producer = &self.producers[outlet.producer];
            let (produced, produced_bytes) = producer.produced(outlet.topic);
            let refused = producer.refused(outlet.topic);
            OutputFigures { name: name.to_owned(), produced, produced_bytes, refused }
        };
        let outputs = self.outputs.iter().map(|(name, outlet)| figures(name, outlet));
        let dead = self.dead_letter.iter().map(|dead| figures("dead-letter", &dead.outlet));
        outputs.chain(dead).collect()
    }

    /// A record failed for good.
    fn failed(&mut self, offset: i64, failure: &Failure) {
        self.failed += 1;
        self.failed_attempts += 1;
        let (topic, partition) = &self.at;
        self.last_failure = Some(format!("{topic}[{partition}]@{offset}: {}: {}", failure.class, failure.reason));
    }

    /// Says how many events of records were left out of the log, where some were.
    pub fn say_left_out(&mut self) {
        self.log.say_left_out();
    }

    fn at(&self, offset: i64) -> At<'_> {
        At { pipeline: &self.pipeline, topic: &self.at.0, partition: self.at.1, offset }
    }
}

impl<P: Produce> Sink for Outlets<P> {
    #[inline]
    fn partitions(&self, output: OutputNumber) -> u32 {
        self.outputs[output].1.partitions
    }

    #[inline]
    fn emit(&mut self, output: OutputNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        let outlet = self.outputs[output].1;
        self.producers[outlet.producer].append(outlet.topic, partition, record, ticket);
    }

    fn dead_letter(&mut self, letter: &DeadLetter<'_>, ticket: Ticket) {
        let offset = letter.offset.unwrap_or(-1);
        if self.log.admits(RecordEvent::DeadLetter) {
            telemetry::dead_letter(self.at(offset), letter.attempts, letter.failure);
        }
        self.failed(offset, letter.failure);
        let Some(dead) = &self.dead_letter else {
            panic!("a lane without a dead-letter topic wrote a dead letter");
        };
        let origin = Origin { prefix: &dead.prefix, topic: &self.at.0, partition: self.at.1, pipeline: &self.pipeline };
        dead_letter::headers(&mut self.block, letter, &origin);
        // The same key goes to the same place; without one, records of a partition stay together.
        let partition = match letter.record.key {
            Some(key) => crate::delivery::partitioner::partition(key, dead.outlet.partitions),
            None => self.at.1.unsigned_abs() % dead.outlet.partitions,
        };
        let block = sluicebox_frames::Headers::new(&self.block);
        let record = Outgoing { headers: [block, sluicebox_frames::Headers::default()], timestamp: 0, ..letter.record };
        self.producers[dead.outlet.producer].append(dead.outlet.topic, partition, &record, ticket);
    }

    fn dead_letter_again(&mut self, partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        let Some(dead) = &self.dead_letter else {
            panic!("a lane without a dead-letter topic wrote a dead letter again");
        };
        self.producers[dead.outlet.producer].append(dead.outlet.topic, partition, record, ticket);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        match notice {
            Notice::Retrying { offset, attempt, failure, wait } => {
                if self.log.admits(RecordEvent::Retrying) {
                    telemetry::retrying(self.at(offset), attempt, failure, wait);
                }
                self.failed_attempts += 1;
                *self.figures.retries.entry(failure.class).or_default() += 1;
            }
            Notice::Blocked { offset, attempt, failure, first, wait } => {
                if first {
                    if self.log.admits(RecordEvent::Blocked) {
                        telemetry::blocked(self.at(offset), attempt, failure, wait);
                    }
                    self.failed(offset, failure);
                } else {
                    *self.figures.retries.entry(failure.class).or_default() += 1;
                }
            }
            Notice::BadAnswer { failure } => *self.figures.faults.entry(failure.class).or_default() += 1,
            Notice::Dropped { offset, attempts, failure } => {
                if self.log.admits(RecordEvent::Dropped) {
                    telemetry::dropped(self.at(offset), attempts, failure);
                }
                self.failed(offset, failure);
                if let Some(figures) = self.figures.topics.get_mut(&self.at.0) {
                    figures.dropped += 1;
                }
            }
            Notice::Stopped { offset, attempts, failure } => telemetry::stopped(self.at(offset), attempts, failure),
            Notice::CallFailed { what, attempt, failure, blocks, wait } => {
                if self.log.admits(RecordEvent::CallFailed) {
                    telemetry::call_failed(self.at(-1), what, attempt, failure, blocks, wait);
                }
                self.failed_attempts += 1;
                self.stuck_calls += u64::from(blocks);
                *self.figures.retries.entry(failure.class).or_default() += 1;
            }
            Notice::LateAcks { count } => {
                telemetry::late_acks(self.at(-1), count);
                self.figures.late_acks += count;
            }
            Notice::SourceGone { offset, failure } => {
                telemetry::source_gone(self.at(offset), failure);
                if let Some(figures) = self.figures.topics.get_mut(&self.at.0) {
                    figures.dropped += 1;
                }
            }
            Notice::Refused { offset, reason } => {
                if self.log.admits(RecordEvent::Refused) {
                    telemetry::refused(self.at(offset), reason);
                }
            }
            Notice::Unblocked { offset } => {
                if self.log.admits(RecordEvent::Unblocked) {
                    telemetry::unblocked(self.at(offset));
                }
            }
            Notice::Isolating { messages, failure } => {
                if self.log.admits(RecordEvent::Isolating) {
                    telemetry::isolating(self.at(-1), messages, failure);
                }
                self.failed_attempts += 1;
            }
            Notice::BatchClosed { batcher, trigger, messages } => {
                let (batches, sum) = self.figures.batches.entry((batcher, trigger.name())).or_default();
                *batches += 1;
                *sum += messages as u64;
            }
        }
    }
}
