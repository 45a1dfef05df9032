//! Attempts and back-off.

use std::time::Duration;

/// How failed messages are tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRules {
    /// Attempts in all, at least 1; then the policy decides. Default 5.
    pub attempts: u32,
    /// Wait before the second attempt; doubles with each. Default 200 ms.
    pub backoff: Duration,
    /// Longest wait. Default 30 s.
    pub max_backoff: Duration,
    /// Takes off up to a half of each wait, by chance. Default on.
    pub jitter: bool,
}

impl Default for RetryRules {
    fn default() -> Self {
        Self { attempts: 5, backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(30), jitter: true }
    }
}

impl RetryRules {
    /// How long to wait after attempt number `failed` (from 1). `asked` is the handler's own wish, which is honoured up
    /// to a day. `chance` is anything from 0 to `u32::MAX`.
    #[must_use]
    pub fn wait(&self, failed: u32, asked: Option<Duration>, chance: u32) -> Duration {
        if let Some(asked) = asked {
            return asked.min(Duration::from_secs(24 * 60 * 60));
        }
        let doublings = failed.saturating_sub(1).min(30);
        self.jittered(self.backoff.saturating_mul(1 << doublings).min(self.max_backoff), chance)
    }

    /// How long a blocked lane waits between tries.
    #[must_use]
    pub fn blocked_wait(&self, chance: u32) -> Duration {
        self.jittered(self.max_backoff, chance)
    }

    fn jittered(&self, wait: Duration, chance: u32) -> Duration {
        if !self.jitter {
            return wait;
        }
        let off = wait.as_nanos() as u64 / 2;
        wait - Duration::from_nanos((u128::from(off) * u128::from(chance) / u128::from(u32::MAX)) as u64)
    }

    /// True when attempt number `failed` was the last one.
    #[must_use]
    pub const fn exhausted(&self, failed: u32) -> bool {
        failed >= self.attempts
    }
}

/// Chance for jitter: splitmix64, seeded by the caller. Not for secrets.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A sequence that the seed fixes.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(rules: &RetryRules) -> Vec<f64> {
        (1..=9).map(|failed| rules.wait(failed, None, 0).as_secs_f64()).collect()
    }

    #[test]
    fn doubles_up_to_the_cap() {
        assert_eq!(seconds(&RetryRules::default()), [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]);
    }

    #[test]
    fn jitter_takes_off_at_most_a_half() {
        let rules = RetryRules::default();
        assert_eq!(rules.wait(2, None, u32::MAX), Duration::from_millis(200));
        assert_eq!(rules.blocked_wait(u32::MAX), Duration::from_secs(15));
        let without = RetryRules { jitter: false, ..rules };
        assert_eq!(without.wait(2, None, u32::MAX), Duration::from_millis(400));
    }

    #[test]
    fn the_handlers_wish_is_honoured_up_to_a_day() {
        let rules = RetryRules::default();
        assert_eq!(rules.wait(1, Some(Duration::from_secs(90)), 77), Duration::from_secs(90));
        assert_eq!(rules.wait(1, Some(Duration::MAX), 77), Duration::from_secs(86_400));
    }

    #[test]
    fn no_attempt_number_overflows() {
        assert_eq!(RetryRules::default().wait(u32::MAX, None, 0), Duration::from_secs(30));
    }
}
