//! What is wrong with a script, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A script that cannot be loaded, or a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookError {
    /// The declared name of the hook.
    pub hook: String,
    /// The file to look into: the script, or a file that it requires.
    pub file: PathBuf,
    /// The line in `file`, where there is one.
    pub line: Option<u32>,
    /// What sort of failure.
    pub kind: ErrorKind,
    /// One sentence without hook, file and line.
    pub text: String,
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": hook '{}': {}", self.hook, self.text)
    }
}

impl std::error::Error for HookError {}

/// What sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The file cannot be read, is too large, or lies outside the scripts' folder.
    File,
    /// The file is no Lua.
    Syntax,
    /// The declaration or the table that the script returns is not what it should be.
    Declaration,
    /// The script raised an error.
    Runtime,
    /// The time limit of a call ran out.
    TimeLimit,
    /// The memory limit was reached.
    MemoryLimit,
    /// The hook returned something that means nothing.
    Returned,
}

impl ErrorKind {
    /// Whether the interpreter is to be replaced: it was stopped in the middle of something, or is full.
    pub(super) const fn spoils_state(self) -> bool {
        matches!(self, Self::TimeLimit | Self::MemoryLimit)
    }
}

/// A failure with its place, before it is known whose it is. `chunk` is a path relative to the script's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) chunk: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) kind: ErrorKind,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { chunk: None, line: None, kind, text: text.into() }
    }

    /// Takes an interpreter's error apart: its place is a prefix of the message, or stands in the stack traceback.
    pub(super) fn from_lua(error: &mlua::Error) -> Self {
        let kind = kind_of(error);
        let mut message = innermost(error);
        let traceback =
            traceback_of(error).or_else(|| message.split_once(TRACEBACK).map(|(_, trace)| trace.to_owned()));
        if let Some((head, _)) = message.split_once(TRACEBACK) {
            message = head.trim_end().to_owned();
        }
        let (place, text) = split_place(&message);
        let place = place.filter(|(chunk, _)| is_script(chunk)).map(|(chunk, line)| (chunk.to_owned(), line));
        let place = place.or_else(|| traceback.as_deref().and_then(first_place));
        let (chunk, line) = place.map_or((None, None), |(chunk, line)| (Some(chunk), Some(line)));
        Self { chunk, line, kind, text: shorten(text, ERROR_TEXT_BYTES_MAX).into_owned() }
    }

    /// Says whose it is. `script` is the file of the hook, and its folder the one that chunks are relative to.
    pub(super) fn of(self, hook: &str, script: &Path) -> HookError {
        let file = match (&self.chunk, script.parent()) {
            (Some(chunk), Some(folder)) => folder.join(chunk),
            _ => script.to_path_buf(),
        };
        HookError { hook: hook.to_owned(), file, line: self.line, kind: self.kind, text: self.text }
    }
}

/// Cuts text to `bytes_max` at a character's border and marks the cut. Line breaks become spaces, because the text ends
/// up in one log line and in a reply text.
pub(super) fn shorten(text: &str, bytes_max: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= bytes_max && !text.contains(char::is_control) {
        return text.into();
    }
    let cut = text.floor_char_boundary(bytes_max.min(text.len()));
    let mut short: String =
        text.get(..cut).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut < text.len() {
        short.push('…');
    }
    short.into()
}

/// `; did you mean '…'?` when one of `candidates` is close to `word`, else nothing.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let tolerance = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| format!("; did you mean '{candidate}'?"))
        .unwrap_or_default()
}

/// The text of a failure goes into a log line; a script may raise megabytes.
const ERROR_TEXT_BYTES_MAX: usize = 500;

/// Chunks in brackets are ours, not the author's: nobody can look into them.
pub(super) const PRELUDE_CHUNK: &str = "[prelude]";

const TRACEBACK: &str = "stack traceback:";

fn is_script(chunk: &str) -> bool {
    !chunk.starts_with('[')
}

fn kind_of(error: &mlua::Error) -> ErrorKind {
    match error {
        mlua::Error::SyntaxError { .. } => ErrorKind::Syntax,
        mlua::Error::MemoryError(_) => ErrorKind::MemoryLimit,
        mlua::Error::CallbackError { cause, .. } | mlua::Error::BadArgument { cause, .. } => kind_of(cause),
        _ => ErrorKind::Runtime,
    }
}

fn innermost(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } => innermost(cause),
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::MemoryError(_) => "memory limit reached".to_owned(),
        other => other.to_string(),
    }
}

/// The innermost one: an error that passes through `require` gets another on its way.
fn traceback_of(error: &mlua::Error) -> Option<String> {
    match error {
        mlua::Error::CallbackError { traceback, cause } => traceback_of(cause).or_else(|| Some(traceback.clone())),
        _ => None,
    }
}

/// Splits `chunk:line: text`. A chunk name may hold colons, so the first `:digits: ` decides.
fn split_place(message: &str) -> (Option<(&str, u32)>, &str) {
    for (at, _) in message.match_indices(':') {
        let (Some(chunk), Some(rest)) = (message.get(..at), message.get(at + 1..)) else { break };
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Some((line, text)) = rest.split_at_checked(digits) else { break };
        if let (Ok(line), Some(text)) = (line.parse(), text.strip_prefix(':')) {
            return (Some((chunk, line)), text.trim_start());
        }
    }
    (None, message)
}

/// The innermost line of a traceback that belongs to a script.
fn first_place(traceback: &str) -> Option<(String, u32)> {
    traceback.lines().find_map(|entry| {
        let (place, _) = split_place(entry.trim_start());
        place.filter(|(chunk, _)| is_script(chunk)).map(|(chunk, line)| (chunk.to_owned(), line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_taken_from_the_message_or_else_from_the_traceback() {
        for (message, chunk, line, text) in [
            ("a.lua:3: boom\nstack traceback:\n\ta.lua:3: in function 'x'", Some("a.lua"), Some(3), "boom"),
            ("lib/a:b.lua:30: boom: 5: x", Some("lib/a:b.lua"), Some(30), "boom: 5: x"),
            ("[prelude]:7: boom\nstack traceback:\n\t[C]: in ?\n\ta.lua:9: in main", Some("a.lua"), Some(9), "boom"),
            ("boom", None, None, "boom"),
        ] {
            let failure = Failure::from_lua(&mlua::Error::RuntimeError(message.to_owned()));
            assert_eq!((failure.chunk.as_deref(), failure.line), (chunk, line), "{message}");
            assert_eq!(failure.text, text);
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character_and_stays_on_one_line() {
        assert_eq!(shorten("añb", 2), "a…");
        assert_eq!(shorten("a\nb", 10), "a b");
        assert_eq!(shorten("ab", 2), "ab");
    }

    #[test]
    fn near_miss_is_offered_only_when_it_is_near() {
        assert_eq!(did_you_mean("routing_kye", ["headers", "routing_key"]), "; did you mean 'routing_key'?");
        assert_eq!(did_you_mean("colour", ["headers", "routing_key"]), "");
    }
}
