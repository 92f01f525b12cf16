//! The text of a topology file with the files that it includes, one behind the other, and where something stands in them.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use super::diagnostic::Diagnostic;

/// The files as they were read. Lines are separated by LF; a CR before it belongs to the line break.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user gave it, for messages.
    pub(super) path: PathBuf,
    pub(super) text: String,
    line_starts: Vec<usize>,
    /// Included files, in the order of their text.
    included: Vec<Included>,
    /// Whether paths in it may be followed. A text that somebody else has sent must not make this process read its files.
    pub(super) may_name_files: bool,
}

/// An included file, and where its text begins.
#[derive(Debug)]
struct Included {
    path: PathBuf,
    start: usize,
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
        let line_starts = line_starts(&text, 0);
        Self { path: path.to_owned(), text, line_starts, included: Vec::new(), may_name_files: true }
    }

    /// A text that is no file of this machine.
    pub(super) fn foreign(name: &str, text: String) -> Self {
        Self { may_name_files: false, ..Self::new(Path::new(name), text) }
    }

    /// Puts another file behind the others and says where its text begins.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn include(&mut self, path: &Path) -> Result<usize, Box<Diagnostic>> {
        let other = Self::read(path)?;
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        let start = self.text.len();
        self.line_starts.pop_if(|last| *last == start);
        self.line_starts.extend(line_starts(&other.text, start));
        self.text.push_str(&other.text);
        self.included.push(Included { path: path.to_owned(), start });
        Ok(start)
    }

    /// The file that a place is in.
    pub(super) fn path_at(&self, at: usize) -> &Path {
        self.file_at(at).map_or(&self.path, |included| &included.path)
    }

    fn file_at(&self, at: usize) -> Option<&Included> {
        let behind = self.included.partition_point(|included| included.start <= at);
        self.included.get(behind.checked_sub(1)?)
    }

    /// A place for a sentence about another one: its line, with the file where that is another.
    pub(super) fn seen_from(&self, here: usize, place: usize) -> String {
        let line = self.position(place).line;
        match self.path_at(place) {
            path if path == self.path_at(here) => format!("on line {line}"),
            path => format!("in {}:{line}", path.display()),
        }
    }

    /// Reads a file; everything that is not a text file of sensible size gets its own sentence.
    pub(super) fn read(path: &Path) -> Result<Self, Box<Diagnostic>> {
        let bytes = read_bytes(path).map_err(|cause| Box::new(Diagnostic::of_file(path, cause)))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => Err(Box::new(not_utf8(path, &error))),
        }
    }

    /// In the file that the place is in.
    pub(super) fn position(&self, at: usize) -> Position {
        let line = self.line_of(at);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or("");
        let first = self.file_at(at).map_or(1, |included| self.line_of(included.start));
        Position { line: line + 1 - first, column: before.chars().count() + 1 }
    }

    /// Of all text, counted from 1.
    fn line_of(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at).max(1)
    }

    /// The text of the line that a place is on, without its line break.
    pub(super) fn line(&self, at: usize) -> &str {
        let start = self.line_starts.get(self.line_of(at) - 1).copied().unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or("");
        rest.split('\n').next().unwrap_or("").trim_end_matches('\r')
    }

    /// The characters of a span that stand on its first line; at least 1, so that something is underlined.
    pub(super) fn width(&self, span: Span) -> usize {
        let text = self.text.get(span.start..span.end).unwrap_or("");
        text.split('\n').next().unwrap_or("").trim_end().chars().count().max(1)
    }
}

/// Where the lines of a text begin that stands behind so many bytes.
fn line_starts(text: &str, behind: usize) -> Vec<usize> {
    std::iter::once(behind).chain(text.match_indices('\n').map(|(at, _)| behind + at + 1)).collect()
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
        assert_eq!((source.line(1), source.line(9), source.line(99)), ("a: ä", "  b: 漢字 x", ""));
        assert_eq!(source.position(source.text.len()), Position { line: 3, column: 1 });
    }

    #[test]
    fn width_ends_with_the_line_and_is_never_zero() {
        let source = Source::new(Path::new("t.yaml"), "aä  \nb\n".to_owned());
        let width = |start, end| source.width(Span { start, end });
        assert_eq!((width(0, 3), width(0, 7), width(1, 1), width(99, 100)), (2, 2, 1, 1));
    }
}
