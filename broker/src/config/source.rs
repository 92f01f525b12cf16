//! The text of one topology file, and where something stands in it.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use super::diagnostic::Diagnostic;

/// The file as it was read. Lines are separated by LF; a CR before it belongs to the line break.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user gave it, for messages.
    pub(super) path: PathBuf,
    pub(super) text: String,
    line_starts: Vec<usize>,
}

/// A stretch of the text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Where a span begins, as editors count: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A topology of a hundred thousand bindings has a third of this.
pub(super) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Source {
    pub(super) fn new(path: &Path, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { path: path.to_owned(), text, line_starts }
    }

    /// Reads a file; everything that is not a text file of sensible size gets its own sentence.
    pub(super) fn read(path: &Path) -> Result<Self, Box<Diagnostic>> {
        let bytes = read_bytes(path).map_err(|cause| Box::new(Diagnostic::of_file(path, cause)))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => Err(Box::new(not_utf8(path, &error))),
        }
    }

    pub(super) fn position(&self, at: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= at).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or("");
        Position { line, column: before.chars().count() + 1 }
    }

    /// The text of a line counted from 1, without its line break.
    pub(super) fn line(&self, line: usize) -> &str {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or("");
        rest.split('\n').next().unwrap_or("").trim_end_matches('\r')
    }

    /// The characters of a span that stand on its first line; at least 1, so that something is underlined.
    pub(super) fn width(&self, span: Span) -> usize {
        let text = self.text.get(span.start..span.end).unwrap_or("");
        text.split('\n').next().unwrap_or("").trim_end().chars().count().max(1)
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Err("this is a folder; give the topology file in it, such as topology.yaml".to_owned());
    }
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "no such file; check the path, which is relative to the current folder".to_owned()
        }
        std::io::ErrorKind::PermissionDenied => "no permission to read this file; check its owner and mode".to_owned(),
        _ => format!("the file cannot be opened: {error}"),
    })?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that devices and pipes, which have no size, come to an end, too.
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("the file cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let limit = FILE_BYTES_MAX / (1024 * 1024);
        return Err(format!("the file is larger than {limit} MiB; is it really a topology file?"));
    }
    Ok(bytes)
}

fn not_utf8(path: &Path, error: &std::string::FromUtf8Error) -> Diagnostic {
    let bytes = error.as_bytes();
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Diagnostic::of_file(path, "the file is UTF-16; save it as UTF-8".to_owned());
    }
    let valid_up_to = error.utf8_error().valid_up_to();
    let valid = String::from_utf8_lossy(bytes.get(..valid_up_to).unwrap_or(&[])).into_owned();
    let byte = bytes.get(valid_up_to).copied().unwrap_or(0);
    let position = Source::new(path, valid).position(valid_up_to);
    Diagnostic::of_place(path, position, format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new(Path::new("t.yaml"), "a: ä\r\n  b: 漢字 x\n".to_owned());
        let check = |needle: &str, line, column| {
            let at = source.text.find(needle).unwrap();
            assert_eq!(source.position(at), Position { line, column }, "{needle}");
        };
        check("a", 1, 1);
        check("ä", 1, 4);
        check("b", 2, 3);
        check("x", 2, 9);
        assert_eq!((source.line(1), source.line(2), source.line(3), source.line(9)), ("a: ä", "  b: 漢字 x", "", ""));
        assert_eq!(source.position(source.text.len()), Position { line: 3, column: 1 });
    }

    #[test]
    fn width_ends_with_the_line_and_is_never_zero() {
        let source = Source::new(Path::new("t.yaml"), "aä  \nb\n".to_owned());
        let width = |start, end| source.width(Span { start, end });
        assert_eq!((width(0, 3), width(0, 7), width(1, 1), width(99, 100)), (2, 2, 1, 1));
    }
}
