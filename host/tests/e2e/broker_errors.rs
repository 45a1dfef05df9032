//! What a host does when its brokers answer with errors, on librdkafka's mock cluster. Every cell of the tables below is a
//! pipeline of its own with a cluster of its own, whose first, second or third request of the kind gets the error.
//!
//! Two brokers: one leads the input and coordinates the group, the other one leads the output. So what our own clients ask is
//! told apart from what the host asks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use rdkafka_sys::types::RDKafkaRespErr as Code;
use rdkafka_sys::types::RDKafkaRespErr::*;

use crate::check::{Site, manifest, output};
use crate::support::PATIENCE;
use crate::support::client::{NewRecord, Producer, Reader, try_committed};
use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::mock::{Mock, Request};
use crate::support::unique;

/// Records come in so many turns, each after the one before is through: so there are a second and a third request.
const TURNS: usize = 4;
/// One record at a time where errors meet the second or third request to produce: librdkafka may send several records as two
/// requests, and the mock takes the second though it refused the first, as no broker does that knows the producer.
const EACH: usize = 20;
const POSITIONS: usize = 3;

/// Leads the input and coordinates the group.
const READS: i32 = 1;
/// Leads the output.
const WRITES: i32 = 2;

/// One error at one place.
struct Cell {
    name: String,
    what: String,
    request: Request,
    mock: Mock,
    input: String,
    /// Records of a turn.
    each: usize,
    producer: Producer,
    reader: Reader,
    /// How often each record arrived.
    arrived: BTreeMap<String, usize>,
}

impl Cell {
    fn new(request: Request, error: Code, position: usize) -> Cell {
        let mock = Mock::start(2);
        let (name, input) = (unique("cell"), unique("in"));
        let output = input.replacen("in", "out", 1);
        for (topic, leader) in [(&input, READS), (&output, WRITES)] {
            mock.create_topic(topic, 1);
            mock.move_leader(topic, 0, leader);
        }
        mock.move_coordinator(&name, READS);
        let (producer, reader) = (Producer::new(mock.kafka()), Reader::new(mock.kafka(), &output));
        let cell = Cell {
            name,
            what: format!("{request:?} {error:?} at {position}"),
            request,
            input,
            each: if request == Request::Produce && position > 1 { 1 } else { EACH },
            producer,
            reader,
            arrived: BTreeMap::new(),
            mock,
        };
        // Our own producer is known to its brokers from here on: what comes now is the host's.
        cell.produce(0);
        let mut answers = vec![(RD_KAFKA_RESP_ERR_NO_ERROR, 0); position - 1];
        answers.push((error, 0));
        for broker in cell.brokers() {
            cell.mock.answer(*broker, request, &answers);
        }
        cell
    }

    /// Which brokers get requests of this kind.
    fn brokers(&self) -> &'static [i32] {
        match self.request {
            Request::Produce => &[WRITES],
            Request::FindCoordinator | Request::InitProducerId | Request::ApiVersions => &[READS, WRITES],
            _ => &[READS],
        }
    }

    fn topic_of_output(&self) -> String {
        self.input.replacen("in", "out", 1)
    }

    fn produce(&self, turn: usize) {
        let records: Vec<NewRecord> = (0..self.each).map(|n| NewRecord::new("key", format!("{turn}-{n:02}"))).collect();
        self.producer.send(&self.input, &records);
    }

    /// Waits until all of so many turns arrived; false when they do not.
    fn wait_for(&mut self, turns: usize, deadline: Instant) -> bool {
        let mut records = Vec::new();
        while self.arrived.len() < turns * self.each {
            if !self.reader.read_into(&mut records, deadline) {
                return false;
            }
            for record in records.drain(..) {
                *self.arrived.entry(record.value_text().to_owned()).or_default() += 1;
            }
        }
        true
    }

    /// The error was given: there was such a request.
    fn was_reached(&self) -> bool {
        self.brokers().iter().any(|broker| self.mock.left(*broker, self.request) == 0)
    }

    /// Whether the group has committed all. An error that nobody met may be met by this question, which is asked again then.
    fn is_committed(&self) -> bool {
        let committed = try_committed(self.mock.kafka(), &self.name, &self.input, 1);
        committed.is_ok_and(|committed| committed == [Some((TURNS * self.each) as i64)])
    }

    fn repeated(&self) -> usize {
        self.arrived.values().map(|times| times - 1).sum()
    }

    fn manifest(&self) -> String {
        let cluster = format!("cluster = \"{}\"\n", self.name);
        let source = format!("{cluster}protocol = \"consumer\"");
        let rest = format!("{}{cluster}[ack]\ncommit_interval = \"50ms\"\n", output("out", &self.topic_of_output()));
        manifest(&self.name, &guest("forward"), &self.input, &source, &rest)
    }
}

