//! What it means when the next record of a partition is not the one that was expected.
//!
//! Offsets have gaps where transaction markers or compacted records were: nothing is missing there. A gap that reaches
//! below the log's start is another thing: retention, or somebody, deleted records before they were read. And a record
//! from further back says that the log was truncated, or the topic made anew.

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is missing.
    InOrder,
    /// Offsets below the log's start were never read: at most so many records.
    Deleted {
        /// Offsets between.
        skipped: u64,
    },
    /// Below what was expected: the log was truncated, or is another one.
    Back,
}

/// What it means that `came` is next where `expected` was. `log_start` as the broker said with the last fetch.
#[must_use]
pub fn next(expected: i64, came: i64, log_start: Option<i64>) -> Next {
    if came < expected {
        return Next::Back;
    }
    match log_start.map(|start| start.min(came)) {
        Some(start) if start > expected => Next::Deleted { skipped: start.abs_diff(expected) },
        _ => Next::InOrder,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_of_markers_are_in_order_and_deleted_records_are_not() {
        assert_eq!(next(10, 10, Some(0)), Next::InOrder);
        assert_eq!(next(10, 12, Some(0)), Next::InOrder);
        assert_eq!(next(10, 12, None), Next::InOrder);
        assert_eq!(next(10, 12, Some(10)), Next::InOrder);
        assert_eq!(next(10, 30, Some(30)), Next::Deleted { skipped: 20 });
        assert_eq!(next(10, 9, Some(0)), Next::Back);
        assert_eq!(next(10, 0, Some(0)), Next::Back);
    }

    proptest! {
        /// Never more is called skipped than lies between, never anything when the log begins at or below what was
        /// expected, and no offset overflows.
        #[test]
        fn skips_no_more_than_lies_between(
            expected in 0i64..=i64::MAX, came in 0i64..=i64::MAX, start in prop::option::of(0i64..=i64::MAX)
        ) {
            match next(expected, came, start) {
                Next::Back => prop_assert!(came < expected),
                Next::InOrder => prop_assert!(came >= expected && start.is_none_or(|start| start.min(came) <= expected)),
                Next::Deleted { skipped } => {
                    prop_assert!(skipped > 0 && skipped <= (came - expected) as u64);
                    prop_assert!(start.is_some_and(|start| start > expected));
                }
            }
        }
    }
}
