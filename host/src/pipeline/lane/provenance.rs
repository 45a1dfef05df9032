//! Emissions on their way to an output, and where they say they come from (`provenance = true`).

use sluicebox_frames::{Emission, Headers, HeadersWriter, Message};

use super::Lane;
use super::answer::resolve;
use crate::delivery::partitioner;
use crate::delivery::ticket::Target;
use crate::pipeline::sink::{OutputNumber, Sink};

/// What an emission is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'m, 'a> {
    /// The message that it inherits from; `None` for those of a batch as a whole and of a tick.
    pub message: Option<&'m Message<'a>>,
    /// Which attempt made it.
    pub attempt: u32,
    /// Its place among the emissions of the same message, batch or tick.
    pub index: usize,
}

impl Lane {
    /// Sends an emission to an output.
    #[inline]
    pub(super) fn emit(
        &mut self,
        output: OutputNumber,
        emission: &Emission<'_>,
        from: From<'_, '_>,
        target: Target,
        sink: &mut dyn Sink,
    ) {
        self.emit_from(output, emission, from, from.message.map(|m| (m.offset(), m.offset())), target, sink);
    }

    /// As [`Lane::emit`], made of the records at these offsets (the first and the last).
    #[inline]
    pub(super) fn emit_from(
        &mut self,
        output: OutputNumber,
        emission: &Emission<'_>,
        from: From<'_, '_>,
        offsets: Option<(i64, i64)>,
        target: Target,
        sink: &mut dyn Sink,
    ) {
        let ticket = self.ticket(target);
        let mut record = resolve(emission, from.message);
        let partitions = sink.partitions(output);
        let partition = match (emission.partition(), emission.partition_key().or(record.key)) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partitioner::partition(key, partitions),
            (None, None) => self.sticky[output].next(partitions),
        };
        if self.rules.provenance[output] {
            let mut block = Vec::new();
            self.write_provenance(&mut block, record.headers, &from, offsets);
            record.headers = [Headers::new(&block), Headers::default()];
            sink.emit(output, partition, &record, ticket);
        } else {
            sink.emit(output, partition, &record, ticket);
        }
    }

    /// The record's own headers, but for an earlier provenance, and this one.
    #[cold]
    fn write_provenance(
        &self,
        block: &mut Vec<u8>,
        own: [Headers<'_>; 2],
        from: &From<'_, '_>,
        offsets: Option<(i64, i64)>,
    ) {
        let mut writer = HeadersWriter::new(block);
        for (name, value) in own.iter().flat_map(Headers::iter) {
            if !NAMES.iter().any(|known| known.as_bytes() == name) {
                writer.push(name, value);
            }
        }
        let source = match offsets {
            Some((first, last)) if first == last => format!("{}/{}/{first}", self.topic, self.partition),
            Some((first, last)) => format!("{}/{}/{first}-{last}", self.topic, self.partition),
            None => format!("{}/{}", self.topic, self.partition),
        };
        let values = [
            source,
            self.epoch.to_string(),
            from.attempt.to_string(),
            self.rules.version.to_string(),
            from.index.to_string(),
        ];
        for (name, value) in NAMES.iter().zip(&values) {
            writer.push(name.as_bytes(), Some(value.as_bytes()));
        }
        _ = writer.finish();
    }
}

/// Headers of records that say where they come from, in the order they are written: topic, partition and offset of the
/// source (two offsets for a batch, none for a tick); ownership epoch; attempt; digest of the component; place among the
/// emissions of the same message.
pub const NAMES: [&str; 5] =
    ["sluicebox-source", "sluicebox-epoch", "sluicebox-attempt", "sluicebox-version", "sluicebox-index"];
