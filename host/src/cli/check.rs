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

fn check(args: &CheckArgs, outside: &Outside<'_>, checks: &[&dyn ComponentCheck]) -> (Vec<Pipeline>, Report) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const MANIFEST: &str = "schema = 1\nname = \"orders\"\n[handler]\ncomponent = \"h.wasm\"\n\
        [source]\ntopics = [\"orders\"]\n[batch.totals]\n";

    /// Finds a fault in every batcher.
    struct NoBatches;

    impl ComponentCheck for NoBatches {
        fn check(&self, pipeline: &Pipeline) -> Vec<Diagnostic> {
            let fault = |name: &str| {
                let message = format!("nothing can reach the batcher `{name}`");
                Diagnostic::error("SB0301", message).at(pipeline.origin.batcher(name))
            };
            pipeline.batchers.iter().map(|batcher| fault(&batcher.name)).collect()
        }
    }

    fn checked(directory: &Path, form: OutputForm, checks: &[&dyn ComponentCheck]) -> (Exit, String, String) {
        let args = CheckArgs { paths: vec![directory.to_owned()], config: None, connect: false, bootstrap: None };
        let outside = Outside { env: &|_| None, property_fault: &|_, _| None };
        let (mut data, mut talk) = (Vec::new(), Vec::new());
        let exit = run(&args, form, false, &outside, checks, &mut data, &mut talk);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (exit.expect("writing to memory"), text(data), text(talk))
    }

    fn pipeline_directory(manifest: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("pipeline.toml"), manifest).expect("a manifest");
        std::fs::write(directory.path().join("h.wasm"), "").expect("a component");
        directory
    }

    #[test]
    fn a_good_manifest_is_one_line_and_exit_0() {
        let directory = pipeline_directory(MANIFEST);
        let file = directory.path().join("pipeline.toml");
        let (exit, data, talk) = checked(directory.path(), OutputForm::Text, &[]);
        assert_eq!(data, format!("ok  orders  {}\n", file.display()));
        assert_eq!((exit, talk.as_str()), (Exit::Ok, ""));
    }

    #[test]
    fn errors_go_to_the_talk_and_exit_1() {
        let directory = pipeline_directory("schema = 1\n");
        let (exit, data, talk) = checked(directory.path(), OutputForm::Text, &[]);
        assert_eq!((exit, data.as_str()), (Exit::Failed, ""));
        assert!(talk.contains("error[SB0104]: `name` is missing"), "{talk}");
    }

    #[test]
    fn what_the_component_check_finds_fails_at_its_line() {
        let directory = pipeline_directory(MANIFEST);
        let (exit, data, _) = checked(directory.path(), OutputForm::Json, &[&NoBatches]);
        let json: serde_json::Value = serde_json::from_str(&data).expect("JSON");
        assert_eq!((exit, json["ok"].as_bool()), (Exit::Failed, Some(false)));
        assert_eq!(json["diagnostics"][0]["code"], "SB0301");
        assert_eq!(json["diagnostics"][0]["at"]["line"], 7);
    }
}
