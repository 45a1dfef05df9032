//! What went wrong in a call: class and text. Reads wasmtime's errors; decides nothing about what follows.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::instance::State;
use super::limits::{HandlerLimits, MemoryRefused};
use super::meter::RunningTimeOver;
use super::output::{LineSource, TailLine};
use super::runtime::BACKTRACE_FRAMES;
use crate::config::format_size;

/// Frames of a backtrace that are shown.
const SHOWN: usize = 8;
/// Endless recursion of up to so many functions that call each other is recognised.
const RECURSIVE: usize = 16;

/// What compilers for WebAssembly make for large locals, beside the call stack. Its size is the component's own.
const STACK_IN_MEMORY: &str = "the handler's stack in memory";

/// Class of a fault; the same names in metrics, reports and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultClass {
    /// The handler gave up with a message.
    Panic,
    /// Any other trap: unreachable code, division by zero, memory out of bounds, a misused host function.
    Trap,
    /// Used up its running time.
    Deadline,
    /// Took too long from entry to answer, waiting included.
    WallClock,
    /// Wanted more memory than it may have.
    Memory,
    /// Ran out of stack.
    Stack,
    /// An answer that breaks the contract.
    BadAnswer,
    /// Called `exit`, with whatever code.
    Exit,
    /// Handed more to the host than it may in one call.
    OutputLimit,
    /// `init` said no.
    Init,
    /// Not the handler's doing.
    Host,
}

impl FaultClass {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Panic,
        Self::Trap,
        Self::Deadline,
        Self::WallClock,
        Self::Memory,
        Self::Stack,
        Self::BadAnswer,
        Self::Exit,
        Self::OutputLimit,
        Self::Init,
        Self::Host,
    ];

    /// Its name in metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::WallClock => "wall_clock",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::BadAnswer => "bad_answer",
            Self::Exit => "exit",
            Self::OutputLimit => "output_limit",
            Self::Init => "init",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for FaultClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call that gave no answer. The instance is not to be called again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub class: FaultClass,
    /// The reason, for people. A panic's message may have several lines.
    pub text: String,
    /// Functions of the handler that were running, innermost first, with their lines where the component has debug
    /// information.
    pub frames: Vec<String>,
    /// What the guest wrote last, in whatever way, oldest first.
    pub tail: Vec<TailLine>,
    /// What to do, where there is more to say than "look at the code".
    pub advice: Option<String>,
}

impl Fault {
    pub(super) fn new(class: FaultClass, text: impl Into<String>) -> Self {
        Self { class, text: text.into(), frames: Vec::new(), tail: Vec::new(), advice: None }
    }

    /// Names an error that ended a call. `entered` is false when the component was still being instantiated, where an
    /// error without guest code on the stack is ours.
    pub(super) fn of(error: &wasmtime::Error, state: &State, entered: bool) -> Self {
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
        state.output.finish();
        let (class, text) = classify(error, state, frames, &state.output.tail(), entered);
        Self { frames: shown_frames(frames), ..Self::new(class, text) }.with_state(state)
    }

    /// Adds what the instance's state knows.
    pub(super) fn with_state(mut self, state: &State) -> Self {
        state.output.finish();
        self.tail = state.output.tail();
        // What names its limit already needs no advice.
        self.advice = if self.text.starts_with(STACK_IN_MEMORY) {
            Some("if it needs more, build it with more (Rust: `-C link-arg=-zstack-size=BYTES`)".to_owned())
        } else {
            advice(self.class, &state.config.limits).filter(|_| !self.text.contains("[handler.limits]"))
        };
        self
    }

    /// The reason with its place, short enough for a status or the header of a dead letter.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.frames.first() {
            // The message of a panic says where it was.
            Some(frame) if self.class != FaultClass::Panic => format!("{} (in {frame})", self.text),
            _ => self.text.clone(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.summary())
    }
}

impl std::error::Error for Fault {}

