//! A YAML file as a tree of values that know where they stand.
//!
//! The tree is built from the parser's events rather than by deserializing into types, because a deserializer stops at the
//! first value that does not fit, and a topology file with twenty mistakes shall be told all twenty. Aliases and merge keys
//! are resolved here, `${…}` is expanded, and duplicate keys are reported. What the values mean is for the readers.

use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, Tag};

use super::{
    environment::{self, Environment},
    source::{Source, Span},
};

/// One value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
    pub(super) tag: Option<TypeTag>,
}

/// An explicit tag of a value.
#[derive(Clone, Debug)]
pub(super) struct TypeTag {
    /// Without exclamation marks: `u8` for `!u8`, `str` for `!!str`.
    pub(super) name: String,
    pub(super) span: Span,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

/// A scalar after escapes and `${…}`.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Quoted and block scalars are text whatever they look like.
    pub(super) is_plain: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
    /// Whether it is [`MERGE_KEY`]; in quotes that is a key like others.
    is_merge: bool,
}

/// What a plain scalar stands for (YAML 1.2 core schema).
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits.
    HugeInt,
    Float(f64),
    Text(&'a str),
}

/// A mistake found while building the tree.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) span: Span,
    pub(super) cause: String,
    pub(super) help: String,
    /// The earlier place that this one contradicts.
    pub(super) first: Option<Span>,
}

/// Values in one file, aliases not counted.
pub(super) const NODES_MAX: usize = 1_000_000;

/// Values that aliases and merges add by repeating others: generous for a file by hand, small for a bomb.
pub(super) const ALIASED_NODES_MAX: usize = 100_000;

/// Nesting of lists and mappings; readers recurse this deep.
pub(super) const DEPTH_MAX: usize = 64;

/// Reads the only document of the last file of a source, whose text begins at `base`. `None` when there is nothing in it, or no tree could be made.
pub(super) fn parse(source: &Source, base: usize, environment: &Environment<'_>) -> (Option<Node>, Vec<Mistake>) {
    let text = source.text.get(base..).unwrap_or_default();
    let mut builder = Builder {
        environment,
        open: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes: 0,
        aliased_nodes: 0,
        mistakes: Vec::new(),
    };
    let options = granit_parser::options! {
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span, tag_span) = match event {
            Ok((event, span)) => (event, span_of(&span, base), span.tag_span().map(|tag| span_of(&tag, base))),
            Err(error) => {
                let at = base + error.marker().byte_offset().unwrap_or(0).min(text.len());
                builder.mistake(
                    Span { start: at, end: at },
                    format!("not valid YAML: {}", error.kind()),
                    "the rest of the file is read once this is mended",
                );
                return (None, builder.mistakes);
            }
        };
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents > 1 {
                builder.mistake(span, "a second document begins here", "a topology is one document; remove the '---'");
                break;
            }
        }
        if let Err(Stop) = builder.event(event, span, tag_span) {
            return (None, builder.mistakes);
        }
    }
    (builder.root, builder.mistakes)
}

struct Builder<'a> {
    environment: &'a Environment<'a>,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Measured>,
    nodes: usize,
    aliased_nodes: usize,
    mistakes: Vec<Mistake>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    span: Span,
    tag: Option<TypeTag>,
    anchor: usize,
    content: Content,
    nodes: usize,
    depth: usize,
}

enum Content {
    List(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<Key> },
}

/// A key that waits for its value.
struct Key {
    text: String,
    span: Span,
    is_merge: bool,
    /// What stands there and cannot be a key.
    not_a_key: Option<Node>,
}

/// A finished value with how much of it there is.
struct Measured {
    node: Node,
    nodes: usize,
    depth: usize,
}

/// A limit was passed; what comes after would only repeat that.
struct Stop;

