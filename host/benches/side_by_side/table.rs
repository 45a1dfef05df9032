//! The rows: which figures, against which target. What a user would compare us with.

use crate::options::Options;
use crate::results::Results;

/// One line of the table. Lines of one id are asked for together.
pub struct Row {
    pub id: &'static str,
    pub what: &'static str,
    pub measure: Measure,
    pub target: Target,
}

/// How a line's figure comes from the medians of variants.
#[derive(Clone, Copy)]
pub enum Measure {
    /// A figure of one variant.
    Plain { figure: Figure, of: &'static str },
    /// The same figure of two.
    Ratio { figure: Figure, of: &'static str, over: &'static str },
    /// The ratio of the first two over that of the others.
    RatioOfRatios { figure: Figure, of: [&'static str; 2], over: [&'static str; 2] },
}

/// A figure's name and how it is written.
#[derive(Clone, Copy)]
pub struct Figure {
    name: &'static str,
    unit: &'static str,
    decimals: usize,
}

#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Said for completeness.
    None,
}

const RATE: Figure = Figure { name: "records_per_second", unit: "records/s", decimals: 0 };
const CPU: Figure = Figure { name: "cpu_ns", unit: "ns", decimals: 0 };
const P50: Figure = Figure { name: "p50_ms", unit: "ms", decimals: 1 };
const P99: Figure = Figure { name: "p99_ms", unit: "ms", decimals: 1 };
const MIB: Figure = Figure { name: "max_rss_mib", unit: "MiB", decimals: 0 };

const fn rate(id: &'static str, what: &'static str, of: &'static str, over: &'static str, at_least: f64) -> Row {
    Row { id, what, measure: Measure::Ratio { figure: RATE, of, over }, target: Target::AtLeast(at_least) }
}

const fn ratio(
    id: &'static str,
    what: &'static str,
    figure: Figure,
    of: &'static str,
    over: &'static str,
    at_most: f64,
) -> Row {
    Row { id, what, measure: Measure::Ratio { figure, of, over }, target: Target::AtMost(at_most) }
}

const fn plain(id: &'static str, what: &'static str, figure: Figure, of: &'static str, at_most: f64) -> Row {
    Row { id, what, measure: Measure::Plain { figure, of }, target: Target::AtMost(at_most) }
}

pub const ROWS: &[Row] = &[
    rate("throughput", "throughput ÷ native loop, 100 B", "uppercase", "native", 0.90),
    rate("throughput-1k", "throughput ÷ native loop, 1 KB", "uppercase-1k", "native-1k", 0.95),
    ratio("cpu", "CPU per record ÷ native loop, 100 B", CPU, "uppercase", "native", 1.25),
    ratio("latency", "p50 ÷ native loop, 20,000 records/s", P50, "uppercase-latency", "native-latency", 1.3),
    ratio("latency", "p99 ÷ native loop, 20,000 records/s", P99, "uppercase-latency", "native-latency", 1.2),
    ratio("latency", "CPU ÷ native loop, 20,000 records/s", CPU, "uppercase-latency", "native-latency", 1.25),
    Row {
        id: "latency",
        what: "p50 with linger = \"2ms\" ÷ without",
        measure: Measure::Ratio { figure: P50, of: "uppercase-linger", over: "uppercase-latency" },
        target: Target::None,
    },
    Row {
        id: "latency",
        what: "CPU with linger = \"2ms\" ÷ without",
        measure: Measure::Ratio { figure: CPU, of: "uppercase-linger", over: "uppercase-latency" },
        target: Target::None,
    },
    rate("streams", "throughput ÷ Kafka Streams", "uppercase", "streams", 4.0),
    ratio("streams", "CPU per record ÷ Kafka Streams", CPU, "uppercase", "streams", 0.2),
    ratio("streams", "p99 ÷ Kafka Streams, 20,000 records/s", P99, "uppercase-latency", "streams-latency", 0.2),
    Row {
        id: "streams",
        what: "p99 ÷ Kafka Streams with linger.ms=5",
        measure: Measure::Ratio { figure: P99, of: "uppercase-latency", over: "streams-latency-5ms" },
        target: Target::None,
    },
    rate("typed", "typed form ÷ native loop", "typed", "native", 0.35),
    rate("filter", "filter that drops 90 % ÷ uppercase", "filter", "uppercase", 1.0),
    rate("filter", "forward of the same bytes ÷ uppercase", "forward", "uppercase", 1.0),
    rate("batches", "message → batcher → batch of 100 ÷ native loop", "batches", "native", 0.6),
    rate("headers", "4 headers carried ÷ native loop that carries them", "headers", "native-headers", 0.9),
    rate("headers", "4 headers not looked at, dropped ÷ none", "headers-dropped", "no-headers", 0.85),
    rate("event-time", "event time kept ÷ not kept", "uppercase", "now", 0.95),
    plain(
        "crossing",
        "crossing alone, 256 × 100 B, per record",
        Figure { name: "ns", unit: "ns", decimals: 0 },
        "crossing",
        100.0,
    ),
    rate("partitions", "throughput ÷ native loop, 256 partitions", "uppercase-256", "native-256", 0.8),
    Row {
        id: "partitions",
        what: "that ratio ÷ the one with 8 partitions",
        measure: Measure::RatioOfRatios {
            figure: RATE,
            of: ["uppercase-256", "native-256"],
            over: ["uppercase", "native"],
        },
        // As good as: but for noise.
        target: Target::AtLeast(0.95),
    },
    plain(
        "partitions",
        "memory of an idle lane",
        Figure { name: "mib_per_lane", unit: "MiB", decimals: 2 },
        "idle-lanes",
        2.0,
    ),
    plain(
        "idle",
        "50 pipelines idle: CPU",
        Figure { name: "cpu_percent", unit: "% of a core", decimals: 2 },
        "idle-pipelines",
        2.0,
    ),
    plain(
        "idle",
        "50 pipelines idle: memory",
        Figure { name: "rss_mib", unit: "MiB", decimals: 0 },
        "idle-pipelines",
        300.0,
    ),
    rate("consume", "consume only ÷ native loop that does", "consume", "native-consume", 0.6),
    plain("memory", "memory at full speed, at most", MIB, "uppercase", 220.0),
    plain("memory", "the same over a long time", MIB, "soak", 220.0),
    plain(
        "memory",
        "its growth, second to last quarter of that time",
        Figure { name: "growth", unit: "×", decimals: 2 },
        "soak",
        1.05,
    ),
    plain(
        "start",
        "start of the host to the first settled record",
        Figure { name: "seconds", unit: "s", decimals: 2 },
        "start",
        1.0,
    ),
];

