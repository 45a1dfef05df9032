//! One run: the stage, the faults carried out, and the end: heal, quiesce, judge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::Digest;

use crate::arguments::Arguments;
use crate::checker::oracle::ATTEMPTS;
use crate::checker::transcript::{Kind, Topics};
use crate::checker::{Crash, Mode, Rules, judge, reader};
use crate::hosts::Hosts;
use crate::journal::Journal;
use crate::plan::{AT_FIRST, Action, Fault, PARTITIONS, SESSION, SLOTS, Step, draw};
use crate::producers::Producers;
use crate::support::client::{Commits, add_partitions, create_topic, create_topic_with, end_offsets};
use crate::support::guests::guest;
use crate::support::host::HostOptions;
use crate::support::kafka::{Kafka, Options};
use crate::support::{scratch, unique};

const OUTPUT_PARTITIONS: i32 = 6;
/// How long records flow without a further fault before the producers stop, so that the last fault's recovery is seen.
const CALM: Duration = Duration::from_secs(5);
/// How long the group may take to be through after that.
const CATCH_UP: Duration = Duration::from_secs(120);
/// How often hosts are looked after while nothing is due.
const LOOK: Duration = Duration::from_millis(50);

/// A broker with sessions as short as chaos needs, that never tidies up its log of commits. Each place for a host has a relay
/// of its own before it.
pub fn broker() -> Options {
    let session = SESSION.as_millis().to_string();
    let properties = [
        ("group.min.session.timeout.ms", "1000"),
        ("group.consumer.min.session.timeout.ms", "1000"),
        ("group.consumer.session.timeout.ms", session.as_str()),
        ("group.consumer.min.heartbeat.interval.ms", "500"),
        ("group.consumer.heartbeat.interval.ms", "500"),
        // A broker that died comes back when the controller no longer takes its predecessor for alive.
        ("broker.session.timeout.ms", "2000"),
        ("broker.heartbeat.interval.ms", "500"),
        ("offsets.topic.segment.bytes", "1073741824"),
    ];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    Options { properties, relays: SLOTS, ..Options::default() }
}

struct Run {
    kafka: Arc<Kafka>,
    /// The broker on its way up.
    starting: Option<JoinHandle<()>>,
    topics: Topics,
    group: String,
    hosts: Hosts,
    producers: Producers,
    journal: Journal,
    faults: BTreeMap<Fault, u32>,
    crashes: Vec<Crash>,
    wrong: Vec<String>,
}

/// Runs what was asked for and prints the report; false when anything is wrong.
pub fn run(kafka: Kafka, arguments: &Arguments) -> bool {
    let steps = draw(arguments.seed, arguments.length(), &arguments.only);
    let name = unique("chaos");
    let mut run = Run::new(Arc::new(kafka), &name, arguments);
    for step in &steps {
        run.wait_until(step.at);
        run.carry_out(step);
    }
    run.heal();
    run.judge(arguments, &name)
}