/// The key that takes over the entries of another mapping (YAML 1.1, and what editors expect).
const MERGE_KEY: &str = "<<";

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span, tag_span: Option<Span>) -> Result<(), Stop> {
        let type_tag = |tag: Option<&Tag>| tag.map(|tag| TypeTag::new(tag, tag_span.unwrap_or(span)));
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = self.scalar(&text, style, type_tag(tag.as_deref()), span);
                self.finished(Measured { node, nodes: 1, depth: 0 }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.opened(Content::List(Vec::new()), anchor, type_tag(tag.as_deref()), span)
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Mapping { entries: Vec::new(), key: None };
                self.opened(content, anchor, type_tag(tag.as_deref()), span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.closed(),
            Event::Alias(id) => self.alias(id, span),
            Event::UnresolvedAlias(name) => {
                self.mistake(span, format!("no anchor '&{name}' before this alias"), "anchors come first: &name");
                self.finished(Measured { node: null(span), nodes: 1, depth: 0 }, 0)
            }
            // Starts and ends of stream and document; comments and anchor names are not asked for.
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<TypeTag>, span: Span) -> Node {
        let mut scalar = Scalar { text: text.to_owned(), is_plain: style == ScalarStyle::Plain };
        match environment::expand(text, self.environment) {
            Ok(None) => {}
            Ok(Some(expanded)) => {
                // An empty variable is an empty text, not "nothing".
                scalar.is_plain &= !expanded.is_empty();
                scalar.text = expanded;
            }
            Err(error) => self.mistake(span, error.to_string(), error.help()),
        }
        Node { span, value: Value::Scalar(scalar), tag }
    }

    fn opened(&mut self, content: Content, anchor: usize, tag: Option<TypeTag>, span: Span) -> Result<(), Stop> {
        let is_too_deep = self.open.len() >= DEPTH_MAX;
        if is_too_deep {
            return self.too_deep(span);
        }
        // The span of a collection is its first character: what is wrong with one is that it stands there at all.
        let span = Span { start: span.start, end: span.start };
        self.open.push(Open { span, tag, anchor, content, nodes: 1, depth: 0 });
        Ok(())
    }

    fn closed(&mut self) -> Result<(), Stop> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Mapping { entries, .. } => Value::Mapping(self.without_duplicates(entries)?),
        };
        let node = Node { span: open.span, value, tag: open.tag };
        self.finished(Measured { node, nodes: open.nodes, depth: open.depth + 1 }, open.anchor)
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Stop> {
        let Some(anchored) = self.anchors.get(&id) else {
            self.mistake(span, "this alias stands inside the value it repeats", "repeat a value that is complete");
            return self.finished(Measured { node: null(span), nodes: 1, depth: 0 }, 0);
        };
        let (nodes, depth) = (anchored.nodes, anchored.depth);
        // Counted before it is copied: nine levels of nine aliases are a few hundred bytes in the file.
        self.count_aliased(nodes, span)?;
        if self.open.len() + depth > DEPTH_MAX {
            return self.too_deep(span);
        }
        let node = self.anchors.get(&id).map_or_else(|| null(span), |anchored| anchored.node.clone());
        self.finished(Measured { node, nodes, depth }, 0)
    }

    /// Puts a complete value where it belongs.
    fn finished(&mut self, measured: Measured, anchor: usize) -> Result<(), Stop> {
        let Measured { node, nodes, depth } = measured;
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.mistake(node.span, format!("more than {NODES_MAX} values in one file"), "split the topology");
            return Err(Stop);
        }
        if anchor != 0 {
            self.count_aliased(nodes, node.span)?;
            self.anchors.insert(anchor, Measured { node: node.clone(), nodes, depth });
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.nodes += nodes;
        open.depth = open.depth.max(depth);
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Mapping { entries, key } => match key.take() {
                None => *key = Some(key_of(node)),
                Some(Key { text: key, span: key_span, is_merge, not_a_key }) => {
                    if let Some(bad) = not_a_key {
                        self.mistake(bad.span, "a key must be a plain word", "write the key as text");
                        return Ok(());
                    }
                    let mut value = node;
                    // A value that is left out stands nowhere; its key is where the mistake is seen.
                    if value.span.start == value.span.end && value.is_null() {
                        value.span = key_span;
                    }
                    entries.push(Entry { key, key_span, value, is_merge });
                }
            },
        }
        Ok(())
    }

    /// Reports keys that were given twice, keeps the first of each, and takes over what `<<` refers to.
    fn without_duplicates(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, Stop> {
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        let mut seen: HashMap<String, Span> = HashMap::with_capacity(entries.len());
        let mut merged = Vec::new();
        for entry in entries {
            if entry.is_merge {
                self.merge_sources(entry, &mut merged);
            } else if let Some(first) = seen.get(&entry.key) {
                self.mistakes.push(Mistake {
                    span: entry.key_span,
                    cause: format!("duplicate key '{}'", shorten(&entry.key)),
                    help: "keep one of them".to_owned(),
                    first: Some(*first),
                });
            } else {
                seen.insert(entry.key.clone(), entry.key_span);
                kept.push(entry);
            }
        }
        let mut names: HashSet<String> = seen.into_keys().collect();
        kept.extend(merged.into_iter().filter(|entry| names.insert(entry.key.clone())));
        Ok(kept)
    }

    fn merge_sources(&mut self, entry: Entry, merged: &mut Vec<Entry>) {
        let sources = match entry.value.value {
            Value::List(items) => items,
            _ => vec![entry.value],
        };
        for source in sources {
            match source.value {
                Value::Mapping(entries) => merged.extend(entries),
                _ => self.mistake(source.span, "only a mapping can be merged", "'<<' takes an alias of a mapping"),
            }
        }
    }

    fn count_aliased(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.aliased_nodes = self.aliased_nodes.saturating_add(nodes);
        if self.aliased_nodes <= ALIASED_NODES_MAX {
            return Ok(());
        }
        let cause = format!("anchors and aliases repeat more than {ALIASED_NODES_MAX} values");
        self.mistake(span, cause, "write out what is needed");
        Err(Stop)
    }

    fn too_deep(&mut self, span: Span) -> Result<(), Stop> {
        let cause = format!("lists and mappings are nested deeper than {DEPTH_MAX} levels");
        self.mistake(span, cause, "no part of a topology needs that");
        Err(Stop)
    }

    fn mistake(&mut self, span: Span, cause: impl Into<String>, help: impl Into<String>) {
        self.mistakes.push(Mistake { span, cause: cause.into(), help: help.into(), first: None });
    }
}

