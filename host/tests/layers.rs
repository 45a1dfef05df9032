//! Rules that are checked, not remembered: which module may name what, that every file says what it is, how long it gets.
//!
//! Reads the sources as text: names in strings and comments do not count, nor does what is under `#[cfg(test)]`, which
//! lies at the end of a file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Files that are longer than [`LONGEST`], and why.
const LONG: [(&str, &str); 1] =
    [("plugins/frames/src/answer.rs", "one format, its writer and its reader; half of it is documentation")];
const LONGEST: usize = 650;

/// Of the files that `within` begins, `names` may stand only in those that `allowed` begins. `why` is for whoever breaks the
/// rule.
struct Rule {
    within: &'static str,
    names: &'static [&'static str],
    allowed: &'static [&'static str],
    why: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        within: "",
        names: &["rdkafka", "rdkafka_sys"],
        allowed: &["kafka/"],
        why: "Kafka's client is behind kafka/; re-export there what others need",
    },
    Rule {
        within: "",
        names: &["wasmtime", "wasmtime_wasi"],
        allowed: &["plugin/"],
        why: "the sandbox is behind plugin/; no type of the engine leaves it",
    },
    Rule {
        within: "",
        names: &["println!", "print!", "eprintln!", "eprint!", "dbg!"],
        allowed: &["cli/"],
        why: "commands print; the rest logs through telemetry.rs, or returns what is to be said",
    },
    Rule {
        within: "",
        names: &["process::exit", "process::abort"],
        allowed: &["cli/", "threads.rs"],
        why: "commands decide how the process ends",
    },
    Rule {
        within: "",
        names: &["thread::Builder", "thread::spawn"],
        allowed: &["threads.rs"],
        why: "threads are started by threads.rs, or one may end by a panic unseen",
    },
    Rule {
        within: "pipeline/",
        names: &["crate::kafka", "crate::plugin"],
        allowed: &[
            "pipeline/port.rs",
            "pipeline/control.rs",
            "pipeline/wiring.rs",
            "pipeline/supervise.rs",
            "pipeline/caller.rs",
            "pipeline/spare.rs",
            "pipeline/handlers.rs",
            "pipeline/reread.rs",
            "pipeline/survey.rs",
            "pipeline/watch.rs",
        ],
        why: "the loop knows its edges by the traits of pipeline/port.rs only",
    },
    Rule {
        within: "pipeline/",
        names: &["tokio", "Instant::now", "SystemTime::now", "std::thread", "crate::threads", "crate::wake"],
        allowed: &[
            "pipeline/wiring.rs",
            "pipeline/control.rs",
            "pipeline/supervise.rs",
            "pipeline/caller.rs",
            "pipeline/handlers.rs",
            "pipeline/reread.rs",
            "pipeline/survey.rs",
            "pipeline/watch.rs",
            "pipeline/stop.rs",
            "pipeline/status.rs",
        ],
        why: "the loop runs under a script, too: time comes as an argument, and it never waits",
    },
];

/// Files that may name nothing from outside std that waits, talks or looks at a clock.
const PURE: [&str; 3] = ["delivery/", "pipeline/lane/", "pipeline/sink.rs"];
const IMPURE: [&str; 8] =
    ["tokio", "rdkafka", "rdkafka_sys", "wasmtime", "tracing", "Instant::now", "SystemTime::now", "std::thread"];

