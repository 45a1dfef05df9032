//! Batches only. Values are decimal numbers; each batch makes one emission as a whole to the default output: the key of
//! its first item, and `count=<n> sum=<n>`. A value that is no number is rejected by itself.

use sluicebox_sdk::prelude::*;

struct BatchSum;

impl Handler for BatchSum {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl BatchHandler for BatchSum {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        let (mut count, mut sum) = (0u64, 0i64);
        for item in batch {
            match item.text().map(str::parse::<i64>) {
                Ok(Ok(number)) => (count, sum) = (count + 1, sum.wrapping_add(number)),
                _ => item.answer(Outcome::reject("the value is not a decimal number")),
            }
        }
        if count > 0 {
            let emission = batch.emit_default();
            let emission = match batch.item(0).key() {
                Some(key) => emission.key(key),
                None => emission,
            };
            emission.value(&format!("count={count} sum={sum}")).send();
        }
        Ok(())
    }
}

sluicebox_sdk::export!(BatchSum: batch);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{Outcome, handler_from_text, message};

    #[test]
    fn sums_a_batch_and_rejects_what_is_no_number() {
        let mut handler = handler_from_text::<BatchSum>("{}").unwrap();
        let items = [message("1").key("a"), message("x"), message("41")];
        let answer = handler.batch("default", "", &items).unwrap();
        assert_eq!(answer.emissions[0].text(), "count=2 sum=42");
        assert_eq!(answer.emissions[0].key.as_deref(), Some(&b"a"[..]));
        assert_eq!(answer.outcomes[0], Outcome::Done(vec![]));
        assert_eq!(answer.outcomes[1], Outcome::Reject("the value is not a decimal number".to_owned()));
    }
}
