//! `sluicebox compile-plugin`: the host's own child, which compiles one component under limits and ends. Its protocol is
//! `plugin/compile.rs`'s; nobody else is meant to call it.

use std::io::{self, Write as _};

use super::args::CompileArgs;
use super::exit::Exit;
use crate::plugin::CompileJob;

/// Component from stdin, native code to stdout, or a reason to stderr.
pub(super) fn run(args: &CompileArgs) -> Exit {
    let CompileArgs { stack, deterministic, cpu_seconds, memory } = *args;
    let code = match (CompileJob { stack, deterministic, cpu_seconds, memory }).run(io::stdin().lock()) {
        Ok(code) => code,
        Err(reason) => {
            eprintln!("{reason}");
            return Exit::Failed;
        }
    };
    let mut out = io::stdout().lock();
    match out.write_all(&code).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        // Nobody waits for it any more.
        Err(_) => Exit::Failed,
    }
}
