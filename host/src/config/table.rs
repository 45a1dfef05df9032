//! Reads one TOML table key by key and remembers which keys it was asked for.
//!
//! Walks the spanned tree by hand instead of deriving serde: so every value keeps its place, one
//! wrong value does not hide the next, and a key that nobody asked for is found. Knows TOML and
//! `[vars]`; knows no key by name. Invariant: a table reports its unknown keys when it is dropped,
//! so no reader can forget to look for them.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::codes;
use super::diagnostic::{Diagnostic, Origin, Origins, Report, SourceText};
use super::names::{listed, nearest};
use super::vars::Vars;

/// What the tables of one file share.
pub struct Reader {
    source: Arc<SourceText>,
    /// Empty until `[vars]` itself has been read.
    pub vars: RefCell<Vars>,
    report: RefCell<Report>,
    origins: RefCell<Origins>,
}

impl Reader {
    pub fn new(source: Arc<SourceText>) -> Self {
        Reader {
            origins: RefCell::new(Origins::new(source.whole())),
            source,
            vars: RefCell::default(),
            report: RefCell::default(),
        }
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.report.borrow_mut().push(diagnostic);
    }

    pub fn at(&self, span: Range<usize>) -> Origin {
        self.source.at(span)
    }

    pub fn record(&self, path: String, origin: Origin) {
        self.origins.borrow_mut().insert(path, origin);
    }

    pub fn root<'a>(&'a self, document: &'a DeTable<'a>) -> Table<'a> {
        Table::new(self, String::new(), self.source.whole(), document)
    }

    /// All that was found and where each key was.
    pub fn finish(self) -> (Report, Origins) {
        (self.report.into_inner(), self.origins.into_inner())
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Located<T> {
    pub value: T,
    pub origin: Origin,
}

pub type Entry<'a> = &'a Spanned<DeValue<'a>>;

/// One table while it is read.
pub struct Table<'a> {
    pub reader: &'a Reader,
    path: String,
    origin: Origin,
    entries: &'a DeTable<'a>,
    /// Keys that were asked for.
    known: Vec<&'static str>,
    /// Keys that were asked for only to say that they come later.
    later: Vec<&'static str>,
    /// Any key is legal here (names are the user's).
    open: bool,
}

impl<'a> Table<'a> {
    fn new(reader: &'a Reader, path: String, origin: Origin, entries: &'a DeTable<'a>) -> Self {
        let (known, later) = (Vec::new(), Vec::new());
        Table { reader, path, origin, entries, known, later, open: false }
    }

    /// Where the table begins: its header, or its braces.
    pub fn origin(&self) -> Origin {
        self.origin.clone()
    }

