//! A report as people read it, and as programs do.

use annotate_snippets::{AnnotationKind, Group, Level as Mark, Renderer, Snippet};
use serde_json::{Value, json};

use super::diagnostic::{Diagnostic, Level, Origin, Report};

impl Report {
    /// Every finding with its lines, then how many there are. `colour`: the reader is a terminal.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for found in self.diagnostics() {
            text.push_str(&renderer.render(&groups(found)));
            text.push_str("\n\n");
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    fn summary(&self) -> String {
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        match (self.errors(), self.warnings()) {
            (0, warnings) => plural(warnings, "warning"),
            (errors, 0) => plural(errors, "error"),
            (errors, warnings) => format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")),
        }
    }

    /// `{ errors, warnings, diagnostics: [...] }`; fields are added, never renamed.
    pub fn to_json(&self) -> Value {
        let found: Vec<Value> = self.diagnostics().iter().map(diagnostic_json).collect();
        json!({ "errors": self.errors(), "warnings": self.warnings(), "diagnostics": found })
    }
}

fn groups(found: &Diagnostic) -> Vec<Group<'_>> {
    let mark = match found.level {
        Level::Error => Mark::ERROR,
        Level::Warning => Mark::WARNING,
    };
    let mut group = Group::with_title(mark.primary_title(found.message.as_str()).id(found.code));
    if let Some(origin) = &found.origin {
        let mut snippet =
            snippet_of(origin).annotation(AnnotationKind::Primary.span(origin.span()).label(some(&found.label)));
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            found.related.iter().partition(|(other, _)| other.source() == origin.source());
        for (other, words) in here {
            snippet = snippet.annotation(AnnotationKind::Context.span(other.span()).label(words.as_str()));
        }
        group = group.element(snippet);
        for (other, words) in elsewhere {
            let marked = AnnotationKind::Context.span(other.span()).label(words.as_str());
            group = group.element(snippet_of(other).annotation(marked));
        }
    } else if !found.label.is_empty() {
        group = group.element(Mark::NOTE.message(found.label.as_str()));
    }
    for note in &found.notes {
        group = group.element(Mark::NOTE.message(note.as_str()));
    }
    for help in &found.help {
        group = group.element(Mark::HELP.message(help.as_str()));
    }
    vec![group]
}

fn snippet_of(origin: &Origin) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let source = origin.source();
    Snippet::source(source.text()).path(source.title())
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn diagnostic_json(found: &Diagnostic) -> Value {
    let mut object = json!({
        "code": found.code,
        "level": match found.level { Level::Error => "error", Level::Warning => "warning" },
        "message": found.message,
        "label": some(&found.label),
        "notes": found.notes,
        "help": found.help,
        "related": found.related.iter().map(|(origin, words)| {
            let mut related = place_json(origin);
            related["label"] = json!(words);
            related
        }).collect::<Vec<Value>>(),
    });
    if let Some(origin) = &found.origin {
        object["at"] = place_json(origin);
    }
    object
}

/// Flags and variables have no line.
fn place_json(origin: &Origin) -> Value {
    if !origin.source().is_file() {
        return json!({ "flag": origin.file() });
    }
    let span = origin.span();
    json!({
        "file": origin.file(),
        "line": origin.line(),
        "column": origin.column(),
        "span": [span.start, span.end],
    })
}
