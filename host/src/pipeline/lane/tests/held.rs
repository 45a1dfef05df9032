//! Held messages, ticks, verdicts, refused emissions and the other policies, step by step: each test plays the handler and
//! the broker by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::{
    AnswerWriter, Content, DestinationKind, Frame, Headers, Messages, MessagesWriter, NewEmission, NewMessage, Source,
    TimestampType,
};

use super::super::{
    Call, CallKind, EmissionRules, Exports, HoldRules, Lane, LaneRules, LaneState, RefusedEmission, Reply,
};
use crate::delivery::batcher::{BatchRules, Trigger};
use crate::delivery::offset_tracker::PositionReset;
use crate::delivery::outgoing::{Outgoing, Owned};
use crate::delivery::policy::Then;
use crate::delivery::retry::RetryRules;
use crate::delivery::stall::Cause;
use crate::delivery::ticket::{Target, Ticket};
use crate::delivery::verdict::{Disposition, RevokeReason, Verdict};
use crate::pipeline::sink::{DeadLetter, Failure, Notice, OutputNumber, Sink};

#[derive(Default)]
pub(super) struct Outbox {
    sent: Vec<(Ticket, String)>,
    pub(super) headers: Vec<String>,
    pub(super) notices: Vec<String>,
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

impl Sink for Outbox {
    fn partitions(&self, _output: OutputNumber) -> u32 {
        1
    }

    fn emit(&mut self, _output: OutputNumber, _partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        self.sent.push((ticket, text(record.value)));
        let headers = record.headers.iter().flat_map(Headers::iter);
        self.headers.extend(headers.map(|(name, value)| format!("{}={}", text(Some(name)), text(value))));
    }

    fn dead_letter(&mut self, letter: &DeadLetter<'_>, ticket: Ticket) {
        let (failure, stage) = (letter.failure.class, letter.stage);
        self.sent.push((ticket, format!("dead {} {failure} {stage} {}", text(letter.record.value), letter.attempts)));
    }

    fn dead_letter_again(&mut self, _partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        self.sent.push((ticket, format!("dead again {}", text(record.value))));
    }

    fn notice(&mut self, notice: Notice<'_>) {
        self.notices.push(format!("{notice:?}").split([' ', '{']).next().unwrap_or_default().to_owned());
    }
}

impl Outbox {
    pub(super) fn values(&self) -> Vec<&str> {
        self.sent.iter().map(|(_, value)| value.as_str()).collect()
    }
}

pub(super) struct World {
    pub(super) lane: Lane,
    pub(super) out: Outbox,
    pub(super) now: Instant,
}

pub(super) fn rules() -> LaneRules {
    LaneRules {
        outputs: vec!["out".to_owned()],
        provenance: vec![false],
        version: "abc".into(),
        batchers: vec![(
            "b".into(),
            BatchRules { max_messages: 10, max_bytes: 1000, max_wait: Duration::from_secs(1) },
        )],
        straight_to: None,
        max_burst: 512,
        retry: RetryRules { attempts: 2, jitter: false, ..RetryRules::default() },
        then: Then::Block,
        max_ahead: 100,
        emissions: EmissionRules::default(),
        hold: HoldRules { max: 3, timeout: Duration::from_secs(60) },
        tick: None,
        exports: Exports::default(),
        trial: false,
        receive: false,
    }
}

pub(super) fn message<'a>(offset: i64, value: &'a str) -> NewMessage<'a> {
    NewMessage {
        offset,
        timestamp: 5,
        timestamp_type: TimestampType::CreateTime,
        key: None,
        value: Some(value.as_bytes()),
        attempt: 1,
        source: 0,
    }
}

/// A handler's answer, put together.
pub(super) fn answer(write: impl FnOnce(&mut AnswerWriter)) -> Reply {
    let mut writer = AnswerWriter::new();
    write(&mut writer);
    Reply::Answer(writer.finish())
}

pub(super) fn emit(writer: &mut AnswerWriter, value: &str) {
    let value = Content::Bytes(value.as_bytes());
    writer.emission(&NewEmission { key: Content::Null, value, ..NewEmission::default() });
}

impl World {
    pub(super) fn new(rules: LaneRules) -> Self {
        let now = Instant::now();
        let lane = Lane::new(0, Arc::from("in"), 1, 7, Arc::new(rules), Some(10), now);
        Self { lane, out: Outbox::default(), now }
    }

