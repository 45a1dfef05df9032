//! Producers as hosts see them, and the topics behind: one chunk in flight per output partition, reports when it has landed
//! or was refused, records of a host that died half there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::effects::What;
use super::knobs::Fault;
use super::world::{Happening, Point, Shared, World};
use crate::delivery::outgoing::{Outgoing, Owned};
use crate::delivery::ticket::{self, LaneId, Ticket};
use crate::pipeline::port::{self, Code, Refusal, TopicNumber, Trouble};

/// Partitions of every output topic.
pub(super) const PARTITIONS: u32 = 3;
/// Place of the dead-letter topic.
pub(super) const DEAD: TopicNumber = TopicNumber(2);
const RESEND: Duration = Duration::from_millis(500);

/// Output partitions of one producer.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: BTreeMap<(u16, u32), Line>,
    reports: Vec<((u16, u32), Vec<Sent>)>,
    records: usize,
    bytes: usize,
    of_lanes: BTreeMap<LaneId, usize>,
    /// Lanes whose partitions were given back.
    forgotten: BTreeSet<LaneId>,
}

#[derive(Debug, Default)]
struct Line {
    gathered: VecDeque<Sent>,
    in_flight: Option<Vec<Sent>>,
    not_before: Option<Duration>,
    /// It reaches the broker though its host dies.
    outlives: bool,
}

#[derive(Clone, Debug)]
struct Sent {
    ticket: Ticket,
    effect: usize,
    bytes: usize,
    /// The broker does not take it.
    refused: Option<Owned>,
}

impl World {
    pub(super) fn landed(&mut self, member: usize, place: (TopicNumber, u32)) {
        let alive = self.members[member].alive;
        let line = self.members[member].lines.lines.get_mut(&(place.0.0, place.1)).expect("a line");
        let Some(chunk) = line.in_flight.clone().filter(|_| alive || line.outlives) else { return };
        if alive && self.strikes(Fault::ProduceError, 6) {
            self.note(format_args!("member {member}: {} records for {place:?} are not taken", chunk.len()));
            let at = self.now + RESEND;
            let this = &mut self.members[member];
            let Lines { lines, records, bytes, of_lanes, forgotten, .. } = &mut this.lines;
            let line = lines.get_mut(&(place.0.0, place.1)).expect("a line");
            line.in_flight = None;
            line.not_before = Some(at);
            for record in chunk.into_iter().rev() {
                if forgotten.contains(&record.ticket.lane) {
                    *records -= 1;
                    *bytes -= record.bytes;
                    *of_lanes.entry(record.ticket.lane).or_default() -= record.bytes;
                    mark!(FailedForgotten);
                    continue;
                }
                line.gathered.push_front(record);
            }
            let code = Code::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
            this.troubles.push(Trouble { code, text: "by script".to_owned(), fatal: false });
            return self.wake(member);
        }
        self.note(format_args!("member {member}: {} records land at {place:?}", chunk.len()));
        for record in chunk.iter().filter(|record| record.refused.is_none()) {
            self.ledger.landed(record.effect);
        }
        let slow = self.strikes(Fault::ReportSlow, 4);
        let wait = if slow { self.chance.millis(100, 20_000) } else { self.chance.micros(50, 5_000) };
        self.after(wait, Happening::Reported { member, place });
    }

    pub(super) fn reported(&mut self, member: usize, place: (TopicNumber, u32)) {
        let lines = &mut self.members[member].lines;
        let line = lines.lines.get_mut(&(place.0.0, place.1)).expect("a line");
        if let Some(chunk) = line.in_flight.take() {
            lines.reports.push(((place.0.0, place.1), chunk));
            self.tell(member);
        }
    }

    /// The host of these lines died: some of what it sent arrives all the same.
    pub(super) fn gone_lines(&mut self, member: usize) {
        let places: Vec<(u16, u32)> = self.members[member].lines.lines.keys().copied().collect();
        for place in places {
            let outlives = self.chance.one_in(2);
            let line = self.members[member].lines.lines.get_mut(&place).expect("a line");
            line.outlives = outlives;
            line.gathered.clear();
        }
        self.members[member].lines.reports.clear();
    }
}

