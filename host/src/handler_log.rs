//! What handlers write and how they fail, into the host's log: tagged with the pipeline, the version, and the messages
//! that the call was about.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::plugin::{Fault, HandlerLog, LogLevel, Place};
use crate::quota::Quota;
use crate::telemetry;

/// Reports of faults that are written at once, and how long it takes until there may be one more. A report has some
/// thirty lines, and a handler that breaks at everything makes thousands a second.
const REPORTS: (u32, Duration) = (10, Duration::from_secs(10));

/// The log of one pipeline's handler.
pub struct PipelineLog {
    pipeline: String,
    version: String,
    bootstrap: String,
    reports: Mutex<Quota>,
}

impl PipelineLog {
    /// For a pipeline, the digest of its component, and the brokers that it reads from.
    #[must_use]
    pub fn new(pipeline: &str, version: &str, bootstrap: &str) -> Self {
        let reports = Mutex::new(Quota::new(REPORTS.0, REPORTS.1, Instant::now()));
        let version = version.chars().take(12).collect();
        Self { pipeline: pipeline.to_owned(), version, bootstrap: bootstrap.to_owned(), reports }
    }

    /// Shows the record, where it stands alone.
    fn next_command(&self, place: &Place) -> Option<String> {
        let Place { topic, partition, offsets, messages: 1, .. } = place else { return None };
        let (offset, _) = (*offsets)?;
        Some(format!(
            "kafka-console-consumer.sh --bootstrap-server {} --topic {topic} --partition {partition} --offset {offset} \
             --max-messages 1",
            self.bootstrap
        ))
    }
}

impl Drop for PipelineLog {
    fn drop(&mut self) {
        let left_out = self.reports.get_mut().unwrap_or_else(PoisonError::into_inner).end();
        if let Some(count) = left_out {
            telemetry::handler_faults_left_out(&self.pipeline, &self.version, count);
        }
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

    fn line(&self, level: LogLevel, line: &str, truncated: bool, place: Option<&Place>) {
        let (pipeline, version) = (&*self.pipeline, &*self.version);
        let topic = place.map(|place| &*place.topic);
        let partition = place.map(|place| place.partition);
        let (offset, last_offset) = place.and_then(|place| place.offsets).unzip();
        let cut = if truncated { " … (cut)" } else { "" };
        macro_rules! say {
            ($say:ident) => {
                tracing::$say!(
                    target: "handler", pipeline, version, topic, partition, offset, last_offset, "{line}{cut}"
                )
            };
        }
        match level {
            LogLevel::Trace => say!(trace),
            LogLevel::Debug => say!(debug),
            LogLevel::Info => say!(info),
            LogLevel::Warn => say!(warn),
            LogLevel::Error => say!(error),
        }
    }

    fn fault(&self, fault: &Fault, place: Option<&Place>) {
        let may = self.reports.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let Some(left_out) = may else { return };
        if left_out > 0 {
            telemetry::handler_faults_left_out(&self.pipeline, &self.version, left_out);
        }
        let next = place.and_then(|place| self.next_command(place));
        telemetry::handler_fault(&self.pipeline, &self.version, fault, place, next.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_shows_the_record() {
        let log = PipelineLog::new("orders", &"ab".repeat(32), "k:9092");
        let one = Place { topic: "orders".into(), partition: 7, offsets: Some((5, 5)), messages: 1, attempt: 1 };
        let command = "kafka-console-consumer.sh --bootstrap-server k:9092 --topic orders --partition 7 --offset 5 \
                       --max-messages 1";
        assert_eq!(log.next_command(&one).as_deref(), Some(command));
        assert_eq!(log.next_command(&Place { messages: 2, ..one }), None);
    }
}
