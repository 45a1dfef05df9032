//! Once per component: reads it, refuses what is none or what breaks the contract, compiles it, and keeps what its
//! instances share. A [`Version`] that exists can be instantiated.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use super::cache::Key;
use super::contract::{self, Survey};
use super::grants::remedies;
use super::instance::State;
use super::limits::HandlerLimits;
use super::runtime::{EngineRules, Kit, Runtime};
use crate::config::{Pipeline, format_duration, format_size};

/// What a component is held to when it is loaded. Two loads by the same rules give the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoadRules {
    /// Most bytes that it may have.
    pub component_size: u64,
    /// Bytes of the call stack of its instances.
    pub stack: u64,
    /// Its instances get their clock and random numbers from the record, and numbers that are none have one form.
    pub deterministic: bool,
    /// It was granted somebody to ask by HTTP.
    pub http: bool,
    /// CPU time that compiling it may take.
    pub compile_time: Duration,
    /// Memory that compiling it may take, bytes.
    pub compile_memory: u64,
}

impl LoadRules {
    /// Those of a pipeline.
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        let http = pipeline.http.is_some();
        Self { deterministic: pipeline.deterministic, http, ..Self::from(&pipeline.limits) }
    }
}

impl From<&HandlerLimits> for LoadRules {
    fn from(limits: &HandlerLimits) -> Self {
        let HandlerLimits { component_size, stack, compile_time, compile_memory, .. } = *limits;
        Self { component_size, stack, deterministic: false, http: false, compile_time, compile_memory }
    }
}

impl Default for LoadRules {
    fn default() -> Self {
        Self::from(&HandlerLimits::default())
    }
}

/// Why a plugin is not loaded. What is wrong, then what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No file there.
    #[error("there is no plugin at {path}: build it, or correct the path")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file that cannot be read.
    #[error("the plugin {path} cannot be read: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Over the size limit.
    #[error(
        "the plugin has {bytes} bytes, the limit is {limit}: build it in release mode, strip its debug information \
         (`wasm-tools strip`), or raise `component_size` in [handler.limits]"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest that is loaded.
        limit: u64,
    },
    /// A WebAssembly module without the component layer.
    #[error(
        "the plugin is a core WebAssembly module, a component is needed: build for the target wasm32-wasip2, or wrap \
         the module with `wasm-tools component new`"
    )]
    CoreModule,
    /// Native code.
    #[error(
        "the plugin is precompiled native code (.cwasm), which is never loaded because it cannot be checked: give the \
         component (.wasm) that it was made from"
    )]
    Precompiled,
    /// Something else.
    #[error("the plugin is no WebAssembly component, it begins with {found}: give the .wasm file that the build made")]
    NotWasm {
        /// Its first bytes, for people.
        found: String,
    },
    /// A component that ends too early.
    #[error("the plugin is truncated: it ends at byte {bytes}, {what}; copy or build it again")]
    Truncated {
        /// Its size.
        bytes: usize,
        /// What was still to come.
        what: String,
    },
    /// Imports or exports that do not fit the contract.
    #[error(
        "the plugin does not fit {host}: {}; build it against this host's wit/ (or the SDK of the same version)",
        .problems.join("; ")
    )]
    WrongWorld {
        /// What is missing, extra or different.
        problems: Vec<String>,
        /// Package and version that this host speaks.
        host: String,
        /// Versions of the package that the plugin speaks, where they are others.
        plugin: Vec<String>,
    },
    /// Imports that no handler gets.
    #[error(
        "the plugin imports what is not granted, {}: {}; build it without what it does not need (many toolchains \
         have a switch such as --stub-wasi)",
        .imports.join(", "),
        remedies(.imports).join("; ")
    )]
    NotGranted {
        /// Full names, all of them.
        imports: Vec<String>,
    },
    /// Compiling took too long.
    #[error(
        "the plugin takes more than {} of CPU time to compile: make it smaller, or raise `compile_time` in \
         [handler.limits]",
        format_duration(*.limit)
    )]
    CompileTime {
        /// The limit.
        limit: Duration,
    },
    /// Compiling took too much memory.
    #[error(
        "the plugin takes more than {} of memory to compile: make it smaller, or raise `compile_memory` in \
         [handler.limits]",
        format_size(*.limit)
    )]
    CompileMemory {
        /// The limit.
        limit: u64,
    },
    /// The process that compiles could not be started.
    #[error("the compiler does not start: {text}")]
    NoCompiler {
        /// Why.
        text: String,
    },
    /// The compiler refused it.
    #[error("the plugin cannot be compiled: {text}")]
    Compile {
        /// The compiler's reasons.
        text: String,
    },
}

