//! One mistake or warning about a topology file, as the user sees it: place, line, cause and a way out.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::source::{Position, Source, Span};
use crate::topology::check::Severity;

/// A report about one place of a file, or about the file as a whole.
///
/// It displays as
///
/// ```text
/// topology.yaml:14:17: exchange 'ordres' is not declared in vhost '/'
///   14 |       exchange: ordres
///      |                 ^^^^^^ declared here: orders, audit
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file can be used nevertheless.
    pub severity: Severity,
    /// The file, as the user gave it.
    pub path: PathBuf,
    /// Line, counted from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub cause: String,
    /// A way out, shown under the source line.
    pub help: String,
    excerpt: Option<Excerpt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    /// Printable text around the place.
    line: String,
    /// What stands before the carets: as wide as the text before them, tabs kept.
    indent: String,
    carets: usize,
}

/// More of a line than this is not shown: a generated file may have everything on one line.
const LINE_CHARS_MAX: usize = 120;

impl Diagnostic {
    pub(super) fn new(
        severity: Severity,
        source: &Source,
        span: Span,
        cause: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        let Position { line, column } = source.position(span.start);
        Self {
            severity,
            path: source.path_at(span.start).to_owned(),
            line: Some(line),
            column,
            cause: cause.into(),
            help: help.into(),
            excerpt: Some(Excerpt::new(source.line(span.start), column, source.width(span))),
        }
    }

    /// An error about the file as a whole; `cause` holds the way out.
    pub(super) fn of_file(path: &Path, cause: String) -> Self {
        Self {
            severity: Severity::Error,
            path: path.to_owned(),
            line: None,
            column: 0,
            cause,
            help: String::new(),
            excerpt: None,
        }
    }

    /// An error at a place of a file that cannot be shown.
    pub(super) fn of_place(path: &Path, position: Position, cause: String) -> Self {
        Self { line: Some(position.line), column: position.column, ..Self::of_file(path, cause) }
    }

    /// Whether this is an error rather than a warning.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:{}:", self.column)?;
        }
        let severity = if self.is_error() { "" } else { "warning: " };
        write!(f, " {severity}{}", self.cause)?;
        let (Some(line), Some(excerpt)) = (self.line, &self.excerpt) else { return Ok(()) };
        let number = line.to_string();
        let (blank, carets) = (" ".repeat(number.len()), "^".repeat(excerpt.carets));
        write!(f, "\n  {number} | {}\n  {blank} | {}{carets}", excerpt.line, excerpt.indent)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, " {}", self.help) }
    }
}

impl Excerpt {
    /// `column` counts from 1, `width` is at least 1; both in characters.
    fn new(line: &str, column: usize, width: usize) -> Self {
        let chars: Vec<char> = line.chars().map(printable).collect();
        let at = column.saturating_sub(1);
        // A long line is cut so that the place stands in the first half of what is shown.
        let start = if chars.len() > LINE_CHARS_MAX { at.saturating_sub(LINE_CHARS_MAX / 2) } else { 0 };
        let shown: Vec<char> = chars.iter().copied().skip(start).take(LINE_CHARS_MAX).collect();
        let before = at - start;
        let mut text = String::new();
        let mut indent = String::new();
        if start > 0 {
            text.push('…');
            indent.push(' ');
        }
        text.extend(&shown);
        if start + shown.len() < chars.len() {
            text.push('…');
        }
        let tabs_kept = |char: char| if char == '\t' { '\t' } else { ' ' };
        indent.extend((0..before).map(|index| shown.get(index).copied().map_or(' ', tabs_kept)));
        let carets = width.min(shown.len().saturating_sub(before)).max(1);
        Self { line: text, indent, carets }
    }
}

/// Terminals act on control characters; a file must not be able to make use of that.
fn printable(char: char) -> char {
    if char.is_control() && char != '\t' { '\u{fffd}' } else { char }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, needle: &str, cause: &str, help: &str, expected: &str) {
        let source = Source::new(Path::new("topology.yaml"), text.to_owned());
        let start = text.find(needle).unwrap();
        let span = Span { start, end: start + needle.len() };
        assert_eq!(Diagnostic::new(Severity::Error, &source, span, cause, help).to_string(), expected);
    }

    #[test]
    fn place_line_cause_and_way_out() {
        check(
            &format!("{}      exchange: ordres\n", "#\n".repeat(13)),
            "ordres",
            "exchange 'ordres' is not declared in vhost '/'",
            "declared here: orders, audit",
            "topology.yaml:14:17: exchange 'ordres' is not declared in vhost '/'\n\
             \x20 14 |       exchange: ordres\n\
             \x20    |                 ^^^^^^ declared here: orders, audit",
        );
    }

    #[test]
    fn tabs_and_wide_text_keep_the_carets_in_place() {
        check("a:\t\tx\n", "x", "c", "h", "topology.yaml:1:5: c\n  1 | a:\t\tx\n    |   \t\t^ h");
        check("ä: x\n", "x", "c", "", "topology.yaml:1:4: c\n  1 | ä: x\n    |    ^");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        check("a\u{1b}[2J: x\n", "x", "c", "h", "topology.yaml:1:8: c\n  1 | a\u{fffd}[2J: x\n    |        ^ h");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}needle{}", "a".repeat(1000), "b".repeat(1000));
        let source = Source::new(Path::new("t"), text);
        let diagnostic = Diagnostic::new(Severity::Warning, &source, Span { start: 1000, end: 1006 }, "c", "h");
        let lines: Vec<String> = diagnostic.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "t:1:1001: warning: c");
        let at = |line: &str, part: &str| line.find(part).map(|byte| line[..byte].chars().count());
        assert_eq!(at(&lines[1], "needle"), at(&lines[2], "^^^^^^ h"));
        assert!(lines[1].chars().count() < LINE_CHARS_MAX + 10);
    }

    #[test]
    fn file_as_a_whole_has_no_line() {
        let diagnostic = Diagnostic::of_file(Path::new("x.yaml"), "no such file".to_owned());
        assert_eq!(diagnostic.to_string(), "x.yaml: no such file");
    }
}
