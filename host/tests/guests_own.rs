//! The guests are a workspace of their own, with tests of their own: SDK, frame codec with its golden vectors, ready-made
//! plugins, examples. They run here too, so that one command runs all there is.

mod support;

use std::process::Command;

/// Proves: the same golden vectors that the host's codec writes and reads are those that the SDK's side does, and handlers
/// pass their tests without any host.
#[test]
fn the_guests_own_tests_pass() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--locked", "--workspace", "--manifest-path"]);
    cargo.arg(support::repository().join("plugins/Cargo.toml"));
    // What this run of cargo was told is not for that one: it has a target directory and flags of its own.
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    let output = cargo.output().expect("cargo starts");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}