/// Exported functions, ready to be looked up in an instance.
#[derive(Debug, Default)]
pub(super) struct Exports {
    pub message_frames: Option<ComponentExportIndex>,
    pub message_handler: Option<ComponentExportIndex>,
    pub batch_frames: Option<ComponentExportIndex>,
    pub batch_handler: Option<ComponentExportIndex>,
    pub init: Option<ComponentExportIndex>,
    pub tick: Option<ComponentExportIndex>,
    pub partition_assigned: Option<ComponentExportIndex>,
    pub partition_revoked: Option<ComponentExportIndex>,
    pub handle_failed: Option<ComponentExportIndex>,
    pub snapshot: Option<ComponentExportIndex>,
    pub restore: Option<ComponentExportIndex>,
}

/// Where a version's native code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It was compiled, which took so long.
    Compiled(Duration),
    /// It was in the cache, and loaded in so long.
    Cached(Duration),
}

/// One loaded build of a plugin.
pub struct Version {
    digest: String,
    bytes: u64,
    code: Code,
    world: String,
    imports: Vec<String>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) kit: Arc<Kit>,
    pub(super) pre: InstancePre<State>,
    pub(super) exports: Exports,
}

impl Version {
    /// Loads a component from a file.
    ///
    /// # Errors
    /// As [`Version::load`], and when the file is not there or cannot be read.
    pub fn load_file(runtime: &Arc<Runtime>, path: &Path, rules: &LoadRules) -> Result<Arc<Self>, LoadError> {
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => LoadError::NotFound { path: path.to_owned() },
            _ => LoadError::Io { path: path.to_owned(), source },
        };
        let limit = rules.component_size;
        let file = std::fs::File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        if size > limit {
            return Err(LoadError::TooLarge { bytes: size, limit });
        }
        // One byte more than allowed: a file that grows meanwhile (or a device) is not read without end.
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
        Self::load(runtime, &bytes, rules)
    }

    /// Checks and compiles a component, in a child process, or takes it from the cache. Compiling takes from 50 ms to many
    /// seconds: not for a thread that serves records.
    ///
    /// # Errors
    /// Says what the bytes are, or where the component departs from the contract, and what to do.
    pub fn load(runtime: &Arc<Runtime>, bytes: &[u8], rules: &LoadRules) -> Result<Arc<Self>, LoadError> {
        if bytes.len() as u64 > rules.component_size {
            return Err(LoadError::TooLarge { bytes: bytes.len() as u64, limit: rules.component_size });
        }
        check_form(bytes)?;
        let digest = Sha256::digest(bytes);
        let kit = runtime
            .kit(EngineRules::of(rules))
            .map_err(|error| LoadError::NoCompiler { text: format!("{error:#}") })?;
        let engine = &kit.engine;
        let (component, code) = native(runtime, engine, &digest, bytes, rules)?;
        let survey = contract::survey(engine, &component, rules.http);
        let mut problems = survey.problems.clone();
        if problems.is_empty() && !survey.not_granted.is_empty() {
            return Err(LoadError::NotGranted { imports: survey.not_granted });
        }
        if !problems.is_empty() {
            let import = |import| format!("it imports {import}, which is not granted");
            problems.extend(survey.not_granted.iter().map(import));
            problems.extend(remedies(&survey.not_granted));
            return Err(LoadError::WrongWorld { problems, host: contract::package(), plugin: survey.versions });
        }
        let exports = find_exports(&component, &survey);
        // What is left can differ only inside an interface that we link: another signature, a missing function.
        let linker = if rules.http { &kit.asking } else { &kit.linker };
        let pre = linker.instantiate_pre(&component).map_err(|error| LoadError::WrongWorld {
            problems: vec![format!("{error:#}")],
            host: contract::package(),
            plugin: Vec::new(),
        })?;
        let (digest, bytes) = (hex(&digest), bytes.len() as u64);
        let (world, imports) = (survey.world(), survey.imports);
        Ok(Arc::new(Self { digest, bytes, code, world, imports, runtime: Arc::clone(runtime), kit, pre, exports }))
    }

    /// SHA-256 of the component, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Size of the component.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Package and version of the contract that it speaks.
    #[must_use]
    pub fn world(&self) -> &str {
        &self.world
    }

    /// Full names of the interfaces that it imports.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Where its native code came from.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// It handles messages, in whichever form.
    #[must_use]
    pub const fn has_message(&self) -> bool {
        self.exports.message_frames.is_some() || self.exports.message_handler.is_some()
    }

    /// It handles batches, in whichever form.
    #[must_use]
    pub const fn has_batch(&self) -> bool {
        self.exports.batch_frames.is_some() || self.exports.batch_handler.is_some()
    }

    /// It wants to be initialised.
    #[must_use]
    pub const fn has_lifecycle(&self) -> bool {
        self.exports.init.is_some()
    }

    /// It wants to be called at intervals.
    #[must_use]
    pub const fn has_tick(&self) -> bool {
        self.exports.tick.is_some()
    }

    /// It wants to hear when its partition comes and goes.
    #[must_use]
    pub const fn has_partitions(&self) -> bool {
        self.exports.partition_assigned.is_some() && self.exports.partition_revoked.is_some()
    }

    /// It wants a say in what becomes of failed messages.
    #[must_use]
    pub const fn has_failures(&self) -> bool {
        self.exports.handle_failed.is_some()
    }

    /// It hands its state over when another version takes its place, and takes one over.
    #[must_use]
    pub const fn has_state(&self) -> bool {
        self.exports.snapshot.is_some() && self.exports.restore.is_some()
    }

    /// Interfaces by which it is called, for logs.
    #[must_use]
    pub fn forms(&self) -> Vec<&'static str> {
        let exports = &self.exports;
        let message = match (&exports.message_frames, &exports.message_handler) {
            (Some(_), _) => Some("message-frames"),
            (None, Some(_)) => Some("message-handler"),
            (None, None) => None,
        };
        let batch = match (&exports.batch_frames, &exports.batch_handler) {
            (Some(_), _) => Some("batch-frames"),
            (None, Some(_)) => Some("batch-handler"),
            (None, None) => None,
        };
        let lifecycle = self.has_lifecycle().then_some("lifecycle");
        let timer = self.has_tick().then_some("timer");
        let partitions = self.has_partitions().then_some("partitions");
        let failures = self.has_failures().then_some("failures");
        let state = self.has_state().then_some("state");
        [message, batch, lifecycle, timer, partitions, failures, state].into_iter().flatten().collect()
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").field("digest", &self.digest).field("forms", &self.forms()).finish_non_exhaustive()
    }
}

