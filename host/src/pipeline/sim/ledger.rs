//! What happened, by record, and the rules that must hold: kept by the world, which sees everything.
//!
//! - *No loss*: of what the group has committed, every record's fate is durable, whoever made it so.
//! - *Own work only*: an ownership never commits past a record whose effects of that same ownership are not all reported.
//! - *Over means over*: nothing is called, sent or committed for a partition after it was given back.
//! - *Order*: the handler sees no message before the fate of the one before it is decided, or that one is held; effects of
//!   the message stage leave in the partition's order, each once per ownership.
//! - *A dead letter has a reason*: attempts used up, a reject, or a refused emission.
//! - *No way back*: a partition that went over to another version does not return to one before it, within an ownership,
//!   unless that order was taken back, or is a canary that failed.
//! - With ack mode `receive` instead of the first two: a record is shown to the handler by one ownership at most, and not
//!   before the group's commit is past it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::effects::{Fate, What};
use super::knobs::{Batches, Knobs, Plan};
use crate::delivery::policy::Then;
use crate::delivery::verdict::Disposition;

/// One partition of an input topic, and what its group has of it.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Offsets that have a record; gaps are transaction markers and compacted records.
    pub(super) records: Vec<i64>,
    pub(super) end: i64,
    pub(super) committed: Option<i64>,
    /// Below it, every record was found durable.
    verified: usize,
    landed: BTreeMap<i64, Fate>,
    /// Mode `receive`: who showed a record to the handler.
    shown: BTreeMap<i64, usize>,
}

impl Input {
    pub(super) fn new(topic: String, partition: i32, first: i64) -> Self {
        let (records, landed, shown) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { topic, partition, records, end: first, committed: None, verified: 0, landed, shown }
    }

    /// Nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.records.is_empty() || self.committed == Some(self.end)
    }
}

/// A partition in the hands of one member, from `assign` to `unassign`.
#[derive(Debug)]
pub(super) struct Ownership {
    pub(super) member: usize,
    pub(super) input: usize,
    pub(super) over: bool,
    /// Number of the order that brought the version that is called.
    pub(super) version: u64,
    /// Offered and not known to be finished.
    records: BTreeMap<i64, Record>,
    /// Of those, what the message stage has not decided.
    undecided: BTreeSet<i64>,
    sent: Option<i64>,
    last_out: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    appended: Fate,
    reported: Fate,
    refused: Fate,
    /// Effects that were not reported on.
    open: u32,
    /// Failed attempts of the two stages, as far as the handler knows.
    failed: [u32; 2],
    /// It is held; from then on, that is one more.
    held: [Option<Duration>; 2],
    /// It was held: the handler has given its place up.
    out_of_turn: bool,
    rejected: bool,
    verdict: Option<Disposition>,
    /// The handler said once that it is given up; asked again, it cannot take that back.
    given_up: bool,
    gone: bool,
}

impl Record {
    /// It failed for good.
    fn dies(&self, attempts: u32, now: Duration) -> bool {
        let expired = |stage: usize| self.held[stage].is_some_and(|until| until <= now);
        let over = |stage: usize| self.failed[stage] + u32::from(expired(stage)) >= attempts;
        self.rejected || self.refused != Fate::default() || over(0) || over(1)
    }

    /// What a record that failed for good comes to.
    fn policy(&self, then: Then) -> Then {
        match self.verdict {
            None | Some(Disposition::Policy) => then,
            Some(Disposition::DeadLetter) => Then::DeadLetter,
            Some(Disposition::Drop) => Then::Drop,
            Some(Disposition::Block) => Then::Block,
            Some(Disposition::Stop) => Then::Stop,
        }
    }
}

/// What the handler said of a record, in an answer that the host took. `stage`: 0 messages, 1 batches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Said {
    Done,
    Failed { stage: usize, attempt: u32 },
    Rejected,
    Held { stage: usize, attempt: u32 },
    Acked { stage: usize },
    Decided(Disposition),
}

