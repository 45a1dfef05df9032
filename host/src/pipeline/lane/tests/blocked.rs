//! Lanes that stand: blocked at a record, or as far ahead of an open one as they may be, step by step.

use std::time::Duration;

use sluicebox_frames::{AnswerWriter, DestinationKind, Messages, NewEmission, Trigger};

use super::super::{Call, CallKind, HoldRules, LaneRules, LaneState};
use super::held::{World, answer, emit, first, rules};
use crate::delivery::batcher::BatchRules;
use crate::delivery::policy::Then;
use crate::delivery::retry::RetryRules;

const SECOND: Duration = Duration::from_secs(1);

fn batcher(max_messages: u32) -> BatchRules {
    BatchRules { max_messages, max_bytes: 1 << 20, max_wait: 3600 * SECOND }
}

/// Sends each message of a call to the batcher, under the key that its value begins with.
fn gather(world: &mut World, call: Call) {
    let keys: Vec<Vec<u8>> =
        Messages::new(&call.frame).iter().map(|message| message.value().unwrap_or_default()[..1].to_vec()).collect();
    let reply = answer(|writer| {
        for key in &keys {
            let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
            writer.emission(&NewEmission { destination, batch_key: key, ..NewEmission::default() });
            writer.done(1);
        }
    });
    world.reply(call, reply);
}

fn values(call: &Call) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    Messages::new(&call.frame).iter().map(|message| text(message.value())).collect()
}

/// With the policy `block` a record that failed for good is tried again at the largest back-off, again and again, and nothing
/// passes it; when it succeeds the lane goes on, and says so.
#[test]
fn a_blocked_record_is_tried_until_it_succeeds() {
    let retry = RetryRules { attempts: 2, backoff: SECOND, max_backoff: 30 * SECOND, jitter: false };
    let mut world = World::new(LaneRules { retry, then: Then::Block, ..rules() });
    world.fill(10, &["bad", "behind"]);
    let mut waits = Vec::new();
    for attempt in 1..=6 {
        let call = world.due();
        assert_eq!((first(&call.frame).0.as_str(), Messages::new(&call.frame).get(0).attempt()), ("bad", attempt));
        world.reply(call, answer(|writer| writer.retry("not yet", None)));
        let until = world.lane.deadline().expect("it is tried again");
        waits.push((until - world.now).as_secs());
        assert!(world.call().is_none() && !world.lane.wants_messages(), "nothing passes it");
        assert_eq!(matches!(world.lane.state(), LaneState::Blocked(_)), attempt > 1);
        world.now = until;
    }
    assert_eq!(waits, [1, 30, 30, 30, 30, 30]);
    let call = world.due();
    world.reply(call, answer(|writer| writer.done(0)));
    assert_eq!(world.lane.state(), LaneState::Running);
    world.each(|_, _, writer| writer.done(0));
    assert_eq!(world.lane.committable(), Some(12));
    let said = |what: &str| world.out.notices.iter().filter(|notice| *notice == what).count();
    assert_eq!((said("Retrying"), said("Blocked"), said("Unblocked")), (1, 5, 1));
}

/// A lane that may not run further ahead of an open record, with nothing running, closes its oldest batch, whatever that waits
/// for: else it would stand until the batch's time is up.
#[test]
fn a_lane_that_may_not_run_ahead_closes_its_oldest_batch() {
    let hold = HoldRules { max: 100, timeout: 3600 * SECOND };
    let mut world =
        World::new(LaneRules { batchers: vec![("b".into(), batcher(1_000))], max_ahead: 4, hold, ..rules() });
    for (n, value) in ["a1", "b1", "a2"].iter().enumerate() {
        world.fill(10 + n as i64, &[value]);
        let call = world.due();
        gather(&mut world, call);
        assert!(world.call().is_none(), "it may still run ahead");
    }
    world.fill(13, &["b2"]);
    let call = world.due();
    assert_eq!((call.kind.clone(), values(&call)), (CallKind::Batch, vec!["a1".to_owned(), "a2".to_owned()]));
    assert_eq!(Messages::new(&call.frame).batch_info().map(|info| info.trigger), Some(Trigger::Pressure));
    world.reply(call, answer(|writer| (0..2).for_each(|_| writer.done(0))));
    assert_eq!(world.lane.committable(), Some(11), "the batch of the other key is open");
    let call = world.due();
    assert_eq!(values(&call), ["b2"]);
    gather(&mut world, call);
    assert!(world.call().is_none() && world.lane.wants_messages(), "there is room again");
}

/// A retried item runs by itself before newer ones of its key; those of other keys do not wait for it.
#[test]
fn a_retried_item_goes_before_newer_ones_of_its_key() {
    let retry = RetryRules { attempts: 3, backoff: SECOND, jitter: false, ..RetryRules::default() };
    let hold = HoldRules { max: 100, timeout: 3600 * SECOND };
    let mut world = World::new(LaneRules { batchers: vec![("b".into(), batcher(2))], retry, hold, ..rules() });
    let mut seen = Vec::new();
    let mut failed = false;
    for (n, value) in ["a1", "a2", "a3", "a4", "b1", "b2"].iter().enumerate() {
        world.fill(10 + n as i64, &[value]);
        // Gathers until the lane has nothing to call; batches are answered as they come.
        while let Some(call) = world.call() {
            if call.kind == CallKind::Messages {
                gather(&mut world, call);
                continue;
            }
            let own = values(&call);
            seen.push(own.join(" "));
            let fails = own.iter().any(|value| value == "a1") && !std::mem::replace(&mut failed, true);
            let reply = answer(|writer| {
                for value in &own {
                    if fails && value == "a1" {
                        writer.retry("not yet", None);
                    } else {
                        emit(writer, value);
                        writer.done(1);
                    }
                }
            });
            world.reply(call, reply);
        }
    }
    assert_eq!(seen, ["a1 a2", "b1 b2"], "a3 and a4 wait for a1");
    world.now += SECOND;
    while let Some(call) = world.call() {
        let own = values(&call);
        seen.push(own.join(" "));
        let done = |writer: &mut AnswerWriter| {
            for value in &own {
                emit(writer, value);
                writer.done(1);
            }
        };
        world.reply(call, answer(done));
    }
    assert_eq!(seen, ["a1 a2", "b1 b2", "a1", "a3 a4"]);
    assert_eq!(world.out.values(), ["a2", "b1", "b2", "a1", "a3", "a4"]);
    world.deliver_all();
    assert_eq!(world.lane.committable(), Some(16));
}
