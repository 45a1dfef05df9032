//! Typed form without the SDK: the same rules as `raw-frames`, written against the records of the contract.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sluicebox:plugin/plugin",
    generate_all,
});

use exports::sluicebox::plugin::{batch_handler, message_handler};
use sluicebox::plugin::types::{
    BatchAnswer, BatchInfo, Content, Destination, Emission, FailedToken, Header, HeaderChange, Message, MessageAnswer,
    Outcome, Retry, TimestampChange, TimestampType, ToBatcher, Trigger,
};

struct Guest;

export!(Guest);

impl message_handler::Guest for Guest {
    fn handle_message(message: Message) -> MessageAnswer {
        if message.value.as_deref() == Some(b"ack") {
            let fails = vec![FailedToken { token: message.token + 1, reason: "gave up".to_owned() }];
            return MessageAnswer { outcome: Outcome::Done(Vec::new()), acks: vec![message.token], fails };
        }
        MessageAnswer { outcome: outcome(&message), acks: Vec::new(), fails: Vec::new() }
    }
}

impl batch_handler::Guest for Guest {
    fn handle_batch(info: BatchInfo, messages: Vec<Message>) -> Result<BatchAnswer, String> {
        if info.batch_key == b"fail" {
            return Err("the batch is refused".to_owned());
        }
        let trigger = match info.trigger {
            Trigger::Size => "size",
            Trigger::Bytes => "bytes",
            Trigger::Timeout => "timeout",
            Trigger::Flush => "flush",
            Trigger::Pressure => "pressure",
            Trigger::Revoke => "revoke",
            Trigger::Swap => "swap",
            Trigger::Shutdown => "shutdown",
        };
        let place = info.topic_partition.map_or("many".to_owned(), |at| format!("{}-{}", at.topic, at.partition));
        let text =
            format!("{} {} {trigger} {} {place}", info.batcher, info.batch_key.escape_ascii(), info.ownership_epoch);
        let whole = Emission {
            to: Destination::Output("out".to_owned()),
            key: Content::Null,
            value: Content::Bytes(text.into_bytes()),
            headers: HeaderChange::Replace(Vec::new()),
            ..inherit()
        };
        Ok(BatchAnswer {
            outcomes: messages.iter().map(outcome).collect(),
            emissions: vec![whole],
            acks: vec![7],
            fails: vec![FailedToken { token: 8, reason: "expired".to_owned() }],
        })
    }
}

fn inherit() -> Emission {
    Emission {
        to: Destination::DefaultOutput,
        key: Content::Inherit,
        value: Content::Inherit,
        headers: HeaderChange::Inherit,
        timestamp: TimestampChange::Inherit,
        partition: None,
        partition_key: None,
    }
}

fn outcome(message: &Message) -> Outcome {
    let Some(value) = &message.value else { return Outcome::Done(vec![inherit()]) };
    match value.as_slice() {
        b"none" => Outcome::Done(Vec::new()),
        b"hold" => Outcome::Hold,
        b"retry" => Outcome::Retry(Retry { reason: "not yet".to_owned(), after: Some(1500) }),
        b"reject" => Outcome::Reject("never".to_owned()),
        b"everything" => everything(message),
        b"batch" => {
            let to = ToBatcher { name: "totals".to_owned(), batch_key: b"k".to_vec(), flush: true };
            Outcome::Done(vec![Emission { to: Destination::Batcher(to), ..inherit() }])
        }
        value if value.starts_with(b"!many ") => {
            let count = String::from_utf8_lossy(&value[6..]).parse().unwrap_or_default();
            Outcome::Done((0..count).map(|_| inherit()).collect())
        }
        b"!loop" => loop {
            std::hint::black_box(0);
        },
        value => Outcome::Done(vec![Emission { value: Content::Bytes(value.to_ascii_uppercase()), ..inherit() }]),
    }
}

fn everything(message: &Message) -> Outcome {
    let timestamp_type = match message.timestamp_type {
        TimestampType::None => "None",
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    let text = format!(
        "{} {} {} {} {timestamp_type} {:?} {} {}",
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message.attempt,
        message.token
    );
    let mut headers = message.headers.clone();
    headers.push(Header { name: b"seen".to_vec(), value: None });
    Outcome::Done(vec![
        Emission {
            to: Destination::Output("out".to_owned()),
            key: Content::Null,
            value: Content::Bytes(text.into_bytes()),
            headers: HeaderChange::Replace(headers),
            timestamp: TimestampChange::At(99),
            partition: Some(3),
            partition_key: Some(b"pk".to_vec()),
        },
        Emission {
            key: Content::Bytes(Vec::new()),
            headers: HeaderChange::Append(vec![Header { name: b"more".to_vec(), value: Some(Vec::new()) }]),
            ..inherit()
        },
    ])
}
