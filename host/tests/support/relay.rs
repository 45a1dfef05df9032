//! A TCP relay in front of a broker: what a network may do to those who talk. Bytes stand still, connections are cut.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Stalled,
    Cut,
}

/// Listens on a port of its own until it is dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    ended: bool,
    connections: u64,
    /// Both ends of each connection.
    open: BTreeMap<u64, [TcpStream; 2]>,
}

impl Relay {
    /// Relays to this port of the loopback address.
    pub fn to(port: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("cannot bind a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = State { mode: Mode::Open, ended: false, connections: 0, open: BTreeMap::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.state().ended {
                    return;
                }
                accepting.connect(client, port);
            }
        });
        Relay { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Nothing arrives any more, on either side, and nobody is told.
    pub fn stall(&self) {
        self.shared.set(Mode::Stalled);
    }

    /// Connections end; new ones, too, as soon as they were made.
    pub fn cut(&self) {
        self.shared.set(Mode::Cut);
    }

    /// Everything flows again; what stood still arrives.
    pub fn restore(&self) {
        self.shared.set(Mode::Open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.set(Mode::Cut);
        // Its thread waits for a connection.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics holding it")
    }

    fn set(&self, mode: Mode) {
        let mut state = self.state();
        state.mode = mode;
        if mode == Mode::Cut {
            std::mem::take(&mut state.open).into_values().for_each(close);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A pump for each direction. A broker that is not there is a connection that ends.
    fn connect(self: &Arc<Shared>, client: TcpStream, port: u16) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a socket can be shared");
        let mut state = self.state();
        if state.mode == Mode::Cut {
            return;
        }
        let number = state.connections;
        state.connections += 1;
        state.open.insert(number, [copy(&client), copy(&server)]);
        drop(state);
        for (from, to) in [(copy(&client), copy(&server)), (server, client)] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.pump(number, from, to));
        }
    }

    fn pump(&self, number: u64, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if !self.flows(number) || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let connection = self.state().open.remove(&number);
        connection.into_iter().for_each(close);
    }

    /// Waits until bytes of this connection may go on; false when it was cut.
    fn flows(&self, number: u64) -> bool {
        let stalled = |state: &mut State| state.mode == Mode::Stalled;
        let state = self.changed.wait_while(self.state(), stalled).expect("nobody panics holding it");
        state.open.contains_key(&number)
    }
}

fn close(ends: [TcpStream; 2]) {
    for end in ends {
        // It may be closed from the other side already.
        end.shutdown(Shutdown::Both).ok();
    }
}
