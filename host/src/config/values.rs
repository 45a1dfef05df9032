//! Typed values of a [`Table`]: strings, durations, sizes, counts, choices, lists, settings.
//!
//! Each reader returns what it could read or the default, and reports the rest: the caller goes on
//! and finds the next error.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::codes;
use super::diagnostic::{Diagnostic, Origin};
use super::names::{listed, nearest};
use super::start::{START_FORM, parse_start};
use super::table::{Entry, Located, Table};
use super::types::{Secret, Start};
use super::units::{
    DURATION_FORM, PACE_FORM, RATE_FORM, SIZE_FORM, UnitError, format_duration, format_pace, format_rate, format_size,
    parse_duration, parse_pace, parse_rate, parse_size,
};
use super::vars::{Text, VarFault};

/// The words that a key takes: those that work, and those that are specified for later.
pub struct Choices<T: 'static> {
    pub now: &'static [(&'static str, T)],
    pub later: &'static [&'static str],
}

impl<T: PartialEq> Choices<T> {
    /// How a file writes a value that works now.
    pub fn word(&self, value: &T) -> &'static str {
        self.now.iter().find(|(_, of)| of == value).map_or("", |(word, _)| *word)
    }
}

impl Table<'_> {
    /// A string that may be printed. A secret in it is an error.
    pub fn string(&mut self, key: &'static str) -> Option<Located<String>> {
        let text = self.text(key, "a string")?;
        self.printable(self.path_of(key), text)
    }

    /// As `string`, and an error when the key is missing; `example` is a line to paste.
    pub fn required_string(&mut self, key: &'static str, example: &str) -> Option<Located<String>> {
        self.require(key, example);
        self.string(key)
    }

    /// A value that must not stand in the file itself.
    pub fn secret(&mut self, key: &'static str) -> Option<Located<Secret>> {
        let text = self.text(key, "a string")?;
        let path = self.path_of(key);
        self.outside_value(&path, key, text)
    }

    pub fn duration(&mut self, key: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let form = (codes::BAD_DURATION, "a duration", DURATION_FORM);
        let read = self.unit(key, form, parse_duration);
        self.in_range(key, read, range, format_duration).unwrap_or(default)
    }

    /// Bytes.
    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let form = (codes::BAD_SIZE, "a size", SIZE_FORM);
        let read = self.unit(key, form, parse_size);
        self.in_range(key, read, range, format_size).unwrap_or(default)
    }

    /// Bytes per second.
    pub fn rate(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let form = (codes::BAD_SIZE, "a rate", RATE_FORM);
        let read = self.unit(key, form, parse_rate);
        self.in_range(key, read, range, format_rate).unwrap_or(default)
    }

    /// Messages per hour; none unless written.
    pub fn pace(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let form = (codes::BAD_SIZE, "a rate of messages", PACE_FORM);
        let read = self.unit(key, form, parse_pace);
        self.in_range(key, read, range, format_pace)
    }

    pub fn count(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some((value, origin)) = self.entry(key) else {
            return default;
        };
        let path = self.path_of(key);
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(&path, "a whole number", value.get_ref(), origin);
            return default;
        };
        // What does not fit is out of any range that a key has.
        let number = whole(integer).unwrap_or(i64::MAX);
        let wide = i64::from(*range.start())..=i64::from(*range.end());
        let checked = self.in_range(key, Some((number, origin)), wide, |number| number.to_string());
        checked.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    }

    /// A share, written as a number from 0 to 1, in whole percent.
    pub fn percent(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some((value, origin)) = self.entry(key) else {
            return default;
        };
        let written: f64 = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().unwrap_or(f64::NAN),
            DeValue::Integer(integer) => whole(integer).map_or(f64::NAN, |number| number as f64),
            other => {
                self.wrong_type(&self.path_of(key), "a share, such as 0.5 for a half", other, origin);
                return default;
            }
        };
        let percent = (written * 100.0).round();
        let wide = f64::from(*range.start())..=f64::from(*range.end());
        let show = |percent: f64| (percent / 100.0).to_string();
        // Checked to lie in the range of a `u32` just before.
        self.in_range(key, Some((percent, origin)), wide, show).map_or(default, |percent| percent as u32)
    }

    /// Where a partition begins.
    pub fn start(&mut self, key: &'static str, default: Start) -> Start {
        let (text, origin) = match self.entry(key) {
            // TOML has times of its own, without quotes.
            Some((value, origin)) if value.get_ref().is_datetime() => {
                (value.get_ref().as_datetime().map(ToString::to_string).unwrap_or_default(), origin)
            }
            Some(_) => match self.string(key) {
                Some(text) => (text.value, text.origin),
                None => return default,
            },
            None => return default,
        };
        parse_start(&text).unwrap_or_else(|error| {
            let message = format!("`{text}` is not a value of `{}`", self.path_of(key));
            let found = Diagnostic::error(codes::BAD_CHOICE, message).at(origin);
            self.report(found.label(error.to_string()).note(format!("`{}` takes {START_FORM}", self.path_of(key))));
            default
        })
    }

    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let Some((value, origin)) = self.entry(key) else {
            return default;
        };
        match value.get_ref() {
            DeValue::Boolean(value) => *value,
            other => {
                self.wrong_type(&self.path_of(key), "`true` or `false`", other, origin);
                default
            }
        }
    }

    /// A key that can be switched one way only until the other way exists.
    pub fn only(&mut self, key: &'static str, allowed: bool) {
        let written = self.has(key).then(|| self.boolean(key, allowed));
        self.entry(key);
        if written == Some(!allowed) {
            let message = format!("`{} = {}` is not supported yet", self.path_of(key), !allowed);
            let origin = self.reader_origin(key);
            self.report(Diagnostic::error(codes::NOT_YET, message).at(origin).help("remove it"));
        }
    }

    pub fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &Choices<T>) -> T {
        self.choice_at(key, choices).map_or(default, |choice| choice.value)
    }

    /// As `choice`, with the place of the word; `None` when it was not written or is wrong.
    pub fn choice_at<T: Copy>(&mut self, key: &'static str, choices: &Choices<T>) -> Option<Located<T>> {
        let word = self.string(key)?;
        let found = choices.now.iter().find(|(name, _)| *name == word.value);
        if let Some((_, value)) = found {
            return Some(Located { value: *value, origin: word.origin });
        }
        let path = self.path_of(key);
        let names = choices.now.iter().map(|(name, _)| *name);
        let takes = format!("`{path}` takes {}", listed(names.clone()));
        let diagnostic = if choices.later.contains(&word.value.as_str()) {
            let message = format!("`{path} = \"{}\"` is not supported yet", word.value);
            Diagnostic::error(codes::NOT_YET, message)
        } else {
            let message = format!("`{}` is not a value of `{path}`", word.value);
            let found = Diagnostic::error(codes::BAD_CHOICE, message);
            match nearest(&word.value, names) {
                Some(meant) => found.label(format!("did you mean \"{meant}\"?")),
                None => found,
            }
        };
        self.report(diagnostic.at(word.origin).note(takes));
        None
    }

    /// A list of strings; `None` when it was not written.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<Located<String>>> {
        let (value, origin) = self.entry(key)?;
        let path = self.path_of(key);
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(&path, "a list of strings, such as [\"a\"]", value.get_ref(), origin);
            return None;
        };
        let mut strings = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.{index}");
            self.reader.record(path.clone(), self.reader.at(item.span()));
            let text = self.text_of(&path, item, "a string");
            strings.extend(text.and_then(|text| self.printable(path, text)));
        }
        Some(strings)
    }

    /// `NAME = "value"` pairs whose values may be printed.
    pub fn string_map(&mut self, key: &'static str) -> Vec<(Located<String>, Located<String>)> {
        let path = self.path_of(key);
        let mut pairs = Vec::new();
        for (name, value) in self.open_table(key) {
            let path = format!("{path}.{}", name.value);
            self.reader.record(path.clone(), self.reader.at(value.span()));
            let text = self.text_of(&path, value, "a string");
            if let Some(text) = text.and_then(|text| self.printable(path, text)) {
                pairs.push((Located { value: name.value.to_owned(), origin: name.origin }, text));
            }
        }
        pairs
    }

    /// A table for the handler, as JSON. Secrets are welcome: nothing prints it.
    pub fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        let (value, origin) = self.entry(key)?;
        let path = self.path_of(key);
        if !value.get_ref().is_table() {
            self.wrong_type(&path, "a table", value.get_ref(), origin);
            return None;
        }
        Some(self.json_of(&path, value))
    }

    fn json_of(&self, path: &str, value: Entry<'_>) -> serde_json::Value {
        use serde_json::Value;
        match value.get_ref() {
            DeValue::String(_) => {
                let text = self.text_of(path, value, "a string");
                text.map_or(Value::Null, |text| Value::String(text.value.value))
            }
            DeValue::Integer(integer) => match whole(integer) {
                Some(number) => Value::from(number),
                None => self.no_json(path, value, "it does not fit 64 bits"),
            },
            DeValue::Float(float) => {
                let number = float.as_str().parse().ok().and_then(serde_json::Number::from_f64);
                match number {
                    Some(number) => Value::Number(number),
                    None => self.no_json(path, value, "JSON has no such number"),
                }
            }
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Array(items) => {
                let item = |(index, item)| self.json_of(&format!("{path}.{index}"), item);
                Value::Array(items.iter().enumerate().map(item).collect())
            }
            DeValue::Table(table) => {
                let entry = |(name, value): (&Spanned<_>, _)| {
                    let name: &std::borrow::Cow<'_, str> = name.get_ref();
                    (name.to_string(), self.json_of(&format!("{path}.{name}"), value))
                };
                Value::Object(table.iter().map(entry).collect())
            }
        }
    }

    fn no_json(&self, path: &str, value: Entry<'_>, why: &str) -> serde_json::Value {
        let message = format!("`{path}` cannot be given to the handler as JSON");
        let origin = self.reader.at(value.span());
        self.report(Diagnostic::error(codes::OUT_OF_RANGE, message).at(origin).label(why));
        serde_json::Value::Null
    }

    fn text(&mut self, key: &'static str, wanted: &str) -> Option<Located<Text>> {
        let (value, _) = self.entry(key)?;
        self.text_of(&self.path_of(key), value, wanted)
    }

    /// The string with its variables replaced; `None` when it is none, which was reported.
    pub fn text_of(&self, path: &str, value: Entry<'_>, wanted: &str) -> Option<Located<Text>> {
        let origin = self.reader.at(value.span());
        let DeValue::String(raw) = value.get_ref() else {
            self.wrong_type(path, wanted, value.get_ref(), origin);
            return None;
        };
        match self.reader.vars.borrow().substitute(raw) {
            Ok(text) if text.unresolved => None,
            Ok(text) => Some(Located { value: text, origin }),
            Err(fault) => {
                self.report(var_fault(&fault).at(origin));
                None
            }
        }
    }

    fn printable(&self, path: String, text: Located<Text>) -> Option<Located<String>> {
        if !text.value.secret {
            return Some(Located { value: text.value.value, origin: text.origin });
        }
        let message = format!("`{path}` holds a secret and would be printed");
        let found = Diagnostic::error(codes::EXPOSED_SECRET, message)
            .at(text.origin)
            .note("secrets may be used in handler settings and in credentials of a cluster")
            .help("declare the variable with `env` or `file` when its value is no secret");
        self.report(found);
        None
    }

    /// A credential: anything but a literal.
    pub fn outside_value(&self, path: &str, key: &str, text: Located<Text>) -> Option<Located<Secret>> {
        if text.value.substituted {
            return Some(Located { value: Secret::new(text.value.value), origin: text.origin });
        }
        let variable = key.rsplit(['.', '_']).next().unwrap_or(key);
        let message = format!("`{path}` is a secret and must not be written into the file");
        let found = Diagnostic::error(codes::EXPOSED_SECRET, message).at(text.origin).help(format!(
            "name it at the top of the file: `vars.{variable} = {{ secret = \"{}\" }}` (an \
             environment variable) or `{{ file = \"...\" }}`, and write \"${{{variable}}}\" here",
            format!("KAFKA_{variable}").to_uppercase()
        ));
        self.report(found);
        None
    }

    fn unit<T>(
        &mut self,
        key: &'static str,
        (code, wanted, form): (&'static str, &str, &str),
        parse: fn(&str) -> Result<T, UnitError>,
    ) -> Option<(T, Origin)> {
        let text = self.text(key, &format!("{wanted} in quotes ({form})"))?;
        let path = self.path_of(key);
        if text.value.secret {
            self.printable(path, text);
            return None;
        }
        match parse(&text.value.value) {
            Ok(value) => Some((value, text.origin)),
            Err(error) => {
                let Text { value, shown, .. } = text.value;
                let message = format!("`{path}` takes {wanted}, and \"{shown}\" is none");
                let found = Diagnostic::error(code, message).at(text.origin);
                // The reason quotes the value, which is not ours to show when it is from a file.
                let found = if value == shown { found.label(error.to_string()) } else { found };
                self.report(found.note(format!("{wanted} is {form}")));
                None
            }
        }
    }

    fn in_range<T: PartialOrd + Copy>(
        &self,
        key: &str,
        read: Option<(T, Origin)>,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        let (value, origin) = read?;
        if range.contains(&value) {
            return Some(value);
        }
        let path = self.path_of(key);
        let (low, high) = (show(*range.start()), show(*range.end()));
        let message = format!("`{path}` must be between {low} and {high}");
        self.report(Diagnostic::error(codes::OUT_OF_RANGE, message).at(origin));
        None
    }

    fn reader_origin(&mut self, key: &'static str) -> Origin {
        self.entry(key).map_or_else(|| self.origin(), |(_, origin)| origin)
    }
}

fn var_fault(fault: &VarFault) -> Diagnostic {
    match fault {
        VarFault::Unclosed => {
            Diagnostic::error(codes::BAD_VARIABLE, "`${` without `}`").help("write `$${` where `${` itself is meant")
        }
        VarFault::Undeclared { name, nearest } => {
            let message = format!("the variable `{name}` is not declared");
            let found = Diagnostic::error(codes::BAD_VARIABLE, message);
            match nearest {
                Some(meant) => found.label(format!("did you mean `${{{meant}}}`?")),
                None => found.help(format!(
                    "declare it at the top of the file: `vars.{} = {{ env = \"{}\" }}`, or write \
                     `$${{` where `${{` itself is meant",
                    name,
                    name.to_uppercase().replace('-', "_")
                )),
            }
        }
    }
}

/// The number, if it fits 64 bits.
fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
