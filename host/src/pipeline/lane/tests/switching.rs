//! Another version for a lane, step by step: when it goes over, what the old version still does, what the new one gets, and
//! what a switch that is refused leaves behind.

use std::sync::Arc;
use std::time::Duration;

use sluicebox_frames::{
    AnswerWriter, DestinationKind, Frame, Headers, Messages, MessagesWriter, NewEmission, Source, Trigger as Why,
};

use super::super::{Call, CallKind, Exports, LaneRules, LaneState, Reply, Switched};
use super::held::{World, answer, emit, first, message, rules, verdict};
use crate::delivery::batcher::Trigger;
use crate::delivery::policy::Then;
use crate::delivery::verdict::Disposition;
use crate::pipeline::sink::Failure;

const RESTORED: Reply = Reply::Switched(Switched::Over { restored: true });
const FRESH: Reply = Reply::Switched(Switched::Over { restored: false });

fn refused(lost: bool) -> Reply {
    Reply::Switched(Switched::Refused { failure: Failure { class: "init", reason: "no".to_owned() }, lost })
}

fn trap() -> Reply {
    Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() })
}

fn new_rules() -> LaneRules {
    LaneRules { version: "new".into(), ..rules() }
}

impl World {
    fn switch(&mut self, rules: LaneRules) {
        self.lane.switch(Arc::new(rules), true);
        assert!(self.lane.is_switching());
    }

    /// The switch is the next call; it ends so.
    fn goes_over(&mut self, reply: Reply) {
        let call = self.due();
        assert_eq!(call.kind, CallKind::Switch);
        assert!(self.lane.is_switching() && !self.lane.wants_messages());
        self.reply(call, reply);
        assert!(!self.lane.is_switching());
    }

    fn version(&self) -> &str {
        self.lane.version()
    }
}

fn shown(call: &Call) -> Vec<(String, u32)> {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    Messages::new(&call.frame).iter().map(|message| (text(message.value()), message.attempt())).collect()
}

fn to_batcher(writer: &mut AnswerWriter, flush: bool) {
    let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
    writer.emission(&NewEmission { destination, flush, ..NewEmission::default() });
    writer.done(1);
}

/// A call that is under way ends on the version that it began with, and what it sends carries that version's digest; the
/// next record is the new version's. An idle lane goes over at once.
#[test]
fn a_call_ends_on_the_version_that_it_began_with() {
    let stamped = |rules: LaneRules| LaneRules { provenance: vec![true], ..rules };
    let mut world = World::new(stamped(rules()));
    world.fill(10, &["a"]);
    let call = world.due();
    world.switch(stamped(new_rules()));
    assert!(world.call().is_none(), "one call at a time");
    let forward = |writer: &mut AnswerWriter| {
        emit(writer, "x");
        writer.done(1);
    };
    world.reply(call, answer(forward));
    assert_eq!(world.version(), "abc");
    world.goes_over(FRESH);
    assert_eq!(world.version(), "new");
    world.fill(11, &["b"]);
    world.each(|_, _, writer| forward(writer));
    let stamps: Vec<_> = world.out.headers.iter().filter(|header| header.starts_with("sluicebox-version")).collect();
    assert_eq!(stamps, ["sluicebox-version=abc", "sluicebox-version=new"]);
    world.deliver_all();
    assert_eq!(world.lane.committable(), Some(12), "what the old version sent settles as it would have");
}

/// Open batches close with the trigger `swap` and run once on the old version; what is unfinished then is the new one's, at
/// attempt 1. With the strategy `immediate` all of it is.
#[test]
fn open_batches_run_once_on_the_old_version() {
    for drain in [true, false] {
        let mut world = World::new(rules());
        world.fill(10, &["a", "b"]);
        for _ in 0..2 {
            let call = world.due();
            world.reply(call, answer(|writer| to_batcher(writer, false)));
        }
        assert!(world.call().is_none(), "a batch is open");
        world.lane.switch(Arc::new(new_rules()), drain);
        if drain {
            let call = world.due();
            assert_eq!((&call.kind, shown(&call)), (&CallKind::Batch, vec![("a".to_owned(), 1), ("b".to_owned(), 1)]));
            let info = Messages::new(&call.frame).batch_info().expect("a batch");
            assert_eq!(info.trigger, Why::Swap);
            let halves = answer(|writer| {
                writer.done(0);
                writer.retry("not yet", None);
            });
            world.reply(call, halves);
            assert_eq!(world.lane.committable(), Some(11));
        }
        world.goes_over(FRESH);
        let call = world.due();
        let left = if drain { vec![("b".to_owned(), 1)] } else { vec![("a".to_owned(), 1), ("b".to_owned(), 1)] };
        assert_eq!((&call.kind, shown(&call)), (&CallKind::Batch, left), "drain: {drain}");
        world.reply(call, answer(|_| {}));
        assert_eq!(world.lane.committable(), Some(12));
    }
}

