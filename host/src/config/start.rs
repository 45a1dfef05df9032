//! Where a partition without a commit begins, as files and flags write it. Pure.

use std::time::Duration;

use thiserror::Error;
use toml::value::{Datetime, Offset};

use super::names::nearest;
use super::types::Start;
use super::units::{UnitError, parse_duration};

/// What a start looks like, for messages.
pub const START_FORM: &str =
    "`earliest`, `latest`, `none`, a time such as \"2026-11-21T08:00:00Z\", or how long ago, such as \"-2h\"";

const WORDS: [(&str, Start); 3] = [("earliest", Start::Earliest), ("latest", Start::Latest), ("none", Start::None)];

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StartError {
    #[error("{0}")]
    Ago(UnitError),
    #[error("did you mean \"{0}\"?")]
    Misspelt(&'static str),
    #[error("a time ends in `Z` or in an offset such as `+01:00`, and has a date")]
    NoOffset,
    #[error("neither a word of this key, nor a time, nor how long ago")]
    Nonsense,
}

/// Reads a start: a word, a time by RFC 3339, or a duration ago.
pub fn parse_start(text: &str) -> Result<Start, StartError> {
    let text = text.trim();
    if let Some((_, start)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*start);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return parse_duration(ago).map(Start::Ago).map_err(StartError::Ago);
    }
    if let Ok(time) = text.parse::<Datetime>() {
        return millis(&time).map(Start::At).ok_or(StartError::NoOffset);
    }
    match nearest(text, WORDS.iter().map(|(word, _)| *word)) {
        Some(meant) => Err(StartError::Misspelt(meant)),
        None => Err(StartError::Nonsense),
    }
}

/// Milliseconds since 1970; `None` where the text leaves open which moment is meant.
fn millis(time: &Datetime) -> Option<i64> {
    let (date, clock) = (time.date?, time.time?);
    let offset = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let seconds = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day)) * 86_400
        + i64::from(clock.hour) * 3_600
        + (i64::from(clock.minute) - offset) * 60
        + i64::from(clock.second.unwrap_or(0));
    Some(seconds * 1_000 + Duration::from_nanos(clock.nanosecond.unwrap_or(0).into()).as_millis() as i64)
}

/// Days of the proleptic Gregorian calendar. Years begin in March here, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_times_and_how_long_ago_are_read() {
        let cases = [
            ("earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("none", Start::None),
            ("-2h", Start::Ago(Duration::from_secs(7_200))),
            ("-90 s", Start::Ago(Duration::from_secs(90))),
            ("1970-01-01T00:00:00Z", Start::At(0)),
            ("1969-12-31T23:59:59.999Z", Start::At(-1)),
            ("2000-02-29T12:00:00+01:00", Start::At(951_822_000_000)),
            ("2026-11-21T08:00:00.25Z", Start::At(1_795_248_000_250)),
            ("2026-11-21 08:00:00-02:30", Start::At(1_795_257_000_000)),
        ];
        for (text, start) in cases {
            assert_eq!(parse_start(text), Ok(start), "{text}");
        }
    }

    #[test]
    fn what_leaves_the_moment_open_is_refused() {
        assert_eq!(parse_start("2026-11-21T08:00:00"), Err(StartError::NoOffset));
        assert_eq!(parse_start("2026-11-21"), Err(StartError::NoOffset));
        assert_eq!(parse_start("earlyest"), Err(StartError::Misspelt("earliest")));
        assert_eq!(parse_start("yesterday"), Err(StartError::Nonsense));
        assert!(matches!(parse_start("-2"), Err(StartError::Ago(UnitError::NoUnit { .. }))));
        assert_eq!(parse_start("2026-02-30T00:00:00Z"), Err(StartError::Nonsense));
    }
}
