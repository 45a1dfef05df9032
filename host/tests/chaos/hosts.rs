//! The hosts of the group: one process at most in each place, and the logs of all there were.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::plan::SLOTS;
use crate::support::host::{HostOptions, SluiceHost};

/// How long a host may take to leave: its own deadline for the drain, and what comes after.
const LEAVE: Duration = Duration::from_secs(45);

struct Member {
    /// Which process of the run it is.
    number: usize,
    host: SluiceHost,
}

/// See the module's text.
pub struct Hosts {
    options: HostOptions,
    /// How the hosts of each place come to the broker.
    relays: Vec<String>,
    places: [Option<Member>; SLOTS],
    leaving: Vec<(Member, Instant)>,
    started: usize,
}

impl Hosts {
    pub fn new(options: HostOptions, relays: Vec<String>) -> Hosts {
        Hosts { options, relays, places: [const { None }; SLOTS], leaving: Vec::new(), started: 0 }
    }

    /// Starts a host, unless one is there that took the place of one that failed.
    pub fn start(&mut self, place: usize) -> String {
        if let Some(member) = &self.places[place] {
            return format!("host {} is at place {place} already", member.number);
        }
        let options = self.options.clone().bootstrap(&self.relays[place]);
        let member = Member { number: self.started, host: options.start() };
        self.started += 1;
        let name = format!("host {} (process {}) starts at place {place}", member.number, member.host.process().pid());
        self.places[place] = Some(member);
        name
    }

    /// Fills these places.
    pub fn fill(&mut self, places: impl Iterator<Item = usize>) {
        places.for_each(|place| _ = self.start(place));
    }

    pub fn signal(&self, place: usize, signal: i32) -> String {
        let Some(member) = &self.places[place] else { return "nobody is there".to_owned() };
        member.host.process().signal(signal);
        format!("host {}", member.number)
    }

    /// Ends a host without notice and keeps its log.
    pub fn kill(&mut self, place: usize, logs: &Path) -> String {
        let Some(member) = self.places[place].take() else { return "nobody is there".to_owned() };
        member.host.kill();
        keep(&member, logs);
        format!("host {}", member.number)
    }

    /// Asks a host to go; `look_after` sees it off.
    pub fn leave(&mut self, place: usize) -> String {
        let Some(member) = self.places[place].take() else { return "nobody is there".to_owned() };
        member.host.terminate();
        let name = format!("host {}", member.number);
        self.leaving.push((member, Instant::now() + LEAVE));
        name
    }

    /// What is not as it should be: hosts that ended by themselves, or do not end. The places of the former are empty then.
    pub fn look_after(&mut self, logs: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        for place in &mut self.places {
            let ended = place.as_ref().and_then(|member| member.host.exited());
            if let Some(exit) = ended
                && let Some(member) = place.take()
            {
                wrong.push(format!("host {} ended by itself: {}\n{}", member.number, exit.status, member.host.tail()));
                keep(&member, logs);
            }
        }
        self.leaving.retain(|(member, deadline)| match member.host.exited() {
            // 6: something was left unfinished, as it has to be when the broker is away.
            Some(exit) => {
                // Or it was asked before it had begun to listen for that.
                let hardly_there = exit.status.signal() == Some(libc::SIGTERM) && member.host.output().is_empty();
                if !matches!(exit.status.code(), Some(0 | 6)) && !hardly_there {
                    wrong.push(format!("host {} left with {}\n{}", member.number, exit.status, member.host.tail()));
                }
                keep(member, logs);
                false
            }
            None if Instant::now() > *deadline => {
                wrong.push(format!("host {} does not leave\n{}", member.number, member.host.tail()));
                member.host.kill();
                keep(member, logs);
                false
            }
            None => true,
        });
        wrong
    }

    pub fn anyone_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// What every host says of itself, for finding out why something stands still.
    pub fn confess(&self, logs: &Path) {
        for member in self.places.iter().flatten() {
            keep(member, logs);
            for path in ["/readyz", "/metrics"] {
                let answer = crate::support::http::try_get(member.host.admin(), path, Duration::from_secs(5));
                let text = answer.map_or_else(|error| error.to_string(), |answer| answer.body);
                write(&logs.join(format!("host-{:03}{}.txt", member.number, path.replace('/', "-"))), &text);
            }
        }
    }
}

fn keep(member: &Member, logs: &Path) {
    write(&logs.join(format!("host-{:03}.log", member.number)), &member.host.output().join("\n"));
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