impl Figure {
    fn text(self, value: f64) -> String {
        format!("{} {}", number(value, self.decimals), self.unit)
    }
}

impl Measure {
    /// The variants that it is about.
    pub fn needs(&self) -> Vec<&'static str> {
        match *self {
            Measure::Plain { of, .. } => vec![of],
            Measure::Ratio { of, over, .. } => vec![of, over],
            Measure::RatioOfRatios { of: [a, b], over: [c, d], .. } => vec![a, b, c, d],
        }
    }

    fn got(&self, results: &Results) -> Option<f64> {
        let ratio = |figure: Figure, of, over| {
            Some(results.median(of, figure.name)? / results.median(over, figure.name).filter(|value| *value > 0.0)?)
        };
        match *self {
            Measure::Plain { figure, of } => results.median(of, figure.name),
            Measure::Ratio { figure, of, over } => ratio(figure, of, over),
            Measure::RatioOfRatios { figure, of: [a, b], over: [c, d] } => {
                Some(ratio(figure, a, b)? / ratio(figure, c, d)?)
            }
        }
    }

    fn text(&self, value: f64) -> String {
        match self {
            Measure::Plain { figure, .. } => figure.text(value),
            Measure::Ratio { .. } | Measure::RatioOfRatios { .. } => format!("{} ×", number(value, 2)),
        }
    }

    /// The figures behind a ratio.
    fn from(&self, results: &Results) -> String {
        let Measure::Ratio { figure, of, over } = *self else { return String::new() };
        let of = results.median(of, figure.name).map(|value| number(value, figure.decimals));
        let over = results.median(over, figure.name).map(|value| figure.text(value));
        of.zip(over).map_or(String::new(), |(of, over)| format!("{of} ÷ {over}"))
    }
}

/// One line of the table, in words.
pub struct Line {
    pub id: &'static str,
    pub cells: [String; 5],
}

pub const HEAD: [&str; 5] = ["what", "got", "target", "verdict", "from"];

/// The lines of what was measured.
pub fn lines(results: &Results) -> Vec<Line> {
    ROWS.iter().filter_map(|row| line(row, results)).collect()
}

fn line(row: &Row, results: &Results) -> Option<Line> {
    let got = row.measure.got(results)?;
    let (target, met) = match row.target {
        Target::AtLeast(least) => (format!("≥ {}", row.measure.text(least)), Some(got >= least)),
        Target::AtMost(most) => (format!("≤ {}", row.measure.text(most)), Some(got <= most)),
        Target::None => ("–".to_owned(), None),
    };
    let verdict = match met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "–",
    };
    let cells = [row.what.to_owned(), row.measure.text(got), target, verdict.to_owned(), row.measure.from(results)];
    Some(Line { id: row.id, cells })
}

/// The table for a terminal, with what has to be known to judge it.
pub fn text(results: &Results, options: &Options) -> String {
    let lines: Vec<Line> = lines(results)
        .into_iter()
        .filter(|line| options.only.is_empty() || options.only.iter().any(|only| only == line.id))
        .collect();
    let head = HEAD.map(str::to_owned);
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| &line.cells).chain([&head]);
        cells.map(|cells| cells[column].chars().count()).max().unwrap_or(0)
    });
    let write = |cells: &[String; 5]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text: Vec<String> = vec![String::new(), write(&head)];
    text.extend(lines.iter().map(|line| write(&line.cells)));
    text.push(String::new());
    text.push(circumstances(results));
    text.join("\n")
}

/// Machine, date, rounds, and whether it was quiet.
pub fn circumstances(results: &Results) -> String {
    let document = &results.document;
    let machine = &document.machine;
    let (rounds, streams) = (results.rounds(), results.rounds_of("streams"));
    let seldom = if (1..rounds).contains(&streams) { format!(" (Kafka Streams: {streams})") } else { String::new() };
    let mut text = format!(
        "{}, {}, {} cores, {} GiB, {}, {}; Apache Kafka 4.3.1 on the same cores; commit {}; medians of {} rounds{}, {} records",
        document.date,
        machine.processor,
        machine.cores,
        machine.memory_gib,
        machine.system,
        machine.rustc,
        document.revisions.join(", "),
        rounds,
        seldom,
        number(document.scale.records as f64, 0),
    );
    if let Some(others) = results.others() {
        text += &format!("; others used {} of a core meanwhile", number(others, 2));
        if others > 0.1 {
            text += ": NOT A QUIET MACHINE";
        }
    }
    text
}

/// Names the rows.
pub fn list() {
    for row in ROWS {
        println!("{:<14} {}", row.id, row.what);
    }
}

/// With commas between thousands.
pub fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.find('.').map_or((text.as_str(), ""), |point| text.split_at(point));
    let digits = whole.trim_start_matches('-');
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{}{grouped}{rest}", if whole.starts_with('-') { "-" } else { "" })
}
