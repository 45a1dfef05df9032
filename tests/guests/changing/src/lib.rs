//! Forwards to the default output, unless the marked place in its component says otherwise. A test writes there, and has
//! another version:
//!
//! | what it says | what that version does |
//! |---|---|
//! | `init-fails`, `init-loops` | its `init` |
//! | `reject N` | rejects every message from an instance's `N`-th on |
//! | `reject-above N` | rejects every message whose value begins with this number or a larger one |
//! | `panic N` | the same by a panic |
//! | `take N` | takes `N` milliseconds for a message |
//! | `leak N` | keeps `N` MiB more with each message |
//! | `large N` | makes of every `N`-th message more than the broker takes |
//! | `tick-fails`, `greeting-fails` | its timer; the greeting of its partition |

use std::hint::black_box;
use std::time::Duration;

use sluicebox_sdk::prelude::*;

/// What a test finds and writes behind.
const MARK: &str = "sluicebox-test-behaviour:";
#[used]
static PLACE: [u8; 64] = *b"sluicebox-test-behaviour:forward                                ";

struct Changing {
    word: String,
    number: u64,
    messages: u64,
    kept: Vec<Vec<u8>>,
}

impl Handler for Changing {
    fn new(_: Settings<'_>) -> Result<Self> {
        // SAFETY: a static of this module; volatile, since it is another one than when this was compiled.
        let place = unsafe { std::ptr::from_ref(&PLACE).read_volatile() };
        let text = std::str::from_utf8(&place).map_err(|_| "no text")?.trim_end();
        let (word, number) = text[MARK.len()..].split_once(' ').unwrap_or((&text[MARK.len()..], "0"));
        match word {
            "init-fails" => return Err("it was told to fail".into()),
            "init-loops" => loop {
                black_box(());
            },
            _ => {}
        }
        let number = number.parse().map_err(|_| "no number")?;
        Ok(Self { word: word.to_owned(), number, messages: 0, kept: Vec::new() })
    }
}

impl MessageHandler for Changing {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        self.messages += 1;
        match self.word.as_str() {
            "reject" if self.messages >= self.number => return Err(Error::reject("it was told to")),
            "reject-above" if leading(&message) >= self.number => return Err(Error::reject("it was told to")),
            "panic" if self.messages >= self.number => panic!("it was told to"),
            "take" => std::thread::sleep(Duration::from_millis(self.number)),
            "leak" => self.kept.push(black_box(vec![1; (self.number as usize) << 20])),
            "large" if self.messages.is_multiple_of(self.number) => {
                message.emit_default().value(&vec![b'x'; 2 << 20]).send();
                return Ok(Outcome::done());
            }
            _ => {}
        }
        Ok(message.forward_default())
    }
}

/// The number that a value begins with.
fn leading(message: &Message<'_>) -> u64 {
    message.text().ok().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

impl TickHandler for Changing {
    fn handle_tick(&mut self, _: Tick<'_>) -> Result<()> {
        match self.word.as_str() {
            "tick-fails" => panic!("it was told to"),
            _ => Ok(()),
        }
    }
}

impl PartitionHandler for Changing {
    fn partition_assigned(&mut self, _: Assigned<'_>) -> Result<()> {
        match self.word.as_str() {
            "greeting-fails" => panic!("it was told to"),
            _ => Ok(()),
        }
    }
}

sluicebox_sdk::export!(Changing: message, tick, partitions);
