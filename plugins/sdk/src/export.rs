//! The export macro and the place where an instance's handler lives.

use std::cell::RefCell;

use crate::instance::Instance;
use crate::{BatchHandler, FailureHandler, Handler, MessageHandler, PartitionHandler, StateHandler, TickHandler};

/// The one handler of a component's instance. There is one thread and the host makes one call at a time, so the cell is
/// never found borrowed.
#[derive(Debug)]
pub struct Slot<H>(RefCell<Option<Instance<H>>>);

impl<H: Handler> Slot<H> {
    /// Empty until `init`.
    #[expect(clippy::new_without_default, reason = "called by the macro, in a const")]
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// `lifecycle.init`.
    ///
    /// # Errors
    /// The text of the handler's error.
    pub fn init(&self, settings: &str) -> Result<(), String> {
        self.0.replace(Some(Instance::new(settings)?));
        Ok(())
    }

    /// Lends the handler to one call.
    pub fn with<T>(&self, call: impl FnOnce(&mut Instance<H>) -> T) -> T {
        call(self.0.borrow_mut().as_mut().expect("the host calls init before anything else"))
    }
}

/// Checks what the macro says of a handler, also where nothing is exported.
pub const fn message<H: MessageHandler>() {}
/// As [`message`].
pub const fn batch<H: BatchHandler>() {}
/// As [`message`].
pub const fn tick<H: TickHandler>() {}
/// As [`message`].
pub const fn partitions<H: PartitionHandler>() {}
/// As [`message`].
pub const fn failures<H: FailureHandler>() {}
/// As [`message`].
pub const fn state<H: StateHandler>() {}

/// Makes a handler the component's own: `export!(Orders: message, batch);` with what it implements, `message`
/// ([`MessageHandler`](crate::MessageHandler)), `batch` ([`BatchHandler`](crate::BatchHandler)), `tick`
/// ([`TickHandler`](crate::TickHandler)), `partitions` ([`PartitionHandler`](crate::PartitionHandler)), `failures`
/// ([`FailureHandler`](crate::FailureHandler)) and `state` ([`StateHandler`](crate::StateHandler)). Exports nothing on a native target, so the crate can be tested there.
#[macro_export]
macro_rules! export {
    ($handler:ty: $($what:ident),+ $(,)?) => {
        const _: () = {
            $($crate::__private::$what::<$handler>();)+
        };
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static HANDLER: $crate::__private::Slot<$handler> = const { $crate::__private::Slot::new() };
            }
            struct Component;
            impl $crate::__private::bindings::lifecycle::exports::sluicebox::plugin::lifecycle::Guest for Component {
                fn init(settings: ::std::string::String) -> ::std::result::Result<(), ::std::string::String> {
                    HANDLER.with(|handler| handler.init(&settings))
                }
            }
            $crate::__private::bindings::lifecycle::__export_lifecycle!(Component with_types_in $crate::__private::bindings::lifecycle);
            $($crate::__export_one!(Component HANDLER $what);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_one {
    ($component:ident $slot:ident message) => {
        impl $crate::__private::bindings::message::exports::sluicebox::plugin::message_frames::Guest for $component {
            fn handle_messages(
                burst: $crate::__private::bindings::message::sluicebox::plugin::types::Frame,
            ) -> $crate::__private::bindings::message::sluicebox::plugin::types::Frame {
                let answer = $slot.with(|slot| slot.with(|handler| handler.handle_burst(&burst.index, &burst.payload)));
                $crate::__private::bindings::message::sluicebox::plugin::types::Frame {
                    index: answer.index,
                    payload: answer.payload,
                }
            }
        }
        $crate::__private::bindings::message::__export_message_frames!($component with_types_in $crate::__private::bindings::message);
    };
    ($component:ident $slot:ident batch) => {
        impl $crate::__private::bindings::batch::exports::sluicebox::plugin::batch_frames::Guest for $component {
            fn handle_batch(
                batch: $crate::__private::bindings::batch::sluicebox::plugin::types::Frame,
            ) -> ::std::result::Result<
                $crate::__private::bindings::batch::sluicebox::plugin::types::Frame,
                ::std::string::String,
            > {
                let answer = $slot.with(|slot| slot.with(|handler| handler.handle_batch(&batch.index, &batch.payload)))?;
                ::std::result::Result::Ok($crate::__private::bindings::batch::sluicebox::plugin::types::Frame {
                    index: answer.index,
                    payload: answer.payload,
                })
            }
        }
        $crate::__private::bindings::batch::__export_batch_frames!($component with_types_in $crate::__private::bindings::batch);
    };
    ($component:ident $slot:ident tick) => {
        impl $crate::__private::bindings::timer::exports::sluicebox::plugin::timer::Guest for $component {
            fn tick(now: i64) -> $crate::__private::bindings::timer::sluicebox::plugin::types::TickAnswer {
                $crate::__private::aside(&$slot.with(|slot| slot.with(|handler| handler.handle_tick(now))))
            }
        }
        $crate::__private::bindings::timer::__export_timer!($component with_types_in $crate::__private::bindings::timer);
    };
    ($component:ident $slot:ident partitions) => {
        impl $crate::__private::bindings::partitions::exports::sluicebox::plugin::partitions::Guest for $component {
            fn partition_assigned(
                topic: ::std::string::String,
                partition: u32,
                next_offset: ::std::option::Option<i64>,
            ) -> $crate::__private::bindings::timer::sluicebox::plugin::types::TickAnswer {
                $crate::__private::aside(&$slot.with(|slot| {
                    slot.with(|handler| handler.partition_assigned(&topic, partition, next_offset))
                }))
            }

            fn partition_revoked(
                topic: ::std::string::String,
                partition: u32,
                reason: $crate::__private::bindings::partitions::exports::sluicebox::plugin::partitions::RevokeReason,
            ) -> $crate::__private::bindings::timer::sluicebox::plugin::types::TickAnswer {
                $crate::__private::aside(&$slot.with(|slot| {
                    slot.with(|handler| handler.partition_revoked(&topic, partition, reason.into()))
                }))
            }
        }
        $crate::__private::bindings::partitions::__export_partitions!($component with_types_in $crate::__private::bindings::partitions);
    };
    ($component:ident $slot:ident state) => {
        impl $crate::__private::bindings::state::exports::sluicebox::plugin::state::Guest for $component {
            fn snapshot() -> ::std::vec::Vec<u8> {
                $slot.with(|slot| slot.with(|handler| handler.snapshot()))
            }

            fn restore(
                state: ::std::vec::Vec<u8>,
                from_version: ::std::string::String,
            ) -> ::std::result::Result<(), ::std::string::String> {
                $slot.with(|slot| slot.with(|handler| handler.restore(&state, &from_version)))
            }
        }
        $crate::__private::bindings::state::__export_state!($component with_types_in $crate::__private::bindings::state);
    };
    ($component:ident $slot:ident failures) => {
        impl $crate::__private::bindings::failures::exports::sluicebox::plugin::failures::Guest for $component {
            fn handle_failed(
                failed: ::std::vec::Vec<
                    $crate::__private::bindings::failures::exports::sluicebox::plugin::failures::FailedMessage,
                >,
            ) -> ::std::vec::Vec<$crate::__private::bindings::failures::exports::sluicebox::plugin::failures::Verdict> {
                $slot.with(|slot| slot.with(|handler| $crate::__private::handle_failed(handler, &failed)))
            }
        }
        $crate::__private::bindings::failures::__export_failures!($component with_types_in $crate::__private::bindings::failures);
    };
}
