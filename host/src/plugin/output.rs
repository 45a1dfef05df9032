//! What one handler instance writes for people: its log, standard output and standard error, as whole lines that are
//! cut, escaped and rate limited before anybody else sees them. Also keeps the last lines of standard error, which say
//! why a guest gave up. Knows nothing of who reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wasmtime::component::{ComponentType, Lift};

/// Level of a log line, as in `wit/log.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

/// Where a handler's lines go.
pub trait HandlerLog: Send + Sync {
    /// False when nobody would see a line of this level.
    fn enabled(&self, level: LogLevel) -> bool;
    /// One line of at most 4 KiB, without control characters; `truncated` when there was more of it.
    fn line(&self, level: LogLevel, line: &str, truncated: bool);
}

/// Bytes of one line; what is longer is cut.
pub(super) const LINE: usize = 4 << 10;
/// Bytes a second, and how many at once after a quiet time.
const RATE: u64 = 64 << 10;
const BURST: u64 = 256 << 10;
/// Lines of standard error that are kept for the text of a fault.
const TAIL: usize = 20;

/// Which of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// One instance's lines. Shared by the log import and the two streams of one store, so the lock is never waited for.
pub(super) struct Output {
    log: Arc<dyn HandlerLog>,
    lines: Mutex<Lines>,
}

struct Lines {
    stdout: Pending,
    stderr: Pending,
    tail: VecDeque<String>,
    bucket: Bucket,
}

/// The beginning of a line whose end has not been written yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// More came than is kept.
    truncated: bool,
}

/// How much may still be said. Full at first.
struct Bucket {
    bytes: u64,
    filled: Instant,
    dropped: u64,
}

impl Output {
    pub(super) fn new(log: Arc<dyn HandlerLog>) -> Self {
        let bucket = Bucket { bytes: BURST, filled: Instant::now(), dropped: 0 };
        let lines = Lines {
            stdout: Pending::default(),
            stderr: Pending::default(),
            tail: VecDeque::with_capacity(TAIL),
            bucket,
        };
        Self { log, lines: Mutex::new(lines) }
    }

    pub(super) fn enabled(&self, level: LogLevel) -> bool {
        self.log.enabled(level)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of the log import. Line breaks inside are escaped.
    pub(super) fn log(&self, level: LogLevel, message: &str) {
        if self.log.enabled(level) {
            let (line, truncated) = clean(message.as_bytes(), false);
            self.say(&mut self.lock().bucket, level, &line, truncated);
        }
    }

    /// Bytes of a standard stream.
    pub(super) fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let lines = &mut *self.lock();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            lines.pending(stream).push(&bytes[..end]);
            self.end_line(lines, stream);
            bytes = &bytes[end + 1..];
        }
        lines.pending(stream).push(bytes);
    }

    /// Ends what has no line break yet and says how many lines were dropped: the instance is about to go.
    pub(super) fn finish(&self) {
        let lines = &mut *self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !lines.pending(stream).bytes.is_empty() {
                self.end_line(lines, stream);
            }
        }
        self.say_dropped(&mut lines.bucket);
    }

    /// The last lines of standard error, oldest first.
    pub(super) fn tail(&self) -> Vec<String> {
        self.lock().tail.iter().cloned().collect()
    }

    fn end_line(&self, lines: &mut Lines, stream: Stream) {
        let pending = lines.pending(stream);
        let bytes = pending.bytes.strip_suffix(b"\r").unwrap_or(&pending.bytes);
        let (line, truncated) = clean(bytes, pending.truncated);
        pending.bytes.clear();
        pending.truncated = false;
        let level = if stream == Stream::Stdout { LogLevel::Info } else { LogLevel::Error };
        // An empty line says nothing (Rust begins its panic message with one).
        if !line.is_empty() && self.log.enabled(level) {
            self.say(&mut lines.bucket, level, &line, truncated);
        }
        if stream == Stream::Stderr && !line.is_empty() {
            if lines.tail.len() == TAIL {
                lines.tail.pop_front();
            }
            lines.tail.push_back(line);
        }
    }

    fn say(&self, bucket: &mut Bucket, level: LogLevel, line: &str, truncated: bool) {
        bucket.fill(Instant::now());
        // An empty line costs a byte: nothing is free, or there is no limit.
        let cost = line.len().max(1) as u64;
        if bucket.bytes < cost {
            bucket.dropped += 1;
            return;
        }
        bucket.bytes -= cost;
        self.say_dropped(bucket);
        self.log.line(level, line, truncated);
    }

    fn say_dropped(&self, bucket: &mut Bucket) {
        if bucket.dropped > 0 {
            let text = format!("{} lines of this handler were dropped: it writes more than 64 KiB/s", bucket.dropped);
            bucket.dropped = 0;
            self.log.line(LogLevel::Warn, &text, false);
        }
    }
}

