//! Reads source records again that dead letters need, on a thread of their own, until it works or the pipeline is gone.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::port::{Found, Reread};
use crate::config::{Cluster, Source};
use crate::delivery::ticket::LaneId;
use crate::kafka::reread;
use crate::threads;
use crate::wake::Waker;

/// Requests that may wait; a lane asks again only when it was answered.
const WAITING: usize = 1024;
/// Wait before another attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's text.
pub struct TopicRereader {
    source: Source,
    cluster: Cluster,
    waker: Waker,
    /// Made with the first request; most pipelines never have one.
    thread: Option<(SyncSender<Request>, Receiver<Found>)>,
    /// What the channel had no room for.
    waiting: Vec<Request>,
}

struct Request {
    lane: LaneId,
    topic: String,
    partition: i32,
    offsets: Vec<i64>,
}

impl TopicRereader {
    /// Reads this pipeline's source.
    #[must_use]
    pub fn new(source: &Source, cluster: &Cluster, waker: &Waker) -> Self {
        let (source, cluster) = (source.clone(), cluster.clone());
        Self { source, cluster, waker: waker.clone(), thread: None, waiting: Vec::new() }
    }

    fn start(&self) -> std::io::Result<(SyncSender<Request>, Receiver<Found>)> {
        let (requests, asked) = sync_channel::<Request>(WAITING);
        let (found, answers) = sync_channel::<Found>(WAITING);
        let (source, cluster, waker) = (self.source.clone(), self.cluster.clone(), self.waker.clone());
        threads::spawn("sb-reread", move || {
            // Ends with the pipeline's run, which drops the other ends.
            while let Ok(Request { lane, topic, partition, offsets }) = asked.recv() {
                let frame = loop {
                    match reread::read(&source, &cluster, &topic, partition, &offsets) {
                        Ok(frame) => break frame,
                        Err(reason) => tracing::warn!("{reason}; it is tried again"),
                    }
                    let nothing = Found { lane, frame: sluicebox_frames::Frame::default(), offsets: Vec::new() };
                    // An answer about nothing tells whether anybody still listens.
                    if found.send(nothing).is_err() {
                        return;
                    }
                    std::thread::park_timeout(AGAIN);
                };
                if found.send(Found { lane, frame, offsets }).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
        Ok((requests, answers))
    }

    fn hand_over(&mut self) {
        if self.thread.is_none() {
            match self.start() {
                Ok(thread) => self.thread = Some(thread),
                // The next request, or the next look for answers, tries again.
                Err(error) => return tracing::warn!("no thread to read records again: {error}"),
            }
        }
        let Some((requests, _)) = &self.thread else { return };
        while let Some(request) = self.waiting.pop() {
            if let Err(
                std::sync::mpsc::TrySendError::Full(request) | std::sync::mpsc::TrySendError::Disconnected(request),
            ) = requests.try_send(request)
            {
                self.waiting.push(request);
                return;
            }
        }
    }
}

impl Reread for TopicRereader {
    fn ask(&mut self, lane: LaneId, topic: &str, partition: i32, offsets: Vec<i64>) {
        self.waiting.push(Request { lane, topic: topic.to_owned(), partition, offsets });
        self.hand_over();
    }

    fn answered(&mut self) -> Option<Found> {
        if !self.waiting.is_empty() {
            self.hand_over();
        }
        let (_, answers) = self.thread.as_ref()?;
        answers.try_recv().ok()
    }
}
