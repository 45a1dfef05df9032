//! The answer while a handler writes it: shared by the messages of one call, each of which is a view that emits.
//!
//! Knows which emission belongs to which item of a batch. Every borrow ends within one method here, so that no call of
//! a handler can meet another's.

use std::cell::RefCell;

use sluicebox_frames::{AnswerWriter, DestinationKind, Frame, Mark, NewEmission, ValueWriter};

use crate::outcome::{Error, Kind, Outcome};

/// Whose an emission is when it is not of one item.
pub(crate) const WHOLE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Answer {
    state: RefCell<State>,
    /// Memory for the headers of the emission that is being put together.
    headers: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct State {
    writer: AnswerWriter,
    /// `None` for a burst, whose emissions come in the order of its messages anyway.
    batch: Option<BatchState>,
}

#[derive(Debug, Default)]
struct BatchState {
    /// The item that each emission belongs to, or [`WHOLE`].
    owners: Vec<u32>,
    /// Outcomes other than done.
    outcomes: Vec<(u32, Kind)>,
}

/// Where an emission goes, before its name has a number in the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    Default,
    Output(&'a str),
    Batcher(&'a str),
}

impl Answer {
    /// For a burst of so many messages; `payload` is a guess.
    pub(crate) fn to_burst(messages: usize, payload: usize) -> Self {
        Self::new(State { writer: AnswerWriter::with_capacity(messages, payload), batch: None })
    }

    pub(crate) fn to_batch(payload: usize) -> Self {
        Self::new(State { writer: AnswerWriter::with_capacity(0, payload), batch: Some(BatchState::default()) })
    }

    fn new(state: State) -> Self {
        Self { state: RefCell::new(state), headers: RefCell::default() }
    }

    pub(crate) fn take_headers(&self) -> Vec<u8> {
        self.headers.take()
    }

    pub(crate) fn keep_headers(&self, mut memory: Vec<u8>) {
        memory.clear();
        *self.headers.borrow_mut() = memory;
    }

    #[inline]
    pub(crate) fn emit(&self, owner: u32, to: To<'_>, emission: NewEmission<'_>) {
        let state = &mut *self.state.borrow_mut();
        let emission = state.place(owner, to, emission);
        state.writer.emission(&emission);
    }

    #[inline]
    pub(crate) fn emit_with<E>(
        &self,
        owner: u32,
        to: To<'_>,
        emission: NewEmission<'_>,
        write: impl FnOnce(&mut ValueWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let state = &mut *self.state.borrow_mut();
        let emission = state.place(owner, to, emission);
        let written = state.writer.emission_with(&emission, write);
        if written.is_err()
            && let Some(batch) = &mut state.batch
        {
            batch.owners.pop();
        }
        written
    }

    pub(crate) fn ack(&self, token: u64) {
        self.state.borrow_mut().writer.ack(token);
    }

    pub(crate) fn fail(&self, token: u64, reason: &str) {
        self.state.borrow_mut().writer.fail(token, reason);
    }

    /// The outcome of one item of a batch; the last one given counts.
    pub(crate) fn set_item(&self, item: u32, outcome: Outcome) {
        let mut state = self.state.borrow_mut();
        let batch = state.batch.as_mut().expect("items are of batches");
        batch.outcomes.retain(|(of, _)| *of != item);
        if outcome.0 != Kind::Done {
            batch.outcomes.push((item, outcome.0));
        }
    }

    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        self.state.borrow().writer.mark()
    }

    /// Writes the outcome of a burst's next message, which began at `mark`. Gives what ended it when it is not final.
    #[inline]
    pub(crate) fn settle(&self, mark: Mark, verdict: Result<Outcome, Error>) -> Settled {
        let writer = &mut self.state.borrow_mut().writer;
        if let Ok(Outcome(Kind::Done)) = verdict {
            writer.done(writer.emissions_since(mark));
            return Settled::Final;
        }
        settle_other(writer, mark, verdict.unwrap_or_else(Outcome::from))
    }

    /// Something was acked or failed.
    pub(crate) fn has_tokens(&self) -> bool {
        self.state.borrow().writer.token_count() > 0
    }

    /// The frame that answers a burst.
    pub(crate) fn finish_burst(self) -> Frame {
        self.state.into_inner().writer.finish()
    }

    /// The frame that answers a batch of `items` messages.
    pub(crate) fn finish_batch(self, items: usize) -> Frame {
        let State { mut writer, batch } = self.state.into_inner();
        let BatchState { owners, mut outcomes } = batch.expect("a batch");
        if outcomes.is_empty() && owners.iter().all(|owner| *owner == WHOLE) {
            return writer.finish();
        }
        outcomes.sort_by_key(|(item, _)| *item);
        for (item, kind) in &mut outcomes {
            if *kind == Kind::Hold && owners.contains(item) {
                *kind = emitted_and_held();
            }
        }
        let done = |owner: u32| outcomes.binary_search_by_key(&owner, |(item, _)| *item).is_err();
        let mut order: Vec<usize> = (0..owners.len()).filter(|i| done(owners[*i])).collect();
        order.sort_by_key(|i| owners[*i]);
        let mut own = vec![0; items];
        for owner in order.iter().map(|i| owners[*i]).filter(|owner| *owner != WHOLE) {
            own[owner as usize] += 1;
        }
        writer.select_emissions(order);
        let mut outcomes = outcomes.into_iter().peekable();
        for (item, emissions) in own.into_iter().enumerate() {
            match outcomes.next_if(|(of, _)| *of as usize == item) {
                Some((_, kind)) => write_outcome(&mut writer, &kind),
                None => writer.done(emissions),
            }
        }
        writer.finish()
    }
}

impl State {
    #[inline]
    fn place<'a>(&mut self, owner: u32, to: To<'_>, mut emission: NewEmission<'a>) -> NewEmission<'a> {
        emission.destination = match to {
            To::Default => None,
            To::Output(name) => Some(self.writer.destination(DestinationKind::Output, name)),
            To::Batcher(name) => Some(self.writer.destination(DestinationKind::Batcher, name)),
        };
        if let Some(batch) = &mut self.batch {
            batch.owners.push(owner);
        }
        emission
    }
}

/// How the answer goes on after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Final,
    Reject,
    Retry,
}

#[cold]
fn settle_other(writer: &mut AnswerWriter, mark: Mark, outcome: Outcome) -> Settled {
    let Outcome(mut kind) = outcome;
    if kind == Kind::Hold && writer.emissions_since(mark) > 0 {
        kind = emitted_and_held();
    }
    if kind != Kind::Hold {
        writer.rewind(mark);
    }
    write_outcome(writer, &kind);
    match kind {
        Kind::Retry { .. } => Settled::Retry,
        Kind::Reject { .. } => Settled::Reject,
        Kind::Done | Kind::Hold => Settled::Final,
    }
}

/// The contract has no place for it, and dropping the emissions would lose them behind an ack.
fn emitted_and_held() -> Kind {
    let reason = "the handler emitted for a message that it holds; only messages that are done can emit".to_owned();
    Kind::Retry { reason, after: None }
}

fn write_outcome(writer: &mut AnswerWriter, kind: &Kind) {
    match kind {
        Kind::Done => writer.done(0),
        Kind::Hold => writer.hold(),
        Kind::Retry { reason, after } => writer.retry(cut(reason), *after),
        Kind::Reject { reason } => writer.reject(cut(reason)),
    }
}

/// The host keeps 4 KiB of a reason; more need not cross.
pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(4096)]
}
