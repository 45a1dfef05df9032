//! Marks at rare branches: the simulation counts how often each was passed, and fails when one never was; and places of
//! bugs that are planted to see whether it finds them. Nothing of either is in the program.

/// Says that a rare branch was passed. Nothing outside of tests.
macro_rules! mark {
    ($name:ident) => {
        #[cfg(test)]
        $crate::marks::hit($crate::marks::Mark::$name);
    };
}

/// Breaks a rule, where that bug is planted (`pipeline/sim/bugs.rs`). Nothing outside of tests.
macro_rules! planted {
    ($name:ident, $wrong:block) => {
        #[cfg(test)]
        if $crate::pipeline::sim::bugs::planted($crate::pipeline::sim::bugs::Bug::$name) $wrong
    };
}

#[cfg(test)]
pub(crate) use hits::{Mark, hit, take};

#[cfg(test)]
mod hits {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    macro_rules! marks {
        ($($name:ident)*) => {
            /// A branch that ordinary runs hardly ever take.
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub(crate) enum Mark { $($name),* }

            impl Mark {
                pub(crate) const ALL: &[Self] = &[$(Self::$name),*];
            }
        };
    }

    marks! {
        // Late and stale.
        StaleAnswer StaleReport StaleCommitAnswer
        // Giving back.
        DrainGaveUp CommitGivenUp LostWithWorkOpen RevokedInShutdown RunAbandoned CloseGaveUp UnsentForgotten FailedForgotten
        // Commits.
        CommitFailed RefusedForTooLong GapPassed
        // Kafka's side.
        ErrorInQueue Renewed PlacedTooLate RecordRefused ProducerTrouble ProducerFatal
        // Handlers.
        HandlerPanicked BurstNarrowed BatchBisected BareCallFailed VerdictVoid NotStarted Recycled
        // What is held.
        LateAck AcksVoid HoldExpired HeldOfferedAgain FailedAtFarewell
        // Another version.
        BatchBeforeSwitch SwitchRefused HeldThroughSwitch SwitchRolledBack SwitchOvertaken LostInSwitch SteppedBack
        RefusedOfCanary SwitchWaited FailedWhileSwitching FailedWhileGoingBack PreparedInVain NotPrepared
        // Failed for good.
        Dropped PolicyStopped DeadAlready EmissionStuck SourceReadAgain SourceGone RefusedAsBatch AgainAlready
        // Mode "receive".
        KeptForCommit PartedFromLeft
        // Memory.
        Starved Paced BatchRelieved AheadTooFar ProducersFull Napped Dozed CalledHere
    }

    thread_local! {
        static HITS: RefCell<BTreeMap<Mark, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(crate) fn hit(mark: Mark) {
        HITS.with_borrow_mut(|hits| *hits.entry(mark).or_default() += 1);
    }

    /// What this thread passed since it was asked last.
    pub(crate) fn take() -> BTreeMap<Mark, u64> {
        HITS.take()
    }
}
