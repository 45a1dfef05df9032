//! Which messages make a batch, and when it closes. One [`Batcher`] per lane and declared batcher; it never sees two
//! ownership epochs, because a lane does not. Knows sizes, keys and time; what a batch holds is the caller's ([`Content`]).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

pub use sluicebox_frames::Trigger;

/// When a batch closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRules {
    /// Messages of a full batch, at least 1. Default 100.
    pub max_messages: u32,
    /// Bytes that a batch of more than one message may hold. Default 1 MiB.
    pub max_bytes: u64,
    /// How long the oldest message may wait. Zero closes batches at the end of each burst. Default 1 s.
    pub max_wait: Duration,
}

/// What a batch gathers.
pub trait Content {
    /// Messages in it.
    fn messages(&self) -> usize;
}

/// The open batches of one batcher in one lane.
#[derive(Debug)]
pub struct Batcher<C> {
    rules: BatchRules,
    /// Places of batches that closed are used again.
    open: Vec<Option<Open<C>>>,
    free: Vec<usize>,
    by_key: HashMap<Vec<u8>, usize>,
    /// Oldest first (with a number, for those of one moment): there may be many, and time is looked at often.
    by_age: BTreeMap<(Instant, u64), usize>,
    /// The batch that the last message went to, where the next one mostly goes, too: looking it up by its key takes longer
    /// than all the rest.
    last: usize,
    next: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Open<C> {
    key: Vec<u8>,
    content: C,
    bytes: u64,
    since: (Instant, u64),
}

/// A batch that is ready to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed<C> {
    /// What its messages have in common.
    pub key: Vec<u8>,
    /// What it gathered.
    pub content: C,
    /// Why it closed.
    pub trigger: Trigger,
}

impl<C: Content> Batcher<C> {
    /// An empty one.
    #[must_use]
    pub fn new(rules: BatchRules) -> Self {
        let (open, free, by_key, by_age) = (Vec::new(), Vec::new(), HashMap::new(), BTreeMap::new());
        Self { rules, open, free, by_key, by_age, last: 0, next: 0, bytes: 0 }
    }

    /// Adds a message of `bytes` bytes. `new` makes an empty content, `add` puts the message in. Batches that close by it
    /// are given to `closed`: the one before it, when it would not fit; then its own, when that is full or flushed.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one message")]
    pub fn push(
        &mut self,
        key: &[u8],
        bytes: u64,
        flush: bool,
        now: Instant,
        new: impl FnOnce() -> C,
        add: impl FnOnce(&mut C),
        closed: &mut Vec<Closed<C>>,
    ) {
        let mut place = self.place_of(key);
        if let Some(full) = place.take_if(|place| self.bytes_at(*place) + bytes > self.rules.max_bytes) {
            self.close(full, Trigger::Bytes, closed);
        }
        let place = place.unwrap_or_else(|| self.begin(key, now, new()));
        self.last = place;
        let Some(open) = &mut self.open[place] else { return };
        add(&mut open.content);
        open.bytes += bytes;
        self.bytes += bytes;
        if open.content.messages() >= self.rules.max_messages as usize {
            self.close(place, Trigger::Size, closed);
        } else if flush {
            self.close(place, Trigger::Flush, closed);
        }
    }

    /// Where the open batch of a key is.
    #[inline]
    fn place_of(&self, key: &[u8]) -> Option<usize> {
        match self.open.get(self.last) {
            Some(Some(open)) if is_same(&open.key, key) => Some(self.last),
            _ => self.by_key.get(key).copied(),
        }
    }

    fn bytes_at(&self, place: usize) -> u64 {
        self.open[place].as_ref().map_or(0, |open| open.bytes)
    }

    fn begin(&mut self, key: &[u8], now: Instant, content: C) -> usize {
        let since = (now, self.next);
        self.next += 1;
        let open = Some(Open { key: key.to_vec(), content, bytes: 0, since });
        let place = match self.free.pop() {
            Some(place) => {
                self.open[place] = open;
                place
            }
            None => {
                self.open.push(open);
                self.open.len() - 1
            }
        };
        self.by_key.insert(key.to_vec(), place);
        self.by_age.insert(since, place);
        place
    }

    fn close(&mut self, place: usize, trigger: Trigger, closed: &mut Vec<Closed<C>>) {
        if let Some(Open { key, content, bytes, since }) = self.open[place].take() {
            self.free.push(place);
            self.by_key.remove(&key);
            self.by_age.remove(&since);
            self.bytes -= bytes;
            closed.push(Closed { key, content, trigger });
        }
    }

    /// Closes what waited long enough; oldest first.
    pub fn close_due(&mut self, now: Instant, closed: &mut Vec<Closed<C>>) {
        while self.oldest().is_some_and(|since| now >= since + self.rules.max_wait) {
            self.close_oldest(Trigger::Timeout, closed);
        }
    }

    /// A burst ended: closes everything when `max_wait` is zero.
    pub fn end_of_burst(&mut self, closed: &mut Vec<Closed<C>>) {
        if self.rules.max_wait.is_zero() {
            self.close_all(Trigger::Timeout, closed);
        }
    }

    /// Closes everything; oldest first.
    pub fn close_all(&mut self, trigger: Trigger, closed: &mut Vec<Closed<C>>) {
        while !self.by_age.is_empty() {
            self.close_oldest(trigger, closed);
        }
    }

