//! A lane against a model: a source that holds its records, a handler that misbehaves by plan, a broker that reports when
//! it likes. Time is a number.

mod blocked;
mod giving_back;
mod held;
mod limits;
mod restart;
mod switching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluicebox_frames::{
    AnswerWriter, Content, DestinationKind, Frame, Headers, Messages, NewEmission, NewMessage, TimestampType,
};

use super::{CallKind, EmissionRules, Exports, HoldRules, Lane, LaneRules, LaneState, Reply};
use crate::delivery::batcher::{BatchRules, Trigger};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::policy::Then;
use crate::delivery::retry::RetryRules;
use crate::delivery::ticket::Ticket;
use crate::pipeline::sink::{DeadLetter, Failure, Notice, OutputNumber, Sink};

/// What the handler does with a record. `u32`s are how many attempts it fails first.
#[derive(Clone, Debug)]
enum Plan {
    Emit(u32),
    Retry(u32),
    Trap(u32),
    Reject,
    /// To the batcher, under one of two keys; there, after the failures, it is emitted.
    Batch {
        key: u8,
        retries: u32,
        traps: u32,
        reject: bool,
    },
    /// The handler answers for one message only.
    EmitAndStop,
}

fn plan() -> impl Strategy<Value = Plan> {
    prop_oneof![
        8 => (0u32..4).prop_map(Plan::Emit),
        2 => (1u32..7).prop_map(Plan::Retry),
        1 => (1u32..7).prop_map(Plan::Trap),
        1 => Just(Plan::Reject),
        5 => (0u8..2, 0u32..4, 0u32..3, prop::bool::weighted(0.1))
            .prop_map(|(key, retries, traps, reject)| Plan::Batch { key, retries, traps, reject }),
        1 => Just(Plan::EmitAndStop),
    ]
}

/// Collects what leaves the lane, until the test reports on it.
#[derive(Default)]
struct Outbox {
    open: Vec<Ticket>,
    emitted: Vec<i64>,
    totals: Vec<u64>,
    dead: Vec<i64>,
    blocked: usize,
}

fn number(bytes: Option<&[u8]>) -> i64 {
    i64::from_le_bytes(bytes.expect("a value").try_into().expect("eight bytes"))
}

impl Sink for Outbox {
    fn partitions(&self, _output: OutputNumber) -> u32 {
        3
    }

    fn emit(&mut self, output: OutputNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        assert!(partition < 3);
        match output {
            0 => self.emitted.push(number(record.value)),
            _ => self.totals.push(number(record.value) as u64),
        }
        self.open.push(ticket);
    }

    fn dead_letter(&mut self, letter: &DeadLetter<'_>, ticket: Ticket) {
        let offset = letter.offset.expect("of a record");
        assert_eq!(number(letter.record.value), offset, "the source record, unchanged");
        self.dead.push(offset);
        self.open.push(ticket);
    }

    fn dead_letter_again(&mut self, _partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        self.dead.push(number(record.value));
        self.open.push(ticket);
    }

    fn notice(&mut self, notice: Notice<'_>) {
        if let Notice::Blocked { .. } = notice {
            self.blocked += 1;
        }
    }
}

struct World {
    plans: Vec<Plan>,
    next: usize,
    lane: Lane,
    out: Outbox,
    now: Instant,
    /// Attempts seen by stage, per record: what the handler was told has to grow by one.
    attempts: BTreeMap<(i64, bool), u32>,
}

const OFFSETS_FROM: i64 = 100;

fn rules(dead_letter: bool, max_ahead: usize) -> LaneRules {
    LaneRules {
        outputs: vec!["out".to_owned(), "totals".to_owned()],
        provenance: vec![false, false],
        version: "v".into(),
        batchers: vec![("b".into(), BatchRules { max_messages: 4, max_bytes: 1000, max_wait: Duration::from_secs(1) })],
        straight_to: None,
        max_burst: 512,
        retry: RetryRules { attempts: 5, jitter: true, ..RetryRules::default() },
        then: if dead_letter { Then::DeadLetter } else { Then::Block },
        max_ahead,
        emissions: EmissionRules::default(),
        hold: HoldRules::default(),
        tick: None,
        exports: Exports::default(),
        trial: false,
        receive: false,
    }
}

