//! Sample files: one record per line, a JSON object `{"key": …, "value": …, "headers": {…}}`. Pure.
//!
//! A value that is a JSON text goes out as it was written, byte for byte: no number is rounded, no member moved.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

/// One record to feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Line of its file, from 1.
    pub line: usize,
    /// `None` = null.
    pub key: Option<String>,
    /// `None` = null.
    pub value: Option<String>,
    /// In their order; names may repeat.
    pub headers: Vec<(String, Option<String>)>,
}

/// Reads a sample file.
///
/// # Errors
/// Why the file cannot be read, or every line that is none, each as `FILE:LINE: reason`.
pub fn read(path: &Path) -> Result<Vec<Sample>, Vec<String>> {
    let file = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| vec![format!("{file}: the sample file cannot be read: {error}")])?;
    parse(&bytes).map_err(|errors| errors.into_iter().map(|(line, error)| format!("{file}:{line}: {error}")).collect())
}

/// Every record of a file's content; empty lines are none.
///
/// # Errors
/// Every line that is wrong, with its number.
fn parse(bytes: &[u8]) -> Result<Vec<Sample>, Vec<(usize, String)>> {
    let (mut samples, mut errors) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        match std::str::from_utf8(line).map_err(|_| "the line is not UTF-8".to_owned()).map(str::trim) {
            Ok("") => {}
            Ok(line) => match sample(line) {
                Ok(sample) => samples.push(Sample { line: number, ..sample }),
                Err(error) => errors.push((number, error)),
            },
            Err(error) => errors.push((number, error)),
        }
    }
    if errors.is_empty() { Ok(samples) } else { Err(errors) }
}

fn sample(line: &str) -> Result<Sample, String> {
    // The whole line first, so that a fault has its true column.
    serde_json::from_str::<IgnoredAny>(line).map_err(|error| {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        format!("not JSON at column {}: {what}", error.column())
    })?;
    let mut sample = Sample::default();
    let mut seen = Vec::new();
    for (name, text) in
        members(line).ok_or("a record is a JSON object: {\"key\": …, \"value\": …, \"headers\": {…}}")?
    {
        if seen.contains(&name) {
            return Err(format!("`{name}` is there twice"));
        }
        match name.as_str() {
            "key" => sample.key = typed(text, "key: text or null")?,
            "value" if text.starts_with('"') || text == "null" => sample.value = typed(text, "value")?,
            "value" => sample.value = Some(text.to_owned()),
            "headers" => {
                sample.headers = typed::<Option<Pairs>>(text, "headers: an object of texts or nulls")?
                    .map_or_else(Vec::new, |pairs| pairs.0);
            }
            _ => return Err(format!("unknown member `{}`; a record has key, value, headers", name.escape_debug())),
        }
        seen.push(name);
    }
    if let Some((name, _)) = sample.headers.iter().find(|(name, _)| name.contains('\0')) {
        return Err(format!("the header name `{}` contains a NUL character", name.escape_debug()));
    }
    Ok(sample)
}

fn typed<'t, T: Deserialize<'t>>(text: &'t str, wanted: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|_| format!("{wanted} was expected, not {text}"))
}

/// Names and texts of an object's members; `None` when the JSON is no object.
fn members(json: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = json.strip_prefix('{')?.trim_start();
    let mut members = Vec::new();
    while !rest.starts_with('}') {
        let (name, after) = first(rest)?;
        let (value, after) = first(after.trim_start().strip_prefix(':')?)?;
        members.push((serde_json::from_str(name).ok()?, value));
        let after = after.trim_start();
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    Some(members)
}

/// The text of the JSON value at the beginning, and what follows it.
fn first(json: &str) -> Option<(&str, &str)> {
    let json = json.trim_start();
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(json.split_at(values.byte_offset()))
}

/// An object's members in their order, repeated ones too.
struct Pairs(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts or nulls")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                    if pairs.len() > MAX_HEADERS {
                        return Err(A::Error::custom("too many headers"));
                    }
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// More headers than this are a mistake.
const MAX_HEADERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Sample {
        parse(line.as_bytes()).expect("a good line").remove(0)
    }

    fn refused(line: &str) -> String {
        parse(line.as_bytes()).expect_err("a bad line").remove(0).1
    }

    #[test]
    fn every_kind_of_value() {
        for (written, value) in [
            ("{\"id\": 1,  \"price\": 1.10}", Some("{\"id\": 1,  \"price\": 1.10}")),
            ("[1, \"a]\\\"b\"]", Some("[1, \"a]\\\"b\"]")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("-1e400", Some("-1e400")),
            ("true", Some("true")),
            ("\"text \\u00e9\\n\"", Some("text é\n")),
            ("\"\"", Some("")),
            ("null", None),
        ] {
            let line = format!("{{\"value\" : {written} , \"key\":\"k\"}}");
            let expected =
                Sample { line: 1, key: Some("k".to_owned()), value: value.map(str::to_owned), headers: vec![] };
            assert_eq!(one(&line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_left_out_is_null() {
        assert_eq!(one("{}"), Sample { line: 1, ..Sample::default() });
        assert_eq!(one("{\"key\": null, \"headers\": null}"), Sample { line: 1, ..Sample::default() });
    }

    #[test]
    fn headers_keep_order_repetition_and_null() {
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let headers = one(r#"{"headers": {"b": "1", "a": null, "b": "2"}}"#).headers;
        assert_eq!(headers, [pair("b", Some("1")), pair("a", None), pair("b", Some("2"))]);
    }

    #[test]
    fn errors_name_their_lines() {
        let errors = parse(b"{}\n\n{\"value\": }\n  \r\n{\"key\": 7}\n\xff\n").expect_err("three bad lines");
        assert_eq!(errors.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 5, 6]);
        assert_eq!(errors[0].1, "not JSON at column 11: expected value");
        assert_eq!(errors[1].1, "key: text or null was expected, not 7");
        assert_eq!(errors[2].1, "the line is not UTF-8");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        assert!(refused("[1]").starts_with("a record is a JSON object"));
        assert_eq!(refused("{\"valeu\": 1}"), "unknown member `valeu`; a record has key, value, headers");
        assert_eq!(refused("{\"value\": 1, \"value\": 2}"), "`value` is there twice");
        assert!(refused("{\"headers\": {\"a\": 1}}").starts_with("headers: an object of texts or nulls was expected"));
        assert_eq!(refused("{\"headers\": {\"a\\u0000\": \"\"}}"), "the header name `a\\0` contains a NUL character");
        assert!(refused("{} {}").starts_with("not JSON at column 4: trailing characters"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let errors = read(Path::new("no/such.ndjson")).expect_err("no file");
        assert!(errors[0].starts_with("no/such.ndjson: the sample file cannot be read: "), "{}", errors[0]);
    }
}
