//! A pipeline that runs on the embedded broker, until it is asked to stop or every sample record met its fate. One thread
//! does it all, every [`TICK`]: feeds, prints, and asks the broker how far the group is.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::{Refusal, Talk};
use crate::admin::view::short;
use crate::app::App;
use crate::cli::exit::Exit;
use crate::cli::host::Signals;
use crate::config::Pipeline;
use crate::dev::account::{Account, account};
use crate::dev::broker::EmbeddedBroker;
use crate::dev::fate::{Fate, InputPartition, fate};
use crate::dev::feed::Feed;
use crate::dev::show;
use crate::dev::watch::Watch;
use crate::kafka::offsets::Offsets;
use crate::pipeline::control::Stage;
use crate::pipeline::lane::LaneState;
use crate::pipeline::status::{Figures, State};

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(10);
/// How often the broker is asked how far the group is, at most.
const ASK: Duration = Duration::from_millis(100);
/// How long the broker, which is in this process, may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// `--once` gives up when nothing moved for so long.
const NO_PROGRESS: Duration = Duration::from_secs(60);
/// `--once` gives up on a pipeline that cannot start for so long: there is nothing outside of it that could help.
const WAITING: Duration = Duration::from_secs(5);
/// The summary is printed when the figures stood still for so long, or changed for so long.
const SUMMARY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The pipeline's figures are never older than this.
const SNAPSHOT: Duration = Duration::from_millis(300);
/// After a swap all that is under way is waited for so long, for the counts to be final.
const COUNTED: Duration = Duration::from_secs(5);
/// How long the records that are left may take to be read and printed.
const CATCH_UP: Duration = Duration::from_secs(10);

/// See the module's text. Fields go in their order: the broker last.
pub(super) struct Session {
    pub app: App,
    pub feed: Feed,
    pub watch: Watch,
    pub offsets: Offsets,
    pub broker: EmbeddedBroker,
    pub pipeline: Arc<Pipeline>,
    pub talk: Talk,
    pub drain: Duration,
    pub once: bool,
    /// Records as JSON.
    pub json: bool,
    /// Records with their headers.
    pub headers: bool,
}

/// Why it ends.
enum Ending {
    /// By a signal, or because nobody reads the records any more.
    Asked,
    /// Every sample record met its fate.
    Settled,
    /// Some did not.
    Failed(Vec<String>),
}

/// What the turns remember.
struct Memory {
    live: bool,
    fed: bool,
    /// Nobody takes the records that are printed.
    mute: bool,
    asked: Instant,
    /// Sum of everything that grows when something moves, and when it last did.
    progress: (i64, Instant),
    /// Counts of the last summary.
    said: Option<Counts>,
    /// Counts of now, and since when.
    counts: (Counts, Instant),
    said_at: Instant,
    /// The last order that was told of, and the end of one that is not told yet.
    swap: (u64, Option<Instant>),
}

/// What the summary says of the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    consumed: u64,
    settled: u64,
    dead_lettered: u64,
    blocked: usize,
}

impl Counts {
    fn of(figures: &Figures) -> Self {
        let sum = |count: fn(&crate::pipeline::status::TopicFigures) -> u64| figures.topics.values().map(count).sum();
        Self {
            consumed: sum(|topic| topic.consumed),
            settled: sum(|topic| topic.settled),
            dead_lettered: sum(|topic| topic.dead_lettered),
            blocked: figures.lanes.iter().filter(|lane| matches!(lane.state, LaneState::Blocked(_))).count(),
        }
    }
}

