//! Instances that do not start, and those that were old, step by step.

use std::time::Duration;

use sluicebox_frames::{AnswerWriter, DestinationKind, Messages, NewEmission};

use super::super::{CallKind, Exports, HoldRules, LaneRules, LaneState, Reply};
use super::held::{World, answer, first, rules, verdict};
use crate::delivery::batcher::{BatchRules, Trigger};
use crate::delivery::policy::Then;
use crate::delivery::retry::RetryRules;
use crate::delivery::stall::Cause;
use crate::delivery::verdict::Disposition;
use crate::pipeline::sink::Failure;

fn not_started() -> Reply {
    Reply::NotStarted(Failure { class: "init", reason: "no rates yet".to_owned() })
}

fn trap() -> Reply {
    Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() })
}

const SECOND: Duration = Duration::from_secs(1);

/// Answers so many calls with "not started"; how long the lane waits after each, in seconds.
fn waits(world: &mut World, count: usize) -> Vec<u64> {
    (0..count)
        .map(|_| {
            let call = world.due();
            world.reply(call, not_started());
            assert!(world.call().is_none(), "it waits");
            let until = world.lane.deadline().expect("it goes on by itself");
            let wait = until - world.now;
            world.now = until;
            wait.as_secs()
        })
        .collect()
}

/// However often no instance starts, no attempt of the message is counted, the waits double up to 30 s, and the reason is
/// shown until an instance has answered.
#[test]
fn an_instance_that_does_not_start_is_no_messages_fault() {
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a", "b"]);
    assert_eq!(waits(&mut world, 8), [1, 2, 4, 8, 16, 30, 30, 30]);
    let LaneState::BackingOff(reason) = world.lane.state() else { panic!("{:?}", world.lane.state()) };
    assert_eq!(reason, "the handler does not start: init: no rates yet (try 8)");
    assert!(matches!(world.lane.kept_by(), Some((Cause::Retry, _))));
    let call = world.due();
    assert_eq!(Messages::new(&call.frame).get(0).attempt(), 1);
    world.reply(call, answer(|writer| writer.done(0)));
    assert_eq!(world.lane.state(), LaneState::Running);
    world.each(|_, _, writer| writer.done(0));
    assert_eq!(world.lane.committable(), Some(12));
    assert_eq!(world.out.values(), [""; 0], "no dead letter");
}

/// The waits begin anew after an instance that worked for a minute, and only then.
#[test]
fn a_minute_of_health_resets_the_waits() {
    for (healthy, first_wait) in [(59, 4), (60, 1)] {
        let mut world = World::new(rules());
        world.fill(10, &["a"]);
        assert_eq!(waits(&mut world, 2), [1, 2]);
        world.each(|_, _, writer| writer.done(0));
        world.now += SECOND * healthy;
        world.fill(11, &["b"]);
        let call = world.due();
        world.reply(call, trap());
        world.now += SECOND * 3600;
        assert_eq!(waits(&mut world, 1), [first_wait], "after {healthy} s");
    }
}

/// Narrowing down and the attempts of a culprit do not wait for this.
#[test]
fn faults_of_messages_do_not_wait_for_it() {
    let mut world = World::new(LaneRules { then: Then::Drop, ..rules() });
    world.fill(10, &["first"]);
    world.each(|_, _, writer| writer.done(0));
    world.fill(11, &["a", "b", "c"]);
    let begin = world.now;
    let mut alone = Vec::new();
    while let Some(call) = world.call() {
        let messages = Messages::new(&call.frame);
        let bad = messages.iter().any(|message| message.value() == Some(b"b"));
        if messages.len() == 1 {
            alone.push(first(&call.frame).0);
        }
        let count = messages.len();
        world.reply(call, if bad { trap() } else { answer(|writer| (0..count).for_each(|_| writer.done(0))) });
        if bad && count == 1 {
            world.now = world.lane.deadline().unwrap_or(world.now);
        }
    }
    // The second attempt of `b` waits its 200 ms; nothing else does.
    assert_eq!(alone.iter().filter(|value| *value == "b").count(), 2);
    assert_eq!(world.now - begin, Duration::from_millis(200));
    assert_eq!(world.lane.committable(), Some(14));
}

