//! Judges an output of numbered records while it is read, for outputs that are too large to be kept: a bit for each number, and
//! what the last record of each key and of each source said.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::check::{Difference, number};
use crate::support::PATIENCE;
use crate::support::client::{Reader, Record};

/// What a topic was found to hold.
pub struct Judged {
    /// Against "every number of 0..count once".
    pub difference: Difference,
    /// Records that each version made, by its place in the order of versions.
    pub made: BTreeMap<usize, u64>,
}

struct Judge {
    seen: Vec<bool>,
    repeated: u64,
    /// The last number, by key and partition.
    last: BTreeMap<(i32, Vec<u8>), u64>,
    versions: Versions,
}

impl Judge {
    fn take(&mut self, record: &Record) {
        let n = number(record);
        let seen = self.seen.get_mut(n as usize).unwrap_or_else(|| panic!("record {n} was never produced"));
        if std::mem::replace(seen, true) {
            self.repeated += 1;
            return;
        }
        let key = record.key.clone().expect("a numbered record has a key");
        if let Some(before) = self.last.insert((record.partition, key), n) {
            assert!(before < n, "{n} of {} came after {before} in {}", record.key_text(), record.partition);
        }
        self.versions.take(record);
    }
}

/// Reads a topic to its end: every number of 0..count once; each key's records in the order that they were produced in; and each
/// source partition's by versions in this order, none after a later one. The first is counted, the others have to be.
pub fn judge(reader: &mut Reader, count: u64, order: &[String]) -> Judged {
    let seen = vec![false; usize::try_from(count).expect("a count fits")];
    let mut judge = Judge { seen, repeated: 0, last: BTreeMap::new(), versions: Versions::new(order) };
    let mut records = Vec::new();
    let mut deadline = Instant::now() + PATIENCE;
    while !reader.at_end() {
        assert!(reader.read_into(&mut records, deadline), "nothing more came for {PATIENCE:?}, before the end");
        if !records.is_empty() {
            deadline = Instant::now() + PATIENCE;
        }
        records.drain(..).for_each(|record| judge.take(&record));
    }
    let missing = judge.seen.iter().filter(|seen| !**seen).count() as u64;
    Judged { difference: Difference { missing, repeated: judge.repeated }, made: judge.versions.made }
}

/// Which version made a record.
pub fn version(record: &Record) -> &str {
    let header = record.header("sluicebox-version").expect("provenance is on");
    std::str::from_utf8(header).expect("a digest")
}

/// Records of one source partition, as they came, were made by versions in this order: nobody went back to an earlier one.
/// How many records each version made.
pub fn assert_versions_in_order(records: &[Record], order: &[String]) -> BTreeMap<usize, u64> {
    let mut versions = Versions::new(order);
    records.iter().for_each(|record| versions.take(record));
    versions.made
}

/// Which versions made what was read so far.
struct Versions {
    places: BTreeMap<String, usize>,
    /// By partition and source partition.
    last: BTreeMap<(i32, String), usize>,
    made: BTreeMap<usize, u64>,
}

impl Versions {
    fn new(order: &[String]) -> Versions {
        let places = order.iter().enumerate().map(|(place, digest)| (digest.clone(), place)).collect();
        Versions { places, last: BTreeMap::new(), made: BTreeMap::new() }
    }

    fn take(&mut self, record: &Record) {
        let source = std::str::from_utf8(record.header("sluicebox-source").expect("provenance is on")).expect("text");
        let source = source.rsplit_once('/').expect("topic/partition/offset").0;
        let version =
            *self.places.get(version(record)).unwrap_or_else(|| panic!("{} was never deployed", version(record)));
        *self.made.entry(version).or_insert(0) += 1;
        let before = self.last.insert((record.partition, source.to_owned()), version).unwrap_or(0);
        assert!(before <= version, "{source}: version {version} made a record after version {before} had");
    }
}
