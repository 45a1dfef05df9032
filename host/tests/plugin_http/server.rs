//! A real HTTP server on this machine, which says what it was asked and how often it was connected to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// After this nobody waits for an answer any more.
const LONGEST: Duration = Duration::from_secs(60);

/// What it saw.
#[derive(Default)]
pub struct Seen {
    pub connections: AtomicUsize,
    /// Connections that the other side has ended.
    pub ended: AtomicUsize,
    /// Requests for what comes later that wait now, and most of them at once.
    waiting: AtomicUsize,
    pub most: AtomicUsize,
    /// Requests to be answered together.
    together: Mutex<usize>,
    joined: Condvar,
    /// Heads of requests as they came, with the length of the body behind.
    heads: Mutex<Vec<(String, usize)>>,
}

impl Seen {
    pub fn heads(&self) -> Vec<(String, usize)> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many requests wait here; `None` when that takes too long for anybody.
    fn wait_for_others(&self, count: usize) -> Option<()> {
        let mut together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        *together += 1;
        self.most.fetch_max(*together, Ordering::SeqCst);
        self.joined.notify_all();
        let wait = self.joined.wait_timeout_while(together, LONGEST, |together| *together < count);
        let (together, _) = wait.unwrap_or_else(PoisonError::into_inner);
        (*together >= count).then_some(())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A server, until the process ends.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
}

impl Server {
    /// Listens on this address of the machine, on a free port.
    pub fn start(address: &str) -> Self {
        Self::on(&format!("{address}:0"), None)
    }

    /// Listens there; with TLS if there is a certificate.
    pub fn on(address: &str, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("an address of this machine");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, tls) = (Arc::clone(&all), tls.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    match tls {
                        None => serve(stream, &seen),
                        Some(tls) => {
                            let connection = rustls::ServerConnection::new(tls).expect("a configuration that works");
                            serve(rustls::StreamOwned::new(connection, stream), &seen)
                        }
                    };
                    seen.ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Answers requests until the connection ends, from whichever side.
fn serve(mut stream: impl Peer, seen: &Seen) -> Option<()> {
    loop {
        let head = read_until(&mut stream, b"\r\n\r\n")?;
        let body = read_body(&mut stream, &head)?;
        seen.heads.lock().unwrap_or_else(PoisonError::into_inner).push((head.clone(), body));
        let path = head.split(' ').nth(1)?.to_owned();
        let (path, argument) = path.split_once('?').unwrap_or((&path, ""));
        if path == "/later" {
            let most = seen.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            seen.most.fetch_max(most, Ordering::SeqCst);
            // As a server that has something to do.
            std::thread::park_timeout(Duration::from_millis(argument.parse().ok()?));
            // Before the answer, upon which the next may come.
            seen.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        if path == "/together" {
            seen.wait_for_others(argument.parse().ok()?)?;
        }
        if !answer(&mut stream, path, argument, &head, body).ok()? {
            return None;
        }
    }
}

/// Writes the answer; true when the connection may be used again.
fn answer(stream: &mut impl Peer, path: &str, argument: &str, head: &str, body: usize) -> std::io::Result<bool> {
    let number = || argument.parse::<usize>().unwrap_or_default();
    let whole = |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    match path {
        "/hello" => stream.write_all(whole("hello").as_bytes())?,
        "/close" => {
            let text = whole("bye").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
            stream.write_all(text.as_bytes())?;
            return Ok(false);
        }
        "/length" => stream.write_all(whole(&body.to_string()).as_bytes())?,
        "/head" => stream.write_all(whole(&head.replace("\r\n", "|")).as_bytes())?,
        "/to" => {
            let text = format!("HTTP/1.1 302 Found\r\nlocation: {argument}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(text.as_bytes())?;
        }
        // Its length is said before it comes.
        "/bytes" => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", number())?;
            stream.write_all(&vec![b'x'; number()])?;
        }
        // It is not.
        "/pieces" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for piece in vec![b'x'; number()].chunks(1000) {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        }
        "/headers" => {
            write!(stream, "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(number()))?;
        }
        // Never comes to its end.
        "/half" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")?;
            stream.flush()?;
            stream.wait_for_the_end();
            return Ok(false);
        }
        // Ends before its end.
        "/cut" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ncut")?;
            return Ok(false);
        }
        "/never" => {
            stream.wait_for_the_end();
            return Ok(false);
        }
        "/later" => stream.write_all(whole("later").as_bytes())?,
        "/together" => stream.write_all(whole("together").as_bytes())?,
        "/noise" => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")?;
            return Ok(false);
        }
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
    }
    stream.flush()?;
    Ok(true)
}

/// One side of a connection.
trait Peer: Read + Write {
    fn wait_for_the_end(&mut self) {
        while self.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    }
}

impl Peer for TcpStream {}
impl Peer for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {}

fn read_until(stream: &mut impl Read, end: &[u8]) -> Option<String> {
    let mut all = Vec::new();
    let mut byte = [0];
    while !all.ends_with(end) {
        stream.read_exact(&mut byte).ok()?;
        all.push(byte[0]);
    }
    String::from_utf8(all).ok()
}

/// The length of the body behind a head, which is read and dropped.
fn read_body(stream: &mut impl Read, head: &str) -> Option<usize> {
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    if let Some(length) = length {
        let length = length.parse().ok()?;
        stream.read_exact(&mut vec![0; length]).ok()?;
        return Some(length);
    }
    let mut all = 0;
    while head.contains("transfer-encoding: chunked") {
        let size = usize::from_str_radix(read_until(stream, b"\r\n")?.trim(), 16).ok()?;
        stream.read_exact(&mut vec![0; size + 2]).ok()?;
        all += size;
        if size == 0 {
            break;
        }
    }
    Some(all)
}
