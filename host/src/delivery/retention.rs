//! Will the record that a lane stands at still be there when somebody looks? Retention deletes by age and by size, whether a
//! record was read or not.

use std::time::Duration;

/// Longest time before the deletion that is worth a warning.
const LONGEST_NOTICE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its deletion a record is warned about: a quarter of the retention, a day at most.
#[must_use]
pub fn notice(retention: Duration) -> Duration {
    (retention / 4).min(LONGEST_NOTICE)
}

/// What the broker says about a partition at which a lane stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The record it stands at.
    pub offset: i64,
    /// The oldest record that is there.
    pub log_start: i64,
    /// The first record that is not within [`notice`] of being too old; `None`: no record ages, or none is that young.
    pub safe_from: Option<i64>,
    /// False when age deletes nothing here.
    pub ages: bool,
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Danger {
    /// Not soon.
    #[default]
    None,
    /// Within the notice.
    Soon,
    /// It is gone. The lane may still hold it; whoever owns the partition next will not get it.
    Gone,
}

/// How much danger the record is in.
#[must_use]
pub fn danger(facts: &Facts) -> Danger {
    if facts.offset < facts.log_start {
        return Danger::Gone;
    }
    match facts.safe_from {
        _ if !facts.ages => Danger::None,
        Some(safe) if facts.offset >= safe => Danger::None,
        _ => Danger::Soon,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_warned_about_before_it_goes() {
        let facts = Facts { offset: 5, log_start: 0, safe_from: Some(4), ages: true };
        assert_eq!(danger(&facts), Danger::None);
        assert_eq!(danger(&Facts { safe_from: Some(6), ..facts }), Danger::Soon);
        assert_eq!(danger(&Facts { safe_from: None, ..facts }), Danger::Soon);
        assert_eq!(danger(&Facts { safe_from: None, ages: false, ..facts }), Danger::None);
        assert_eq!(danger(&Facts { log_start: 5, ..facts }), Danger::None);
        assert_eq!(danger(&Facts { log_start: 6, ..facts }), Danger::Gone);
        assert_eq!(danger(&Facts { log_start: 6, ages: false, ..facts }), Danger::Gone);
    }

    #[test]
    fn the_notice_is_a_quarter_and_a_day_at_most() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        assert_eq!(notice(hours(4)), hours(1));
        assert_eq!(notice(hours(24 * 7)), hours(24));
        assert_eq!(notice(Duration::ZERO), Duration::ZERO);
    }
}
