//! Puts the figures where readers find them: docs/benchmark.json, the chart, and the marked parts of the documents.

use std::path::Path;

use crate::chart;
use crate::results::Results;
use crate::support::repository;
use crate::table::{self, HEAD, Line};

/// What the README shows; the rest is one link away.
const CHIEF: [&str; 6] = ["throughput", "throughput-1k", "cpu", "latency", "streams", "batches"];
const BEGIN: &str = "<!-- figures: written by `cargo bench --bench side_by_side -- --publish` -->";
const END: &str = "<!-- end of figures -->";

pub fn publish(results: &Results) {
    let docs = repository().join("docs");
    let json = serde_json::to_string_pretty(&results.document).expect("figures can be written");
    write(&docs.join("benchmark.json"), &(json + "\n"));
    let machine = &results.document.machine;
    let caption = format!(
        "{}, {} ({} cores), the broker on the same cores; medians of {} rounds",
        results.document.date,
        machine.processor,
        machine.cores,
        results.rounds()
    );
    write(&docs.join("benchmark.svg"), &chart::svg(results, &caption));
    let lines = table::lines(results);
    let all: Vec<&Line> = lines.iter().collect();
    let circumstances = table::circumstances(results);
    replace(&docs.join("benchmark.md"), &format!("{}\n{circumstances}.\n", markdown(&all)));
    let chief: Vec<&Line> = lines.iter().filter(|line| CHIEF.contains(&line.id)).collect();
    let image = "![records per second, CPU per record, latency](docs/benchmark.svg)";
    replace(&repository().join("README.md"), &format!("{image}\n\n{}\n{circumstances}.\n", markdown(&chief)));
}

fn markdown(lines: &[&Line]) -> String {
    let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = row(&HEAD.map(str::to_owned));
    text += &row(&HEAD.map(|_| "---".to_owned()));
    lines.iter().for_each(|line| text += &row(&line.cells));
    text
}

/// Replaces what lies between the marks of a document.
fn replace(document: &Path, figures: &str) {
    let text = std::fs::read_to_string(document).unwrap_or_else(|error| panic!("{}: {error}", document.display()));
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("{} has no marks for figures", document.display()));
    write(document, &format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"));
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    println!("written: {}", path.display());
}
