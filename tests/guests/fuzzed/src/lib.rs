//! Calls every import of a handler as the bytes of a message say: one byte names the call, those that follow its arguments.
//! All bytes are a program; where they end, everything is 0 and empty.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package test:fuzzed;
        world guest {
            include sluicebox:plugin/imports@0.1.0;
            export sluicebox:plugin/message-frames@0.1.0;
        }",
    world: "test:fuzzed/guest",
    generate_all,
});

mod http;

use exports::sluicebox::plugin::message_frames;
use sluicebox::plugin::log::{self, Level};
use sluicebox::plugin::metrics::{self, Kind};
use sluicebox::plugin::types::Frame;
use sluicebox::plugin::{outputs, settings};
use sluicebox_frames::{AnswerWriter, Messages};

struct Guest;

export!(Guest);

impl message_frames::Guest for Guest {
    fn handle_messages(burst: Frame) -> Frame {
        let messages = Messages::from_parts(&burst.index, &burst.payload);
        let mut writer = AnswerWriter::with_capacity(messages.len(), 0);
        for message in messages.iter() {
            Program(message.value().unwrap_or_default()).run();
            writer.done(0);
        }
        let sluicebox_frames::Frame { index, payload } = writer.finish();
        Frame { index, payload }
    }
}

/// What is left of a message.
pub struct Program<'a>(&'a [u8]);

impl Program<'_> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    /// Small, or with all of eight bytes.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            small => u64::from(small),
        }
    }

    fn float(&mut self) -> f64 {
        let number = self.number();
        if number < 200 { number as f64 / 8.0 } else { f64::from_bits(number) }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn run(&mut self) {
        let mut requests = http::Requests::default();
        let mut series = Vec::new();
        while !self.0.is_empty() {
            match self.byte() % 16 {
                0 => log::log(self.level(), &self.text()),
                1 => _ = log::enabled(self.level()),
                2 => _ = settings::get(),
                3 => _ = (outputs::outputs(), outputs::batchers()),
                4 | 5 => {
                    let kind = match self.byte() % 3 {
                        0 => Kind::Counter,
                        1 => Kind::Gauge,
                        _ => Kind::Histogram((0..self.byte() % 40).map(|_| self.float()).collect()),
                    };
                    let name = self.text();
                    let labels: Vec<_> = (0..self.byte() % 10).map(|_| (self.text(), self.text())).collect();
                    series.extend(metrics::series(&kind, &name, &labels));
                }
                6 => metrics::add(self.series(&series), self.number()),
                7 => metrics::set(self.series(&series), self.float()),
                8 => metrics::observe(self.series(&series), self.float()),
                _ => requests.call(self),
            }
        }
    }

    fn level(&mut self) -> Level {
        [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error][usize::from(self.byte() % 5)]
    }

    /// The number of a series that is there, mostly.
    fn series(&mut self, known: &[u32]) -> u32 {
        let number = self.number() as u32;
        known.get(number as usize).copied().unwrap_or(number)
    }
}
