//! The command line: ours, and as much of the test runner's as cargo may hand to every test program.

use std::time::Duration;

use clap::Parser;

use crate::plan::Fault;

/// What is to be done.
pub enum Asked {
    Run(Arguments),
    /// Another test was asked for, or only a list.
    Nothing,
}

#[derive(Debug, Parser)]
#[command(
    about = "Kills, stops and starts hosts and a broker while records flow, and judges what became of every record"
)]
pub struct Arguments {
    /// How long faults come, seconds
    #[arg(long, default_value_t = 35)]
    seconds: u64,
    /// Draws the faults and their times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Records a second, all partitions together
    #[arg(long, default_value_t = 1500)]
    pub rate: u64,
    /// How the group shares its partitions: cooperative, range, roundrobin, consumer
    #[arg(long, default_value = "cooperative")]
    pub protocol: String,
    /// When the hosts commit: success, receive (at most once)
    #[arg(long, default_value = "success", value_parser = ["success", "receive"])]
    pub ack: String,
    /// Only these faults
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Fault>,
    /// Keep journal, logs and transcript though nothing was found
    #[arg(long)]
    pub keep: bool,

    // ---- the test runner's ----
    /// Run when one of these is part of the test's name
    #[arg(hide = true)]
    filters: Vec<String>,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    test_threads: Option<u32>,
    #[arg(long, hide = true)]
    format: Option<String>,
}

impl Arguments {
    /// Reads this process's arguments; ends it when they make no sense.
    pub fn read(name: &str) -> Asked {
        let arguments = Arguments::parse();
        if arguments.list {
            println!("{name}: test");
            return Asked::Nothing;
        }
        let names = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
        let meant = arguments.filters.is_empty() || arguments.filters.iter().any(names);
        if !meant || arguments.skip.iter().any(names) || arguments.ignored {
            return Asked::Nothing;
        }
        Asked::Run(arguments)
    }

    pub fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
