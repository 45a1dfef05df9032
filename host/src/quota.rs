//! How often something of one kind is said: so many times at once, then once in a while. What is left out is counted, and the
//! count is said when there is room again. Knows neither what is said nor a clock.

use std::time::{Duration, Instant};

/// See the module's text.
#[derive(Debug)]
pub struct Quota {
    at_once: u32,
    every: Duration,
    left: u32,
    filled: Instant,
    left_out: u64,
}

impl Quota {
    /// So many times at once, and once more each time that so much time has passed.
    #[must_use]
    pub const fn new(at_once: u32, every: Duration, now: Instant) -> Self {
        Self { at_once, every, left: at_once, filled: now, left_out: 0 }
    }

    /// May it be said? If so, how many were left out before it.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        if self.has_room(now) {
            self.left -= 1;
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }

    /// How many were left out, if there were any and it may be said now.
    pub fn take_left_out(&mut self, now: Instant) -> Option<u64> {
        if self.left_out == 0 || !self.has_room(now) {
            return None;
        }
        self.left -= 1;
        self.end()
    }

    /// How many were left out, if there were any: the last word.
    pub fn end(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.left_out)).filter(|count| *count > 0)
    }

    fn has_room(&mut self, now: Instant) -> bool {
        while self.left < self.at_once && now.saturating_duration_since(self.filled) >= self.every {
            self.left += 1;
            self.filled += self.every;
        }
        if self.left == self.at_once {
            self.filled = now;
        }
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    #[test]
    fn words_are_bounded_and_what_is_left_out_is_counted() {
        let begin = Instant::now();
        let mut quota = Quota::new(10, EVERY, begin);
        assert!((0..10).all(|_| quota.take(begin) == Some(0)));
        assert!((0..5).all(|_| quota.take(begin + Duration::from_secs(9)).is_none()));
        assert_eq!(quota.take(begin + EVERY), Some(5));
        assert_eq!(quota.take(begin + Duration::from_secs(11)), None);
        let later = begin + Duration::from_secs(3600);
        assert_eq!(quota.take(later), Some(1));
        assert_eq!((0..20).filter(|_| quota.take(later).is_some()).count(), 9, "never more at once");
    }

    /// Proves: the count is said though nothing more happens, once, and it has its part of what may be said.
    #[test]
    fn the_count_does_not_wait_for_the_next() {
        let begin = Instant::now();
        let mut quota = Quota::new(2, EVERY, begin);
        assert_eq!((quota.take_left_out(begin), quota.end()), (None, None), "there is nothing to say");
        assert_eq!((0..7).filter(|_| quota.take(begin).is_some()).count(), 2);
        assert_eq!(quota.take_left_out(begin + EVERY / 2), None);
        assert_eq!(quota.take_left_out(begin + EVERY), Some(5));
        assert_eq!(quota.take(begin + EVERY), None);
        assert_eq!((quota.end(), quota.end()), (Some(1), None));
    }
}
