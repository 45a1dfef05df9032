//! The same as `uppercase`, without the headers: it neither looks at them nor sends them on.

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
        let emission = message.emit_default().no_headers();
        Ok(match message.value() {
            None => emission.null_value().send(),
            Some(value) => emission.send_with(|out| {
                let (head, tail) = value.split_at(value.len().min(100));
                out.extend(head.iter().map(u8::to_ascii_uppercase));
                out.extend_from_slice(tail);
            }),
        })
    }
}

sluicebox_sdk::export!(Uppercase: message);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{handler_from_text, message};

    #[test]
    fn leaves_the_headers_out() {
        let mut handler = handler_from_text::<Uppercase>("{}").unwrap();
        let sent = handler.message(message("a").key("k").header("h", "v").timestamp(Some(7))).emission();
        assert_eq!((sent.text(), sent.key.as_deref(), sent.timestamp), ("A", Some(&b"k"[..]), Some(7)));
        assert_eq!(sent.headers, []);
    }
}
