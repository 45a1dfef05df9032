//! Opens a connection and reads a file, so that the component imports `wasi:sockets` and `wasi:filesystem`.

use std::io::Write;
use std::net::TcpStream;

use sluicebox_sdk::prelude::*;

struct NeedsSockets;

impl Handler for NeedsSockets {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(Self)
    }
}

impl MessageHandler for NeedsSockets {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        let greeting = std::fs::read("/etc/hostname")?;
        TcpStream::connect("127.0.0.1:9")?.write_all(&greeting)?;
        Ok(message.forward_default())
    }
}

sluicebox_sdk::export!(NeedsSockets: message);
