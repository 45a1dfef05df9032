//! Requests as they stand: what no well-meaning client sends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::support::PATIENCE;

/// The answer to a request, as it stands.
pub fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.write_all(request.as_bytes()).expect("takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers and closes");
    answer
}
