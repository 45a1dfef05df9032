//! Forwards everything unchanged to the default output.

use sluicebox_sdk::prelude::*;

struct Forward;

impl Handler for Forward {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for Forward {
    #[inline]
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        Ok(message.forward_default())
    }
}

sluicebox_sdk::export!(Forward: message);
