//! The group as hosts see it: who is told to take and give back which partitions, where fetching stands, what commits come
//! to. A script, no model of Kafka's protocol: it keeps what librdkafka keeps (one rebalance at a time per member, lost
//! where the session ended, commits of an old generation refused) and is free in everything else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::knobs::Fault;
use super::ledger::{Input, Said};
use super::producer::Lines;
use super::world::{Happening, World};
use crate::delivery::ticket::LaneId;
use crate::pipeline::port::{Answered, Code, Event, PartitionOffset, Trouble};

pub(super) const NO_ERROR: Code = Code::RD_KAFKA_RESP_ERR_NO_ERROR;
/// The broker drops a member that it has not heard of for so long.
pub(super) const SESSION: Duration = Duration::from_secs(10);

/// The coordinator.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) eager: bool,
    /// Members that own the partitions.
    pub(super) owner: Vec<Option<usize>>,
    /// Who should: a number that picks one of the members there are.
    pub(super) wish: Vec<u64>,
    /// An eager rebalance is under way: members that have given everything back.
    gathered: Option<BTreeSet<usize>>,
}

impl Group {
    pub(super) fn new(inputs: usize, eager: bool) -> Self {
        Self { eager, owner: vec![None; inputs], wish: (0..inputs as u64).collect(), gathered: None }
    }
}

/// A rebalance that the member has not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Assign(Vec<usize>),
    Revoke(Vec<usize>),
}

/// A handler's answer, what it says, and whose it is.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) answered: Answered,
    pub(super) said: Vec<(i64, Said)>,
    pub(super) ownership: usize,
}

/// One client, from its start to its end.
#[derive(Debug)]
pub(super) struct Member {
    /// Its process runs.
    pub(super) alive: bool,
    /// The broker knows it.
    pub(super) valid: bool,
    /// Has to be told that it is not.
    pub(super) tell_lost: bool,
    /// Never will be: its client does not notice.
    forgotten: bool,
    pub(super) generation: u64,
    pub(super) assigned: BTreeSet<usize>,
    pub(super) asked: Option<Asked>,
    pub(super) events: VecDeque<Event>,
    pub(super) closing: bool,
    pub(super) closed: bool,
    /// Ownership by partition, while it is assigned.
    pub(super) current: BTreeMap<usize, usize>,
    /// Assigned, and no lane was opened yet.
    pub(super) opening: VecDeque<(usize, usize)>,
    /// Ownership by lane.
    pub(super) lanes: Vec<usize>,
    pub(super) answers: VecDeque<Answer>,
    pub(super) found: VecDeque<(LaneId, usize, Vec<i64>)>,
    pub(super) lines: Lines,
    pub(super) troubles: Vec<Trouble>,
    pub(super) watching: bool,
    pub(super) watch_answered: bool,
    /// A commit was sent and not answered.
    pub(super) commit_open: bool,
    pub(super) panics_next: bool,
}

impl World {
    /// A new client.
    pub(super) fn join(&mut self) -> usize {
        let member = self.members.len();
        self.members.push(Member {
            alive: true,
            valid: true,
            tell_lost: false,
            forgotten: false,
            generation: 0,
            assigned: BTreeSet::new(),
            asked: None,
            events: VecDeque::new(),
            closing: false,
            closed: false,
            current: BTreeMap::new(),
            opening: VecDeque::new(),
            lanes: Vec::new(),
            answers: VecDeque::new(),
            found: VecDeque::new(),
            lines: Lines::default(),
            troubles: Vec::new(),
            watching: false,
            watch_answered: false,
            commit_open: false,
            panics_next: false,
        });
        let wait = self.chance.millis(1, 500);
        self.after(wait, Happening::Rebalance);
        member
    }

    pub(super) fn partition(&self, input: usize) -> PartitionOffset {
        let Input { topic, partition, .. } = &self.ledger.inputs[input];
        PartitionOffset { topic: topic.clone(), partition: *partition, offset: -1001, error: NO_ERROR }
    }

    pub(super) fn input(&self, topic: &str, partition: i32) -> usize {
        let place = self.ledger.inputs.iter().position(|input| input.topic == topic && input.partition == partition);
        place.unwrap_or_else(|| panic!("no input {topic}[{partition}]"))
    }

    pub(super) fn inputs(&self, partitions: &[PartitionOffset]) -> Vec<usize> {
        partitions.iter().map(|partition| self.input(&partition.topic, partition.partition)).collect()
    }

    fn wanted(&self) -> Vec<Option<usize>> {
        let able: Vec<usize> = self.joined().collect();
        let pick = |wish: &u64| (!able.is_empty()).then(|| able[(*wish % able.len() as u64) as usize]);
        self.group.wish.iter().map(pick).collect()
    }

