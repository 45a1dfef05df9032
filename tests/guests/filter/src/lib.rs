//! Forwards values whose first byte is that of the setting `keep` (`1` unless set) to the default output, drops others.

use serde::Deserialize;
use sluicebox_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Filter {
    keep: char,
}

impl Default for Filter {
    fn default() -> Self {
        Self { keep: '1' }
    }
}

impl Handler for Filter {
    fn new(settings: Settings<'_>) -> Result<Self> {
        settings.parse()
    }
}

impl MessageHandler for Filter {
    #[inline]
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        if message.value().and_then(<[u8]>::first).is_some_and(|first| char::from(*first) == self.keep) {
            message.forward_default();
        }
        Ok(Outcome::done())
    }
}

sluicebox_sdk::export!(Filter: message);

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_sdk::json;
    use sluicebox_sdk::testing::{handler, message};

    #[test]
    fn keeps_what_the_settings_say() {
        let mut ones = handler::<Filter>(json!({})).unwrap();
        assert_eq!(ones.message(message("1a")).emissions().len(), 1);
        assert_eq!(ones.message(message("2a")).emissions().len(), 0);
        let mut twos = handler::<Filter>(json!({ "keep": "2" })).unwrap();
        assert_eq!(twos.message(message("2a")).emissions().len(), 1);
    }

    #[test]
    fn a_wrong_setting_is_named() {
        assert_eq!(
            handler::<Filter>(json!({ "keap": "2" })).unwrap_err(),
            "settings: keap: unknown field `keap`, expected `keep`"
        );
        assert!(handler::<Filter>(json!({ "keep": 2 })).unwrap_err().starts_with("settings: keep: invalid type"));
    }
}