    pub(super) fn fill(&mut self, first: i64, values: &[&str]) {
        assert!(self.lane.wants_messages(), "{:?}", self.lane.state());
        self.lane
            .fill(self.now, &mut self.out, |burst, offer| {
                for (i, value) in values.iter().enumerate() {
                    offer(first + i as i64)?;
                    burst.push(&message(first + i as i64, value), Headers::default());
                }
                Ok(())
            })
            .expect("offsets grow");
    }

    /// One message that has headers.
    pub(super) fn fill_with(&mut self, offset: i64, headers: &[u8]) {
        let fetch = |burst: &mut MessagesWriter<'_>, offer: &mut dyn FnMut(i64) -> Result<(), PositionReset>| {
            offer(offset)?;
            burst.push(&message(offset, ""), Headers::new(headers));
            Ok(())
        };
        self.lane.fill(self.now, &mut self.out, fetch).expect("offsets grow");
    }

    pub(super) fn call(&mut self) -> Option<Call> {
        self.lane.next_call(self.now, &mut self.out)
    }

    pub(super) fn due(&mut self) -> Call {
        self.call().unwrap_or_else(|| panic!("a call is due: {:?}", self.lane.state()))
    }

    pub(super) fn reply(&mut self, call: Call, reply: Reply) {
        self.lane.on_reply(call.frame, reply, Duration::from_micros(1), self.now, &mut self.out);
    }

    /// Offers what is due until nothing is, one message at a time, each answered by `write`.
    pub(super) fn each(&mut self, mut write: impl FnMut(&str, u64, &mut AnswerWriter)) {
        while let Some(call) = self.call() {
            let (value, token) = first(&call.frame);
            let reply = answer(|writer| write(&value, token, writer));
            self.reply(call, reply);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        for (ticket, _) in std::mem::take(&mut self.out.sent) {
            self.lane.on_delivered(ticket.target);
        }
    }

    pub(super) fn refuse(&mut self, output: Option<usize>) {
        let (ticket, value) = self.out.sent.remove(0);
        let record = Owned { value: Some(value.into_bytes()), ..Owned::default() };
        let refused = RefusedEmission { output, partition: 0, record, reason: "too large".to_owned() };
        self.lane.on_refused(ticket.target, refused, self.now, &mut self.out);
    }
}

pub(super) fn first(frame: &Frame) -> (String, u64) {
    let message = Messages::new(frame).get(0);
    (text(message.value()), message.token())
}

/// A held message stays open while later ones settle, and settles only when everything is durable that the answer which
/// acks it sent.
#[test]
fn an_ack_waits_for_the_emissions_of_its_answer() {
    let mut world = World::new(rules());
    world.fill(10, &["a"]);
    let call = world.due();
    let (_, held) = first(&call.frame);
    world.reply(call, answer(AnswerWriter::hold));
    assert_eq!((world.lane.held(), world.lane.committable()), (1, Some(10)));
    world.fill(11, &["b"]);
    let call = world.due();
    world.reply(
        call,
        answer(|writer| {
            emit(writer, "b!");
            writer.done(1);
            writer.ack(held);
        }),
    );
    assert_eq!((world.lane.held(), world.lane.committable()), (0, Some(10)), "b! is not durable yet");
    world.deliver_all();
    assert_eq!(world.lane.committable(), Some(12));
}

/// An answer that runs on past a retry is cut there; what it acks stays held. A prefix that ends there is not cut.
#[test]
fn acks_of_a_cut_answer_are_void() {
    let mut world = World::new(rules());
    world.fill(10, &["a"]);
    let call = world.due();
    let (_, held) = first(&call.frame);
    world.reply(call, answer(AnswerWriter::hold));
    world.fill(11, &["b", "c"]);
    let call = world.due();
    assert_eq!(Messages::new(&call.frame).len(), 2);
    world.reply(
        call,
        answer(|writer| {
            writer.retry("later", None);
            writer.done(0);
            writer.ack(held);
        }),
    );
    assert_eq!(world.lane.held(), 1, "cut behind the retry");
    world.now += Duration::from_secs(1);
    let call = world.due();
    world.reply(
        call,
        answer(|writer| {
            writer.retry("later", None);
            writer.ack(held);
        }),
    );
    assert_eq!(world.lane.held(), 0, "a prefix is whole");
}

