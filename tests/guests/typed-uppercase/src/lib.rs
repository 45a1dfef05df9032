//! The same as `uppercase`, through the typed interface and with plain wit-bindgen: what a handler without an SDK costs.

#[allow(missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "message-plugin" });
}

use bindings::exports::sluicebox::plugin::message_handler::{Guest, Message, MessageAnswer};
use bindings::sluicebox::plugin::types::{Content, Destination, Emission, HeaderChange, Outcome, TimestampChange};

struct Uppercase;

impl Guest for Uppercase {
    fn handle_message(message: Message) -> MessageAnswer {
        let value = match message.value {
            None => Content::Inherit,
            Some(mut value) => {
                let head = value.len().min(100);
                value[..head].make_ascii_uppercase();
                Content::Bytes(value)
            }
        };
        let emission = Emission {
            to: Destination::DefaultOutput,
            key: Content::Inherit,
            value,
            headers: HeaderChange::Inherit,
            timestamp: TimestampChange::Inherit,
            partition: None,
            partition_key: None,
        };
        MessageAnswer { outcome: Outcome::Done(vec![emission]), acks: Vec::new(), fails: Vec::new() }
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Uppercase with_types_in bindings);
