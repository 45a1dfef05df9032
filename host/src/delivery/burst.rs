//! How many messages cross to a handler in one call: what its recent speed does in about 20 ms, so that a slow handler
//! gets them one by one (and its per-message deadline means what it says) and a fast one pays for a call only once in
//! 512 messages.

use std::time::Duration;

/// Most messages of a burst.
pub const MAX_MESSAGES: usize = 512;
/// Most payload bytes of a burst of more than one message. Above 64–128 KiB a crossing's cost per byte triples.
pub const MAX_BYTES: usize = 64 * 1024;
/// What a burst should take.
const TARGET: Duration = Duration::from_millis(20);
/// What is over sooner is not worth another thread: handing it over and its answer back takes about 20 µs of CPU time.
const SHORT: Duration = Duration::from_micros(250);
/// A burst grows at most by this factor at once: one lucky fast message says little.
const GROWTH: usize = 4;

/// Size of the next burst of one lane.
#[derive(Debug)]
pub struct BurstSize {
    messages: usize,
    nanos_per_message: f64,
    /// The same without the caution: what messages take, more or less.
    usual_nanos: f64,
}

impl Default for BurstSize {
    fn default() -> Self {
        Self { messages: 1, nanos_per_message: 0.0, usual_nanos: 0.0 }
    }
}

impl BurstSize {
    /// At most so many messages.
    #[inline]
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.messages
    }

    /// A burst of so many messages took so long.
    pub fn took(&mut self, messages: usize, time: Duration) {
        let now = time.as_nanos() as f64 / messages.max(1) as f64;
        // Slower counts at once, faster by and by.
        self.nanos_per_message =
            if now > self.nanos_per_message { now } else { 0.75 * self.nanos_per_message + 0.25 * now };
        self.usual_nanos = if self.usual_nanos > 0.0 { 0.9 * self.usual_nanos + 0.1 * now } else { now };
        let fits = (TARGET.as_nanos() as f64 / self.nanos_per_message.max(1.0)) as usize;
        self.messages = fits.min(self.messages * GROWTH).clamp(1, MAX_MESSAGES);
    }

    /// What so many messages are expected to take, if they are few and that is so little that another thread has no part in it. Of
    /// a full burst more may be waiting, and then two threads do more than one.
    #[inline]
    #[must_use]
    pub fn short(&self, messages: usize) -> Option<Duration> {
        let known = self.usual_nanos > 0.0;
        let expected = Duration::from_nanos((self.usual_nanos * messages as f64) as u64);
        (known && messages < self.messages && expected <= SHORT).then_some(expected)
    }

    /// A new instance starts at one.
    pub fn restart(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_handler_gets_full_bursts_soon() {
        let mut size = BurstSize::default();
        let mut bursts = 0;
        while size.limit() < MAX_MESSAGES {
            size.took(size.limit(), Duration::from_nanos(500) * size.limit() as u32);
            bursts += 1;
        }
        assert!(bursts <= 5, "{bursts} bursts");
    }

    #[test]
    fn a_slow_handler_gets_one_at_a_time() {
        let mut size = BurstSize::default();
        size.took(1, Duration::from_millis(30));
        assert_eq!(size.limit(), 1);
    }

    #[test]
    fn few_messages_of_a_fast_handler_are_short() {
        let of = |messages, usual_nanos| BurstSize { messages, nanos_per_message: usual_nanos, usual_nanos };
        let fast = of(512, 1000.0);
        assert_eq!(fast.short(1), Some(Duration::from_micros(1)));
        assert_eq!(fast.short(250), Some(Duration::from_micros(250)));
        assert_eq!(fast.short(251), None, "it takes longer than 250 us");
        assert_eq!(of(100, 300_000.0).short(1), None);
        let full = of(20, 1000.0);
        assert!(full.short(19).is_some() && full.short(20).is_none(), "there may be more where they come from");
        assert_eq!(BurstSize::default().short(1), None, "nothing is known of it");
    }

    #[test]
    fn a_handler_that_turns_slow_is_noticed_at_once() {
        let mut size = BurstSize { messages: 512, nanos_per_message: 100.0, usual_nanos: 100.0 };
        size.took(512, Duration::from_millis(512 * 5));
        assert_eq!(size.limit(), 4);
    }
}
