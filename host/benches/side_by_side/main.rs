//! Side by side on a real broker: sluicebox with sandboxed handlers against native loops that do the same work, and against
//! Kafka Streams. Prints a table: what, got, target, verdict; `docs/benchmark.md` explains it.
//!
//! `cargo bench --bench side_by_side -- --list` names the rows, `--help` the flags. Without any flag everything is measured
//! in six rounds.
//!
//! How it is measured: all systems of a stage read the same preloaded topic, each in a fresh group and into a fresh topic,
//! in rounds whose order changes, so that a slow minute of the machine hits all. Rates are those of the output's growth as
//! the broker says it, CPU time is what the kernel accounts to the process, latencies are seen by an independent consumer.
//!
//! | file | knows |
//! |---|---|
//! | `plan` | what is measured: stages and variants |
//! | `table` | the rows: which figures, against which target |
//! | `lab` | the order of it all: stages, rounds, what is there already |
//! | `systems` | how each system is started |
//! | `input` | what the preloaded topics hold |
//! | `throughput`, `latency`, `standing`, `soak` | one measurement each |
//! | `watermarks` | how far an output or a group has come |
//! | `machine` | which machine this is, and what else runs on it |
//! | `results` | figures, medians, the file they are kept in |
//! | `chart`, `publish` | the chart and the documents |
//! | `native` | the native loops; this program runs itself for them |
//!
//! The bench profile inherits the release profile, and cargo shares what both build: nothing is compiled twice. A bench
//! target is given the path of the binary under test, which an example is not.

mod chart;
#[path = "../shared/crossing.rs"]
mod crossing;
mod input;
mod lab;
mod latency;
mod machine;
mod native;
mod options;
mod plan;
mod publish;
mod results;
mod soak;
mod standing;
mod systems;
mod table;
mod throughput;
mod watermarks;

#[path = "../../tests/support/mod.rs"]
mod support;

use options::{Asked, Options};

/// The native loops get what the host has, librdkafka's `malloc` included: they are to lose by nothing that they could have, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("native", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return native::run(&native::Job::parse(rest).expect("the arguments of a native loop"));
    }
    match Options::parse(&arguments) {
        Ok(Asked::Help) => println!("{}", options::HELP),
        Ok(Asked::List) => table::list(),
        Ok(Asked::Run(options)) => run(&options),
        Err(error) => {
            eprintln!("side_by_side: {error}");
            std::process::exit(2);
        }
    }
}

fn run(options: &Options) {
    let mut results = results::Results::open(options).unwrap_or_else(|error| {
        eprintln!("side_by_side: {error}");
        std::process::exit(2);
    });
    // Asked first: without Java there is nothing to measure.
    match support::kafka::Kafka::dedicated(lab::broker()) {
        Ok(kafka) => lab::run(&kafka, options, &mut results),
        Err(missing) => return support::not_run::report("side_by_side", &missing),
    }
    println!("{}", table::text(&results, options));
    println!("figures: {}", options.file.display());
    if options.publish {
        publish::publish(&results);
    }
}
