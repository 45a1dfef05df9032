//! Records that failed for good: the handler's own word about it (`handle-failed`), and the failure policy.

use std::sync::Arc;
use std::time::Instant;

use sluicebox_frames::{Emission, Frame, Message};

use super::answer::{VerdictAnswer, resolve};
use super::batches::DueBatch;
use super::messages::Work;
use super::provenance::From;
use super::{Call, CallKind, Lane, Reply, Running, read};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::policy::Then;
use crate::delivery::ticket::Target;
use crate::delivery::verdict::Disposition;
use crate::pipeline::sink::{DeadLetter, Failure, Notice, Sink};

/// Whose failure the handler is asked about.
#[derive(Debug)]
pub(super) enum Of {
    /// The pending message at the head.
    Head,
    /// A message that stands alone.
    Single(Work),
    /// An item of a batch, alone in it.
    Item(DueBatch),
}

/// A question that is with the handler.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) of: Of,
    failure: Failure,
    attempts: u32,
    stage: Arc<str>,
}

/// A failed record and why.
pub(super) struct Failed<'a> {
    /// The source record.
    pub source: Message<'a>,
    /// The mark that its fate holds.
    pub target: Target,
    pub failure: &'a Failure,
    pub attempts: u32,
    pub stage: &'a str,
    /// Digest of the version that failed.
    pub version: &'a str,
}

impl Lane {
    pub(super) fn ask(&mut self, frame: Frame, failure: Failure, attempts: u32, stage: Arc<str>, of: Of) -> Call {
        let kind = CallKind::Failed { failure: failure.clone(), stage: Arc::clone(&stage), attempts };
        self.running = Some(Running::Verdict(Asked { of, failure, attempts, stage }));
        Call { kind, frame, short: None }
    }

    /// The handler said what becomes of a failed message. Whatever is wrong with that: the policy decides.
    pub(super) fn on_verdict(&mut self, asked: Asked, frame: Frame, reply: Reply, now: Instant, sink: &mut dyn Sink) {
        let Asked { of, failure, attempts, stage } = asked;
        let target = match &of {
            Of::Head => self.head_seq().map(Target::Record),
            Of::Single(work) => Some(work.owner(0)),
            Of::Item(batch) => batch.content.owners.first().copied(),
        };
        let Some(target) = target else { return };
        let mut then = self.rules.then;
        let answer = match &reply {
            Reply::Verdict(verdict) => {
                let checked = VerdictAnswer::check(verdict, &frame, &self.rules, &*sink).and_then(|answer| {
                    then = self.disposition(verdict.disposition)?;
                    Ok(answer)
                });
                checked.map_err(|failure| sink.notice(Notice::BadAnswer { failure: &failure })).ok()
            }
            _ => None,
        };
        if let Some(answer) = &answer {
            let message = read(&frame).get(0);
            self.add_marks(target, answer.emissions().len() as u32);
            for (index, i) in answer.emissions().enumerate() {
                let from = From { message: Some(&message), attempt: attempts, index };
                self.emit(answer.output(i), &answer.emission(i), from, target, sink);
            }
        }
        if answer.is_none() {
            mark!(VerdictVoid);
        }
        let letter = answer.as_ref().and_then(VerdictAnswer::letter);
        match of {
            Of::Head => {
                self.spare.push(frame);
                let Some(mut work) = self.pending.take() else { return };
                work.head.verdict = None;
                if self.rule(&mut work, then, &failure, letter.as_ref(), now, sink) {
                    work.pass_head();
                }
                if work.decided < work.count {
                    self.pending = Some(work);
                } else {
                    self.spare.push(work.frame);
                }
            }
            Of::Single(mut work) => {
                work.frame = frame;
                work.head.verdict = None;
                if self.rule(&mut work, then, &failure, letter.as_ref(), now, sink) {
                    self.spare.push(work.frame);
                } else {
                    self.offer_again(work);
                }
            }
            Of::Item(mut batch) => {
                batch.content.frame = frame;
                batch.verdict = None;
                self.rule_item(batch, then, &failure, &stage, letter.as_ref(), now, sink);
            }
        }
    }

    /// What a disposition means here.
    fn disposition(&self, disposition: Disposition) -> Result<Then, Failure> {
        let bad = |reason: &str| Err(Failure { class: "bad_answer", reason: reason.to_owned() });
        match disposition {
            Disposition::Policy => Ok(self.rules.then),
            Disposition::DeadLetter if self.rules.then == Then::DeadLetter => Ok(Then::DeadLetter),
            Disposition::DeadLetter => {
                bad("handle_failed asks for a dead letter; the pipeline has no dead-letter topic")
            }
            Disposition::Drop => Ok(Then::Drop),
            Disposition::Block if self.rules.receive => {
                bad("handle_failed asks to block; with ack.mode = \"receive\" the record is committed already")
            }
            Disposition::Block => Ok(Then::Block),
            Disposition::Stop => Ok(Then::Stop),
        }
    }