/// What it takes to isolate one bad message among as many as cross at once, in calls and new instances, wherever it stands: a
/// pass of single calls for a burst, halves for a batch. No wait is part of it, so that it takes as long as the calls do.
#[test]
fn a_bad_message_among_many_is_isolated_by_few_calls_and_no_wait() {
    const MANY: usize = 512;
    let rules = LaneRules {
        retry: RetryRules { attempts: 1, ..RetryRules::default() },
        then: Then::Drop,
        hold: HoldRules { max: 2 * MANY, timeout: SECOND },
        max_ahead: 2 * MANY,
        batchers: vec![("b".into(), BatchRules { max_messages: MANY as u32, max_bytes: 1 << 20, max_wait: SECOND })],
        ..rules()
    };
    for bad in [0, 1, 200, MANY / 2, MANY - 1] {
        for (batch, most_calls, most_faults) in [(false, MANY + 1, 2), (true, 2 * 9 + 1, 9 + 1)] {
            let mut world = World::new(LaneRules { straight_to: batch.then_some(0), ..rules.clone() });
            let mut next = 10;
            // An instance is given more and more at once.
            while !batch && world.lane.burst_limit() < MANY {
                let count = world.lane.burst_limit();
                world.fill(next, &vec!["good"; count]);
                next += count as i64;
                while let Some(call) = world.call() {
                    let count = Messages::new(&call.frame).len();
                    world.reply(call, answer(|writer| (0..count).for_each(|_| writer.done(0))));
                }
            }
            let mut values = vec!["good"; MANY];
            values[bad] = "bad";
            world.fill(next, &values);
            let (mut calls, mut faults) = (0, 0);
            while let Some(call) = world.call() {
                let messages = Messages::new(&call.frame);
                let (count, is_bad) = (messages.len(), messages.iter().any(|message| message.value() == Some(b"bad")));
                calls += 1;
                faults += usize::from(is_bad);
                world.reply(
                    call,
                    if is_bad { trap() } else { answer(|writer| (0..count).for_each(|_| writer.done(0))) },
                );
            }
            assert_eq!(world.lane.committable(), Some(next + MANY as i64), "it never waited, {bad} {batch}");
            assert!(calls <= most_calls && faults <= most_faults, "{calls} calls, {faults} faults, {bad} {batch}");
        }
    }
}

/// Whatever the call was, it is made again as it was: an item of a batch, a question about a failed message, a tick.
#[test]
fn every_kind_of_call_is_made_again() {
    let exports = Exports { partitions: true, failures: true };
    let rules = LaneRules { exports, tick: Some(SECOND * 3600), then: Then::DeadLetter, ..rules() };
    let mut world = World::new(rules);
    let mut seen = Vec::new();
    // Each call fails to start once.
    let mut again = |world: &mut World, reply: Reply| {
        let call = world.due();
        let kind = call.kind.clone();
        world.reply(call, not_started());
        world.now = world.lane.deadline().expect("a wait");
        // A new instance is greeted first.
        let mut call = world.due();
        if matches!(call.kind, CallKind::Assigned { .. }) && kind != call.kind {
            world.reply(call, answer(|_| {}));
            call = world.due();
        }
        assert_eq!(call.kind, kind);
        seen.push(format!("{kind:?}").split([' ', '{']).next().unwrap_or_default().to_owned());
        world.reply(call, reply);
    };
    again(&mut world, answer(|_| {}));
    world.fill(10, &["a"]);
    let to_batcher = |writer: &mut AnswerWriter| {
        let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
        writer.emission(&NewEmission { destination, flush: true, ..NewEmission::default() });
        writer.done(1);
    };
    again(&mut world, answer(to_batcher));
    again(&mut world, answer(|writer| writer.reject("bad")));
    again(&mut world, verdict(Disposition::Drop, None, &[]));
    world.fill(11, &["b"]);
    again(&mut world, answer(|writer| writer.reject("bad")));
    again(&mut world, verdict(Disposition::Drop, None, &[]));
    world.now += SECOND * 3600;
    again(&mut world, answer(|_| {}));
    assert_eq!(seen, ["Assigned", "Messages", "Batch", "Failed", "Messages", "Failed", "Tick"]);
    assert_eq!(world.lane.committable(), Some(12));
}

/// A partition that is given back does not wait for an instance; with mode `receive`, where nobody else would get the
/// messages, it does.
#[test]
fn a_drain_does_not_wait_for_an_instance() {
    for receive in [false, true] {
        let mut world = World::new(LaneRules { receive, then: Then::Drop, ..rules() });
        world.fill(10, &["a"]);
        world.lane.on_commit_sent();
        world.lane.on_committed(11);
        let call = world.due();
        world.lane.drain(Trigger::Revoke);
        world.reply(call, not_started());
        assert!(world.call().is_none());
        assert_eq!(world.lane.is_drained(), !receive);
        assert_eq!(world.lane.committable(), Some(if receive { 11 } else { 10 }));
        if receive {
            world.now = world.lane.deadline().expect("another try");
            world.each(|_, _, writer| writer.done(0));
            assert!(world.lane.is_drained());
        }
    }
}

/// What an old instance held is offered again to a new one without its state, and stays held by one that has it; either hears
/// of its partition, and nobody's attempt is counted.
#[test]
fn what_an_old_instance_held_is_offered_again_or_stays_held() {
    for restored in [false, true] {
        let exports = Exports { partitions: true, ..Exports::default() };
        let mut world = World::new(LaneRules { exports, ..rules() });
        let call = world.due();
        world.reply(call, answer(|_| {}));
        world.fill(10, &["a"]);
        let call = world.due();
        let (_, held) = first(&call.frame);
        world.reply(call, answer(AnswerWriter::hold));
        assert_eq!(world.lane.held(), 1);
        world.lane.on_renewed(restored, world.now);
        assert_eq!(world.lane.held(), usize::from(restored));
        let call = world.due();
        assert!(matches!(call.kind, CallKind::Assigned { .. }), "{:?}", call.kind);
        if restored {
            world.reply(call, answer(|writer| writer.ack(held)));
        } else {
            world.reply(call, answer(|_| {}));
            let call = world.due();
            let message = Messages::new(&call.frame).get(0);
            assert_eq!((message.offset(), message.attempt()), (10, 1));
            world.reply(call, answer(|writer| writer.done(0)));
        }
        assert_eq!(world.lane.committable(), Some(11));
    }
}
