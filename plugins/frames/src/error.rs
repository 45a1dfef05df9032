//! What is wrong with a frame, for the author of the side that wrote it.

use std::fmt;

/// A frame that breaks the layout. Names the entry, the field and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    text: String,
}

impl FrameError {
    #[cold]
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for FrameError {}
