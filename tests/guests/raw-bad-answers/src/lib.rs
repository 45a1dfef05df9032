//! Answers with frames that break the contract, in the way that the value of a burst's first message says:
//!
//! | value | answer |
//! |---|---|
//! | `no-outcomes` | no outcome at all |
//! | `too-many` | one outcome more than there are messages |
//! | `unknown-output` | an output that nobody declared |
//! | `bad-index` | an emission whose destination is not in the table |
//! | `huge-length` | an emission whose value is longer than the payload |
//! | `wrong-version` | layout version 9 |
//! | `hold` | holds the first message |
//! | `empty` | two empty byte strings |
//! | `run-on` | retry for the first message, done with an emission for all others |
//! | `reject-run-on` | reject for the first message, done with an emission for all others |
//! | `partial` | done with an emission for the first message only |
//! | `big-answer` | a payload of 64 MiB |
//! | `whole` | an emission that belongs to no message |
//! | `ack` | acks a token that nobody holds |
//!
//! Everything else is forwarded to the default output.

use sluicebox_frames::{AnswerWriter, Content, DestinationKind, Frame, Messages, NewEmission};

#[allow(missing_docs, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "message-frames-plugin" });
}

use bindings::exports::sluicebox::plugin::message_frames::{Frame as WitFrame, Guest};

struct RawBadAnswers;

impl Guest for RawBadAnswers {
    fn handle_messages(burst: WitFrame) -> WitFrame {
        let Frame { index, payload } = answer(&Messages::from_parts(&burst.index, &burst.payload));
        WitFrame { index, payload }
    }
}

fn answer(burst: &Messages<'_>) -> Frame {
    let wanted = burst.get(0).value().and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
    let mut writer = AnswerWriter::new();
    match wanted.split(' ').next().unwrap_or_default() {
        "no-outcomes" => {}
        "too-many" => forward(&mut writer, burst.len() + 1),
        "unknown-output" => {
            let destination = Some(writer.destination(DestinationKind::Output, "nobody-declared-this"));
            writer.emission(&NewEmission { destination, ..NewEmission::default() });
            writer.done(1);
            forward(&mut writer, burst.len() - 1);
        }
        "bad-index" => {
            writer.emission(&NewEmission { destination: Some(7), ..NewEmission::default() });
            writer.done(1);
        }
        "huge-length" => {
            writer.emission(&NewEmission { value: Content::Bytes(b"short"), ..NewEmission::default() });
            writer.done(1);
            let mut frame = writer.finish();
            // Header, no destination, one outcome; then the emission's value length.
            frame.index[32 + 16 + 16..][..4].copy_from_slice(&0xFFFF_FFF0u32.to_le_bytes());
            return frame;
        }
        "wrong-version" => {
            forward(&mut writer, burst.len());
            let mut frame = writer.finish();
            frame.index[0] = 9;
            return frame;
        }
        "hold" => {
            writer.hold();
            forward(&mut writer, burst.len() - 1);
        }
        "empty" => return Frame::default(),
        "run-on" => {
            writer.retry("and yet the answer runs on", None);
            forward(&mut writer, burst.len() - 1);
        }
        "reject-run-on" => {
            writer.reject("and yet the answer runs on");
            forward(&mut writer, burst.len() - 1);
        }
        "partial" => forward(&mut writer, 1),
        "big-answer" => {
            writer.emission(&NewEmission { value: Content::Bytes(&vec![b'x'; 64 << 20]), ..NewEmission::default() });
            writer.done(1);
        }
        "whole" => {
            forward(&mut writer, burst.len());
            writer.emission(&NewEmission::default());
        }
        "ack" => {
            writer.ack(u64::MAX);
            forward(&mut writer, burst.len());
        }
        _ => forward(&mut writer, burst.len()),
    }
    writer.finish()
}

fn forward(writer: &mut AnswerWriter, messages: usize) {
    for _ in 0..messages {
        writer.emission(&NewEmission::default());
        writer.done(1);
    }
}

#[cfg(target_arch = "wasm32")]
bindings::export!(RawBadAnswers with_types_in bindings);