impl World {
    fn new(plans: Vec<Plan>, dead_letter: bool, max_ahead: usize) -> Self {
        let lane = Lane::new(0, Arc::from("in"), 1, 7, Arc::new(rules(dead_letter, max_ahead)), None, Instant::now());
        Self { plans, next: 0, lane, out: Outbox::default(), now: Instant::now(), attempts: BTreeMap::new() }
    }

    fn fill(&mut self, limit: usize) {
        if !self.lane.wants_messages() {
            return;
        }
        let (plans, next) = (&self.plans, &mut self.next);
        let limit = limit.min(self.lane.burst_limit().max(1));
        self.lane
            .fill(self.now, &mut self.out, |burst, offer| {
                while *next < plans.len() && (burst.count() as usize) < limit {
                    let offset = OFFSETS_FROM + *next as i64;
                    offer(offset)?;
                    let value = offset.to_le_bytes();
                    let message = NewMessage {
                        offset,
                        timestamp: 5,
                        timestamp_type: TimestampType::CreateTime,
                        key: Some(b"k"),
                        value: Some(&value),
                        attempt: 1,
                        source: 0,
                    };
                    burst.push(&message, Headers::default());
                    *next += 1;
                }
                Ok(())
            })
            .expect("offsets grow");
    }

    fn plan_of(&self, offset: i64) -> &Plan {
        &self.plans[(offset - OFFSETS_FROM) as usize]
    }

    /// Calls the handler, if there is a call to make; false when there was none.
    fn step(&mut self) -> bool {
        let Some(call) = self.lane.next_call(self.now, &mut self.out) else { return false };
        let reply = match call.kind {
            CallKind::Messages => self.handle_messages(&call.frame),
            CallKind::Batch => self.handle_batch(&call.frame),
            other => panic!("a call that the handler has no export for: {other:?}"),
        };
        self.lane.on_reply(call.frame, reply, Duration::from_micros(1), self.now, &mut self.out);
        true
    }

    fn trap() -> Reply {
        Reply::Fault(Failure { class: "trap", reason: "planned".to_owned() })
    }

    fn seen(&mut self, offset: i64, batch: bool, attempt: u32) {
        let last = self.attempts.insert((offset, batch), attempt).unwrap_or(0);
        assert!(attempt == last || attempt == last + 1, "attempt {attempt} after {last} of {offset}");
    }

    fn handle_messages(&mut self, frame: &Frame) -> Reply {
        let messages = Messages::check(&frame.index, &frame.payload).expect("the host's own frame");
        let mut answer = AnswerWriter::new();
        for message in messages.iter() {
            self.seen(message.offset(), false, message.attempt());
            let plan = self.plan_of(message.offset()).clone();
            let forward = |answer: &mut AnswerWriter, copies: u32| {
                let destination = Some(answer.destination(DestinationKind::Output, "out"));
                for _ in 0..copies {
                    answer.emission(&NewEmission { destination, ..NewEmission::default() });
                }
                answer.done(copies);
            };
            match plan {
                Plan::Emit(copies) => forward(&mut answer, copies),
                Plan::EmitAndStop => {
                    forward(&mut answer, 1);
                    return Reply::Answer(answer.finish());
                }
                Plan::Retry(failures) if message.attempt() <= failures => {
                    answer.retry("planned", None);
                    // Runs on, as a careless guest would: the host has to cut here.
                    if message.number() + 1 < messages.len() {
                        forward(&mut answer, 1);
                    }
                    return Reply::Answer(answer.finish());
                }
                Plan::Trap(failures) if message.attempt() <= failures => return Self::trap(),
                Plan::Retry(_) | Plan::Trap(_) => forward(&mut answer, 1),
                Plan::Reject => answer.reject("planned"),
                Plan::Batch { key, .. } => {
                    let destination = Some(answer.destination(DestinationKind::Batcher, "b"));
                    answer.emission(&NewEmission { destination, batch_key: &[key], ..NewEmission::default() });
                    answer.done(1);
                }
            }
        }
        Reply::Answer(answer.finish())
    }

