//! Messages that the handler holds: open until a later answer of the same instance acks or fails their token.
//!
//! Bounded in number and time. When the instance is gone, nobody can ack them any more: they are offered again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluicebox_frames::Answer;

use super::Lane;
use super::batches::DueBatch;
use super::messages::Work;
use super::timer::Farewell;
use crate::delivery::ticket::Target;
use crate::pipeline::sink::{Failure, Notice, Sink};

/// A held message with what is needed to offer it again.
#[derive(Debug)]
pub(super) enum HeldWhat {
    /// Of the message stage, by itself.
    Message(Work),
    /// An item of a batch, alone in it.
    Item(DueBatch),
}

impl HeldWhat {
    fn owner(&self) -> Option<Target> {
        match self {
            Self::Message(work) => Some(work.owner(0)),
            Self::Item(batch) => batch.content.owners.first().copied(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Message(work) => work.frame.len(),
            Self::Item(batch) => batch.content.bytes(),
        }
    }
}

/// The held messages of a lane, by token. Tokens grow, and all may be held equally long, so the first is the oldest.
#[derive(Debug, Default)]
pub(super) struct Held {
    items: BTreeMap<u64, (Instant, HeldWhat)>,
    bytes: usize,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn hold(&mut self, token: u64, what: HeldWhat, now: Instant) {
        self.bytes += what.bytes();
        self.items.insert(token, (now, what));
    }

    /// The marks that the held messages' fates hold.
    pub(super) fn owners(&self) -> impl Iterator<Item = Target> {
        self.items.values().filter_map(|(_, what)| what.owner())
    }

    fn take(&mut self, token: u64) -> Option<HeldWhat> {
        let (_, what) = self.items.remove(&token)?;
        self.bytes -= what.bytes();
        Some(what)
    }

    /// When the oldest has been held for too long.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        self.items.first_key_value().map(|(_, (since, _))| *since + timeout)
    }

    fn take_expired(&mut self, now: Instant, timeout: Duration) -> Option<HeldWhat> {
        let (token, _) = self.items.first_key_value().filter(|(_, (since, _))| *since + timeout <= now)?;
        self.take(*token)
    }
}

impl Lane {
    /// An answer acks or fails held messages: what it acks settles with the last of its effects. The gate is kept closed
    /// until [`Lane::end_acks`].
    pub(super) fn begin_acks(&mut self) -> u64 {
        self.gates.close(1, Vec::new())
    }

    /// Takes in what an answer says of held messages. Tokens that nobody holds any more are late (the message expired, or
    /// was given back meanwhile): they are counted and change nothing.
    pub(super) fn end_acks(&mut self, gate: u64, answer: &Answer<'_>, now: Instant, sink: &mut dyn Sink) {
        let mut late = 0;
        for token in answer.acks() {
            match self.held.take(token).and_then(|what| what.owner()) {
                Some(owner) => {
                    planted!(AckBeforeEffects, {
                        self.settle(owner);
                        continue;
                    });
                    self.gates.hold_back(gate, [owner]);
                }
                None => late += 1,
            }
        }
        self.settle(Target::Gate(gate));
        for (token, reason) in answer.fails() {
            match self.held.take(token) {
                // The partition goes: the next owner has another try.
                Some(_) if self.farewell == Farewell::Done => {
                    mark!(FailedAtFarewell);
                }
                Some(what) => {
                    let failure = Failure { class: "retry", reason: reason.to_owned() };
                    self.fail_held(what, failure, now, sink);
                }
                None => late += 1,
            }
        }
        if late > 0 {
            mark!(LateAck);
            sink.notice(Notice::LateAcks { count: late });
        }
    }

    /// What has been held for too long failed an attempt.
    pub(super) fn expire_held(&mut self, now: Instant, sink: &mut dyn Sink) {
        let timeout = self.rules.hold.timeout;
        while let Some(what) = self.held.take_expired(now, timeout) {
            mark!(HoldExpired);
            let reason = format!("held for {timeout:?}, and neither acked nor failed");
            self.fail_held(what, Failure { class: "hold_expired", reason }, now, sink);
        }
    }

    fn fail_held(&mut self, what: HeldWhat, failure: Failure, now: Instant, sink: &mut dyn Sink) {
        match what {
            HeldWhat::Message(mut work) => {
                if self.fail_head(&mut work, failure, None, false, now, sink) {
                    self.spare.push(work.frame);
                } else {
                    self.offer_again(work);
                }
            }
            HeldWhat::Item(batch) => self.fail_item(batch, &failure, now, sink),
        }
    }

    /// The instance that held them is gone. It is nobody's fault among them, so no attempt is counted.
    pub(super) fn offer_held_again(&mut self) {
        self.held.bytes = 0;
        for (_, (_, what)) in std::mem::take(&mut self.held.items).into_iter().rev() {
            mark!(HeldOfferedAgain);
            match what {
                HeldWhat::Message(work) => self.offer_again(work),
                HeldWhat::Item(batch) => self.put_back(batch),
            }
        }
    }
}
