//! Exit codes: a contract with scripts.

use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// A check, a test or the configuration failed; or a pipeline did.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Nobody answers.
    CannotConnect = 3,
    NotFound = 4,
    /// The state forbids it: an active group, a port in use.
    Precondition = 5,
    TimedOut = 6,
    /// Ended by a second signal, before everything was settled.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
