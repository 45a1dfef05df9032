//! The flags of the measurement.

use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Native,
    Sluicebox,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Native => "native",
            Variant::Sluicebox => "sluicebox",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub rounds: usize,
    pub records: u64,
    /// Bytes of a value.
    pub size: usize,
    pub partitions: i32,
    pub variants: Vec<Variant>,
    /// The handler as a component; built from the package `uppercase` where none is named.
    pub guest: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Options, String> {
        let mut options = Options {
            rounds: 3,
            records: 2_000_000,
            size: 100,
            partitions: 8,
            variants: vec![Variant::Native, Variant::Sluicebox],
            guest: std::env::var_os("SLUICEBOX_BENCH_GUEST").map(PathBuf::from),
            json: None,
        };
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            // Cargo passes this to every benchmark.
            if flag == "--bench" {
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
            match flag.as_str() {
                "--rounds" => options.rounds = number(flag, value)?,
                "--records" => options.records = number(flag, value)?,
                "--size" => options.size = number(flag, value)?,
                "--partitions" => options.partitions = number(flag, value)?,
                "--only" => options.variants = vec![variant(value)?],
                "--guest" => options.guest = Some(value.into()),
                "--json" => options.json = Some(value.into()),
                _ => {
                    return Err(format!(
                        "{flag} is unknown; there are --rounds --records --size --partitions --only --guest --json"
                    ));
                }
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.replace('_', "").parse().map_err(|_| format!("{flag} takes a number, not {value:?}"))
}

fn variant(value: &str) -> Result<Variant, String> {
    let all = [Variant::Native, Variant::Sluicebox];
    all.into_iter()
        .find(|variant| variant.name() == value)
        .ok_or_else(|| format!("--only takes native or sluicebox, not {value:?}"))
}