    fn handle_batch(&mut self, frame: &Frame) -> Reply {
        let messages = Messages::check(&frame.index, &frame.payload).expect("the host's own frame");
        let mut answer = AnswerWriter::new();
        let mut done = 0i64;
        for message in messages.iter() {
            self.seen(message.offset(), true, message.attempt());
            let Plan::Batch { key, retries, traps, reject } = *self.plan_of(message.offset()) else {
                panic!("a message in a batch that never asked for it")
            };
            assert_eq!(messages.batch_info().expect("a batch").batch_key, [key]);
            if message.attempt() <= traps {
                return Self::trap();
            }
            if message.attempt() <= traps + retries {
                answer.retry("planned", None);
            } else if reject {
                answer.reject("planned");
            } else {
                let destination = Some(answer.destination(DestinationKind::Output, "out"));
                answer.emission(&NewEmission { destination, ..NewEmission::default() });
                answer.done(1);
                done += 1;
            }
        }
        let destination = Some(answer.destination(DestinationKind::Output, "totals"));
        answer.emission(&NewEmission {
            destination,
            key: Content::Null,
            value: Content::Bytes(&done.to_le_bytes()),
            ..NewEmission::default()
        });
        Reply::Answer(answer.finish())
    }

    /// The broker reports on one of the open effects.
    fn report(&mut self, which: usize) {
        if !self.out.open.is_empty() {
            let ticket = self.out.open.swap_remove(which % self.out.open.len());
            self.lane.on_delivered(ticket.target);
        }
    }

    /// No record at or above the committable offset's predecessor may be undecided or undelivered. The model knows which
    /// are: those whose effects are open, or that the handler has not finished.
    fn check_commit(&self) {
        if let Some(committable) = self.lane.committable() {
            assert!(committable <= OFFSETS_FROM + self.next as i64);
            for offset in OFFSETS_FROM..committable {
                let (copies, dead) = (self.copies(offset), self.dead(offset));
                let due = match self.plan_of(offset) {
                    Plan::Emit(copies) => *copies as usize,
                    _ => 1,
                };
                assert!(dead || copies == due, "{offset} is committed with {copies} of {due} effects");
            }
        }
    }

    fn copies(&self, offset: i64) -> usize {
        self.out.emitted.iter().filter(|emitted| **emitted == offset).count()
    }

    fn dead(&self, offset: i64) -> bool {
        self.out.dead.contains(&offset)
    }
}

#[derive(Clone, Debug)]
enum Event {
    Fill(usize),
    Step,
    Report(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1usize..20).prop_map(Event::Fill),
        5 => Just(Event::Step),
        4 => any::<usize>().prop_map(Event::Report),
        1 => (1u64..40_000).prop_map(Event::Pass),
    ]
}

