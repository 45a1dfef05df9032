//! Side by side on a real broker: sluicebox with a sandboxed handler against a native loop of the same shape.
//!
//! Both read the same preloaded topic, put the first 100 bytes of each value in upper case, produce to a fresh topic with
//! event time kept and acknowledgements of all replicas, and commit in a fresh group. Rounds are interleaved and the order
//! rotates, so that a slow minute of the machine hits both.
//!
//! `cargo bench --bench side_by_side -- [--rounds 3] [--records 2000000] [--size 100] [--partitions 8]
//! [--only native|sluicebox] [--guest FILE.wasm] [--json FILE]`
//!
//! The bench profile inherits the release profile, and cargo shares what both build: nothing is compiled twice. A bench
//! target is given the path of the binary under test, which an example is not.

mod native;
mod options;
mod rounds;
mod watermarks;

#[path = "../../tests/support/mod.rs"]
mod support;

use options::Options;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, bootstrap, input, output, group] = arguments.as_slice()
        && command == "native"
    {
        let [bootstrap, input, output, group] = [bootstrap, input, output, group].map(String::clone);
        return native::run(&native::Job { bootstrap, input, output, group });
    }
    let options = Options::parse(&arguments).unwrap_or_else(|error| {
        eprintln!("side_by_side: {error}");
        std::process::exit(2);
    });
    match support::kafka::Kafka::shared() {
        Ok(kafka) => rounds::run(kafka, &options),
        Err(missing) => support::not_run::report("side_by_side", &missing),
    }
}
