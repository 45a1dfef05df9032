//! Builds the handler of a pipeline: the manifest's command, or cargo's where there is a Cargo.toml. Runs programs, prints
//! nothing itself.
//!
//! The build runs in the environment of this process but for cargo's own settings ([`NOT_OURS`]): flags and directories
//! that were meant for another build would put the component elsewhere, or make it something else.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::config::{Build, Pipeline};

/// What guests are compiled to.
const TARGET: &str = "wasm32-wasip2";
/// The build when the manifest has none.
const CARGO_BUILD: &str = "cargo build --release --target wasm32-wasip2";
/// Settings of cargo's that are not passed on.
const NOT_OURS: [&str; 6] = [
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "RUSTFLAGS",
];

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildPlan {
    /// Run by the shell.
    pub command: String,
    /// Where.
    pub directory: PathBuf,
}

impl BuildPlan {
    /// The build of a pipeline whose manifest lies in `directory`; `None` when nothing says how.
    #[must_use]
    pub fn of(pipeline: &Pipeline, directory: &Path) -> Option<Self> {
        // An empty path is a relative one's "here".
        let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
        match &pipeline.build {
            Some(Build { command, workdir }) => Some(Self { command: command.clone(), directory: here(workdir) }),
            None => directory
                .join("Cargo.toml")
                .is_file()
                .then(|| Self { command: CARGO_BUILD.to_owned(), directory: here(directory) }),
        }
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.command.split(|c: char| c.is_whitespace() || ";&|()".contains(c))
    }

    fn uses_cargo(&self) -> bool {
        self.words().any(|word| word == "cargo")
    }

    /// The command names the target, so the toolchain has to have it.
    fn needs_target(&self) -> bool {
        self.uses_cargo() && self.words().any(|word| word.trim_start_matches("--target=") == TARGET)
    }

    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<std::process::Output> {
        let mut command = Command::new(program);
        // In the build's directory: a toolchain file there decides which toolchain is asked.
        command.args(arguments).current_dir(&self.directory).stdin(Stdio::null());
        NOT_OURS.iter().for_each(|name| _ = command.env_remove(name));
        command.output()
    }
}

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The build's directory.
    #[error("the build cannot run in {}: {source}; see `build.workdir` under [handler]", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No cargo.
    #[error(
        "the build needs cargo, and there is none: install Rust (https://rustup.rs), or let `component` under [handler] \
         point to a built component and remove `build`"
    )]
    NoCargo,
    /// No target, and nobody who could add it.
    #[error(
        "the build needs the target {TARGET}, and it cannot be added: {0}; add it by hand: rustup target add {TARGET}"
    )]
    NoTarget(String),
    /// The command itself cannot be run.
    #[error("the build command cannot be run: {0}")]
    Run(io::Error),
    /// It failed. Its output, unless that was seen already.
    #[error("the build failed ({status}): {command}")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        output: Vec<u8>,
    },
}

/// Where the build's own output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Shown as it comes.
    Shown,
    /// Kept, and handed out when the build fails.
    Kept,
}

