//! What the loop needs of the world: a group's member, its partitions' queues, producers, handlers, a cluster to watch.
//! Traits, and the plain data that crosses them. The real ones are put together in `wiring`; a simulation may have its own.
//!
//! Static dispatch throughout: the loop is compiled for its edges, a record costs no virtual call by them. Time is no edge:
//! it comes as an argument.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, MessagesWriter};

use super::lane::{Call, Reply};
use super::revision::{Build, Revision};
use super::sink::Failure;
use crate::delivery::outgoing::Outgoing;
use crate::delivery::ticket::{self, LaneId, Ticket};

pub use crate::config::Start;
pub use crate::kafka::aging::{Aged, Standing};
pub use crate::kafka::consumer::Event;
pub use crate::kafka::ffi::{PartitionOffset, name as code_name};
pub use crate::kafka::lookup::{BEGINNING, END, Place};
pub use crate::kafka::partition::Filled;
pub use crate::kafka::producer::{Refusal, TopicNumber, Trouble};
pub use crate::kafka::{Code, problem};

/// One choice of edges.
pub trait Edges {
    /// The member of the group.
    type Group: Group;
    /// Producers.
    type Producer: Produce;
    /// Whoever calls handlers.
    type Handlers: Handlers;
    /// Asks a cluster whether it is back.
    type Watch: Watch;
    /// Reads records again.
    type Rereader: Reread;
    /// Counts partitions of topics that are written.
    type Survey: Survey;
}

/// The queue of a group's partition.
pub type QueueOf<E> = <<E as Edges>::Group as Group>::Queue;
/// The way to a lane's handler instance.
pub type HandleOf<E> = <<E as Edges>::Handlers as Handlers>::Handle;
/// Builds of the handler.
pub type BuildOf<E> = <<E as Edges>::Handlers as Handlers>::Build;

/// A member of a consumer group. Events come by polling; a rebalance is answered by `assign` or `unassign` when the loop is
/// ready.
pub trait Group {
    /// Messages of one partition.
    type Queue: Queue;

    /// The next event, without waiting.
    fn poll(&mut self) -> Option<Event>;
    /// Says whether some partition has a backlog, which makes fetches wait less for those that have nothing.
    fn catching_up(&mut self, behind: bool);
    /// Takes in that partitions were assigned, and asks where to begin with them; answered by an [`Event::Placed`] of the
    /// number that this gives. Partitions that are here already are read on meanwhile, where the protocol allows it.
    ///
    /// # Errors
    /// For people.
    fn look_up(&mut self, partitions: &[PartitionOffset], start: Start) -> Result<u64, String>;
    /// Reads partitions from the offsets given with them; their queues in the same order.
    ///
    /// # Errors
    /// For people.
    fn assign(&mut self, partitions: &[PartitionOffset]) -> Result<Vec<Self::Queue>, String>;
    /// Gives partitions back: the last step of a revocation. Their queues were dropped before.
    ///
    /// # Errors
    /// For people.
    fn unassign(&mut self, partitions: &[PartitionOffset]) -> Result<(), String>;
    /// Reads an assigned partition from another offset; its queue was told to [`Queue::restart`].
    ///
    /// # Errors
    /// For people.
    fn seek(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), String>;
    /// The same where its lane stands already, which goes on in its ownership epoch.
    ///
    /// # Errors
    /// For people.
    fn fetch_again(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), String> {
        self.seek(topic, partition, offset)
    }
    /// Sends a commit of *next* offsets, which is answered by an event.
    ///
    /// # Errors
    /// For people, when nothing was sent.
    fn commit<'a>(&mut self, offsets: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> Result<(), String>;
    /// Where fetching stands: behind the last record that was handed out and the markers after it.
    fn positions<'a>(&self, partitions: impl ExactSizeIterator<Item = (&'a str, i32)>) -> Vec<Option<i64>>;
    /// The end of a partition's log, as far as known.
    fn log_end(&self, topic: &str, partition: i32) -> Option<i64>;
    /// The oldest offset of a partition's log, as far as known.
    fn log_start(&self, topic: &str, partition: i32) -> Option<i64>;
    /// Asks how long the records have left at which partitions stand; answered by an [`Event::Aged`].
    ///
    /// # Errors
    /// For people.
    fn ask_for_ages(&mut self, standing: Vec<Standing>) -> Result<(), String>;
    /// Looks for events though nobody announced any. Called once in a while, well within `max.poll.interval.ms`.
    fn look_again(&self);
    /// Begins to leave the group: a last revocation comes, which has to be answered.
    ///
    /// # Errors
    /// For people.
    fn begin_close(&mut self) -> Result<(), String>;
    /// True when the group is left.
    fn is_closed(&self) -> bool;
    /// The number of a new ownership of a partition; grows.
    fn next_epoch(&mut self) -> u64;
}

