//! The flags of the measurement.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::support::{repository, scratch};
use crate::table::ROWS;

pub const HELP: &str = "\
cargo bench --bench side_by_side -- [FLAGS]

  --only ROW,…     measure these rows only (--list names them)
  --rounds N       rounds of each variant [6]
  --records N      records of 100 B in the preloaded topic; the other topics follow [4000000]
  --soak TIME      how long memory is watched at full speed, for example 600s [60s]
  --quick          one round of few records: does it work? Its figures mean nothing
  --resume         keep what FILE has and measure what it lacks
  --file FILE      where the figures are kept, from the repository's root [target/side_by_side.json]
  --publish        write docs/benchmark.json, the chart and the tables of the documents
  --list           name the rows";

/// What the command line asks for.
pub enum Asked {
    Help,
    List,
    Run(Options),
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Ids of rows; all where empty.
    pub only: Vec<String>,
    pub rounds: usize,
    pub scale: Scale,
    pub resume: bool,
    pub publish: bool,
    pub file: PathBuf,
}

/// How much of everything. Figures of different scales are not mixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Of 100 B.
    pub records: u64,
    /// What is measured of a latency run, after its start.
    pub latency_seconds: u64,
    pub idle_seconds: u64,
    pub soak_seconds: u64,
}

impl Scale {
    const FULL: Scale = Scale { records: 4_000_000, latency_seconds: 8, idle_seconds: 20, soak_seconds: 60 };
    const QUICK: Scale = Scale { records: 200_000, latency_seconds: 2, idle_seconds: 3, soak_seconds: 8 };

    /// Enough records for figures that mean something.
    pub fn is_full(&self) -> bool {
        self.records >= Scale::FULL.records
    }

    pub fn latency(&self) -> Duration {
        Duration::from_secs(self.latency_seconds)
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub fn soak(&self) -> Duration {
        Duration::from_secs(self.soak_seconds)
    }
}

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Asked, String> {
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let mut options = Options {
            only: Vec::new(),
            rounds: if quick { 1 } else { 6 },
            scale: if quick { Scale::QUICK } else { Scale::FULL },
            resume: false,
            publish: false,
            file: default_file(),
        };
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--help" | "-h" => return Ok(Asked::Help),
                "--list" => return Ok(Asked::List),
                // Cargo passes the first to every benchmark.
                "--bench" | "--quick" => {}
                "--resume" => options.resume = true,
                "--publish" => options.publish = true,
                "--only" => options.only = rows(value()?)?,
                "--rounds" => options.rounds = number(flag, value()?)? as usize,
                "--records" => options.scale.records = number(flag, value()?)?,
                "--soak" => options.scale.soak_seconds = number(flag, value()?.trim_end_matches('s'))?,
                // Cargo runs a benchmark in its package's directory, not in the caller's.
                "--file" => options.file = repository().join(value()?),
                _ => return Err(format!("{flag} is unknown\n\n{HELP}")),
            }
        }
        if options.publish && !options.only.is_empty() && !options.resume {
            return Err("--publish writes the whole table: leave --only away, or add --resume".to_owned());
        }
        Ok(Asked::Run(options))
    }

    /// Whether a variant is needed by the rows asked for.
    pub fn wants(&self, variant: &str) -> bool {
        let asked = |id: &str| self.only.is_empty() || self.only.iter().any(|only| only == id);
        ROWS.iter().any(|row| asked(row.id) && row.measure.needs().contains(&variant))
    }
}

fn default_file() -> PathBuf {
    scratch().parent().expect("the scratch directory lies inside the target directory").join("side_by_side.json")
}

fn number(flag: &str, value: &str) -> Result<u64, String> {
    let number = value.replace('_', "").parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{flag} takes a number above 0, not {value:?}"))
}

fn rows(value: &str) -> Result<Vec<String>, String> {
    let ids: Vec<String> = value.split(',').map(str::to_owned).collect();
    match ids.iter().find(|id| ROWS.iter().all(|row| row.id != id.as_str())) {
        Some(unknown) => Err(format!("there is no row {unknown}; --list names them")),
        None => Ok(ids),
    }
}
