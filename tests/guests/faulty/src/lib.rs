//! Fails in the way that the value's first word says (words are cut at a space, so that values can be told apart):
//!
//! | value | what happens in `handle_message` |
//! |---|---|
//! | `trap` | the instruction `unreachable` |
//! | `panic` | a panic, with the value in its text |
//! | `loop` | an endless loop |
//! | `hog` | takes and touches memory without end |
//! | `stack` | recursion without end |
//! | `exit` | `std::process::exit(0)` |
//! | `reject` | reject |
//! | `err` | `Err`, always |
//! | `retry-N` | retry until attempt N, then forwarded |
//! | `slow-N` | N million turns of a loop, then forwarded |
//! | `log-N` | N lines of 100 bytes, then forwarded |
//! | `unknown-output`, `unknown-batcher` | goes where nothing is declared |
//! | `batch-…` | goes to the batcher `default`, where `batch-trap`, `batch-panic`, `batch-loop`, `batch-reject`, `batch-retry-N` and `batch-err` do the same to the item or the batch |
//! | anything else | forwarded to the default output |

use std::hint::black_box;

use sluicebox_sdk::prelude::*;

struct Faulty;

impl Handler for Faulty {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for Faulty {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let word = word(&message);
        match word {
            "hog" => hog(),
            "exit" => std::process::exit(0),
            "stack" => _ = black_box(dive(black_box(0))),
            "unknown-output" => return Ok(message.forward("nobody-declared-this")),
            "unknown-batcher" => return Ok(message.forward_to_batcher("nobody-declared-this", "")),
            _ if word.starts_with("batch-") => return Ok(message.forward_to_batcher("default", "")),
            _ => {}
        }
        if let Some(lines) = number(word, "log-") {
            for line in 0..lines {
                log::info!("line {line:9}: {:->83}", "");
            }
        }
        if let Some(millions) = number(word, "slow-") {
            (0..millions * 1_000_000).for_each(|turn| _ = black_box(turn));
        }
        fail(word, &message)?;
        Ok(message.forward_default())
    }
}

impl BatchHandler for Faulty {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        for item in batch {
            let word = word(&item);
            let word = word.strip_prefix("batch-").unwrap_or(word);
            if word == "err" {
                return Err("the whole batch fails".into());
            }
            match fail(word, &item) {
                Ok(()) => _ = item.forward_default(),
                Err(error) => item.answer(error.into()),
            }
        }
        Ok(())
    }
}

/// The value's first word, empty when it is no text.
fn word<'a>(message: &Message<'a>) -> &'a str {
    message.text().unwrap_or_default().split(' ').next().unwrap_or_default()
}

fn number(word: &str, prefix: &str) -> Option<u32> {
    word.strip_prefix(prefix)?.parse().ok()
}

/// What messages and batches do alike.
fn fail(word: &str, message: &Message<'_>) -> Result<()> {
    match word {
        "trap" => trap(),
        "panic" => panic!("the value asks for it: {:?}", message.text()),
        "loop" => loop {
            black_box(());
        },
        "reject" => return Err(Error::reject("the value asks for it")),
        "err" => return Err("the value asks for an error".into()),
        _ => {}
    }
    match number(word, "retry-") {
        Some(attempts) if message.attempt() < attempts => {
            Err(Error::retry(format_args!("attempt {} of {attempts}", message.attempt())))
        }
        _ => Ok(()),
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() -> ! {
    panic!("a trap")
}

fn hog() -> ! {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(vec![1u8; 1 << 20]));
    }
}

/// Too deep for any stack, and not a loop to the compiler. It keeps nothing in memory: it is the stack of calls that ends,
/// not the one that the component keeps in its memory.
#[inline(never)]
fn dive(depth: u64) -> u64 {
    if depth == u64::MAX { 0 } else { dive(depth + 1).rotate_left(7) ^ depth }
}

sluicebox_sdk::export!(Faulty: message, batch);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{Outcome, TestHandler, To, handler_from_text, message, take_log};

    fn faulty() -> TestHandler<Faulty> {
        handler_from_text("{}").unwrap()
    }

    #[test]
    fn retries_until_the_attempt_that_the_value_names() {
        let retry = Outcome::Retry { reason: "attempt 2 of 3".to_owned(), after: None };
        assert_eq!(faulty().message(message("retry-3 a").attempt(2)), retry);
        assert_eq!(faulty().message(message("retry-3 a").attempt(3)).emission().text(), "retry-3 a");
    }

    #[test]
    fn rejects_in_a_message_and_in_a_batch() {
        let reject = Outcome::Reject("the value asks for it".to_owned());
        assert_eq!(faulty().message(message("reject")), reject);
        assert_eq!(faulty().message(message("batch-reject")).emission().to, To::batcher("default", ""));
        let answer = faulty().batch("default", "", &[message("batch-reject"), message("good")]).unwrap();
        assert_eq!(answer.outcomes[0], reject);
        assert_eq!(answer.outcomes[1].clone().emission().text(), "good");
        assert_eq!(faulty().batch("default", "", &[message("batch-err")]).unwrap_err(), "the whole batch fails");
    }

    #[test]
    fn logs_lines_of_a_hundred_bytes() {
        faulty().message(message("log-2"));
        assert_eq!(take_log().iter().map(|(_, line)| line.len()).collect::<Vec<_>>(), [99, 99]);
    }
}