    /// The policy's word about the head; true when its fate is decided.
    pub(super) fn close_head(&mut self, work: &mut Work, failure: &Failure, now: Instant, sink: &mut dyn Sink) -> bool {
        self.rule(work, self.rules.then, failure, None, now, sink)
    }

    pub(super) fn rule(
        &mut self,
        work: &mut Work,
        then: Then,
        failure: &Failure,
        letter: Option<&Emission<'_>>,
        now: Instant,
        sink: &mut dyn Sink,
    ) -> bool {
        let (message, target) = (read(&work.frame).get(work.decided), work.owner(work.decided));
        let (attempts, version) = (work.head.failed, Arc::clone(&self.rules.version));
        let failed = Failed { source: message, target, failure, attempts, stage: "message", version: &version };
        match then {
            Then::Block => {
                self.block_head(work, failure, now, sink);
                false
            }
            Then::Stop => {
                self.stop(&failed, sink);
                false
            }
            Then::DeadLetter => {
                self.dead_letter(&failed, letter, sink);
                true
            }
            Then::Drop => {
                self.give_up(&failed, sink);
                true
            }
        }
    }

    /// A message in the middle of a burst was rejected, and the policy decides that at once.
    pub(super) fn close_message(
        &mut self,
        work: &Work,
        place: usize,
        failure: &Failure,
        attempts: u32,
        sink: &mut dyn Sink,
    ) {
        let (target, version) = (work.owner(place), Arc::clone(&self.rules.version));
        let source = read(&work.frame).get(place);
        let failed = Failed { source, target, failure, attempts, stage: "message", version: &version };
        match self.rules.then {
            Then::DeadLetter => self.dead_letter(&failed, None, sink),
            _ => self.give_up(&failed, sink),
        }
    }

    /// Writes the dead letter of a record, once: a record of several batch items has one. The open mark of "not decided"
    /// waits for its report, behind a gate that tells it from reports of emissions.
    pub(super) fn dead_letter(&mut self, failed: &Failed<'_>, letter: Option<&Emission<'_>>, sink: &mut dyn Sink) {
        if let Some(seq) = self.record_of(failed.target)
            && !self.tracker.mark_failed(seq)
        {
            mark!(DeadAlready);
            self.settle(failed.target);
            return;
        }
        let record = match letter {
            Some(change) => Outgoing { timestamp: failed.source.timestamp(), ..resolve(change, Some(&failed.source)) },
            None => Outgoing {
                key: failed.source.key(),
                value: failed.source.value(),
                headers: [failed.source.headers(), sluicebox_frames::Headers::default()],
                timestamp: failed.source.timestamp(),
            },
        };
        let Failed { failure, attempts, stage, version, .. } = *failed;
        let offset = Some(failed.source.offset()).filter(|offset| *offset >= 0);
        let gate = self.gates.close_of(self.record_of(failed.target), 1, vec![failed.target]);
        self.letters.insert(gate);
        let ticket = self.ticket(Target::Gate(gate));
        planted!(AckBeforeDeadLetter, {
            for mark in self.gates.release(gate) {
                self.settle(mark);
            }
        });
        sink.dead_letter(&DeadLetter { record, offset, failure, attempts, stage, version }, ticket);
    }

    /// The record is dropped by declared policy. It counts once, however many batch items it has.
    pub(super) fn give_up(&mut self, failed: &Failed<'_>, sink: &mut dyn Sink) {
        let (offset, attempts) = (failed.source.offset(), failed.attempts);
        mark!(Dropped);
        if self.record_of(failed.target).is_none_or(|seq| self.tracker.mark_failed(seq)) {
            sink.notice(Notice::Dropped { offset, attempts, failure: failed.failure });
        }
        self.settle(failed.target);
    }

    /// The pipeline stops here; the record stays open.
    pub(super) fn stop(&mut self, failed: &Failed<'_>, sink: &mut dyn Sink) {
        let (offset, attempts) = (failed.source.offset(), failed.attempts);
        mark!(PolicyStopped);
        sink.notice(Notice::Stopped { offset, attempts, failure: failed.failure });
        self.stopped.get_or_insert_with(|| failed.failure.at(offset, attempts));
    }
}
