//! Child processes of a test: output captured line by line, exit and CPU time observed, and none of them outlives us.
//!
//! A test process ends by `exit`, without the destructors of statics, or by a signal. So a child dies with us in three
//! ways: `Drop`, an `atexit` hook, and the kernel (`PR_SET_PDEATHSIG`). The last one fires when the *thread* that made
//! the child ends, so each child gets a keeper thread that makes it and waits for it. Where there is no such call, a
//! shell holding the read end of a pipe from us takes its place.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

/// Lines kept per process; older ones are forgotten.
const KEPT_LINES: usize = 50_000;
/// Lines shown when something went wrong.
const SHOWN_LINES: usize = 60;

/// How a process ended and what it used.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub status: ExitStatus,
    pub user: Duration,
    pub system: Duration,
    /// The most that it, any child that it waited for (its compiler), or this test program when it forked, had: for a
    /// bound of its own there is [`Process::most_memory_kib`].
    pub max_rss_kib: i64,
}

impl Exit {
    pub fn cpu(&self) -> Duration {
        self.user + self.system
    }
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines already forgotten; `forgotten + index` numbers a line.
    forgotten: usize,
    /// Pipes still open, of stdout and stderr.
    open_pipes: usize,
    exit: Option<Exit>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A running or ended child process.
pub struct Process {
    name: String,
    pid: i32,
    shared: Arc<Shared>,
    /// Where `wait_for` goes on.
    cursor: Mutex<usize>,
}

impl Process {
    /// Starts `command` with stdin closed and both outputs captured.
    pub fn spawn(name: &str, mut command: Command) -> Process {
        register_exit_hook();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shared = Arc::new(Shared::default());
        shared.lock().open_pipes = 2;
        let (started, pid) = std::sync::mpsc::sync_channel(1);
        let keeper = Keeper { name: name.to_owned(), shared: shared.clone() };
        std::thread::Builder::new()
            .name(format!("keeper of {name}"))
            .spawn(move || keeper.run(command, &started))
            .expect("cannot start a thread");
        let pid =
            pid.recv().expect("the keeper answers").unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { name: name.to_owned(), pid, shared, cursor: Mutex::new(0) }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal unless the process has ended; a process id is never reused before its keeper saw the end.
    pub fn signal(&self, signal: i32) {
        let state = self.shared.lock();
        if state.exit.is_none() {
            // SAFETY: plain system call; the keeper reaps under the lock we hold, so the id is still this process.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    pub fn exited(&self) -> Option<Exit> {
        self.shared.lock().exit
    }

    /// Waits for the end at most so long.
    pub fn wait_exit_within(&self, patience: Duration) -> Option<Exit> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        // The pipes close with the process; waiting for both makes the captured output whole.
        while state.exit.is_none() || state.open_pipes > 0 {
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        state.exit
    }

    /// Waits for the end and panics with the output when it does not come.
    pub fn wait_exit(&self, patience: Duration) -> Exit {
        self.wait_exit_within(patience)
            .unwrap_or_else(|| panic!("{} did not end within {patience:?}\n{}", self.name, self.tail()))
    }

    /// Waits for the next line, from the last match on, that `matches`; panics with the output when none comes.
    pub fn wait_for(&self, what: &str, patience: Duration, matches: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + patience;
        let mut cursor = self.cursor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut state = self.shared.lock();
        loop {
            while *cursor < state.forgotten + state.lines.len() {
                let line = &state.lines[cursor.saturating_sub(state.forgotten)];
                *cursor = (*cursor).max(state.forgotten) + 1;
                if matches(line) {
                    return line.clone();
                }
            }
            let left = deadline.checked_duration_since(Instant::now());
            let ended = state.open_pipes == 0;
            let Some(left) = left.filter(|_| !ended) else {
                drop(state);
                let why = if ended { "the process ended".to_owned() } else { format!("waited {patience:?}") };
                panic!("{} never said {what:?} ({why})\n{}", self.name, self.tail());
            };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    /// Waits until `holds`, looking again whenever the process says something and at least five times a second; panics
    /// with the output when it never does. For states that have no event of their own.
    pub fn wait_until(&self, what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
        const AT_LEAST: Duration = Duration::from_millis(200);
        let deadline = Instant::now() + patience;
        loop {
            let state = self.shared.lock();
            let (seen, ended) = (state.forgotten + state.lines.len(), state.exit.is_some());
            drop(state);
            if holds() {
                return;
            }
            let over = Instant::now() >= deadline;
            assert!(!over && !ended, "{}: {what} (waited at most {patience:?})\n{}", self.name, self.tail());
            let news = |state: &mut State| state.forgotten + state.lines.len() == seen && state.exit.is_none();
            let state = self.shared.lock();
            drop(self.shared.changed.wait_timeout_while(state, AT_LEAST, news));
        }
    }

    /// Everything captured and not yet forgotten.
    pub fn output(&self) -> Vec<String> {
        self.shared.lock().lines.iter().cloned().collect()
    }

    /// The end of the output and the exit status, for panic messages.
    pub fn tail(&self) -> String {
        let state = self.shared.lock();
        let first = state.lines.len().saturating_sub(SHOWN_LINES);
        let lines: Vec<&str> = state.lines.iter().skip(first).map(String::as_str).collect();
        let end = state.exit.map_or("still running".to_owned(), |exit| exit.status.to_string());
        format!("--- output of {} (process {}, {end}) ---\n{}\n--- end ---", self.name, self.pid, lines.join("\n"))
    }

    /// CPU time used so far, read from the kernel without stopping the process; `None` once it has ended.
    pub fn cpu_now(&self) -> Option<Duration> {
        let state = self.shared.lock();
        if state.exit.is_some() {
            return None;
        }
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both calls write to the locals they are given.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.pid, &raw mut clock) != 0 || libc::clock_gettime(clock, &raw mut time) != 0
        };
        (!failed).then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32))
    }
}

impl Process {
    /// The most memory that it has had so far, by itself; `None` where the kernel does not tell, and once it has ended.
    pub fn most_memory_kib(&self) -> Option<u64> {
        self.status_kib("VmHWM:")
    }

