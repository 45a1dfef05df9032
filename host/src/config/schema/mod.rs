//! What the two files may say.
//!
//! `manifest` is `pipeline.toml`, the author's; `host` is the platform team's; what both have is
//! here: parsing, `[vars]`, handler limits. A reader checks each value by itself; values are
//! compared with each other in `check`.

mod host;
mod http;
mod manifest;
mod words;

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

use super::codes;
use super::diagnostic::{Diagnostic, Report, SourceText};
use super::names::as_pipeline_name;
use super::table::{Located, Table};
use super::types::{HandlerLimits, KIB, MIB};
use super::vars::{Env, Kind, Variable, Vars, plain_io_error, read_value_file};

pub use host::{ClusterDraft, HostFile, bootstrap_fault, parse_admin, property_fault, read_host};
#[cfg(test)]
pub(super) use manifest::manifest_with;
pub use manifest::{DEFAULT_HEADER_PREFIX, group_fault, read_manifest};

const GIB: u64 = 1024 * MIB;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads a file's text; `None` when that failed, which is in the report.
pub fn read_file(path: &Path, report: &mut Report) -> Option<String> {
    let error = match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => return Some(text),
            Err(_) => "it is not UTF-8 text".to_owned(),
        },
        Err(error) => plain_io_error(&error),
    };
    let message = format!("cannot read {}: {error}", path.display());
    report.push(Diagnostic::error(codes::UNREADABLE, message));
    None
}

/// All syntax errors of a text, or its tree.
fn parse<'t>(text: &'t str, source: &Arc<SourceText>, report: &mut Report) -> Option<DeTable<'t>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(document.into_inner());
    }
    for error in errors {
        let span = error.span().unwrap_or_default();
        let found = Diagnostic::error(codes::SYNTAX, "this is not TOML").at(source.at(span));
        report.push(found.label(error.message()));
    }
    None
}

/// `schema = 1`.
fn check_schema(table: &mut Table<'_>) {
    let Some((_, origin)) = table.entry("schema") else {
        table.require("schema", "schema = 1");
        return;
    };
    if table.count("schema", 1, 0..=u32::MAX) != 1 {
        let found = Diagnostic::error(codes::WRONG_SCHEMA, "this schema is of another version");
        table.report(found.at(origin).label("this host reads schema 1"));
    }
}

/// `[vars]`: each `NAME = { env | file | secret = "...", default = "..." }`.
fn read_vars(table: &mut Table<'_>, directory: &Path, env: Env<'_>) -> Vars {
    let mut vars = Vars::default();
    for (name, mut variable) in table.named_tables("vars") {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !name.value.chars().all(legal) || name.value.is_empty() {
            let message = format!("`{}` cannot be the name of a variable", name.value);
            let found = Diagnostic::error(codes::BAD_NAME, message).at(name.origin.clone());
            variable.report(found.label("letters, digits, `_` and `-`"));
        }
        let sources = [
            (Kind::Env, variable.string("env")),
            (Kind::File, variable.string("file")),
            (Kind::Secret, variable.string("secret")),
        ];
        let written = ["env", "file", "secret"].iter().filter(|kind| variable.has(kind)).count();
        let mut default = variable.string("default").map(|default| default.value);
        if variable.has("secret") && variable.has("default") {
            let message = format!("the secret `{}` must not be written into the file", name.value);
            // At the name: the place of the default would quote it.
            let found = Diagnostic::error(codes::EXPOSED_SECRET, message).at(name.origin.clone());
            variable.report(found.help("remove `default`"));
            default = Some(String::new());
        }
        if written != 1 {
            let message = format!("the variable `{}` needs one source", name.value);
            let found = Diagnostic::error(codes::BAD_VARIABLE, message).at(variable.origin());
            variable.report(found.note("one of `env = \"NAME\"`, `file = \"PATH\"`, `secret = \"NAME\"`"));
        }
        let source = sources.into_iter().find_map(|(kind, from)| from.map(|from| (kind, from)));
        let (kind, value) = match source {
            Some((kind, from)) if written == 1 => {
                (kind, variable_value(&variable, kind, &from, default, directory, env))
            }
            // Reported above; declared without a value, so that its uses are not reported again.
            _ => (Kind::Env, None),
        };
        vars.declare(name.value, Variable { kind, value });
    }
    vars
}

