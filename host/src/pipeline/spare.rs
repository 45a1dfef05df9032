//! A lane's next instance, which is started beside the one that serves, so that a switch waits for no start.
//!
//! Knows plugin/. Invariant: what is here belongs to the last preparation that was begun; what an earlier one still gives
//! goes back to whoever brings it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::sink::Failure;
use crate::plugin::Instance;

/// The place for it.
#[derive(Default)]
pub(super) struct Spare(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Of the last preparation.
    ticket: u64,
    state: State,
}

#[derive(Default)]
enum State {
    /// Nothing is prepared.
    #[default]
    Nothing,
    Starting,
    Over(Result<Started, Failure>),
}

/// An instance that waits for its lane.
pub(super) struct Started {
    /// What it is an instance of.
    pub revision: u64,
    pub instance: Box<Instance>,
    /// It was started on the thread of lanes that are apart.
    pub apart: bool,
}

impl Spare {
    /// Another preparation begins. Its ticket, and what is given up for it.
    pub(super) fn begin(&self) -> (u64, Option<Started>) {
        let inner = &mut *self.lock();
        let before = inner.give_up();
        inner.state = State::Starting;
        (inner.ticket, before)
    }

    /// Nothing is prepared any more. What is given up.
    pub(super) fn give_up(&self) -> Option<Started> {
        self.lock().give_up()
    }

    /// A preparation is over, well or not. Gives back what nobody waits for any more.
    pub(super) fn over(&self, ticket: u64, started: Result<Started, Failure>) -> Option<Started> {
        let inner = &mut *self.lock();
        if ticket != inner.ticket || !matches!(inner.state, State::Starting) {
            return started.ok();
        }
        inner.state = State::Over(started);
        None
    }

    /// Whether the last preparation is over; a failure is told once. `Ok` also when there was none: the switch starts one then.
    pub(super) fn prepared(&self) -> Option<Result<(), Failure>> {
        let inner = &mut *self.lock();
        match std::mem::take(&mut inner.state) {
            State::Nothing => Some(Ok(())),
            State::Over(Err(failure)) => Some(Err(failure)),
            waits => {
                let over = matches!(waits, State::Over(_)).then_some(Ok(()));
                inner.state = waits;
                over
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn give_up(&mut self) -> Option<Started> {
        self.ticket += 1;
        match std::mem::take(&mut self.state) {
            State::Over(Ok(started)) => Some(started),
            State::Over(Err(_)) | State::Starting | State::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Result<Started, Failure> {
        Err(Failure { class: "init", reason: "no".to_owned() })
    }

    /// Proves: what an earlier preparation gives is not taken for the last one's, and a failure is told once.
    #[test]
    fn only_the_last_preparation_counts() {
        let spare = Spare::default();
        assert!(spare.prepared().is_some_and(|over| over.is_ok()), "nothing to wait for");
        let (first, _) = spare.begin();
        let (second, _) = spare.begin();
        spare.over(first, failed());
        assert!(spare.prepared().is_none(), "the second is under way");
        spare.over(second, failed());
        assert!(spare.prepared().is_some_and(|over| over.is_err()));
        assert!(spare.prepared().is_some_and(|over| over.is_ok()), "it was told");
        let (third, _) = spare.begin();
        assert!(spare.give_up().is_none());
        spare.over(third, failed());
        assert!(spare.prepared().is_some_and(|over| over.is_ok()), "nobody waits for it");
    }
}
