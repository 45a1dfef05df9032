//! Emissions that the broker will not take as they are (too large, a timestamp out of range).
//!
//! The record behind such an emission follows the failure policy like a rejected one. By then its message has been decided
//! and forgotten, so that for a dead letter the source record is read again: rare, and cheaper than keeping every record
//! until its emissions are durable. With policy `block`, and for a dead letter itself, only the writing is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use sluicebox_frames::{Frame, MessagesWriter, Source};

use super::failed::Failed;
use super::items::copied;
use super::messages::Work;
use super::{Lane, read};
use crate::delivery::outgoing::Owned;
use crate::delivery::policy::Then;
use crate::delivery::ticket::{Seq, Target};
use crate::pipeline::sink::{Failure, Notice, OutputNumber, REFUSED, Sink};

/// What the broker refused.
#[derive(Clone, Debug)]
pub struct RefusedEmission {
    /// `None`: a dead letter.
    pub output: Option<OutputNumber>,
    /// Partition of the output's topic.
    pub partition: u32,
    /// The record.
    pub record: Owned,
    /// Topic and reason.
    pub reason: String,
}

/// An emission that is tried again.
#[derive(Debug)]
pub(super) struct Stuck {
    emission: RefusedEmission,
    target: Target,
    attempt: u32,
    not_before: Instant,
    /// With the producer again.
    sent: bool,
    pub(super) reason: String,
}

impl Stuck {
    /// When it is tried again; it is not while the producer has it.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.sent).then_some(self.not_before)
    }

    pub(super) fn bytes(&self) -> usize {
        let record = &self.emission.record;
        record.headers.len() + record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len)
    }
}

/// A record that is read again.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    seq: Seq,
    target: Target,
    failure: Failure,
    /// Digest of the version that made what was refused.
    version: Arc<str>,
    /// It is to be done again: what was refused a canary had made.
    replay: bool,
}

/// Which records a canary may have made something of. A refusal of that is no word about the record: the version before
/// does it again.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// Records below this number, once there was a canary here.
    until: Seq,
    /// Of these, those that were given back to be done again: what is refused of them then is their own.
    replayed: BTreeSet<Seq>,
}

impl Trials {
    /// The lane leaves a canary. What is not reported on yet may be the canary's.
    pub(super) fn end(&mut self, next: Seq) {
        self.until = next;
    }

    /// The canary is promoted: what is refused from here on, whenever it was made, is the records' own.
    pub(super) fn promote(&mut self) {
        *self = Self::default();
    }
}

impl Lane {
    /// An effect was refused for good.
    pub fn on_refused(&mut self, target: Target, emission: RefusedEmission, now: Instant, sink: &mut dyn Sink) {
        self.in_flight -= 1;
        let records = self.records_behind(target);
        let offset = records.first().and_then(|(seq, _)| self.tracker.offset_of(*seq)).unwrap_or(-1);
        let then = self.rules.then;
        // What was refused before, and tried again, was found to be no canary's then. What becomes of it now is the policy's
        // to say, which may be another one by now.
        let earlier = self.stuck.iter().position(|stuck| stuck.sent && stuck.target == target);
        let attempts = earlier.and_then(|place| self.stuck.remove(place)).map_or(0, |stuck| stuck.attempt);
        let is_canarys = attempts == 0 && records.iter().all(|(seq, _)| self.is_canarys(*seq));
        if emission.output.is_some() && !records.is_empty() && is_canarys {
            self.replay(target, emission.reason, sink);
            return;
        }
        if emission.output.is_none() || then == Then::Block || records.is_empty() {
            self.stick(target, emission, offset, attempts + 1, now, sink);
            return;
        }
        sink.notice(Notice::Refused { offset, reason: &emission.reason });
        let failure = Failure { class: REFUSED, reason: emission.reason };
        for (seq, mark) in self.take_records_behind(target) {
            let offset = self.tracker.offset_of(seq).unwrap_or(-1);
            match then {
                Then::DeadLetter => {
                    let (failure, version) = (failure.clone(), Arc::clone(&self.rules.version));
                    self.want(offset, Wanted { seq, target: mark, failure, version, replay: false });
                }
                Then::Drop => {
                    if self.tracker.mark_failed(seq) {
                        sink.notice(Notice::Dropped { offset, attempts: 1, failure: &failure });
                    }
                    self.settle(mark);
                }
                Then::Block | Then::Stop => {
                    sink.notice(Notice::Stopped { offset, attempts: 1, failure: &failure });
                    self.stopped.get_or_insert_with(|| failure.at(offset, 1));
                }
            }
        }
    }

    /// A canary may have made what was refused of this record.
    fn is_canarys(&self, seq: Seq) -> bool {
        let may = self.rules.trial || (seq < self.trials.until && !self.trials.replayed.contains(&seq));
        // Committed already, it is shown to nobody again.
        may && !self.rules.receive
    }

    /// What a canary made is refused: its records are read again, for the version before. What else was made of them, and is
    /// written, is written again with that.
    fn replay(&mut self, target: Target, reason: String, sink: &mut dyn Sink) {
        mark!(RefusedOfCanary);
        let failure = Failure { class: REFUSED, reason };
        for (seq, mark) in self.take_records_behind(target) {
            let offset = self.tracker.offset_of(seq).unwrap_or(-1);
            if self.rules.trial {
                self.step_back(offset, 1, &failure, sink);
            }
            let Self { trials, tracker, .. } = &mut *self;
            trials.replayed.retain(|seq| tracker.offset_of(*seq).is_some());
            trials.replayed.insert(seq);
            let version = Arc::clone(&self.rules.version);
            self.want(offset, Wanted { seq, target: mark, failure: failure.clone(), version, replay: true });
        }
    }

