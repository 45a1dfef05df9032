//! `sluicebox check`: the loader of `host`, with a printed result instead of a start.
//!
//! Knows configuration only. What needs a component or a broker is asked through
//! [`ComponentCheck`], so that this command has exactly the checks of a start.

use std::io::{self, Write};

use serde_json::json;

use super::args::{CheckArgs, OutputForm};
use super::exit::Exit;
use crate::config::{Diagnostic, Outside, Pipeline, Report, load};

/// Looks at what the files only name: the component, and with `--connect` the brokers.
pub trait ComponentCheck {
    /// Whatever does not fit, each with its place (`pipeline.origin`).
    fn check(&self, pipeline: &Pipeline) -> Vec<Diagnostic>;
}

/// Checks and prints: findings to `talk`, results to `data`; with JSON everything to `data`.
pub fn run(
    args: &CheckArgs,
    form: OutputForm,
    colour: bool,
    outside: &Outside<'_>,
    checks: &[&dyn ComponentCheck],
    data: &mut dyn Write,
    talk: &mut dyn Write,
) -> io::Result<Exit> {
    let (pipelines, report) = check(args, outside, checks);
    match form {
        OutputForm::Json => print_json(&pipelines, &report, data)?,
        OutputForm::Text => {
            if !report.is_empty() {
                talk.write_all(report.render(colour).as_bytes())?;
            }
            // A name whose file has errors is not ok, and which error belongs to which name is for
            // the report to say: so all or none.
            if !report.has_errors() {
                print_ok(&pipelines, data)?;
            }
        }
    }
    Ok(if report.has_errors() { Exit::Failed } else { Exit::Ok })
}

fn check(
    args: &CheckArgs,
    outside: &Outside<'_>,
    checks: &[&dyn ComponentCheck],
) -> (Vec<Pipeline>, Report) {
    let plan = match load(&args.load_request(), outside) {
        Ok(plan) => plan,
        Err(report) => return (Vec::new(), report),
    };
    let mut report = plan.warnings;
    for pipeline in &plan.pipelines {
        for found in checks.iter().flat_map(|check| check.check(pipeline)) {
            report.push(found);
        }
    }
    report.sort();
    (plan.pipelines, report)
}

fn print_ok(pipelines: &[Pipeline], data: &mut dyn Write) -> io::Result<()> {
    let width = pipelines.iter().map(|pipeline| pipeline.name.len()).max().unwrap_or(0);
    for pipeline in pipelines {
        let file = pipeline.origin.root().file();
        writeln!(data, "ok  {:width$}  {file}", pipeline.name)?;
    }
    Ok(())
}

fn print_json(pipelines: &[Pipeline], report: &Report, data: &mut dyn Write) -> io::Result<()> {
    let ok = !report.has_errors();
    let checked: Vec<_> = pipelines
        .iter()
        .map(|pipeline| json!({ "name": pipeline.name, "file": pipeline.origin.root().file() }))
        .collect();
    let mut result = report.to_json();
    result["ok"] = json!(ok);
    result["pipelines"] = json!(checked);
    writeln!(data, "{result:#}")
}