/// A fault forgets what was held; it is offered again, oldest first, without an attempt counted; late acks change nothing.
#[test]
fn held_messages_are_offered_again_after_a_fault() {
    let mut world = World::new(rules());
    world.fill(10, &["a", "b"]);
    world.each(|_, _, writer| writer.hold());
    world.fill(12, &["c"]);
    let call = world.due();
    world.reply(call, Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() }));
    assert_eq!(world.lane.held(), 0);
    let mut seen = Vec::new();
    world.now += Duration::from_secs(1);
    while let Some(call) = world.call() {
        let message = Messages::new(&call.frame).get(0);
        seen.push((text(message.value()), message.attempt()));
        world.reply(
            call,
            answer(|writer| {
                writer.done(0);
                writer.ack(1);
            }),
        );
    }
    assert_eq!(seen, [("a".to_owned(), 1), ("b".to_owned(), 1), ("c".to_owned(), 2)]);
    assert_eq!(world.lane.committable(), Some(13));
    assert_eq!(world.out.notices.iter().filter(|notice| *notice == "LateAcks").count(), 3);
}

/// Holding is bounded: in number by taking nothing new, in time by a failed attempt and then the policy.
#[test]
fn holding_is_bounded_in_number_and_time() {
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a", "b", "c"]);
    world.each(|_, _, writer| writer.hold());
    assert_eq!(world.lane.held(), 3);
    assert!(!world.lane.wants_messages(), "the lane holds as many as it may");
    for _ in 0..2 {
        assert_eq!(world.lane.deadline(), Some(world.now + Duration::from_secs(60)));
        world.now += Duration::from_secs(60);
        assert!(world.call().is_none(), "back-off");
        world.now += Duration::from_secs(1);
        world.each(|_, _, writer| writer.hold());
    }
    let letters = ["dead a hold_expired message 2", "dead b hold_expired message 2", "dead c hold_expired message 2"];
    assert_eq!(world.out.values(), letters);
    world.deliver_all();
    assert_eq!(world.lane.committable(), Some(13));
}

/// A failed token counts an attempt; items of batches can be held as well as messages.
#[test]
fn items_of_batches_can_be_held_and_failed() {
    let mut world = World::new(rules());
    world.fill(10, &["a"]);
    let call = world.due();
    world.reply(
        call,
        answer(|writer| {
            let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
            writer.emission(&NewEmission { destination, flush: true, ..NewEmission::default() });
            writer.done(1);
        }),
    );
    let call = world.due();
    assert_eq!(call.kind, CallKind::Batch);
    let (_, held) = first(&call.frame);
    world.reply(call, answer(AnswerWriter::hold));
    world.fill(11, &["b"]);
    let call = world.due();
    world.reply(
        call,
        answer(|writer| {
            writer.done(0);
            writer.fail(held, "not this time");
        }),
    );
    assert_eq!(world.lane.committable(), Some(10));
    world.now += Duration::from_secs(1);
    let call = world.due();
    assert_eq!((call.kind.clone(), Messages::new(&call.frame).get(0).attempt()), (CallKind::Batch, 2));
    world.reply(call, answer(|_| {}));
    assert_eq!(world.lane.committable(), Some(12));
}

/// A tick wakes a quiet lane, and what it acks settles with what it sends; sent to a batcher, with that batch.
#[test]
fn a_tick_acks_with_what_it_sends() {
    let mut world = World::new(LaneRules { tick: Some(Duration::from_secs(5)), ..rules() });
    world.fill(10, &["a"]);
    let call = world.due();
    let (_, held) = first(&call.frame);
    world.reply(call, answer(AnswerWriter::hold));
    assert_eq!(world.lane.deadline(), Some(world.now + Duration::from_secs(5)));
    world.now += Duration::from_secs(5);
    let call = world.due();
    assert_eq!(call.kind, CallKind::Tick);
    world.reply(
        call,
        answer(|writer| {
            emit(writer, "sum");
            let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
            let value = Content::Bytes(b"item");
            writer.emission(&NewEmission {
                destination,
                key: Content::Null,
                value,
                flush: true,
                ..NewEmission::default()
            });
            writer.ack(held);
        }),
    );
    world.deliver_all();
    assert_eq!(world.lane.committable(), Some(10), "the batch has not run");
    let call = world.due();
    assert_eq!((call.kind.clone(), first(&call.frame).0), (CallKind::Batch, "item".to_owned()));
    world.reply(call, answer(|_| {}));
    assert_eq!(world.lane.committable(), Some(11));
}

