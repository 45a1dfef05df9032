//! One line per record, for people or for programs. Pure.
//!
//! What a record holds never reaches the terminal raw: control characters and those that turn the direction of writing are
//! escaped, bytes that are not UTF-8 are shown as such.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sluicebox_frames::{Headers, Message};

/// Longest value, characters.
const MAX_VALUE: usize = 200;
/// Longest key or header, characters.
const MAX_NAME: usize = 60;

/// What a topic is to the pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It reads it.
    Input,
    /// It writes to it.
    Output,
    /// Its dead letters, whose headers have this prefix.
    DeadLetter {
        /// As in the configuration.
        prefix: String,
    },
}

impl Role {
    const fn word(&self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Output => "out",
            Self::DeadLetter { .. } => "dead",
        }
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What its topic is.
    pub role: &'a Role,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
}

/// A line for people; `headers`: with the headers.
#[must_use]
pub fn text(place: Place<'_>, message: &Message<'_>, headers: bool) -> String {
    let Place { role, topic, partition } = place;
    let mut line = format!("{:<4}  {topic}[{partition}]@{}  ", role.word(), message.offset());
    if let Some(key) = message.key() {
        line.push_str("key=");
        escape(key, MAX_NAME, &mut line);
        line.push_str("  ");
    }
    match role {
        Role::DeadLetter { prefix } => why(prefix, message.headers(), &mut line),
        _ => match message.value() {
            Some(value) => escape(value, MAX_VALUE, &mut line),
            None => line.push_str("(null)"),
        },
    }
    if headers && !message.headers().is_empty() {
        line.push_str("  ");
        let mut separator = '[';
        for (name, value) in message.headers().iter() {
            line.push(separator);
            separator = ' ';
            escape(name, MAX_NAME, &mut line);
            line.push('=');
            match value {
                Some(value) => escape(value, MAX_NAME, &mut line),
                None => line.push_str("(null)"),
            }
        }
        line.push(']');
    }
    line
}

/// `reject: amount must be positive (from orders[2]@4)`
fn why(prefix: &str, headers: Headers<'_>, line: &mut String) {
    let header = |name: &str| headers.last(format!("{prefix}-{name}")).flatten().unwrap_or(b"?");
    let mut parts = |name: &str, before: &str, max| {
        line.push_str(before);
        escape(header(name), max, line);
    };
    parts("class", "", MAX_NAME);
    parts("text", ": ", MAX_VALUE);
    parts("topic", " (from ", MAX_NAME);
    parts("partition", "[", MAX_NAME);
    parts("offset", "]@", MAX_NAME);
    line.push(')');
}

/// A JSON object for programs. Bytes that are not UTF-8 become `{"hex": "…"}`.
#[must_use]
pub fn json(place: Place<'_>, message: &Message<'_>) -> Value {
    let headers: Vec<Value> =
        message.headers().iter().map(|(name, value)| json!([bytes(Some(name)), bytes(value)])).collect();
    json!({
        "kind": place.role.word(),
        "topic": place.topic,
        "partition": place.partition,
        "offset": message.offset(),
        "timestamp": message.timestamp(),
        "key": bytes(message.key()),
        "value": bytes(message.value()),
        "headers": headers,
    })
}

fn bytes(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => Value::from(text),
        Some((bytes, Err(_))) => {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                _ = write!(hex, "{byte:02x}");
                hex
            });
            json!({ "hex": hex })
        }
    }
}

/// Adds bytes as text on one line, at most `max` characters of them.
fn escape(bytes: &[u8], max: usize, line: &mut String) {
    if bytes.is_empty() {
        line.push_str("\"\"");
        return;
    }
    let mut left = max;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if left == 0 {
                return cut(bytes.len(), line);
            }
            left -= 1;
            if c.is_control() || misleads(c) {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        for byte in chunk.invalid() {
            if left == 0 {
                return cut(bytes.len(), line);
            }
            left -= 1;
            _ = write!(line, "\\x{byte:02x}");
        }
    }
}

