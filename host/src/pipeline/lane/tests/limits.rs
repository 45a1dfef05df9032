//! How much an answer may send on: at the limit, one below it and one above.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_frames::{AnswerWriter, Content, HeaderMode, Headers, HeadersWriter, NewEmission};

use super::super::{CallKind, EmissionRules, LaneRules, LaneState, Reply};
use super::held::{World, answer, rules};
use crate::delivery::batcher::BatchRules;

const TICK: Duration = Duration::from_secs(5);

fn limited(per_message: usize, bytes: usize) -> LaneRules {
    LaneRules { emissions: EmissionRules { per_message, bytes }, ..rules() }
}

fn emit(writer: &mut AnswerWriter, count: usize, value: Content<'_>) {
    for _ in 0..count {
        writer.emission(&NewEmission { key: Content::Null, value, ..NewEmission::default() });
    }
}

/// Carries out the answer to the call that is due; why it was refused, if it was.
fn refused(world: &mut World, reply: Reply) -> Option<String> {
    let call = world.due();
    world.reply(call, reply);
    match world.lane.state() {
        LaneState::BackingOff(reason) => Some(reason),
        _ => None,
    }
}

#[test]
fn emissions_of_a_burst_up_to_the_limit() {
    for (per_message, messages, limit) in [(3, 1, 1003), (3, 2, 1006), (1, 1, 1001)] {
        for (count, fits) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
            let mut world = World::new(limited(per_message, 64 << 20));
            // The first call of an instance is for one message.
            world.fill(9, &["first"]);
            assert_eq!(refused(&mut world, answer(|writer| writer.done(0))), None);
            world.fill(10, &["a", "b"][..messages]);
            let reply = answer(|writer| {
                emit(writer, count, Content::Null);
                writer.done(count as u32);
                (1..messages).for_each(|_| writer.done(0));
            });
            let call = world.due();
            world.reply(call, reply);
            assert_eq!(world.out.values().len(), if fits { count } else { 0 }, "{count} of {limit}");
            assert_eq!(world.out.notices.iter().any(|notice| notice == "BadAnswer"), !fits, "{count} of {limit}");
        }
    }
}

#[test]
fn emissions_of_a_tick_and_a_batch_up_to_the_limit() {
    for (count, fits) in [(999, true), (1000, true), (1001, false)] {
        let mut world = World::new(LaneRules { tick: Some(TICK), ..limited(7, 64 << 20) });
        world.now += TICK;
        let reply = answer(|writer| emit(writer, count, Content::Null));
        let reason = refused(&mut world, reply);
        assert_eq!(reason.is_none(), fits, "{reason:?}");
    }
    for (count, fits) in [(1006, true), (1007, true), (1008, false)] {
        let rules = BatchRules { max_messages: 1, ..limited(7, 64 << 20).batchers[0].1.clone() };
        let straight =
            LaneRules { batchers: vec![(Arc::from("b"), rules)], straight_to: Some(0), ..limited(7, 64 << 20) };
        let mut world = World::new(straight);
        world.fill(10, &["a"]);
        let call = world.due();
        assert_eq!(call.kind, CallKind::Batch);
        world.reply(call, answer(|writer| emit(writer, count, Content::Null)));
        assert_eq!(world.out.values().len(), if fits { count } else { 0 }, "{count}");
    }
}

#[test]
fn bytes_of_emissions_up_to_the_limit() {
    const LIMIT: usize = 2000;
    for (bytes, fits) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        // Half of them of its own.
        let mut world = World::new(limited(10, LIMIT));
        let (given, own) = ("g".repeat(bytes / 2), "o".repeat(bytes - bytes / 2));
        world.fill(10, &[&given]);
        let reply = answer(|writer| {
            emit(writer, 1, Content::Inherit);
            emit(writer, 1, Content::Bytes(own.as_bytes()));
            writer.done(2);
        });
        let reason = refused(&mut world, reply);
        assert_eq!(reason.is_none(), fits, "{bytes}: {reason:?}");
        if let Some(reason) = reason {
            let expected = "its emissions come to 2001 bytes, what they inherit and 64 for each header included; the limit is \
                            2000 (`emission_bytes` in [handler.limits])";
            assert!(reason.starts_with("output_limit: ") && reason.contains(expected), "{reason}");
        }
        // All of them of its own, in a call without messages.
        let mut world = World::new(LaneRules { tick: Some(TICK), ..limited(10, LIMIT) });
        world.now += TICK;
        let own = "o".repeat(bytes);
        let reply = answer(|writer| emit(writer, 1, Content::Bytes(own.as_bytes())));
        assert_eq!(refused(&mut world, reply).is_none(), fits, "{bytes}");
    }
}

/// Proves: headers count for more than the two bytes that one may have, of the emission's own and inherited ones: what becomes of
/// them in the host is many times that.
#[test]
fn headers_of_emissions_up_to_the_limit() {
    const COST: usize = 64 + 3;
    let block = |count: usize| {
        let mut block = Vec::new();
        let mut writer = HeadersWriter::new(&mut block);
        (0..count).for_each(|_| writer.push(b"h", Some(b"")));
        block
    };
    for (count, fits) in [(19, true), (20, true), (21, false)] {
        // The count in front of a block.
        let limited = || limited(10, 2 * (4 + 10 * COST));
        // Half of them inherited, by an emission that adds the other half.
        let mut world = World::new(limited());
        world.fill_with(10, &block(count / 2));
        let own = block(count - count / 2);
        let one = NewEmission { key: Content::Null, value: Content::Null, ..NewEmission::default() };
        let reply = answer(|writer| {
            writer.emission(&NewEmission { headers: HeaderMode::Append(Headers::new(&own)), ..one });
            writer.done(1);
        });
        let reason = refused(&mut world, reply);
        assert_eq!(reason.is_none(), fits, "{count}: {reason:?}");
        // All of them of its own, in a call without messages.
        let mut world = World::new(LaneRules { tick: Some(TICK), ..limited() });
        world.now += TICK;
        let (half, rest) = (block(count / 2), block(count - count / 2));
        let reply = answer(|writer| {
            for block in [&half, &rest] {
                writer.emission(&NewEmission { headers: HeaderMode::Replace(Headers::new(block)), ..one });
            }
        });
        let reason = refused(&mut world, reply);
        assert_eq!(reason.is_none(), fits, "{count}: {reason:?}");
    }
}
