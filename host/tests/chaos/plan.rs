//! The faults of a seed: what happens when, on paper. Pure.

use std::time::Duration;

use crate::support::random::Random;

/// Places for hosts; the first [`AT_FIRST`] are taken when it begins.
pub const SLOTS: usize = 5;
pub const AT_FIRST: usize = 3;
/// What the group takes for dead.
pub const SESSION: Duration = Duration::from_secs(2);
/// Partitions of the input: at first, and when all were added.
pub const PARTITIONS: i32 = 8;
pub const MOST_PARTITIONS: i32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL of a host, now and then of two at once, and others in their places soon after
    Kill,
    /// SIGSTOP of a host for half as long again as the session, then SIGCONT
    Pause,
    /// A further host
    Join,
    /// SIGTERM of a host
    Leave,
    /// SIGKILL of the broker, which comes back
    Broker,
    /// The input gets further partitions
    Partitions,
    /// Nothing gets through between a host and the broker for half as long again as the session, then what stood still does
    Stall,
    /// Connections of a host are cut, and new ones for a while
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Kill(usize),
    Start(usize),
    Pause(usize),
    Resume(usize),
    Leave(usize),
    KillBroker,
    StartBroker,
    /// To so many.
    Partitions(i32),
    Stall(usize),
    Cut(usize),
    /// What was stalled or cut works again.
    Restore(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Since the beginning.
    pub at: Duration,
    pub action: Action,
    /// The fault that this begins; what ends one (a restart, a resumption) is none.
    pub fault: Option<Fault>,
}

/// How often each comes among twenty; shuffled, so that twenty faults hold every kind.
const TWENTY: [(Fault, usize); 8] = [
    (Fault::Kill, 12),
    (Fault::Pause, 2),
    (Fault::Join, 1),
    (Fault::Leave, 1),
    (Fault::Broker, 1),
    (Fault::Partitions, 1),
    (Fault::Stall, 1),
    (Fault::Cut, 1),
];
/// Between two deaths of the broker: it needs some seconds to come up, and the hosts to find it.
const BROKER_APART: u64 = 15_000;
/// The broker may need so long to come up; partitions are not added before.
const BROKER_UP: u64 = 8_000;

/// The steps of a seed, in order.
pub fn draw(seed: u64, length: Duration, only: &[Fault]) -> Vec<Step> {
    let mut drawing = Drawing {
        dice: Random::of(seed),
        steps: Vec::new(),
        // Milliseconds from which on a place can be hit; `None`: nobody is there.
        free: std::array::from_fn(|slot| (slot < AT_FIRST).then_some(0)),
        broker: None,
        partitions: PARTITIONS,
    };
    let bag: Vec<Fault> = TWENTY
        .iter()
        .filter(|(fault, _)| only.is_empty() || only.contains(fault))
        .flat_map(|(fault, count)| std::iter::repeat_n(*fault, *count))
        .collect();
    // A first look at records flowing.
    let mut now = 2_000;
    let mut left: Vec<Fault> = Vec::new();
    let mut count = 0;
    while now < length.as_millis() as u64 {
        if left.is_empty() {
            left.clone_from(&bag);
        }
        let index = drawing.dice.below(left.len() as u64) as usize;
        // What cannot happen now stays for later, and something else is drawn after a moment.
        if drawing.fault(left[index], now) {
            left.swap_remove(index);
            count += 1;
        } else if left[index] == Fault::Partitions && drawing.partitions == MOST_PARTITIONS {
            // Never again, also where it is the last of the twenty: the next twenty begin.
            left.swap_remove(index);
        }
        // Mostly one upon the other, now and then long enough apart to be over before the next.
        now += if count % 8 == 7 { 4_000 + drawing.dice.below(2_000) } else { 400 + drawing.dice.below(1_600) };
    }
    // Stable: of two at one time the one that was drawn first goes first.
    drawing.steps.sort_by_key(|step| step.at);
    drawing.steps
}

struct Drawing {
    dice: Random,
    steps: Vec<Step>,
    free: [Option<u64>; SLOTS],
    /// When it died last.
    broker: Option<u64>,
    partitions: i32,
}

impl Drawing {
    /// Draws the details of a fault. False when it cannot happen now.
    fn fault(&mut self, fault: Fault, now: u64) -> bool {
        let up: Vec<usize> = (0..SLOTS).filter(|slot| self.free[*slot].is_some_and(|free| free <= now)).collect();
        let nobody: Vec<usize> = (0..SLOTS).filter(|slot| self.free[*slot].is_none()).collect();
        match fault {
            // At least one stays.
            Fault::Kill | Fault::Pause | Fault::Stall | Fault::Cut if up.len() < 2 => return false,
            Fault::Leave if up.len() < 3 => return false,
            Fault::Join if nobody.is_empty() => return false,
            Fault::Broker if self.broker.is_some_and(|died| now < died + BROKER_APART) => return false,
            Fault::Partitions if self.partitions == MOST_PARTITIONS => return false,
            Fault::Partitions if self.broker.is_some_and(|died| now < died + BROKER_UP) => return false,
            Fault::Kill => {
                let two = up.len() > 2 && self.dice.below(3) == 0;
                let first = self.dice.below(up.len() as u64) as usize;
                for slot in up.iter().cycle().skip(first).take(1 + usize::from(two)) {
                    let back = now + self.dice.below(2_500);
                    self.push(now, Action::Kill(*slot), Some(fault));
                    self.push(back, Action::Start(*slot), None);
                    self.free[*slot] = Some(back);
                }
            }
            Fault::Pause => {
                let slot = up[self.dice.below(up.len() as u64) as usize];
                let back = now + SESSION.as_millis() as u64 * 3 / 2;
                self.push(now, Action::Pause(slot), Some(fault));
                self.push(back, Action::Resume(slot), None);
                self.free[slot] = Some(back);
            }
            Fault::Stall | Fault::Cut => {
                let slot = up[self.dice.below(up.len() as u64) as usize];
                let (action, long) = match fault {
                    Fault::Stall => (Action::Stall(slot), SESSION.as_millis() as u64 * 3 / 2),
                    _ => (Action::Cut(slot), self.dice.below(4_000)),
                };
                self.push(now, action, Some(fault));
                self.push(now + long, Action::Restore(slot), None);
                self.free[slot] = Some(now + long);
            }
            Fault::Join => {
                let slot = nobody[self.dice.below(nobody.len() as u64) as usize];
                self.push(now, Action::Start(slot), Some(fault));
                self.free[slot] = Some(now);
            }
            Fault::Leave => {
                let slot = up[self.dice.below(up.len() as u64) as usize];
                self.push(now, Action::Leave(slot), Some(fault));
                self.free[slot] = None;
            }
            Fault::Broker => {
                let back = now + self.dice.below(3_000);
                self.push(now, Action::KillBroker, Some(fault));
                self.push(back, Action::StartBroker, None);
                self.broker = Some(now);
            }
            Fault::Partitions => {
                self.partitions += 1 + self.dice.below(2) as i32;
                self.partitions = self.partitions.min(MOST_PARTITIONS);
                self.push(now, Action::Partitions(self.partitions), Some(fault));
            }
        }
        true
    }

    fn push(&mut self, at: u64, action: Action, fault: Option<Fault>) {
        self.steps.push(Step { at: Duration::from_millis(at), action, fault });
    }
}
