//! Round trips of any document, and bytes of any origin: `check` never panics, and what it accepts can be read whole.

mod documents;

use documents::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use sluicebox_frames::messages::copy_range;
use sluicebox_frames::{Answer, Frame, Headers, HeadersWriter, Messages, TimestampType, Trigger};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..12)
}

fn text() -> impl Strategy<Value = String> {
    select(vec!["", "a", "orders", "größe", "x.y-z_0"]).prop_map(str::to_owned)
}

fn headers() -> impl Strategy<Value = HeadersDoc> {
    vec((bytes(), of(bytes())), 0..4)
}

fn message(sources: usize) -> impl Strategy<Value = MessageDoc> {
    let timestamp_type = select(vec![TimestampType::None, TimestampType::CreateTime, TimestampType::LogAppendTime]);
    (any::<i64>(), any::<i64>(), timestamp_type, of(bytes()), of(bytes()), headers(), 1u32.., 0..sources as u16)
        .prop_map(|(offset, timestamp, timestamp_type, key, value, headers, attempt, source)| MessageDoc {
            offset,
            timestamp,
            timestamp_type,
            key,
            value,
            headers,
            attempt,
            source,
        })
}

fn messages() -> impl Strategy<Value = MessagesDoc> {
    let batch = (text(), bytes(), select(Trigger::ALL.to_vec())).prop_map(|(batcher, batch_key, trigger)| BatchDoc {
        batcher,
        batch_key,
        trigger,
    });
    (of(batch), any::<bool>(), any::<u64>(), 0..u64::MAX - 8, 1..4usize)
        .prop_flat_map(|(batch, stop, epoch, first_token, sources)| {
            let sources = if batch.is_some() { sources } else { 1 };
            (Just((batch, stop, epoch, first_token, sources)), vec(message(sources), 1..6))
        })
        .prop_map(|((batch, stop, epoch, first_token, sources), messages)| MessagesDoc {
            stop_at_reject: stop && batch.is_none(),
            batch,
            epoch,
            first_token,
            sources: (0..sources).map(|i| ("topic".to_owned(), i as u32)).collect(),
            messages,
        })
}

fn content() -> impl Strategy<Value = ContentDoc> {
    prop_oneof![Just(ContentDoc::Inherit), Just(ContentDoc::Null), bytes().prop_map(ContentDoc::Bytes)]
}

fn emission() -> impl Strategy<Value = EmissionDoc> {
    let some_headers = || headers().prop_filter("a block holds a header", |headers| !headers.is_empty());
    let headers = prop_oneof![
        Just(HeadersModeDoc::Inherit),
        Just(HeadersModeDoc::None),
        some_headers().prop_map(HeadersModeDoc::Replace),
        some_headers().prop_map(HeadersModeDoc::Append),
    ];
    let to = prop_oneof![
        Just(ToDoc::Default),
        text().prop_map(ToDoc::Output),
        (text(), bytes(), any::<bool>()).prop_map(|(name, key, flush)| ToDoc::Batcher { name, key, flush }),
    ];
    (to, content(), content(), headers, of(any::<i64>()), of(any::<u32>()), of(bytes())).prop_map(
        |(to, key, value, headers, timestamp, partition, partition_key)| EmissionDoc {
            to,
            key,
            value,
            headers,
            timestamp,
            partition,
            partition_key,
        },
    )
}

fn answer() -> impl Strategy<Value = AnswerDoc> {
    let outcome = prop_oneof![
        vec(emission(), 0..3).prop_map(OutcomeDoc::Done),
        (text(), of(0..u32::MAX)).prop_map(|(reason, after)| OutcomeDoc::Retry { reason, after }),
        text().prop_map(OutcomeDoc::Reject),
        Just(OutcomeDoc::Hold),
    ];
    (vec(outcome, 0..5), vec(emission(), 0..3), vec(any::<u64>(), 0..3), vec((any::<u64>(), text()), 0..3))
        .prop_map(|(outcomes, whole, acks, fails)| AnswerDoc { outcomes, whole, acks, fails })
}

/// Bytes set, cut off or added, in index and payload.
fn damage(frame: &mut Frame, changes: &[(bool, Index, u8)], cut: Option<(bool, Index)>) {
    for (in_index, place, byte) in changes {
        let part = if *in_index { &mut frame.index } else { &mut frame.payload };
        if !part.is_empty() {
            let place = place.index(part.len());
            part[place] = *byte;
        }
    }
    if let Some((in_index, place)) = cut {
        let part = if in_index { &mut frame.index } else { &mut frame.payload };
        part.truncate(place.index(part.len() + 1));
    }
}

