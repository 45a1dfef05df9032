//! What a lane does last, step by step: commits that are under way when its partition is given back (mode "receive"), the
//! instance's last call, and records that come back after everything else.

use std::time::Duration;

use sluicebox_frames::{
    AnswerWriter, Content, DestinationKind, Frame, Headers, Messages, MessagesWriter, NewEmission, Source,
};

use super::super::{Call, CallKind, Exports, LaneRules, Reply};
use super::held::{World, answer, emit, first, message, rules, verdict};
use crate::delivery::batcher::Trigger;
use crate::delivery::policy::Then;
use crate::delivery::verdict::Disposition;
use crate::pipeline::sink::Failure;

fn receive() -> LaneRules {
    LaneRules { receive: true, then: Then::Drop, ..rules() }
}

fn to_batcher(writer: &mut AnswerWriter, flush: bool) {
    let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
    writer.emission(&NewEmission { destination, flush, ..NewEmission::default() });
    writer.done(1);
}

fn trap() -> Reply {
    Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() })
}

/// Messages whose commit is under way when the partition goes are not given back before that is answered: if it worked,
/// nobody else would ever handle them.
#[test]
fn messages_wait_for_a_commit_under_way() {
    for worked in [true, false] {
        let mut world = World::new(receive());
        world.fill(10, &["a"]);
        world.lane.on_commit_sent();
        world.lane.drain(Trigger::Revoke);
        assert!(world.call().is_none() && !world.lane.is_drained(), "the commit may have worked");
        if worked {
            world.lane.on_committed(11);
            assert!(!world.lane.is_drained());
            let call = world.due();
            assert_eq!(first(&call.frame).0, "a");
            world.reply(call, answer(|writer| writer.done(0)));
        } else {
            world.lane.on_commit_over();
        }
        assert!(world.call().is_none() && world.lane.is_drained(), "worked: {worked}");
    }
}

/// The same where the instance wants to know of its end: that comes after the messages.
#[test]
fn the_last_call_waits_for_a_commit_under_way() {
    let mut world = World::new(LaneRules { exports: Exports { partitions: true, ..Exports::default() }, ..receive() });
    let call = world.due();
    world.reply(call, answer(|_| {}));
    world.fill(10, &["a"]);
    world.lane.on_commit_sent();
    world.lane.drain(Trigger::Revoke);
    assert!(world.call().is_none(), "not even the last call");
    world.lane.on_committed(11);
    let call = world.due();
    assert_eq!((&call.kind, first(&call.frame).0.as_str()), (&CallKind::Messages, "a"));
    world.reply(call, answer(|writer| writer.done(0)));
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Revoked { .. }), "{:?}", call.kind);
}

/// A batch of committed messages runs though later ones wait for their commit, which the next owner makes.
#[test]
fn batches_do_not_wait_for_commits_of_later_messages() {
    let mut world = World::new(receive());
    world.fill(10, &["a"]);
    world.lane.on_committed(11);
    world.each(|_, _, writer| to_batcher(writer, false));
    world.fill(11, &["b"]);
    world.lane.drain(Trigger::Revoke);
    let call = world.due();
    assert_eq!((&call.kind, first(&call.frame).0.as_str()), (&CallKind::Batch, "a"));
    world.reply(call, answer(|_| {}));
    assert!(world.call().is_none() && world.lane.is_drained());
    assert_eq!(world.lane.committable(), Some(11), "b is the next owner's");
}

/// In one batch with messages whose commit nobody made, which are the next owner's, those that are committed run by themselves.
#[test]
fn committed_messages_of_a_batch_run_without_the_others() {
    for commit in ["before", "under way", "fails"] {
        let mut world = World::new(LaneRules { straight_to: Some(0), ..receive() });
        world.fill(10, &["a", "b"]);
        world.lane.on_committed(12);
        world.fill(12, &["c"]);
        if commit != "before" {
            world.lane.on_commit_sent();
        }
        world.lane.drain(Trigger::Revoke);
        let all = match commit {
            "under way" => {
                assert!(world.call().is_none() && !world.lane.is_drained(), "the commit may work");
                world.lane.on_committed(13);
                3
            }
            "fails" => {
                assert!(world.call().is_none() && !world.lane.is_drained(), "the commit may work");
                world.lane.on_commit_over();
                2
            }
            _ => 2,
        };
        assert!(!world.lane.is_drained(), "{commit}");
        let call = world.due();
        let messages = Messages::new(&call.frame);
        assert_eq!((&call.kind, messages.len(), messages.get(0).offset()), (&CallKind::Batch, all, 10), "{commit}");
        world.reply(call, answer(|writer| (0..all).for_each(|_| writer.done(0))));
        assert!(world.call().is_none() && world.lane.is_drained(), "{commit}");
        assert_eq!(world.lane.committable(), Some(10 + all as i64), "{commit}");
    }
}

fn with_partitions() -> World {
    let mut world = World::new(LaneRules { exports: Exports { partitions: true, ..Exports::default() }, ..rules() });
    let call = world.due();
    world.reply(call, answer(|_| {}));
    world
}

fn farewell(world: &mut World) -> Call {
    world.lane.drain(Trigger::Revoke);
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Revoked { .. }), "{:?}", call.kind);
    call
}

