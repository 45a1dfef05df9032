//! `sluicebox check` beyond the configuration: what is wrong with a component, or between it and its manifest, and with
//! `--connect` what is wrong with a cluster. Each finding has a code, a place in the manifest and a way out.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::guests::guest;
use support::host::binary;

/// A directory with a manifest for this component; `rest` is what follows the source.
fn manifest(component: &Path, rest: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pipeline.toml");
    let text = format!(
        "schema = 1\nname = \"p\"\n[handler]\ncomponent = \"{}\"\n[source]\ntopics = [\"in\"]\n{rest}",
        component.display()
    );
    std::fs::write(&path, text).expect("a manifest");
    (directory, path)
}

/// Exit code and everything that was printed.
fn check(manifest: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.arg("check").arg(manifest).args(arguments).env_remove("SB_BOOTSTRAP").env("NO_COLOR", "1");
    let output = command.output().expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn assert_found(found: &(Option<i32>, String), parts: &[&str]) {
    assert_eq!(found.0, Some(1), "{}", found.1);
    for part in parts {
        assert!(found.1.contains(part), "no `{part}` in:\n{}", found.1);
    }
}

#[test]
fn a_component_that_fits_is_ok() {
    let (_directory, path) = manifest(&guest("both"), "[batch.odd]\n");
    let (code, text) = check(&path, &[]);
    assert_eq!((code, text.starts_with("ok  p  ")), (Some(0), true), "{text}");
}

#[test]
fn a_component_that_cannot_be_loaded_is_named_with_its_line() {
    let whole = std::fs::read(guest("forward")).expect("the guest");
    let directory = tempfile::tempdir().expect("a directory");
    let cut = directory.path().join("cut.wasm");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("half a component");
    let (_directory, path) = manifest(&cut, "");
    assert_found(&check(&path, &[]), &["error[SB0301]", "truncated", "pipeline.toml:4:", "build it again"]);
}

#[test]
fn a_batcher_that_nothing_reaches_is_named() {
    let (_directory, path) = manifest(&guest("forward"), "[batch.totals]\n");
    let parts = ["error[SB0302]", "nothing takes the batches of `totals`", "pipeline.toml:7:", "remove [batch.totals]"];
    assert_found(&check(&path, &[]), &parts);
    let (_directory, path) = manifest(&guest("batch-sum"), "[batch.totals]\n");
    assert_found(
        &check(&path, &[]),
        &["error[SB0302]", "every record goes through `default`", "name it [batch.default]"],
    );
}

#[test]
fn a_cluster_that_does_not_answer_is_named() {
    let (_directory, path) = manifest(&guest("forward"), "");
    // A port that was free a moment ago, with nobody behind it.
    let port = support::kafka::reserve_port();
    let address = format!("127.0.0.1:{port}");
    let found = check(&path, &["--connect", "--bootstrap", &address]);
    assert_found(&found, &["error[SB0303]", &address, "does not answer", "pipeline.toml:6:"]);
}