/// A tick that faults is tried again with back-off, then it blocks the lane, until it works.
#[test]
fn a_tick_that_keeps_failing_blocks_the_lane() {
    let mut world = World::new(LaneRules { tick: Some(Duration::from_secs(5)), ..rules() });
    for _ in 0..2 {
        assert!(world.lane.wants_messages());
        world.now += Duration::from_secs(6);
        let call = world.due();
        assert_eq!(call.kind, CallKind::Tick);
        world.reply(call, Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() }));
    }
    let LaneState::Blocked(reason) = world.lane.state() else { panic!("{:?}", world.lane.state()) };
    assert!(reason.starts_with("tick: trap: gone"), "{reason}");
    assert!(!world.lane.wants_messages());
    world.now += Duration::from_secs(30);
    let call = world.due();
    world.reply(call, answer(|_| {}));
    assert_eq!(world.lane.state(), LaneState::Running);
}

/// The instance hears of its partition before anything else, again when it is a new one, and once at the end.
#[test]
fn an_instance_is_greeted_and_sent_off() {
    let exports = Exports { partitions: true, ..Exports::default() };
    let mut world = World::new(LaneRules { exports, ..rules() });
    let greet = |world: &mut World| {
        let call = world.due();
        assert!(matches!(call.kind, CallKind::Assigned { next_offset: Some(10), .. }), "{:?}", call.kind);
        world.reply(call, answer(|_| {}));
    };
    greet(&mut world);
    world.fill(10, &["a"]);
    let call = world.due();
    world.reply(call, Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() }));
    greet(&mut world);
    world.now += Duration::from_secs(1);
    let call = world.due();
    let (_, held) = first(&call.frame);
    world.reply(call, answer(AnswerWriter::hold));
    world.lane.drain(Trigger::Revoke);
    assert!(!world.lane.is_drained(), "it was not told yet");
    let call = world.due();
    assert!(matches!(call.kind, CallKind::Revoked { reason: RevokeReason::Revoked, .. }), "{:?}", call.kind);
    world.reply(call, answer(|writer| writer.ack(held)));
    assert!(world.lane.is_drained() && world.call().is_none());
    assert_eq!(world.lane.committable(), Some(11), "acked in time");
}

pub(super) fn verdict(disposition: Disposition, letter: Option<&str>, emissions: &[&str]) -> Reply {
    let mut writer = AnswerWriter::new();
    for value in letter.iter().chain(emissions) {
        emit(&mut writer, value);
    }
    writer.done((letter.iter().len() + emissions.len()) as u32);
    Reply::Verdict(Verdict { disposition, letter: letter.is_some(), emissions: writer.finish() })
}

/// The handler may decide about a rejected message, and change its dead letter; the burst stops there, and its own fault
/// leaves the word to the policy.
#[test]
fn the_handler_may_decide_about_its_failures() {
    let exports = Exports { failures: true, ..Exports::default() };
    for (said, expected, committable) in [
        (verdict(Disposition::Policy, None, &[]), vec!["dead a reject message 1"], 11),
        (verdict(Disposition::DeadLetter, Some("A"), &["alert"]), vec!["alert", "dead A reject message 1"], 11),
        (verdict(Disposition::Drop, None, &["alert"]), vec!["alert"], 11),
        (verdict(Disposition::Block, None, &[]), vec![], 10),
        (Reply::Fault(Failure { class: "trap", reason: "gone".to_owned() }), vec!["dead a reject message 1"], 11),
    ] {
        let mut world = World::new(LaneRules { exports, then: Then::DeadLetter, ..rules() });
        world.fill(10, &["a"]);
        let call = world.due();
        assert!(Messages::new(&call.frame).stop_at_reject());
        world.reply(call, answer(|writer| writer.reject("bad")));
        let call = world.due();
        assert!(matches!(&call.kind, CallKind::Failed { failure, .. } if failure.class == "reject"), "{:?}", call.kind);
        world.reply(call, said);
        assert_eq!(world.out.values(), expected);
        assert_eq!(world.lane.committable(), Some(10), "nothing is durable");
        world.deliver_all();
        assert_eq!(world.lane.committable(), Some(committable), "{expected:?}");
    }
}