/// A record on its way out.
#[derive(Debug)]
struct Effect {
    ownership: usize,
    what: What,
    landed: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) inputs: Vec<Input>,
    pub(super) ownerships: Vec<Ownership>,
    effects: Vec<Effect>,
    knobs: Knobs,
    pub(super) now: Duration,
    /// Rules that were looked at.
    pub(super) checks: u64,
}

/// A rule was broken.
pub(super) type Broken = Result<(), String>;

impl Ledger {
    pub(super) fn new(inputs: Vec<Input>, knobs: Knobs) -> Self {
        Self { inputs, ownerships: Vec::new(), effects: Vec::new(), knobs, now: Duration::ZERO, checks: 0 }
    }

    pub(super) fn own(&mut self, member: usize, input: usize) -> usize {
        let (records, undecided, sent) = (BTreeMap::new(), BTreeSet::new(), None);
        let last_out = None;
        self.ownerships.push(Ownership { member, input, over: false, version: 0, records, undecided, sent, last_out });
        self.ownerships.len() - 1
    }

    fn place(&self, ownership: usize) -> String {
        let owned = &self.ownerships[ownership];
        let input = &self.inputs[owned.input];
        format!("member {}, {}[{}]", owned.member, input.topic, input.partition)
    }

    fn not_over(&mut self, ownership: usize, what: &dyn std::fmt::Debug) -> Broken {
        self.checks += 1;
        match self.ownerships[ownership].over {
            true => Err(format!("{}: {what:?} after the partition was given back", self.place(ownership))),
            false => Ok(()),
        }
    }

    /// A record was packed into a burst.
    pub(super) fn offered(&mut self, ownership: usize, offset: i64) -> Broken {
        self.not_over(ownership, &offset)?;
        let owned = &mut self.ownerships[ownership];
        owned.records.insert(offset, Record::default());
        if self.knobs.batches != Batches::Only {
            owned.undecided.insert(offset);
        }
        Ok(())
    }

    /// A handler is called for these records (offset and attempt), at stage 0 or 1.
    pub(super) fn called(&mut self, ownership: usize, stage: usize, shown: &[(i64, u32)]) -> Broken {
        self.not_over(ownership, &"a call")?;
        let place = self.place(ownership);
        let owned = &mut self.ownerships[ownership];
        for (offset, attempt) in shown {
            if let Some(record) = owned.records.get_mut(offset) {
                record.failed[stage] = record.failed[stage].max(attempt - 1);
                record.held[stage] = None;
            }
        }
        let first = shown.first().map(|(offset, _)| *offset);
        let before = owned.undecided.first().copied().zip(first).filter(|(left, first)| stage == 0 && left < first);
        if let Some((left, first)) = before {
            return Err(format!("{place}: the handler is shown {first} before the fate of {left} is decided"));
        }
        if !self.knobs.receive {
            return Ok(());
        }
        let input = &mut self.inputs[owned.input];
        for (offset, _) in shown {
            if input.committed.is_none_or(|committed| committed <= *offset) {
                let committed = input.committed;
                return Err(format!("{place}: the handler is shown {offset}, and {committed:?} is committed"));
            }
            let first = *input.shown.entry(*offset).or_insert(ownership);
            if first != ownership {
                return Err(format!("{place}: the handler is shown {offset}, which another owner showed it before"));
            }
        }
        Ok(())
    }

