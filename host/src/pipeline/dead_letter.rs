//! What a dead letter looks like: the source record unchanged, and headers that say where it came from and why it is here.
//!
//! Stamped now, not with its event time: retention would delete an old record at once. Headers of an earlier dead letter
//! (a record that was replayed and failed again) are replaced, so they do not grow.

use sluicebox_frames::{Headers, HeadersWriter};

use super::sink::DeadLetter;

/// Longest error text, bytes.
const MAX_TEXT: usize = 2048;

/// Says where a dead letter came from; the names are `PREFIX-topic` and so on.
pub struct Origin<'a> {
    /// Prefix of the header names.
    pub prefix: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Pipeline.
    pub pipeline: &'a str,
}

/// Writes the header block of a dead letter.
pub fn headers(block: &mut Vec<u8>, letter: &DeadLetter<'_>, origin: &Origin<'_>) {
    block.clear();
    let mut writer = HeadersWriter::new(block);
    let earlier = |name: &[u8]| {
        name.strip_prefix(origin.prefix.as_bytes()).is_some_and(|rest| {
            let rest = rest.strip_prefix(b"-").unwrap_or_default();
            NAMES.iter().any(|known| known.as_bytes() == rest)
        })
    };
    for (name, value) in letter.record.headers.iter().flat_map(Headers::iter) {
        if !earlier(name) {
            writer.push(name, value);
        }
    }
    let text = shorten(&letter.failure.reason);
    let offset = letter.offset.map(|offset| offset.to_string());
    let values = [
        origin.topic.to_owned(),
        origin.partition.to_string(),
        offset.unwrap_or_default(),
        letter.record.timestamp.to_string(),
        letter.failure.class.to_owned(),
        text.to_owned(),
        letter.attempts.to_string(),
        letter.stage.to_owned(),
        origin.pipeline.to_owned(),
        letter.version.to_owned(),
    ];
    for (name, value) in NAMES.iter().zip(&values) {
        writer.push(format!("{}-{name}", origin.prefix).as_bytes(), Some(value.as_bytes()));
    }
    _ = writer.finish();
}

/// In the order they are written.
const NAMES: [&str; 10] =
    ["topic", "partition", "offset", "timestamp", "class", "text", "attempts", "stage", "pipeline", "version"];

fn shorten(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::outgoing::Outgoing;
    use crate::pipeline::sink::Failure;

    fn write(carried: Headers<'_>, reason: &str) -> Vec<(String, Option<String>)> {
        let failure = Failure { class: "reject", reason: reason.to_owned() };
        let record = Outgoing { key: None, value: None, headers: [carried, Headers::default()], timestamp: 1234 };
        let letter =
            DeadLetter { record, offset: Some(9), failure: &failure, attempts: 3, stage: "message", version: "abc" };
        let origin = Origin { prefix: "sb", topic: "in", partition: 2, pipeline: "p" };
        let mut block = Vec::new();
        headers(&mut block, &letter, &origin);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Headers::new(&block).iter().map(|(name, value)| (text(name), value.map(text))).collect()
    }

    #[test]
    fn says_where_from_and_why_after_the_records_own_headers() {
        let mut block = Vec::new();
        let mut writer = HeadersWriter::new(&mut block);
        writer.push(b"trace", Some(b"1"));
        writer.push(b"trace", None);
        _ = writer.finish();
        let written = write(Headers::new(&block), "no such customer");
        let expected = [
            ("trace", Some("1")),
            ("trace", None),
            ("sb-topic", Some("in")),
            ("sb-partition", Some("2")),
            ("sb-offset", Some("9")),
            ("sb-timestamp", Some("1234")),
            ("sb-class", Some("reject")),
            ("sb-text", Some("no such customer")),
            ("sb-attempts", Some("3")),
            ("sb-stage", Some("message")),
            ("sb-pipeline", Some("p")),
            ("sb-version", Some("abc")),
        ];
        assert_eq!(written, expected.map(|(n, v)| (n.to_owned(), v.map(ToOwned::to_owned))));
    }

    #[test]
    fn a_replayed_dead_letter_does_not_grow() {
        let mut block = Vec::new();
        let mut writer = HeadersWriter::new(&mut block);
        writer.push(b"sb-text", Some(b"first time"));
        writer.push(b"sb-texture", Some(b"the user's own"));
        _ = writer.finish();
        let written = write(Headers::new(&block), "second time");
        assert_eq!(written.iter().filter(|(name, _)| name == "sb-text").count(), 1);
        assert!(written.contains(&("sb-texture".to_owned(), Some("the user's own".to_owned()))));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let written = write(Headers::default(), &"é".repeat(3000));
        let text = written.iter().find(|(name, _)| name == "sb-text").and_then(|(_, value)| value.clone());
        assert_eq!(text.map(|text| text.len()), Some(2048));
    }
}