impl Session {
    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<Exit, Refusal> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Refusal::new(Exit::Failed, format_args!("no runtime for signals: {error}")))?;
        let ending = runtime.block_on(self.until_the_end());
        let ending = ending.map_err(|error| Refusal::new(Exit::Failed, error))?;
        let Some((ending, blocked)) = ending else {
            self.talk.say("stopped by force");
            std::process::exit(Exit::Interrupted as i32);
        };
        self.catch_up();
        // Lanes are gone by now, and what was blocked with them.
        self.summary(Counts { blocked, ..Counts::of(&self.status().figures()) });
        self.app.join();
        match ending {
            Ending::Asked | Ending::Settled => Ok(Exit::Ok),
            Ending::Failed(reasons) => {
                let lines: String = reasons.iter().map(|reason| format!("error: {reason}\n")).collect();
                Err(Refusal(Exit::Failed, lines))
            }
        }
    }

    /// Turns until there is a reason to end, then the stop. `None`: a second signal ended the stop.
    /// With the number of partitions that were blocked then.
    async fn until_the_end(&mut self) -> io::Result<Option<(Ending, usize)>> {
        let mut signals = Signals::new()?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Memory::new(Instant::now());
        let ending = loop {
            tokio::select! {
                () = signals.next() => break Ending::Asked,
                _ = tick.tick() => {
                    if let Some(ending) = self.turn(&mut memory, Instant::now()) {
                        break ending;
                    }
                }
            }
        };
        let blocked = Counts::of(&self.status().figures()).blocked;
        self.app.stop(self.drain);
        loop {
            tokio::select! {
                () = signals.next() => return Ok(None),
                _ = tick.tick() => {
                    _ = self.print();
                    if self.app.has_ended() {
                        return Ok(Some((ending, blocked)));
                    }
                }
            }
        }
    }

    fn turn(&mut self, memory: &mut Memory, now: Instant) -> Option<Ending> {
        for trouble in self.feed.turn(now) {
            tracing::warn!("feed: {trouble}");
        }
        if !memory.mute && self.print().is_err() {
            // `sluicebox dev … | head`: nobody reads on. The exit code of `--once` is still of use.
            memory.mute = true;
            if !self.once {
                return Some(Ending::Asked);
            }
        }
        if self.app.has_ended() {
            return Some(Ending::Failed(vec!["the pipeline ended by itself".to_owned()]));
        }
        self.introduce(memory);
        self.tell_of_swap(memory, now);
        let counts = Counts::of(&self.status().figures());
        if counts != memory.counts.0 {
            memory.counts = (counts, now);
        }
        if self.once {
            return self.judge(memory, now);
        }
        let quiet = now.duration_since(memory.counts.1) >= SUMMARY.0 && self.feed.is_over();
        let news = memory.said != Some(counts) && counts != Counts::default();
        if news && (quiet || now.duration_since(memory.said_at) >= SUMMARY.1) {
            self.summary(counts);
            (memory.said, memory.said_at) = (Some(counts), now);
        }
        None
    }

    fn status(&self) -> &crate::pipeline::status::PipelineStatus {
        &self.app.statuses()[0]
    }

    /// Says, once each, that the pipeline is there, and what became of the feed.
    fn introduce(&self, memory: &mut Memory) {
        let Pipeline { source, dev, .. } = &*self.pipeline;
        if !memory.live && self.status().state().0 == State::Running {
            memory.live = true;
            let topics = source.topics.join(", ");
            let partitions = dev.partitions;
            self.talk.say(format_args!("live   group {} reads {topics} ({partitions} partitions each)", source.group));
        }
        if !memory.fed && self.feed.is_over() {
            memory.fed = true;
            for failure in self.feed.failures() {
                eprintln!("error: {failure}");
            }
            if self.feed.is_empty() {
                let (topic, address) = (source.topics.first().map_or("", String::as_str), self.broker.address());
                self.talk.say(format_args!("feed   no samples; produce to {topic} with any Kafka client: {address}"));
            } else {
                self.talk.say(format_args!("feed   {} samples fed", self.feed.len() - self.feed.failures().len()));
            }
        }
    }

    /// Says, once, what became of another version: that every partition runs it, and what that cost by the counts.
    fn tell_of_swap(&self, memory: &mut Memory, now: Instant) {
        let swap = self.app.live()[0].control.progress();
        if swap.number == memory.swap.0 || !swap.stage.is_settled() {
            return;
        }
        let over = *memory.swap.1.get_or_insert(now);
        let versions = format!("{} -> {}", short(&swap.from), short(&swap.to));
        let gap = format!("longest gap of a partition {:.1} ms", swap.gaps.max.as_secs_f64() * 1000.0);
        let text = match (&swap.stage, account(&self.status().figures())) {
            (Stage::RolledBack(reason), _) => format!("{} serves again: {reason}", short(&swap.from)),
            // The snapshot may be older than the swap.
            _ if now.duration_since(over) < SNAPSHOT => return,
            (_, Some(Account { lost, repeated })) => {
                let lanes = swap.gaps.lanes;
                format!("{versions} live on {lanes} partitions, {lost} lost, {repeated} repeated, {gap}")
            }
            (_, None) if now.duration_since(over) < COUNTED => return,
            (_, None) => format!("{versions} live on {} partitions, {gap}; records are under way", swap.gaps.lanes),
        };
        self.talk.say(format_args!("swap   {text}"));
        memory.swap = (swap.number, None);
    }

    /// `--once`: has every record met its fate?
    fn judge(&mut self, memory: &mut Memory, now: Instant) -> Option<Ending> {
        if !self.feed.is_over() {
            memory.progress.1 = now;
            return None;
        }
        if now < memory.asked + ASK {
            return None;
        }
        let asked = self.inputs();
        memory.asked = Instant::now();
        let inputs = match asked {
            Ok(inputs) => inputs,
            Err(error) => return Some(Ending::Failed(vec![format!("the embedded broker does not answer: {error}")])),
        };
        let settled = i64::try_from(memory.counts.0.settled).unwrap_or(0);
        let moved = inputs.iter().map(|input| input.end + input.committed.unwrap_or(0)).sum::<i64>() + settled;
        if moved != memory.progress.0 {
            memory.progress = (moved, now);
        }
        match fate(&inputs) {
            Fate::Settled if self.feed.failures().is_empty() => Some(Ending::Settled),
            Fate::Settled => Some(Ending::Failed(self.feed.failures().to_vec())),
            Fate::Blocked(reasons) => Some(Ending::Failed(reasons)),
            Fate::Open(reasons) => match self.status().state() {
                (State::Waiting, Some(reason), since) if now.duration_since(since) >= WAITING => {
                    Some(Ending::Failed(vec![format!("the pipeline waits: {reason}")]))
                }
                // It would go on in a minute; whoever waits here for one pass over the samples has read enough.
                (State::Paused, Some(reason), _) => {
                    Some(Ending::Failed(vec![format!("the pipeline pauses: {reason}")]))
                }
                _ if now.duration_since(memory.progress.1) >= NO_PROGRESS => {
                    let mut lines = vec![format!("nothing moved for {} s", NO_PROGRESS.as_secs())];
                    lines.extend(reasons);
                    Some(Ending::Failed(lines))
                }
                _ => None,
            },
        }
    }

    /// Every input partition, as the broker and the pipeline see it.
    fn inputs(&self) -> Result<Vec<InputPartition>, String> {
        let Pipeline { source, dev, .. } = &*self.pipeline;
        let count = i32::try_from(dev.partitions).unwrap_or(i32::MAX);
        let partitions: Vec<(&str, i32)> = source
            .topics
            .iter()
            .flat_map(|topic| (0..count).map(move |partition| (topic.as_str(), partition)))
            .collect();
        // First how far the group is, then the ends: what comes between the two is seen as open, not as settled.
        let committed = self.offsets.committed(&partitions, ANSWER)?;
        let lanes = self.status().figures().lanes;
        partitions
            .into_iter()
            .zip(committed)
            .map(|((topic, partition), committed)| {
                Ok(InputPartition {
                    topic: topic.to_owned(),
                    partition,
                    end: self.offsets.end(topic, partition, ANSWER)?,
                    committed,
                    lane: lanes.iter().find(|lane| *lane.topic == *topic && lane.partition == partition).cloned(),
                })
            })
            .collect()
    }

    /// Prints the records that came.
    fn print(&mut self) -> io::Result<bool> {
        let (json, headers) = (self.json, self.headers);
        let mut data = io::stdout().lock();
        self.watch.turn(|place, message| {
            if json {
                writeln!(data, "{}", show::json(place, message))
            } else {
                writeln!(data, "{}", show::text(place, message, headers))
            }
        })
    }

    /// Prints what is in the topics and was not read yet. Nobody writes to them any more but somebody's own client.
    fn catch_up(&mut self) {
        let ends: Result<Vec<i64>, String> =
            self.watch.positions().map(|(topic, partition, _)| self.offsets.end(topic, partition, ANSWER)).collect();
        let ends = match ends {
            Ok(ends) => ends,
            Err(error) => return tracing::warn!("the last records may be missing: {error}"),
        };
        let until = Instant::now() + CATCH_UP;
        while Instant::now() < until && self.watch.positions().zip(&ends).any(|((_, _, next), end)| next < *end) {
            match self.print() {
                Ok(true) => {}
                Ok(false) => std::thread::sleep(TICK),
                Err(_) => return,
            }
        }
    }

    fn summary(&self, Counts { consumed, settled, dead_lettered, blocked }: Counts) {
        let lag = match self.inputs() {
            Ok(inputs) => inputs.iter().map(InputPartition::lag).sum::<u64>().to_string(),
            Err(_) => "?".to_owned(),
        };
        let done = settled.saturating_sub(dead_lettered);
        self.talk.say(format_args!(
            "feed   in {consumed}  done {done}  dead-lettered {dead_lettered}  blocked {blocked}  lag {lag}"
        ));
    }
}

impl Memory {
    fn new(now: Instant) -> Self {
        Self {
            live: false,
            fed: false,
            mute: false,
            asked: now,
            progress: (0, now),
            said: None,
            counts: (Counts::default(), now),
            said_at: now,
            swap: (0, None),
        }
    }
}
