//! One thread of a child process, stopped while the others go on: what a scheduler does to it on a starved machine. Linux
//! only (`ptrace`).

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A stopped thread; it goes on when this is dropped.
pub struct FrozenThread {
    go_on: Option<SyncSender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl FrozenThread {
    /// Stops the thread of process `pid` whose name begins with `name`; returns when it stands still.
    pub fn of(pid: i32, name: &str) -> FrozenThread {
        let thread = thread_of(pid, name);
        let (go_on, asked) = sync_channel(1);
        let (stopped, stands) = sync_channel(1);
        // Only the thread that attached may let go again.
        let tracer = std::thread::spawn(move || trace(thread, &stopped, &asked));
        match stands.recv() {
            Ok(Ok(())) => FrozenThread { go_on: Some(go_on), tracer: Some(tracer) },
            answer => panic!("thread {thread} ({name}) of {pid} cannot be stopped: {answer:?}"),
        }
    }
}

impl Drop for FrozenThread {
    fn drop(&mut self) {
        self.go_on.take();
        if let Some(tracer) = self.tracer.take() {
            // It has nothing to panic about that the kernel would not undo by itself.
            tracer.join().ok();
        }
    }
}

/// The id of the thread whose name begins with `name`; the kernel keeps 15 characters of a name.
fn thread_of(pid: i32, name: &str) -> i32 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let mut names = Vec::new();
    for task in tasks.flatten() {
        let own = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if own.starts_with(name) {
            return task.file_name().to_string_lossy().parse().expect("a thread id");
        }
        names.push(own.trim().to_owned());
    }
    panic!("process {pid} has no thread {name}…, but {names:?}");
}

#[cfg(target_os = "linux")]
fn trace(thread: i32, stopped: &SyncSender<std::io::Result<()>>, asked: &Receiver<()>) {
    let done = |result: libc::c_long| {
        if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: plain system calls about a thread of a child of ours; addresses and data are not used by these requests.
    let seized = unsafe {
        done(libc::ptrace(libc::PTRACE_SEIZE, thread, 0, 0))
            .and_then(|()| done(libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0, 0)))
            .and_then(|()| done(libc::waitpid(thread, std::ptr::null_mut(), libc::__WALL).into()))
    };
    let stands = seized.is_ok();
    stopped.send(seized).expect("whoever freezes waits for the answer");
    if stands {
        // Ends when the other half is dropped.
        asked.recv().ok();
        // SAFETY: as above. The kernel lets go of it by itself when this thread ends.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0, 0) };
    }
}

#[cfg(not(target_os = "linux"))]
fn trace(_: i32, stopped: &SyncSender<std::io::Result<()>>, _: &Receiver<()>) {
    stopped.send(Err(std::io::Error::other("no single thread can be stopped here"))).expect("somebody waits");
}