/// Its own copy, for what comes back.
fn owned(record: &Outgoing<'_>) -> Owned {
    let [first, second] = record.headers;
    assert!(second.is_empty() || first.is_empty(), "no handler of this world adds headers to others");
    let block = if first.is_empty() { second } else { first }.block().to_vec();
    let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
    Owned { key, value, headers: block, timestamp: record.timestamp }
}

/// A host's producer.
pub(super) struct ScriptedProducer {
    pub(super) world: Shared,
    pub(super) member: usize,
}

impl port::Produce for ScriptedProducer {
    fn append(&mut self, topic: TopicNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket) {
        assert!(partition < PARTITIONS);
        {
            let world = &mut *self.world.borrow_mut();
            let ownership = world.members[self.member].lanes[ticket.lane as usize];
            let value = record.value.expect("every record of this world has a value");
            let effect = match world.ledger.appended(ownership, value) {
                Ok(effect) => effect,
                Err(broken) => return world.check(Err(broken)),
            };
            let input = world.ledger.ownerships[ownership].input;
            let what = What::read(value);
            let refused = match &what {
                What::Out { offset, number: 0 } | What::Item { offset } | What::Failed { offset } => {
                    world.plan(input, *offset).refused
                }
                What::Total { .. } | What::Tick(_) => {
                    let first = what.offsets().first().or(what.acked().first());
                    first.is_some_and(|offset| world.plan(input, *offset).refused)
                }
                What::Source { offset } => world.plan(input, *offset).letter_refused,
                What::Out { .. } | What::Late { .. } => false,
            };
            if matches!(what, What::Source { .. }) {
                assert_eq!(topic, DEAD, "only dead letters carry a source record");
            }
            if refused {
                let letter = matches!(what, What::Source { .. });
                world.struck(if letter { Fault::RefuseLetter } else { Fault::Refuse });
            }
            let member = self.member;
            world.note(format_args!("member {member} emits {what:?} to {topic:?} {partition}, refused: {refused}"));
            let lines = &mut world.members[self.member].lines;
            lines.records += 1;
            lines.bytes += record.bytes();
            *lines.of_lanes.entry(ticket.lane).or_default() += record.bytes();
            let bytes = record.bytes();
            lines.lines.entry((topic.0, partition)).or_default().gathered.push_back(Sent {
                ticket,
                effect,
                bytes,
                refused: refused.then(|| owned(record)),
            });
        }
        World::passes(&self.world, self.member, Point::BeforeProduce);
    }

    fn send(&mut self, _now: Instant, _refused: &mut Vec<(Ticket, Refusal)>) {
        let (mut any, mut dead) = (false, false);
        {
            let world = &mut *self.world.borrow_mut();
            let places: Vec<(u16, u32)> = world.members[self.member].lines.lines.keys().copied().collect();
            for place in places {
                let now = world.now;
                let line = world.members[self.member].lines.lines.get_mut(&place).expect("a line");
                if line.in_flight.is_some() || line.not_before.is_some_and(|at| at > now) || line.gathered.is_empty() {
                    continue;
                }
                line.not_before = None;
                let most = if world.chance.one_in(3) { world.chance.between(1, 10) as usize } else { usize::MAX };
                let count = line.gathered.len().min(most);
                let chunk: Vec<Sent> = line.gathered.drain(..count).collect();
                for record in &chunk {
                    let rule = world.ledger.sent(record.effect);
                    if let Err(broken) = rule {
                        world.broken.get_or_insert(broken);
                    }
                }
                line.in_flight = Some(chunk);
                any = true;
                dead |= place.0 == DEAD.0;
                let slow = world.strikes(Fault::ReportSlow, 5);
                let wait = if slow { world.chance.millis(50, 10_000) } else { world.chance.micros(100, 10_000) };
                let member = self.member;
                world.note(format_args!("member {member} sends {count} records to {place:?}"));
                world.after(wait, Happening::Landed { member, place: (TopicNumber(place.0), place.1) });
            }
        }
        if any {
            World::passes(&self.world, self.member, Point::Produced);
        }
        if dead {
            World::passes(&self.world, self.member, Point::DeadLetterSent);
        }
    }