fn classify(
    error: &wasmtime::Error,
    state: &State,
    frames: &[wasmtime::FrameInfo],
    tail: &[TailLine],
    entered: bool,
) -> (FaultClass, String) {
    if let Some(over) = error.downcast_ref::<RunningTimeOver>() {
        return (FaultClass::Deadline, over.to_string());
    }
    if let Some(refused) = error.downcast_ref::<MemoryRefused>() {
        return (FaultClass::Memory, refused.to_string());
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        return (FaultClass::Exit, format!("the handler ended itself by exit({code}); it has to return instead"));
    }
    let root = error.root_cause().to_string();
    // The error's type is private to wasmtime; a test holds on to the text.
    if root.contains("fuel allocated for hostcalls has been exhausted") {
        let limit = state.config.limits.answer_bytes;
        let text = format!("the handler handed over more than {limit} bytes (or twice its input) in one call");
        return (FaultClass::OutputLimit, text);
    }
    if let Some(limit) = exceeded(&root, &state.config.limits) {
        return (FaultClass::Memory, limit);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) if state.limits.growth_failed() || allocation_failed(tail) => {
            (FaultClass::Memory, "the handler gave up after its memory could not grow".to_owned())
        }
        Some(Trap::UnreachableCodeReached) => match panic_message(tail) {
            Some(message) => (FaultClass::Panic, message),
            None => (FaultClass::Trap, root),
        },
        Some(Trap::StackOverflow) => {
            let limit = format_size(state.config.limits.stack);
            (FaultClass::Stack, format!("the handler's call stack of {limit} is used up"))
        }
        // Compilers for WebAssembly keep large locals on a stack in memory, which mostly ends first.
        Some(Trap::MemoryOutOfBounds) if endless(frames) => {
            (FaultClass::Stack, format!("{STACK_IN_MEMORY} is used up by recursion"))
        }
        Some(Trap::Interrupt) => (FaultClass::Deadline, root),
        Some(Trap::CannotEnterComponent | Trap::AsyncDeadlock) => (FaultClass::Host, root),
        // With guest code on the stack it is a trap; without any, the host was reading the answer.
        _ if !frames.is_empty() => (FaultClass::Trap, root),
        _ if entered => (FaultClass::BadAnswer, format!("the answer cannot be read: {root}")),
        _ => (FaultClass::Host, format!("the component cannot be instantiated: {error:#}")),
    }
}

/// Names the limit on things that are counted. Their errors' types are private to wasmtime; tests hold on to the texts.
fn exceeded(root: &str, limits: &HandlerLimits) -> Option<String> {
    let counted = [
        ("instance count too high", "core instances", "instances", limits.instances),
        ("memory count too high", "memories", "memories", limits.memories),
        ("table count too high", "tables", "tables", limits.tables),
        ("handle limit exceeded", "handles", "handles", limits.handles),
        ("resource table has no free keys", "handles", "handles", limits.handles),
    ];
    if root.contains("total size of fields exceeds limit") || root.contains("too many fields in the field map") {
        let limit = format_size(limits.http_fields);
        return Some(format!(
            "the handler made more than {limit} of HTTP headers, its limit (`http_fields` in [handler.limits])"
        ));
    }
    let (_, what, key, limit) = counted.into_iter().find(|(text, ..)| root.contains(text))?;
    Some(format!("the handler asked for more than {limit} {what}, its limit (`{key}` in [handler.limits])"))
}

/// What to do about a fault that a limit made, by the names that a manifest has for them.
fn advice(class: FaultClass, limits: &HandlerLimits) -> Option<String> {
    let more = |keys: &str| Some(format!("if it needs more, raise {keys} in [handler.limits]"));
    match class {
        FaultClass::Deadline => more("`running_time` (a message) or `batch_running_time` (a batch)"),
        FaultClass::WallClock => more("`wall_time` (a message) or `batch_wall_time` (a batch)"),
        FaultClass::Memory => more(&format!("`memory`, now \"{}\",", format_size(limits.memory))),
        FaultClass::Stack => more(&format!("`stack`, now \"{}\",", format_size(limits.stack))),
        FaultClass::OutputLimit => more(&format!("`answer_bytes`, now \"{}\",", format_size(limits.answer_bytes))),
        FaultClass::Exit => Some("return an error instead of ending the process".to_owned()),
        FaultClass::Init => Some("see `settings` in [handler]".to_owned()),
        FaultClass::Panic | FaultClass::Trap | FaultClass::BadAnswer | FaultClass::Host => None,
    }
}

/// Lines of standard error that were written in the call that ended, without Rust's hint at a variable of the
/// environment, which a guest has none of.
fn said_last(tail: &[TailLine]) -> Vec<&str> {
    let now = tail.iter().filter(|line| line.of_this_call && line.source == LineSource::Stderr);
    now.map(|line| line.text.as_str()).filter(|text| !text.starts_with("note: run with `RUST_BACKTRACE")).collect()
}

