//! Makes of a record what its number (the header `seq`) says, so that a judge who knows the number knows what has to come:
//!
//! | number | what happens | what comes of it |
//! |---|---|---|
//! | 3 of 1000 | every attempt fails | a dead letter |
//! | 5 of 1000 | the third attempt succeeds | itself, in `out` |
//! | every 7th | filtered | nothing |
//! | every 11th | sent twice | itself, two times, in `out` |
//! | 2 of 5 | goes through a batch | itself, in `batched` |
//! | others | forwarded | itself, in `out` |
//!
//! The first line that fits counts. `host/tests/accounting/checker/oracle.rs` says the same to the judge.

use sluicebox_sdk::prelude::*;

struct Accounted;

impl Handler for Accounted {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for Accounted {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let seq = seq(&message).or_reject()?;
        match seq {
            _ if seq % 1000 == 3 => Err("this number always fails".into()),
            _ if seq % 1000 == 5 && message.attempt() < 3 => Err("this number fails at first".into()),
            _ if seq % 1000 == 5 => Ok(message.forward("out")),
            _ if seq % 7 == 0 => Ok(Outcome::done()),
            _ if seq % 11 == 0 => {
                message.forward("out");
                Ok(message.forward("out"))
            }
            _ if seq % 5 == 2 => Ok(message.forward_to_batcher("gather", "")),
            _ => Ok(message.forward("out")),
        }
    }
}

impl BatchHandler for Accounted {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        for item in batch {
            item.forward("batched");
        }
        Ok(())
    }
}

fn seq(message: &Message<'_>) -> std::result::Result<u64, &'static str> {
    let header = message.header("seq").flatten().ok_or("no number")?;
    std::str::from_utf8(header).ok().and_then(|text| text.parse().ok()).ok_or("no number")
}

sluicebox_sdk::export!(Accounted: message, batch);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{Outcome, TestHandler, To, handler_from_text, message};

    fn accounted() -> TestHandler<Accounted> {
        handler_from_text("{}").unwrap()
    }

    fn outcome(seq: u64, attempt: u32) -> Outcome {
        accounted().message(message("value").header("seq", seq.to_string()).attempt(attempt))
    }

    #[test]
    fn a_number_says_what_comes_of_it() {
        assert!(matches!(outcome(2003, 4), Outcome::Retry { .. }));
        assert!(matches!(outcome(1005, 2), Outcome::Retry { .. }));
        assert_eq!(outcome(1005, 3).emission().to, To::output("out"));
        assert_eq!(outcome(14, 1).emissions().len(), 0);
        assert_eq!(outcome(22, 1).emissions().len(), 2);
        assert_eq!(outcome(12, 1).emission().to, To::batcher("gather", ""));
        assert_eq!(outcome(1, 1).emission().to, To::output("out"));
    }

    #[test]
    fn a_batch_is_forwarded_item_by_item() {
        let answer = accounted().batch("gather", "", &[message("a"), message("b")]).unwrap();
        let values: Vec<_> = answer.outcomes.into_iter().map(|outcome| outcome.emission().text().to_owned()).collect();
        assert_eq!(values, ["a", "b"]);
    }
}