/// Fetched messages of one partition.
pub trait Queue {
    /// True when there may be something to fill a burst with.
    fn is_ready(&self) -> bool;
    /// True when every message that was fetched was packed, so that the position is where the lane stands.
    fn is_read_up(&self) -> bool;
    /// Looks again though nobody said so.
    fn look_again(&self);
    /// Forgets what was fetched.
    fn restart(&mut self);
    /// Packs messages into a burst until it holds `max_messages`, or `max_bytes` of payload and more than one message, or
    /// there is no more. `each` gets the offset of every message that is packed; what it refuses is not.
    ///
    /// # Errors
    /// What `each` says.
    fn fill<E>(
        &mut self,
        burst: &mut MessagesWriter<'_>,
        max_messages: usize,
        max_bytes: usize,
        each: impl FnMut(i64) -> Result<(), E>,
    ) -> Result<Filled, E>;
}

/// A producer.
pub trait Produce {
    /// Records are about to come: whatever has to be there for them is made, if it is not.
    fn expect(&mut self) {}
    /// Takes in a record; it leaves with a later [`Produce::send`].
    fn append(&mut self, topic: TopicNumber, partition: u32, record: &Outgoing<'_>, ticket: Ticket);
    /// Sends what gathered. Records that are refused on the spot go to `refused`.
    fn send(&mut self, now: Instant, refused: &mut Vec<(Ticket, Refusal)>);
    /// Takes in reports. `delivered` gets the tickets of records that are durable; `refused` those that never will be.
    fn poll(
        &mut self,
        now: Instant,
        delivered: impl FnMut(ticket::Run),
        refused: &mut Vec<(Ticket, Refusal)>,
        trouble: &mut Vec<Trouble>,
    );
    /// A topic has more partitions than it had.
    fn grow(&mut self, topic: TopicNumber, partitions: u32);
    /// Drops what waits to be sent for these lanes.
    fn forget(&mut self, lanes: &[LaneId]);
    /// When [`Produce::poll`] has something to do though no report came.
    fn deadline(&self) -> Option<Instant>;
    /// Bytes that were not reported on.
    fn bytes(&self) -> usize;
    /// The same of one lane.
    fn bytes_of(&self, lane: LaneId) -> usize;
    /// Records that were not reported on.
    fn records(&self) -> usize;
    /// Nothing waits for reports to be sent after them.
    fn has_sent_all(&self) -> bool;
    /// Records and bytes that a topic took.
    fn produced(&self, topic: TopicNumber) -> (u64, u64);
    /// Records of a topic that were refused for good.
    fn refused(&self, topic: TopicNumber) -> u64;
    /// Looks for reports though nobody announced any.
    fn look_again(&self);
}

/// Calls handlers, off the loop's thread.
pub trait Handlers {
    /// A build of the handler.
    type Build: Build;
    /// The way to one lane's instance. Dropping it ends the instance.
    type Handle: Handle;

