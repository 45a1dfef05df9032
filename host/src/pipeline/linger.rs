//! Waiting for company: a pipeline with little to do looks for messages once in a while instead of at each one, so that a
//! call and a request carry several. What is under way is never waited with, and a backlog is read as fast as it can be.

use std::time::{Duration, Instant};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// When messages were taken in last.
    taken: Option<Instant>,
}

impl Linger {
    /// Messages were taken in.
    pub(super) const fn took(&mut self, now: Instant) {
        self.taken = Some(now);
    }

    /// How long nobody has to be woken for the messages that come, when nothing else is to do. Not after a time without any:
    /// the first one does not wait.
    pub(super) fn wait(&self, linger: Duration, now: Instant) -> Option<Duration> {
        let until = self.taken? + linger;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(2);

    #[test]
    fn the_first_message_after_a_rest_does_not_wait() {
        let now = Instant::now();
        let mut linger = Linger::default();
        assert_eq!(linger.wait(LINGER, now), None);
        linger.took(now);
        assert_eq!(linger.wait(LINGER, now + LINGER), None);
    }

    #[test]
    fn the_next_ones_wait_for_each_other() {
        let now = Instant::now();
        let mut linger = Linger::default();
        linger.took(now);
        assert_eq!(linger.wait(LINGER, now + Duration::from_micros(500)), Some(Duration::from_micros(1500)));
        assert_eq!(linger.wait(Duration::ZERO, now), None, "by default nothing waits");
    }
}
