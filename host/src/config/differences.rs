//! What two configurations of a pipeline differ in, key by key, as files name them: what a deployment would change.
//!
//! Of what cannot change while a pipeline runs nothing is said here: a deployment that changes it is refused by name. Nor
//! is what the handler's settings say, which may be a secret: only which of them differ.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::types::{Breaker, LimitValue, OnStateRefused, Pipeline, Then};
use super::units::{format_duration, format_size};

/// One key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its dotted path in a manifest.
    pub key: String,
    /// What it was; `-`: it was not there.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// Stands for what is there and not to be shown.
const HIDDEN: &str = "***";
/// Stands for what is not there.
const ABSENT: &str = "-";
/// What is below this may be a secret.
const SETTINGS: &str = "handler.settings";

/// Every key whose value differs, in the order of their names.
#[must_use]
pub fn changes(old: &Pipeline, new: &Pipeline) -> Vec<Change> {
    let (old, new) = (values(old), values(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let change = |key: &String| {
        let (from, to) = (old.get(key), new.get(key));
        let shown = |value: Option<&String>| match value {
            None => ABSENT.to_owned(),
            Some(_) if key.starts_with(SETTINGS) => HIDDEN.to_owned(),
            Some(value) => value.clone(),
        };
        (from != to).then(|| Change { key: key.clone(), from: shown(from), to: shown(to) })
    };
    keys.into_iter().filter_map(change).collect()
}

fn values(pipeline: &Pipeline) -> BTreeMap<String, String> {
    // Nothing is left out by accident.
    let Pipeline {
        name: _,
        description,
        component: _,
        settings,
        limits,
        recycle,
        source: _,
        process,
        batchers,
        ack,
        hold,
        tick,
        errors,
        swap,
        deterministic,
        http: _,
        outputs,
        build: _,
        dev: _,
        deployed: _,
        origin: _,
    } = pipeline;
    let mut values = BTreeMap::new();
    let mut put = |key: &str, value: String| _ = values.insert(key.to_owned(), value);
    put("description", format!("{description:?}"));
    for (name, value) in limits.all() {
        let value = match value {
            LimitValue::Bytes(bytes) => format_size(bytes),
            LimitValue::Time(time) => format_duration(time),
            LimitValue::Count(count) => count.to_string(),
        };
        put(&format!("handler.limits.{name}"), value);
    }
    put("handler.recycle.age", maybe(recycle.age.map(format_duration)));
    put("handler.recycle.calls", maybe(recycle.calls));
    put("handler.recycle.memory", maybe(recycle.memory.map(format_size)));
    put("handler.tick", maybe(tick.map(format_duration)));
    put("handler.deterministic", deterministic.to_string());
    put("process.max_ahead", process.max_ahead.to_string());
    put("process.rate", maybe(process.rate));
    for batcher in batchers {
        let key = |key: &str| format!("batch.{}.{key}", batcher.name);
        put(&key("max_messages"), batcher.max_messages.to_string());
        put(&key("max_bytes"), format_size(batcher.max_bytes));
        put(&key("max_wait"), format_duration(batcher.max_wait));
    }
    put("ack.commit_interval", format_duration(ack.commit_interval));
    put("hold.max", hold.max.to_string());
    put("hold.timeout", format_duration(hold.timeout));
    put("errors.retry.attempts", errors.attempts.to_string());
    put("errors.retry.backoff", format_duration(errors.backoff));
    put("errors.retry.max_backoff", format_duration(errors.max_backoff));
    put("errors.retry.jitter", errors.jitter.to_string());
    put("errors.then", then(&errors.then).to_owned());
    put("errors.breaker", errors.breaker.as_ref().map_or_else(|| "false".to_owned(), breaker));
    put("swap.watch", swap.watch.to_string());
    let refused = match swap.on_state_refused {
        OnStateRefused::Fresh => "fresh",
        OnStateRefused::Refuse => "refuse",
    };
    put("swap.on_state_refused", refused.to_owned());
    put("swap.sample", maybe(swap.sample.as_ref().map(|file| file.display().to_string())));
    put("swap.keep_versions", swap.keep_versions.to_string());
    put("swap.canary.failed", format!("{} %", swap.canary.failed));
    put("swap.canary.slower", swap.canary.slower.to_string());
    put("swap.canary.of_at_least", swap.canary.of_at_least.to_string());
    for output in outputs {
        put(&format!("output.{}.provenance", output.name), output.provenance.to_string());
    }
    flatten(SETTINGS, settings, &mut put);
    values
}

fn maybe(value: Option<impl ToString>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), |value| value.to_string())
}

const fn then(then: &Then) -> &'static str {
    match then {
        Then::Block => "block",
        Then::DeadLetter(_) => "dead-letter",
        Then::Drop => "drop",
        Then::Stop => "stop",
    }
}

fn breaker(breaker: &Breaker) -> String {
    let Breaker { percent, of_at_least, window } = *breaker;
    let window: Duration = window;
    format!("{percent} % of at least {of_at_least} in {}", format_duration(window))
}

/// Each leaf by its path. An empty table is a leaf, too, but for the outermost: no settings at all.
fn flatten(path: &str, value: &Value, put: &mut impl FnMut(&str, String)) {
    match value {
        Value::Object(fields) if !fields.is_empty() || path == SETTINGS => {
            fields.iter().for_each(|(name, value)| flatten(&format!("{path}.{name}"), value, put));
        }
        leaf => put(path, leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::manifest_with as read;
    use super::*;

    /// Proves: each key that differs is named, by the name that it has in files and with both values; what may be a secret is
    /// named and not shown; what says the same is not named.
    #[test]
    fn what_differs_is_named() {
        let told = |old: &str, new: &str| {
            let changes = changes(&read(old), &read(new));
            changes
                .into_iter()
                .map(|change| format!("{} {} {}", change.key, change.from, change.to))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("", "errors.retry.attempts = 5"), Vec::<String>::new());
        let new =
            "errors.retry.attempts = 7\nhandler.limits.memory = \"48MiB\"\nhandler.tick = \"2s\"\nswap.watch = false";
        let expected = [
            "errors.retry.attempts 5 7",
            "handler.limits.memory 64MiB 48MiB",
            "handler.tick - 2s",
            "swap.watch true false",
        ];
        assert_eq!(told("", new), expected);
        let old = "handler.settings = { a = 1, deep = { key = \"one\" } }";
        let new = "handler.settings = { deep = { key = \"two\", more = [1] } }";
        let expected =
            ["handler.settings.a *** -", "handler.settings.deep.key *** ***", "handler.settings.deep.more - ***"];
        assert_eq!(told(old, new), expected);
        assert_eq!(told("batch.b.max_messages = 3", "batch.b.max_messages = 4"), ["batch.b.max_messages 3 4"]);
        let changed = told("errors.breaker = false", "");
        assert_eq!(changed, ["errors.breaker false 50 % of at least 100 in 1m"]);
    }
}
