//! The host's threads. None of them ends by a panic unseen: where nobody takes a panic up to begin anew (as
//! `pipeline/supervise.rs` does for its pipeline, and `pipeline/caller.rs` for a call), the process ends, and whoever watches
//! it starts another one. Half a host that looks well would be worse.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

/// Starts a thread.
///
/// # Errors
/// When the system gives none.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    spawn_with(Builder::new(), name, work)
}

/// Starts a thread with a stack of so many bytes.
///
/// # Errors
/// When the system gives none.
pub fn spawn_deep(name: &str, stack: usize, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    spawn_with(Builder::new().stack_size(stack), name, work)
}

fn spawn_with(builder: Builder, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let named = name.to_owned();
    builder.name(name.to_owned()).spawn(move || {
        // The panic itself has been reported when this returns.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(
                "thread {named} panicked, a bug of the host's: the process ends; what was not committed is done again"
            );
            std::process::abort();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};
    use std::time::{Duration, Instant};

    use clap::Parser;

    use crate::cli::args::Cli;
    use crate::cli::logging::{self, Audience};

    /// Runs one test of this program in a process of its own.
    fn run(test: &str) -> Output {
        let program = std::env::current_exe().expect("this program");
        let test = format!("threads::tests::{test}");
        Command::new(program).args(["--exact", &test, "--nocapture"]).env(ALONE, "1").output().expect("it runs")
    }

    /// Set in the processes of [`run`], where alone these do something.
    const ALONE: &str = "SLUICEBOX_TEST_ALONE";

    /// The program's own log, as it runs where its output is collected.
    fn start_log() {
        let cli = Cli::try_parse_from(["sluicebox", "--log-format", "json", "check"]).expect("a command line");
        logging::start(&cli.global, false, Audience::Operator);
    }

    #[test]
    fn one_that_panics() {
        if std::env::var_os(ALONE).is_none() {
            return;
        }
        start_log();
        let thread = super::spawn("sb-test", || panic!("on purpose")).expect("a thread");
        // Not the end of the process yet: this waits for it.
        drop(thread.join());
        std::process::exit(0);
    }

    #[test]
    fn one_that_ends() {
        super::spawn_deep("sb-test", 1 << 20, || ()).expect("a thread").join().expect("no panic");
    }

    /// A panic of a thread ends the process, at once, with the panic's own words and with a line of the log that says what it
    /// means, which is out before the end; the end of one does not.
    #[test]
    fn a_panic_ends_the_process() {
        let begun = Instant::now();
        let output = run("one_that_panics");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("sb-test") && said.contains("on purpose"), "{said}");
        let line =
            said.lines().find(|line| line.contains("\"level\":\"ERROR\"")).unwrap_or_else(|| panic!("no line: {said}"));
        assert!(line.contains("thread sb-test panicked") && line.contains("the process ends"), "{line}");
        assert!(run("one_that_ends").status.success());
    }
}
