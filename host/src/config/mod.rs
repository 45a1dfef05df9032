//! Configuration: from flags and files to checked types.
//!
//! `schema` reads what the files may say, with the place of every value; `check` compares values
//! with each other and across files; both put what they find into one [`Report`], so that a user
//! sees all errors of all files at once. Only when it holds no error is there a [`Plan`]. Reads
//! files and nothing else: no network, no Kafka, no component is loaded here.

mod check;
pub mod codes;
mod diagnostic;
mod differences;
mod flags;
mod librdkafka;
mod limits;
mod load;
mod mask;
mod names;
mod outbound;
mod pace;
mod render;
mod request;
mod schema;
mod secret;
mod source;
mod start;
mod table;
mod types;
mod units;
mod values;
mod vars;

pub use diagnostic::{Diagnostic, Level, Origin, Origins, Report, SourceText};
pub use differences::{Change, changes};
pub use load::{DEFAULT_ADMIN, glance, load, load_deployed};
pub use names::nearest;
pub use request::{AdminChoice, Deployed, InlinePipeline, LoadRequest, Outside, Purpose};
pub use start::{START_FORM, parse_start};
pub use types::*;
pub use units::{
    DURATION_FORM, SIZE_FORM, UnitError, format_duration, format_rate, format_size, parse_duration, parse_size,
};