/// The component's native code: from the cache, else from the compiler, and then into the cache.
fn native(
    runtime: &Runtime,
    engine: &Engine,
    digest: &[u8],
    bytes: &[u8],
    rules: &LoadRules,
) -> Result<(Component, Code), LoadError> {
    let begun = Instant::now();
    let cached = runtime.cache.as_ref().map(|cache| (cache, Key::new(digest, engine)));
    if let Some((cache, key)) = &cached
        && let Some(code) = cache.get(key)
    {
        // SAFETY: the MAC says that a host of this user put it there, as the compiler made it.
        match unsafe { Component::deserialize(engine, &code) } {
            Ok(component) => return Ok((component, Code::Cached(begun.elapsed()))),
            Err(_) => cache.forget(key),
        }
    }
    let code = runtime.compiler.compile(bytes, rules)?;
    // SAFETY: our own child compiled it just now, and handed it over by a pipe that nobody else has.
    let component = unsafe { Component::deserialize(engine, &code) };
    let component = component.map_err(|error| LoadError::Compile { text: format!("{error:#}") })?;
    if let Some((cache, key)) = &cached {
        // A disk that is full costs a compilation at the next start, nothing else.
        _ = cache.put(key, &code);
    }
    Ok((component, Code::Compiled(begun.elapsed())))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn find_exports(component: &Component, survey: &Survey) -> Exports {
    let find = |interface: &str, function: &str| {
        let (_, instance) = component.get_export(None, survey.export(interface)?)?;
        component.get_export_index(Some(&instance), function)
    };
    Exports {
        message_frames: find("message-frames", "handle-messages"),
        message_handler: find("message-handler", "handle-message"),
        batch_frames: find("batch-frames", "handle-batch"),
        batch_handler: find("batch-handler", "handle-batch"),
        init: find("lifecycle", "init"),
        tick: find("timer", "tick"),
        partition_assigned: find("partitions", "partition-assigned"),
        partition_revoked: find("partitions", "partition-revoked"),
        handle_failed: find("failures", "handle-failed"),
        snapshot: find("state", "snapshot"),
        restore: find("state", "restore"),
    }
}

/// Tells a whole component from everything else that people hand over, before anything parses it in earnest.
fn check_form(bytes: &[u8]) -> Result<(), LoadError> {
    const MAGIC: &[u8] = b"\0asm";
    const MODULE: &[u8] = &[1, 0, 0, 0];
    const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];

    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    let version = match bytes.strip_prefix(MAGIC) {
        Some(rest) => rest.get(..4),
        None if !bytes.is_empty() && MAGIC.starts_with(bytes) => None,
        None => return Err(LoadError::NotWasm { found: beginning(bytes) }),
    };
    match version {
        Some(MODULE) => Err(LoadError::CoreModule),
        Some(COMPONENT) => check_sections(bytes),
        Some(_) => Err(LoadError::NotWasm { found: beginning(bytes) }),
        None => Err(LoadError::Truncated { bytes: bytes.len(), what: "inside its first 8 bytes".to_owned() }),
    }
}

