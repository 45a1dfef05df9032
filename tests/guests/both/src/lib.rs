//! Messages and batches in one handler. Even numbers are forwarded to output `even`, odd ones to batcher `odd` with the
//! message's key as batch key; `handle_batch` forwards each item to output `odd` and emits the number of items to output
//! `counts` (key = batch key), as an emission of the batch as a whole.

use sluicebox_sdk::prelude::*;

struct Both;

impl Handler for Both {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for Both {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let number: i64 = message.text().or_reject()?.parse().or_reject()?;
        Ok(match number % 2 {
            0 => message.forward("even"),
            _ => message.forward_to_batcher("odd", message.key().unwrap_or_default()),
        })
    }
}

impl BatchHandler for Both {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        batch.emit("counts").key(batch.key()).value(&batch.len().to_string()).send();
        for item in batch {
            item.forward("odd");
        }
        Ok(())
    }
}

sluicebox_sdk::export!(Both: message, batch);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{To, handler_from_text, message};

    #[test]
    fn odd_numbers_take_the_way_through_the_batcher() {
        let mut handler = handler_from_text::<Both>("{}").unwrap();
        assert_eq!(handler.message(message("2")).emission().to, To::output("even"));
        assert_eq!(handler.message(message("3").key("k")).emission().to, To::batcher("odd", "k"));
        let answer = handler.batch("odd", "k", &[message("3").key("k"), message("5").key("k")]).unwrap();
        for (outcome, value) in answer.outcomes.into_iter().zip(["3", "5"]) {
            let sent = outcome.emission();
            assert_eq!((&sent.to, sent.text()), (&To::output("odd"), value));
        }
        assert_eq!((&answer.emissions[0].to, answer.emissions[0].text()), (&To::output("counts"), "2"));
    }
}
