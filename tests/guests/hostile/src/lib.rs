//! Does what no handler should. A message's value names the deed: a word, and perhaps a number; one module for each kind.
//! What is no deed is answered in upper case. Settings name what `init` does.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package test:hostile;
        world guest {
            include sluicebox:plugin/imports@0.1.0;
            export sluicebox:plugin/message-frames@0.1.0;
            export sluicebox:plugin/lifecycle@0.1.0;
        }",
    world: "test:hostile/guest",
    generate_all,
});

mod answers;
mod crashes;
mod fuzz;
mod memory;
mod output;
mod time;

use exports::sluicebox::plugin::{lifecycle, message_frames};
use sluicebox::plugin::types::Frame;
use sluicebox_frames::{AnswerWriter, Content, Messages, NewEmission};

struct Guest;

export!(Guest);

impl lifecycle::Guest for Guest {
    fn init(settings: String) -> Result<(), String> {
        if let Some(deed) = settings.split('"').nth(3) {
            commit(deed);
        }
        Ok(())
    }
}

impl message_frames::Guest for Guest {
    fn handle_messages(burst: Frame) -> Frame {
        let messages = Messages::from_parts(&burst.index, &burst.payload);
        let mut writer = AnswerWriter::with_capacity(messages.len(), 0);
        for message in messages.iter() {
            let value = message.value().unwrap_or_default();
            if let Ok(deed) = std::str::from_utf8(value) {
                if let Some(frame) = answers::forged(deed) {
                    return frame;
                }
                commit(deed);
            }
            writer.emission(&NewEmission {
                value: Content::Bytes(&value.to_ascii_uppercase()),
                ..NewEmission::default()
            });
            writer.done(1);
        }
        let sluicebox_frames::Frame { index, payload } = writer.finish();
        Frame { index, payload }
    }
}

/// Does the deed, if it is one.
fn commit(deed: &str) {
    let (word, argument) = deed.split_once(' ').unwrap_or((deed, "0"));
    let number: u64 = argument.parse().unwrap_or_default();
    match word {
        "panic" => panic!("no more of {argument}"),
        "abort" => std::process::abort(),
        "divide" => crashes::divide(),
        "outside" => crashes::outside(),
        "exit" => std::process::exit(i32::try_from(number).unwrap_or(1)),
        "recurse" => crashes::recurse(),
        "call-deep" => crashes::call_deep(),
        "loop" => time::endless(),
        "fill" => time::fill(),
        "sleep" => time::sleep(number),
        "work" => time::work(number),
        "hog" => memory::hog(),
        "handles" => memory::handles(number),
        "secret" => memory::secret(),
        "search" => memory::search(),
        "flood" => output::flood(number),
        "line" => output::line(number),
        "escapes" => output::escapes(),
        "empty-writes" => output::empty_writes(number),
        "look" => output::look(),
        "fuzz" => fuzz::calls(number),
        _ => {}
    }
}