type Damage = (Vec<(bool, Index, u8)>, Option<(bool, Index)>);

fn any_damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![select(vec![0u8, 1, 2, 3, 4, 16, 128, 254, 255]), any::<u8>()];
    (
        vec((any::<bool>(), any::<Index>(), byte), 1..4),
        prop_oneof![3 => Just(None), 1 => of((any::<bool>(), any::<Index>()))],
    )
}

fn read_all(frame: &Frame) {
    if let Ok(view) = Messages::check(&frame.index, &frame.payload) {
        MessagesDoc::read(&view);
    }
    if let Ok(view) = Answer::check(&frame.index, &frame.payload) {
        AnswerDoc::read(&view);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn messages_come_back_as_they_were(document in messages()) {
        let frame = document.encode();
        let view = Messages::check(&frame.index, &frame.payload).expect("a frame that keeps the layout");
        let read = MessagesDoc::read(&view);
        // Sources that no message uses are not read, the others are numbered by use.
        let source = |document: &MessagesDoc, i: usize| document.sources[document.messages[i].source as usize].clone();
        prop_assert_eq!(read.messages.len(), document.messages.len());
        for (i, (got, expected)) in read.messages.iter().zip(&document.messages).enumerate() {
            prop_assert_eq!(source(&read, i), source(&document, i));
            prop_assert_eq!(MessageDoc { source: 0, ..got.clone() }, MessageDoc { source: 0, ..expected.clone() });
        }
        prop_assert_eq!((read.batch, read.stop_at_reject), (document.batch, document.stop_at_reject));
        prop_assert_eq!((read.epoch, read.first_token), (document.epoch, document.first_token));
    }

    #[test]
    fn a_part_of_a_frame_is_a_frame_of_that_part(document in messages(), from: Index, to: Index) {
        let frame = document.encode();
        let from = from.index(document.messages.len());
        let count = 1 + to.index(document.messages.len() - from);
        let mut part = Frame::default();
        copy_range(&frame, from, count, &mut part);
        let expected = MessagesDoc { messages: document.messages[from..from + count].to_vec(), ..document };
        let view = Messages::check(&part.index, &part.payload).expect("a frame that keeps the layout");
        let expected = expected.encode();
        let expected = Messages::new(&expected);
        prop_assert_eq!(MessagesDoc::read(&view), MessagesDoc::read(&expected));
    }

    /// Proves: whatever a record holds where its headers are, what is taken for headers is a block that can be read whole.
    #[test]
    fn headers_of_a_record_are_refused_or_a_block(record in vec(prop_oneof![0..12u8, any::<u8>()], 0..40)) {
        let mut block = Vec::new();
        let mut writer = HeadersWriter::new(&mut block);
        let taken = writer.push_record_headers(&record);
        prop_assert_eq!(writer.finish() as usize, block.len());
        let headers = Headers::check(&block).expect("a block");
        prop_assert_eq!(headers.iter().count(), headers.len());
        prop_assert!(taken || headers.is_empty());
        // The other way round, by the count's one byte: what a block may have is taken.
        if let Some((count, rest)) = record.split_first().filter(|(count, _)| **count & 0x81 == 0 && **count > 0) {
            let block = [&u32::from(count >> 1).to_le_bytes()[..], rest].concat();
            prop_assert_eq!(taken, Headers::check(&block).is_ok());
        }
    }

    #[test]
    fn answers_come_back_as_they_were(document in answer()) {
        let frame = document.encode();
        let view = Answer::check(&frame.index, &frame.payload).expect("a frame that keeps the layout");
        prop_assert_eq!(AnswerDoc::read(&view), document);
    }

    #[test]
    fn a_damaged_burst_is_refused_or_readable(document in messages(), (changes, cut) in any_damage()) {
        let mut frame = document.encode();
        damage(&mut frame, &changes, cut);
        read_all(&frame);
    }

    #[test]
    fn a_damaged_answer_is_refused_or_readable(document in answer(), (changes, cut) in any_damage()) {
        let mut frame = document.encode();
        damage(&mut frame, &changes, cut);
        read_all(&frame);
    }

    #[test]
    fn random_bytes_are_refused_or_readable(mut index in vec(any::<u8>(), 0..200), payload in vec(any::<u8>(), 0..50), kind in 1..4u8) {
        read_all(&Frame { index: index.clone(), payload: payload.clone() });
        // With a good beginning the check gets further.
        if index.len() >= 4 {
            index[..4].copy_from_slice(&[1, 0, kind, 0]);
        }
        read_all(&Frame { index, payload });
    }
}
