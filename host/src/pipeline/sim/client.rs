//! A host's client by script: its member of the group and its partitions' queues, as the loop's port sees them.

use std::collections::VecDeque;

use sluicebox_frames::{Headers, MessagesWriter, NewMessage, TimestampType};

use super::effects::What;
use super::group::Asked;
use super::knobs::Fault;
use super::ledger::Input;
use super::world::{Happening, Point, Shared, World};
use crate::pipeline::port::{self, BEGINNING, Code, Event, Filled, PartitionOffset, Place, Standing, Start};

/// Most that a client hands out at once.
const DRAIN: usize = 512;

/// Where a member stands in a partition that it owns.
#[derive(Debug)]
pub(super) struct Queue {
    member: usize,
    input: usize,
    ownership: usize,
    open: bool,
    ready: bool,
    /// Offset of the next record to hand out.
    position: i64,
    /// What the client has fetched ends here.
    fetched: i64,
    /// Handed out, not packed.
    waiting: VecDeque<i64>,
    /// Where the client says it stands.
    stands: Option<i64>,
    tainted: bool,
    error: bool,
}

impl World {
    /// The queue from which a member reads an input.
    fn open_queue(&self, member: usize, input: usize) -> Option<usize> {
        self.queues.iter().position(|queue| queue.open && queue.member == member && queue.input == input)
    }

    /// What comes next from a queue; nothing is known to have come since.
    fn read_from(&mut self, queue: usize, offset: i64) {
        let offset = if offset == BEGINNING { self.knobs.first_offset } else { offset };
        (self.queues[queue].position, self.queues[queue].stands) = (offset, None);
    }

    /// Records came: clients fetch them.
    pub(super) fn announce(&mut self, input: usize) {
        let queues: Vec<usize> = (0..self.queues.len())
            .filter(|queue| self.queues[*queue].open && self.queues[*queue].input == input)
            .collect();
        for queue in queues {
            let wait = self.chance.micros(200, 50_000);
            self.after(wait, Happening::Fetched(queue));
        }
    }

    /// The group says where its partitions stand.
    pub(super) fn placed(&mut self, member: usize, number: u64, inputs: &[usize]) {
        let place = |input: &usize| {
            let Input { topic, partition, committed, .. } = &self.ledger.inputs[*input];
            Place { topic: topic.clone(), partition: *partition, committed: *committed, since: None }
        };
        let places = inputs.iter().map(place).collect();
        if self.members[member].alive {
            self.members[member].events.push_back(Event::Placed { number, places });
            self.wake(member);
        }
    }

    pub(super) fn fetched(&mut self, place: usize) {
        let queue = &mut self.queues[place];
        let end = self.ledger.inputs[queue.input].end;
        if queue.open && queue.fetched < end {
            queue.fetched = end;
            queue.ready = true;
            let member = queue.member;
            self.wake(member);
        }
    }

    /// Something is wrong with one of the queues, whichever.
    pub(super) fn disturb_queue(&mut self) {
        let open: Vec<usize> = (0..self.queues.len()).filter(|queue| self.queues[*queue].open).collect();
        if !open.is_empty() {
            let place = *self.chance.pick(&open);
            let queue = &mut self.queues[place];
            queue.error = true;
            queue.ready = true;
            let (member, input) = (queue.member, queue.input);
            self.note(format_args!("member {member}: the queue of input {input}'s next record is an error"));
            self.wake(member);
        }
    }
}

/// A host's member of the group.
pub(super) struct ScriptedGroup {
    pub(super) world: Shared,
    pub(super) member: usize,
    pub(super) epochs: u64,
    pub(super) lookups: u64,
    pub(super) log_start: i64,
}

impl port::Group for ScriptedGroup {
    type Queue = ScriptedQueue;

    fn poll(&mut self) -> Option<Event> {
        let event = {
            let world = &mut *self.world.borrow_mut();
            let this = &mut world.members[self.member];
            let mut event = this.events.pop_front()?;
            if let Event::Revoked { lost, .. } = &mut event {
                // As librdkafka does: asked for when the event is read.
                *lost = !this.valid;
            }
            let member = self.member;
            world.note(format_args!("member {member} polls {event:?}"));
            event
        };
        if matches!(event, Event::Committed { .. }) {
            World::passes(&self.world, self.member, Point::CommitAnswered);
        }
        Some(event)
    }

