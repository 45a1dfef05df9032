//! Lines of handlers, into the host's log, tagged with the pipeline and the version that wrote them.

use tracing::Level;

use crate::plugin::{HandlerLog, LogLevel};

/// The log of one pipeline's handler.
pub struct PipelineLog {
    pipeline: String,
    version: String,
}

impl PipelineLog {
    /// For a pipeline and the digest of its component.
    #[must_use]
    pub fn new(pipeline: &str, version: &str) -> Self {
        Self { pipeline: pipeline.to_owned(), version: version.chars().take(12).collect() }
    }
}

impl HandlerLog for PipelineLog {
    fn enabled(&self, level: LogLevel) -> bool {
        match level {
            LogLevel::Trace => tracing::enabled!(target: "handler", Level::TRACE),
            LogLevel::Debug => tracing::enabled!(target: "handler", Level::DEBUG),
            LogLevel::Info => tracing::enabled!(target: "handler", Level::INFO),
            LogLevel::Warn => tracing::enabled!(target: "handler", Level::WARN),
            LogLevel::Error => tracing::enabled!(target: "handler", Level::ERROR),
        }
    }

    fn line(&self, level: LogLevel, line: &str, truncated: bool) {
        let (pipeline, version) = (&*self.pipeline, &*self.version);
        let cut = if truncated { " … (cut at 4 KiB)" } else { "" };
        match level {
            LogLevel::Trace => tracing::trace!(target: "handler", pipeline, version, "{line}{cut}"),
            LogLevel::Debug => tracing::debug!(target: "handler", pipeline, version, "{line}{cut}"),
            LogLevel::Info => tracing::info!(target: "handler", pipeline, version, "{line}{cut}"),
            LogLevel::Warn => tracing::warn!(target: "handler", pipeline, version, "{line}{cut}"),
            LogLevel::Error => tracing::error!(target: "handler", pipeline, version, "{line}{cut}"),
        }
    }
}
