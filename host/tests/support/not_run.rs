//! The loud note of a test that could not run here: a box on stderr and a line in `target/not-run.txt`, because the test
//! runner swallows the output of tests that "pass" and has no summary of its own.
//!
//! With `SLUICEBOX_REQUIRE_KAFKA=1` (continuous integration) such a test fails instead.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Once;

use super::jars::Missing;

/// `target/not-run.txt`, or its place in the target directory that cargo was told to use.
pub fn list() -> PathBuf {
    let scratch = super::scratch();
    scratch.parent().expect("the scratch directory lies inside the target directory").join("not-run.txt")
}

/// Says that `test` does not run because of `missing`, or fails where that is not allowed.
pub fn report(test: &str, missing: &Missing) {
    assert!(!required(), "{test}: SLUICEBOX_REQUIRE_KAFKA is set, but {missing}");
    let text = format!("NOT RUN: {test}: {missing}");
    let rule = "=".repeat(text.len().min(110) + 4);
    // Not `eprintln!`: the test runner would capture it.
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "\n{rule}\n| {text}\n{rule}").expect("stderr is open");
    append(&text);
}

fn required() -> bool {
    std::env::var("SLUICEBOX_REQUIRE_KAFKA").is_ok_and(|value| !value.is_empty() && value != "0")
}

fn append(text: &str) {
    forget_earlier_runs();
    let path = list();
    let written = File::options().create(true).append(true).open(&path).and_then(|mut file| {
        let line = format!("{} {text}\n", program());
        file.write_all(line.as_bytes())
    });
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Drops what an earlier run of this test program left in the list; called before the first Kafka test decides.
pub fn forget_earlier_runs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let path = list();
        let Ok(text) = std::fs::read_to_string(&path) else { return };
        let prefix = format!("{} ", program());
        let kept: String =
            text.lines().filter(|line| !line.starts_with(&prefix)).map(|line| format!("{line}\n")).collect();
        let done = if kept.is_empty() { std::fs::remove_file(&path) } else { std::fs::write(&path, kept) };
        done.unwrap_or_else(|error| panic!("cannot update {}: {error}", path.display()));
    });
}

/// The test program's name without cargo's hash.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_owned())
}
