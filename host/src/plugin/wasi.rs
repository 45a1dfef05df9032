//! The part of WASI 0.2 that language runtimes need and that reaches nothing outside the instance: clocks, random
//! numbers, streams to the handler's log, an environment that is always empty. Files, sockets and HTTP are not linked.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, io, random};
use wasmtime_wasi::p2::pipe::ClosedInputStream;
use wasmtime_wasi::p2::{DynPollable, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxView, WasiView, async_trait};

use super::instance::State;
use super::output::{Output, Stream};
use super::replay::Replay;

/// Every WASI interface that is linked, as package and interface.
pub(super) const LINKED: [(&str, &str); 18] = [
    ("wasi:io", "error"),
    ("wasi:io", "poll"),
    ("wasi:io", "streams"),
    ("wasi:cli", "environment"),
    ("wasi:cli", "exit"),
    ("wasi:cli", "stdin"),
    ("wasi:cli", "stdout"),
    ("wasi:cli", "stderr"),
    ("wasi:cli", "terminal-input"),
    ("wasi:cli", "terminal-output"),
    ("wasi:cli", "terminal-stdin"),
    ("wasi:cli", "terminal-stdout"),
    ("wasi:cli", "terminal-stderr"),
    ("wasi:clocks", "wall-clock"),
    ("wasi:clocks", "monotonic-clock"),
    ("wasi:random", "random"),
    ("wasi:random", "insecure"),
    ("wasi:random", "insecure-seed"),
];

/// Random bytes that one call may ask for: they are made on the host, where no running time counts.
const RANDOM_BYTES: u64 = 1 << 20;
/// Steps of both clocks. Fine enough to measure a handler by, too coarse to watch the machine's caches.
const CLOCK_STEP: Duration = Duration::from_micros(100);

/// Links what [`LINKED`] says.
pub(super) fn add_to_linker(l: &mut Linker<State>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<State, Errors>(l, |state| ErrorTexts(&mut state.table))?;
    io::poll::add_to_linker::<State, Polling>(l, |state| Polls {
        most: state.config.limits.handles as usize,
        table: &mut state.table,
        waits_in: &mut state.waits_in,
    })?;
    io::streams::add_to_linker::<State, Table>(l, |state| state.ctx().table)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::clocks)?;
    random::random::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, |state| state.ctx().ctx.random())?;
    Ok(())
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

struct Errors;

impl HasData for Errors {
    type Data<'a> = ErrorTexts<'a>;
}

/// `wasi:io/error`: what went wrong, in words, without the host's own call stack.
struct ErrorTexts<'a>(&'a mut ResourceTable);

impl io::error::Host for ErrorTexts<'_> {}

impl io::error::HostError for ErrorTexts<'_> {
    fn to_debug_string(&mut self, error: Resource<io::error::Error>) -> wasmtime::Result<String> {
        Ok(format!("{:#}", self.0.get(&error)?))
    }

    fn drop(&mut self, error: Resource<io::error::Error>) -> wasmtime::Result<()> {
        self.0.delete(error)?;
        Ok(())
    }
}

struct Polling;

impl HasData for Polling {
    type Data<'a> = Polls<'a>;
}

/// `wasi:io/poll`, the one interface that a guest can wait in: says so while it does.
struct Polls<'a> {
    table: &'a mut ResourceTable,
    waits_in: &'a mut Option<&'static str>,
    /// Pollables in one call: the host looks at each.
    most: usize,
}

impl io::poll::Host for Polls<'_> {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        if pollables.len() > self.most {
            wasmtime::bail!("wasi:io/poll.poll with {} pollables, the limit is {}", pollables.len(), self.most);
        }
        *self.waits_in = Some("wasi:io/poll.poll");
        let ready = io::poll::Host::poll(self.table, pollables).await;
        *self.waits_in = None;
        ready
    }
}

impl io::poll::HostPollable for Polls<'_> {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.table.ready(pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        *self.waits_in = Some("wasi:io/poll.pollable.block");
        let blocked = self.table.block(pollable).await;
        *self.waits_in = None;
        blocked
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        io::poll::HostPollable::drop(self.table, pollable)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// The context of one instance.
pub(super) fn context(output: &Arc<Output>, replay: Option<&Arc<Replay>>) -> WasiCtx {
    let mut context = WasiCtx::builder();
    context
        .stdin(ClosedInputStream)
        .stdout(LogStream { output: Arc::clone(output), stream: Stream::Stdout })
        .stderr(LogStream { output: Arc::clone(output), stream: Stream::Stderr })
        .max_random_size(RANDOM_BYTES)
        .wall_clock(CoarseWallClock)
        .monotonic_clock(CoarseMonotonicClock { origin: Instant::now() })
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    if let Some(replay) = replay {
        replay.configure(&mut context);
    }
    context.build()
}

struct CoarseWallClock;

impl HostWallClock for CoarseWallClock {
    fn resolution(&self) -> Duration {
        CLOCK_STEP
    }

    fn now(&self) -> Duration {
        // A clock before 1970 is shown as 1970.
        coarse(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

/// Counts from the instance's start, so that it says nothing about the host's uptime.
struct CoarseMonotonicClock {
    origin: Instant,
}

impl HostMonotonicClock for CoarseMonotonicClock {
    fn resolution(&self) -> u64 {
        CLOCK_STEP.as_nanos() as u64
    }

    fn now(&self) -> u64 {
        u64::try_from(coarse(self.origin.elapsed()).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn coarse(time: Duration) -> Duration {
    Duration::new(time.as_secs(), time.subsec_nanos() / CLOCK_STEP.subsec_nanos() * CLOCK_STEP.subsec_nanos())
}

/// Standard output or error: lines of the handler's log.
struct LogStream {
    output: Arc<Output>,
    stream: Stream,
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self { output: Arc::clone(&self.output), stream: self.stream })
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Asked for by WASI 0.3 only, which is not linked.
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // Also bounds what `write-zeroes` allocates on the host.
        Ok(64 << 10)
    }
}