    fn joined(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|member| {
            let member = &self.members[*member];
            member.valid && !member.closing
        })
    }

    /// Who should own what is drawn anew.
    pub(super) fn rebalance(&mut self) {
        for place in 0..self.group.wish.len() {
            if self.chance.one_in(2) {
                self.group.wish[place] = self.chance.below(60);
            }
        }
        if self.group.eager && self.group.gathered.is_none() {
            self.group.gathered = Some(BTreeSet::new());
        }
        self.reconcile();
    }

    /// Tells members what to take and what to give back.
    pub(super) fn reconcile(&mut self) {
        let members: Vec<usize> = self.joined().collect();
        let wanted = self.wanted();
        if self.group.gathered.is_some() {
            for member in &members {
                let assigned: Vec<usize> = self.members[*member].assigned.iter().copied().collect();
                if self.members[*member].asked.is_some() {
                    continue;
                }
                if assigned.is_empty() {
                    self.group.gathered.get_or_insert_default().insert(*member);
                } else {
                    self.ask(*member, Asked::Revoke(assigned));
                }
            }
            let all = self.group.gathered.as_ref().is_some_and(|there| members.iter().all(|m| there.contains(m)));
            if !all || self.group.owner.iter().any(Option::is_some) {
                return;
            }
            self.group.gathered = None;
            for member in members {
                let share = (0..wanted.len()).filter(|input| wanted[*input] == Some(member)).collect();
                self.grant(member, share);
            }
            return;
        }
        for member in members {
            if self.members[member].asked.is_some() {
                continue;
            }
            let back = |input: &usize| wanted[*input] != Some(member);
            let back: Vec<usize> = self.members[member].assigned.iter().copied().filter(back).collect();
            if !back.is_empty() && !self.group.eager {
                self.ask(member, Asked::Revoke(back));
                continue;
            }
            let free = |input: &usize| wanted[*input] == Some(member) && self.group.owner[*input].is_none();
            let free: Vec<usize> = (0..wanted.len()).filter(free).collect();
            if !free.is_empty() {
                if self.group.eager {
                    self.group.gathered = Some(BTreeSet::new());
                    return self.reconcile();
                }
                self.grant(member, free);
            }
        }
    }

    fn grant(&mut self, member: usize, share: Vec<usize>) {
        for input in &share {
            self.group.owner[*input] = Some(member);
        }
        self.ask(member, Asked::Assign(share));
    }

    fn ask(&mut self, member: usize, asked: Asked) {
        self.note(format_args!("member {member} is asked to {asked:?}"));
        let event = match &asked {
            Asked::Assign(inputs) => Event::Assigned(inputs.iter().map(|input| self.partition(*input)).collect()),
            Asked::Revoke(inputs) => {
                let partitions = inputs.iter().map(|input| self.partition(*input)).collect();
                Event::Revoked { partitions, lost: false }
            }
        };
        let this = &mut self.members[member];
        this.asked = Some(asked);
        this.events.push_back(event);
        self.wake(member);
    }

    /// A rebalance was answered.
    pub(super) fn rebalanced(&mut self, member: usize) {
        let this = &mut self.members[member];
        this.asked = None;
        this.generation += 1;
        self.go_on(member);
    }

    pub(super) fn go_on(&mut self, member: usize) {
        let this = &self.members[member];
        let assigned: Vec<usize> = this.assigned.iter().copied().collect();
        let (valid, closing) = (this.valid || this.forgotten, this.closing);
        if !assigned.is_empty() && (closing || !valid) {
            self.ask(member, Asked::Revoke(assigned));
        } else if closing {
            if !self.strikes(Fault::CloseHangs, 2) {
                let wait = self.chance.millis(1, 1_500);
                self.after(wait, Happening::Closed(member));
            }
        } else if !valid {
            self.members[member].tell_lost = false;
            let wait = self.chance.millis(10, 2_000);
            self.after(wait, Happening::Rejoin(member));
        }
        let wait = self.chance.millis(1, 300);
        self.after(wait, Happening::Reconcile);
    }

    /// The broker gives a member's partitions away.
    pub(super) fn expire(&mut self, member: usize) {
        if !self.members[member].valid {
            return;
        }
        self.note(format_args!("member {member} is out of the group"));
        self.members[member].valid = false;
        self.members[member].tell_lost = true;
        self.free(member);
        let wait = self.chance.millis(1, 5_000);
        self.after(wait, Happening::Lost(member));
    }

    /// The same, and the member does not hear of it: all it sees is that its commits are refused. So there has to be something
    /// that it will commit, or somebody else who does that.
    pub(super) fn forget(&mut self, member: usize) {
        let others = self.joined().any(|other| other != member && self.members[other].alive);
        let all = self.members[member].assigned.len() == self.group.owner.len();
        let this = &mut self.members[member];
        if this.valid && !this.closing && this.asked.is_none() && (others || all) {
            (this.valid, this.forgotten) = (false, true);
            self.note(format_args!("member {member} is forgotten"));
            self.free(member);
        }
    }

    /// Partitions of a member are anybody's.
    fn free(&mut self, member: usize) {
        for owner in self.group.owner.iter_mut().filter(|owner| **owner == Some(member)) {
            *owner = None;
        }
        let wait = self.chance.millis(1, 300);
        self.after(wait, Happening::Reconcile);
    }

    pub(super) fn lost(&mut self, member: usize) {
        let this = &self.members[member];
        if this.alive && this.tell_lost && this.asked.is_none() && !this.closing {
            let assigned: Vec<usize> = this.assigned.iter().copied().collect();
            if assigned.is_empty() {
                self.go_on(member);
            } else {
                self.ask(member, Asked::Revoke(assigned));
            }
        }
    }

    pub(super) fn rejoin(&mut self, member: usize) {
        let this = &mut self.members[member];
        if this.alive && !this.closing && !this.valid && !this.forgotten {
            this.valid = true;
            self.rebalance();
        }
    }

    pub(super) fn closed(&mut self, member: usize) {
        self.members[member].closed = true;
        self.members[member].valid = false;
        self.free(member);
        self.wake(member);
    }

    /// A client's process, or the client, is gone. The broker finds out by itself.
    pub(super) fn gone(&mut self, member: usize) {
        let this = &mut self.members[member];
        this.alive = false;
        for ownership in std::mem::take(&mut this.current).into_values() {
            self.ledger.ownerships[ownership].over = true;
        }
        self.gone_lines(member);
        if self.members[member].valid {
            self.after(SESSION, Happening::SessionOver(member));
        }
    }

    pub(super) fn session_over(&mut self, member: usize) {
        if self.members[member].valid {
            self.members[member].valid = false;
            self.free(member);
            if self.group.eager && self.group.gathered.is_none() {
                self.group.gathered = Some(BTreeSet::new());
            }
        }
    }

    pub(super) fn problem(&mut self, member: usize) {
        let codes = [
            Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
            Code::RD_KAFKA_RESP_ERR__TRANSPORT,
            Code::RD_KAFKA_RESP_ERR__RESOLVE,
            Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED,
            Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
        ];
        let code = *self.chance.pick(&codes);
        let fatal = code == Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
        self.note(format_args!("member {member} hears of {code:?}"));
        self.members[member].events.push_back(Event::Problem { code, text: "by script".to_owned(), fatal });
        self.wake(member);
    }

    pub(super) fn commit_arrives(
        &mut self,
        member: usize,
        generation: u64,
        offsets: Vec<(usize, i64)>,
        answer: Duration,
        told: Option<Code>,
    ) {
        let this = &self.members[member];
        let stale = !this.valid || this.generation != generation;
        let failed = !stale && self.strikes(Fault::CommitError, 4);
        let result = if stale {
            self.saw("a commit of an old generation was refused");
            Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION
        } else if failed {
            let codes = [
                Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
                Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
                Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
                Code::RD_KAFKA_RESP_ERR__TIMED_OUT,
                Code::RD_KAFKA_RESP_ERR__TRANSPORT,
                Code::RD_KAFKA_RESP_ERR__WAIT_COORD,
            ];
            *self.chance.pick(&codes)
        } else {
            NO_ERROR
        };
        self.note(format_args!("commit of member {member} arrives: {offsets:?} {result:?}"));
        if result == NO_ERROR {
            for (input, next) in &offsets {
                let rule = self.ledger.committed(*input, *next);
                self.check(rule);
            }
        }
        let result = told.unwrap_or(result);
        // Some errors are told by partition, with a good result for the whole.
        let by_partition = self.chance.one_in(2);
        let offsets: Vec<(usize, i64, Code)> = offsets.into_iter().map(|(input, next)| (input, next, result)).collect();
        let result = if by_partition { NO_ERROR } else { result };
        self.after(answer, Happening::CommitAnswered { member, result, offsets });
    }

    pub(super) fn commit_answered(&mut self, member: usize, result: Code, offsets: &[(usize, i64, Code)]) {
        if !self.members[member].alive {
            return;
        }
        self.members[member].commit_open = false;
        // One commit, one answer: twice, but before anything else can happen.
        let times = if self.strikes(Fault::CommitDoubled, 3) { 2 } else { 1 };
        for _ in 0..times {
            let at = |(input, next, code): &(usize, i64, Code)| PartitionOffset {
                offset: *next,
                error: *code,
                ..self.partition(*input)
            };
            let event = Event::Committed { result, partitions: offsets.iter().map(at).collect() };
            self.members[member].events.push_back(event);
        }
        self.wake(member);
    }
}