    fn look_up(&mut self, partitions: &[PartitionOffset], _start: Start) -> Result<u64, String> {
        let world = &mut *self.world.borrow_mut();
        let (inputs, member) = (world.inputs(partitions), self.member);
        assert_eq!(world.members[member].asked, Some(Asked::Assign(inputs.clone())), "nobody asked for this");
        self.lookups += 1;
        let slow = world.strikes(Fault::LookupSlow, 3);
        let wait = if slow { world.chance.millis(500, 20_000) } else { world.chance.micros(300, 200_000) };
        world.after(wait, Happening::Placed { member, number: self.lookups, inputs: inputs.clone() });
        if !world.group.eager {
            world.members[member].assigned.extend(inputs);
            world.rebalanced(member);
        }
        Ok(self.lookups)
    }

    fn assign(&mut self, partitions: &[PartitionOffset]) -> Result<Vec<ScriptedQueue>, String> {
        let mut queues = Vec::new();
        {
            let world = &mut *self.world.borrow_mut();
            for (input, begin) in world.inputs(partitions).into_iter().zip(partitions) {
                let ownership = world.ledger.own(self.member, input);
                let position = if begin.offset == BEGINNING { world.knobs.first_offset } else { begin.offset };
                let this = &mut world.members[self.member];
                this.assigned.insert(input);
                this.current.insert(input, ownership);
                this.opening.push_back((input, ownership));
                let place = world.queues.len();
                world.queues.push(Queue {
                    member: self.member,
                    input,
                    ownership,
                    open: true,
                    ready: false,
                    position,
                    fetched: position,
                    waiting: VecDeque::new(),
                    stands: None,
                    tainted: false,
                    error: false,
                });
                let wait = world.chance.micros(500, 200_000);
                world.after(wait, Happening::Fetched(place));
                queues.push(ScriptedQueue { world: self.world.clone(), place });
            }
            if world.group.eager {
                world.rebalanced(self.member);
            }
        }
        World::passes(&self.world, self.member, Point::Assigned);
        Ok(queues)
    }

    fn unassign(&mut self, partitions: &[PartitionOffset]) -> Result<(), String> {
        {
            let world = &mut *self.world.borrow_mut();
            let mut inputs = world.inputs(partitions);
            let member = self.member;
            let asked = world.members[member].asked.clone();
            world.note(format_args!("member {member} gives back {inputs:?}"));
            if world.group.eager {
                inputs.extend(&world.members[member].assigned);
            } else if let Some(Asked::Assign(refused)) = &asked {
                assert_eq!(refused, &inputs, "an assignment is refused as a whole");
            } else if let Some(input) = inputs.iter().find(|input| !world.members[member].assigned.contains(input)) {
                return Err(format!("input {input} is not assigned"));
            }
            for input in &inputs {
                let this = &mut world.members[member];
                this.assigned.remove(input);
                if let Some(ownership) = this.current.remove(input) {
                    world.ledger.ownerships[ownership].over = true;
                }
                if world.queues.iter().any(|queue| queue.open && queue.member == member && queue.input == *input) {
                    let broken = format!("member {member} gives input {input} back and holds its queue");
                    world.check(Err(broken));
                }
                if world.group.owner[*input] == Some(member) {
                    world.group.owner[*input] = None;
                }
            }
            if asked.is_some() {
                world.rebalanced(member);
            }
        }
        World::passes(&self.world, self.member, Point::Unassigned);
        Ok(())
    }