proptest! {
    /// Whatever the handler does and however reports come: nothing is committed before its effects are durable, no effect
    /// is missing or double, and with a dead-letter topic the lane comes to its end.
    #[test]
    fn every_record_meets_its_fate_once(
        plans in prop::collection::vec(plan(), 1..60),
        events in prop::collection::vec(event(), 0..200),
        max_ahead in 3usize..40,
    ) {
        let count = plans.len();
        let mut world = World::new(plans, true, max_ahead);
        for event in events {
            match event {
                Event::Fill(limit) => world.fill(limit),
                Event::Step => _ = world.step(),
                Event::Report(which) => world.report(which),
                Event::Pass(ms) => world.now += Duration::from_millis(ms),
            }
            world.check_commit();
        }
        // From here on everything goes its way, in bounded time.
        let end = OFFSETS_FROM + count as i64;
        for _ in 0..10_000 {
            world.fill(20);
            while world.step() {}
            while !world.out.open.is_empty() {
                world.report(0);
            }
            world.check_commit();
            if world.lane.committable() == Some(end) {
                break;
            }
            world.now += Duration::from_secs(1);
        }
        prop_assert_eq!(world.lane.committable(), Some(end), "{:?}", world.lane.state());
        for offset in OFFSETS_FROM..end {
            let (copies, dead) = (world.copies(offset), world.out.dead.iter().filter(|dead| **dead == offset).count());
            let expected = match world.plan_of(offset).clone() {
                Plan::Emit(copies) => (copies as usize, 0),
                Plan::EmitAndStop => (1, 0),
                Plan::Retry(failures) | Plan::Trap(failures) => if failures < 5 { (1, 0) } else { (0, 1) },
                Plan::Reject => (0, 1),
                Plan::Batch { retries, traps, reject, .. } => {
                    if retries + traps < 5 && !reject { (1, 0) } else { (0, 1) }
                }
            };
            prop_assert_eq!((copies, dead), expected, "record {} {:?}", offset, world.plan_of(offset));
        }
        // The batches' own emissions counted every done item once.
        let items = world.plans.iter().enumerate().filter(|(i, plan)| {
            matches!(plan, Plan::Batch { .. }) && world.copies(OFFSETS_FROM + *i as i64) == 1
        }).count();
        prop_assert_eq!(world.out.totals.iter().sum::<u64>(), items as u64);
    }

    /// Without batches the partition's order is kept, whatever fails.
    #[test]
    fn order_is_kept(
        plans in prop::collection::vec(prop_oneof![
            4 => Just(Plan::Emit(1)), 1 => (1u32..4).prop_map(Plan::Retry), 1 => (1u32..4).prop_map(Plan::Trap),
            1 => Just(Plan::EmitAndStop), 1 => Just(Plan::Reject),
        ], 1..80),
        dead_letter in any::<bool>(),
    ) {
        let mut world = World::new(plans, dead_letter, 1000);
        for _ in 0..2000 {
            world.fill(20);
            while world.step() {}
            world.now += Duration::from_millis(300);
        }
        let mut sorted = world.out.emitted.clone();
        sorted.sort_unstable();
        prop_assert_eq!(&world.out.emitted, &sorted);
        let first_reject = world.plans.iter().position(|plan| matches!(plan, Plan::Reject));
        if let (false, Some(at)) = (dead_letter, first_reject) {
            prop_assert_eq!(world.out.emitted.len(), at, "nothing passes a blocked record");
            prop_assert!(matches!(world.lane.state(), LaneState::Blocked(_)));
        }
    }
}

#[test]
fn a_trap_in_a_full_burst_costs_its_neighbours_nothing() {
    let mut plans: Vec<Plan> = (0..600).map(|_| Plan::Emit(1)).collect();
    plans[300] = Plan::Trap(u32::MAX);
    let mut world = World::new(plans, true, 50_000);
    for _ in 0..2000 {
        world.fill(512);
        while world.step() {}
        world.now += Duration::from_millis(100);
    }
    assert_eq!(world.out.dead, [OFFSETS_FROM + 300]);
    assert_eq!(world.out.emitted.len(), 599);
    let others = |((offset, _), attempt): (&(i64, bool), &u32)| *offset == OFFSETS_FROM + 300 || *attempt == 1;
    assert!(world.attempts.iter().all(others), "the neighbours were offered as first attempts only");
}