/// What a call under way puts into batches while the lane waits for its switch has one run on the old version, too.
#[test]
fn batches_of_the_last_call_run_on_the_old_version() {
    let mut world = World::new(rules());
    world.fill(10, &["a"]);
    let call = world.due();
    world.switch(new_rules());
    world.reply(call, answer(|writer| to_batcher(writer, false)));
    let call = world.due();
    assert_eq!((&call.kind, shown(&call)), (&CallKind::Batch, vec![("a".to_owned(), 1)]));
    world.reply(call, answer(|_| {}));
    world.goes_over(FRESH);
    assert_eq!(world.lane.committable(), Some(11));
}

/// A lane that backs off, or is blocked, goes over at once; its record begins at attempt 1.
#[test]
fn a_record_that_fails_is_released_by_another_version() {
    for failures in [1, 2] {
        let mut world = World::new(rules());
        world.fill(10, &["a"]);
        for _ in 0..failures {
            world.now += Duration::from_secs(1);
            let call = world.due();
            world.reply(call, trap());
        }
        assert_eq!(matches!(world.lane.state(), LaneState::Blocked(_)), failures == 2, "{:?}", world.lane.state());
        assert!(world.call().is_none());
        world.switch(new_rules());
        world.goes_over(FRESH);
        let call = world.due();
        assert_eq!(shown(&call), [("a".to_owned(), 1)]);
        world.reply(call, answer(|writer| writer.done(0)));
        assert_eq!((world.lane.state(), world.lane.committable()), (LaneState::Running, Some(11)));
    }
}

/// After a restored state held messages stay held, by their tokens; without one they are offered again, which counts no
/// attempt.
#[test]
fn held_messages_go_over_with_the_state() {
    for restored in [true, false] {
        let mut world = World::new(rules());
        world.fill(10, &["a"]);
        let call = world.due();
        let (_, token) = first(&call.frame);
        world.reply(call, answer(AnswerWriter::hold));
        world.switch(new_rules());
        world.goes_over(if restored { RESTORED } else { FRESH });
        assert_eq!(world.lane.held(), usize::from(restored));
        if restored {
            world.fill(11, &["b"]);
            let call = world.due();
            let acks = answer(|writer| {
                writer.done(0);
                writer.ack(token);
            });
            world.reply(call, acks);
            assert_eq!(world.lane.committable(), Some(12));
        } else {
            let call = world.due();
            assert_eq!(shown(&call), [("a".to_owned(), 1)]);
            assert_ne!(first(&call.frame).1, token);
        }
    }
}

/// A switch that is refused changes nothing: the old version goes on, with its attempts and what it holds; unless the attempt
/// cost it its instance, which is as after a fault.
#[test]
fn a_refused_switch_leaves_everything_as_it_was() {
    for lost in [false, true] {
        let mut world = World::new(rules());
        world.fill(10, &["held", "failing"]);
        let call = world.due();
        world.reply(call, answer(AnswerWriter::hold));
        let call = world.due();
        world.reply(call, answer(|writer| writer.retry("later", None)));
        world.switch(new_rules());
        world.goes_over(refused(lost));
        assert_eq!((world.version(), world.lane.held()), ("abc", usize::from(!lost)));
        world.now += Duration::from_secs(1);
        if lost {
            let call = world.due();
            assert_eq!(shown(&call), [("held".to_owned(), 1)]);
            world.reply(call, answer(|writer| writer.done(0)));
        }
        let call = world.due();
        assert_eq!(shown(&call), [("failing".to_owned(), 2)]);
    }
}

