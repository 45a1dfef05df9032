//! What went wrong in a call: class and text. Reads wasmtime's errors; decides nothing about what follows.

use std::fmt;

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::instance::State;
use super::limits::{MemoryRefused, RunningTimeOver};
use super::runtime::BACKTRACE_FRAMES;

/// Frames of a backtrace that are shown.
const SHOWN: usize = 8;
/// Endless recursion of up to so many functions that call each other is recognised.
const RECURSIVE: usize = 16;

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {text}")]
pub struct Fault {
    /// What kind.
    pub class: FaultClass,
    /// For people: the reason, then lines of standard error and the backtrace where there are any.
    pub text: String,
}

impl Fault {
    pub(super) fn new(class: FaultClass, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }

    /// Names an error that ended a call. `entered` is false when the component was still being instantiated, where an
    /// error without guest code on the stack is ours.
    pub(super) fn of(error: &wasmtime::Error, state: &State, entered: bool) -> Self {
        state.output.finish();
        let tail = state.output.tail();
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
        let (class, mut text) = classify(error, state, frames, &tail, entered);
        // A panic's text is from there; of the rest, what was said last may explain it.
        if class != FaultClass::Panic {
            for line in &tail[tail.len().saturating_sub(3)..] {
                text.push_str("\n    stderr: ");
                text.push_str(line);
            }
        }
        show_frames(frames, &mut text);
        Self { class, text }
    }
}

fn classify(
    error: &wasmtime::Error,
    state: &State,
    frames: &[wasmtime::FrameInfo],
    tail: &[String],
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
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) if state.limits.growth_failed() => {
            (FaultClass::Memory, "the handler gave up after its memory could not grow".to_owned())
        }
        Some(Trap::UnreachableCodeReached) => match panic_message(tail) {
            Some(message) => (FaultClass::Panic, message),
            None => (FaultClass::Trap, root),
        },
        Some(Trap::StackOverflow) => (FaultClass::Stack, "the handler's call stack is used up".to_owned()),
        // Compilers for WebAssembly keep large locals on a stack in memory, which mostly ends first.
        Some(Trap::MemoryOutOfBounds) if endless(frames) => {
            (FaultClass::Stack, "the handler's stack in memory is used up by recursion".to_owned())
        }
        Some(Trap::Interrupt) => (FaultClass::Deadline, root),
        Some(Trap::CannotEnterComponent | Trap::AsyncDeadlock) => (FaultClass::Host, root),
        // With guest code on the stack it is a trap; without any, the host was reading the answer.
        _ if !frames.is_empty() => (FaultClass::Trap, root),
        _ if entered => (FaultClass::BadAnswer, format!("the answer cannot be read: {root}")),
        _ => (FaultClass::Host, format!("the component cannot be instantiated: {error:#}")),
    }
}

/// What the guest's language runtime wrote before it gave up. Rust: `thread … panicked at FILE:LINE:COLUMN:` and the
/// message below; Go: `panic: MESSAGE`.
fn panic_message(tail: &[String]) -> Option<String> {
    let at = tail.iter().rposition(|line| line.contains("panicked at ") || line.starts_with("panic: "))?;
    let mut message = tail[at].find("panicked at ").map_or(tail[at].as_str(), |from| &tail[at][from..]).to_owned();
    for line in tail[at + 1..].iter().filter(|line| !line.starts_with("note: run with `RUST_BACKTRACE")) {
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
fn show_frames(frames: &[wasmtime::FrameInfo], text: &mut String) {
    let mut shown = Vec::new();
    let mut own = false;
    for frame in frames {
        let symbols = frame.symbols();
        // The last symbol is the function itself; the module's name section knows it with its path, DWARF without.
        let name = frame.func_name().map_or_else(
            || format!("function {}", frame.func_index()),
            |name| format!("{:#}", rustc_demangle::demangle(name)),
        );
        if symbols.is_empty() {
            shown.push((name, false));
            continue;
        }
        for (i, symbol) in symbols.iter().enumerate() {
            let inlined = symbol.name().filter(|_| i + 1 < symbols.len());
            let mut line = inlined.unwrap_or(&name).to_owned();
            let file = symbol.file().unwrap_or_default();
            if !file.is_empty() {
                line = format!("{line} ({file}:{})", symbol.line().unwrap_or_default());
            }
            let library = file.is_empty() || file.starts_with("/rustc/");
            own |= !library;
            shown.push((line, !library));
        }
    }
    for (line, _) in shown.iter().filter(|(_, of_handler)| *of_handler || !own).take(SHOWN) {
        text.push_str("\n    at ");
        text.push_str(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_messages_are_found() {
        let tail = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
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

    #[test]
    fn names_are_those_of_the_documentation() {
        let names: Vec<_> = FaultClass::ALL.iter().map(|class| class.name()).collect();
        let documented = "panic trap deadline wall_clock memory stack bad_answer exit output_limit init host";
        assert_eq!(names.join(" "), documented);
    }
}
