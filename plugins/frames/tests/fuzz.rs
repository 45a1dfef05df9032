//! Bytes that claim to be frames: whatever they are, `check` says yes or no, and what it accepts can be read whole. An input
//! is the length of the index (16 bits), the index and the payload.

#[path = "../../../tests/fuzz/engine.rs"]
mod engine;

use std::hint::black_box;
use std::path::Path;

use sluicebox_frames::{Answer, Content, HeaderMode, Messages};

#[test]
fn frames() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fuzz = engine::Fuzz { name: "frames", root: &root, words: &["orders", "out"], longest: 4096, runs: 300_000 };
    fuzz.run(|input| {
        let Some((length, rest)) = input.split_first_chunk() else { return };
        let (index, payload) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        read_messages(index, payload);
        read_answer(index, payload);
    });
}

fn read_messages(index: &[u8], payload: &[u8]) {
    let Ok(messages) = Messages::check(index, payload) else { return };
    black_box((messages.stop_at_reject(), messages.first_token(), messages.ownership_epoch(), messages.batch_info()));
    black_box(messages.common_source());
    for message in messages.iter() {
        black_box((
            message.offset(),
            message.timestamp(),
            message.timestamp_type(),
            message.attempt(),
            message.token(),
        ));
        black_box((message.source(), message.key(), message.value()));
        for header in message.headers().iter() {
            black_box(header);
        }
    }
}

fn read_answer(index: &[u8], payload: &[u8]) {
    let Ok(answer) = Answer::check(index, payload) else { return };
    for i in 0..answer.outcome_count() {
        black_box(answer.outcome(i));
    }
    let destinations = answer.destinations().count();
    for i in 0..answer.emission_count() {
        let emission = answer.emission(i);
        assert!(emission.destination().is_none_or(|number| number < destinations));
        black_box((emission.timestamp(), emission.partition(), emission.partition_key(), emission.batch_key()));
        let own = [emission.key(), emission.value()].map(|content| match content {
            Content::Bytes(bytes) => bytes.len(),
            Content::Inherit | Content::Null => 0,
        });
        assert!(own[0] + own[1] <= payload.len(), "emissions share no bytes");
        if let HeaderMode::Replace(headers) | HeaderMode::Append(headers) = emission.headers() {
            assert_eq!(headers.iter().count(), headers.len(), "a block that was checked is read whole");
        }
        black_box((emission.own_bytes(), emission.flush()));
    }
    black_box((answer.acks().collect::<Vec<_>>(), answer.fails().collect::<Vec<_>>()));
}