/// A partition that is given back ends with the version that it has: a switch that was not begun is not begun any more, one
/// that was comes to its end first, and then there is nothing left to wait for.
#[test]
fn a_lane_on_its_way_out_does_not_go_over() {
    let exports = Exports { partitions: true, ..Exports::default() };
    let greeted = |exports| {
        let mut world = World::new(LaneRules { exports, ..rules() });
        let call = world.due();
        assert!(matches!(call.kind, CallKind::Assigned { .. }));
        world.reply(call, answer(|_| {}));
        world
    };
    let mut world = greeted(exports);
    world.fill(10, &["a"]);
    let call = world.due();
    world.switch(LaneRules { exports, ..new_rules() });
    world.lane.drain(Trigger::Revoke);
    world.reply(call, answer(|writer| writer.done(0)));
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Revoked { .. }), "{:?}", call.kind);
    world.reply(call, answer(|_| {}));
    assert!(world.lane.is_drained());
    world.lane.switch(Arc::new(new_rules()), true);
    assert!(!world.lane.is_switching());

    let mut world = greeted(exports);
    world.switch(LaneRules { exports, ..new_rules() });
    let call = world.due();
    assert_eq!(call.kind, CallKind::Switch);
    world.lane.drain(Trigger::Revoke);
    assert!(!world.lane.is_drained(), "a call is under way");
    world.reply(call, FRESH);
    assert!(world.call().is_none() && world.lane.is_drained(), "the new instance was never told that it came");
}

/// The new instance hears of its partition before anything else, and the old one does not hear that it goes; ticks keep
/// their rhythm.
#[test]
fn a_new_version_is_greeted_and_called_on_time() {
    let tick = Some(Duration::from_secs(5));
    let exports = Exports { partitions: true, ..Exports::default() };
    let mut world = World::new(LaneRules { tick, ..rules() });
    world.fill(10, &["a"]);
    world.each(|_, _, writer| writer.done(0));
    world.now += Duration::from_secs(3);
    world.switch(LaneRules { tick, exports, ..new_rules() });
    world.goes_over(FRESH);
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Assigned { next_offset: Some(11), .. }), "{:?}", call.kind);
    world.reply(call, answer(|_| {}));
    assert_eq!(world.lane.deadline(), Some(world.now + Duration::from_secs(2)));
    world.now += Duration::from_secs(2);
    assert_eq!(world.due().kind, CallKind::Tick);
}

/// A message that failed for good and waits for the old handler's word is the new version's, from the beginning. Where a
/// broker refused what was made of it there is nothing to try again: the new handler is asked, and where it has no say the
/// policy decides.
#[test]
fn what_waits_for_a_verdict_is_not_lost_in_a_switch() {
    let exports = Exports { failures: true, ..Exports::default() };
    let dead = |exports, rules| LaneRules { exports, then: Then::DeadLetter, ..rules };
    let mut world = World::new(dead(exports, rules()));
    world.fill(10, &["a"]);
    let call = world.due();
    world.reply(call, answer(|writer| writer.reject("bad")));
    world.switch(dead(exports, new_rules()));
    world.goes_over(FRESH);
    let call = world.due();
    assert_eq!((&call.kind, shown(&call)), (&CallKind::Messages, vec![("a".to_owned(), 1)]));

    for asks in [true, false] {
        let mut world = World::new(dead(exports, rules()));
        world.fill(10, &["a"]);
        world.each(|_, _, writer| {
            emit(writer, "large");
            writer.done(1);
        });
        world.refuse(Some(0));
        let offsets = world.lane.take_wanted();
        let mut frame = Frame::default();
        let mut burst = MessagesWriter::burst(&mut frame, Source { topic: "in", partition: 1 }, 0, false);
        burst.push(&message(10, "a"), Headers::default());
        burst.finish();
        world.lane.on_sources(&frame, &offsets, &mut world.out);
        let after = if asks { exports } else { Exports::default() };
        world.switch(dead(after, new_rules()));
        world.goes_over(FRESH);
        if asks {
            let call = world.due();
            assert!(matches!(&call.kind, CallKind::Failed { failure, .. } if failure.class == "refused"));
            world.reply(call, verdict(Disposition::Policy, None, &[]));
        }
        assert_eq!(world.out.values(), ["dead a refused message 1"], "asks: {asks}");
        world.deliver_all();
        assert_eq!(world.lane.committable(), Some(11));
    }
}

