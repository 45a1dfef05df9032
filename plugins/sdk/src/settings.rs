//! The pipeline's `handler.settings`.

/// The settings as a handler gets them.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    text: &'a str,
}

impl<'a> Settings<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The JSON text of the table; `{}` when there is none.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// The settings as a type of the handler's own. Let it `deny_unknown_fields`, so that a misspelt key is an error.
    ///
    /// # Errors
    /// Names the key that is missing, unknown or of a wrong type.
    #[cfg(feature = "json")]
    pub fn parse<T: serde::Deserialize<'a>>(&self) -> crate::Result<T> {
        let mut json = serde_json::Deserializer::from_str(self.text);
        serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            // The line and column are those of a text that the author of the settings never saw.
            let text = error.inner().to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            crate::Error::retry(match path.as_str() {
                "." => format!("settings: {text}"),
                path => format!("settings: {path}: {text}"),
            })
        })
    }
}
