//! Commands. The only place that prints or exits.
//!
//! - [`args`]: every command and flag, with its help.
//! - [`check`], [`dev`], [`host`]: a command each.
//! - [`status`], [`pause`], [`deploy`]: commands that ask a running host; [`remote`] is how.
//! - [`compile`]: the hidden one, which the host calls itself.
//! - [`probe`]: what `check` asks of components and clusters.
//! - [`logging`]: where the log goes.
//! - [`exit`]: exit codes.

pub mod args;
pub mod check;
mod compile;
mod deploy;
mod dev;
pub mod exit;
mod host;
pub(crate) mod logging;
mod pause;
mod probe;
mod remote;
mod status;

use std::io::{self, IsTerminal, Write};

use clap::{CommandFactory, FromArgMatches};

use self::args::{Cli, Command};
use self::exit::Exit;
use self::logging::Audience;

/// Reads the command line and carries it out.
#[must_use]
pub fn main() -> Exit {
    let no_color = std::env::var("NO_COLOR").ok();
    let command = Cli::command().color(args::clap_colour(no_color.as_deref()));
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream and code each has.
            return match error.print() {
                Ok(()) if error.exit_code() == 0 => Exit::Ok,
                _ => Exit::Usage,
            };
        }
    };
    let colour = cli.global.colour(io::stderr().is_terminal(), no_color.as_deref());
    // A server tells what it does; the other commands print their results, and only what went wrong besides.
    let audience = if matches!(cli.command, Command::Host(_)) { Audience::Operator } else { Audience::Developer };
    logging::start(&cli.global, colour, audience);
    let form = cli.global.format;
    match cli.command {
        Command::Host(args) => host::run(&args, colour),
        Command::Dev(args) => dev::run(&args, &cli.global, colour),
        Command::Compile(args) => compile::run(&args),
        Command::Check(args) => {
            let outside = host::outside();
            let checks = probe::checks(&args, &outside);
            let checks: Vec<&dyn check::ComponentCheck> = checks.iter().map(AsRef::as_ref).collect();
            // Not locked: librdkafka's threads log to stderr while clusters are asked.
            let (mut data, mut talk) = (io::stdout(), io::stderr());
            check::run(&args, form, colour, &outside, &checks, &mut data, &mut talk).unwrap_or(Exit::Failed)
        }
        Command::Status(args) => printed(|data, talk| status::run(&args, form, data, talk)),
        Command::Pause(args) => printed(|data, talk| pause::pause(&args, form, data, talk)),
        Command::Resume(args) => printed(|data, talk| pause::resume(&args, form, data, talk)),
        Command::Deploy(args) => printed(|data, talk| deploy::deploy(&args, form, data, talk)),
        Command::Rollback(args) => printed(|data, talk| deploy::rollback(&args, form, data, talk)),
        Command::Versions(args) => printed(|data, talk| deploy::versions(&args, form, data, talk)),
    }
}

/// A command that only prints: results to stdout, talk to stderr.
fn printed(command: impl FnOnce(&mut dyn Write, &mut dyn Write) -> io::Result<Exit>) -> Exit {
    command(&mut io::stdout().lock(), &mut io::stderr().lock()).unwrap_or(Exit::Failed)
}
