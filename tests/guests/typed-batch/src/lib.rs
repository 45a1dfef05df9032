//! A batch handler through the typed interface. Each item with the value `reject` is rejected, each with `retry` tried
//! again, the others are forwarded to the default output; one emission of the batch as a whole counts them
//! (`count=<n> batcher=<name> trigger=<trigger>`, key = batch key). A first item `err` fails the batch.

#[allow(missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "batch-plugin" });
}

use bindings::exports::sluicebox::plugin::batch_handler::{BatchAnswer, BatchInfo, Guest, Message};
use bindings::sluicebox::plugin::types::{
    Content, Destination, Emission, HeaderChange, Outcome, Retry, TimestampChange,
};

struct Counter;

impl Guest for Counter {
    fn handle_batch(info: BatchInfo, messages: Vec<Message>) -> Result<BatchAnswer, String> {
        if messages.first().is_some_and(|first| first.value.as_deref() == Some(b"err")) {
            return Err("the first item asks for it".to_owned());
        }
        let value = format!("count={} batcher={} trigger={:?}", messages.len(), info.batcher, info.trigger);
        let whole = emission(
            Content::Bytes(info.batch_key),
            Content::Bytes(value.into_bytes()),
            HeaderChange::Replace(Vec::new()),
        );
        let outcomes = messages.into_iter().map(|message| outcome(message.value.as_deref())).collect();
        Ok(BatchAnswer { outcomes, emissions: vec![whole], acks: Vec::new(), fails: Vec::new() })
    }
}

fn outcome(value: Option<&[u8]>) -> Outcome {
    match value {
        Some(b"reject") => Outcome::Reject("the value asks for it".to_owned()),
        Some(b"retry") => Outcome::Retry(Retry { reason: "the value asks for it".to_owned(), after: None }),
        _ => Outcome::Done(vec![emission(Content::Inherit, Content::Inherit, HeaderChange::Inherit)]),
    }
}

fn emission(key: Content, value: Content, headers: HeaderChange) -> Emission {
    Emission {
        to: Destination::DefaultOutput,
        key,
        value,
        headers,
        timestamp: TimestampChange::Inherit,
        partition: None,
        partition_key: None,
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(Counter with_types_in bindings);
