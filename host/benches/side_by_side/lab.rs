//! The order of it all: stage by stage, round by round, each variant in turn, and nothing twice that is in the file already.

use std::collections::HashMap;

use crate::options::Options;
use crate::plan::{How, Input, STAGES, Variant};
use crate::results::{Figures, OTHERS, Results};
use crate::support::client::delete_topic;
use crate::support::kafka::{self, Kafka};
use crate::systems::prepare;
use crate::{crossing, input, latency, machine, soak, standing, throughput};

/// Uncounted measurements at the beginning of a stage, at most.
const WARM_UPS: usize = 4;
/// The same before the first one on a broker that was just started. On two cores its compilers are at work for the first
/// fifty million records; its CPU time per record falls by half meanwhile, not evenly.
const COLD: usize = 12;

/// The broker that everything runs on.
pub fn broker() -> kafka::Options {
    kafka::Options { properties: soak::broker_properties(), ..kafka::Options::default() }
}

pub fn run(kafka: &Kafka, options: &Options, results: &mut Results) {
    let begun = std::time::Instant::now();
    let mut cold = options.scale.is_full();
    for stage in STAGES {
        let missing = |variant: &&Variant| {
            let rounds = variant.rounds.min(options.rounds);
            options.wants(variant.name) && (0..rounds).any(|round| !results.has(variant.name, round))
        };
        let variants: Vec<&Variant> = stage.variants.iter().filter(missing).collect();
        if variants.is_empty() {
            continue;
        }
        println!("== {} ({:.0?})", stage.name, begun.elapsed());
        variants.iter().for_each(|variant| prepare(variant));
        let preloaded = variants[0].input.eighths > 0;
        Turns { kafka, options, inputs: HashMap::new() }.take(&variants, cold && preloaded, results);
        cold &= !preloaded;
    }
}

/// Who comes when in a round: each in another place than in the round before, and behind another one. What one leaves behind –
/// pages to be written, garbage of the broker's – is not the burden of always the same next one. (Williams 1949: a Latin
/// square balanced for what went before; an odd number of them is played backwards every second time.)
fn order(count: usize, round: usize) -> Vec<usize> {
    let zigzag = (0..count).map(|turn| if turn % 2 == 0 { turn / 2 } else { count - 1 - turn / 2 });
    let mut order: Vec<usize> = zigzag.map(|place| (place + round) % count).collect();
    if count % 2 == 1 && round % 2 == 1 {
        order.reverse();
    }
    order
}

/// One stage.
struct Turns<'a> {
    kafka: &'a Kafka,
    options: &'a Options,
    inputs: HashMap<Input, String>,
}

impl Turns<'_> {
    fn take(mut self, variants: &[&Variant], cold: bool, results: &mut Results) {
        for variant in variants.iter().filter(|variant| variant.input.eighths > 0) {
            let preload = || input::preload(self.kafka, &variant.input, &self.options.scale);
            self.inputs.entry(variant.input).or_insert_with(preload);
        }
        self.warm_up(variants, cold);
        for round in 0..self.options.rounds {
            for variant in order(variants.len(), round).into_iter().map(|place| variants[place]) {
                if round >= variant.rounds || results.has(variant.name, round) {
                    continue;
                }
                let figures = self.measure(variant);
                self.print(&format!("round {}", round + 1), variant, &figures);
                results.add(variant.name, round, figures);
            }
        }
        self.inputs.values().for_each(|topic| delete_topic(self.kafka, topic));
    }

    /// The broker's code is compiled while it runs, and files and pages come into the cache: nothing counts before that is
    /// done, as far as the broker's CPU time per record tells. A cold one gets the first two variants by turns.
    fn warm_up(&self, variants: &[&Variant], cold: bool) {
        let mut before = f64::INFINITY;
        for turn in 0..if cold { COLD } else { WARM_UPS } {
            let variant = variants[if cold { turn % variants.len().min(2) } else { 0 }];
            let figures = self.measure(variant);
            self.print("warm-up", variant, &figures);
            let cost = figures.get("broker_cpu_ns").copied().filter(|cost| *cost < 0.9 * before);
            if cost.is_none() && !cold {
                return;
            }
            before = cost.unwrap_or(before);
        }
    }

    fn measure(&self, variant: &Variant) -> Figures {
        let Turns { kafka, options, inputs } = self;
        let (kafka, scale) = (*kafka, &options.scale);
        let before = machine::Busy::now(kafka);
        let mut figures = match variant.how {
            How::Output { .. } | How::Commits => throughput::measure(kafka, variant, &inputs[&variant.input], scale),
            How::Latency { warm_up } => latency::measure(kafka, variant, warm_up, scale),
            How::Start => standing::start(kafka, variant),
            How::IdleLanes => standing::idle_lanes(kafka, variant),
            How::IdlePipelines => standing::idle_pipelines(kafka, variant, scale),
            How::Soak => soak::measure(kafka, variant, scale),
            How::Crossing => crate::results::figures([("ns", crossing::nanoseconds_per_record())]),
        };
        figures.insert(OTHERS.to_owned(), before.others_since(kafka));
        figures
    }

    fn print(&self, label: &str, variant: &Variant, figures: &Figures) {
        // Rates and nanoseconds want no decimals, seconds and ratios do.
        let number = |value: f64| if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let texts: Vec<String> = figures.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        println!("{label}  {:<20} {}", variant.name, texts.join("  "));
    }
}
