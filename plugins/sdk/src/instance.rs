//! A handler behind its frames: reads what the host hands over, calls the handler, writes the answer.
//!
//! The exported functions and the native tests go the same way, through here. The host is trusted to write frames that
//! keep the layout (a broken one panics, which is a trap); only the layout's version and kind are looked at.

use sluicebox_frames::{Frame, Messages, VERSION};

use crate::answer::{Answer, Settled};
use crate::failed::Cause;
use crate::outcome::{Error, Outcome, Result};
use crate::{
    Aside, Assigned, Batch, BatchHandler, Failed, FailureHandler, Handler, Message, MessageHandler, PartitionHandler,
    RevokeReason, Revoked, Settings, StateHandler, Tick, TickHandler, Verdict,
};

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
    pub fn new(settings: &str) -> std::result::Result<Self, String> {
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
    pub fn handle_batch(&mut self, index: &[u8], payload: &[u8]) -> std::result::Result<Frame, String> {
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

impl<H> Instance<H> {
    /// Answers a call without a message, as a batch without items.
    fn aside(&mut self, call: &str, handle: impl FnOnce(&mut H, Aside<'_>) -> Result<()>) -> Frame {
        let answer = Answer::to_batch(0);
        match handle(&mut self.handler, Aside { answer: &answer }) {
            Ok(()) => answer.finish_batch(0),
            Err(error) => {
                crate::log::error!("{call}: {}", error.text);
                Answer::to_batch(0).finish_batch(0)
            }
        }
    }
}

impl<H: TickHandler> Instance<H> {
    /// Answers a tick.
    pub fn handle_tick(&mut self, now: i64) -> Frame {
        self.aside("tick", |handler, aside| handler.handle_tick(Tick { now, aside }))
    }
}

impl<H: PartitionHandler> Instance<H> {
    /// Answers the coming of a partition.
    pub fn partition_assigned(&mut self, topic: &str, partition: u32, next_offset: Option<i64>) -> Frame {
        self.aside("partition assigned", |handler, aside| {
            handler.partition_assigned(Assigned { topic, partition, next_offset, aside })
        })
    }

    /// Answers the going of a partition.
    pub fn partition_revoked(&mut self, topic: &str, partition: u32, reason: RevokeReason) -> Frame {
        self.aside("partition revoked", |handler, aside| {
            handler.partition_revoked(Revoked { topic, partition, reason, aside })
        })
    }
}

impl<H: StateHandler> Instance<H> {
    /// The handler's state.
    ///
    /// # Panics
    /// When the handler has none to give: the contract knows no other way to say so.
    pub fn snapshot(&mut self) -> Vec<u8> {
        self.handler.snapshot().unwrap_or_else(|error| panic!("snapshot: {}", error.text))
    }

    /// Gives the handler a state.
    ///
    /// # Errors
    /// The text of the handler's error.
    pub fn restore(&mut self, state: &[u8], from_version: &str) -> std::result::Result<(), String> {
        self.handler.restore(state, from_version).map_err(|error| error.text)
    }
}

impl<H: FailureHandler> Instance<H> {
    /// Asks of the one message in the frame. The answer frame has one outcome, done, that all emissions belong to.
    pub(crate) fn handle_failed(&mut self, frame: &Frame, cause: Cause<'_>) -> (Verdict, Frame) {
        let view = read(&frame.index, &frame.payload, 1).get(0);
        let answer = Answer::to_burst(1, 0);
        let mark = answer.mark();
        let said = self.handler.handle_failed(Failed { message: Message { view, answer: &answer }, cause });
        let said = match said {
            // The contract has no place for it, and dropping the token would hide it.
            Ok(_) if answer.has_tokens() => Err(Error::retry("a failed message is no place to ack or fail another")),
            said => said,
        };
        match said {
            Ok(verdict) => {
                answer.settle(mark, Ok(Outcome::done()));
                (verdict, answer.finish_burst())
            }
            Err(error) => {
                crate::log::error!("handle_failed: {}", error.text);
                let nothing = Answer::to_burst(1, 0);
                nothing.settle(nothing.mark(), Ok(Outcome::done()));
                (Verdict::policy(), nothing.finish_burst())
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
