//! Reads single records of a partition again, beside the group: without joining it, and without a commit.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, MessagesWriter, Source as FrameSource, messages};

use super::Code;
use super::consumer::{Consumer, Event};
use super::ffi::PartitionOffset;
use super::settings::{self, FetchBudget};
use crate::config::{Cluster, LostOffset, Source, Start};
use crate::wake::Waker;

/// Bytes that are fetched ahead: these are single records.
const AHEAD: u64 = 1024 * 1024;
/// How long nothing may come before the attempt is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// Records of a partition at these offsets, as a burst frame; those that are gone are left out.
///
/// # Errors
/// Why it did not work this time; an outage, mostly.
pub fn read(source: &Source, cluster: &Cluster, topic: &str, partition: i32, offsets: &[i64]) -> Result<Frame, String> {
    let waker = Waker::default();
    waker.attach();
    let source = Source {
        // Out of range means that the record is gone; what is left tells.
        start: Start::Earliest,
        on_lost_offset: LostOffset::Earliest,
        instance_id: None,
        topics: Vec::new(),
        ..source.clone()
    };
    let conf = settings::consumer(&source, cluster, "reread", FetchBudget::shared(AHEAD, 1, AHEAD))?;
    let mut frames: Vec<Frame> = Vec::new();
    let mut consumer = Consumer::new(conf, &waker)?;
    for offset in offsets {
        frames.extend(read_one(&mut consumer, &waker, topic, partition, *offset)?);
    }
    Ok(joined(&frames, topic, partition))
}

fn read_one(
    consumer: &mut Consumer,
    waker: &Waker,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Option<Frame>, String> {
    let error = Code::RD_KAFKA_RESP_ERR_NO_ERROR;
    let place = PartitionOffset { topic: topic.to_owned(), partition, offset, error };
    let mut queue = consumer
        .assign(std::slice::from_ref(&place))?
        .pop()
        .ok_or_else(|| format!("no queue for {topic}[{partition}]"))?;
    let frame_source = FrameSource { topic, partition: partition.unsigned_abs() };
    let mut last_problem = None;
    let until = Instant::now() + SILENCE;
    let found = loop {
        consumer.look_again();
        while let Some(event) = consumer.poll() {
            if let Event::Problem { text, .. } = event {
                last_problem = Some(text);
            }
        }
        let mut frame = Frame::default();
        let mut burst = MessagesWriter::burst(&mut frame, frame_source, 0, false);
        let mut first = None;
        let Ok(filled) = queue.fill(&mut burst, 1, usize::MAX, |offset| {
            first.get_or_insert(offset);
            Ok::<(), Infallible>(())
        });
        burst.finish();
        if let Some((_, text)) = filled.problem {
            last_problem = Some(text);
        }
        match first {
            Some(found) if found == offset => break Ok(Some(frame)),
            // Behind it, so it is gone. Before it: the broker gives whole batches from their beginning.
            Some(found) if found > offset => break Ok(None),
            Some(_) => continue,
            None => {}
        }
        let passed = consumer.positions([(topic, partition)].into_iter()).first().copied().flatten();
        if passed.is_some_and(|position| position > offset) && queue.is_read_up() {
            break Ok(None);
        }
        let now = Instant::now();
        if now >= until {
            let why = last_problem.unwrap_or_else(|| "nothing came".to_owned());
            break Err(format!("{topic}[{partition}]@{offset} could not be read again: {why}"));
        }
        waker.wait((until - now).min(Duration::from_millis(100)));
    };
    drop(queue);
    consumer.unassign(std::slice::from_ref(&place))?;
    found
}

/// One burst of single messages.
fn joined(frames: &[Frame], topic: &str, partition: i32) -> Frame {
    let mut all = Frame::default();
    if frames.is_empty() {
        return all;
    }
    let source = FrameSource { topic, partition: partition.unsigned_abs() };
    let mut burst = MessagesWriter::burst(&mut all, source, 0, false);
    for frame in frames {
        let message = messages::Messages::new(frame).get(0);
        let new = sluicebox_frames::NewMessage {
            offset: message.offset(),
            timestamp: message.timestamp(),
            timestamp_type: message.timestamp_type(),
            key: message.key(),
            value: message.value(),
            attempt: 1,
            source: 0,
        };
        burst.push(&new, message.headers());
    }
    burst.finish();
    all
}
