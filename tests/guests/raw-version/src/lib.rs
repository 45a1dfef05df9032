//! Built against a later version of the contract.

wit_bindgen::generate!({
    inline: "package sluicebox:plugin@0.2.0;
        interface message-frames {
            handle-messages: func(burst: list<u8>) -> list<u8>;
        }
        world guest {
            export message-frames;
        }",
    world: "sluicebox:plugin/guest",
});

struct Guest;

export!(Guest);

impl exports::sluicebox::plugin::message_frames::Guest for Guest {
    fn handle_messages(burst: Vec<u8>) -> Vec<u8> {
        burst
    }
}