    /// What it has now.
    pub fn memory_kib(&self) -> Option<u64> {
        self.status_kib("VmRSS:")
    }

    fn status_kib(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

struct Keeper {
    name: String,
    shared: Arc<Shared>,
}

impl Keeper {
    fn run(self, mut command: Command, started: &std::sync::mpsc::SyncSender<std::io::Result<i32>>) {
        die_with_parent(&mut command);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                started.send(Err(error)).expect("spawn waits for the answer");
                return;
            }
        };
        let pid = i32::try_from(child.id()).expect("a process id fits");
        ALIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(pid);
        let watchdog = Watchdog::start(pid);
        self.capture(child.stdout.take().expect("stdout is piped"));
        self.capture(child.stderr.take().expect("stderr is piped"));
        started.send(Ok(pid)).expect("spawn waits for the answer");
        // SAFETY: waits without reaping, so that the id stays ours until we hold the lock.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, libc::WEXITED | libc::WNOWAIT);
        }
        watchdog.stop();
        let mut state = self.shared.lock();
        ALIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).retain(|alive| *alive != pid);
        state.exit = Some(reap(pid));
        self.shared.changed.notify_all();
    }

    fn capture(&self, pipe: impl Read + Send + 'static) {
        let shared = self.shared.clone();
        let name = self.name.clone();
        let loud = std::env::var_os("SLUICEBOX_TEST_ECHO").is_some();
        let read = move || {
            let mut reader = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while matches!(reader.read_until(b'\n', &mut bytes), Ok(1..)) {
                let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                if loud {
                    eprintln!("[{name}] {line}");
                }
                let mut state = shared.lock();
                state.lines.push_back(line);
                if state.lines.len() > KEPT_LINES {
                    state.lines.pop_front();
                    state.forgotten += 1;
                }
                shared.changed.notify_all();
            }
            shared.lock().open_pipes -= 1;
            shared.changed.notify_all();
        };
        std::thread::Builder::new()
            .name(format!("output of {}", self.name))
            .spawn(read)
            .expect("cannot start a thread");
    }
}

/// Collects the exit status and the resources used.
fn reap(pid: i32) -> Exit {
    let mut status = 0;
    // SAFETY: wait4 writes to the two locals; the child has ended, so it does not block.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::wait4(pid, &raw mut status, 0, &raw mut usage);
        usage
    };
    let duration =
        |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000);
    Exit {
        status: ExitStatus::from_raw(status),
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss,
    }
}

#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let tie = move || {
        // SAFETY: both calls are async-signal-safe, as code between fork and exec must be.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            if libc::getppid().unsigned_abs() != parent {
                return Err(std::io::Error::other("the parent is gone already"));
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes async-signal-safe calls.
    unsafe { command.pre_exec(tie) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_: &mut Command) {}

/// Where the kernel does not tie a child to its parent: a shell that kills it once our end of a pipe is closed.
struct Watchdog(Option<Child>);

impl Watchdog {
    fn start(pid: i32) -> Watchdog {
        if cfg!(target_os = "linux") {
            return Watchdog(None);
        }
        let shell =
            Command::new("sh").args(["-c", &format!("cat >/dev/null; kill -9 {pid}")]).stdin(Stdio::piped()).spawn();
        Watchdog(Some(shell.expect("cannot start the watchdog shell")))
    }

    fn stop(self) {
        if let Some(mut shell) = self.0 {
            shell.kill().expect("the watchdog can be ended");
            shell.wait().expect("the watchdog can be collected");
        }
    }
}

/// Children to kill and directories to remove when this process exits.
static ALIVE: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static REMOVED_AT_EXIT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes a directory at the end of this process, after the children have ended.
pub fn remove_at_exit(directory: PathBuf) {
    register_exit_hook();
    REMOVED_AT_EXIT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(directory);
}

fn register_exit_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        // SAFETY: registers a function that lives as long as the program.
        let failed = unsafe { libc::atexit(at_exit) };
        assert!(failed == 0, "cannot register the exit hook");
    });
}

extern "C" fn at_exit() {
    // A lock held by a thread that is gone must not stop the exit: then the kernel's tie does the work.
    if let Ok(alive) = ALIVE.try_lock().map(|alive| alive.clone()) {
        for pid in alive {
            // SAFETY: plain system calls. Either we or the keeper sees the end; both are fine.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, libc::WEXITED | libc::WNOWAIT);
            }
        }
    }
    if let Ok(directories) = REMOVED_AT_EXIT.try_lock() {
        for directory in directories.iter() {
            std::fs::remove_dir_all(directory).ok();
        }
    }
}
