//! Answers that are not what they say.

use sluicebox_frames::{AnswerWriter, HeaderMode, Headers, HeadersWriter, NewEmission};

use crate::sluicebox::plugin::types::Frame;

/// An answer in place of the frame that would be true.
pub fn forged(deed: &str) -> Option<Frame> {
    let (word, argument) = deed.split_once(' ')?;
    let bytes = argument.parse().unwrap_or_default();
    match word {
        // There, and too much.
        "huge" => Some(Frame { index: Vec::new(), payload: vec![0; bytes] }),
        // Not there: a list that says to be longer than the memory is.
        "forge" => {
            // SAFETY: none. Nobody reads it in here; what the host makes of it is the point.
            let payload = unsafe { Vec::from_raw_parts(std::ptr::without_provenance_mut(16), bytes, bytes) };
            Some(Frame { index: Vec::new(), payload })
        }
        // An index of nothing that claims so many outcomes and emissions, acks and fails.
        "claim" => {
            let count = (bytes as u32).to_le_bytes();
            let index = [&[1, 0, 3, 0][..], &count, &count, &[0; 4], &count, &count, &[0; 8]].concat();
            Some(Frame { index, payload: Vec::new() })
        }
        // A header of so many bytes.
        "header" => {
            let mut block = Vec::new();
            HeadersWriter::new(&mut block).push(b"h", Some(&vec![7; bytes]));
            let headers = HeaderMode::Replace(Headers::new(&block));
            let mut writer = AnswerWriter::new();
            writer.emission(&NewEmission { headers, ..NewEmission::default() });
            writer.done(1);
            let sluicebox_frames::Frame { index, payload } = writer.finish();
            Some(Frame { index, payload })
        }
        // Random bytes in place of the index.
        "noise" => Some(Frame { index: (0..bytes).map(|i| (i * 7919 % 251) as u8).collect(), payload: vec![1; 99] }),
        _ => None,
    }
}
