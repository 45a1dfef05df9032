//! The thread that all outbound requests of the process run on. Handler threads have no sockets and no names to wait for,
//! and what a request costs in TLS is not theirs to pay.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::threads;

/// Lookups at once. The system's resolver blocks a thread for each.
const LOOKUPS: usize = 8;

/// Started with the first pipeline that may ask anybody.
#[derive(Debug, Default)]
pub struct Outbound(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Outbound {
    /// Where to run requests.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn runtime(&self) -> std::io::Result<Handle> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*running {
            return Ok(running.runtime.clone());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("sb-resolve")
            .max_blocking_threads(LOOKUPS)
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = threads::spawn("sb-http", move || {
            // Ends when the sender is dropped, too.
            _ = runtime.block_on(stopped);
            // A lookup may take the system's own time; nobody waits for it.
            runtime.shutdown_background();
        })?;
        *running = Some(Running { runtime: handle.clone(), stop: Some(stop), thread: Some(thread) });
        Ok(handle)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic would have ended the process.
            drop(thread.join());
        }
    }
}
