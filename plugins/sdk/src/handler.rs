//! What a handler implements.

use crate::{Assigned, Batch, Failed, Message, Outcome, Result, Revoked, Settings, Tick, Verdict};

/// A handler: one value per instance of the component. The host makes one instance per topic-partition and version of
/// the handler, calls it with one thing at a time, and drops it after a trap; state in it is a cache, not a store.
pub trait Handler: Sized {
    /// Called once, before anything else. An error keeps the pipeline waiting with its text; it is tried again.
    ///
    /// # Errors
    /// When the handler cannot work with these settings.
    fn new(settings: Settings<'_>) -> Result<Self>;
}

/// A handler of single messages.
pub trait MessageHandler: Handler {
    /// Called for the messages of one topic-partition in the order of their offsets.
    ///
    /// # Errors
    /// An error is a retry with its text, or a reject when it was made by [`Error::reject`](crate::Error::reject).
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome>;
}

/// A handler of batches. Without a [`MessageHandler`] beside it, all messages come here, through the batcher `default`.
pub trait BatchHandler: Handler {
    /// Called when a batcher closes a batch. `Ok` means that all its messages are done, but for those whose
    /// [`Item::answer`](crate::Item::answer) says otherwise.
    ///
    /// # Errors
    /// An error fails the batch as a whole: nothing of it goes out, and each of its messages is tried again.
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()>;
}

/// A handler that is called at an interval: it may emit, and settle messages that it holds.
pub trait TickHandler: Handler {
    /// Called at the interval that the pipeline's configuration sets.
    ///
    /// # Errors
    /// An error is logged; nothing of the tick goes out.
    fn handle_tick(&mut self, tick: Tick<'_>) -> Result<()>;
}

/// A handler that hears when its partition comes and goes. Neither is a promise: an instance that is lost (a trap, a
/// crash, a partition that was taken away) hears nothing more.
pub trait PartitionHandler: Handler {
    /// Called once for every instance, before its first message. Does nothing unless it is implemented.
    ///
    /// # Errors
    /// An error is logged; nothing of this call goes out.
    fn partition_assigned(&mut self, assigned: Assigned<'_>) -> Result<()> {
        _ = assigned;
        Ok(())
    }

    /// Called when the partition is given back in good order, as the last call, before the last commit: the place to emit
    /// what was gathered and to ack the messages that it was gathered from. Emissions go to outputs only. Messages that
    /// are still held afterwards are left to the next owner. Does nothing unless it is implemented.
    ///
    /// # Errors
    /// An error is logged; nothing of this call goes out, and nothing is acked.
    fn partition_revoked(&mut self, revoked: Revoked<'_>) -> Result<()> {
        _ = revoked;
        Ok(())
    }
}

/// A handler whose state goes over to the next version when it is swapped. Where it is not implemented, or the versions do
/// not agree, the next version begins afresh, and messages that are held are offered again.
pub trait StateHandler: Handler {
    /// The state, in bytes that another version of this handler understands: begin them with a version of their own. The
    /// last call.
    ///
    /// # Errors
    /// An error traps: there is nothing to hand over then.
    fn snapshot(&mut self) -> Result<Vec<u8>>;

    /// Takes over what another version's [`StateHandler::snapshot`] gave; `from_version` is the SHA-256 of that component.
    /// Right after [`Handler::new`]. Messages that it held are held by this instance from here on, with the same tokens.
    ///
    /// # Errors
    /// When it does not understand the bytes. Then this instance is dropped, and what follows is for the pipeline's
    /// configuration to say.
    fn restore(&mut self, state: &[u8], from_version: &str) -> Result<()>;
}

/// A handler that has a say in what becomes of messages that failed for good, at whichever stage.
pub trait FailureHandler: Handler {
    /// Called when a message's attempts are used up, or when it was rejected. It may change what becomes of the message,
    /// change its dead letter, and emit to outputs; it cannot make the message done.
    ///
    /// # Errors
    /// An error is logged; nothing of this call goes out, and the pipeline's policy decides. So it does after a trap.
    fn handle_failed(&mut self, failed: Failed<'_>) -> Result<Verdict>;
}