/// Walks over the outermost sections: each has to end inside the file.
fn check_sections(bytes: &[u8]) -> Result<(), LoadError> {
    let mut at = 8;
    while at < bytes.len() {
        let truncated = |what: String| LoadError::Truncated { bytes: bytes.len(), what };
        let id = bytes[at];
        let Some((size, body)) = leb128(bytes, at + 1) else {
            return Err(truncated(format!("inside the head of section {id}")));
        };
        let end = body + size as usize;
        if end > bytes.len() {
            return Err(truncated(format!("section {id} goes on to byte {end}")));
        }
        at = end;
    }
    Ok(())
}

/// An unsigned 32-bit number and where it ends; `None` when the bytes end first. Overlong ones are for the parser.
fn leb128(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let mut value = 0u32;
    for i in 0..5 {
        let byte = *bytes.get(at + i)?;
        value |= u32::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((value, at + i + 1));
        }
    }
    Some((value, at + 5))
}

fn beginning(bytes: &[u8]) -> String {
    match bytes.get(..bytes.len().min(16)) {
        None | Some([]) => "nothing (the file is empty)".to_owned(),
        Some(first) => format!("\"{}\"", first.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";

    fn refused(bytes: &[u8]) -> String {
        check_form(bytes).expect_err("not a component").to_string()
    }

    #[test]
    fn what_is_no_component_is_named() {
        assert!(refused(b"").contains("begins with nothing (the file is empty)"));
        assert!(refused(b"(component)").contains("begins with \"(component)\""));
        assert!(refused(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(refused(b"\0asm\x09\0\0\0").contains(r#"begins with "\x00asm\t\x00\x00\x00""#));
        assert!(check_form(HEAD).is_ok());
    }

    #[test]
    fn a_truncated_component_says_where() {
        assert!(refused(b"\0as").contains("ends at byte 3, inside its first 8 bytes"));
        assert!(refused(b"\0asm\x0d\0").contains("ends at byte 6, inside its first 8 bytes"));
        assert!(refused(&[HEAD, &[0, 3, 1, 2]].concat()).contains("ends at byte 12, section 0 goes on to byte 13"));
        assert!(refused(&[HEAD, &[0, 0x80]].concat()).contains("inside the head of section 0"));
        assert!(check_form(&[HEAD, &[0, 2, 1, b'x']].concat()).is_ok());
        // Not a number at all; the parser says so.
        assert!(refused(&[HEAD, &[0, 0xff, 0xff, 0xff, 0xff, 0xff]].concat()).contains("section 0 goes on"));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let compiler = super::super::compile::Compiler::this_program();
        let runtime = Runtime::new(compiler, None).expect("an engine");
        let error = Version::load_file(&runtime, Path::new("/no/such/handler.wasm"), &LoadRules::default())
            .expect_err("no file");
        assert_eq!(error.to_string(), "there is no plugin at /no/such/handler.wasm: build it, or correct the path");
    }
}