    /// The host took an answer that says so.
    pub(super) fn answered(&mut self, ownership: usize, offset: i64, said: Said) {
        let owned = &mut self.ownerships[ownership];
        let landed = self.inputs[owned.input].landed.entry(offset).or_default();
        landed.answered |= matches!(said, Said::Done);
        let Some(record) = owned.records.get_mut(&offset).filter(|_| !owned.over) else { return };
        let until = self.now + self.knobs.hold_timeout;
        match said {
            Said::Done => record.reported.answered = true,
            Said::Failed { stage, attempt } => {
                record.failed[stage] = record.failed[stage].max(attempt);
                record.held[stage] = None;
            }
            Said::Rejected => record.rejected = true,
            Said::Held { stage, attempt } => {
                record.failed[stage] = record.failed[stage].max(attempt - 1);
                record.held[stage] = Some(until);
                record.out_of_turn = true;
            }
            // A late ack changes nothing.
            Said::Acked { stage } => {
                let until = record.held[stage].take();
                // It may have come too late, and the attempt has failed.
                record.failed[stage] += u32::from(until.is_some_and(|until| until <= self.now));
                let held = until.is_some();
                record.reported.acked[stage] |= held;
                landed.acked[stage] |= held;
            }
            Said::Decided(disposition) => {
                record.verdict = Some(disposition);
                record.given_up |= disposition == Disposition::Drop;
            }
        }
        let dead = record.dies(self.knobs.attempts, self.now) && (record.verdict.is_some() || !self.knobs.failures);
        let settled = matches!(record.policy(self.knobs.then), Then::DeadLetter | Then::Drop);
        if matches!(said, Said::Done | Said::Held { .. }) || dead && settled {
            owned.undecided.remove(&offset);
        }
    }

    /// A lane handed an effect to the producer.
    pub(super) fn appended(&mut self, ownership: usize, value: &[u8]) -> Result<usize, String> {
        let what = What::read(value);
        self.not_over(ownership, &what)?;
        let place = self.place(ownership);
        let owned = &mut self.ownerships[ownership];
        let mut again = false;
        for offset in what.offsets() {
            let Some(record) = owned.records.get_mut(offset) else {
                if !what.is_once() {
                    continue; // a late ack
                }
                return Err(format!(
                    "{place}: {what:?} was emitted, but offset {offset} is committed or was never offered"
                ));
            };
            let anew = record.refused != Fate::default();
            if record.appended.has(&what) && what.is_once() && !anew {
                return Err(format!("{place}: {what:?} was emitted twice by one owner"));
            }
            if matches!(what, What::Source { .. }) && !record.dies(self.knobs.attempts, self.now) {
                return Err(format!("{place}: {what:?} became a dead letter without a reason: {record:?}"));
            }
            again |= anew || record.out_of_turn;
            record.appended.add(&what);
            record.open += u32::from(what.is_awaited());
        }
        if let What::Out { offset, .. } = what
            && !again
        {
            if owned.last_out.is_some_and(|last| last > offset) {
                let last = owned.last_out;
                return Err(format!("{place}: {what:?} was emitted after {last:?}: order is lost"));
            }
            owned.last_out = Some(offset);
        }
        self.effects.push(Effect { ownership, what, landed: false });
        Ok(self.effects.len() - 1)
    }

    /// Gathered records go to the broker.
    pub(super) fn sent(&mut self, effect: usize) -> Broken {
        let (ownership, what) = (self.effects[effect].ownership, self.effects[effect].what.clone());
        self.not_over(ownership, &what)
    }

    /// The broker has it.
    pub(super) fn landed(&mut self, effect: usize) {
        let Effect { ownership, what, landed } = &mut self.effects[effect];
        *landed = true;
        let input = &mut self.inputs[self.ownerships[*ownership].input];
        for offset in what.offsets() {
            input.landed.entry(*offset).or_default().add(what);
        }
    }

    /// The host was told so. True when nobody was left to hear it.
    pub(super) fn reported(&mut self, effect: usize) -> bool {
        let Effect { ownership, what, landed } = &self.effects[effect];
        assert!(*landed, "a report for what is not there");
        let owned = &mut self.ownerships[*ownership];
        for offset in what.offsets() {
            if let Some(record) = owned.records.get_mut(offset) {
                record.reported.add(what);
                record.open -= u32::from(what.is_awaited());
            }
        }
        owned.over
    }

    /// The host was told that it never will be.
    pub(super) fn refused(&mut self, effect: usize) {
        let Effect { ownership, what, .. } = &self.effects[effect];
        let owned = &mut self.ownerships[*ownership];
        for offset in what.offsets() {
            if let Some(record) = owned.records.get_mut(offset) {
                record.open -= u32::from(what.is_awaited());
                record.appended.remove(what);
                record.refused.add(what);
            }
        }
        for offset in what.acked() {
            if let Some(record) = owned.records.get_mut(offset) {
                record.refused.add(what);
            }
        }
    }

