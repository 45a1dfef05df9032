//! Looks at a file on the host, or would.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sluicebox:plugin/message-frames-plugin",
    generate_all,
});

use exports::sluicebox::plugin::message_frames::{Frame, Guest as Handler};

struct Guest;

export!(Guest);

impl Handler for Guest {
    fn handle_messages(_burst: Frame) -> Frame {
        Frame { index: std::fs::read("/etc/passwd").unwrap_or_default(), payload: Vec::new() }
    }
}