    fn poll(
        &mut self,
        _now: Instant,
        mut delivered: impl FnMut(ticket::Run),
        refused: &mut Vec<(Ticket, Refusal)>,
        trouble: &mut Vec<Trouble>,
    ) {
        let mut dead = false;
        let reports = {
            let world = &mut *self.world.borrow_mut();
            let this = &mut world.members[self.member];
            trouble.append(&mut this.troubles);
            let reports = std::mem::take(&mut this.lines.reports);
            for record in reports.iter().flat_map(|(_, chunk)| chunk) {
                this.lines.records -= 1;
                this.lines.bytes -= record.bytes;
                *this.lines.of_lanes.entry(record.ticket.lane).or_default() -= record.bytes;
                if record.refused.is_some() {
                    world.ledger.refused(record.effect);
                } else if world.ledger.reported(record.effect) {
                    world
                        .seen
                        .entry("a report came after the partition was given back".to_owned())
                        .and_modify(|n| *n += 1)
                        .or_insert(1);
                }
            }
            reports
        };
        let any = !reports.is_empty();
        for ((topic, partition), chunk) in reports {
            dead |= topic == DEAD.0;
            let mut runs: Vec<ticket::Run> = Vec::new();
            for record in chunk {
                let Some(taken_back) = record.refused else {
                    if !runs.last_mut().is_some_and(|run| run.takes(record.ticket)) {
                        runs.push(ticket::Run::of(record.ticket));
                    }
                    continue;
                };
                let refusal = Refusal {
                    code: Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                    text: "by script".to_owned(),
                    topic: TopicNumber(topic),
                    partition,
                    record: taken_back,
                };
                refused.push((record.ticket, refusal));
            }
            runs.into_iter().for_each(&mut delivered);
        }
        if any {
            World::passes(&self.world, self.member, Point::Reported);
        }
        if dead {
            World::passes(&self.world, self.member, Point::DeadLetterReported);
        }
    }

    fn grow(&mut self, _topic: TopicNumber, _partitions: u32) {}

    fn forget(&mut self, lanes: &[LaneId]) {
        let world = &mut *self.world.borrow_mut();
        let Lines { lines, records, bytes, of_lanes, forgotten, .. } = &mut world.members[self.member].lines;
        forgotten.extend(lanes);
        for line in lines.values_mut() {
            line.gathered.retain(|record| {
                let stays = !lanes.contains(&record.ticket.lane);
                if !stays {
                    *records -= 1;
                    *bytes -= record.bytes;
                    *of_lanes.entry(record.ticket.lane).or_default() -= record.bytes;
                    mark!(UnsentForgotten);
                }
                stays
            });
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let world = self.world.borrow();
        let lines = world.members[self.member].lines.lines.values();
        let at = lines.filter(|line| !line.gathered.is_empty()).filter_map(|line| line.not_before).min()?;
        Some(world.instant() + at.saturating_sub(world.now))
    }

    fn bytes(&self) -> usize {
        self.world.borrow().members[self.member].lines.bytes
    }

    fn bytes_of(&self, lane: LaneId) -> usize {
        self.world.borrow().members[self.member].lines.of_lanes.get(&lane).copied().unwrap_or(0)
    }

    fn records(&self) -> usize {
        self.world.borrow().members[self.member].lines.records
    }

    fn has_sent_all(&self) -> bool {
        self.world.borrow().members[self.member].lines.lines.values().all(|line| line.gathered.is_empty())
    }

    fn produced(&self, _topic: TopicNumber) -> (u64, u64) {
        (0, 0)
    }

    fn refused(&self, _topic: TopicNumber) -> u64 {
        0
    }

    fn look_again(&self) {}
}
