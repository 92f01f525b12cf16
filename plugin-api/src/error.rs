//! How an author says no.

use std::fmt;

/// A refusal with its reason, as one sentence without a full stop.
///
/// The broker answers `PRECONDITION_FAILED` (406) with this text to whoever declared or bound, and shows it as it is to
/// whoever wrote the topology file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The sentence.
    pub text: String,
}

impl Invalid {
    /// A refusal for this reason.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Invalid {}

impl From<String> for Invalid {
    fn from(text: String) -> Self {
        Self { text }
    }
}

impl From<&str> for Invalid {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}