#[test]
fn bad_answers_settle_nothing_and_name_the_rule() {
    type Case = (&'static str, fn(&mut AnswerWriter));
    let cases: [Case; 8] = [
        ("it has 0 outcomes for 1 messages", |_| {}),
        ("it has 2 outcomes for 1 messages", |answer| {
            answer.done(0);
            answer.done(0);
        }),
        ("1 of its 1 emissions belong to no message", |answer| {
            answer.emission(&NewEmission { destination: None, ..NewEmission::default() });
            answer.done(0);
        }),
        ("output `nowhere`, which the pipeline does not declare (declared: `out`)", |answer| {
            let destination = Some(answer.destination(DestinationKind::Output, "nowhere"));
            answer.emission(&NewEmission { destination, ..NewEmission::default() });
            answer.done(1);
        }),
        ("partition 3 of output `out`, which has 3", |answer| {
            answer.emission(&NewEmission { partition: Some(3), ..NewEmission::default() });
            answer.done(1);
        }),
        ("acks or fails token 2, which no message has had", |answer| {
            answer.done(0);
            answer.ack(2);
        }),
        ("1011 emissions for 1 messages; the limit is 1010", |answer| {
            for _ in 0..1011 {
                answer.emission(&NewEmission::default());
            }
            answer.done(1011);
        }),
        ("the batch key of emission 0 has 1025 bytes", |answer| {
            let destination = Some(answer.destination(DestinationKind::Batcher, "b"));
            answer.emission(&NewEmission { destination, batch_key: &[0; 1025], ..NewEmission::default() });
            answer.done(1);
        }),
    ];
    for (expected, write) in cases {
        let mut one_output = rules(false, 100);
        one_output.outputs.truncate(1);
        let mut world = World::new(vec![Plan::Emit(1)], false, 100);
        world.lane = Lane::new(0, Arc::from("in"), 1, 7, Arc::new(one_output), None, world.now);
        world.fill(1);
        let call = world.lane.next_call(world.now, &mut world.out).expect("one message to offer");
        let mut answer = AnswerWriter::new();
        write(&mut answer);
        let reply = Reply::Answer(answer.finish());
        world.lane.on_reply(call.frame, reply, Duration::ZERO, world.now, &mut world.out);
        let LaneState::BackingOff(reason) = world.lane.state() else { panic!("{expected}: {:?}", world.lane.state()) };
        let class = if expected.contains("the limit is 1010") { "output_limit: " } else { "bad_answer: " };
        assert!(reason.contains(expected) && reason.starts_with(class), "{reason}");
        assert_eq!((world.lane.committable(), world.out.open.len()), (Some(OFFSETS_FROM), 0));
    }
}

#[test]
fn emissions_may_not_share_bytes() {
    let mut world = World::new(vec![Plan::Emit(1)], false, 100);
    world.fill(1);
    let call = world.lane.next_call(world.now, &mut world.out).expect("one message to offer");
    let mut answer = AnswerWriter::new();
    let destination = Some(answer.destination(DestinationKind::Output, "out"));
    for _ in 0..2 {
        answer.emission(&NewEmission { destination, value: Content::Bytes(&[1; 100]), ..NewEmission::default() });
    }
    answer.done(2);
    let mut frame = answer.finish();
    // Both name the bytes of the first: its start is 8 bytes into the emission.
    let emissions = frame.index.len() - 2 * 48;
    let start: [u8; 4] = frame.index[emissions + 8..emissions + 12].try_into().expect("four bytes");
    frame.index[emissions + 56..emissions + 60].copy_from_slice(&start);
    frame.payload.truncate(103);
    world.lane.on_reply(call.frame, Reply::Answer(frame), Duration::ZERO, world.now, &mut world.out);
    let LaneState::BackingOff(reason) = world.lane.state() else { panic!("{:?}", world.lane.state()) };
    assert!(reason.contains("its emissions claim 200 bytes, its payload has 103"), "{reason}");
}

#[test]
fn what_a_burst_puts_into_batches_while_the_lane_drains_is_run_too() {
    let batch = Plan::Batch { key: 0, retries: 0, traps: 0, reject: false };
    let mut world = World::new(vec![batch], false, 100);
    world.fill(1);
    let call = world.lane.next_call(world.now, &mut world.out).expect("a message to offer");
    world.lane.drain(Trigger::Shutdown);
    let reply = world.handle_messages(&call.frame);
    world.lane.on_reply(call.frame, reply, Duration::ZERO, world.now, &mut world.out);
    assert!(!world.lane.is_drained(), "its batch is still to run");
    assert!(world.step());
    while !world.out.open.is_empty() {
        world.report(0);
    }
    assert!(world.lane.is_drained());
    assert_eq!(world.lane.committable(), Some(OFFSETS_FROM + 1));
}

#[test]
fn a_blocked_item_holds_back_neither_its_batch_nor_the_loop() {
    let retried = Plan::Batch { key: 0, retries: 1, traps: 0, reject: false };
    let rejected = Plan::Batch { key: 0, retries: 0, traps: 0, reject: true };
    let done = Plan::Batch { key: 0, retries: 0, traps: 0, reject: false };
    let mut world = World::new(vec![retried, rejected, done.clone(), done], false, 100);
    for _ in 0..100 {
        world.fill(4);
        while world.step() {}
        let deadline = world.lane.deadline().expect("the blocked item is tried again");
        assert!(deadline > world.now, "a time in the past that nothing can use");
        world.now += Duration::from_millis(400);
    }
    let mut emitted = world.out.emitted.clone();
    emitted.sort_unstable();
    assert_eq!(emitted, [OFFSETS_FROM, OFFSETS_FROM + 2, OFFSETS_FROM + 3]);
    assert!(matches!(world.lane.state(), LaneState::Blocked(_)));
}

#[test]
fn inherited_bytes_count_against_the_answer() {
    let mut world = World::new(vec![Plan::Emit(1)], true, 100);
    let value = vec![7u8; 1 << 20];
    world
        .lane
        .fill(world.now, &mut world.out, |burst, offer| {
            offer(OFFSETS_FROM)?;
            let message = NewMessage {
                offset: OFFSETS_FROM,
                timestamp: 5,
                timestamp_type: TimestampType::CreateTime,
                key: None,
                value: Some(&value),
                attempt: 1,
                source: 0,
            };
            burst.push(&message, Headers::default());
            Ok(())
        })
        .expect("offsets grow");
    let call = world.lane.next_call(world.now, &mut world.out).expect("a message to offer");
    let mut answer = AnswerWriter::new();
    let destination = Some(answer.destination(DestinationKind::Output, "out"));
    for _ in 0..1000 {
        answer.emission(&NewEmission { destination, ..NewEmission::default() });
    }
    answer.done(1000);
    world.lane.on_reply(call.frame, Reply::Answer(answer.finish()), Duration::ZERO, world.now, &mut world.out);
    let LaneState::BackingOff(reason) = world.lane.state() else { panic!("{:?}", world.lane.state()) };
    assert!(reason.starts_with("output_limit: ") && world.out.open.is_empty(), "{reason}");
}

#[test]
fn a_drain_runs_open_batches_and_leaves_the_rest() {
    let batch = Plan::Batch { key: 0, retries: 0, traps: 0, reject: false };
    let mut world = World::new(vec![batch.clone(), batch, Plan::Emit(1), Plan::Retry(3)], false, 100);
    world.fill(1);
    world.step();
    world.fill(3);
    world.step();
    assert!(!world.lane.is_drained());
    world.lane.drain(Trigger::Revoke);
    assert!(world.step(), "the open batch runs");
    assert!(!world.step(), "the message between attempts does not");
    while !world.out.open.is_empty() {
        world.report(0);
    }
    assert!(world.lane.is_drained());
    assert_eq!(world.lane.committable(), Some(OFFSETS_FROM + 3));
}
