//! The text format of Prometheus, version 0.0.4: families of series with their type and a word of help.

use std::fmt::Write;

use super::super::history::Rate;

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

/// A value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Int(u64),
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Int(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(u64::from(value))
    }
}

impl From<Rate> for Value {
    fn from(value: Rate) -> Self {
        Self::Float(value)
    }
}

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    prefix: &'static str,
    name: &'static str,
}

impl Page {
    /// An empty page whose names begin so.
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { text: String::new(), prefix, name: "" }
    }

    /// The names of what follows begin so.
    pub(super) fn set_prefix(&mut self, prefix: &'static str) {
        self.prefix = prefix;
    }

    /// A family begins; its series follow.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let (prefix, kind) = (self.prefix, kind.name());
        // Writing into a string cannot fail.
        let _ = write!(self.text, "# TYPE {prefix}{name} {kind}\n# HELP {prefix}{name} {help}\n");
    }

    /// A series of the family; `labels` as [`labels`] makes them, empty for none.
    pub(super) fn series(&mut self, labels: &str, value: impl Into<Value>) {
        self.line("", labels, value.into());
    }

    /// A family of one series without labels.
    pub(super) fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Into<Value>) {
        self.family(name, kind, help);
        self.series("", value);
    }

    /// A series of a histogram: for each bound how many were not above it, then the sum. The last of `counts` is beyond all bounds.
    pub(super) fn histogram(&mut self, labels: &str, bounds: &[&str], counts: &[u64], sum: impl Into<Value>) {
        let mut below = 0;
        let separator = if labels.is_empty() { "" } else { "," };
        for (bound, count) in bounds.iter().chain(std::iter::once(&"+Inf")).zip(counts) {
            below += count;
            self.line("_bucket", &format!("{labels}{separator}le=\"{bound}\""), below.into());
        }
        self.line("_sum", labels, sum.into());
        self.line("_count", labels, below.into());
    }

    /// A series of a summary without quantiles.
    pub(super) fn summary(&mut self, labels: &str, count: u64, sum: impl Into<Value>) {
        self.line("_sum", labels, sum.into());
        self.line("_count", labels, count.into());
    }

    fn line(&mut self, suffix: &str, labels: &str, value: Value) {
        let text = &mut self.text;
        text.push_str(self.prefix);
        text.push_str(self.name);
        text.push_str(suffix);
        if !labels.is_empty() {
            text.push('{');
            text.push_str(labels);
            text.push('}');
        }
        let _ = match value {
            Value::Int(value) => writeln!(text, " {value}"),
            Value::Float(value) => writeln!(text, " {value}"),
        };
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Labels as they stand between the braces.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_follow_their_type_and_help() {
        let mut page = Page::new("x_");
        page.family("size_bytes", Kind::Histogram, "Sizes.");
        page.histogram("p=\"q\"", &["1.0", "1e+06"], &[2, 0, 3], 7_u64);
        page.single("up", Kind::Gauge, "Up.", 0.5);
        let expected = "# TYPE x_size_bytes histogram\n# HELP x_size_bytes Sizes.\n\
                        x_size_bytes_bucket{p=\"q\",le=\"1.0\"} 2\nx_size_bytes_bucket{p=\"q\",le=\"1e+06\"} 2\n\
                        x_size_bytes_bucket{p=\"q\",le=\"+Inf\"} 5\nx_size_bytes_sum{p=\"q\"} 7\nx_size_bytes_count{p=\"q\"} 5\n\
                        # TYPE x_up gauge\n# HELP x_up Up.\nx_up 0.5\n";
        assert_eq!(page.into_text(), expected);
    }

    #[test]
    fn labels_are_escaped() {
        let text = labels(&[("vhost", "/"), ("queue", "a\"b\\c\nd")]);
        assert_eq!(text, "vhost=\"/\",queue=\"a\\\"b\\\\c\\nd\"");
    }
}