/// Policy `drop` settles the record; `stop` leaves it open and asks for the pipeline's end.
#[test]
fn drop_goes_on_and_stop_does_not() {
    let mut world = World::new(LaneRules { then: Then::Drop, ..rules() });
    world.fill(10, &["a", "b"]);
    world.each(|_, _, writer| writer.reject("bad"));
    assert_eq!(
        (world.lane.committable(), world.out.notices.as_slice()),
        (Some(12), &["Dropped"; 2].map(str::to_owned)[..])
    );
    let mut world = World::new(LaneRules { then: Then::Stop, ..rules() });
    world.fill(10, &["a", "b"]);
    world.each(|_, _, writer| writer.reject("bad"));
    assert_eq!(
        (world.lane.committable(), world.lane.stopped()),
        (Some(10), Some("reject: bad (offset 10, attempt 1)"))
    );
}

/// A refused emission becomes a dead letter of the source record, which is read again; the lane goes on meanwhile. One that
/// is gone from its topic is said to be.
#[test]
fn a_refused_emission_becomes_a_dead_letter_of_its_source() {
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a", "b"]);
    world.each(|value, _, writer| {
        emit(writer, &value.repeat(3));
        writer.done(1);
    });
    world.refuse(Some(0));
    world.refuse(Some(0));
    assert!(world.lane.wants_messages() && world.lane.wants_sources());
    let offsets = world.lane.take_wanted();
    assert_eq!(offsets, [10, 11]);
    let mut frame = Frame::default();
    let mut burst = MessagesWriter::burst(&mut frame, Source { topic: "in", partition: 1 }, 0, false);
    burst.push(&message(11, "b"), Headers::default());
    burst.finish();
    world.lane.on_sources(&frame, &offsets, &mut world.out);
    assert_eq!(world.out.values(), ["dead b refused produce 1"]);
    assert!(world.out.notices.contains(&"SourceGone".to_owned()));
    assert_eq!(world.lane.committable(), Some(11));
    world.deliver_all();
    assert_eq!(world.lane.committable(), Some(12));
}

/// With `block`, and for a dead letter itself, only the writing is tried again; nothing new passes it.
#[test]
fn a_refused_emission_can_block_the_lane() {
    let mut world = World::new(rules());
    world.fill(10, &["a"]);
    world.each(|_, _, writer| {
        emit(writer, "large");
        writer.done(1);
    });
    for _ in 0..2 {
        world.refuse(Some(0));
        assert!(matches!(world.lane.state(), LaneState::Blocked(_)) && !world.lane.wants_messages());
        world.now = world.lane.deadline().expect("it is tried again");
        assert!(world.call().is_none());
        assert_eq!(world.out.values(), ["large"]);
    }
    world.deliver_all();
    assert_eq!((world.lane.state(), world.lane.committable()), (LaneState::Running, Some(11)));
}

/// What the emissions of a whole batch cannot become, none of its records has become.
#[test]
fn a_refused_emission_of_a_whole_batch_fails_each_of_its_records() {
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a", "b"]);
    let flush = |writer: &mut AnswerWriter, flush| {
        let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
        writer.emission(&NewEmission { destination, flush, ..NewEmission::default() });
        writer.done(1);
    };
    while let Some(call) = world.call() {
        let reply = match call.kind {
            CallKind::Messages => answer(|writer| flush(writer, first(&call.frame).0 == "b")),
            _ => answer(|writer| emit(writer, "sum")),
        };
        world.reply(call, reply);
    }
    assert_eq!(world.out.values(), ["sum"]);
    world.refuse(Some(0));
    assert_eq!(world.lane.take_wanted(), [10, 11]);
    world.lane.on_sources(&Frame::default(), &[10, 11], &mut world.out);
    assert_eq!(world.lane.committable(), Some(12));
}

