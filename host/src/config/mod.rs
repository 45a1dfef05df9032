//! Configuration: from flags and files to checked types.
//!
//! `schema` reads what the files may say, with the place of every value; `check` compares values
//! with each other and across files; both put what they find into one [`Report`], so that a user
//! sees all errors of all files at once. Only when it holds no error is there a [`Plan`]. Reads
//! files and nothing else: no network, no Kafka, no component is loaded here.

mod diagnostic;
mod types;

pub use diagnostic::{Diagnostic, Level, Origin, Origins, Report, SourceText};
pub use types::*;
