//! Reads single values out of the tree, and reports each one that does not fit.
//!
//! A method that returns `None` has reported why; callers go on with a default so that one mistake hides no other.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::{
    diagnostic::Diagnostic,
    environment::Environment,
    source::{Source, Span},
    units,
    yaml::{self, Entry, Node, Plain, Value, shorten},
};
use crate::topology::{
    check::{Finding, Item, Part, Place, Severity},
    names::nearest,
};

/// What all readers share: the file, where its declarations stand, and what was found so far.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source,
    pub(super) environment: &'a Environment<'a>,
    pub(super) places: Places,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Where each declaration stands, for findings about typed data.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<Place, Span>);

/// The keys that one mapping may have.
pub(super) struct Section {
    /// For messages: "unknown key … in …".
    pub(super) what: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Keys that are known to be wrong here, each with what to do instead.
    pub(super) hints: &'static [(&'static str, Hint)],
}

/// What is said about a key that does not belong into a section.
#[derive(Clone, Copy)]
pub(super) enum Hint {
    /// The feature will come.
    NotYet,
    /// What to write instead.
    Instead(&'static str),
}

/// The values of a mapping whose keys were checked.
pub(super) struct Fields<'n> {
    entries: Vec<(&'static str, &'n Entry)>,
}

/// An entry of a mapping by name, or of a list whose items have names.
pub(super) struct Named<'n> {
    pub(super) name: String,
    pub(super) name_span: Span,
    /// `None`: just the name.
    pub(super) body: Option<&'n Node>,
}

/// A generated file may repeat one mistake for each of its lines; nobody reads more than this.
const DIAGNOSTICS_MAX: usize = 1000;

/// How `name` is spelled where a list item carries its name inside.
const NAME_KEY: &str = "name";

