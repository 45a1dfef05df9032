//! Reads every topic of a pipeline from its beginning, beside the pipeline and without a group. Called from one thread,
//! never waits.

use std::collections::BTreeMap;
use std::convert::Infallible;

use sluicebox_frames::{Frame, Message, Messages, MessagesWriter, Source};

use super::embed::FETCH_WAIT;
use super::show::{Place, Role};
use crate::config::{Cluster, Fetch, Isolation, LostOffset, Pipeline, Protocol, Start, Then};
use crate::kafka::Code;
use crate::kafka::consumer::{Consumer, Event};
use crate::kafka::ffi::PartitionOffset;
use crate::kafka::partition::PartitionQueue;
use crate::kafka::settings::{self, FetchBudget};
use crate::wake::Waker;

/// Most records, and bytes, of one partition that are read before the next one's turn.
const TURN: (usize, usize) = (200, 1024 * 1024);
/// Bytes that librdkafka may fetch ahead for one partition.
const AHEAD: u64 = 1024 * 1024;

/// See the module's text.
pub struct Watch {
    // Queues before their client, which they hold.
    partitions: Vec<Watched>,
    consumer: Consumer,
    frame: Frame,
}

struct Watched {
    queue: PartitionQueue,
    topic: String,
    partition: i32,
    role: Role,
    /// Every record below was read.
    next: i64,
}

impl Watch {
    /// Begins to read. Inputs come first in every turn, so that a record is mostly seen before what came of it.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn start(cluster: &Cluster, pipeline: &Pipeline) -> Result<Self, String> {
        let waker = Waker::default();
        let source = crate::config::Source {
            cluster: cluster.name.clone(),
            topics: Vec::new(),
            // Named, because librdkafka assigns nothing without; never joined, and nothing is committed.
            group: "sluicebox-dev-watch".to_owned(),
            start: Start::Earliest,
            on_lost_offset: LostOffset::Earliest,
            isolation: Isolation::ReadCommitted,
            protocol: Protocol::Range,
            instance_id: None,
            linger: std::time::Duration::ZERO,
            session_timeout: std::time::Duration::from_secs(45),
            fetch: Fetch { max_wait: FETCH_WAIT, ..Fetch::default() },
        };
        let conf = settings::consumer(&source, cluster, "dev-watch", FetchBudget::shared(AHEAD, 1, AHEAD))?;
        let mut consumer = Consumer::new(conf, &waker)?;
        let roles = roles(pipeline);
        let count = i32::try_from(pipeline.dev.partitions).map_err(|_| "too many partitions".to_owned())?;
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        for (topic, role) in roles {
            for partition in 0..count {
                let error = Code::RD_KAFKA_RESP_ERR_NO_ERROR;
                places.push((topic.clone(), partition, role.clone()));
                wanted.push(PartitionOffset { topic: topic.clone(), partition, offset: 0, error });
            }
        }
        let queues = consumer.assign(&wanted)?;
        let partitions = places
            .into_iter()
            .zip(queues)
            .map(|((topic, partition, role), queue)| Watched { queue, topic, partition, role, next: 0 })
            .collect();
        Ok(Self { partitions, consumer, frame: Frame::default() })
    }

    /// Hands out what came since the last turn; false when that was nothing.
    ///
    /// # Errors
    /// The first that `each` has.
    pub fn turn<E>(&mut self, mut each: impl FnMut(Place<'_>, &Message<'_>) -> Result<(), E>) -> Result<bool, E> {
        let mut any = false;
        self.consumer.look_again();
        while let Some(event) = self.consumer.poll() {
            if let Event::Problem { text, .. } = event {
                tracing::debug!("dev watch: {text}");
            }
        }
        for watched in &mut self.partitions {
            if !watched.queue.is_ready() {
                continue;
            }
            let source = Source { topic: &watched.topic, partition: watched.partition.unsigned_abs() };
            let mut burst = MessagesWriter::burst(&mut self.frame, source, 0, false);
            let next = &mut watched.next;
            let filled = watched.queue.fill(&mut burst, TURN.0, TURN.1, |offset| {
                *next = offset + 1;
                Ok::<(), Infallible>(())
            });
            let count = burst.count();
            burst.finish();
            let Ok(filled) = filled;
            if let Some((_, problem)) = filled.problem {
                tracing::debug!("dev watch: {}[{}]: {problem}", watched.topic, watched.partition);
            }
            if count == 0 {
                continue;
            }
            any = true;
            // Nobody announces what is left behind in librdkafka's queue.
            watched.queue.look_again();
            let place = Place { role: &watched.role, topic: &watched.topic, partition: watched.partition };
            for message in Messages::new(&self.frame).iter() {
                each(place, &message)?;
            }
        }
        Ok(any)
    }

    /// Topic, partition, and the offset below which everything was read.
    pub fn positions(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.partitions.iter().map(|watched| (watched.topic.as_str(), watched.partition, watched.next))
    }
}

/// The topics of a pipeline, inputs first. A dead-letter topic that is an output too shows its dead letters as such.
fn roles(pipeline: &Pipeline) -> Vec<(String, Role)> {
    let mut written: BTreeMap<&str, Role> =
        pipeline.outputs.iter().map(|output| (output.topic.as_str(), Role::Output)).collect();
    if let Then::DeadLetter(dead) = &pipeline.errors.then {
        written.insert(&dead.topic, Role::DeadLetter { prefix: dead.header_prefix.clone() });
    }
    let read = pipeline.source.topics.iter().map(|topic| (topic.as_str(), Role::Input));
    read.chain(written).map(|(topic, role)| (topic.to_owned(), role)).collect()
}
