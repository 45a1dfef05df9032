//! Fuzz targets: what comes from outside and has to be refused by an error, never by a panic. `cargo test` runs the corpus
//! (`tests/fuzz/corpus`) and some changed inputs of a fixed seed; `tests/fuzz/run TARGET SECONDS` goes on from what reaches
//! new code. The frame codec's is beside the codec (`plugins/frames/tests/fuzz.rs`).

#[path = "../../../tests/fuzz/engine.rs"]
mod engine;
#[path = "../plugin_support/mod.rs"]
mod plugin_support;

mod imports;
mod worlds;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::Fuzz;
use sluicebox::config::{LoadRequest, Outside, load};
use sluicebox::plugin::{Compiler, LoadRules, Runtime, Version};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Proves: whatever a manifest or the host's file says, there is a plan or a report, the report can be shown in both of its
/// forms, and it shows no secret. An input is one byte that tells the two files apart, and the text.
#[test]
fn manifest() {
    const SECRET: &str = "hunter2-of-the-fuzzer";
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("handler.wasm"), "").expect("a file");
    std::fs::write(path("ca.pem"), "").expect("a file");
    let valid = "schema = 1\nname = \"a\"\nhandler.component = \"handler.wasm\"\nsource.topics = [\"in\"]\n";
    let env = |name: &str| (name != "UNSET").then(|| SECRET.to_owned());
    let words = [
        "schema",
        "handler",
        "limits",
        "allow",
        "hosts",
        "http",
        "addresses",
        "source",
        "topics",
        "\"64MiB\"",
        "\"1s\"",
        "[[",
        "]]",
        "{",
        "}",
        " = ",
        "\n",
        "\"",
        "'",
        "${",
        "secret",
        "vars",
        "true",
        "-1",
        "1e400",
        "nan",
        "\u{feff}",
        "2026-11-21T08:00:00Z",
        "[errors]",
        "dead_letter",
        "batch",
        "output",
        "10.0.0.0/8",
        "http://",
        "[::1]:80",
        "*.",
    ];
    let root = root();
    let fuzz = Fuzz { name: "manifest", root: &root, words: &words, longest: 8192, runs: 5_000 };
    fuzz.run(|input| {
        let Some((kind, text)) = input.split_first() else { return };
        let request = LoadRequest {
            manifests: vec![path("pipeline.toml")],
            bootstrap: Some("broker.test:9092".to_owned()),
            host_config: (kind % 2 == 1).then(|| path("host.toml")),
            ..LoadRequest::default()
        };
        let (manifest, host) = if kind % 2 == 1 { (valid.as_bytes(), text) } else { (text, &b""[..]) };
        std::fs::write(path("pipeline.toml"), manifest).expect("a file");
        std::fs::write(path("host.toml"), host).expect("a file");
        let shown = match load(&request, &Outside { env: &env, property_fault: &|_, _| None }) {
            Ok(plan) => format!("{plan:?}"),
            Err(report) => {
                assert!(report.has_errors());
                format!("{}{}{}", report.render(true), report.render(false), report.to_json())
            }
        };
        // A variable that is declared as no secret may be shown.
        if !input.windows(3).any(|window| window == b"env") {
            assert!(!shown.contains(SECRET), "{shown}");
        }
    });
}

/// Proves: whatever a component's file holds, it is loaded or refused with a reason. An input is one byte that says what is
/// granted, and the file.
#[test]
fn admission() {
    let runtime = Runtime::new(Compiler::in_this_process(), None).expect("an engine");
    let words = [
        "\0asm\x0d\0\x01\0",
        "\0asm\x01\0\0\0",
        "wasi:http/types@0.2.0",
        "sluicebox:plugin/log@0.1.0",
        "handle-messages",
    ];
    let root = root();
    let fuzz = Fuzz { name: "admission", root: &root, words: &words, longest: 2048, runs: 20_000 };
    fuzz.run(|input| {
        let Some((kind, component)) = input.split_first() else { return };
        let rules = LoadRules { http: kind % 2 == 1, ..LoadRules::default() };
        load_or_refuse(&runtime, component, &rules);
    });
}

fn load_or_refuse(runtime: &Arc<Runtime>, component: &[u8], rules: &LoadRules) {
    match Version::load(runtime, component, rules) {
        Ok(version) => assert!(version.has_message() || version.has_batch()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Proves: whatever a component imports and exports, with whatever types, it is loaded or refused with a reason. An input is one
/// byte that says what is granted, and a program for `worlds`.
#[test]
fn worlds() {
    let runtime = Runtime::new(Compiler::in_this_process(), None).expect("an engine");
    let root = root();
    let fuzz = Fuzz { name: "worlds", root: &root, words: &[], longest: 512, runs: 5_000 };
    fuzz.run(|input| {
        let Some((kind, program)) = input.split_first() else { return };
        let rules = LoadRules { http: kind % 2 == 1, ..LoadRules::default() };
        load_or_refuse(&runtime, &worlds::component(program), &rules);
    });
}

/// Proves: however a guest calls its imports – log, settings, outputs, metrics, HTTP –, it gets an answer or a fault of its own,
/// and never one of the host's. An input is a program for `tests/guests/fuzzed`.
#[test]
fn imports() {
    let root = root();
    let words = [
        "orders",
        "out",
        "a.test:4080",
        "b.test:4080",
        "host",
        "content-length",
        "5",
        "/x",
        "\u{1b}[2J",
        "\u{6}\0\u{8}",
    ];
    let fuzz = Fuzz { name: "imports", root: &root, words: &words, longest: 1024, runs: 5_000 };
    let mut guest = imports::Guest::new();
    fuzz.run(|input| guest.run(input));
}
