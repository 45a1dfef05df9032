//! What a handler implements.

use crate::{Batch, Message, Outcome, Result, Settings, Tick};

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