impl Node {
    /// Whether nothing was written here, or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(self.plain(), Some(Plain::Null))
    }

    fn is_tagged(&self, name: &str) -> bool {
        self.tag.as_ref().is_some_and(|tag| tag.name == name)
    }

    /// What a scalar stands for; `None` for lists and mappings.
    pub(super) fn plain(&self) -> Option<Plain<'_>> {
        match &self.value {
            Value::Scalar(scalar) if scalar.is_plain && !self.is_tagged("str") => Some(scalar.resolve()),
            Value::Scalar(scalar) => Some(Plain::Text(&scalar.text)),
            Value::List(_) | Value::Mapping(_) => None,
        }
    }

    /// What stands here, in the words of a message: "found …".
    pub(super) fn description(&self) -> String {
        match (&self.value, self.plain()) {
            (Value::List(_), _) => "a list".to_owned(),
            (Value::Mapping(_), _) => "a mapping".to_owned(),
            (_, Some(Plain::Null) | None) => "nothing".to_owned(),
            (_, Some(Plain::Bool(value))) => value.to_string(),
            (Value::Scalar(scalar), Some(Plain::Int(_) | Plain::HugeInt | Plain::Float(_))) => {
                format!("the number {}", shorten(&scalar.text))
            }
            (Value::Scalar(scalar), Some(Plain::Text(_))) => format!("'{}'", shorten(&scalar.text)),
        }
    }
}

impl TypeTag {
    fn new(tag: &Tag, span: Span) -> Self {
        let name = tag.core_suffix().map_or_else(|| tag.suffix().to_owned(), str::to_owned);
        Self { name, span }
    }
}

impl Scalar {
    fn resolve(&self) -> Plain<'_> {
        let text = self.text.as_str();
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
            "true" | "True" | "TRUE" => return Plain::Bool(true),
            "false" | "False" | "FALSE" => return Plain::Bool(false),
            ".nan" | ".NaN" | ".NAN" => return Plain::Float(f64::NAN),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Plain::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => return Plain::Float(f64::NEG_INFINITY),
            _ => {}
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|char| char.is_digit(radix));
        let int = |digits: &str, radix| i64::from_str_radix(digits, radix).map_or(Plain::HugeInt, Plain::Int);
        if is_all(digits, 10) {
            return int(text, 10);
        }
        for (prefix, radix) in [("0x", 16), ("0o", 8)] {
            if let Some(digits) = text.strip_prefix(prefix).filter(|digits| is_all(digits, radix)) {
                return int(digits, radix);
            }
        }
        let looks_like_float = digits.starts_with(|char: char| char.is_ascii_digit() || char == '.')
            && digits.contains(|char: char| char.is_ascii_digit())
            && digits.chars().all(|char| char.is_ascii_digit() || matches!(char, '.' | 'e' | 'E' | '-' | '+'));
        match text.parse() {
            Ok(float) if looks_like_float => Plain::Float(float),
            _ => Plain::Text(text),
        }
    }
}

/// More of a value than this says nothing in a message.
const DESCRIPTION_CHARS_MAX: usize = 40;

pub(super) fn shorten(text: &str) -> String {
    let clean: String = text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect();
    if clean.chars().count() <= DESCRIPTION_CHARS_MAX {
        return clean;
    }
    clean.chars().take(DESCRIPTION_CHARS_MAX).chain(['…']).collect()
}

fn null(span: Span) -> Node {
    let scalar = Scalar { text: String::new(), is_plain: true };
    Node { span, value: Value::Scalar(scalar), tag: None }
}

fn key_of(node: Node) -> Key {
    let span = node.span;
    match node.value {
        Value::Scalar(Scalar { text, is_plain }) => {
            let is_merge = is_plain && text == MERGE_KEY;
            Key { text, span, is_merge, not_a_key: None }
        }
        Value::List(_) | Value::Mapping(_) => Key { text: String::new(), span, is_merge: false, not_a_key: Some(node) },
    }
}

fn span_of(span: &granit_parser::Span, base: usize) -> Span {
    let shifted = |range: std::ops::Range<usize>| Span { start: base + range.start, end: base + range.end };
    span.byte_range().map_or(Span { start: base, end: base }, shifted)
}

#[cfg(test)]
mod tests;