    /// The records whose fate waits for an effect, each with the mark that this effect holds on it.
    fn records_behind(&self, target: Target) -> Vec<(Seq, Target)> {
        match target {
            Target::Record(seq) => vec![(seq, target)],
            Target::Gate(number) => match self.gates.record(number) {
                Some(seq) => vec![(seq, target)],
                None => self.gates.behind(number).iter().flat_map(|mark| self.records_behind(*mark)).collect(),
            },
        }
    }

    /// As [`Lane::records_behind`]; a gate before several records lets them go, because each has a fate of its own now.
    fn take_records_behind(&mut self, target: Target) -> Vec<(Seq, Target)> {
        match target {
            Target::Record(seq) => vec![(seq, target)],
            Target::Gate(number) => match self.gates.record(number) {
                Some(seq) => vec![(seq, target)],
                None => {
                    let marks = self.gates.release(number);
                    let records = marks.into_iter().flat_map(|mark| self.take_records_behind(mark)).collect();
                    self.settle(target);
                    records
                }
            },
        }
    }

    /// Keeps an emission, and lets nothing new pass it.
    fn stick(
        &mut self,
        target: Target,
        emission: RefusedEmission,
        offset: i64,
        attempt: u32,
        now: Instant,
        sink: &mut dyn Sink,
    ) {
        mark!(EmissionStuck);
        let wait = self.rules.retry.blocked_wait(self.chance.draw());
        let failure = Failure { class: REFUSED, reason: emission.reason.clone() };
        let reason = failure.at(offset, attempt);
        sink.notice(Notice::Blocked { offset, attempt, failure: &failure, first: attempt == 1, wait });
        self.stuck.push_back(Stuck { emission, target, attempt, not_before: now + wait, sent: false, reason });
    }

    /// Tries refused emissions again whose time has come.
    pub(super) fn send_stuck(&mut self, now: Instant, sink: &mut dyn Sink) {
        for place in 0..self.stuck.len() {
            if self.stuck[place].sent || self.stuck[place].not_before > now {
                continue;
            }
            self.stuck[place].sent = true;
            let ticket = self.ticket(self.stuck[place].target);
            let RefusedEmission { output, partition, record, .. } = &self.stuck[place].emission;
            match output {
                Some(output) => sink.emit(*output, *partition, &record.as_outgoing(), ticket),
                None => sink.dead_letter_again(*partition, &record.as_outgoing(), ticket),
            }
        }
    }

    /// A report came; if it was for an emission that was stuck, it is not any more.
    pub(super) fn unstick(&mut self, target: Target) {
        if let Some(place) = self.stuck.iter().position(|stuck| stuck.sent && stuck.target == target) {
            self.stuck.remove(place);
        }
    }

    /// Asks for the source record. A second refused emission of one record changes nothing: it has its dead letter.
    fn want(&mut self, offset: i64, wanted: Wanted) {
        if self.wanted.contains_key(&offset) || self.asked.contains_key(&offset) {
            self.settle(wanted.target);
            return;
        }
        self.wanted.insert(offset, wanted);
    }

    /// Offsets of records that have to be read again, ascending; each is named once.
    pub fn take_wanted(&mut self) -> Vec<i64> {
        let offsets = self.wanted.keys().copied().collect();
        self.asked.append(&mut self.wanted);
        offsets
    }

    /// True when records have to be read again.
    #[must_use]
    pub fn wants_sources(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Source records were read again: a burst frame, with those of `offsets` that are still in the topic.
    pub fn on_sources(&mut self, frame: &Frame, offsets: &[i64], sink: &mut dyn Sink) {
        let mut asked: BTreeMap<i64, Wanted> =
            offsets.iter().filter_map(|offset| Some((*offset, self.asked.remove(offset)?))).collect();
        if !frame.is_empty() {
            for message in read(frame).iter() {
                let Some(Wanted { seq, target, failure, version, replay }) = asked.remove(&message.offset()) else {
                    continue;
                };
                mark!(SourceReadAgain);
                if replay || self.rules.exports.failures {
                    let verdict = (!replay).then_some(failure);
                    if let Some(batcher) = self.rules.straight_to {
                        mark!(RefusedAsBatch);
                        self.put_alone(batcher, &message, target, verdict);
                        continue;
                    }
                    let mut single = Frame::default();
                    let source = Source { topic: &self.topic, partition: self.partition.unsigned_abs() };
                    let stops = self.rules.stops_at_reject();
                    let mut writer = MessagesWriter::burst(&mut single, source, self.epoch, stops);
                    writer.push(&copied(&message, 1), message.headers());
                    writer.finish();
                    let mut work = Work::new(single, 1, seq);
                    work.head.failed = u32::from(verdict.is_some());
                    work.head.verdict = verdict;
                    work.owner = Some(target);
                    self.offer_again(work);
                    continue;
                }
                let failed = Failed {
                    source: message,
                    target,
                    failure: &failure,
                    attempts: 1,
                    stage: "produce",
                    version: &version,
                };
                self.dead_letter(&failed, None, sink);
            }
        }
        // Compaction or retention was faster: there is nothing left that a dead letter could keep.
        for (offset, Wanted { target, failure, .. }) in asked {
            mark!(SourceGone);
            sink.notice(Notice::SourceGone { offset, failure: &failure });
            self.settle(target);
        }
    }
}