fn cut(bytes: usize, line: &mut String) {
    _ = write!(line, "… ({bytes} B)");
}

/// Characters that are not seen but change how others are: marks of direction, joiners, separators of lines.
const fn misleads(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use sluicebox_frames::{Frame, Messages, MessagesWriter, NewMessage, Source, TimestampType};

    use super::*;

    /// A frame of one message.
    fn frame(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&str>)]) -> Frame {
        let mut frame = Frame::default();
        let mut writer = MessagesWriter::burst(&mut frame, Source { topic: "t", partition: 1 }, 0, false);
        let message = NewMessage {
            offset: 4,
            timestamp: 99,
            timestamp_type: TimestampType::CreateTime,
            key,
            value,
            attempt: 1,
            source: 0,
        };
        writer.push_with(&message, |block| {
            for (name, value) in headers {
                block.push(name.as_bytes(), value.map(str::as_bytes));
            }
        });
        writer.finish();
        frame
    }

    fn shown(role: &Role, frame: &Frame, headers: bool) -> String {
        text(Place { role, topic: "t", partition: 1 }, &Messages::new(frame).get(0), headers)
    }

    #[test]
    fn key_value_and_nulls() {
        let line = |key, value| shown(&Role::Output, &frame(key, value, &[]), false);
        assert_eq!(line(Some(b"c1"), Some(b"{\"id\": 1}")), "out   t[1]@4  key=c1  {\"id\": 1}");
        assert_eq!(line(None, None), "out   t[1]@4  (null)");
        assert_eq!(line(Some(b""), Some(b"")), "out   t[1]@4  key=\"\"  \"\"");
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let value = "a\nb\x1b[2J\u{202e}é\u{9b}".as_bytes();
        let value = [value, b"\xff\xfe"].concat();
        let line = shown(&Role::Input, &frame(None, Some(&value), &[]), false);
        assert_eq!(line, "in    t[1]@4  a\\nb\\u{1b}[2J\\u{202e}é\\u{9b}\\xff\\xfe");
    }

    #[test]
    fn long_values_are_cut() {
        let line = shown(&Role::Input, &frame(None, Some("é".repeat(300).as_bytes()), &[]), false);
        assert_eq!(line, format!("in    t[1]@4  {}… (600 B)", "é".repeat(200)));
        let line = shown(&Role::Input, &frame(None, Some("é".repeat(200).as_bytes()), &[]), false);
        assert_eq!(line, format!("in    t[1]@4  {}", "é".repeat(200)));
    }

    #[test]
    fn dead_letters_say_why_and_from_where() {
        let role = Role::DeadLetter { prefix: "e".to_owned() };
        let headers = [
            ("e-class", Some("reject")),
            ("e-text", Some("no\nway")),
            ("e-topic", Some("orders")),
            ("e-partition", Some("2")),
            ("e-offset", Some("7")),
        ];
        let line = shown(&role, &frame(Some(b"k"), None, &headers), false);
        assert_eq!(line, "dead  t[1]@4  key=k  reject: no\\nway (from orders[2]@7)");
        // A record that somebody else wrote there.
        let line = shown(&role, &frame(None, None, &[]), false);
        assert_eq!(line, "dead  t[1]@4  ?: ? (from ?[?]@?)");
    }

    #[test]
    fn headers_when_they_are_asked_for() {
        let frame = frame(None, Some(b"v"), &[("a", Some("1")), ("b", None)]);
        assert_eq!(shown(&Role::Output, &frame, true), "out   t[1]@4  v  [a=1 b=(null)]");
    }

    #[test]
    fn json_is_whole() {
        let frame = frame(Some(b"\xff\x00"), Some(b"v"), &[("a", None)]);
        let json = json(Place { role: &Role::Output, topic: "t", partition: 1 }, &Messages::new(&frame).get(0));
        let expected = r#"{"kind":"out","topic":"t","partition":1,"offset":4,"timestamp":99,"key":{"hex":"ff00"},"value":"v","headers":[["a",null]]}"#;
        assert_eq!(json.to_string(), expected);
    }
}
