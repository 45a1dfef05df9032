//! What one handler instance writes for people: its log, standard output and standard error, as whole lines that are
//! cut, escaped and rate limited (with all of its pipeline) before anybody else sees them. Also keeps the last of them, which say why a guest gave up.
//! Knows nothing of who reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use wasmtime::component::{ComponentType, Lift};

use super::fault::Fault;
use super::limits::HandlerLimits;
use super::place::Place;
use crate::config::format_size;
use crate::handler_usage::Usage;

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

impl LogLevel {
    /// As in `wit/log.wit`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Where a handler's lines go.
pub trait HandlerLog: Send + Sync {
    /// False when nobody would see a line of this level.
    fn enabled(&self, level: LogLevel) -> bool;
    /// One line without control characters, of the call that is about `place`; `truncated` when there was more of it than
    /// a line may have.
    fn line(&self, level: LogLevel, line: &str, truncated: bool, place: Option<&Place>);
    /// A call ended without an answer.
    fn fault(&self, fault: &Fault, place: Option<&Place>);
}

/// Lines that are kept for the report of a fault.
const TAIL: usize = 20;

/// Which of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What a line came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The log import, at this level.
    Log(LogLevel),
}

impl LineSource {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Log(level) => level.name(),
        }
    }
}

/// One of the last lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailLine {
    /// What it came by.
    pub source: LineSource,
    /// Its text, cut and escaped.
    pub text: String,
    /// It was written in the call that ended now.
    pub of_this_call: bool,
}

/// One instance's lines. Shared by the log import and the two streams of one store, so the lock is never waited for.
pub(super) struct Output {
    log: Arc<dyn HandlerLog>,
    usage: Arc<Usage>,
    limits: HandlerLimits,
    lines: Mutex<Lines>,
}

struct Lines {
    place: Option<Place>,
    stdout: Pending,
    stderr: Pending,
    tail: VecDeque<TailLine>,
}

/// The beginning of a line whose end has not been written yet.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// More came than is kept.
    truncated: bool,
}

impl Output {
    pub(super) fn new(
        log: Arc<dyn HandlerLog>,
        usage: Arc<Usage>,
        limits: &HandlerLimits,
        place: Option<Place>,
    ) -> Self {
        let lines = Lines {
            place,
            stdout: Pending::default(),
            stderr: Pending::default(),
            tail: VecDeque::with_capacity(TAIL),
        };
        Self { log, usage, limits: limits.clone(), lines: Mutex::new(lines) }
    }

    /// A call begins; `place` changes what it is about.
    pub(super) fn begin_call(&self, place: impl FnOnce(&mut Option<Place>)) {
        let lines = &mut *self.lock();
        place(&mut lines.place);
        lines.tail.iter_mut().for_each(|line| line.of_this_call = false);
    }

    /// What the call is about.
    pub(super) fn place(&self) -> Option<Place> {
        self.lock().place.clone()
    }

    pub(super) fn fault(&self, fault: &Fault) {
        let place = self.place();
        self.log.fault(fault, place.as_ref());
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
            let (line, truncated) = clean(message.as_bytes(), false, self.longest());
            let lines = &mut *self.lock();
            self.say(lines, level, &line, truncated);
            lines.keep(LineSource::Log(level), line);
        }
    }

    fn longest(&self) -> usize {
        usize::try_from(self.limits.log_line).unwrap_or(usize::MAX)
    }

    /// Bytes of a standard stream.
    pub(super) fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let lines = &mut *self.lock();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            lines.pending(stream).push(&bytes[..end], self.longest());
            self.end_line(lines, stream);
            bytes = &bytes[end + 1..];
        }
        lines.pending(stream).push(bytes, self.longest());
    }

    /// Ends what has no line break yet and says how many lines were dropped: the instance is about to go.
    pub(super) fn finish(&self) {
        let lines = &mut *self.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !lines.pending(stream).bytes.is_empty() {
                self.end_line(lines, stream);
            }
        }
        if let Some(dropped) = self.usage.dropped_since(&self.limits, Instant::now()) {
            self.say_dropped(lines, dropped);
        }
    }

    /// The last lines, oldest first.
    pub(super) fn tail(&self) -> Vec<TailLine> {
        self.lock().tail.iter().cloned().collect()
    }

    fn end_line(&self, lines: &mut Lines, stream: Stream) {
        let pending = lines.pending(stream);
        let bytes = pending.bytes.strip_suffix(b"\r").unwrap_or(&pending.bytes);
        let (line, truncated) = clean(bytes, pending.truncated, self.longest());
        pending.bytes.clear();
        pending.truncated = false;
        // An empty line says nothing (Rust begins its panic message with one).
        if line.is_empty() {
            return;
        }
        let (level, source) = match stream {
            Stream::Stdout => (LogLevel::Info, LineSource::Stdout),
            Stream::Stderr => (LogLevel::Error, LineSource::Stderr),
        };
        if self.log.enabled(level) {
            self.say(lines, level, &line, truncated);
        }
        lines.keep(source, line);
    }

    fn say(&self, lines: &mut Lines, level: LogLevel, line: &str, truncated: bool) {
        let Some(dropped) = self.usage.may_write(line.len(), &self.limits, Instant::now()) else { return };
        if dropped > 0 {
            self.say_dropped(lines, dropped);
        }
        self.log.line(level, line, truncated, lines.place.as_ref());
    }

    fn say_dropped(&self, lines: &Lines, dropped: u64) {
        let rate = format_size(self.limits.log_rate);
        let text = format!("{dropped} lines of this handler were dropped: it writes more than {rate}/s");
        self.log.line(LogLevel::Warn, &text, false, lines.place.as_ref());
    }
}