impl Reader<'_> {
    pub(super) fn error(&mut self, span: Span, cause: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic::new(Severity::Error, self.source, span, cause, help));
    }

    pub(super) fn warning(&mut self, span: Span, cause: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic::new(Severity::Warning, self.source, span, cause, help));
    }

    pub(super) fn mistake(&mut self, mistake: yaml::Mistake) {
        let help = match mistake.first {
            Some(first) => self.first_at(mistake.span, first, &mistake.help),
            None => mistake.help,
        };
        self.error(mistake.span, mistake.cause, help);
    }

    /// Gives a finding about typed data its place in the file.
    pub(super) fn finding(&mut self, finding: Finding) {
        let span = self.places.span(&finding.place);
        let help = match finding.first {
            Some(first) => self.first_at(span, self.places.span(&first), &finding.help),
            None => finding.help,
        };
        self.push(Diagnostic::new(finding.severity, self.source, span, finding.cause, help));
    }

    pub(super) fn place(&mut self, item: Item, part: Part, span: Span) {
        self.places.0.insert(item.part(part), span);
    }

    /// Text, or a number taken as it is written; `true`, `null` and collections are mistakes.
    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        self.no_tag(node);
        match (node.plain(), &node.value) {
            (Some(Plain::Text(_) | Plain::Int(_) | Plain::HugeInt | Plain::Float(_)), Value::Scalar(scalar)) => {
                Some(scalar.text.clone())
            }
            (Some(Plain::Bool(value)), _) => {
                self.wrong(node, "text", format!("put it into quotes: '{value}'"));
                None
            }
            _ => {
                self.wrong(node, "text", "write one word or line, in quotes if it looks like something else");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, node: &Node) -> Option<bool> {
        self.no_tag(node);
        if let Some(Plain::Bool(value)) = node.plain() {
            return Some(value);
        }
        let help = match &node.value {
            Value::Scalar(scalar) => match scalar.text.to_lowercase().as_str() {
                "yes" | "on" | "1" | "true" | "y" => "write true",
                "no" | "off" | "0" | "false" | "n" => "write false",
                _ => "write true or false",
            },
            _ => "write true or false",
        };
        self.wrong(node, "true or false", help);
        None
    }

    pub(super) fn number(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        self.no_tag(node);
        match node.plain() {
            Some(Plain::Int(value)) => self.in_range(node, u64::try_from(value).ok(), range, |n| n.to_string()),
            Some(Plain::HugeInt) => self.in_range(node, None, range, |n| n.to_string()),
            _ => {
                self.wrong(node, "a whole number", "write digits, without a unit");
                None
            }
        }
    }

    /// A number of bytes, or a size with a unit.
    pub(super) fn size(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        self.no_tag(node);
        let parsed = match (node.plain(), &node.value) {
            (Some(Plain::Int(value)), _) => u64::try_from(value).ok(),
            (Some(Plain::Text(text)), Value::Scalar(_)) if units::looks_like_quantity(text) => {
                match units::parse_size(text) {
                    Ok(size) => Some(size),
                    Err(cause) => {
                        self.error(node.span, cause, "units: B, KB, MB, GB, KiB, MiB, GiB");
                        return None;
                    }
                }
            }
            (Some(Plain::HugeInt), _) => None,
            _ => {
                self.wrong(node, "a size", "write bytes, or a number with a unit, such as 16MiB");
                return None;
            }
        };
        self.in_range(node, parsed, range, units::format_size)
    }

    /// Milliseconds, from a duration with a unit.
    pub(super) fn duration_ms(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        self.no_tag(node);
        let parsed = match node.plain() {
            Some(Plain::Text(text)) if units::looks_like_quantity(text) => units::parse_duration_ms(text),
            _ => {
                self.wrong(node, "a duration", "write a number with a unit, such as 5ms");
                return None;
            }
        };
        match parsed {
            Ok(ms) => self.in_range(node, Some(ms), range, units::format_duration),
            Err(cause) => {
                self.error(node.span, cause, "units: ms, s, m, h, d");
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known = || words.iter().map(|(word, _)| *word);
        let help = match nearest(&text, known()) {
            Some(meant) => format!("did you mean '{meant}'?"),
            None => format!("one of {}", known().collect::<Vec<_>>().join(", ")),
        };
        self.error(node.span, format!("'{}' is not known here", shorten(&text)), help);
        None
    }

    /// A path, relative ones resolved against the folder of the file that it stands in.
    pub(super) fn path(&mut self, node: &Node) -> Option<PathBuf> {
        let text = self.text(node)?;
        if text.is_empty() || text.contains('\0') {
            self.error(node.span, "not a path", "give a path, relative ones are meant from this file's folder");
            return None;
        }
        if !self.source.may_name_files {
            self.error(
                node.span,
                "no file can be named here",
                "this text was sent, and no file of the broker's machine is read for it",
            );
            return None;
        }
        Some(folder_of(self.source.path_at(node.span.start)).join(text))
    }

    /// The items of a list; a single value stands for a list of one, nothing for none.
    pub(super) fn items<'n>(&mut self, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            _ if node.is_null() => &[],
            _ => std::slice::from_ref(node),
        }
    }

    /// The values of a mapping with a fixed set of keys. Nothing at all counts as an empty mapping.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, section: &Section) -> Option<Fields<'n>> {
        self.fields_with(node, section, None)
    }

    /// As [`fields`](Self::fields), with one more key allowed.
    fn fields_with<'n>(&mut self, node: &'n Node, section: &Section, extra: Option<&str>) -> Option<Fields<'n>> {
        self.no_tag(node);
        let entries = match &node.value {
            Value::Mapping(entries) => entries.as_slice(),
            _ if node.is_null() => &[],
            _ => {
                self.wrong(node, format!("a mapping for {}", section.what), section.known_keys());
                return None;
            }
        };
        let mut fields = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(key) = section.keys.iter().find(|key| **key == entry.key) {
                fields.push((*key, entry));
            } else if extra != Some(entry.key.as_str()) {
                self.unknown_key(entry, section);
            }
        }
        Some(Fields { entries: fields })
    }

    fn unknown_key(&mut self, entry: &Entry, section: &Section) {
        let key = shorten(&entry.key);
        let hint = section.hints.iter().find(|(known, _)| *known == entry.key).map(|(_, hint)| *hint);
        let (cause, help) = match hint {
            Some(Hint::NotYet) => {
                (format!("'{key}' of {} is not supported by this version", section.what), "remove it".to_owned())
            }
            Some(Hint::Instead(help)) => (format!("unknown key '{key}' in {}", section.what), help.to_owned()),
            None => {
                let help = match nearest(&entry.key, section.keys.iter().copied()) {
                    Some(meant) => format!("did you mean '{meant}'?"),
                    None => section.known_keys(),
                };
                (format!("unknown key '{key}' in {}", section.what), help)
            }
        };
        self.error(entry.key_span, cause, help);
    }

    /// Things that have a name: `{a: …, b: …}`, or a list of names, of `a: …`, or of `{name: a, …}`.
    pub(super) fn named<'n>(&mut self, node: &'n Node, section: &Section) -> Vec<Named<'n>> {
        self.no_tag(node);
        match &node.value {
            Value::Mapping(entries) => entries.iter().map(Named::of_entry).collect(),
            Value::List(items) => items.iter().filter_map(|item| self.named_item(item, section)).collect(),
            Value::Scalar(_) if node.is_null() => Vec::new(),
            Value::Scalar(_) => {
                self.wrong(node, format!("names, each with {}", section.what), "write 'NAME:' lines, or a list");
                Vec::new()
            }
        }
    }

    fn named_item<'n>(&mut self, item: &'n Node, section: &Section) -> Option<Named<'n>> {
        let Value::Mapping(entries) = &item.value else {
            let name = self.text(item)?;
            return Some(Named { name, name_span: item.span, body: None });
        };
        if let Some(entry) = entries.iter().find(|entry| entry.key == NAME_KEY) {
            let name = self.text(&entry.value)?;
            return Some(Named { name, name_span: entry.value.span, body: Some(item) });
        }
        match entries.as_slice() {
            [only] if !section.keys.contains(&only.key.as_str()) => Some(Named::of_entry(only)),
            _ => {
                self.error(item.span, format!("{} without a name", section.what), "add 'name: …'");
                None
            }
        }
    }

    /// The fields of something that has a name; `None` when there is no mapping to read them from.
    pub(super) fn named_fields<'n>(&mut self, named: &Named<'n>, section: &Section) -> Option<Fields<'n>> {
        let body = named.body?;
        let has_name_inside = matches!(&body.value, Value::Mapping(entries)
            if entries.iter().any(|entry| entry.key == NAME_KEY && entry.value.span == named.name_span));
        self.fields_with(body, section, has_name_inside.then_some(NAME_KEY))
    }

    pub(super) fn wrong(&mut self, node: &Node, expected: impl AsRef<str>, help: impl Into<String>) {
        self.error(node.span, format!("expected {}, found {}", expected.as_ref(), node.description()), help);
    }

    /// Tags choose the type of an argument and have no meaning elsewhere.
    pub(super) fn no_tag(&mut self, node: &Node) {
        if let Some(tag) = node.tag.as_ref().filter(|tag| !CORE_TAGS.contains(&tag.name.as_str())) {
            let cause = format!("tag '!{}' has no meaning here", shorten(&tag.name));
            self.error(tag.span, cause, "tags are for values of 'arguments'");
        }
    }

    fn in_range(
        &mut self,
        node: &Node,
        value: Option<u64>,
        range: RangeInclusive<u64>,
        format: fn(u64) -> String,
    ) -> Option<u64> {
        let value = value.filter(|value| range.contains(value));
        if value.is_none() {
            let cause = format!("{} is out of range", node.description());
            let allowed = format!("allowed: {} to {}", format(*range.start()), format(*range.end()));
            self.error(node.span, cause, allowed);
        }
        value
    }

    fn first_at(&self, here: Span, first: Span, help: &str) -> String {
        format!("first {}; {help}", self.source.seen_from(here.start, first.start))
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        match self.diagnostics.len() {
            DIAGNOSTICS_MAX => self.diagnostics.push(Diagnostic::of_file(
                &self.source.path,
                format!("more than {DIAGNOSTICS_MAX} mistakes; mend these first, the rest is not shown"),
            )),
            count if count < DIAGNOSTICS_MAX => self.diagnostics.push(diagnostic),
            _ => {}
        }
    }
}

impl Places {
    /// Where a part stands; where its declaration begins when the part was left to a default.
    pub(super) fn span(&self, place: &Place) -> Span {
        let whole = || self.0.get(&place.item.part(Part::Whole));
        self.0.get(place).or_else(whole).copied().unwrap_or_default()
    }
}

impl<'n> Fields<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|(known, _)| *known == key).map(|(_, entry)| *entry)
    }
}

impl<'n> Named<'n> {
    fn of_entry(entry: &'n Entry) -> Self {
        let body = (!entry.value.is_null()).then_some(&entry.value);
        Self { name: entry.key.clone(), name_span: entry.key_span, body }
    }
}

impl Section {
    fn known_keys(&self) -> String {
        format!("known keys: {}", self.keys.join(", "))
    }
}

/// Tags of the YAML core schema, which say what is there anyway.
pub(super) const CORE_TAGS: &[&str] = &["str", "int", "float", "bool", "null", "seq", "map"];

/// The folder that relative paths of a file are meant from.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
