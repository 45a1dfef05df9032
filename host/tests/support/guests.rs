//! The handlers of the tests: components built from the workspace of the guests (`plugins/Cargo.toml`).
//!
//! They are built when a test first asks, once per test program and name; cargo does nothing when nothing changed. The
//! workspace keeps its own target directory, and its own flags: those of the host's build do not apply.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

const TARGET: &str = "wasm32-wasip2";

/// The component of the package `name`, built now if need be.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    // A failed build poisons the lock; the next test shall try and say the same.
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let built = built.get_or_insert_with(HashMap::new);
    if let Some(path) = built.get(name) {
        return path.clone();
    }
    let path = build(name);
    built.insert(name.to_owned(), path.clone());
    path
}

fn build(name: &str) -> PathBuf {
    add_target();
    let workspace = super::repository().join("plugins");
    let target = workspace.join("target");
    let mut cargo = Command::new(env!("CARGO"));
    // Cargo looks for a workspace's settings from the directory it runs in.
    cargo.current_dir(&workspace).args(["build", "--release", "--target", TARGET, "-p", name]);
    cargo.arg("--manifest-path").arg(workspace.join("Cargo.toml")).arg("--target-dir").arg(&target);
    for flags in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(flags);
    }
    let output = cargo.output().unwrap_or_else(|error| panic!("cannot run cargo for the guest {name}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the guest {name} does not build:\n{error}");
    let path = target.join(TARGET).join("release").join(format!("{}.wasm", name.replace('-', "_")));
    assert!(path.is_file(), "the guest {name} was built, but there is no {}", path.display());
    path
}

/// Adds the target to the toolchain where it is missing, saying so.
fn add_target() {
    let mut rustc = Command::new("rustc");
    let sysroot = rustc.args(["--print", "sysroot"]).output().expect("rustc is there: it built this test");
    let sysroot = String::from_utf8(sysroot.stdout).expect("the toolchain's path is text");
    if PathBuf::from(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir() {
        return;
    }
    eprintln!("the target {TARGET} is missing: running `rustup target add {TARGET}`");
    let status = Command::new("rustup").args(["target", "add", TARGET]).status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "`rustup target add {TARGET}` failed ({status:?}): add the target by hand, the guests need it"
    );
}