/// Adds the target to the toolchain when the build needs it and it is missing; `say` hears of it before.
///
/// # Errors
/// What is missing and cannot be added.
pub fn prepare(plan: &BuildPlan, say: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    std::fs::read_dir(&plan.directory)
        .map_err(|source| BuildError::Directory { directory: plan.directory.clone(), source })?;
    if !plan.uses_cargo() {
        return Ok(());
    }
    if plan.run("cargo", &["--version"]).is_err() {
        return Err(BuildError::NoCargo);
    }
    if !plan.needs_target() || has_target(plan) {
        return Ok(());
    }
    say(&format!("the target {TARGET} is missing: running `rustup target add {TARGET}`"));
    match plan.run("rustup", &["target", "add", TARGET]) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(BuildError::NoTarget(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(BuildError::NoTarget(format!("rustup: {error}"))),
    }
}

/// Asks rustup, and where there is none (Rust of a distribution) looks into the toolchain itself.
fn has_target(plan: &BuildPlan) -> bool {
    if let Ok(listed) = plan.run("rustup", &["target", "list", "--installed"])
        && listed.status.success()
    {
        return String::from_utf8_lossy(&listed.stdout).lines().any(|line| line.trim() == TARGET);
    }
    let sysroot = plan.run("rustc", &["--print", "sysroot"]).map(|output| output.stdout).unwrap_or_default();
    let sysroot = String::from_utf8_lossy(&sysroot).trim().to_owned();
    !sysroot.is_empty() && Path::new(&sysroot).join("lib/rustlib").join(TARGET).is_dir()
}

/// Runs the build.
///
/// # Errors
/// When it cannot be run, or failed.
pub fn build(plan: &BuildPlan, output: Output) -> Result<(), BuildError> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(&plan.command).current_dir(&plan.directory).stdin(Stdio::null());
    NOT_OURS.iter().for_each(|name| _ = command.env_remove(name));
    let (mut child, mut said) = match output {
        Output::Shown => (command.stdout(io::stderr()).spawn().map_err(BuildError::Run)?, None),
        Output::Kept => {
            // One pipe for both, so that lines stay in their order.
            let (reader, writer) = io::pipe().map_err(BuildError::Run)?;
            command.stdout(writer.try_clone().map_err(BuildError::Run)?).stderr(writer);
            (command.spawn().map_err(BuildError::Run)?, Some(reader))
        }
    };
    // The command holds the pipe's other end, and the reader waits for the last of them.
    drop(command);
    let mut kept = Vec::new();
    if let Some(said) = &mut said {
        said.read_to_end(&mut kept).map_err(BuildError::Run)?;
    }
    let status = child.wait().map_err(BuildError::Run)?;
    if status.success() {
        return Ok(());
    }
    Err(BuildError::Failed { command: plan.command.clone(), status, output: kept })
}

/// A component file, as it is named to people.
pub struct Artifact {
    name: String,
    bytes: usize,
    digest: String,
}

impl Artifact {
    /// Looks at a component.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let digest = Sha256::digest(&bytes).iter().take(2).map(|byte| format!("{byte:02x}")).collect();
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Self { name, bytes: bytes.len(), digest })
    }
}

/// `orders.wasm 94 KiB sha256:9f3c..`
impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} KiB sha256:{}..", self.name, self.bytes.div_ceil(1024), self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(command: &str) -> BuildPlan {
        BuildPlan { command: command.to_owned(), directory: std::env::temp_dir() }
    }

    #[test]
    fn knows_what_a_command_needs() {
        for (command, cargo, target) in [
            (CARGO_BUILD, true, true),
            ("cd a && cargo build --target=wasm32-wasip2", true, true),
            ("cargo build", true, false),
            ("make cargo-free TARGET=wasm32-wasip2", false, false),
        ] {
            assert_eq!((plan(command).uses_cargo(), plan(command).needs_target()), (cargo, target), "{command}");
        }
    }

    #[test]
    fn a_failed_build_hands_out_what_it_said_in_order() {
        let error = build(&plan("echo one; echo two >&2; echo three; exit 3"), Output::Kept).expect_err("it exits 3");
        let BuildError::Failed { output, status, .. } = &error else { panic!("{error}") };
        assert_eq!((String::from_utf8_lossy(output).as_ref(), status.code()), ("one\ntwo\nthree\n", Some(3)));
    }

    #[test]
    fn a_build_that_works_says_nothing() {
        assert!(build(&plan("echo one"), Output::Kept).is_ok());
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let plan = BuildPlan { command: "true".to_owned(), directory: PathBuf::from("no/such") };
        let error = prepare(&plan, &mut |_| {}).expect_err("no directory").to_string();
        assert!(error.starts_with("the build cannot run in no/such: "), "{error}");
    }
}