    /// `[batch.default]`, or `the file` for the root.
    pub fn title(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) }
    }

    /// The dotted path of a key in here.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.reader.report(diagnostic);
    }

    /// The value of a key, if it was written. Every typed read goes through here.
    pub fn entry(&mut self, key: &'static str) -> Option<(Entry<'a>, Origin)> {
        self.known.push(key);
        let (_, value) = self.entries.get_key_value(key)?;
        let origin = self.reader.at(value.span());
        self.reader.record(self.path_of(key), origin.clone());
        Some((value, origin))
    }

    /// Reports a required key that is missing; `example` is a line to paste.
    pub fn require(&self, key: &str, example: &str) {
        if !self.has(key) {
            let message = format!("`{}` is missing", self.path_of(key));
            let found = Diagnostic::error(codes::MISSING_KEY, message)
                .at(self.origin())
                .label(if self.path.is_empty() { "" } else { "in this table" })
                .help(format!("add `{example}`"));
            self.report(found);
        }
    }

    /// A key that is specified and does nothing yet: never ignored.
    pub fn not_yet(&mut self, key: &'static str, instead: &str) {
        self.later.push(key);
        let Some((name, _)) = self.entries.get_key_value(key) else {
            return;
        };
        let message = format!("`{}` is not supported yet", self.path_of(key));
        let mut found = Diagnostic::error(codes::NOT_YET, message).at(self.reader.at(name.span()));
        found.help.push(if instead.is_empty() { "remove it".to_owned() } else { instead.to_owned() });
        self.report(found);
    }

    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let (value, origin) = self.entry(key)?;
        self.as_table(self.path_of(key), value, origin)
    }

    /// As `table`, for a key that takes something else as well: that is left to the caller.
    pub fn table_or_other(&mut self, key: &'static str) -> Option<Table<'a>> {
        let (value, origin) = self.entry(key)?;
        let table = value.get_ref().is_table();
        table.then(|| self.as_table(self.path_of(key), value, origin)).flatten()
    }

    /// The entries of a table whose keys are the user's own names.
    pub fn open_table(&mut self, key: &'static str) -> Vec<(Located<&'a str>, Entry<'a>)> {
        let Some(mut table) = self.table(key) else {
            return Vec::new();
        };
        table.open = true;
        let entries = table.entries.iter();
        entries
            .map(|(name, value)| {
                let origin = self.reader.at(name.span());
                (Located { value: &**name.get_ref(), origin }, value)
            })
            .collect()
    }

    /// The tables `[key.NAME]`, each with its name.
    pub fn named_tables(&mut self, key: &'static str) -> Vec<(Located<&'a str>, Table<'a>)> {
        let path = self.path_of(key);
        let mut tables = Vec::new();
        for (name, value) in self.open_table(key) {
            let path = format!("{path}.{}", name.value);
            let origin = self.reader.at(value.span());
            self.reader.record(path.clone(), origin.clone());
            if let Some(table) = self.as_table(path, value, origin) {
                tables.push((name, table));
            }
        }
        // The parser sorts by name; what a user sees keeps the order of the file.
        tables.sort_by_key(|(name, _)| name.origin.span().start);
        tables
    }

    fn as_table(&self, path: String, value: Entry<'a>, origin: Origin) -> Option<Table<'a>> {
        match value.get_ref() {
            DeValue::Table(entries) => Some(Table::new(self.reader, path, origin, entries)),
            other => {
                self.wrong_type(&path, "a table", other, origin);
                None
            }
        }
    }

    pub fn wrong_type(&self, path: &str, wanted: &str, found: &DeValue<'_>, origin: Origin) {
        let article = if matches!(found, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
        let message = format!("`{path}` takes {wanted}, not {article} {}", found.type_str());
        self.report(Diagnostic::error(codes::WRONG_TYPE, message).at(origin));
    }

    fn unknown_key(&self, name: &str, span: Range<usize>) -> Diagnostic {
        let message = format!("unknown key `{name}` in {}", self.title());
        let found = Diagnostic::error(codes::UNKNOWN_KEY, message).at(self.reader.at(span));
        let all = self.known.iter().chain(&self.later).copied();
        let found = match (nearest(name, all), home_of(name)) {
            (Some(meant), _) => found.label(format!("did you mean `{meant}`?")),
            (None, Some(home)) => found.label(format!("it belongs in [{home}]")),
            (None, None) => found,
        };
        let mut valid = self.known.clone();
        valid.sort_unstable();
        valid.dedup();
        found.note(format!("{} takes {}", self.title(), listed(valid)))
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        if self.open {
            return;
        }
        for (name, _) in self.entries.iter() {
            let key: &str = name.get_ref();
            if !self.known.contains(&key) && !self.later.contains(&key) {
                self.report(self.unknown_key(key, name.span()));
            }
        }
    }
}

/// Keys that people write into the wrong table, most often because a TOML header above has
/// swallowed them.
fn home_of(key: &str) -> Option<&'static str> {
    const HOMES: [(&str, &str); 24] = [
        ("component", "handler"),
        ("settings", "handler"),
        ("limits", "handler"),
        ("allow", "handler"),
        ("hosts", "handler.allow"),
        ("memory", "handler.limits"),
        ("running_time", "handler.limits"),
        ("wall_time", "handler.limits"),
        ("topics", "source"),
        ("group", "source"),
        ("start", "source"),
        ("on_lost_offset", "source"),
        ("isolation", "source"),
        ("max_ahead", "process"),
        ("held", "hold"),
        ("commit_interval", "ack"),
        ("retry", "errors"),
        ("attempts", "errors.retry"),
        ("dead_letter", "errors"),
        ("then", "errors"),
        ("breaker", "errors"),
        ("tick", "handler"),
        ("provenance", "output.NAME"),
        ("compression", "output.NAME.send"),
    ];
    HOMES.iter().find(|(name, _)| *name == key).map(|(_, home)| *home)
}
