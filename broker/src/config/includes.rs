//! `include`: other files, put together with the one that names them before anything is read out of it.
//!
//! Sections, vhosts and the lists in them are joined; a thing that two files declare is a mistake that names both places. A file is included once. Paths are meant from the folder
//! of the file that they stand in, also those in included files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::diagnostic::Diagnostic;
use super::environment::Environment;
use super::reader::folder_of;
use super::source::{Source, Span};
use super::yaml::{self, Entry, Node, Value, shorten};

/// What is wrong with one of the files.
#[derive(Debug)]
pub(super) enum Mistake {
    /// An included file cannot be read; it says which.
    Unreadable(Box<Diagnostic>),
    /// At a place of one of them.
    InFile(yaml::Mistake),
}

/// A topology in more files than this is generated, and can be generated as one.
const FILES_MAX: usize = 100;
/// All of them together.
const BYTES_MAX: usize = 64 * 1024 * 1024;

const INCLUDE: &str = "include";

/// Reads the file and what it includes, as one tree. `None` when there is nothing in it, or no tree could be made.
pub(super) fn parse(source: &mut Source, environment: &Environment<'_>) -> (Option<Node>, Vec<Mistake>) {
    let mut files = Files { environment, mistakes: Vec::new(), seen: HashMap::new(), chain: Vec::new() };
    let path = source.path.clone();
    let root = files.file(source, &path, 0);
    (root, files.mistakes)
}

struct Files<'a> {
    environment: &'a Environment<'a>,
    mistakes: Vec<Mistake>,
    /// Files that were read, each with where it was named.
    seen: HashMap<PathBuf, Span>,
    /// Those that are being read, the outermost first.
    chain: Vec<PathBuf>,
}

