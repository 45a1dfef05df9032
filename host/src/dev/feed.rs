//! Feeds sample records into their topics, partitioned by key as every Kafka client does it. Knows the host's own producer
//! and nothing of pipelines. Called from one thread, never waits.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluicebox_frames::{Headers, HeadersWriter};

use crate::config::{Cluster, Compression, OutputTimestamp};
use crate::delivery::outgoing::Outgoing;
use crate::delivery::partitioner;
use crate::delivery::ticket::{Target, Ticket};
use crate::kafka::limits::TopicLimits;
use crate::kafka::producer::{Producer, TopicNumber};
use crate::kafka::settings;
use crate::samples::Sample;
use crate::wake::Waker;

/// Samples of one topic.
#[derive(Clone, Debug)]
pub struct TopicSamples {
    /// Where they go.
    pub topic: String,
    /// Their file, for messages.
    pub file: String,
    /// They.
    pub samples: Vec<Sample>,
}

/// See the module's text.
pub struct Feed {
    producer: Producer,
    queue: Vec<Queued>,
    /// The next of the queue.
    next: usize,
    delivered: u64,
    failures: Vec<String>,
    /// Records per second; `None` = all at once.
    rate: Option<u32>,
    began: Option<Instant>,
}

struct Queued {
    topic: TopicNumber,
    partition: u32,
    sample: Sample,
    file: std::sync::Arc<str>,
}

impl Feed {
    /// Prepares to feed these; nothing is sent yet.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(
        cluster: &Cluster,
        partitions: u32,
        samples: Vec<TopicSamples>,
        rate: Option<u32>,
    ) -> Result<Self, String> {
        let waker = Waker::default();
        let mut producer = Producer::new(settings::producer(cluster, "dev-feed")?, &waker)?;
        let mut queue = Vec::new();
        for samples in samples {
            let topic = producer.add_topic(
                &samples.topic,
                partitions,
                OutputTimestamp::Now,
                Compression::None,
                TopicLimits::default(),
            )?;
            let file: std::sync::Arc<str> = samples.file.into();
            for (number, sample) in (0u32..).zip(samples.samples) {
                let partition = match &sample.key {
                    Some(key) => partitioner::partition(key.as_bytes(), partitions),
                    // Spread, so that a handful of samples shows more than one partition.
                    None => number % partitions,
                };
                queue.push(Queued { topic, partition, sample, file: std::sync::Arc::clone(&file) });
            }
        }
        producer.expect();
        let mut trouble = Vec::new();
        producer.poll(Instant::now(), |_| (), &mut Vec::new(), &mut trouble);
        if let Some(fatal) = trouble.into_iter().find(|trouble| trouble.fatal) {
            return Err(fatal.text);
        }
        Ok(Self { producer, queue, next: 0, delivered: 0, failures: Vec::new(), rate, began: None })
    }

    /// How many there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The broker has every record, or refused it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.delivered + self.failures.len() as u64 == self.queue.len() as u64
    }

    /// Records that the broker did not take, with the reason.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Sends what is due, and takes in what became of what was sent. Trouble with the broker is returned; it is waited out.
    pub fn turn(&mut self, now: Instant) -> Vec<String> {
        let due = due(self.rate, now.duration_since(*self.began.get_or_insert(now)), self.queue.len());
        let mut block = Vec::new();
        while self.next < due {
            let Queued { topic, partition, sample, .. } = &self.queue[self.next];
            block.clear();
            let mut writer = HeadersWriter::new(&mut block);
            for (name, value) in &sample.headers {
                writer.push(name.as_bytes(), value.as_ref().map(String::as_bytes));
            }
            _ = writer.finish();
            let record = Outgoing {
                key: sample.key.as_ref().map(String::as_bytes),
                value: sample.value.as_ref().map(String::as_bytes),
                headers: [Headers::new(&block), Headers::default()],
                timestamp: 0,
            };
            let ticket = Ticket { lane: 0, target: Target::Record(self.next as u64) };
            self.producer.append(*topic, *partition, &record, ticket);
            self.next += 1;
        }
        let (mut refused, mut trouble) = (Vec::new(), Vec::new());
        self.producer.send(now, &mut refused);
        let delivered = &mut self.delivered;
        self.producer.poll(now, |run| *delivered += u64::from(run.count), &mut refused, &mut trouble);
        // What the reports made room for.
        self.producer.send(now, &mut refused);
        for (ticket, refusal) in refused {
            let Target::Record(number) = ticket.target else { continue };
            if let Some(Queued { file, sample, .. }) = usize::try_from(number).ok().and_then(|n| self.queue.get(n)) {
                self.failures.push(format!("{file}:{}: {}", sample.line, refusal.text));
            }
        }
        trouble.into_iter().map(|trouble| trouble.text).collect()
    }
}

/// How many records are to be sent by now.
fn due(rate: Option<u32>, since: Duration, all: usize) -> usize {
    let Some(rate) = rate else { return all };
    // The first one at once.
    let due = since.as_micros() * u128::from(rate) / 1_000_000 + 1;
    usize::try_from(due).unwrap_or(all).min(all)
}

/// Samples of a pipeline's topics, in the order of the topics.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn read_all(files: &BTreeMap<String, std::path::PathBuf>) -> Result<Vec<TopicSamples>, Vec<String>> {
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for (topic, path) in files {
        match crate::samples::read(path) {
            Ok(samples) => {
                all.push(TopicSamples { topic: topic.clone(), file: path.display().to_string(), samples });
            }
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(all) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept() {
        let at = |rate, millis| due(rate, Duration::from_millis(millis), 20);
        assert_eq!((at(None, 0), at(Some(5), 0), at(Some(5), 199), at(Some(5), 200)), (20, 1, 1, 2));
        assert_eq!((at(Some(5), 1000), at(Some(1_000_000), 3_600_000)), (6, 20));
    }
}
