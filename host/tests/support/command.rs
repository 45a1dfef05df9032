//! Commands of the real binary, carried out to their end.

use std::process::Command;

use super::host::binary;

/// What a command came to.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub data: String,
    pub talk: String,
}

impl Ended {
    /// The command did what it was asked for.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended so, and said all of these to people.
    #[track_caller]
    pub fn refused(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in says {
            assert!(self.talk.contains(part), "no `{part}` in {self:?}");
        }
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Carries out a command of the real binary.
pub fn sluicebox(arguments: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("SB_HOST").env_remove("SB_TOKEN_FILE").env("NO_COLOR", "1");
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), data: text(output.stdout), talk: text(output.stderr) }
}

/// A digest, as versions are named.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