impl Files<'_> {
    /// The tree of a file whose text is the last of the source.
    fn file(&mut self, source: &mut Source, path: &Path, base: usize) -> Option<Node> {
        let (root, mistakes) = yaml::parse(source, base, self.environment);
        self.mistakes.extend(mistakes.into_iter().map(Mistake::InFile));
        let mut root = root?;
        let Value::Mapping(entries) = &mut root.value else { return Some(root) };
        let Some(at) = entries.iter().position(|entry| entry.key == INCLUDE) else { return Some(root) };
        let named = match &entries[at].value.value {
            Value::List(items) => items.clone(),
            _ => vec![entries[at].value.clone()],
        };
        // The entry itself stays, so that it is known as one of the file's.
        self.chain.push(canonical(path));
        for node in named {
            if let Some(other) = self.include(source, &node) {
                self.join(entries, other);
            }
        }
        self.chain.pop();
        Some(root)
    }

    fn include(&mut self, source: &mut Source, node: &Node) -> Option<Vec<Entry>> {
        let Value::Scalar(scalar) = &node.value else {
            self.mistake(node.span, "expected a path", "write 'include: other.yaml', or a list of paths", None);
            return None;
        };
        if node.is_null() || scalar.text.is_empty() || scalar.text.contains('\0') {
            self.mistake(node.span, "not a path", "write 'include: other.yaml', or a list of paths", None);
            return None;
        }
        if !source.may_name_files {
            let help = "this text was sent, and no file of the broker's machine is read for it";
            self.mistake(node.span, "no file can be named here", help, None);
            return None;
        }
        let path = folder_of(source.path_at(node.span.start)).join(&scalar.text);
        let real = canonical(&path);
        if self.chain.contains(&real) {
            let mut chain: Vec<String> = self.chain.iter().map(|file| file_name(file)).collect();
            chain.push(file_name(&real));
            let cause = format!("this file includes itself: {}", chain.join(" -> "));
            self.mistake(node.span, cause, "remove one of the includes", None);
            return None;
        }
        if let Some(first) = self.seen.get(&real).copied() {
            let cause = format!("'{}' is included twice", shorten(&scalar.text));
            self.mistake(node.span, cause, "keep one of them", Some(first));
            return None;
        }
        if self.seen.len() >= FILES_MAX || source.text.len() > BYTES_MAX {
            let cause = format!("more than {FILES_MAX} files or {} MiB in all", BYTES_MAX >> 20);
            self.mistake(node.span, cause, "put some of them together", None);
            return None;
        }
        self.seen.insert(real, node.span);
        let base = match source.include(&path) {
            Ok(base) => base,
            Err(diagnostic) if diagnostic.line.is_none() => {
                let cause = format!("'{}' cannot be included: {}", shorten(&scalar.text), diagnostic.cause);
                self.mistake(node.span, cause, "paths are relative to the folder of this file", None);
                return None;
            }
            Err(diagnostic) => {
                self.mistakes.push(Mistake::Unreadable(diagnostic));
                return None;
            }
        };
        let root = self.file(source, &path, base)?;
        match root.value {
            Value::Mapping(entries) => Some(entries),
            _ if root.is_null() => None,
            _ => {
                self.mistake(
                    root.span,
                    "expected a mapping of sections",
                    "an included file has the sections of a topology",
                    None,
                );
                None
            }
        }
    }

    /// Adds the sections of an included file to those of the file that includes it.
    fn join(&mut self, entries: &mut Vec<Entry>, others: Vec<Entry>) {
        let others = others.into_iter().filter(|other| other.key != INCLUDE);
        for other in others {
            match entries.iter_mut().find(|entry| entry.key == other.key) {
                None => entries.push(other),
                Some(entry) => {
                    let joins = if entry.key == "vhosts" { Joins::Vhosts } else { Joins::Names };
                    self.join_values(entry, other, joins);
                }
            }
        }
    }

    fn join_values(&mut self, entry: &mut Entry, other: Entry, joins: Joins) {
        if other.value.is_null() {
            return;
        }
        if entry.value.is_null() {
            entry.value = other.value;
            return;
        }
        if joins == Joins::Nothing {
            return self.twice(&other, entry.key_span);
        }
        match (&mut entry.value.value, other.value.value.clone()) {
            (Value::Mapping(mine), Value::Mapping(theirs)) => {
                let mut place: HashMap<String, usize> =
                    mine.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
                for their in theirs {
                    match place.get(&their.key).copied() {
                        None => {
                            place.insert(their.key.clone(), mine.len());
                            mine.push(their);
                        }
                        Some(at) => {
                            if let Some(mine) = mine.get_mut(at) {
                                self.join_values(mine, their, joins.below());
                            }
                        }
                    }
                }
            }
            (Value::List(mine), Value::List(theirs)) => mine.extend(theirs),
            (Value::List(mine), Value::Mapping(theirs)) => mine.extend(theirs.into_iter().map(alone)),
            (mine @ Value::Mapping(_), Value::List(theirs)) => {
                let Value::Mapping(entries) = std::mem::replace(mine, Value::List(Vec::new())) else { return };
                *mine = Value::List(entries.into_iter().map(alone).chain(theirs).collect());
            }
            _ => self.twice(&other, entry.key_span),
        }
    }

    fn twice(&mut self, other: &Entry, first: Span) {
        let cause = format!("'{}' is declared twice", shorten(&other.key));
        self.mistake(other.key_span, cause, "keep one of them", Some(first));
    }

    fn mistake(&mut self, span: Span, cause: impl Into<String>, help: &str, first: Option<Span>) {
        self.mistakes.push(Mistake::InFile(yaml::Mistake { span, cause: cause.into(), help: help.into(), first }));
    }
}

/// What may be in two files: the inside of a section, of a vhost, of what is in a vhost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    /// The vhosts.
    Vhosts,
    /// The sections of one vhost.
    Vhost,
    /// Things with names, each in one file.
    Names,
    /// Nothing.
    Nothing,
}

impl Joins {
    fn below(self) -> Self {
        match self {
            Self::Vhosts => Self::Vhost,
            Self::Vhost => Self::Names,
            Self::Names | Self::Nothing => Self::Nothing,
        }
    }
}

/// `a: b` of a mapping as an item of a list, which means the same wherever both are allowed.
fn alone(entry: Entry) -> Node {
    Node { span: entry.key_span, value: Value::Mapping(vec![entry]), tag: None }
}

/// The file itself, by whatever path it was named; the path as it is where there is no such file.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}
