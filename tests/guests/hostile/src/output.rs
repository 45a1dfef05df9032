//! Writes more than anybody reads, and looks at what it should not see.

use std::io::Write as _;

use crate::sluicebox::plugin::log::{self, Level};

pub fn say(text: &str) {
    log::log(Level::Warn, text);
}

/// So many lines of 1,000 bytes, by all three ways.
pub fn flood(lines: u64) {
    let line = "y".repeat(1000);
    for _ in 0..lines / 3 {
        say(&line);
        println!("{line}");
        eprintln!("{line}");
    }
}

/// A line of so many MiB.
pub fn line(mebibytes: u64) {
    let part = vec![b'z'; 1 << 20];
    let mut out = std::io::stderr().lock();
    (0..mebibytes).for_each(|_| _ = out.write_all(&part));
}

/// What would move a terminal's cursor, or end a line in a log.
pub fn escapes() {
    println!("\u{1b}[2J\u{1b}]0;owned\u{7}\rover\u{202e}txt.exe\u{0}end");
    say("one\r\ntwo\nthree");
}

pub fn empty_writes(count: u64) {
    let out = wasip2::cli::stdout::get_stdout();
    (0..count).for_each(|_| _ = out.write(&[]));
}

/// All that there is to see outside.
pub fn look() {
    let root = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 1);
    say(&format!(
        "args={} env={} stdin={} random={}",
        std::env::args().count(),
        std::env::vars().count(),
        std::io::stdin().read_line(&mut String::new()).map_or(0, |bytes| bytes),
        root != 0,
    ));
    let (begin, mut steps) = (wasip2::clocks::monotonic_clock::now(), Vec::new());
    while steps.len() < 5 {
        let step = wasip2::clocks::monotonic_clock::now() - begin;
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    say(&format!("steps {steps:?} of {}", wasip2::clocks::monotonic_clock::resolution()));
}
