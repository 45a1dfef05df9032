//! A value `N:…` goes N times to the default output (any small N, 0 included); anything else is rejected.

use sluicebox_sdk::prelude::*;

struct FanOut;

impl Handler for FanOut {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for FanOut {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let (times, _) = message.text().or_reject()?.split_once(':').ok_or("no colon").or_reject()?;
        for _ in 0..times.parse::<u8>().or_reject()? {
            message.forward_default();
        }
        Ok(Outcome::done())
    }
}

sluicebox_sdk::export!(FanOut: message);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::testing::{handler_from_text, message};

    #[test]
    fn emits_as_often_as_the_value_says() {
        let mut handler = handler_from_text::<FanOut>("{}").unwrap();
        for times in [0, 1, 3] {
            assert_eq!(handler.message(message(format!("{times}:x"))).emissions().len(), times);
        }
    }
}