    fn commit<'a>(&mut self, offsets: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> Result<(), String> {
        {
            let world = &mut *self.world.borrow_mut();
            let member = self.member;
            let offsets: Vec<(usize, i64)> =
                offsets.map(|(topic, partition, offset)| (world.input(topic, partition), offset)).collect();
            world.note(format_args!("member {member} commits {offsets:?}"));
            for (input, next) in &offsets {
                let rule = match world.members[member].current.get(input).copied() {
                    Some(ownership) => world.ledger.commits(ownership, *next),
                    None => Err(format!("member {member} commits input {input}, which it does not own")),
                };
                world.check(rule);
            }
            let generation = world.members[member].generation;
            let slow = world.strikes(Fault::CommitSlow, 3);
            let wait = if slow { world.chance.millis(100, 20_000) } else { world.chance.micros(300, 20_000) };
            let answer = if slow { world.chance.millis(10, 10_000) } else { world.chance.micros(300, 20_000) };
            if std::mem::replace(&mut world.members[member].commit_open, true) {
                world.check(Err(format!("member {member} sends a commit while another one may overtake it")));
            }
            let (mut told, mut answer) = (None, answer);
            if world.strikes(Fault::CommitLost, 12) {
                // The client gives up waiting. The broker may have it all the same.
                told = Some(Code::RD_KAFKA_RESP_ERR__TIMED_OUT);
                answer = world.chance.millis(5_000, 60_000);
            }
            if told.is_none() || world.chance.one_in(2) {
                world.after(wait, Happening::CommitArrives { member, generation, offsets, answer, told });
            } else {
                let result = Code::RD_KAFKA_RESP_ERR__TIMED_OUT;
                let offsets = offsets.into_iter().map(|(input, next)| (input, next, result)).collect();
                world.after(wait + answer, Happening::CommitAnswered { member, result, offsets });
            }
        }
        World::passes(&self.world, self.member, Point::CommitSent);
        Ok(())
    }

    fn positions<'a>(&self, partitions: impl ExactSizeIterator<Item = (&'a str, i32)>) -> Vec<Option<i64>> {
        let world = self.world.borrow();
        let stands = |(topic, partition)| {
            let queue = world.open_queue(self.member, world.input(topic, partition));
            queue.and_then(|queue| world.queues[queue].stands)
        };
        partitions.map(stands).collect()
    }

    fn catching_up(&mut self, _behind: bool) {}

    fn log_end(&self, topic: &str, partition: i32) -> Option<i64> {
        let world = self.world.borrow();
        Some(world.ledger.inputs[world.input(topic, partition)].end)
    }

    fn log_start(&self, _topic: &str, _partition: i32) -> Option<i64> {
        // Asked in the middle of a burst, too, when the world is busy.
        Some(self.log_start)
    }

    fn seek(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), String> {
        let world = &mut *self.world.borrow_mut();
        let (member, input) = (self.member, world.input(topic, partition));
        let queue = world.open_queue(member, input).ok_or("nothing to read from there")?;
        world.read_from(queue, offset);
        // A new epoch begins with this.
        let before = world.queues[queue].ownership;
        let rule = world.ledger.finish(before, offset);
        world.ledger.ownerships[before].over = true;
        let ownership = world.ledger.own(member, input);
        world.queues[queue].ownership = ownership;
        world.check(rule);
        world.members[member].current.insert(input, ownership);
        world.members[member].opening.push_back((input, ownership));
        world.note(format_args!("member {member} reads input {input} again from {offset}"));
        Ok(())
    }

    fn fetch_again(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), String> {
        let world = &mut *self.world.borrow_mut();
        let (member, input) = (self.member, world.input(topic, partition));
        let queue = world.open_queue(member, input).ok_or("nothing to read from there")?;
        world.read_from(queue, offset);
        world.note(format_args!("member {member} fetches input {input} again from {offset}"));
        Ok(())
    }

    fn ask_for_ages(&mut self, _standing: Vec<Standing>) -> Result<(), String> {
        let world = &mut *self.world.borrow_mut();
        // Nobody knows, this time.
        world.members[self.member].events.push_back(Event::Aged(Vec::new()));
        world.wake(self.member);
        Ok(())
    }

    fn look_again(&self) {}

    fn begin_close(&mut self) -> Result<(), String> {
        let world = &mut *self.world.borrow_mut();
        let this = &mut world.members[self.member];
        this.closing = true;
        // An assignment that was taken in and not answered would keep the group from being left.
        let polled = !this.events.iter().any(|event| matches!(event, Event::Assigned(_)));
        if world.group.eager && polled && matches!(this.asked, Some(Asked::Assign(_))) {
            this.asked = None;
        }
        if this.asked.is_none() {
            world.go_on(self.member);
        }
        let member = self.member;
        world.note(format_args!("member {member} begins to leave"));
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.world.borrow().members[self.member].closed
    }

    fn next_epoch(&mut self) -> u64 {
        self.epochs += 1;
        (self.member as u64 + 1) * 1_000_000 + self.epochs
    }
}

