//! What the tests of the sandbox share: guests, a log that remembers, bursts, a handler thread.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use sluicebox::handler_metrics::HandlerMetrics;
use sluicebox::handler_usage::Usage;
use sluicebox::plugin::{
    Compiler, Fault, HandlerLimits, HandlerLog, Instance, InstanceConfig, LoadRules, LogLevel, OutputInfo, Place,
    Recycle, Runtime, Version,
};
use sluicebox_frames::{
    BatchInfo, Frame, HeadersWriter, MessagesWriter, NewMessage, Source, TimestampType, Trigger, messages,
};

const GUESTS: [&str; 12] = [
    "asks",
    "fuzzed",
    "raw-frames",
    "raw-typed",
    "raw-optional",
    "raw-files",
    "raw-version",
    "raw-signature",
    "raw-nothing",
    "holder",
    "judge",
    "hostile",
];

/// The component of a guest under `tests/guests`, built once per test program.
pub fn guest(name: &str) -> Vec<u8> {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(&workspace).args(["build", "--release", "--target", "wasm32-wasip2"]);
        for name in GUESTS {
            cargo.args(["-p", name]);
        }
        for flags in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "RUSTC_WORKSPACE_WRAPPER",
        ] {
            cargo.env_remove(flags);
        }
        let output = cargo.output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        workspace.join("target/wasm32-wasip2/release")
    });
    let path = BUILT.join(format!("{}.wasm", name.replace('-', "_")));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Compiles as the host does: in children that are the program under test.
pub fn compiler() -> Compiler {
    Compiler::at(env!("CARGO_BIN_EXE_sluicebox"))
}

/// The process's runtime, as a host has one.
pub fn runtime() -> &'static Arc<Runtime> {
    static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| Runtime::new(compiler(), None).expect("an engine"));
    &RUNTIME
}

/// The loaded guest, compiled once per test program.
pub fn version(name: &str) -> Arc<Version> {
    version_by(name, &LoadRules::default())
}

/// The guest, loaded by these rules.
pub fn version_by(name: &str, rules: &LoadRules) -> Arc<Version> {
    static LOADED: Mutex<BTreeMap<(String, LoadRules), Arc<Version>>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let load = || Version::load(runtime(), &guest(name), rules).unwrap_or_else(|error| panic!("{name}: {error}"));
    Arc::clone(loaded.entry((name.to_owned(), rules.clone())).or_insert_with(load))
}

/// A number as WebAssembly's binary format has it.
pub fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// CPU time that this thread has used.
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that lives through the call.
    let said = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(said, 0, "every system we run on counts a thread's time");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lines of a handler, and reports of its faults with their places. Sees info and above.
#[derive(Default)]
pub struct Log {
    lines: Mutex<Vec<Line>>,
    faults: Mutex<Vec<(Fault, String)>>,
}

/// A line as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub level: LogLevel,
    pub text: String,
    pub cut: bool,
    pub place: String,
}

fn shown(place: Option<&Place>) -> String {
    place.map(ToString::to_string).unwrap_or_default()
}

impl HandlerLog for Log {
    fn enabled(&self, level: LogLevel) -> bool {
        level >= LogLevel::Info
    }

    fn line(&self, level: LogLevel, text: &str, cut: bool, place: Option<&Place>) {
        let line = Line { level, text: text.to_owned(), cut, place: shown(place) };
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn fault(&self, fault: &Fault, place: Option<&Place>) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((fault.clone(), shown(place)));
    }
}

impl Log {
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn faults(&self) -> Vec<(Fault, String)> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A configuration with these limits and settings.
pub fn config(limits: HandlerLimits, settings: &str) -> (Arc<InstanceConfig>, Arc<Log>) {
    recycled(limits, settings, Recycle::default())
}

/// The same, of instances that are replaced by these rules.
pub fn recycled(limits: HandlerLimits, settings: &str, recycle: Recycle) -> (Arc<InstanceConfig>, Arc<Log>) {
    let log = Arc::new(Log::default());
    let config = InstanceConfig {
        limits,
        recycle,
        settings: settings.into(),
        outputs: [OutputInfo { name: "out".to_owned(), partitions: 8 }].into(),
        batchers: ["totals".to_owned()].into(),
        log: Arc::clone(&log) as Arc<dyn HandlerLog>,
        usage: Arc::new(Usage::default()),
        metrics: Arc::new(HandlerMetrics::default()),
        http: None,
    };
    (Arc::new(config), log)
}

/// Runs on a thread as handlers' threads are.
pub fn on_handler_thread<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(future)
}

/// A burst of one topic-partition with these values.
pub fn burst(values: &[&str], stop_at_reject: bool) -> Frame {
    let mut frame = Frame::default();
    let source = Source { topic: "orders", partition: 4 };
    let mut writer = MessagesWriter::burst(&mut frame, source, 9, stop_at_reject);
    push_all(&mut writer, values);
    writer.finish();
    messages::set_first_token(&mut frame, 500);
    frame
}

/// A batch of one or two sources.
pub fn batch(values: &[&str], batch_key: &[u8], sources: &[Source<'_>]) -> Frame {
    let mut frame = Frame::default();
    let info = BatchInfo { batcher: "totals", batch_key, trigger: Trigger::Pressure };
    let mut writer = MessagesWriter::batch(&mut frame, sources, 77, info);
    push_all(&mut writer, values);
    writer.finish();
    messages::set_first_token(&mut frame, 500);
    frame
}

fn push_all(writer: &mut MessagesWriter<'_>, values: &[&str]) {
    for (i, value) in values.iter().enumerate() {
        let message = NewMessage {
            offset: i64::MAX - i as i64,
            timestamp: 1_700_000_000_000 + i as i64,
            timestamp_type: [TimestampType::CreateTime, TimestampType::LogAppendTime][i % 2],
            key: [None, Some(b"".as_slice()), Some(b"\xff\0".as_slice())][i % 3],
            // A value cannot say that it is null.
            value: (*value != "null").then_some(value.as_bytes()),
            attempt: 1 + i as u32,
            source: 0,
        };
        writer.push_with(&message, |headers: &mut HeadersWriter<'_>| {
            if i % 2 == 0 {
                headers.push(b"h", Some(b"1"));
                headers.push(b"h", None);
                headers.push(b"\xfe", Some(b""));
            }
        });
    }
}

/// Starts `raw-frames` with these limits and sends it one message.
pub fn fault_of(limits: HandlerLimits, value: &str) -> Fault {
    let version = version_by("raw-frames", &LoadRules::from(&limits));
    let (config, _) = config(limits, "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version, &config).await.expect("it starts");
        let answered = instance.handle_messages(&burst(&[value], false)).await;
        answered.expect_err("the handler faults")
    })
}
