//! Upper-cases the first 100 bytes of the value; key, headers and event time stay. The guest of the speed measurements:
//! the value is written once, straight into the answer.

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
        let Some(value) = message.value() else {
            return Ok(message.forward_default());
        };
        Ok(message.emit_default().send_with(|out| {
            let (head, tail) = value.split_at(value.len().min(100));
            out.extend(head.iter().map(u8::to_ascii_uppercase));
            out.extend_from_slice(tail);
        }))
    }
}

sluicebox_sdk::export!(Uppercase: message);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{handler_from_text, message};

    #[test]
    fn upper_cases_the_first_hundred_bytes_and_keeps_the_rest() {
        let mut handler = handler_from_text::<Uppercase>("{}").unwrap();
        let value = "a".repeat(150);
        let sent = handler.message(message(&value).key("k").header("h", "v").timestamp(Some(7))).emission();
        assert_eq!(sent.text(), "A".repeat(100) + &"a".repeat(50));
        assert_eq!((sent.key.as_deref(), sent.timestamp), (Some(&b"k"[..]), Some(7)));
        assert_eq!(sent.headers, [(b"h".to_vec(), Some(b"v".to_vec()))]);
    }

    #[test]
    fn a_tombstone_stays_one() {
        let mut handler = handler_from_text::<Uppercase>("{}").unwrap();
        assert_eq!(handler.message(message("").null_value()).emission().value, None);
    }
}
