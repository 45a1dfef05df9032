//! A handler behind its frames: reads what the host hands over, calls the handler, writes the answer.
//!
//! The exported functions and the native tests go the same way, through here. The host is trusted to write frames that
//! keep the layout (a broken one panics, which is a trap); only the layout's version and kind are looked at.

use sluicebox_frames::{Frame, Messages, VERSION};

use crate::answer::{Answer, Settled};
use crate::outcome::{Error, Outcome};
use crate::{Batch, BatchHandler, Handler, Message, MessageHandler, Settings, Tick, TickHandler};

/// A handler with what is kept from call to call.
#[derive(Debug)]
pub struct Instance<H> {
    pub(crate) handler: H,
    /// Payload bytes of the last answer: a good guess for the next one.
    last_payload: usize,
}

impl<H: Handler> Instance<H> {
    /// Makes the handler from the JSON text of its settings.
    ///
    /// # Errors
    /// The text of the handler's error.
    pub fn new(settings: &str) -> Result<Self, String> {
        let handler = H::new(Settings::new(settings)).map_err(|error| error.text)?;
        Ok(Self { handler, last_payload: 0 })
    }
}

impl<H: MessageHandler> Instance<H> {
    /// Answers a burst: all of it, or up to the first message that has to be the answer's last.
    #[must_use]
    pub fn handle_burst(&mut self, index: &[u8], payload: &[u8]) -> Frame {
        let burst = read(index, payload, 1);
        let stop_at_reject = burst.stop_at_reject();
        let answer = Answer::to_burst(burst.len(), self.last_payload);
        for view in burst.iter() {
            let mark = answer.mark();
            let verdict = self.handler.handle_message(Message { view, answer: &answer });
            match answer.settle(mark, verdict) {
                Settled::Final => {}
                Settled::Reject if !stop_at_reject => {}
                Settled::Reject | Settled::Retry => break,
            }
        }
        let frame = answer.finish_burst();
        self.last_payload = frame.payload.len();
        frame
    }
}

impl<H: BatchHandler> Instance<H> {
    /// Answers a batch.
    ///
    /// # Errors
    /// The text of the handler's error.
    pub fn handle_batch(&mut self, index: &[u8], payload: &[u8]) -> Result<Frame, String> {
        let messages = read(index, payload, 2);
        let answer = Answer::to_batch(self.last_payload);
        let info = messages.batch_info().expect("a batch frame says what the batch is");
        match self.handler.handle_batch(Batch { messages, info, answer: &answer }) {
            Ok(()) => {
                let frame = answer.finish_batch(messages.len());
                self.last_payload = frame.payload.len();
                Ok(frame)
            }
            // Of several messages the host has to find out which one it is; of one there is no doubt.
            Err(error @ Error { reject: true, .. }) if messages.len() == 1 => {
                let answer = Answer::to_batch(0);
                answer.set_item(0, Outcome::from(error));
                Ok(answer.finish_batch(1))
            }
            Err(error) => Err(error.text),
        }
    }
}

impl<H: TickHandler> Instance<H> {
    /// Answers a tick, as the answer to a batch without items.
    pub fn handle_tick(&mut self, now: i64) -> Frame {
        let answer = Answer::to_batch(0);
        match self.handler.handle_tick(Tick { now, answer: &answer }) {
            Ok(()) => answer.finish_batch(0),
            Err(error) => {
                crate::log::error!("tick: {}", error.text);
                Answer::to_batch(0).finish_batch(0)
            }
        }
    }
}

fn read<'a>(index: &'a [u8], payload: &'a [u8], kind: u16) -> Messages<'a> {
    let word = |at: usize| index.get(at..at + 2).map(|word| u16::from_le_bytes([word[0], word[1]]));
    assert_eq!(word(0), Some(VERSION), "the host speaks another version of the frame layout than this component");
    assert_eq!(word(2), Some(kind), "the frame is of another kind");
    Messages::from_parts(index, payload)
}