impl World {
    /// The lane that was opened last is for the partition that was assigned first.
    pub(super) fn opened(&mut self, member: usize, lane: u32) -> usize {
        let this = &mut self.members[member];
        let (_, ownership) = this.opening.pop_front().expect("a partition for every lane");
        assert_eq!(this.lanes.len(), lane as usize, "lane numbers are consecutive");
        this.lanes.push(ownership);
        ownership
    }
}

/// One partition's messages.
pub(super) struct ScriptedQueue {
    world: Shared,
    place: usize,
}

impl Drop for ScriptedQueue {
    fn drop(&mut self) {
        self.world.borrow_mut().queues[self.place].open = false;
    }
}

impl Queue {
    /// Hands out up to so many records, as the client would.
    fn drain(&mut self, room: usize, records: &[i64]) {
        if !std::mem::take(&mut self.ready) {
            return;
        }
        let room = room.clamp(1, DRAIN);
        let from = records.partition_point(|offset| *offset < self.position);
        let there = &records[from..];
        let there = &there[..there.partition_point(|offset| *offset < self.fetched)];
        self.waiting.extend(there.iter().take(room));
        self.ready = there.len() >= room;
        self.position = match there.get(room - 1) {
            Some(last) => last + 1,
            // Markers behind the last record were seen, too.
            None => self.fetched.max(self.position),
        };
        self.stands = Some(self.position);
    }
}

impl port::Queue for ScriptedQueue {
    fn is_ready(&self) -> bool {
        let queue = &self.world.borrow().queues[self.place];
        !queue.waiting.is_empty() || queue.ready
    }

    fn is_read_up(&self) -> bool {
        let queue = &self.world.borrow().queues[self.place];
        queue.waiting.is_empty() && !queue.tainted
    }

    fn look_again(&self) {
        self.world.borrow_mut().queues[self.place].ready = true;
    }

    fn restart(&mut self) {
        let queue = &mut self.world.borrow_mut().queues[self.place];
        queue.waiting.clear();
        (queue.tainted, queue.ready) = (false, true);
    }

    fn fill<E>(
        &mut self,
        burst: &mut MessagesWriter<'_>,
        max_messages: usize,
        max_bytes: usize,
        mut each: impl FnMut(i64) -> Result<(), E>,
    ) -> Result<Filled, E> {
        let mut filled = Filled::default();
        let member = {
            let world = &mut *self.world.borrow_mut();
            let queue = &mut world.queues[self.place];
            let member = queue.member;
            let mut value = Vec::new();
            while (burst.count() as usize) < max_messages && (burst.count() == 0 || burst.payload_len() < max_bytes) {
                if std::mem::take(&mut queue.error) {
                    queue.tainted = true;
                    queue.position += 1;
                    filled.problem = Some((Code::RD_KAFKA_RESP_ERR__BAD_COMPRESSION, "by script".to_owned()));
                    break;
                }
                let records = &world.ledger.inputs[queue.input].records;
                if queue.waiting.is_empty() {
                    queue.drain(max_messages - burst.count() as usize, records);
                }
                let Some(offset) = queue.waiting.front().copied() else { break };
                What::Source { offset }.write(&mut value);
                let plan = world.knobs.plan(queue.input, offset);
                value.resize(value.len().max(world.knobs.value_bytes), 0);
                if burst.count() > 0 && burst.payload_len() + value.len() > max_bytes {
                    break;
                }
                each(offset)?;
                let rule = world.ledger.offered(queue.ownership, offset);
                if let Err(broken) = rule {
                    world.broken.get_or_insert(broken);
                }
                let key = [plan.key];
                let message = NewMessage {
                    offset,
                    timestamp: 5,
                    timestamp_type: TimestampType::CreateTime,
                    key: (plan.key > 0).then_some(&key[..]),
                    value: Some(&value),
                    attempt: 1,
                    source: 0,
                };
                burst.push(&message, Headers::default());
                queue.waiting.pop_front();
            }
            if burst.count() > 0 {
                let (input, count) = (queue.input, burst.count());
                world.note(format_args!("member {member} fetches {count} of input {input}"));
            }
            member
        };
        if burst.count() > 0 {
            World::passes(&self.world, member, Point::Polled);
        }
        Ok(filled)
    }
}
