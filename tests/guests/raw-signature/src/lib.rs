//! Names of the contract, types of its own; imports a function that the contract does not have.

wit_bindgen::generate!({
    inline: "package sluicebox:plugin@0.1.0;
        interface message-frames {
            handle-messages: func(burst: list<u8>) -> list<u8>;
        }
        interface batch-handler {
            handle: func() -> bool;
        }
        interface partitions {
            partition-assigned: func(topic: string);
        }
        interface failures {
            handle-failed: func(failed: list<string>) -> list<string>;
        }
        interface secrets {
            get: func() -> string;
        }
        world guest {
            import secrets;
            export message-frames;
            export batch-handler;
            export partitions;
            export failures;
        }",
    world: "sluicebox:plugin/guest",
});

struct Guest;

export!(Guest);

impl exports::sluicebox::plugin::message_frames::Guest for Guest {
    fn handle_messages(_burst: Vec<u8>) -> Vec<u8> {
        sluicebox::plugin::secrets::get().into_bytes()
    }
}

impl exports::sluicebox::plugin::batch_handler::Guest for Guest {
    fn handle() -> bool {
        true
    }
}

impl exports::sluicebox::plugin::partitions::Guest for Guest {
    fn partition_assigned(_topic: String) {}
}

impl exports::sluicebox::plugin::failures::Guest for Guest {
    fn handle_failed(failed: Vec<String>) -> Vec<String> {
        failed
    }
}
