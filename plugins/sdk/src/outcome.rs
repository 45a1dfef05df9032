//! What a handler says of one message, and the error type that `?` makes of anything printable.

use std::fmt::{self, Display};
use std::time::Duration;

/// What becomes of a message.
///
/// Emissions count when the outcome is *done*; with every other outcome those that were made for the message are taken
/// back, and so are the tokens acked or failed along with it (not so with *hold*, which may ack, but not emit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome(pub(crate) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Done,
    Hold,
    Retry { reason: String, after: Option<u64> },
    Reject { reason: String },
}

impl Outcome {
    /// Finished: whatever was emitted for the message goes out, which may be nothing.
    #[inline]
    #[must_use]
    pub const fn done() -> Self {
        Self(Kind::Done)
    }

    /// Offer the message again, after the pipeline's own back-off or after [`Outcome::after`]. Counts an attempt. The
    /// reason is for people; 4 KiB of it are kept.
    #[cold]
    #[must_use = "it has to be returned"]
    pub fn retry(reason: impl Display) -> Self {
        Self(Kind::Retry { reason: text(reason), after: None })
    }

    /// Will never work: goes to the pipeline's failure policy (a dead-letter topic, say) at once.
    #[cold]
    #[must_use = "it has to be returned"]
    pub fn reject(reason: impl Display) -> Self {
        Self(Kind::Reject { reason: text(reason) })
    }

    /// Keep the message open until a later answer names its token: see `ack` and `fail` of
    /// [`Message`](crate::Message) and [`Batch`](crate::Batch). An instance that ends forgets its held messages; they
    /// are offered again to the next one.
    #[inline]
    #[must_use = "it has to be returned"]
    pub const fn hold() -> Self {
        Self(Kind::Hold)
    }

    /// For [`Outcome::retry`]: how long to wait. Without effect on other outcomes.
    #[must_use = "it has to be returned"]
    pub fn after(mut self, wait: Duration) -> Self {
        if let Kind::Retry { after, .. } = &mut self.0 {
            *after = Some(millis(wait));
        }
        self
    }
}

/// Why a handler could not do its work: retry, unless it was made by [`Error::reject`].
///
/// Everything that can be printed turns into it by `?`; it has no `Display` of its own (that is what makes this
/// possible), see [`Error::text`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub(crate) text: String,
    pub(crate) reject: bool,
    pub(crate) after: Option<u64>,
}

/// What handlers return.
pub type Result<T = Outcome> = std::result::Result<T, Error>;

impl Error {
    /// Try again; the same as the `?` of anything printable.
    #[cold]
    #[must_use]
    pub fn retry(reason: impl Display) -> Self {
        Self { text: text(reason), reject: false, after: None }
    }

    /// Will never work, as [`Outcome::reject`].
    #[cold]
    #[must_use]
    pub fn reject(reason: impl Display) -> Self {
        Self { text: text(reason), reject: true, after: None }
    }

    /// How long to wait before the next attempt. Without effect on a reject.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.after = Some(millis(wait));
        self
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<E: Display> From<E> for Error {
    #[cold]
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl From<Error> for Outcome {
    #[cold]
    fn from(error: Error) -> Self {
        if error.reject {
            Self(Kind::Reject { reason: error.text })
        } else {
            Self(Kind::Retry { reason: error.text, after: error.after })
        }
    }
}

/// Turns errors into rejects: `message.json::<Order>().or_reject()?`.
pub trait OrReject<T> {
    /// The value, or [`Error::reject`] with the error's text.
    ///
    /// # Errors
    /// When `self` is one.
    fn or_reject(self) -> Result<T>;
}

impl<T, E: Display> OrReject<T> for std::result::Result<T, E> {
    #[inline]
    fn or_reject(self) -> Result<T> {
        self.map_err(Error::reject)
    }
}

/// The alternate form, because error types that hold a chain of causes (anyhow's) print all of it that way.
fn text(reason: impl Display) -> String {
    format!("{reason:#}")
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// A value that is not the JSON that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(pub(crate) String);

impl Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonError {}