impl Run {
    fn new(kafka: Arc<Kafka>, name: &str, arguments: &Arguments) -> Run {
        let topic = |part: &str| format!("{name}-{part}");
        let topics = Topics { input: topic("in"), out: topic("out"), batched: topic("batched"), dead: topic("dead") };
        create_topic(&kafka, &topics.input, PARTITIONS);
        for kind in Kind::ALL {
            // The broker's clock tells what came before what, commits included.
            let properties = [("message.timestamp.type", "LogAppendTime")];
            create_topic_with(&kafka, topics.of(kind), OUTPUT_PARTITIONS, &properties);
        }
        let options = HostOptions::manifest(&kafka, name, &manifest(name, &topics, arguments))
            .kafka_property("topic.metadata.refresh.interval.ms", "1000");
        let relays = (0..SLOTS).map(|place| kafka.relay(place).address().to_string()).collect();
        let mut hosts = Hosts::new(options, relays);
        hosts.fill(0..AT_FIRST);
        let producers = Producers::start(&kafka, &topics.input, name, PARTITIONS, arguments.rate);
        Run {
            kafka,
            starting: None,
            topics,
            group: name.to_owned(),
            hosts,
            producers,
            // Last: its clock is the plan's.
            journal: Journal::new(scratch().join(name)),
            faults: BTreeMap::new(),
            crashes: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Waits for the time of a step; hosts that end meanwhile are noted and replaced.
    fn wait_until(&mut self, at: Duration) {
        let due = self.journal.begun() + at;
        loop {
            self.look_after();
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn look_after(&mut self) {
        for wrong in self.hosts.look_after(self.journal.directory()) {
            self.journal.note(&wrong);
            self.wrong.push(wrong);
            self.hosts.fill(0..1);
        }
    }

    fn carry_out(&mut self, step: &Step) {
        if let Some(fault) = step.fault {
            *self.faults.entry(fault).or_default() += 1;
        }
        let logs = self.journal.directory();
        let (what, crash) = match step.action {
            Action::Kill(place) => (format!("SIGKILL {}", self.hosts.kill(place, logs)), true),
            Action::Start(place) => (self.hosts.start(place), false),
            Action::Pause(place) => (format!("SIGSTOP {}", self.hosts.signal(place, libc::SIGSTOP)), true),
            Action::Resume(place) => (format!("SIGCONT {}", self.hosts.signal(place, libc::SIGCONT)), false),
            Action::Leave(place) => (format!("SIGTERM {}", self.hosts.leave(place)), false),
            Action::Stall(place) => {
                self.kafka.relay(place).stall();
                (format!("the network of place {place} stalls"), true)
            }
            Action::Cut(place) => {
                self.kafka.relay(place).cut();
                (format!("the network of place {place} is cut"), true)
            }
            Action::Restore(place) => {
                self.kafka.relay(place).restore();
                (format!("the network of place {place} works again"), false)
            }
            Action::KillBroker => {
                self.broker_is_up();
                self.kafka.kill();
                ("SIGKILL broker".to_owned(), true)
            }
            Action::StartBroker => {
                let kafka = Arc::clone(&self.kafka);
                self.starting = Some(std::thread::spawn(move || kafka.start()));
                ("broker starts".to_owned(), false)
            }
            Action::Partitions(count) => {
                self.broker_is_up();
                add_partitions(&self.kafka, &self.topics.input, count);
                self.producers.use_partitions(count);
                (format!("{count} partitions"), false)
            }
        };
        let at = self.journal.note(&what);
        if crash {
            self.crashes.push(Crash { at, what });
        }
    }

    fn broker_is_up(&mut self) {
        if let Some(starting) = self.starting.take() {
            starting.join().expect("the broker comes up");
        }
    }

    /// Ends every fault, and lets records flow for a while.
    fn heal(&mut self) {
        self.broker_is_up();
        for place in 0..SLOTS {
            self.hosts.signal(place, libc::SIGCONT);
            self.kafka.relay(place).restore();
        }
        self.hosts.fill(0..AT_FIRST);
        self.journal.note("healed");
        let calm = self.journal.begun().elapsed() + CALM;
        self.wait_until(calm);
    }

    /// Waits until all is done and everybody has gone, and says what became of it.
    fn judge(mut self, arguments: &Arguments, name: &str) -> bool {
        let ledger = self.producers.stop();
        self.journal.note(&format!("producers stopped, {} records acknowledged", ledger.len()));
        self.catch_up();
        for place in 0..SLOTS {
            self.hosts.leave(place);
        }
        while self.hosts.anyone_leaving() {
            self.look_after();
            std::thread::sleep(LOOK);
        }
        self.journal.note("hosts left");
        let file = self.journal.directory().join("transcript.txt");
        reader::write(&self.kafka, &self.group, &self.topics, &file);
        self.journal.note("transcript written");
        let transcript = reader::read(self.topics.clone(), &file);
        let rules = Rules {
            mode: if arguments.ack == "receive" { Mode::AtMostOnce } else { Mode::AtLeastOnce },
            run: name.to_owned(),
            versions: versions(),
            output_partitions: OUTPUT_PARTITIONS,
            crashes: std::mem::take(&mut self.crashes),
            ledger,
        };
        let verdict = judge(&transcript, &rules);
        self.journal.note(&format!("transcript judged, {} outputs", transcript.outputs.len()));
        let faults: Vec<String> = self.faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
        let (faults, protocol, seed) = (faults.join(" ").to_lowercase(), &arguments.protocol, arguments.seed);
        let deaths = self.wrong.len();
        let report =
            format!("REPORT {verdict}, hosts that failed {deaths}, faults: {faults}, protocol {protocol}, seed {seed}");
        self.journal.note(&report);
        let good = verdict.is_good() && self.wrong.is_empty();
        let directory = self.journal.directory();
        if !good {
            eprint!("{}", verdict.findings());
            std::fs::write(directory.join("findings.txt"), verdict.findings()).expect("the findings can be written");
        }
        if good && !arguments.keep {
            std::fs::remove_dir_all(directory).expect("the directory of the run can be removed");
        }
        println!("{report}");
        good
    }

    /// Waits until the group has committed everything. Standing still is a finding, and what the hosts say of it is kept.
    fn catch_up(&mut self) {
        let ends = end_offsets(&self.kafka, &self.topics.input);
        let mut commits = Commits::of(&self.kafka, &self.group, &self.topics.input);
        let topic = self.topics.input.clone();
        let open = |commits: &Commits| -> Vec<(usize, i64, Option<i64>)> {
            let all = ends.iter().enumerate().filter(|(_, end)| **end > 0);
            all.map(|(partition, end)| (partition, *end, commits.last(&topic, partition as i32)))
                .filter(|(_, end, committed)| *committed != Some(*end))
                .collect()
        };
        if commits.wait_until(CATCH_UP, |commits| open(commits).is_empty()) {
            self.journal.note("all is committed");
        } else {
            let left = format!("not committed after {CATCH_UP:?}: (partition, end, committed) {:?}", open(&commits));
            self.journal.note(&left);
            self.wrong.push(left);
            self.hosts.confess(self.journal.directory());
        }
    }
}

/// The digest of the one component that ran.
fn versions() -> BTreeSet<String> {
    let component = std::fs::read(guest("accounted")).expect("the component can be read");
    let digest = sha2::Sha256::digest(&component).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    [digest].into()
}

fn manifest(name: &str, topics: &Topics, Arguments { protocol, ack, .. }: &Arguments) -> String {
    let Topics { input, out, batched, dead } = topics;
    let component = guest("accounted").display().to_string();
    let session =
        if protocol == "consumer" { String::new() } else { format!("session_timeout = \"{}s\"\n", SESSION.as_secs()) };
    format!(
        "schema = 1\nname = \"{name}\"\n[handler]\ncomponent = \"{component}\"\n[source]\ntopics = [\"{input}\"]\n\
         protocol = \"{protocol}\"\n{session}[ack]\nmode = \"{ack}\"\n\
         [batch.gather]\nmax_messages = 50\nmax_wait = \"200ms\"\n\
         [errors]\nretry = {{ attempts = {ATTEMPTS}, backoff = \"20ms\", max_backoff = \"100ms\" }}\n\
         dead_letter = {{ topic = \"{dead}\" }}\n\
         [output.out]\ntopic = \"{out}\"\nprovenance = true\n\
         [output.batched]\ntopic = \"{batched}\"\nprovenance = true\n"
    )
}
