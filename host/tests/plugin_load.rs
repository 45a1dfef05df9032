//! What is no plugin is refused at load, with its cause and what to do.

mod plugin_support;

use plugin_support::{guest, runtime};
use sluicebox::plugin::{LoadError, LoadRules, Version};

fn refused(bytes: &[u8]) -> LoadError {
    Version::load(runtime(), bytes, &LoadRules::default()).expect_err("it is refused")
}

#[test]
fn a_core_module_is_refused() {
    let error = refused(b"\0asm\x01\0\0\0\0\x05\x04name");
    assert!(matches!(error, LoadError::CoreModule));
    assert!(error.to_string().contains("build for the target wasm32-wasip2"), "{error}");
}

#[test]
fn precompiled_code_is_refused() {
    let engine = wasmtime::Engine::default();
    let code = engine.precompile_component(&guest("raw-nothing")).expect("it compiles");
    let error = refused(&code);
    assert!(matches!(error, LoadError::Precompiled));
    assert!(error.to_string().contains("precompiled native code (.cwasm)"), "{error}");
}

#[test]
fn a_truncated_component_is_refused_wherever_it_ends() {
    let whole = guest("raw-nothing");
    for end in [5, 9, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        let error = refused(&whole[..end]);
        assert!(matches!(error, LoadError::Truncated { .. }), "{end}: {error}");
        assert!(error.to_string().contains(&format!("ends at byte {end}")), "{error}");
    }
}

#[test]
fn garbage_is_refused() {
    for garbage in [&b""[..], b"#!/bin/sh", b"(component)", &[0; 100], &[0xff; 100]] {
        assert!(matches!(refused(garbage), LoadError::NotWasm { .. }));
    }
    // Looks like a component and is none.
    let mut broken = guest("raw-nothing");
    broken[16..80].fill(0xff);
    let error = refused(&broken);
    assert!(matches!(error, LoadError::Compile { .. } | LoadError::Truncated { .. }), "{error}");
}

#[test]
fn a_file_over_the_limit_is_refused_unread() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let load = |component_size| {
        let rules = LoadRules { component_size, ..LoadRules::default() };
        Version::load_file(runtime(), file.path(), &rules)
    };
    file.as_file().set_len(1 << 40).expect("a sparse file");
    let error = load(64 << 20).expect_err("too large");
    assert!(matches!(error, LoadError::TooLarge { limit: 67_108_864, .. }), "{error}");
    assert!(error.to_string().contains("raise `component_size` in [handler.limits]"), "{error}");

    let whole = guest("raw-frames");
    std::fs::write(file.path(), &whole).expect("a component");
    let size = whole.len() as u64;
    assert!(matches!(load(size - 1), Err(LoadError::TooLarge { bytes, limit }) if bytes == limit + 1));
    for limit in [size, size + 1] {
        load(limit).expect("it fits");
    }
}

#[test]
fn another_version_of_the_contract_is_refused_naming_both() {
    let error = refused(&guest("raw-version"));
    let LoadError::WrongWorld { problems, host, plugin } = &error else { panic!("{error}") };
    assert_eq!((host.as_str(), plugin.as_slice()), ("sluicebox:plugin@0.1.0", &["0.2.0".to_owned()][..]));
    let expected = "it exports message-frames of sluicebox:plugin@0.2.0, this host speaks sluicebox:plugin@0.1.0";
    assert_eq!(problems, &[expected]);
    assert!(error.to_string().contains("build it against this host's wit/"), "{error}");
}

#[test]
fn other_types_and_unknown_interfaces_are_all_named() {
    let error = refused(&guest("raw-signature"));
    let LoadError::WrongWorld { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let has = |text: &str| assert!(problems.iter().any(|problem| problem.contains(text)), "{text}: {problems:#?}");
    has("it imports sluicebox:plugin/secrets@0.1.0, which sluicebox:plugin@0.1.0 does not have");
    has("sluicebox:plugin/message-frames@0.1.0, handle-messages: expected func(burst: frame) -> frame of \
         sluicebox:plugin@0.1.0, found func(burst: list<u8>) -> list<u8>: ");
    has("its export sluicebox:plugin/batch-handler@0.1.0 lacks the function handle-batch");
}

#[test]
fn a_component_that_handles_nothing_is_refused() {
    let error = refused(&guest("raw-nothing"));
    let LoadError::WrongWorld { problems, .. } = &error else { panic!("{error}") };
    assert!(problems[0].contains("it handles neither messages nor batches"), "{problems:?}");
    assert!(problems[0].ends_with("it exports greet"), "{problems:?}");
}

#[test]
fn imports_that_nobody_gets_are_all_named() {
    let error = refused(&guest("raw-files"));
    let LoadError::NotGranted { imports } = &error else { panic!("{error}") };
    assert!(imports.iter().all(|import| import.starts_with("wasi:filesystem/")), "{imports:?}");
    assert!(imports.iter().any(|import| import.starts_with("wasi:filesystem/types@0.2.")), "{imports:?}");
    assert!(imports.iter().any(|import| import.starts_with("wasi:filesystem/preopens@0.2.")), "{imports:?}");
    let text = error.to_string();
    assert!(text.starts_with("the plugin imports what is not granted, wasi:filesystem/"), "{text}");
    let advice = ": files are never granted; build it without what it does not need (many toolchains have a switch such \
                  as --stub-wasi)";
    assert!(text.ends_with(advice), "{text}");
}
