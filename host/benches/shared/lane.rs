//! A lane as a whole: bursts taken in, offered to a handler, its answers made into effects, these reported on, offsets ready to be
//! committed. All that sluicebox itself does about a record except calling the guest and gathering the producer's chunks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox::delivery::outgoing::Outgoing;
use sluicebox::delivery::policy::Then;
use sluicebox::delivery::retry::RetryRules;
use sluicebox::delivery::ticket::{Run, Ticket};
use sluicebox::pipeline::lane::{EmissionRules, Exports, HoldRules, Lane, LaneRules, Reply};
use sluicebox::pipeline::sink::{DeadLetter, Notice, OutputNumber, Sink};
use sluicebox_frames::{AnswerWriter, Content, Frame, Headers, NewEmission};

use super::{BURST, SIZE, keys, message};

/// Output partitions.
const PARTITIONS: u32 = 8;

/// A pipeline with one output, for a handler without optional exports.
fn rules() -> LaneRules {
    LaneRules {
        outputs: vec!["out".to_owned()],
        provenance: vec![false],
        version: "0123456789ab".into(),
        batchers: Vec::new(),
        straight_to: None,
        max_burst: 512,
        retry: RetryRules::default(),
        then: Then::Block,
        max_ahead: 100_000,
        emissions: EmissionRules::default(),
        hold: HoldRules::default(),
        tick: None,
        exports: Exports::default(),
        trial: false,
        receive: false,
    }
}

/// Keeps nothing but what delivery reports will be about, by output partition and as runs, as the producer does.
struct Reports(Vec<Vec<Run>>);

impl Sink for Reports {
    fn partitions(&self, _output: OutputNumber) -> u32 {
        PARTITIONS
    }

    fn emit(&mut self, _output: OutputNumber, partition: u32, _record: &Outgoing<'_>, ticket: Ticket) {
        let runs = &mut self.0[partition as usize];
        if !runs.last_mut().is_some_and(|run| run.takes(ticket)) {
            runs.push(Run::of(ticket));
        }
    }

    fn dead_letter(&mut self, _letter: &DeadLetter<'_>, _ticket: Ticket) {
        panic!("a dead letter");
    }

    fn dead_letter_again(&mut self, _partition: u32, _record: &Outgoing<'_>, _ticket: Ticket) {
        panic!("a dead letter");
    }

    fn notice(&mut self, notice: Notice<'_>) {
        panic!("{notice:?}");
    }
}

/// Each message gets a new value and keeps the rest.
fn answer(messages: usize) -> Frame {
    let mut writer = AnswerWriter::new();
    for _ in 0..messages {
        writer.emission(&NewEmission { value: Content::Bytes(&[b'A'; SIZE]), ..NewEmission::default() });
        writer.done(1);
    }
    writer.finish()
}

/// Bursts of records of one key, which go to one output partition, or of many keys.
pub fn lane(keys_in_all: usize) -> Box<dyn FnMut()> {
    let now = Instant::now();
    let (keys, value, answer) = (keys(), [b'a'; SIZE], answer(BURST));
    let mut reports = Reports(vec![Vec::new(); PARTITIONS as usize]);
    let mut lane = Lane::new(0, "orders".into(), 4, 1, Arc::new(rules()), None, now);
    let mut next = 0;
    let mut work = move |messages: usize, answer: Frame| {
        let fetched = lane.fill(now, &mut reports, |burst, offer| {
            for n in 0..messages {
                offer(next as i64)?;
                let key = &keys[n % keys_in_all];
                burst.push(&message(next, key, &value), Headers::default());
                next += 1;
            }
            Ok(())
        });
        fetched.expect("offsets go up");
        let call = lane.next_call(now, &mut reports).expect("messages to be handled");
        lane.on_reply(call.frame, Reply::Answer(answer), Duration::from_micros(10), now, &mut reports);
        for run in reports.0.iter_mut().flat_map(|runs| runs.drain(..)) {
            lane.on_delivered_run(run.first.target, run.count);
        }
        assert_eq!(lane.committable(), Some(next as i64));
        assert!(lane.wants_messages());
        lane.burst_limit()
    };
    // Bursts grow by and by.
    let mut limit = 1;
    while limit < BURST {
        limit = work(limit, self::answer(limit));
    }
    Box::new(move || {
        work(BURST, answer.clone());
    })
}