/// Rust's allocator gives up with a line of its own, also when it did not even try to grow.
fn allocation_failed(tail: &[TailLine]) -> bool {
    said_last(tail).last().is_some_and(|line| line.starts_with("memory allocation of "))
}

/// What the guest's language runtime wrote before it gave up. Rust: `thread … panicked at FILE:LINE:COLUMN:` and the
/// message below; Go: `panic: MESSAGE`.
fn panic_message(tail: &[TailLine]) -> Option<String> {
    let lines = said_last(tail);
    let at = lines.iter().rposition(|line| line.contains("panicked at ") || line.starts_with("panic: "))?;
    let mut message = lines[at].find("panicked at ").map_or(lines[at], |from| &lines[at][from..]).to_owned();
    for line in &lines[at + 1..] {
        message.push(if message.ends_with(':') { ' ' } else { '\n' });
        message.push_str(line);
    }
    Some(message)
}

/// Deeper than is kept, of few different functions.
fn endless(frames: &[wasmtime::FrameInfo]) -> bool {
    let mut functions: Vec<_> = frames.iter().map(wasmtime::FrameInfo::func_index).collect();
    functions.sort_unstable();
    functions.dedup();
    frames.len() >= BACKTRACE_FRAMES && functions.len() <= RECURSIVE
}

/// The innermost frames, those inlined into others included. Frames of Rust's own library are left out where the
/// handler's own are known: nearly every fault begins in a dozen of them.
fn shown_frames(frames: &[wasmtime::FrameInfo]) -> Vec<String> {
    let mut all = Vec::new();
    for frame in frames {
        let symbols = frame.symbols();
        // The last symbol is the function itself; the module's name section knows it with its path, DWARF without.
        let name = frame.func_name().map_or_else(
            || format!("function {}", frame.func_index()),
            |name| format!("{:#}", rustc_demangle::demangle(name)),
        );
        if symbols.is_empty() {
            all.push((name, false));
            continue;
        }
        for (i, symbol) in symbols.iter().enumerate() {
            let inlined = symbol.name().filter(|_| i + 1 < symbols.len());
            let mut line = inlined.unwrap_or(&name).to_owned();
            let file = symbol.file().unwrap_or_default();
            if !file.is_empty() {
                line = format!("{line} ({file}:{})", symbol.line().unwrap_or_default());
            }
            all.push((line, !file.is_empty() && !file.starts_with("/rustc/")));
        }
    }
    let own = all.iter().any(|(_, of_handler)| *of_handler);
    all.into_iter().filter(|(_, of_handler)| *of_handler || !own).take(SHOWN).map(|(line, _)| line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: &[&str]) -> Vec<TailLine> {
        let line = |text: &&str| TailLine { source: LineSource::Stderr, text: (*text).to_owned(), of_this_call: true };
        lines.iter().map(line).collect()
    }

    #[test]
    fn panic_messages_are_found() {
        let rust = tail(&[
            "before",
            "thread '<unnamed>' (1) panicked at src/lib.rs:7:9:",
            "first line",
            "second line",
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
        ]);
        assert_eq!(panic_message(&rust).as_deref(), Some("panicked at src/lib.rs:7:9: first line\nsecond line"));
        let go = tail(&["panic: no more [recovered]"]);
        assert_eq!(panic_message(&go).as_deref(), Some("panic: no more [recovered]"));
        assert_eq!(panic_message(&tail(&["all is well"])), None);
    }

    /// Goal: a handler that recovers from panics, or prints something like one, does not lend it to a later trap.
    #[test]
    fn only_this_calls_standard_error_explains_its_end() {
        let mut earlier = tail(&["panic: of an earlier call"]);
        earlier[0].of_this_call = false;
        assert_eq!(panic_message(&earlier), None);
        let mut printed = tail(&["panic: only printed"]);
        printed[0].source = LineSource::Stdout;
        assert_eq!(panic_message(&printed), None);
        assert!(allocation_failed(&tail(&["memory allocation of 5 bytes failed"])));
        assert!(!allocation_failed(&tail(&["memory allocation of 5 bytes failed", "and it went on"])));
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        let names: Vec<_> = FaultClass::ALL.iter().map(|class| class.name()).collect();
        let documented = "panic trap deadline wall_clock memory stack bad_answer exit output_limit init host";
        assert_eq!(names.join(" "), documented);
    }
}