    /// Closes the one that waits longest, if any.
    pub fn close_oldest(&mut self, trigger: Trigger, closed: &mut Vec<Closed<C>>) {
        if let Some((_, place)) = self.by_age.pop_first() {
            self.close(place, trigger, closed);
        }
    }

    /// Since when the oldest message waits.
    #[must_use]
    pub fn oldest(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|((since, _), _)| *since)
    }

    /// When [`Batcher::close_due`] has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.oldest().map(|since| since + self.rules.max_wait)
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.open.iter().flatten().map(|open| open.content.messages()).sum()
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Most batches have no key, and glibc's `memcmp` takes 130 ns to find that two empty slices are the same: it looks at both, with
/// a mask that hides everything, and processors are slow where a masked access has no page behind it, as behind an empty `Vec`.
#[inline]
#[must_use]
pub fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Content for Vec<u32> {
        fn messages(&self) -> usize {
            self.len()
        }
    }

    fn rules(max_messages: u32, max_bytes: u64, max_wait_ms: u64) -> BatchRules {
        BatchRules { max_messages, max_bytes, max_wait: Duration::from_millis(max_wait_ms) }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { key: u8, bytes: u64, flush: bool },
        Pass(u64),
        EndOfBurst,
        Pressure,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..4, 1u64..60, prop::bool::weighted(0.1)).prop_map(|(key, bytes, flush)| Step::Push { key, bytes, flush }),
            3 => (1u64..40).prop_map(Step::Pass),
            2 => Just(Step::EndOfBurst),
            1 => Just(Step::Pressure),
        ]
    }

    proptest! {
        /// Every message comes out exactly once, per key in order, in batches that keep the limits and say a true
        /// trigger, and none waits past its time once time is looked at.
        #[test]
        fn keeps_every_message_and_every_limit(
            steps in prop::collection::vec(step(), 1..120),
            max_messages in 1u32..6, max_bytes in 20u64..150, wait in 0u64..30,
        ) {
            let rules = rules(max_messages, max_bytes, wait);
            let mut batcher = Batcher::<Vec<u32>>::new(rules.clone());
            let start = Instant::now();
            let (mut now, mut number) = (start, 0u32);
            let mut sizes: Vec<(u8, u64, Instant)> = Vec::new();
            let mut out: HashMap<u8, Vec<u32>> = HashMap::new();
            let mut closed = Vec::new();
            for step in steps {
                match step {
                    Step::Push { key, bytes, flush } => {
                        sizes.push((key, bytes, now));
                        batcher.push(&[key], bytes, flush, now, Vec::new, |c| c.push(number), &mut closed);
                        number += 1;
                    }
                    Step::Pass(ms) => {
                        now += Duration::from_millis(ms);
                        batcher.close_due(now, &mut closed);
                        prop_assert!(batcher.deadline().is_none_or(|deadline| deadline > now));
                    }
                    Step::EndOfBurst => {
                        batcher.end_of_burst(&mut closed);
                        prop_assert!(wait > 0 || batcher.waiting() == 0);
                    }
                    Step::Pressure => batcher.close_oldest(Trigger::Pressure, &mut closed),
                }
                for batch in closed.drain(..) {
                    let messages = batch.content.len();
                    let bytes: u64 = batch.content.iter().map(|n| sizes[*n as usize].1).sum();
                    prop_assert!(messages >= 1 && messages <= max_messages as usize);
                    prop_assert!(messages == 1 || bytes <= max_bytes);
                    match batch.trigger {
                        Trigger::Size => prop_assert_eq!(messages, max_messages as usize),
                        Trigger::Timeout if wait > 0 => {
                            prop_assert!(now >= sizes[batch.content[0] as usize].2 + rules.max_wait);
                        }
                        _ => {}
                    }
                    out.entry(batch.key[0]).or_default().extend(batch.content);
                }
            }
            batcher.close_all(Trigger::Shutdown, &mut closed);
            for batch in closed.drain(..) {
                out.entry(batch.key[0]).or_default().extend(batch.content);
            }
            prop_assert_eq!((batcher.waiting(), batcher.bytes(), batcher.oldest()), (0, 0, None));
            for key in 0u8..4 {
                let sent: Vec<u32> = (0..number).filter(|n| sizes[*n as usize].0 == key).collect();
                prop_assert_eq!(out.remove(&key).unwrap_or_default(), sent);
            }
        }
    }

    #[test]
    fn a_message_that_does_not_fit_closes_the_batch_before_it() {
        let mut batcher = Batcher::<Vec<u32>>::new(rules(100, 100, 1000));
        let (now, mut closed) = (Instant::now(), Vec::new());
        for n in 0..3 {
            batcher.push(b"", 60, false, now, Vec::new, |c| c.push(n), &mut closed);
        }
        assert_eq!(closed.len(), 2);
        assert!(closed.iter().all(|batch| batch.trigger == Trigger::Bytes && batch.content.len() == 1));
    }

    #[test]
    fn one_message_larger_than_a_batch_is_a_batch() {
        let mut batcher = Batcher::<Vec<u32>>::new(rules(100, 100, 0));
        let mut closed = Vec::new();
        batcher.push(b"", 5000, false, Instant::now(), Vec::new, |c| c.push(0), &mut closed);
        assert!(closed.is_empty());
        batcher.end_of_burst(&mut closed);
        assert_eq!(closed.len(), 1);
    }
}
