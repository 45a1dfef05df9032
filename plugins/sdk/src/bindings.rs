//! What wit-bindgen makes of the contract (`wit/` of this repository, found relative to this crate's manifest, so also
//! when the SDK is a git dependency). One world per export: [`crate::export!`] takes those that a handler implements,
//! and the linker merges them into one component.
//!
//! Ticks, partitions and failures share the records of the first, so that one conversion does for all.
//!
//! On a native target the imports below cannot be called; `imports.rs` stands in for them.

#![allow(missing_docs, reason = "generated; the contract's files document it")]

pub mod message {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "message-frames-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_message_frames",
        default_bindings_module: "sluicebox_sdk::__private::bindings::message",
        type_section_suffix: "-message",
    });
}

pub mod batch {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "batch-frames-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_batch_frames",
        default_bindings_module: "sluicebox_sdk::__private::bindings::batch",
        type_section_suffix: "-batch",
    });
}

pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "lifecycle-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_lifecycle",
        default_bindings_module: "sluicebox_sdk::__private::bindings::lifecycle",
        type_section_suffix: "-lifecycle",
    });
}

pub mod timer {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "timer-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_timer",
        default_bindings_module: "sluicebox_sdk::__private::bindings::timer",
        type_section_suffix: "-timer",
    });
}

pub mod partitions {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "partitions-plugin",
        with: { "sluicebox:plugin/types@0.1.0": crate::bindings::timer::sluicebox::plugin::types },
        pub_export_macro: true,
        export_macro_name: "__export_partitions",
        default_bindings_module: "sluicebox_sdk::__private::bindings::partitions",
        type_section_suffix: "-partitions",
    });
}

pub mod state {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "state-plugin",
        pub_export_macro: true,
        export_macro_name: "__export_state",
        default_bindings_module: "sluicebox_sdk::__private::bindings::state",
        type_section_suffix: "-state",
    });
}

pub mod failures {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "failures-plugin",
        with: { "sluicebox:plugin/types@0.1.0": crate::bindings::timer::sluicebox::plugin::types },
        pub_export_macro: true,
        export_macro_name: "__export_failures",
        default_bindings_module: "sluicebox_sdk::__private::bindings::failures",
        type_section_suffix: "-failures",
    });
}
