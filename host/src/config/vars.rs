//! `[vars]`: declared names that stand for values from outside the file.
//!
//! Substitution happens after parsing and only inside string values, so a value can never change
//! the shape of a file; only declared names are substituted, so a stray `${x}` is an error and not
//! an empty string. Reads the environment through the given function, and the files that a
//! declaration names.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::nearest;

/// Looks up an environment variable.
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Values larger than this come from the wrong file.
const MAX_VALUE_FILE: u64 = 1024 * 1024;

/// Where a variable's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Env,
    File,
    /// An environment variable whose value may be used only where nothing prints it.
    Secret,
}

#[derive(Clone)]
pub struct Variable {
    pub kind: Kind,
    /// `None`: it has no value, which was reported at its declaration.
    pub value: Option<String>,
}

/// The declared variables of one file.
#[derive(Clone, Default)]
pub struct Vars {
    declared: BTreeMap<String, Variable>,
}

/// A string value after substitution.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    pub value: String,
    /// What messages may quote: the value, or what the file says when the value is not ours to show.
    pub shown: String,
    pub secret: bool,
    /// A variable without a value took part; it was reported, so nothing more is to be said.
    pub unresolved: bool,
    /// At least one variable took part.
    pub substituted: bool,
}

/// What is wrong with a `${...}`.
#[derive(Debug, PartialEq, Eq)]
pub enum VarFault {
    Undeclared { name: String, nearest: Option<String> },
    Unclosed,
}

impl Vars {
    pub fn declare(&mut self, name: &str, variable: Variable) {
        self.declared.insert(name.to_owned(), variable);
    }

    /// `${name}` is replaced, `$${` stands for `${`, any other `$` for itself.
    pub fn substitute(&self, raw: &str) -> Result<Text, VarFault> {
        let mut text = Text {
            value: String::with_capacity(raw.len()),
            shown: String::new(),
            secret: false,
            unresolved: false,
            substituted: false,
        };
        let mut hidden = false;
        let mut rest = raw;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                text.value.push_str(&rest[..at - 1]);
                text.value.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            text.value.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').ok_or(VarFault::Unclosed)?;
            let name = name.trim();
            let variable = self.declared.get(name).ok_or_else(|| self.undeclared(name))?;
            text.value.push_str(variable.value.as_deref().unwrap_or_default());
            text.unresolved |= variable.value.is_none();
            text.secret |= variable.kind == Kind::Secret;
            hidden |= variable.kind != Kind::Env;
            text.substituted = true;
            rest = after;
        }
        text.value.push_str(rest);
        text.shown = if hidden { raw.to_owned() } else { text.value.clone() };
        Ok(text)
    }

    fn undeclared(&self, name: &str) -> VarFault {
        let names = self.declared.keys().map(String::as_str);
        VarFault::Undeclared { name: name.to_owned(), nearest: nearest(name, names).map(str::to_owned) }
    }
}

/// Without the operating system's number.
pub fn plain_io_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// A value from a file: its text without the line end that editors add.
pub fn read_value_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| plain_io_error(&error))?.len();
    if size > MAX_VALUE_FILE {
        return Err(format!("it has {size} bytes, at most {MAX_VALUE_FILE} are taken"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| plain_io_error(&error))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Vars {
        let mut vars = Vars::default();
        let declared = [("region", Kind::Env, "eu"), ("key", Kind::Secret, "hunter2")];
        for (name, kind, value) in declared {
            vars.declare(name, Variable { kind, value: Some(value.to_owned()) });
        }
        vars.declare("unset", Variable { kind: Kind::Env, value: None });
        vars
    }

    #[test]
    fn declared_names_are_replaced_and_nothing_else() {
        let cases = [
            ("plain", "plain"),
            ("${region}", "eu"),
            ("a-${ region }-b-${region}", "a-eu-b-eu"),
            ("$5 and $region", "$5 and $region"),
            ("$${region}", "${region}"),
        ];
        for (raw, expected) in cases {
            let text = vars().substitute(raw).map(|text| text.value);
            assert_eq!(text, Ok(expected.to_owned()));
        }
    }

    #[test]
    fn a_substituted_value_is_not_substituted_again() {
        let mut vars = vars();
        let value = Some("${key}".to_owned());
        vars.declare("sly", Variable { kind: Kind::Env, value });
        assert_eq!(vars.substitute("${sly}").map(|text| text.value), Ok("${key}".to_owned()));
    }

    #[test]
    fn a_secret_is_marked_and_never_shown() {
        let text = vars().substitute("x${key}").ok();
        let seen = text.map(|text| (text.value, text.shown, text.secret));
        assert_eq!(seen, Some(("xhunter2".into(), "x${key}".into(), true)));
    }

    #[test]
    fn undeclared_and_unclosed_names_are_faults_and_unset_ones_are_marked() {
        let undeclared = VarFault::Undeclared { name: "regoin".to_owned(), nearest: Some("region".to_owned()) };
        assert_eq!(vars().substitute("${regoin}").err(), Some(undeclared));
        assert_eq!(vars().substitute("${region").err(), Some(VarFault::Unclosed));
        assert_eq!(vars().substitute("${unset}").map(|text| text.unresolved), Ok(true));
    }

    impl std::fmt::Debug for Text {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.shown)
        }
    }
}
