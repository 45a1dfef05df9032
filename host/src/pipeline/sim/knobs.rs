//! What a seed chooses before anything happens: which faults there are, how large everything is, what handlers do with each
//! record.

use std::time::Duration;

use super::chance::Chance;
use crate::config::Pace;
use crate::delivery::policy::Then;
use crate::delivery::verdict::Disposition;

macro_rules! faults {
    ($($name:ident)*) => {
        /// Kinds of trouble; a seed has some of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Fault { $($name),* }

        impl Fault {
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

faults! {
    // Whole hosts.
    Kill KillAtPoint Stop Stall
    // The group.
    Rebalance Lost Forget CloseHangs
    // Commits.
    CommitSlow CommitLost CommitDoubled CommitError
    // What comes in.
    Gaps QueueError LookupSlow Problem
    // What goes out.
    ReportSlow ProduceError ProduceFatal Refuse RefuseLetter SourceSlow SourceGone
    // Handlers.
    SlowHandler StuckRecord Trap BadAnswer Retry Reject HandlerPanic Hold CallTrap BadVerdict
    // The operator.
    Swap SwapRefused SwapSlow Pause
    // The machine.
    LostWake TinyBudget
    // Instances.
    NoStart Recycled
}

/// What handlers say of messages that failed for good.
const VERDICTS: [Disposition; 11] = [
    Disposition::Policy,
    Disposition::Policy,
    Disposition::Policy,
    Disposition::DeadLetter,
    Disposition::DeadLetter,
    Disposition::DeadLetter,
    Disposition::Drop,
    Disposition::Drop,
    Disposition::Block,
    Disposition::Block,
    Disposition::Stop,
];

/// With mode `receive` and none but these, every record is handled: no fault that may cost one.
const QUIET: [Fault; 7] = [
    Fault::CommitDoubled,
    Fault::Gaps,
    Fault::Reject,
    Fault::Swap,
    Fault::SwapSlow,
    Fault::LostWake,
    Fault::TinyBudget,
];

/// See the module's text.
#[derive(Clone, Debug)]
pub(super) struct Knobs {
    seed: u64,
    faults: u64,
    pub(super) hosts: usize,
    /// Partitions of each input topic.
    pub(super) topics: Vec<i32>,
    pub(super) eager: bool,
    pub(super) first_offset: i64,
    /// Faults end after so long.
    pub(super) trouble: Duration,
    /// Records come this often, at most.
    pub(super) pace: Duration,
    /// About so many of each partition.
    pub(super) records: usize,
    pub(super) disruptions: Duration,
    pub(super) commit_interval: Duration,
    pub(super) linger: Duration,
    pub(super) max_ahead: u32,
    pub(super) rate: Option<Pace>,
    /// Bytes that producers may hold.
    pub(super) ahead: usize,
    pub(super) attempts: u32,
    pub(super) max_backoff: Duration,
    pub(super) then: Then,
    /// Ack mode `receive`.
    pub(super) receive: bool,
    pub(super) tick: Option<Duration>,
    pub(super) hold_max: u32,
    pub(super) hold_timeout: Duration,
    /// The breaker pauses the pipeline when so many of a hundred fail, of at least so many.
    pub(super) breaker: Option<(u32, u32)>,
    /// The handler wants to know of its partitions.
    pub(super) partitions: bool,
    /// The handler is asked about failures.
    pub(super) failures: bool,
    pub(super) batches: Batches,
    pub(super) batch_messages: u32,
    pub(super) batch_wait: Duration,
    /// Batches emit a total of what they did.
    pub(super) totals: bool,
    pub(super) per_message: Duration,
    pub(super) budget: u64,
    pub(super) value_bytes: usize,
}

/// Which forms the handler has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batches {
    None,
    Some,
    /// The handler has no message form.
    Only,
}

impl Knobs {
    pub(super) fn draw(seed: u64, without: &[Fault]) -> Self {
        let mut chance = Chance::new(seed ^ 0x6b6e_6f62);
        // Some seeds have nearly all faults, some hardly any.
        let share = chance.between(1, 8);
        let mut faults = 0;
        for fault in Fault::ALL {
            if chance.below(10) < share && !without.contains(fault) {
                faults |= 1u64 << *fault as u32;
            }
        }
        let receive = chance.one_in(6);
        if receive && chance.one_in(3) {
            faults &= QUIET.iter().fold(0, |all, fault| all | 1u64 << *fault as u32);
        }
        let then = if receive { [Then::DeadLetter, Then::Drop] } else { [Then::Block, Then::DeadLetter] };
        let then = if chance.one_in(4) {
            [Then::Drop, Then::Stop][usize::from(!receive && chance.one_in(2))]
        } else {
            *chance.pick(&then)
        };
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        let topics = (0..chance.between(1, 2)).map(|_| chance.between(1, 3) as i32).collect();
        let batches = *chance.pick(&[Batches::None, Batches::Some, Batches::Some, Batches::Only]);
        let first_offset = *chance.pick(&[0, 0, 1, 1 << 33, i64::MAX - 1_000_000]);
        let knobs = Self {
            seed,
            faults,
            hosts: chance.between(1, 3) as usize,
            topics,
            eager: chance.one_in(3),
            first_offset,
            trouble: seconds(chance.between(10, 60)),
            pace: chance.millis(10, 4_000),
            records: chance.between(1, 300) as usize,
            disruptions: chance.millis(300, 8_000),
            commit_interval: chance.millis(10, 5_000),
            linger: Duration::from_millis(*chance.pick(&[0, 0, 2, 100])),
            max_ahead: *chance.pick(&[3, 10, 100, 50_000]),
            rate: *chance.pick(&[None, None, Some(Pace::per_hour(200 * 3_600)), Some(Pace::per_hour(2_000 * 3_600))]),
            ahead: *chance.pick(&[1, 300, 1 << 20, 1 << 24]),
            attempts: chance.between(1, 5) as u32,
            max_backoff: seconds(*chance.pick(&[1, 5, 30])),
            then,
            receive,
            tick: chance.one_in(2).then(|| chance.millis(100, 8_000)),
            hold_max: *chance.pick(&[1, 3, 50, 10_000]),
            hold_timeout: chance.millis(100, 20_000),
            breaker: chance.one_in(3).then(|| *chance.pick(&[(1, 1), (1, 3), (10, 10), (50, 100)])),
            partitions: chance.one_in(3),
            failures: chance.one_in(3),
            batches,
            batch_messages: *chance.pick(&[1, 4, 20, 100]),
            batch_wait: *chance.pick(&[Duration::ZERO, Duration::from_millis(50), seconds(1), seconds(60)]),
            totals: chance.one_in(2),
            per_message: chance.time(Duration::from_nanos(500), Duration::from_millis(4)),
            budget: 0,
            value_bytes: *chance.pick(&[20, 100, 3_000]),
        };
        let tiny = *chance.pick(&[1, 2_000, 20_000]);
        let budget = if knobs.has(Fault::TinyBudget) { tiny } else { 256 << 20 };
        Self { budget, ..knobs }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults & (1u64 << fault as u32) != 0
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        Fault::ALL.iter().copied().filter(|fault| self.has(*fault)).collect()
    }

    /// Every record has to be handled though the mode is `receive`.
    pub(super) fn is_quiet(&self) -> bool {
        !self.failures && self.faults().iter().all(|fault| QUIET.contains(fault))
    }

    /// The handler is not asked about what comes behind a message that failed for good.
    pub(super) fn stops_at_reject(&self) -> bool {
        self.then.stops_at_reject() || self.failures
    }

    /// What the handler does with a record, the same wherever and whenever it meets it.
    pub(super) fn plan(&self, input: usize, offset: i64) -> Plan {
        let mut chance = Chance::new(self.seed ^ ((input as u64) << 56) ^ (offset as u64).wrapping_mul(0x9E37_79B9));
        chance.draw();
        let batch = match self.batches {
            Batches::None => false,
            Batches::Some => chance.one_in(2),
            Batches::Only => true,
        };
        let mut message = Stage::draw(self, &mut chance);
        let item = Stage::draw(self, &mut chance);
        let emits = if batch { chance.below(2) } else { *chance.pick(&[0, 1, 1, 1, 2, 3]) };
        if self.batches == Batches::Only {
            message = Stage::default();
        }
        let refused = self.has(Fault::Refuse) && chance.one_in(100);
        Plan {
            emits: if self.batches == Batches::Only { 0 } else { emits as u8 },
            message,
            item: batch.then_some(item),
            key: chance.below(3) as u8,
            flush: chance.one_in(20),
            stop_after: chance.one_in(30),
            runs_on: chance.one_in(2),
            refused,
            letter_refused: self.has(Fault::RefuseLetter) && chance.one_in(10),
            gone: self.has(Fault::SourceGone) && chance.one_in(3),
            verdict: *chance.pick(&VERDICTS),
            // One that was refused is refused twice by this.
            verdict_emits: chance.one_in(3) || refused,
        }
    }
}

/// What one stage of the handler does with a record: attempts that fail, in this order, then the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stage {
    pub(super) traps: u32,
    pub(super) bad: u32,
    pub(super) retries: u32,
    pub(super) rejects: bool,
    /// Loops until its deadline.
    pub(super) stuck: bool,
    pub(super) slow: Option<Duration>,
    /// Its first attempts that get so far are held.
    pub(super) holds: u32,
}

impl Stage {
    fn draw(knobs: &Knobs, chance: &mut Chance) -> Self {
        let mut some = |fault, one_in, most| {
            let (hit, times) = (chance.one_in(one_in), chance.between(1, most));
            if hit && knobs.has(fault) { times as u32 } else { 0 }
        };
        let (traps, bad, retries) =
            (some(Fault::Trap, 40, 6), some(Fault::BadAnswer, 40, 6), some(Fault::Retry, 12, 7));
        let rejects = some(Fault::Reject, 40, 1) > 0;
        let stuck = some(Fault::StuckRecord, 250, 1) > 0;
        let slow = some(Fault::SlowHandler, 40, 1) > 0;
        let holds = if knobs.receive { 0 } else { some(Fault::Hold, 8, 3) };
        let slow = slow.then(|| chance.millis(20, 8_000));
        Self { traps, bad, retries, rejects, stuck, slow, holds }
    }
}

/// What the handler does with a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Emissions of the message stage to the output.
    pub(super) emits: u8,
    pub(super) message: Stage,
    /// It goes to the batcher, too; what becomes of it there.
    pub(super) item: Option<Stage>,
    pub(super) key: u8,
    pub(super) flush: bool,
    /// The answer ends with this message.
    pub(super) stop_after: bool,
    /// The answer goes on behind a message that is to be tried again.
    pub(super) runs_on: bool,
    /// No broker takes what is emitted for it, while there is trouble.
    pub(super) refused: bool,
    /// The same of its dead letter.
    pub(super) letter_refused: bool,
    /// Its topic does not have it any more when it is read again.
    pub(super) gone: bool,
    /// What the handler says when it failed for good.
    pub(super) verdict: Disposition,
    pub(super) verdict_emits: bool,
}