#[test]
fn modules_name_only_what_they_may() {
    let mut found = String::new();
    for source in Source::all(&["host/src"]) {
        let path = source.path.strip_prefix("host/src/").expect("a file of the host");
        for rule in &RULES {
            if path.starts_with(rule.within) && !rule.allowed.iter().any(|allowed| path.starts_with(allowed)) {
                source.report(rule.names, rule.why, &mut found);
            }
        }
        if PURE.iter().any(|pure| path.starts_with(pure)) {
            source.report(&IMPURE, "rules of delivery are pure: facts and `now` come as arguments", &mut found);
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

#[test]
fn files_say_what_they_are_and_stay_readable() {
    let mut found = String::new();
    for source in Source::all(&["host", "plugins", "examples", "tests"]) {
        let Source { path, text, .. } = &source;
        // A crate's text may be its README, which documentation shows as well.
        let header = text.starts_with("//!") || text.starts_with("#![doc = include_str!(\"../README.md\")]");
        if !header {
            writeln!(found, "{path}:1: no header: begin with `//!` and what the file knows and may touch")
                .expect("text");
        }
        let lines = text.lines().count();
        let long = LONG.iter().any(|(long, _)| long == path);
        if lines > LONGEST && !long {
            writeln!(found, "{path}: {lines} lines, at most {LONGEST}: it has more than one job").expect("text");
        }
        for (number, line) in text.lines().enumerate() {
            // Put together here, so that this line is none itself.
            for note in [concat!("TO", "DO"), concat!("FIX", "ME")] {
                if words(line).any(|word| word == note) {
                    let number = number + 1;
                    writeln!(found, "{path}:{number}: a {note}: do it, or say what is missing").expect("text");
                }
            }
        }
    }
    for (path, _) in LONG {
        let lines = std::fs::read_to_string(root().join(path)).map_or(0, |text| text.lines().count());
        if lines <= LONGEST {
            writeln!(found, "{path}: {lines} lines only: take it off the list of long files").expect("text");
        }
    }
    assert!(found.is_empty(), "\n{found}");
}

/// The rules see what they are about.
#[test]
fn names_are_found_in_code_only() {
    let names = |text: &str| {
        let mut found = String::new();
        Source::new("x.rs".to_owned(), text.to_owned()).report(&["tokio", "print!", "Instant::now"], "", &mut found);
        found.lines().count()
    };
    for code in ["use tokio::time;", "a(tokio::x)", "    print!(\"\");", "let now = std::time::Instant::now();"] {
        assert_eq!(names(code), 1, "{code}");
    }
    for text in [
        "// tokio",
        "//! print!(x)",
        "let a = \"tokio\";",
        "tokio_like()",
        "eprint!(x)",
        "#[cfg(test)]\nmod tests {\n tokio",
    ] {
        assert_eq!(names(text), 0, "{text}");
    }
}

struct Source {
    /// From the repository's root, with slashes.
    path: String,
    text: String,
    /// Lines without comments, texts and tests.
    code: Vec<String>,
}

impl Source {
    fn new(path: String, text: String) -> Self {
        let test_file = path.ends_with("/tests.rs") || path.contains("/tests/");
        let mut in_tests = test_file;
        let mut code: Vec<String> = Vec::new();
        for line in text.lines() {
            // `mod tests {` below its attribute, to the brace that ends it.
            in_tests |= code.last().is_some_and(|last| last == "#[cfg(test)]") && line.ends_with('{');
            code.push(if in_tests { String::new() } else { plain(line) });
            in_tests = test_file || in_tests && line != "}";
        }
        Self { path, text, code }
    }

    /// Every Rust file under these directories of the repository.
    fn all(directories: &[&str]) -> Vec<Self> {
        let mut files = Vec::new();
        for directory in directories {
            collect(&root().join(directory), &mut files);
        }
        assert!(files.len() > 10, "the sources are there");
        files.sort();
        let read = |file: PathBuf| {
            let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let path = file.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
            Self::new(path, text)
        };
        files.into_iter().map(read).collect()
    }

    fn report(&self, names: &[&str], why: &str, found: &mut String) {
        for (number, line) in self.code.iter().enumerate() {
            for name in names {
                if has(line, name) {
                    writeln!(found, "{}:{}: `{name}`: {why}", self.path, number + 1).expect("text");
                }
            }
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host lies in the repository")
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "target" {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A line without its comment and what stands in its texts. (Texts over several lines stay; nothing in them looks like code.)
fn plain(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut in_text = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '/' if !in_text && characters.peek() == Some(&'/') => break,
            '\\' if in_text => _ = characters.next(),
            // `'"'` is a character, no text.
            '"' if !kept.ends_with('\'') => in_text = !in_text,
            _ if in_text => continue,
            _ => {}
        }
        if !in_text || c == '"' {
            kept.push(c);
        }
    }
    kept
}

/// Does the line hold the name as a whole?
fn has(line: &str, name: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(name).any(|(at, _)| {
        let after = line[at + name.len()..].chars().next();
        !inside(line[..at].chars().next_back()) && !inside(after.filter(|_| !name.ends_with('!')))
    })
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}