fn variable_value(
    table: &Table<'_>,
    kind: Kind,
    from: &Located<String>,
    default: Option<String>,
    directory: &Path,
    env: Env<'_>,
) -> Option<String> {
    let (found, what) = match kind {
        Kind::Env | Kind::Secret => (env(&from.value), format!("the environment variable `{}` is not set", from.value)),
        Kind::File => {
            let path = directory.join(&from.value);
            match read_value_file(&path) {
                Ok(value) => (Some(value), String::new()),
                Err(error) => (None, format!("cannot read {}: {error}", path.display())),
            }
        }
    };
    if let Some(value) = found.or(default) {
        return Some(value);
    }
    let found = Diagnostic::error(codes::UNSET_VARIABLE, what).at(from.origin.clone());
    let help = match kind {
        Kind::Secret => "set it".to_owned(),
        Kind::Env => "set it, or add `default = \"...\"`".to_owned(),
        Kind::File => "make the file readable, or add `default = \"...\"`".to_owned(),
    };
    table.report(found.help(help));
    None
}

/// The keys of `[handler.limits]`, and of the operator's ceilings over them.
fn read_limits(table: &mut Table<'_>, default: HandlerLimits) -> HandlerLimits {
    let times: RangeInclusive<Duration> = MILLISECOND..=HOUR;
    let limits = HandlerLimits {
        // A wasm page at least, what 32 bits can address at most.
        memory: table.size("memory", default.memory, 64 * KIB..=4 * GIB),
        running_time: table.duration("running_time", default.running_time, times.clone()),
        batch_running_time: table.duration("batch_running_time", default.batch_running_time, times.clone()),
        wall_time: table.duration("wall_time", default.wall_time, times.clone()),
        batch_wall_time: table.duration("batch_wall_time", default.batch_wall_time, times.clone()),
        init_running_time: table.duration("init_running_time", default.init_running_time, times.clone()),
        init_wall_time: table.duration("init_wall_time", default.init_wall_time, times),
        answer_bytes: table.size("answer_bytes", default.answer_bytes, KIB..=GIB),
        emissions: table.count("emissions", default.emissions, 1..=100_000),
        emission_bytes: table.size("emission_bytes", default.emission_bytes, KIB..=GIB),
        stack: table.size("stack", default.stack, 64 * KIB..=16 * MIB),
        memories: table.count("memories", default.memories, 1..=1_000),
        tables: table.count("tables", default.tables, 1..=1_000),
        table_elements: table.count("table_elements", default.table_elements, 1..=10_000_000),
        instances: table.count("instances", default.instances, 1..=1_000),
        handles: table.count("handles", default.handles, 10..=1_000_000),
        log_line: table.size("log_line", default.log_line, 64..=64 * KIB),
        log_rate: table.rate("log_rate", default.log_rate, KIB..=100 * MIB),
        // A line fits at least.
        log_burst: table.size("log_burst", default.log_burst, 64 * KIB..=100 * MIB),
        metric_series: table.count("metric_series", default.metric_series, 0..=100_000),
        cpu_share: table.count("cpu_share", default.cpu_share, 1..=1_000),
        http_requests: table.count("http_requests", default.http_requests, 1..=10_000),
        http_body: table.size("http_body", default.http_body, KIB..=GIB),
        http_fields: table.size("http_fields", default.http_fields, 8 * KIB..=16 * MIB),
        http_time: table.duration("http_time", default.http_time, MILLISECOND..=HOUR),
        component_size: table.size("component_size", default.component_size, KIB..=GIB),
        compile_time: table.duration("compile_time", default.compile_time, SECOND..=HOUR),
        compile_memory: table.size("compile_memory", default.compile_memory, 256 * MIB..=64 * GIB),
    };
    table.not_yet("held", "see `max` in [hold]");
    limits
}

/// A legal pipeline name from a path, for the example in "name is missing".
fn suggested_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let parent = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let from = match stem {
        Some(stem) if stem != "pipeline" => stem,
        _ => parent.unwrap_or_default(),
    };
    match as_pipeline_name(&from).as_str() {
        "" => "my-pipeline".to_owned(),
        name => name.to_owned(),
    }
}
