//! What happened when: into a file, every line with the seconds since the beginning and the machine's clock.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub struct Journal {
    begun: Instant,
    directory: PathBuf,
    file: File,
}

impl Journal {
    /// Begins a journal in a new directory.
    pub fn new(directory: PathBuf) -> Journal {
        std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let path = directory.join("journal.txt");
        let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        eprintln!("journal, logs and transcript: {}", directory.display());
        Journal { begun: Instant::now(), directory, file }
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Where logs and the transcript lie beside it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Notes what happens now; the time it was noted with, milliseconds since 1970.
    pub fn note(&mut self, what: &str) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as i64;
        let line = format!("{:9.3} s  {now}  {what}\n", self.begun.elapsed().as_secs_f64());
        eprint!("{line}");
        self.file.write_all(line.as_bytes()).expect("the journal can be written");
        now
    }
}
