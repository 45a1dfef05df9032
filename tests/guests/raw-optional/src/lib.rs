//! The optional exports in their typed form, without the SDK. Forwards every message. What a failed message's value says
//! is done: the words of `judge`, by the same rules, and `none`, `twice`, `batcher` and `loop`, which break them. Partitions
//! and ticks are answered with what was told; the topic `bad` makes an answer to a revocation that is for a batcher, and
//! `trap` traps. Its state is its word for it and grows with each restore; bytes that do not begin with that word are refused.

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package test:raw-optional;
        world guest {
            include sluicebox:plugin/imports@0.1.0;
            export sluicebox:plugin/message-handler@0.1.0;
            export sluicebox:plugin/timer@0.1.0;
            export sluicebox:plugin/partitions@0.1.0;
            export sluicebox:plugin/failures@0.1.0;
            export sluicebox:plugin/state@0.1.0;
        }",
    world: "test:raw-optional/guest",
    generate_all,
});

use std::cell::RefCell;

use exports::sluicebox::plugin::failures::{Disposition, FailedMessage, LetterChange, Verdict};
use exports::sluicebox::plugin::partitions::RevokeReason;
use exports::sluicebox::plugin::{failures, message_handler, partitions, state, timer};
use sluicebox::plugin::types::{
    Content, Destination, Emission, FailedToken, Header, HeaderChange, Message, MessageAnswer, Outcome, TickAnswer,
    TimestampChange, ToBatcher,
};

struct Guest;

export!(Guest);

impl message_handler::Guest for Guest {
    fn handle_message(_message: Message) -> MessageAnswer {
        let forwarded = emission(Destination::DefaultOutput, Content::Inherit);
        MessageAnswer { outcome: Outcome::Done(vec![forwarded]), acks: Vec::new(), fails: Vec::new() }
    }
}

impl timer::Guest for Guest {
    fn tick(now: i64) -> TickAnswer {
        told(Destination::DefaultOutput, format!("tick {now}"))
    }
}

impl partitions::Guest for Guest {
    fn partition_assigned(topic: String, partition: u32, next_offset: Option<i64>) -> TickAnswer {
        assert_ne!(topic, "trap", "the topic asks for it");
        let to = Destination::Batcher(ToBatcher { name: "totals".to_owned(), batch_key: Vec::new(), flush: false });
        told(to, format!("{topic} {partition} {next_offset:?}"))
    }

    fn partition_revoked(topic: String, partition: u32, reason: RevokeReason) -> TickAnswer {
        assert_ne!(topic, "trap", "the topic asks for it");
        let reason = match reason {
            RevokeReason::Revoked => "revoked",
            RevokeReason::Shutdown => "shutdown",
            RevokeReason::Restart => "restart",
        };
        let to = match topic.as_str() {
            "bad" => Destination::Batcher(ToBatcher { name: "totals".to_owned(), batch_key: Vec::new(), flush: false }),
            _ => Destination::Output("out".to_owned()),
        };
        told(to, format!("{topic} {partition} {reason}"))
    }
}

thread_local! {
    static STATE: RefCell<String> = RefCell::new("state".to_owned());
}

impl state::Guest for Guest {
    fn snapshot() -> Vec<u8> {
        STATE.with_borrow(|state| state.clone().into_bytes())
    }

    fn restore(bytes: Vec<u8>, from_version: String) -> Result<(), String> {
        let text = String::from_utf8(bytes).map_err(|_| "no text".to_owned())?;
        if !text.starts_with("state") {
            return Err(format!("{text} of {from_version}"));
        }
        STATE.set(format!("{text} {from_version}"));
        Ok(())
    }
}

impl failures::Guest for Guest {
    fn handle_failed(failed: Vec<FailedMessage>) -> Vec<Verdict> {
        let words = |failed: &FailedMessage| {
            String::from_utf8_lossy(failed.message.value.as_deref().unwrap_or_default()).into_owned()
        };
        let mut verdicts: Vec<_> = failed.iter().map(|failed| verdict(failed, &words(failed))).collect();
        match failed.first().map(words).as_deref() {
            Some("none") => verdicts.clear(),
            Some("twice") => verdicts.extend(verdicts.clone()),
            _ => {}
        }
        verdicts
    }
}

fn verdict(failed: &FailedMessage, words: &str) -> Verdict {
    let mut verdict = Verdict { disposition: Disposition::Policy, emissions: Vec::new() };
    for word in words.split(' ') {
        match word {
            "dead-letter" => {
                verdict.disposition = Disposition::DeadLetter(LetterChange {
                    key: Content::Inherit,
                    value: Content::Inherit,
                    headers: HeaderChange::Inherit,
                });
            }
            "drop" => verdict.disposition = Disposition::Drop,
            "block" => verdict.disposition = Disposition::Block,
            "stop" => verdict.disposition = Disposition::Stop,
            "changed" => {
                let header = Header { name: b"changed".to_vec(), value: Some(b"yes".to_vec()) };
                if let Disposition::DeadLetter(change) = &mut verdict.disposition {
                    change.key = Content::Null;
                    change.value = Content::Bytes(failed.reason.clone().into_bytes());
                    change.headers = HeaderChange::Append(vec![header]);
                }
            }
            "alert" => {
                let FailedMessage { stage, class, reason, attempts, .. } = failed;
                let text = format!("{stage} {class} {attempts}: {reason}");
                let to = Destination::Output("alerts".to_owned());
                verdict.emissions.push(emission(to, Content::Bytes(text.into_bytes())));
            }
            "everything" => {
                let Message { topic, partition, offset, timestamp, key, headers, attempt, token, .. } = &failed.message;
                let headers = headers.len();
                let text = format!("{topic} {partition} {offset} {timestamp} {key:?} {headers} {attempt} {token}");
                verdict.emissions.push(emission(Destination::DefaultOutput, Content::Bytes(text.into_bytes())));
            }
            "batcher" => {
                let to = ToBatcher { name: "totals".to_owned(), batch_key: Vec::new(), flush: false };
                verdict.emissions.push(emission(Destination::Batcher(to), Content::Inherit));
            }
            "trap" => panic!("a verdict that traps"),
            "loop" => loop {
                std::hint::black_box(0);
            },
            _ => {}
        }
    }
    verdict
}

/// One emission of this text, an ack and a fail.
fn told(to: Destination, text: String) -> TickAnswer {
    let told = Emission {
        key: Content::Null,
        headers: HeaderChange::Replace(Vec::new()),
        ..emission(to, Content::Bytes(text.into_bytes()))
    };
    let fails = vec![FailedToken { token: 8, reason: "expired".to_owned() }];
    TickAnswer { emissions: vec![told], acks: vec![7], fails }
}

fn emission(to: Destination, value: Content) -> Emission {
    Emission {
        to,
        key: Content::Inherit,
        value,
        headers: HeaderChange::Inherit,
        timestamp: TimestampChange::Inherit,
        partition: None,
        partition_key: None,
    }
}
