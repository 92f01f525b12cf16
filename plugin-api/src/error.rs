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

/// Text of a client as RabbitMQ prints it where a reason quotes it: an Erlang binary, with the letters if all can be printed.
#[must_use]
pub fn as_erlang(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(printable) if !printable.is_empty() && !printable.chars().any(char::is_control) => {
            let quoted = printable.replace('\\', "\\\\").replace('"', "\\\"");
            format!("<<\"{quoted}\"{}>>", if printable.is_ascii() { "" } else { "/utf8" })
        }
        _ => format!("<<{}>>", text.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_erlang_prints_binaries() {
        for (text, expected) in [
            (&b""[..], "<<>>"),
            (b"ten", "<<\"ten\">>"),
            (b"a\"\\", "<<\"a\\\"\\\\\">>"),
            ("\u{e9}".as_bytes(), "<<\"\u{e9}\"/utf8>>"),
            (b"a\x00\xff", "<<97,0,255>>"),
        ] {
            assert_eq!(as_erlang(text), expected);
        }
    }
}
