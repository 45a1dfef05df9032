//! What is wrong outside the pipeline while it runs: by place, with its reason, until it is over. Pure.

use std::collections::BTreeMap;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Troubles {
    known: BTreeMap<String, String>,
}

impl Troubles {
    /// Something is wrong at a place. True when it is news.
    pub fn add(&mut self, place: &str, reason: String) -> bool {
        self.known.insert(place.to_owned(), reason.clone()) != Some(reason)
    }

    /// A place works (again).
    pub fn over(&mut self, place: &str) {
        if !self.known.is_empty() {
            self.known.remove(place);
        }
    }

    /// Nothing is wrong.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// All reasons, for people.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        (!self.known.is_empty()).then(|| self.known.values().cloned().collect::<Vec<_>>().join("; "))
    }
}
