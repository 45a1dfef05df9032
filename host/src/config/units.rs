//! Durations and sizes as files and flags write them: a whole number and a unit.
//!
//! Strict on purpose: a bare number would have to be guessed (seconds or milliseconds?), and a
//! guess in a limit is a lost record. Pure; knows nothing of files.

use std::time::Duration;

use thiserror::Error;

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnitError {
    #[error("it is empty")]
    Empty,
    #[error("it has no unit: `{number}{first}` or `{number}{second}`?")]
    NoUnit { number: String, first: &'static str, second: &'static str },
    #[error("it does not begin with a number")]
    NoNumber,
    #[error("only whole numbers are taken, in a smaller unit where needed")]
    Fraction,
    #[error("`{unit}` is not a unit{hint}")]
    UnknownUnit { unit: String, hint: String },
    #[error("it has no `/s`: `{text}/s`?")]
    NoRate { text: String },
    #[error("the number is too large")]
    TooLarge,
}

/// What a duration looks like, for messages.
pub const DURATION_FORM: &str = "a whole number with `ms`, `s`, `m` or `h`, such as \"500ms\" or \"30s\"";
/// What a size looks like, for messages.
pub const SIZE_FORM: &str = "a whole number with `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` or `GiB`, such as \"64MiB\"";

/// What a rate looks like, for messages.
pub const RATE_FORM: &str = "a size and `/s`, such as \"64KiB/s\"";

/// What a rate of messages looks like, for messages.
pub const PACE_FORM: &str = "a whole number and `/s`, `/m` or `/h`, such as \"500/s\"";

/// Per hour.
const PACE_UNITS: [(&str, u64); 3] = [("/h", 1), ("/m", 60), ("/s", 3_600)];
/// Milliseconds.
const DURATION_UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Bytes.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, ("s", "ms"))?;
    scaled(&number, unit, &DURATION_UNITS, duration_hint).map(Duration::from_millis)
}

/// Bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, ("MiB", "B"))?;
    scaled(&number, unit, &SIZE_UNITS, size_hint)
}

/// Bytes per second.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    parse_size(text.strip_suffix("/s").ok_or_else(|| UnitError::NoRate { text: text.to_owned() })?)
}

/// Messages per hour.
pub fn parse_pace(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, ("/s", "/m"))?;
    scaled(&number, unit, &PACE_UNITS, pace_hint)
}

/// In the largest unit that says it exactly.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let exact = DURATION_UNITS.iter().rev().find(|(_, scale)| millis.is_multiple_of(u128::from(*scale)));
    let (unit, scale) = exact.copied().unwrap_or(("ms", 1));
    format!("{}{unit}", millis / u128::from(scale))
}

/// In the largest unit that says it exactly, powers of two first.
pub fn format_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let exact = SIZE_UNITS.iter().rev().find(|(_, scale)| bytes.is_multiple_of(*scale));
    let (unit, scale) = exact.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// Messages per hour, in the largest unit that says it exactly.
pub fn format_pace(per_hour: u64) -> String {
    let exact = PACE_UNITS.iter().rev().find(|(_, scale)| per_hour.is_multiple_of(*scale));
    let (unit, scale) = exact.copied().unwrap_or(("/h", 1));
    format!("{}{unit}", per_hour / scale)
}

/// As a size, per second.
pub fn format_rate(bytes: u64) -> String {
    format!("{}/s", format_size(bytes))
}

fn split<'t>(text: &'t str, (first, second): (&'static str, &'static str)) -> Result<(String, &'t str), UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let number = number.replace('_', "");
    if number.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    match rest.trim_start() {
        "" => Err(UnitError::NoUnit { number, first, second }),
        unit => Ok((number, unit)),
    }
}

fn scaled(number: &str, unit: &str, units: &[(&str, u64)], hint: fn(&str) -> &'static str) -> Result<u64, UnitError> {
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        let hint = match hint(unit) {
            "" => String::new(),
            meant => format!(": `{meant}`?"),
        };
        return Err(UnitError::UnknownUnit { unit: unit.to_owned(), hint });
    };
    // The digits were checked, so the only failure is a number beyond u64.
    let number: u64 = number.parse().map_err(|_| UnitError::TooLarge)?;
    number.checked_mul(*scale).ok_or(UnitError::TooLarge)
}

fn duration_hint(unit: &str) -> &'static str {
    match unit.to_ascii_lowercase().as_str() {
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hour" | "hours" => "h",
        _ => "",
    }
}

fn pace_hint(unit: &str) -> &'static str {
    match unit.trim_start_matches('/').to_ascii_lowercase().as_str() {
        "s" | "sec" | "second" => "/s",
        "m" | "min" | "minute" => "/m",
        "h" | "hr" | "hour" => "/h",
        _ => "",
    }
}

fn size_hint(unit: &str) -> &'static str {
    match unit.to_ascii_lowercase().as_str() {
        "b" | "byte" | "bytes" => "B",
        "k" | "kb" => "kB",
        "kib" => "KiB",
        "m" | "mb" => "MB",
        "mib" => "MiB",
        "g" | "gb" => "GB",
        "gib" => "GiB",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_a_unit_are_read() {
        let cases = [
            ("0s", 0),
            ("200ms", 200),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1_000ms", 1_000),
            ("30 s", 30_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn sizes_with_a_unit_are_read() {
        let cases = [("1B", 1), ("900kB", 900_000), ("1MB", 1_000_000), ("64MiB", 64 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn rates_of_messages_are_read_and_printed() {
        for (text, per_hour) in [("500/s", 1_800_000), ("30/m", 1_800), ("1/h", 1), ("1_000 /s", 3_600_000)] {
            assert_eq!(parse_pace(text), Ok(per_hour), "{text}");
        }
        for text in ["500/s", "90/m", "61/h", "1/s"] {
            assert_eq!(parse_pace(text).map(format_pace).as_deref(), Ok(text));
        }
        let sec = UnitError::UnknownUnit { unit: "/sec".into(), hint: ": `/s`?".into() };
        assert_eq!(parse_pace("500/sec"), Err(sec));
        assert_eq!(parse_pace("500"), Err(UnitError::NoUnit { number: "500".into(), first: "/s", second: "/m" }));
    }

    #[test]
    fn what_would_have_to_be_guessed_is_refused() {
        let no_unit = UnitError::NoUnit { number: "5".into(), first: "s", second: "ms" };
        let seconds = UnitError::UnknownUnit { unit: "sec".into(), hint: ": `s`?".into() };
        let kilo = UnitError::UnknownUnit { unit: "KB".into(), hint: ": `kB`?".into() };
        let nonsense = UnitError::UnknownUnit { unit: "parsecs".into(), hint: String::new() };
        assert_eq!(parse_duration("5"), Err(no_unit));
        assert_eq!(parse_duration("5 sec"), Err(seconds));
        assert_eq!(parse_duration("5parsecs"), Err(nonsense));
        assert_eq!(parse_duration("1.5s"), Err(UnitError::Fraction));
        assert_eq!(parse_duration("-5s"), Err(UnitError::NoNumber));
        assert_eq!(parse_duration(""), Err(UnitError::Empty));
        assert_eq!(parse_size("64KB"), Err(kilo));
        assert_eq!(parse_size("99999999999999999999B"), Err(UnitError::TooLarge));
        assert_eq!(parse_size("99999999999999GiB"), Err(UnitError::TooLarge));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_value() {
        for millis in [0, 1, 999, 1_000, 1_500, 60_000, 90_000, 3_600_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1_000, 1_024, 1_500, 64 << 20, 3_000_000, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(64 << 20), "64MiB");
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
    }
}
