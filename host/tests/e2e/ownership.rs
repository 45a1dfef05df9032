//! Who owned which partition when, by the hosts' own words: their log says when partitions came, and says that they are given
//! back before the group hears of it. All hosts of a test have one clock.

use std::collections::BTreeMap;

use crate::support::host::SluiceHost;

/// One ownership, in microseconds of the day.
#[derive(Clone, Copy, Debug)]
struct Owned {
    host: usize,
    from: u64,
    until: u64,
}

/// What the hosts said.
#[derive(Debug, Default)]
pub struct Ownership {
    by_partition: BTreeMap<(String, i32), Vec<Owned>>,
    /// Microseconds from joining to the first assignment, one for each member that got that far.
    pub joins: Vec<u64>,
    /// Assignments, of no partition as well.
    pub assigned: usize,
    pub lost: usize,
}

impl Ownership {
    /// Reads the logs of hosts that have ended. One that ended without giving partitions back (SIGKILL) owned them until its
    /// last line at least.
    pub fn of(hosts: &[SluiceHost]) -> Ownership {
        let mut found = Ownership::default();
        for (number, host) in hosts.iter().enumerate() {
            found.read(number, &host.output());
        }
        for owned in found.by_partition.values_mut() {
            owned.sort_by_key(|owned| owned.from);
        }
        found
    }

    fn read(&mut self, host: usize, lines: &[String]) {
        let mut open: BTreeMap<(String, i32), u64> = BTreeMap::new();
        let (mut joining, mut last) = (None, 0);
        for line in lines {
            let (Some(at), Some(message)) = (time(line), text(line, "message")) else { continue };
            last = at;
            if message == "joining" {
                // A run that failed has let go of everything before this; when, it did not say.
                open.clear();
                joining = Some(at);
            } else if let Some(names) = message.strip_prefix("assigned ") {
                self.assigned += 1;
                self.joins.extend(joining.take().map(|since| at - since));
                open.extend(partitions(names).into_iter().map(|partition| (partition, at)));
            } else if let Some(names) = message.strip_prefix("gave back ") {
                for partition in partitions(names) {
                    if let Some(from) = open.remove(&partition) {
                        self.add(partition, Owned { host, from, until: at });
                    }
                }
            } else if let Some(names) = message.strip_prefix("lost ") {
                self.lost += 1;
                // It was another one's before we heard of it.
                let names = names.split_once(": ").map_or(names, |(names, _)| names);
                partitions(names).iter().for_each(|partition| _ = open.remove(partition));
            }
        }
        for (partition, from) in open {
            self.add(partition, Owned { host, from, until: last });
        }
    }

    fn add(&mut self, partition: (String, i32), owned: Owned) {
        self.by_partition.entry(partition).or_default().push(owned);
    }

    /// A partition that somebody owned while another one did, if there is one.
    pub fn two_owners(&self) -> Option<String> {
        self.by_partition.iter().find_map(|((topic, number), owned)| {
            let pair = owned.windows(2).find(|pair| pair[0].until > pair[1].from)?;
            Some(format!("{topic}[{number}] had two owners, {} and {}: {pair:?}", pair[0].host, pair[1].host))
        })
    }

    /// Number of ownerships.
    pub fn changes(&self) -> usize {
        self.by_partition.values().map(Vec::len).sum()
    }

    /// This part of the joins took at most so many milliseconds.
    pub fn join_quantile(&self, part: f64) -> u64 {
        let mut joins = self.joins.clone();
        joins.sort_unstable();
        let place = ((joins.len().saturating_sub(1)) as f64 * part).round() as usize;
        joins.get(place).map_or(0, |micros| micros / 1000)
    }
}

/// Microseconds of the day, of a line's `"timestamp":"2026-01-02T03:04:05.678901Z"`.
fn time(line: &str) -> Option<u64> {
    let clock = text(line, "timestamp")?.split_once('T')?.1.strip_suffix('Z')?;
    let (seconds, micros) = clock.split_once('.')?;
    let mut parts = seconds.split(':').map(str::parse::<u64>);
    let mut next = || parts.next()?.ok();
    Some(((next()? * 60 + next()?) * 60 + next()?) * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// The text of a field of a line of JSON; what is looked for here has no escapes.
fn text<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    line.split_once(&format!("\"{field}\":\""))?.1.split_once('"').map(|(text, _)| text)
}

/// `orders[0-2, 5], payments[1]`, or `no partition`.
fn partitions(names: &str) -> Vec<(String, i32)> {
    let mut found = Vec::new();
    for part in names.split_inclusive(']') {
        let Some((topic, numbers)) = part.trim_end_matches(']').split_once('[') else { continue };
        let topic = topic.trim_start_matches(", ");
        for range in numbers.split(", ") {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<i32>().unwrap_or_else(|_| panic!("{names:?} are no partitions"));
            found.extend((number(first)..=number(last)).map(|partition| (topic.to_owned(), partition)));
        }
    }
    found
}

#[test]
fn reads_what_hosts_write() {
    let expected = [("a-b", 0), ("a-b", 1), ("a-b", 5), ("c", 1)].map(|(topic, number)| (topic.to_owned(), number));
    assert_eq!(partitions("a-b[0-1, 5], c[1]"), expected);
    assert_eq!(partitions("no partition"), []);
    let line = r#"{"timestamp":"2026-11-21T01:00:02.000003Z","level":"INFO","message":"joining","pipeline":"p"}"#;
    assert_eq!((time(line), text(line, "message")), (Some(3_602_000_003), Some("joining")));
}

#[test]
fn two_owners_at_once_are_seen() {
    let line = |second: u32, message: &str| {
        format!("{{\"timestamp\":\"2026-11-21T01:00:{second:02}.000000Z\",\"message\":\"{message}\"}}")
    };
    let first = [line(1, "joining"), line(2, "assigned t[0-1]"), line(6, "gave back t[0]")];
    let mut found = Ownership::default();
    found.read(0, &first);
    found.read(1, &[line(6, "assigned t[0]"), line(9, "gave back t[0]")]);
    assert_eq!(found.two_owners(), None);
    assert_eq!((found.changes(), found.joins.as_slice()), (3, [1_000_000].as_slice()));
    found.read(1, &[line(5, "assigned t[1]"), line(9, "gave back t[1]")]);
    let words = found.two_owners().expect("second 5 belongs to both");
    assert!(words.starts_with("t[1] had two owners, 0 and 1"), "{words}");
}
