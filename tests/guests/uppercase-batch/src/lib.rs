//! The same as `uppercase`, by way of a batcher: messages go to batcher `hundred` as they are, `handle_batch` puts each item
//! in upper case and sends it to the default output.

use sluicebox_sdk::prelude::*;

struct Uppercase;

impl Handler for Uppercase {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for Uppercase {
    #[inline]
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        Ok(message.forward_to_batcher("hundred", b""))
    }
}

impl BatchHandler for Uppercase {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        for item in batch {
            match item.value() {
                None => item.forward_default(),
                Some(value) => item.emit_default().send_with(|out| {
                    let (head, tail) = value.split_at(value.len().min(100));
                    out.extend(head.iter().map(u8::to_ascii_uppercase));
                    out.extend_from_slice(tail);
                }),
            };
        }
        Ok(())
    }
}

sluicebox_sdk::export!(Uppercase: message, batch);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{To, handler_from_text, message};

    #[test]
    fn goes_through_the_batcher() {
        let mut handler = handler_from_text::<Uppercase>("{}").unwrap();
        assert_eq!(handler.message(message("a").key("k")).emission().to, To::batcher("hundred", ""));
        let answer = handler.batch("hundred", "", &[message("a").key("k"), message("b").null_value()]).unwrap();
        let sent: Vec<_> = answer.outcomes.into_iter().map(|outcome| outcome.emission()).collect();
        assert_eq!((sent[0].text(), sent[0].key.as_deref()), ("A", Some(&b"k"[..])));
        assert_eq!(sent[1].value, None);
    }
}