/// What a canary fails at for good is no dead letter, dropped, or asked about: the lane says where it stands, and the old
/// version has the record at attempt 1. After a promotion it is as ever: the new version tries once more, then the policy
/// decides.
#[test]
fn a_canary_gives_no_record_up() {
    let trial = || LaneRules { trial: true, then: Then::DeadLetter, ..new_rules() };
    let canary = |world: &mut World| {
        world.switch(trial());
        world.goes_over(FRESH);
        world.fill(10, &["a", "b"]);
        let call = world.due();
        assert!(Messages::new(&call.frame).stop_at_reject());
        world.reply(call, answer(|writer| writer.reject("bad")));
        assert_eq!((world.lane.steps_back(), world.out.values().len()), (Some(10), 0));
        assert!(world.call().is_none(), "it waits for the old version");
    };
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    canary(&mut world);
    world.switch(LaneRules { then: Then::DeadLetter, ..rules() });
    world.goes_over(FRESH);
    assert_eq!(world.lane.steps_back(), None);
    let call = world.due();
    assert_eq!(shown(&call), [("a".to_owned(), 1)]);
    world.reply(call, answer(|writer| writer.reject("bad on both")));
    assert_eq!(world.out.values(), ["dead a reject message 1"]);

    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    canary(&mut world);
    world.lane.promote(&Arc::new(LaneRules { trial: false, ..trial() }));
    let call = world.due();
    assert_eq!(shown(&call)[0], ("a".to_owned(), 1));
    world.reply(call, answer(|writer| writer.reject("bad")));
    assert_eq!((world.lane.steps_back(), world.out.values()), (None, vec!["dead a reject message 1"]));
}

/// The same of an item of a batch, and of attempts that are used up.
#[test]
fn a_canary_gives_no_item_up() {
    let mut world = World::new(rules());
    world.switch(LaneRules { trial: true, then: Then::Drop, ..new_rules() });
    world.goes_over(FRESH);
    world.fill(10, &["a"]);
    let call = world.due();
    world.reply(call, answer(|writer| to_batcher(writer, true)));
    for _ in 0..2 {
        assert_eq!(world.lane.steps_back(), None);
        world.now += Duration::from_secs(1);
        let call = world.due();
        assert_eq!(call.kind, CallKind::Batch);
        world.reply(call, answer(|writer| writer.retry("not here", None)));
    }
    assert_eq!((world.lane.steps_back(), world.lane.committable()), (Some(10), Some(10)));
    world.switch(rules());
    world.goes_over(FRESH);
    let call = world.due();
    assert_eq!((&call.kind, shown(&call)), (&CallKind::Batch, vec![("a".to_owned(), 1)]));
    world.reply(call, answer(|_| {}));
    assert_eq!(world.lane.committable(), Some(11));
}

/// What brokers refuse of a canary is no dead letter either, whatever the policy: the record is read again and done by the
/// version before, be the refusal known while the canary runs or after it; what is refused of it then is its own. After a
/// promotion all of it is.
#[test]
fn what_is_refused_of_a_canary_is_done_again() {
    let dead = || LaneRules { then: Then::DeadLetter, ..rules() };
    let trial = || LaneRules { trial: true, then: Then::DeadLetter, ..new_rules() };
    let source = || {
        let mut frame = Frame::default();
        let mut burst = MessagesWriter::burst(&mut frame, Source { topic: "in", partition: 1 }, 0, false);
        burst.push(&message(10, "a"), Headers::default());
        burst.finish();
        frame
    };
    let made = |value: &'static str| {
        answer(move |writer| {
            emit(writer, value);
            writer.done(1);
        })
    };
    let made_by_the_canary = || {
        let mut world = World::new(dead());
        world.switch(trial());
        world.goes_over(FRESH);
        world.fill(10, &["a"]);
        let call = world.due();
        world.reply(call, made("by the canary"));
        world
    };
    for late in [false, true] {
        let mut world = made_by_the_canary();
        if late {
            world.switch(dead());
            world.goes_over(FRESH);
        }
        world.refuse(Some(0));
        assert_eq!((world.lane.steps_back(), world.out.values().len()), ((!late).then_some(10), 0), "late: {late}");
        let offsets = world.lane.take_wanted();
        assert_eq!(offsets, [10]);
        if !late {
            world.switch(dead());
            world.goes_over(FRESH);
        }
        world.lane.on_sources(&source(), &offsets, &mut world.out);
        let call = world.due();
        assert_eq!(shown(&call), [("a".to_owned(), 1)]);
        assert_eq!(world.lane.committable(), Some(10), "nothing is settled by the canary");
        world.reply(call, made("by the old one"));
        world.refuse(Some(0));
        let offsets = world.lane.take_wanted();
        world.lane.on_sources(&source(), &offsets, &mut world.out);
        assert_eq!(world.out.values(), ["dead a refused produce 1"], "late: {late}");
        world.deliver_all();
        assert_eq!(world.lane.committable(), Some(11), "late: {late}");
    }

    let mut world = made_by_the_canary();
    world.lane.promote(&Arc::new(LaneRules { trial: false, ..trial() }));
    world.refuse(Some(0));
    let offsets = world.lane.take_wanted();
    world.lane.on_sources(&source(), &offsets, &mut world.out);
    assert_eq!(world.out.values(), ["dead a refused produce 1"]);
}

