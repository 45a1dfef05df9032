//! Calls host functions with whatever comes to mind.

use wasip2::cli::{stdin, stdout};
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::io::poll::{self, Pollable};
use wasip2::random::{insecure, insecure_seed, random};

use crate::sluicebox::plugin::log::{self, Level};
use crate::sluicebox::plugin::metrics::{self, Kind};
use crate::sluicebox::plugin::{outputs, settings};

struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// Mostly small, sometimes at an edge.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX / 2 + 1,
            3 => self.below(1 << 22),
            _ => self.below(40),
        }
    }

    fn float(&mut self) -> f64 {
        match self.below(6) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => -0.0,
            3 => f64::from_bits(self.roll()),
            _ => self.below(100) as f64,
        }
    }

    /// A text that may be none.
    fn text(&mut self) -> String {
        let length = if self.below(20) == 0 { self.below(1 << 17) } else { self.below(24) };
        let plain = self.below(2) == 0;
        let bytes = (0..length).map(|_| if plain { b'a' + self.below(26) as u8 } else { self.roll() as u8 }).collect();
        if self.below(2000) == 0 {
            // SAFETY: none. The host has to find out that it is not UTF-8.
            return unsafe { String::from_utf8_unchecked(bytes) };
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Two hundred calls; the same seed makes the same ones.
pub fn calls(seed: u64) {
    let mut dice = Dice(seed);
    let (out, input) = (stdout::get_stdout(), stdin::get_stdin());
    // Goes before the streams: a stream that goes before its pollables is a trap.
    let mut pollables: Vec<Pollable> = Vec::new();
    for _ in 0..200 {
        match dice.below(20) {
            0 => log::log(level(&mut dice), &dice.text()),
            1 => _ = log::enabled(level(&mut dice)),
            2 => _ = settings::get(),
            3 => _ = (outputs::outputs(), outputs::batchers()),
            4 | 5 => {
                let labels: Vec<_> = (0..dice.below(10)).map(|_| (dice.text(), dice.text())).collect();
                let kind = match dice.below(3) {
                    0 => Kind::Counter,
                    1 => Kind::Gauge,
                    _ => Kind::Histogram((0..dice.below(40)).map(|_| dice.float()).collect()),
                };
                let name = if dice.below(2) == 0 { format!("n{}", dice.below(9)) } else { dice.text() };
                if let Ok(number) = metrics::series(&kind, &name, &labels) {
                    match kind {
                        Kind::Counter => metrics::add(number, dice.number()),
                        Kind::Gauge => metrics::set(number, dice.float()),
                        Kind::Histogram(_) => metrics::observe(number, dice.float()),
                    }
                }
            }
            6 if dice.below(30) == 0 => metrics::add(dice.number() as u32, 1),
            7 => _ = random::get_random_bytes(dice.below(4096)),
            8 if dice.below(30) == 0 => _ = random::get_random_bytes(dice.number()),
            9 => _ = (insecure::get_insecure_random_u64(), insecure_seed::insecure_seed()),
            10 => _ = (wall_clock::now(), wall_clock::resolution(), monotonic_clock::now()),
            11 => pollables.push(monotonic_clock::subscribe_duration(dice.below(100_000))),
            12 => pollables.push(monotonic_clock::subscribe_instant(dice.number())),
            13 => pollables.push(out.subscribe()),
            14 => pollables.push(input.subscribe()),
            15 => pollables.iter().for_each(|pollable| _ = pollable.ready()),
            16 => {
                // One that is ready at once keeps it from waiting; none at all is a trap.
                if dice.below(30) != 0 {
                    pollables.push(monotonic_clock::subscribe_duration(0));
                }
                _ = poll::poll(&pollables.iter().collect::<Vec<_>>());
            }
            17 => _ = (input.read(dice.number()), input.skip(dice.number())),
            18 => {
                let allowed = out.check_write().unwrap_or_default();
                let bytes = vec![b'x'; dice.below(3000) as usize];
                // More than was allowed is a trap.
                if bytes.len() as u64 <= allowed || dice.below(30) == 0 {
                    _ = out.write(&bytes);
                }
                _ = (out.flush(), out.write_zeroes(dice.below(2000)), out.blocking_flush());
            }
            _ => drop(pollables.pop()),
        }
    }
    if dice.below(20) == 0 {
        drop(out);
    }
}

fn level(dice: &mut Dice) -> Level {
    match dice.below(5) {
        0 => Level::Trace,
        1 => Level::Debug,
        2 => Level::Info,
        3 => Level::Warn,
        _ => Level::Error,
    }
}
