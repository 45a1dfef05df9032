//! Findings and the places they point at.
//!
//! A [`SourceText`] is a file or one flag of the command line; an [`Origin`] is a span in it; a
//! [`Report`] collects [`Diagnostic`]s from every stage, also from those that come after the
//! loader (the component check). Rendering is in `render`. Invariant: a source text is masked when
//! it is made, so no snippet can show a secret.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::mask::mask_secrets;

/// A text that diagnostics quote: a file, a flag, or a variable.
#[derive(PartialEq, Eq)]
pub struct SourceText {
    name: String,
    /// Same length as what was read, with secrets overwritten.
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Flag,
    Variable,
}

impl SourceText {
    pub fn file(path: &Path, text: &str) -> Arc<Self> {
        Arc::new(SourceText { name: path.display().to_string(), text: mask_secrets(text), kind: Kind::File })
    }

    /// One occurrence of a flag, as the user wrote it.
    pub fn flag(name: &str, text: &str) -> Arc<Self> {
        Arc::new(SourceText { name: name.to_owned(), text: mask_secrets(text), kind: Kind::Flag })
    }

    /// An environment variable that we read.
    pub fn variable(name: &str, value: &str) -> Arc<Self> {
        Arc::new(SourceText {
            name: name.to_owned(),
            text: mask_secrets(&format!("{name}={value}")),
            kind: Kind::Variable,
        })
    }

    /// File name as the user gave it, or the flag.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Only a file has lines and columns that mean something.
    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// What a report gives as the place.
    pub fn title(&self) -> &str {
        match self.kind {
            Kind::File => &self.name,
            Kind::Flag => "command line",
            Kind::Variable => "environment",
        }
    }

    pub fn at(self: &Arc<Self>, span: Range<usize>) -> Origin {
        Origin { source: Arc::clone(self), span }
    }

    /// The whole text, for a flag; the start, for a file that is wrong as a whole.
    pub fn whole(self: &Arc<Self>) -> Origin {
        let end = if self.is_file() { 0 } else { self.text.len() };
        self.at(0..end)
    }
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A place: file, line and column, or a flag.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    source: Arc<SourceText>,
    span: Range<usize>,
}

impl Origin {
    pub fn source(&self) -> &Arc<SourceText> {
        &self.source
    }

    /// File name as the user gave it, or the flag.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// Bytes in the text.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// From 1.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// From 1, in characters.
    pub fn column(&self) -> usize {
        let before = self.before();
        let line = before.rsplit('\n').next().unwrap_or(before);
        line.chars().count() + 1
    }

    fn before(&self) -> &str {
        let text = self.source.text();
        text.get(..self.span.start).unwrap_or(text)
    }
}

/// `file:line:column`, or the flag.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.source.is_file() {
            write!(f, "{}:{}:{}", self.file(), self.line(), self.column())
        } else {
            f.write_str(self.file())
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where each key of one manifest was written, by its dotted path (`source.topics`,
/// `batch.NAME.max_wait`).
#[derive(Clone)]
pub struct Origins {
    root: Origin,
    keys: BTreeMap<String, Origin>,
}

impl Origins {
    pub fn new(root: Origin) -> Self {
        Origins { root, keys: BTreeMap::new() }
    }

    pub fn insert(&mut self, path: impl Into<String>, origin: Origin) {
        self.keys.insert(path.into(), origin);
    }

    /// Was this key written at all?
    pub fn get(&self, path: &str) -> Option<&Origin> {
        self.keys.get(path)
    }

    /// The place of a key, or of the nearest table that holds it, or of the file.
    pub fn of(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(origin) = self.keys.get(path) {
                return origin.clone();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return self.root.clone(),
            }
        }
    }

    /// The file that it is, unless it stands on the command line.
    pub fn file(&self) -> Option<&str> {
        Some(self.root.file()).filter(|_| self.root.source.is_file())
    }

    /// The `component` value, or `--plugin`.
    pub fn component(&self) -> Origin {
        self.of("handler.component")
    }

    /// The header of `[batch.NAME]`.
    pub fn batcher(&self, name: &str) -> Origin {
        self.of(&format!("batch.{name}"))
    }

    /// The header of `[output.NAME]`, or `--output`.
    pub fn output(&self, name: &str) -> Origin {
        self.of(&format!("output.{name}"))
    }

    /// The manifest as a whole, or `--plugin`.
    pub fn root(&self) -> &Origin {
        &self.root
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origins({:?}, {} keys)", self.root, self.keys.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Error,
    Warning,
}

/// One finding: what, where, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable: `SBxxxx`. A promise to scripts, unlike the text.
    pub code: &'static str,
    pub level: Level,
    /// What is wrong; lower case, no full stop.
    pub message: String,
    /// `None` when no file and no flag is at fault.
    pub origin: Option<Origin>,
    /// Short words under the marked text.
    pub label: String,
    /// Other places that take part, each with its words.
    pub related: Vec<(Origin, String)>,
    /// Why it is wrong.
    pub notes: Vec<String>,
    /// What to do, ready to paste where that is possible.
    pub help: Vec<String>,
}

impl Diagnostic {
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic {
            code,
            level: Level::Error,
            message: message.into(),
            origin: None,
            label: String::new(),
            related: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
        }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Diagnostic { level: Level::Warning, ..Diagnostic::error(code, message) }
    }

    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub fn related(mut self, origin: Origin, words: impl Into<String>) -> Self {
        self.related.push((origin, words.into()));
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// By file, then by place; what has no place comes last.
    fn order(&self, other: &Self) -> Ordering {
        match (&self.origin, &other.origin) {
            (Some(a), Some(b)) => (a.file(), a.span.start).cmp(&(b.file(), b.span.start)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

/// All findings of one load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub fn extend(&mut self, other: Report) {
        self.diagnostics.extend(other.diagnostics);
    }

    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    pub fn errors(&self) -> usize {
        self.count(Level::Error)
    }

    pub fn warnings(&self) -> usize {
        self.count(Level::Warning)
    }

    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    fn count(&self, level: Level) -> usize {
        self.diagnostics.iter().filter(|found| found.level == level).count()
    }

    /// Reading order: by file, then by place.
    pub fn sort(&mut self) {
        self.diagnostics.sort_by(Diagnostic::order);
    }
}

/// One line a finding, so that a report can be an error's source; `render` is for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            if let Some(origin) = &found.origin {
                write!(f, "{origin}: ")?;
            }
            write!(f, "{} [{}]", found.message, found.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