impl Lines {
    const fn pending(&mut self, stream: Stream) -> &mut Pending {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn keep(&mut self, source: LineSource, text: String) {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(TailLine { source, text, of_this_call: true });
    }
}

impl Pending {
    fn push(&mut self, bytes: &[u8], longest: usize) {
        let kept = bytes.len().min(longest - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..kept]);
        self.truncated |= kept < bytes.len();
    }
}

/// A line as people may see it: so many bytes of UTF-8, control characters and what reorders text escaped.
fn clean(bytes: &[u8], already_cut: bool, longest: usize) -> (String, bool) {
    let mut line = String::with_capacity(bytes.len().min(longest));
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
        let fits = line.len() <= longest;
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

    const LINE: usize = 4 << 10;

    #[derive(Default)]
    struct Kept(Mutex<Vec<(LogLevel, String, bool, String)>>);

    impl HandlerLog for Kept {
        fn enabled(&self, level: LogLevel) -> bool {
            level >= LogLevel::Info
        }

        fn line(&self, level: LogLevel, line: &str, truncated: bool, place: Option<&Place>) {
            let place = place.map(ToString::to_string).unwrap_or_default();
            self.0.lock().expect("no panic").push((level, line.to_owned(), truncated, place));
        }

        fn fault(&self, _: &Fault, _: Option<&Place>) {}
    }

    fn output() -> (Arc<Kept>, Output) {
        let kept = Arc::new(Kept::default());
        (Arc::clone(&kept), Output::new(kept, Arc::default(), &HandlerLimits::default(), None))
    }

    fn lines(kept: &Kept) -> Vec<String> {
        kept.0.lock().expect("no panic").iter().map(|(level, line, cut, _)| format!("{level:?} {line} {cut}")).collect()
    }

    #[test]
    fn streams_become_lines() {
        let (kept, output) = output();
        output.write(Stream::Stdout, b"one\ntw");
        output.write(Stream::Stderr, b"oh\r\n\n");
        output.write(Stream::Stdout, b"o\nthr");
        output.finish();
        assert_eq!(lines(&kept), ["Info one false", "Error oh false", "Info two false", "Info thr false"]);
        let tail: Vec<_> =
            output.tail().into_iter().map(|line| format!("{} {}", line.source.name(), line.text)).collect();
        assert_eq!(tail, ["stdout one", "stderr oh", "stdout two", "stdout thr"]);
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
        for length in [LINE - 1, LINE, LINE + 1] {
            output.log(LogLevel::Info, &"x".repeat(length));
            output.write(Stream::Stdout, "y".repeat(length).as_bytes());
            output.write(Stream::Stdout, b"\n");
        }
        // Two-byte characters do not end at the limit; a line is never cut inside of one.
        output.log(LogLevel::Info, &format!("x{}", "é".repeat(LINE)));
        let seen: Vec<_> =
            kept.0.lock().expect("no panic").iter().map(|(_, line, cut, _)| (line.len(), *cut)).collect();
        let (below, at, over) = ((LINE - 1, false), (LINE, false), (LINE, true));
        assert_eq!(seen, [below, below, at, at, over, over, (LINE - 1, true)]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let (_, output) = output();
        for _ in 0..1000 {
            output.write(Stream::Stderr, &[b'z'; 1000]);
        }
        assert_eq!(output.lock().stderr.bytes.len(), LINE);
    }

    /// Proves: what is over the rate is dropped and counted, for all instances of the pipeline together.
    #[test]
    fn floods_are_dropped_and_counted() {
        let limits = HandlerLimits { log_rate: 1, log_burst: 10 << 10, ..HandlerLimits::default() };
        let (kept, usage) = (Arc::new(Kept::default()), Arc::<Usage>::default());
        let outputs: [Output; 2] = std::array::from_fn(|_| {
            Output::new(Arc::clone(&kept) as Arc<dyn HandlerLog>, Arc::clone(&usage), &limits, None)
        });
        for _ in 0..10 {
            outputs.iter().for_each(|output| output.log(LogLevel::Info, &"x".repeat(1024)));
        }
        assert_eq!(lines(&kept).len(), 10);
        outputs[1].finish();
        let expected = "Warn 10 lines of this handler were dropped: it writes more than 1B/s false";
        assert_eq!(lines(&kept)[10..], [expected]);
        assert_eq!((usage.lines(), usage.dropped_lines()), (10, 10));
    }

    #[test]
    fn the_tail_keeps_the_last_lines_and_knows_those_of_the_call() {
        let (kept, output) = output();
        for i in 0..50 {
            output.write(Stream::Stderr, format!("line {i}\n").as_bytes());
        }
        let place = Place { topic: "orders".into(), partition: 1, offsets: Some((5, 5)), messages: 1, attempt: 1 };
        output.begin_call(|now| *now = Some(place));
        output.log(LogLevel::Info, "of the call");
        let tail = output.tail();
        assert_eq!((tail.len(), tail[0].text.as_str(), tail[18].text.as_str()), (20, "line 31", "line 49"));
        let last =
            TailLine { source: LineSource::Log(LogLevel::Info), text: "of the call".to_owned(), of_this_call: true };
        assert_eq!((&tail[19], tail[18].of_this_call), (&last, false));
        let places: Vec<_> = kept.0.lock().expect("no panic")[49..].iter().map(|(.., place)| place.clone()).collect();
        assert_eq!(places, ["", "orders[1]@5"]);
    }
}
