//! What a deployment would change, for people and for programs: version, contract, what it is called by, what it imports, what
//! it is granted, and every key of the manifest whose value would be another.

use std::sync::Arc;

use serde_json::{Value, json};

use super::operations::End;
use super::view::short;
use crate::config::{Change, Pipeline, changes};
use crate::live::admission::Admitted;
use crate::pipeline::revision::Revision;
use crate::plugin::Version;

/// The plan of a deployment that was admitted.
pub fn plan(old: &Revision<Arc<Version>>, admitted: &Admitted) -> End {
    let (from, to) = (&*old.build, &*admitted.version);
    let keys = changes(&old.config, &admitted.config);
    let changed = from.digest() != to.digest() || !keys.is_empty();
    let says = match (from.digest() == to.digest(), keys.len()) {
        (true, 0) => format!("{} is what it serves already: nothing would change", short(from.digest())),
        (true, count) => format!("{} stays, {}", short(from.digest()), settings(count)),
        (false, 0) => format!("{} -> {}", short(from.digest()), short(to.digest())),
        (false, count) => format!("{} -> {}, {}", short(from.digest()), short(to.digest()), settings(count)),
    };
    let result = json!({
        "from": from.digest(), "to": to.digest(), "changed": changed, "bytes": to.bytes(),
        "world": { "from": from.world(), "to": to.world() },
        "exports": { "from": from.forms(), "to": to.forms() },
        "imports": { "from": from.imports(), "to": to.imports() },
        "grants": { "from": grants(&old.config), "to": grants(&admitted.config) },
        "settings": keys.iter().map(change).collect::<Vec<_>>(),
        "compile_ms": admitted.prepared.compile.as_millis(),
        "trial_ms": admitted.prepared.canary.as_millis(),
        "lines": lines(old, admitted, &keys),
    });
    End::Done(says, result)
}

fn settings(count: usize) -> String {
    format!("{count} setting{} changed", if count == 1 { "" } else { "s" })
}

fn change(Change { key, from, to }: &Change) -> Value {
    json!({ "key": key, "from": from, "to": to })
}

/// Whom the handler may ask.
fn grants(config: &Pipeline) -> Vec<String> {
    config.http.iter().flat_map(|grant| &grant.sites).map(ToString::to_string).collect()
}

/// The same for people, a line for each thing.
fn lines(old: &Revision<Arc<Version>>, admitted: &Admitted, keys: &[Change]) -> Vec<String> {
    let (from, to) = (&*old.build, &*admitted.version);
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = vec![
        match from.world() == to.world() {
            true => format!("world     {}, unchanged", to.world()),
            false => format!("world     {} -> {}", from.world(), to.world()),
        },
        format!("exports   {}", difference(&owned(from.forms()), &owned(to.forms()))),
        format!("imports   {}", difference(from.imports(), to.imports())),
        format!("grants    {}", difference(&grants(&old.config), &grants(&admitted.config))),
    ];
    if keys.is_empty() {
        lines.push("settings  unchanged".to_owned());
    }
    lines.extend(keys.iter().map(|Change { key, from, to }| format!("settings  {key}: {from} -> {to}")));
    lines
}

/// What is there, with what is new and what is gone.
fn difference(from: &[String], to: &[String]) -> String {
    let listed = |texts: &[String]| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
    let beyond = |texts: &[String], others: &[String], sign: &str| -> Vec<String> {
        texts.iter().filter(|text| !others.contains(text)).map(|text| format!("{sign}{text}")).collect()
    };
    let moved = [beyond(to, from, "+"), beyond(from, to, "-")].concat();
    match moved.is_empty() {
        true => format!("{}, unchanged", listed(to)),
        false => format!("{} ({})", listed(to), moved.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_what_is_gone_is_marked() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(difference(&texts(&["a", "b"]), &texts(&["a", "b"])), "a, b, unchanged");
        assert_eq!(difference(&texts(&["a", "b"]), &texts(&["a", "c"])), "a, c (+c -b)");
        assert_eq!(difference(&texts(&["a"]), &[]), "none (-a)");
        assert_eq!(difference(&[], &[]), "none, unchanged");
        assert_eq!((settings(1), settings(2)), ("1 setting changed".to_owned(), "2 settings changed".to_owned()));
    }
}
