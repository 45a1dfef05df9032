//! The recorded sample of a pipeline (`swap.sample`): records that a new version has to be done with before it gets any of the
//! topics'. Each by itself, so that the one that it fails at can be named; what is emitted for them goes nowhere.

use std::path::Path;
use std::time::SystemTime;

use sluicebox_frames::{
    Answer, BatchInfo, DestinationKind, Frame, Headers, HeadersWriter, MessagesWriter, NewMessage, Outcome, Source,
    TimestampType, Trigger,
};

use crate::config::{DEFAULT_BATCHER, Pipeline};
use crate::plugin::{Instance, Version};
use crate::samples::{self, Sample};

/// Records of a sample, at most: it is tried at every change, under the limits of a message each.
const MOST: usize = 1_000;

/// Why a version does not pass.
#[derive(Debug)]
pub(super) enum Failed {
    /// The file is none.
    File(String),
    /// It fails at a record of `FILE:LINE`.
    Record {
        /// `FILE:LINE`.
        place: String,
        /// How.
        text: String,
    },
}

/// The records of a sample file.
pub(super) fn read(path: &Path) -> Result<Vec<Sample>, Failed> {
    let samples = samples::read(path).map_err(|errors| Failed::File(errors.join("; ")))?;
    if samples.len() > MOST {
        let text = format!("{}: it has {} records; {MOST} are the most that are tried", path.display(), samples.len());
        return Err(Failed::File(text));
    }
    Ok(samples)
}

/// Offers each record to an instance.
pub(super) async fn try_all(
    instance: &mut Instance,
    version: &Version,
    config: &Pipeline,
    path: &Path,
    samples: &[Sample],
) -> Result<(), Failed> {
    for sample in samples {
        let failed = |text: String| Failed::Record { place: format!("{}:{}", path.display(), sample.line), text };
        let frame = frame(sample, config, version.has_message());
        let answer = if version.has_message() {
            instance.handle_messages(&frame).await
        } else {
            match instance.handle_batch(&frame).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(text)) => return Err(failed(text)),
                Err(fault) => Err(fault),
            }
        };
        let answer = answer.map_err(|fault| failed(format!("{} ({})", fault.summary(), fault.class.name())))?;
        judge(&answer, config).map_err(failed)?;
    }
    Ok(())
}

/// A record as handlers see it: of the first topic, at the offset of its line, stamped now.
fn frame(sample: &Sample, config: &Pipeline, message: bool) -> Frame {
    let topic = config.source.topics.first().map_or("sample", String::as_str);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let mut block = Vec::new();
    let mut headers = HeadersWriter::new(&mut block);
    for (name, value) in &sample.headers {
        headers.push(name.as_bytes(), value.as_deref().map(str::as_bytes));
    }
    _ = headers.finish();
    let mut frame = Frame::default();
    let source = Source { topic, partition: 0 };
    let mut writer = if message {
        MessagesWriter::burst(&mut frame, source, 0, true)
    } else {
        let info = BatchInfo { batcher: DEFAULT_BATCHER, batch_key: &[], trigger: Trigger::Size };
        MessagesWriter::batch(&mut frame, &[source], 0, info)
    };
    let message = NewMessage {
        offset: i64::try_from(sample.line).unwrap_or(i64::MAX),
        timestamp: i64::try_from(now).unwrap_or(i64::MAX),
        timestamp_type: TimestampType::CreateTime,
        key: sample.key.as_deref().map(str::as_bytes),
        value: sample.value.as_deref().map(str::as_bytes),
        attempt: 1,
        source: 0,
    };
    writer.push(&message, Headers::new(&block));
    writer.finish();
    frame
}

/// What lanes would find wrong with it, as far as that does not depend on topics; and anything but being done or held.
fn judge(answer: &Frame, config: &Pipeline) -> Result<(), String> {
    let answer = Answer::check(&answer.index, &answer.payload).map_err(|error| format!("a bad answer, {error}"))?;
    if answer.outcome_count() != 1 {
        return Err(format!("a bad answer, {} outcomes for 1 message", answer.outcome_count()));
    }
    for (kind, name) in answer.destinations() {
        let (known, what) = match kind {
            DestinationKind::Output => (config.outputs.iter().any(|output| output.name == name), "output"),
            DestinationKind::Batcher => {
                (name == DEFAULT_BATCHER || config.batchers.iter().any(|batcher| batcher.name == name), "batcher")
            }
        };
        if !known {
            return Err(format!("it emits to {what} `{name}`, which the pipeline does not declare"));
        }
    }
    match answer.outcome(0) {
        Outcome::Done { .. } | Outcome::Hold => Ok(()),
        Outcome::Retry { reason, .. } => Err(format!("it wants it tried again ({reason})")),
        Outcome::Reject { reason } => Err(format!("it rejects it ({reason})")),
    }
}
