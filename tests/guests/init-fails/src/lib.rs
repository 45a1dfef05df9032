//! Starts only when the setting `ok` is true; forwards to the default output then.

use serde::Deserialize;
use sluicebox_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    ok: bool,
}

struct InitFails;

impl Handler for InitFails {
    fn new(settings: Settings<'_>) -> Result<Self> {
        match settings.parse()? {
            Wanted { ok: true } => Ok(Self),
            Wanted { ok: false } => Err("settings: ok: has to be true".into()),
        }
    }
}

impl MessageHandler for InitFails {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        Ok(message.forward_default())
    }
}

sluicebox_sdk::export!(InitFails: message);
