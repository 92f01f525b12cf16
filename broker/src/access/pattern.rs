//! One permission pattern: a regular expression searched anywhere in a resource name (RabbitMQ: "Access Control").
//!
//! RabbitMQ compiles patterns as PCRE, so look-around and back references are accepted. A search that gives up at its step
//! limit denies.

use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

/// A compiled pattern; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pattern(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// The empty pattern: RabbitMQ reads it as `^$`, and no resource has an empty name.
    Nothing,
    /// `.*`, by far the most common one, needs no search.
    Everything,
    Regex(Arc<Regex>),
}

/// Why a pattern does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("the pattern is longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// Not a regular expression.
    #[error("{0}")]
    Syntax(String),
}

/// Long enough for a list of some hundred names, short enough that compiling stays cheap.
pub const PATTERN_BYTES_MAX: usize = 16 * 1024;

/// Steps of one search in a pattern with look-around or back references; a sane pattern needs a few per byte of a name.
const BACKTRACK_STEPS_MAX: usize = 100_000;

/// Compiled size of the part that runs as an automaton.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

impl Pattern {
    /// Matches no name at all.
    pub const NOTHING: Self = Self(Kind::Nothing);

    /// Compiles the pattern of a permission.
    ///
    /// # Errors
    /// [`PatternError`], with the reason in the words of the regex library.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        if pattern.is_empty() { Ok(Self::NOTHING) } else { Self::anywhere(pattern) }
    }

    /// Compiles a pattern for which the empty one means what it means to regular expressions: it is found in every name.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn anywhere(pattern: &str) -> Result<Self, PatternError> {
        match pattern {
            "" | ".*" | "^.*$" | "^.*" | ".*$" => return Ok(Self(Kind::Everything)),
            _ if pattern.len() > PATTERN_BYTES_MAX => return Err(PatternError::TooLong),
            _ => {}
        }
        let mut builder = RegexBuilder::new(pattern);
        builder.backtrack_limit(BACKTRACK_STEPS_MAX).delegate_size_limit(COMPILED_BYTES_MAX);
        match builder.build() {
            Ok(regex) => Ok(Self(Kind::Regex(Arc::new(regex)))),
            Err(error) => Err(PatternError::Syntax(first_line(&error.to_string()))),
        }
    }

    /// Whether the pattern is found anywhere in `name`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Kind::Nothing => false,
            Kind::Everything => true,
            Kind::Regex(regex) => regex.is_match(name).unwrap_or(false),
        }
    }
}

/// The regex library draws its own carets on further lines; diagnostics have theirs.
fn first_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.iter().find_map(|line| line.strip_prefix("error: ")) {
        Some(reason) => reason.to_owned(),
        None => lines.first().copied().unwrap_or("invalid pattern").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let pattern = Pattern::new(pattern).unwrap();
        for name in matching {
            assert!(pattern.matches(name), "{pattern:?} should match {name}");
        }
        for name in others {
            assert!(!pattern.matches(name), "{pattern:?} should not match {name}");
        }
    }

    #[test]
    fn search_is_not_anchored() {
        check("orders", &["orders", "my-orders.eu"], &["audit"]);
        check("^orders", &["orders.eu"], &["my-orders"]);
        check("^orders$", &["orders"], &["orders.eu"]);
        check("^(orders|audit)\\.", &["orders.eu", "audit.x"], &["orders"]);
    }

    #[test]
    fn empty_pattern_matches_nothing() {
        check("", &[], &["", "orders", "amq.default"]);
        check("^$", &[], &["orders"]);
    }

    #[test]
    fn everything_matches_every_name() {
        check(".*", &["", "orders", "amq.default", "line\nbreak"], &[]);
        check("^.*$", &["orders"], &[]);
    }

    #[test]
    fn pcre_look_around_works() {
        check("^(?!amq\\.).*", &["orders"], &["amq.topic"]);
        check("^(?!secret)", &["orders"], &["secret.plans"]);
    }

    #[test]
    fn broken_patterns_have_a_reason() {
        for pattern in ["(", "[a-", "*a", "(?P<x"] {
            let error = Pattern::new(pattern).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error}");
        }
        assert_eq!(Pattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1)).unwrap_err(), PatternError::TooLong);
    }

    #[test]
    fn search_that_explodes_denies() {
        let pattern = Pattern::new("^(?=(a+)+$)(a+)+\\1b$").unwrap();
        assert!(!pattern.matches(&"a".repeat(200)));
    }
}