impl Lines {
    const fn pending(&mut self, stream: Stream) -> &mut Pending {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Pending {
    fn push(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(LINE - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.truncated |= kept < bytes.len();
    }
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_micros();
        let gained = u64::try_from(elapsed * u128::from(RATE) / 1_000_000).unwrap_or(BURST);
        // Only whole bytes are taken from the clock, so that many small steps fill as much as a large one.
        if gained > 0 {
            self.bytes = BURST.min(self.bytes.saturating_add(gained));
            self.filled = now;
        }
    }
}

/// A line as people may see it: at most [`LINE`] bytes of UTF-8, control characters and what reorders text escaped.
fn clean(bytes: &[u8], already_cut: bool) -> (String, bool) {
    let mut line = String::with_capacity(bytes.len().min(LINE));
    let push = |line: &mut String, c: char| {
        let before = line.len();
        match c {
            // What changes the direction or the lines of a text without being seen.
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                line.extend(c.escape_unicode());
            }
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
        let fits = line.len() <= LINE;
        if !fits {
            line.truncate(before);
        }
        fits
    };
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        for c in chunk.valid().chars() {
            if !push(&mut line, c) {
                return (line, true);
            }
        }
        // Where the bytes were cut inside a character, the rest of it is no error of the guest's.
        let halved = already_cut && chunks.peek().is_none();
        if !chunk.invalid().is_empty() && !halved && !push(&mut line, char::REPLACEMENT_CHARACTER) {
            return (line, true);
        }
    }
    (line, already_cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(LogLevel, String, bool)>>);

    impl HandlerLog for Kept {
        fn enabled(&self, level: LogLevel) -> bool {
            level >= LogLevel::Info
        }

        fn line(&self, level: LogLevel, line: &str, truncated: bool) {
            self.0.lock().expect("no panic").push((level, line.to_owned(), truncated));
        }
    }

    fn output() -> (Arc<Kept>, Output) {
        let kept = Arc::new(Kept::default());
        (Arc::clone(&kept), Output::new(kept))
    }

    fn lines(kept: &Kept) -> Vec<String> {
        kept.0.lock().expect("no panic").iter().map(|(level, line, cut)| format!("{level:?} {line} {cut}")).collect()
    }

    #[test]
    fn streams_become_lines() {
        let (kept, output) = output();
        output.write(Stream::Stdout, b"one\ntw");
        output.write(Stream::Stderr, b"oh\r\n\n");
        output.write(Stream::Stdout, b"o\nthr");
        output.finish();
        assert_eq!(lines(&kept), ["Info one false", "Error oh false", "Info two false", "Info thr false"]);
        assert_eq!(output.tail(), ["oh"]);
    }

    #[test]
    fn lines_are_escaped() {
        let (kept, output) = output();
        output.log(LogLevel::Warn, "a\nb\tc\u{1b}[31m\u{7f}\u{202e}d\u{0}é");
        output.log(LogLevel::Debug, "nobody looks");
        output.write(Stream::Stdout, b"\xff\xfe.\n");
        assert_eq!(
            lines(&kept),
            [r"Warn a\nb\tc\u{1b}[31m\u{7f}\u{202e}d\u{0}é false", "Info \u{fffd}\u{fffd}. false"]
        );
    }

    #[test]
    fn lines_are_cut_at_the_limit() {
        let (kept, output) = output();
        for extra in [0, 1] {
            output.log(LogLevel::Info, &"x".repeat(LINE + extra));
            output.write(Stream::Stdout, "y".repeat(LINE + extra).as_bytes());
            output.write(Stream::Stdout, b"\n");
        }
        // Two-byte characters do not end at the limit; a line is never cut inside of one.
        output.log(LogLevel::Info, &format!("x{}", "é".repeat(LINE)));
        let seen: Vec<_> = kept.0.lock().expect("no panic").iter().map(|(_, line, cut)| (line.len(), *cut)).collect();
        assert_eq!(seen, [(LINE, false), (LINE, false), (LINE, true), (LINE, true), (LINE - 1, true)]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let (_, output) = output();
        for _ in 0..1000 {
            output.write(Stream::Stderr, &[b'z'; 1000]);
        }
        assert_eq!(output.lock().stderr.bytes.len(), LINE);
    }

    #[test]
    fn floods_are_dropped_and_counted() {
        let (kept, output) = output();
        let line = "x".repeat(1024);
        // Method: the bucket's clock is set, not waited for; in the future nothing flows in.
        let later = Instant::now() + Duration::from_secs(3600);
        for _ in 0..300 {
            output.lock().bucket.filled = later;
            output.log(LogLevel::Info, &line);
        }
        assert_eq!(kept.0.lock().expect("no panic").len(), 256);
        output.lock().bucket.fill(later + Duration::from_millis(500));
        for _ in 0..100 {
            output.log(LogLevel::Info, &line);
        }
        let all = lines(&kept);
        assert_eq!(all.len(), 256 + 1 + 32);
        assert_eq!(all[256], "Warn 44 lines of this handler were dropped: it writes more than 64 KiB/s false");
        output.finish();
        assert!(lines(&kept)[289].starts_with("Warn 68 lines"), "{}", lines(&kept)[289]);
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let (_, output) = output();
        for i in 0..50 {
            output.write(Stream::Stderr, format!("line {i}\n").as_bytes());
        }
        let tail = output.tail();
        assert_eq!((tail.len(), tail[0].as_str(), tail[19].as_str()), (20, "line 30", "line 49"));
    }
}