/// A dead letter counts when it is durable: not when it leaves, and not while its writing has to be tried again.
#[test]
fn a_dead_letter_counts_when_it_is_durable() {
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    world.fill(10, &["a", "b"]);
    world.each(|_, _, writer| writer.reject("bad"));
    assert_eq!(world.out.values(), ["dead a reject message 1", "dead b reject message 1"]);
    assert_eq!(world.lane.dead_lettered(), 0);
    world.refuse(None);
    world.deliver_all();
    assert_eq!((world.lane.dead_lettered(), world.lane.committable()), (1, Some(10)));
    world.now = world.lane.deadline().expect("it is tried again");
    assert!(world.call().is_none());
    assert_eq!((world.out.values(), world.lane.dead_lettered()), (vec!["dead again dead a reject message 1"], 1));
    world.deliver_all();
    assert_eq!((world.lane.dead_lettered(), world.lane.committable()), (2, Some(12)));
}

/// A record that is dropped counts once, however many of its batch items fail.
#[test]
fn a_dropped_record_counts_once() {
    let mut world = World::new(LaneRules { then: Then::Drop, ..rules() });
    world.fill(10, &["a"]);
    while let Some(call) = world.call() {
        let reply = answer(|writer| match call.kind {
            CallKind::Messages => {
                let destination = Some(writer.destination(DestinationKind::Batcher, "b"));
                for flush in [false, true] {
                    writer.emission(&NewEmission { destination, flush, ..NewEmission::default() });
                }
                writer.done(2);
            }
            _ => {
                for _ in Messages::new(&call.frame).iter() {
                    writer.reject("bad");
                }
            }
        });
        world.reply(call, reply);
    }
    assert_eq!(world.out.notices.iter().filter(|notice| *notice == "Dropped").count(), 1);
    assert_eq!(world.lane.committable(), Some(11));
}

/// A lane names what keeps it: whatever holds the oldest record, not what happens behind that.
#[test]
fn a_lane_names_what_keeps_it() {
    let mut world = World::new(LaneRules { then: Then::DeadLetter, ..rules() });
    let cause = |world: &World| world.lane.kept_by().map(|(cause, _)| cause);
    assert_eq!(cause(&world), None);
    world.fill(10, &["a", "b"]);
    let call = world.due();
    assert_eq!(cause(&world), Some(Cause::Handler));
    world.reply(call, answer(AnswerWriter::hold));
    let call = world.due();
    world.reply(
        call,
        answer(|writer| {
            emit(writer, "b!");
            writer.done(1);
        }),
    );
    assert_eq!((cause(&world), world.lane.undelivered()), (Some(Cause::Held), 1));
    world.now += Duration::from_secs(60);
    assert!(world.call().is_none(), "its hold expired, which was an attempt");
    assert_eq!(cause(&world), Some(Cause::Retry));
    world.now += Duration::from_secs(60);
    let call = world.due();
    world.reply(call, answer(|writer| writer.reject("bad")));
    world.refuse(None);
    assert_eq!(cause(&world), Some(Cause::Blocked));
}

/// Mode "receive": nothing is shown to the handler before the commit of it was answered, and failures do not bring it back.
#[test]
fn receive_commits_before_it_offers() {
    let mut world = World::new(LaneRules { receive: true, then: Then::Drop, ..rules() });
    world.fill(10, &["a", "b"]);
    assert_eq!((world.lane.committable(), world.lane.awaits_commit()), (Some(12), true));
    assert!(world.call().is_none(), "the commit was not answered");
    world.lane.on_committed(12);
    world.each(|_, _, writer| writer.done(0));
    assert_eq!((world.lane.open(), world.lane.committable()), (0, Some(12)));
    world.fill(12, &["c"]);
    world.lane.drain(Trigger::Revoke);
    assert!(world.call().is_none() && world.lane.is_drained());
    assert_eq!(world.lane.committable(), Some(12), "c is the next owner's");
}

/// Outputs with provenance carry where a record comes from, and an earlier provenance is replaced.
#[test]
fn provenance_names_the_source() {
    let mut world = World::new(LaneRules { provenance: vec![true], ..rules() });
    world.fill(10, &["a"]);
    world.each(|_, _, writer| {
        writer.emission(&NewEmission::default());
        writer.emission(&NewEmission::default());
        writer.done(2);
    });
    let expected = |index| {
        let source = ["sluicebox-source=in/1/10", "sluicebox-epoch=7", "sluicebox-attempt=1", "sluicebox-version=abc"];
        source.map(str::to_owned).into_iter().chain([format!("sluicebox-index={index}")])
    };
    assert_eq!(world.out.headers, expected(0).chain(expected(1)).collect::<Vec<_>>());
    assert_eq!(world.out.sent[0].0.target, Target::Record(0));
}