/// A call speaks of the messages that it decided and of the one that it failed at, not of those behind that; of a call that
/// failed as a whole nobody knows more than that; a call without messages speaks of none.
#[test]
fn a_call_speaks_of_what_it_attended_to() {
    let mut world = World::new(LaneRules { trial: true, then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a", "b", "c"]);
    let call = world.due();
    world.reply(call, answer(|writer| writer.reject("bad")));
    assert_eq!(world.lane.attended(), 1);
    world.switch(rules());
    world.goes_over(FRESH);
    assert_eq!(world.lane.attended(), 0);
    let call = world.due();
    world.reply(call, trap());
    assert_eq!(world.lane.attended(), 1);
}

/// The last word counts: a lane that waits for its switch goes to the version that was named last, or nowhere.
#[test]
fn the_last_word_counts() {
    let mut world = World::new(rules());
    world.switch(new_rules());
    world.switch(LaneRules { version: "newer".into(), ..rules() });
    let call = world.due();
    world.switch(LaneRules { version: "newest".into(), ..rules() });
    world.reply(call, FRESH);
    assert_eq!(world.version(), "newer");
    world.goes_over(FRESH);
    assert_eq!(world.version(), "newest");
    world.switch(new_rules());
    world.lane.stay();
    assert!(world.call().is_none() && world.lane.wants_messages());
}

/// What was refused before a switch, and is tried again, is no canary's: when it is refused again the lane stays blocked by
/// it, or the policy of the new version decides; and when it is written at last, the lane goes on.
#[test]
fn what_was_refused_before_a_switch_is_no_canarys() {
    for then in [Then::Block, Then::Drop] {
        let mut world = World::new(rules());
        world.fill(10, &["a"]);
        world.each(|_, _, writer| {
            emit(writer, "large");
            writer.done(1);
        });
        world.refuse(Some(0));
        world.now = world.lane.deadline().expect("it is tried again");
        assert!(world.call().is_none());
        world.switch(LaneRules { trial: true, then, ..new_rules() });
        world.goes_over(FRESH);
        world.refuse(Some(0));
        assert_eq!((world.lane.steps_back(), world.lane.wants_sources()), (None, false), "{then:?}");
        if then == Then::Block {
            assert!(matches!(world.lane.state(), LaneState::Blocked(_)));
            world.now = world.lane.deadline().expect("it is tried again");
            assert!(world.call().is_none());
            world.deliver_all();
        }
        assert_eq!((world.lane.state(), world.lane.committable()), (LaneState::Running, Some(11)), "{then:?}");
        assert!(world.lane.wants_messages(), "{then:?}");
    }
}

/// Messages that are committed already (mode "receive") are done on the way out, though the partition is given back in the
/// middle of a switch, after which the new instance is to be told of its partition first.
#[test]
fn a_switch_on_the_way_out_leaves_nothing_that_is_committed() {
    let exports = Exports { partitions: true, ..Exports::default() };
    let receive = LaneRules { receive: true, then: Then::Drop, exports, ..rules() };
    let mut world = World::new(receive.clone());
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Assigned { .. }));
    world.reply(call, answer(|_| {}));
    world.fill(10, &["a"]);
    world.lane.on_commit_sent();
    world.lane.on_committed(11);
    world.switch(LaneRules { version: "new".into(), ..receive });
    let call = world.due();
    world.lane.drain(Trigger::Revoke);
    world.reply(call, RESTORED);
    assert!(!world.lane.is_drained(), "a message is to be done");
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Assigned { .. }));
    world.reply(call, answer(|_| {}));
    let call = world.due();
    assert_eq!(shown(&call), [("a".to_owned(), 1)]);
    world.reply(call, answer(|writer| writer.done(0)));
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Revoked { .. }));
    world.reply(call, answer(|_| {}));
    assert!(world.lane.is_drained());
}