/// The last call is the last: a batch whose next attempt is due by then is the next owner's, and so is what this call would
/// put into a batch.
#[test]
fn no_batch_comes_after_the_last_call() {
    let mut world = with_partitions();
    world.fill(10, &["a"]);
    let call = world.due();
    world.reply(call, answer(|writer| to_batcher(writer, true)));
    let call = world.due();
    assert_eq!(call.kind, CallKind::Batch);
    world.reply(call, answer(|writer| writer.retry("later", None)));
    let call = farewell(&mut world);
    world.now += Duration::from_secs(60);
    world.reply(
        call,
        answer(|writer| {
            let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
            let (key, value) = (Content::Null, Content::Bytes(b"x"));
            writer.emission(&NewEmission { destination, key, value, ..NewEmission::default() });
        }),
    );
    assert!(world.out.notices.contains(&"BadAnswer".to_owned()), "{:?}", world.out.notices);
    assert!(world.call().is_none() && world.lane.is_drained());
    assert_eq!(world.lane.committable(), Some(10));
}

/// A fault in the last call gives what was held back to the next owner, at once.
#[test]
fn a_fault_in_the_last_call_does_not_hold_the_partition() {
    let mut world = with_partitions();
    world.fill(10, &["a"]);
    let call = world.due();
    world.reply(call, answer(|writer| to_batcher(writer, true)));
    let call = world.due();
    assert_eq!(call.kind, CallKind::Batch);
    world.reply(call, answer(AnswerWriter::hold));
    let call = farewell(&mut world);
    world.reply(call, trap());
    assert!(world.call().is_none() && world.lane.is_drained());
    assert_eq!(world.lane.committable(), Some(10));
}

/// A record as it is read again: of no ownership.
fn read_again(value: &str) -> Frame {
    let mut frame = Frame::default();
    let source = Source { topic: "in", partition: 1 };
    let mut burst = MessagesWriter::burst(&mut frame, source, 0, false);
    burst.push(&message(10, value), Headers::default());
    burst.finish();
    frame
}

/// A handler that takes batches only, and decides to block at a record whose emission is refused, gets it again as a batch.
#[test]
fn a_refused_record_comes_back_as_what_its_handler_takes() {
    let exports = Exports { failures: true, ..Exports::default() };
    let rules = LaneRules { straight_to: Some(0), exports, then: Then::DeadLetter, ..rules() };
    let mut world = World::new(rules);
    world.fill(10, &["a"]);
    world.lane.drain(Trigger::Shutdown);
    let call = world.due();
    world.reply(
        call,
        answer(|writer| {
            emit(writer, "large");
            writer.done(1);
        }),
    );
    world.refuse(Some(0));
    assert_eq!(world.lane.take_wanted(), [10]);
    world.lane.on_sources(&read_again("a"), &[10], &mut world.out);
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Failed { .. }), "{:?}", call.kind);
    world.reply(call, verdict(Disposition::Block, None, &[]));
    world.now = world.lane.deadline().expect("it is tried again");
    let call = world.due();
    assert_eq!((&call.kind, first(&call.frame).0.as_str()), (&CallKind::Batch, "a"));
    world.reply(call, answer(|writer| writer.done(0)));
    assert_eq!(world.lane.committable(), Some(11));
}

/// One that takes messages gets it as one of this ownership, and is told where its answer has to end.
#[test]
fn a_refused_record_comes_back_in_a_frame_like_any_other() {
    let exports = Exports { failures: true, ..Exports::default() };
    let mut world = World::new(LaneRules { exports, then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a"]);
    world.each(|_, _, writer| {
        emit(writer, "large");
        writer.done(1);
    });
    world.refuse(Some(0));
    assert_eq!(world.lane.take_wanted(), [10]);
    world.lane.on_sources(&read_again("a"), &[10], &mut world.out);
    let call = world.due();
    world.reply(call, verdict(Disposition::Block, None, &[]));
    world.now = world.lane.deadline().expect("it is tried again");
    let call = world.due();
    let messages = Messages::new(&call.frame);
    assert_eq!((messages.stop_at_reject(), messages.ownership_epoch(), messages.get(0).offset()), (true, 7, 10));
}

/// What the handler sends while it decides about a failed record may be refused as well: the record has one fate still, and
/// the lane does not wait for the other.
#[test]
fn a_record_that_is_refused_twice_has_one_fate() {
    let exports = Exports { failures: true, ..Exports::default() };
    let mut world = World::new(LaneRules { exports, then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a"]);
    world.each(|_, _, writer| {
        emit(writer, "large");
        writer.done(1);
    });
    world.refuse(Some(0));
    assert_eq!(world.lane.take_wanted(), [10]);
    world.lane.on_sources(&read_again("a"), &[10], &mut world.out);
    let call = world.due();
    world.reply(call, verdict(Disposition::Block, None, &["too large, too"]));
    world.refuse(Some(0));
    assert_eq!(world.lane.take_wanted(), [10]);
    world.lane.on_sources(&read_again("a"), &[10], &mut world.out);
    world.now += Duration::from_secs(60);
    world.each(|_, _, writer| writer.done(0));
    assert_eq!((world.lane.open(), world.lane.committable()), (0, Some(11)));
}