    /// The host was told that a record is not in its topic any more.
    pub(super) fn gone(&mut self, ownership: usize, offset: i64) {
        let owned = &mut self.ownerships[ownership];
        if let Some(record) = owned.records.get_mut(&offset).filter(|_| !owned.over) {
            record.gone = true;
        }
    }

    /// A host sends a commit.
    pub(super) fn commits(&mut self, ownership: usize, next: i64) -> Broken {
        self.not_over(ownership, &"a commit")?;
        let place = self.place(ownership);
        let owned = &mut self.ownerships[ownership];
        if let Some(sent) = owned.sent.filter(|sent| *sent > next) {
            return Err(format!("{place}: {next} was committed after {sent}"));
        }
        if next > self.inputs[owned.input].end {
            return Err(format!("{place}: {next} was committed, the log ends at {}", self.inputs[owned.input].end));
        }
        owned.sent = Some(next);
        self.finish(ownership, next)
    }

    /// Nobody will do again what an ownership has below `next`.
    pub(super) fn finish(&mut self, ownership: usize, next: i64) -> Broken {
        let place = self.place(ownership);
        let knobs = &self.knobs;
        let owned = &mut self.ownerships[ownership];
        if knobs.receive {
            return Ok(());
        }
        let rest = owned.records.split_off(&next);
        for (offset, record) in std::mem::replace(&mut owned.records, rest) {
            let plan = knobs.plan(owned.input, offset);
            match record.end(&plan, knobs, self.now) {
                Some(End::Done) => {}
                Some(End::Dropped) => self.inputs[owned.input].landed.entry(offset).or_default().dropped = true,
                None => {
                    return Err(format!(
                        "{place}: it goes on from {next}, but {offset} is not finished: {record:?} {plan:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The group has a commit.
    pub(super) fn committed(&mut self, at: usize, next: i64) -> Broken {
        self.checks += 1;
        let input = &mut self.inputs[at];
        let place = format!("{}[{}]", input.topic, input.partition);
        if let Some(before) = input.committed.filter(|before| *before > next) {
            return Err(format!("{place}: the group's offset fell from {before} to {next}"));
        }
        input.committed = Some(next);
        if self.knobs.receive {
            return Ok(());
        }
        while let Some(offset) = input.records.get(input.verified).copied().filter(|offset| *offset < next) {
            let (fate, plan) = (input.landed.remove(&offset).unwrap_or_default(), self.knobs.plan(at, offset));
            if !fate.is_complete(&plan, self.knobs.totals) {
                return Err(format!("{place}: {next} is committed and {offset} is lost: {fate:?} {plan:?}"));
            }
            input.verified += 1;
        }
        Ok(())
    }

    /// Mode `receive`, where nothing happened that may cost a record: the handler saw each.
    pub(super) fn all_shown(&self) -> Broken {
        if !self.knobs.receive || !self.knobs.is_quiet() {
            return Ok(());
        }
        for input in &self.inputs {
            if let Some(missing) = input.records.iter().find(|offset| !input.shown.contains_key(offset)) {
                return Err(format!("{}[{}]: nobody handled {missing}", input.topic, input.partition));
            }
        }
        Ok(())
    }
}

impl Record {
    /// How it ended, if the ownership may commit past it.
    fn end(&self, plan: &Plan, knobs: &Knobs, now: Duration) -> Option<End> {
        if self.open > 0 {
            return None;
        }
        if self.reported.is_complete(plan, knobs.totals) {
            return Some(End::Done);
        }
        // What is refused follows the pipeline's policy at once, where that is to drop.
        let refused = self.refused != Fate::default() && knobs.then == Then::Drop;
        let asked = self.verdict.is_some() || !knobs.failures;
        let dropped = self.dies(knobs.attempts, now) && asked && self.policy(knobs.then) == Then::Drop;
        (self.gone || refused || dropped || self.given_up).then_some(End::Dropped)
    }
}

/// How a record ended for its owner.
enum End {
    /// Its effects, or its dead letter, are durable.
    Done,
    /// Given up by declared policy.
    Dropped,
}
