//! Names of the contract, types of its own; imports a function that the contract does not have.

wit_bindgen::generate!({
    inline: "package sluicebox:plugin@0.1.0;
        interface message-frames {
            handle-messages: func(burst: list<u8>) -> list<u8>;
        }
        interface batch-handler {
            handle: func() -> bool;
        }
        interface secrets {
            get: func() -> string;
        }
        world guest {
            import secrets;
            export message-frames;
            export batch-handler;
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
