//! How many messages a pipeline may take in now: `process.rate`. A schedule instead of a bucket that a timer fills (the
//! generic cell rate algorithm, ITU-T I.371): each message moves on the time at which all of them are paid for.

use std::time::{Duration, Instant};

use crate::config;

/// Messages for so much time may come at once: after a rest, or when they come in bursts.
const AHEAD: Duration = Duration::from_millis(100);
/// It is not worth waking up for what is due in less.
const GRAIN: Duration = Duration::from_millis(10);

/// See the module's text. Attempts after the first are not counted: the message is in already.
#[derive(Debug, Default)]
pub(super) struct Pace {
    rate: Option<config::Pace>,
    /// When all that was taken in is paid for.
    paid: Option<Instant>,
}

impl Pace {
    /// The rate from now on. What came under another one is forgotten.
    pub(super) fn set(&mut self, rate: Option<config::Pace>) {
        if rate != self.rate {
            *self = Self { rate, paid: None };
        }
    }

    /// The rate that holds.
    pub(super) const fn rate(&self) -> Option<config::Pace> {
        self.rate
    }

    /// So many messages may come.
    pub(super) fn allows(&self, now: Instant) -> usize {
        let Some(interval) = self.rate.map(config::Pace::interval) else { return usize::MAX };
        let owed = self.paid.map_or(Duration::ZERO, |paid| paid.saturating_duration_since(now));
        let left = AHEAD.max(interval).saturating_sub(owed);
        usize::try_from(left.as_nanos() / interval.as_nanos().max(1)).unwrap_or(usize::MAX)
    }

    /// So many came.
    pub(super) fn took(&mut self, messages: usize, now: Instant) {
        if let Some(rate) = self.rate {
            let price = rate.interval().saturating_mul(u32::try_from(messages).unwrap_or(u32::MAX));
            self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + price);
        }
    }

    /// When more may come, and enough that it is worth looking. `None` when nothing is held back.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let (interval, paid) = (self.rate?.interval(), self.paid?);
        let due = paid + interval.max(GRAIN);
        Some(due.checked_sub(AHEAD.max(interval)).map_or(now, |due| due.max(now)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(per_hour: u64) -> (Pace, Duration) {
        let rate = config::Pace::per_hour(per_hour);
        (Pace { rate: Some(rate), paid: None }, rate.interval())
    }

    proptest! {
        /// Over any time it is the rate, and what may come ahead on top; and who looks when it is due may take something.
        #[test]
        fn it_is_the_rate(
            per_hour in 1_u64..3_600_000_000,
            looks in prop::collection::vec((0_u64..2_000, 0_usize..500), 1..100),
        ) {
            let (begun, (mut pace, interval)) = (Instant::now(), pace(per_hour));
            let (mut now, mut taken) = (begun, 0_usize);
            for (wait, want) in looks {
                now += Duration::from_millis(wait);
                let takes = want.min(pace.allows(now));
                pace.took(takes, now);
                taken += takes;
                let most = (now - begun + AHEAD.max(interval)).as_nanos() / interval.as_nanos();
                prop_assert!(taken as u128 <= most, "{taken} of {most}");
                let due = pace.due(now).expect("there is a rate");
                prop_assert!(due >= now && pace.allows(due) >= 1, "{} due", pace.allows(due));
            }
        }
    }

    #[test]
    fn a_rest_saves_nothing_up_and_a_busy_pipeline_gets_its_rate() {
        let (mut pace, _) = pace(500 * 3_600);
        let mut now = Instant::now();
        pace.took(1, now);
        now += Duration::from_secs(3_600);
        assert_eq!(pace.allows(now), 50);
        let (mut taken, mut looks, end) = (0, 0, now + Duration::from_secs(10));
        while now < end {
            let takes = pace.allows(now);
            pace.took(takes, now);
            (taken, looks, now) = (taken + takes, looks + 1, pace.due(now).expect("there is a rate"));
        }
        assert!((5_000..=5_050).contains(&taken), "{taken} in ten seconds");
        assert!(looks <= 1_010, "{looks} looks");
    }

    #[test]
    fn another_rate_begins_anew() {
        let (mut pace, _) = pace(1);
        let now = Instant::now();
        pace.took(1, now);
        assert_eq!(pace.allows(now), 0);
        pace.set(Some(config::Pace::per_hour(3_600)));
        assert_eq!(pace.allows(now), 1);
        pace.took(1, now);
        pace.set(None);
        assert_eq!((pace.allows(now), pace.due(now)), (usize::MAX, None), "there is none");
    }
}
