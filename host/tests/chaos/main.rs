//! Chaos on a real broker: hosts of one group and the broker itself die, stand still, join and leave while records flow, and
//! in the end the accounting (`host/tests/accounting`) says what became of every record.
//!
//! `cargo test --release --test chaos -- --seconds 600 --seed 7` (`--help` tells the rest). Without arguments it is the short
//! form that every run of the tests has. The seed draws the faults and their times, nothing else: what a fault meets is up
//! to the machine, so a seed is a kind of weather, not a recording. The journal, the hosts' logs and the transcript of a run
//! that found something are kept.
//!
//! | file | knows |
//! |---|---|
//! | `arguments` | what may be asked for |
//! | `plan` | the faults of a seed; pure |
//! | `producers` | who writes the input, and the ledger of what they were told is written |
//! | `hosts` | the processes under test, and their logs |
//! | `run` | the stage, the faults carried out, the end: heal, quiesce, judge |
//! | `journal` | what happened when |

mod arguments;
mod hosts;
mod journal;
mod plan;
mod producers;
mod run;

#[path = "../accounting/checker/mod.rs"]
mod checker;
#[path = "../support/mod.rs"]
mod support;

use arguments::{Arguments, Asked};
use support::kafka::Kafka;

const NAME: &str = "chaos_loses_nothing";

fn main() -> std::process::ExitCode {
    let arguments = match Arguments::read(NAME) {
        Asked::Run(arguments) => arguments,
        Asked::Nothing => return std::process::ExitCode::SUCCESS,
    };
    let kafka = checker::reader::possible().and_then(|()| Kafka::dedicated(run::broker()));
    let kafka = match kafka {
        Ok(kafka) => kafka,
        Err(missing) => {
            support::not_run::report(NAME, &missing);
            return std::process::ExitCode::SUCCESS;
        }
    };
    if run::run(kafka, &arguments) { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}