    /// Gives a lane its instance, which its first call starts.
    fn open(&mut self, lane: LaneId, revision: &Arc<Revision<Self::Build>>) -> Self::Handle;
    /// Begins to start an instance for a switch to this revision that comes; the lane's calls go on meanwhile. What was
    /// prepared before is given up.
    fn prepare(&mut self, handle: &Self::Handle, at: (&Arc<str>, i32), to: &Arc<Revision<Self::Build>>);
    /// Whether that is over, well or not; a failure is told once.
    fn prepared(&mut self, handle: &Self::Handle) -> Option<Result<(), Failure>>;
    /// The switch does not come after all.
    fn give_up_prepared(&mut self, handle: &Self::Handle);
    /// Hands over a switch, which is a call like others: the instance that was prepared, or else a new one, then the old
    /// one's state for it, then the end of the old one. `must`: the lane goes over also when the new instance does not
    /// start; its next call starts it.
    ///
    /// # Errors
    /// As [`Handle::call`].
    fn switch(
        &mut self,
        handle: &Self::Handle,
        at: (&Arc<str>, i32),
        to: &Arc<Revision<Self::Build>>,
        must: bool,
    ) -> Result<(), String>;
    /// The next call that ended, without waiting.
    fn answered(&mut self) -> Option<Answered>;
    /// Instances of lanes that are opened from now on see so many partitions of an output.
    fn show_partitions(&mut self, output: usize, partitions: u32);
}

/// The way to a lane's handler instance.
pub trait Handle {
    /// Hands over a call. There is room: a lane has one at a time.
    ///
    /// # Errors
    /// When nobody takes it, which only a bug of the host's does.
    fn call(&self, call: Call) -> Result<(), String>;
}

/// A call that ended.
#[derive(Debug)]
pub struct Answered {
    /// Whose.
    pub lane: LaneId,
    /// The call's frame, given back.
    pub frame: Frame,
    /// How it ended; `None`: the call's task panicked, and its messages are gone with it.
    pub reply: Option<Reply>,
    /// How long the call took.
    pub took: Duration,
    /// Memory of the lane's instance afterwards, bytes; 0 when it is gone.
    pub memory: u64,
    /// The instance answered, and was then replaced because it was old.
    pub renewed: Option<Renewed>,
}

/// How an old instance was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It went with all that it knew; the next call makes a new one.
    Fresh,
    /// The new one is there, with the old one's state.
    Restored,
}

/// Asks a cluster that went away whether it is back: clients say the one and not the other.
pub trait Watch: Debug {
    /// Begins to ask, unless it does already.
    fn begin(&mut self);
    /// What was heard since this was asked last.
    fn answered(&mut self) -> Option<Heard>;
}

/// What a cluster that is asked about says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It answers; a topic that the pipeline reads is missing still, so the asking goes on.
    Cluster,
    /// It answers, and has every topic.
    Topics,
}

/// Counts the partitions of the topics behind the outlets, off the loop's thread.
pub trait Survey {
    /// Asks, unless a question is under way.
    fn ask(&mut self);
    /// The answer, once; topics of a cluster that did not answer are not in it.
    fn answered(&mut self) -> Option<Vec<Counted>>;
}

/// A topic that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Place of its outlet: that of the output, or behind the last for dead letters. None for an input.
    pub outlet: Option<usize>,
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
}

/// Reads single records again, off the loop's thread, through any outage.
pub trait Reread {
    /// Asks for the records of a lane's partition at these offsets, ascending.
    fn ask(&mut self, lane: LaneId, topic: &str, partition: i32, offsets: Vec<i64>);
    /// The next answer, without waiting.
    fn answered(&mut self) -> Option<Found>;
}

/// Records that were read again.
#[derive(Debug)]
pub struct Found {
    /// Whose.
    pub lane: LaneId,
    /// A burst with those that are still in the topic; empty when none is.
    pub frame: Frame,
    /// What was asked for, and is answered by this.
    pub offsets: Vec<i64>,
}
