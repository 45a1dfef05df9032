//! The chart: bars of the figures that a reader compares first, as SVG.

use std::fmt::Write;

use crate::results::Results;
use crate::table::number;

const WIDTH: usize = 760;
/// Where bars begin, and how long the longest is.
const BARS: (usize, usize) = (230, 400);
const BAR: usize = 22;
const GAP: usize = 8;
const TITLE: usize = 44;

struct Panel {
    title: &'static str,
    figure: &'static str,
    /// What one unit of the chart is in those of the figure.
    unit: f64,
    decimals: usize,
    suffix: &'static str,
    bars: &'static [(&'static str, &'static str, Colour)],
}

#[derive(Clone, Copy)]
enum Colour {
    Ours,
    Native,
    Streams,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::Ours => "#2f6f9f",
            Colour::Native => "#8a8f98",
            Colour::Streams => "#c98a3c",
        }
    }
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "Records per second, 100 B",
        figure: "records_per_second",
        unit: 1.0,
        decimals: 0,
        suffix: "",
        bars: &[
            ("native loop", "native", Colour::Native),
            ("sluicebox", "uppercase", Colour::Ours),
            ("sluicebox, through batches", "batches", Colour::Ours),
            ("sluicebox, typed form", "typed", Colour::Ours),
            ("Kafka Streams", "streams", Colour::Streams),
        ],
    },
    Panel {
        title: "CPU per record, 100 B (less is better)",
        figure: "cpu_ns",
        unit: 1000.0,
        decimals: 2,
        suffix: " µs",
        bars: &[
            ("native loop", "native", Colour::Native),
            ("sluicebox", "uppercase", Colour::Ours),
            ("Kafka Streams", "streams", Colour::Streams),
        ],
    },
    Panel {
        title: "End to end at 20,000 records/s, p99 (less is better)",
        figure: "p99_ms",
        unit: 1.0,
        decimals: 1,
        suffix: " ms",
        bars: &[
            ("native loop", "native-latency", Colour::Native),
            ("sluicebox", "uppercase-latency", Colour::Ours),
            ("Kafka Streams", "streams-latency", Colour::Streams),
            ("Kafka Streams, linger.ms=5", "streams-latency-5ms", Colour::Streams),
        ],
    },
];

/// The chart of what was measured; panels without figures are left out.
pub fn svg(results: &Results, caption: &str) -> String {
    let (mut body, mut y) = (String::new(), 10);
    for panel in &PANELS {
        y = draw(panel, results, y, &mut body);
    }
    let height = y + 40;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#24292f\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    svg += &body;
    writeln!(svg, "<text x=\"16\" y=\"{}\" font-size=\"11\" fill=\"#57606a\">{}</text>", y + 22, escape(caption))
        .expect("text");
    svg + "</svg>\n"
}

/// Draws a panel from `y` on; where the next one begins.
fn draw(panel: &Panel, results: &Results, y: usize, body: &mut String) -> usize {
    let values: Vec<(&str, Colour, f64)> = panel
        .bars
        .iter()
        .filter_map(|(label, variant, colour)| Some((*label, *colour, results.median(variant, panel.figure)?)))
        .collect();
    let largest = values.iter().map(|(_, _, value)| *value).fold(0.0, f64::max);
    if largest <= 0.0 {
        return y;
    }
    writeln!(body, "<text x=\"16\" y=\"{}\" font-size=\"15\" font-weight=\"600\">{}</text>", y + 26, panel.title)
        .expect("text");
    let mut at = y + TITLE;
    for (label, colour, value) in values {
        let length = (value / largest * BARS.1 as f64).max(1.0);
        let middle = at + BAR / 2 + 5;
        let shown = format!("{}{}", number(value / panel.unit, panel.decimals), panel.suffix);
        writeln!(
            body,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{}\" y=\"{at}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{middle}\">{shown}</text>",
            BARS.0 - 10,
            BARS.0,
            colour.code(),
            BARS.0 as f64 + length + 8.0,
        )
        .expect("text");
        at += BAR + GAP;
    }
    at + 8
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