/// What `/readyz` says of a pipeline.
fn reason(host: &SluiceHost, name: &str) -> String {
    let body = host.get("/readyz").body;
    let own = body.split(&format!("\"name\":\"{name}\"")).nth(1).unwrap_or_default();
    own.split("\"name\":").next().unwrap_or_default().to_owned()
}

/// Proves: whichever request of this kind is answered with one of these errors, the pipeline it happens to goes on by itself:
/// every record arrives, in the end all is committed, the process lives, and the other pipelines of the process do as well.
fn all_recover(request: Request, errors: &[Code]) {
    // Each takes a second to set up, mostly waiting.
    let mut cells: Vec<Cell> = std::thread::scope(|scope| {
        let cells = errors.iter().flat_map(|error| (1..=POSITIONS).map(move |position| (*error, position)));
        let starts: Vec<_> =
            cells.map(|(error, position)| scope.spawn(move || Cell::new(request, error, position))).collect();
        starts.into_iter().map(|cell| cell.join().expect("a cell is set up")).collect()
    });
    let clusters: String = cells.iter().map(|cell| Site::cluster(&cell.name, cell.mock.kafka())).collect();
    let site = Site::new(&clusters);
    cells.iter().for_each(|cell| site.add(&cell.name, &cell.manifest()));
    let host = site.start();
    let mut stuck = String::new();
    for turn in 1..=TURNS {
        let deadline = Instant::now() + PATIENCE;
        for cell in &mut cells {
            if !cell.wait_for(turn, deadline) {
                let (arrived, why) = (cell.arrived.len(), reason(&host, &cell.name));
                writeln!(stuck, "{}: {arrived} records of {}: {why}", cell.what, turn * cell.each).expect("text");
            }
            if turn < TURNS {
                cell.produce(turn);
            }
        }
        assert!(stuck.is_empty(), "\n{stuck}");
    }
    for cell in &cells {
        host.process().wait_until(&format!("{}: not committed", cell.what), PATIENCE, || cell.is_committed());
    }
    let reached = cells.iter().filter(|cell| cell.was_reached()).count();
    let repeated: usize = cells.iter().map(Cell::repeated).sum();
    let by_bug = host.output().iter().filter(|line| line.contains("bug of")).count();
    assert_eq!(by_bug, 0, "{}", host.tail());
    host.stop();
    assert!(reached >= errors.len(), "only {reached} of {} errors met a request", cells.len());
    eprintln!(
        "{request:?}: {} errors at up to {POSITIONS} places, {reached} of {} cells reached; all recovered, {repeated} of {} \
         records repeated",
        errors.len(),
        cells.len(),
        cells.iter().map(|cell| TURNS * cell.each).sum::<usize>()
    );
}

/// Proves besides: the first record of a partition goes alone, so that an error to it cannot cost it its place. With the next
/// ones beside it, librdkafka reported it as delivered though it was not there.
#[test]
fn produce() {
    // Not DUPLICATE_SEQUENCE_NUMBER: it says that the records are in the log, and the mock would be lying.
    all_recover(
        Request::Produce,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
            RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
            RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
            RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn fetch() {
    all_recover(
        Request::Fetch,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
            RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
            RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
            RD_KAFKA_RESP_ERR_INVALID_MSG,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn list_offsets() {
    all_recover(
        Request::ListOffsets,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
            RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn offset_commit() {
    // Not ILLEGAL_GENERATION: it belongs to the classic protocol, which the mock cannot do. No broker gives it to a member of
    // this protocol, and librdkafka does not join again after it.
    all_recover(
        Request::OffsetCommit,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH,
            RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH,
            RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE,
            RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

/// Where the group stands is asked for when partitions come; what the host does not ask, this test's own question meets.
#[test]
fn offset_fetch() {
    all_recover(
        Request::OffsetFetch,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH,
            RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT,
            RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn heartbeat() {
    all_recover(
        Request::ConsumerGroupHeartbeat,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
            RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH,
            RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED,
            RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_INVALID_REQUEST,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn find_coordinator() {
    all_recover(
        Request::FindCoordinator,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_INVALID_REQUEST,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn init_producer_id() {
    all_recover(
        Request::InitProducerId,
        &[
            RD_KAFKA_RESP_ERR__TRANSPORT,
            RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
            RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
            RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
            RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            RD_KAFKA_RESP_ERR_UNKNOWN,
        ],
    );
}

#[test]
fn api_versions() {
    all_recover(
        Request::ApiVersions,
        &[RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION],
    );
}
