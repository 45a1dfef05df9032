//! When an instance is old. Looked at between two calls; whoever calls it ends it then, and starts another.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use crate::config::Recycle;
use crate::handler_usage::Worn;

/// Instances that are started together are not old together: their ages differ by a quarter, in so many steps.
const STEPS: u32 = 16;

/// How much an instance was used.
#[derive(Debug)]
pub(super) struct Wear {
    old: Option<Instant>,
    calls: u64,
}

impl Wear {
    pub(super) fn new(rules: &Recycle, now: Instant) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let step = STARTED.fetch_add(1, Ordering::Relaxed) % STEPS;
        let old = rules.age.and_then(|age| now.checked_add(younger(age, step)));
        Self { old, calls: 0 }
    }

    /// A call with messages. Others do not count: each new instance has some, and would be old by them.
    pub(super) const fn called(&mut self) {
        self.calls += 1;
    }

    /// Why it is to be replaced now, if it is.
    pub(super) fn worn(&self, rules: &Recycle, memory: u64, now: impl FnOnce() -> Instant) -> Option<Worn> {
        if rules.calls.is_some_and(|most| self.calls >= most) {
            return Some(Worn::Calls);
        }
        if rules.memory.is_some_and(|most| memory > most) {
            return Some(Worn::Memory);
        }
        self.old.is_some_and(|old| now() >= old).then_some(Worn::Age)
    }
}

fn younger(age: Duration, step: u32) -> Duration {
    age - age / (4 * STEPS) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Recycle = Recycle { age: None, calls: None, memory: None };

    #[test]
    fn each_limit_up_to_it_and_beyond() {
        let now = Instant::now();
        let worn = |rules: &Recycle, calls: u64, memory: u64, later: Duration| {
            let old = rules.age.map(|age| now + age);
            Wear { old, calls }.worn(rules, memory, || now + later)
        };
        let long = Duration::from_secs(1 << 40);
        assert_eq!(worn(&NEVER, u64::MAX, u64::MAX, long), None);
        for (calls, expected) in [(9, None), (10, Some(Worn::Calls)), (11, Some(Worn::Calls))] {
            assert_eq!(worn(&Recycle { calls: Some(10), ..NEVER }, calls, 0, long), expected);
        }
        for (memory, expected) in [(99, None), (100, None), (101, Some(Worn::Memory))] {
            assert_eq!(worn(&Recycle { memory: Some(100), ..NEVER }, 1, memory, long), expected);
        }
        for (seconds, expected) in [(59, None), (60, Some(Worn::Age)), (61, Some(Worn::Age))] {
            let rules = Recycle { age: Some(Duration::from_secs(60)), ..NEVER };
            assert_eq!(worn(&rules, 1, 0, Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn instances_of_one_moment_are_not_old_at_one_moment() {
        let age = Duration::from_secs(6400);
        let ages: Vec<u64> = (0..STEPS).map(|step| younger(age, step).as_secs()).collect();
        assert_eq!((ages[0], ages[1], ages[15]), (6400, 6300, 4900));
    }
}
