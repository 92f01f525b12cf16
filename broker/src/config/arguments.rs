//! Declaration and binding arguments: YAML values to the typed values of a field table.
//!
//! Whole numbers become 64-bit integers, other numbers doubles, text long strings, and lists and mappings what they are.
//! The types that YAML has no notation for are chosen by a tag: `!u8 3`, `!timestamp 1700000000`, `!bytes aGk=`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use plugin_api::value::{TABLE_KEY_BYTES_MAX, Table, Value as Argument};

use super::{
    reader::{CORE_TAGS, Reader},
    source::Span,
    yaml::{Node, Plain, TypeTag, Value, shorten},
};
use crate::topology::{
    check::{Item, Part},
    names::nearest,
};

/// How a scalar becomes a value of the type that its tag names; `None` when it cannot.
type Convert = fn(&str) -> Option<Argument>;

/// The tags, which are named as in the field table.
const TAGS: &[(&str, Convert)] = &[
    ("i8", |text| Some(Argument::I8(text.parse().ok()?))),
    ("u8", |text| Some(Argument::U8(text.parse().ok()?))),
    ("i16", |text| Some(Argument::I16(text.parse().ok()?))),
    ("u16", |text| Some(Argument::U16(text.parse().ok()?))),
    ("i32", |text| Some(Argument::I32(text.parse().ok()?))),
    ("u32", |text| Some(Argument::U32(text.parse().ok()?))),
    ("i64", |text| Some(Argument::I64(text.parse().ok()?))),
    ("f32", |text| Some(Argument::F32(text.parse().ok()?))),
    ("f64", |text| Some(Argument::F64(text.parse().ok()?))),
    ("decimal", decimal),
    ("timestamp", |text| Some(Argument::Timestamp(text.parse().ok()?))),
    ("bytes", |text| Some(Argument::Bytes(STANDARD.decode(text).ok()?))),
    ("string", |text| Some(Argument::LongString(text.as_bytes().to_vec()))),
];

impl Reader<'_> {
    /// The table under `arguments`, each entry with its place.
    pub(super) fn arguments(&mut self, node: &Node, item: Item) -> Table {
        let mut table = Table::new();
        let entries = match &node.value {
            Value::Mapping(entries) => entries.as_slice(),
            _ if node.is_null() => &[],
            _ => {
                self.wrong(node, "a mapping of arguments", "write 'name: value' lines");
                return table;
            }
        };
        for entry in entries {
            let Some(value) = self.argument(&entry.value) else { continue };
            // Where the value stands on its own it is what has to be mended; what has no place shows its key.
            self.place(item, Part::Argument(entry.key.clone()), entry.value.span);
            self.insert(&mut table, &entry.key, entry.key_span, value);
        }
        table
    }

    fn argument(&mut self, node: &Node) -> Option<Argument> {
        match &node.value {
            Value::Scalar(scalar) => match &node.tag {
                Some(tag) if !CORE_TAGS.contains(&tag.name.as_str()) => self.tagged(node, tag, &scalar.text),
                _ => self.plain_argument(node),
            },
            Value::List(items) => {
                self.no_tag(node);
                let values: Vec<_> = items.iter().map(|item| self.argument(item)).collect();
                values.into_iter().collect::<Option<_>>().map(Argument::Array)
            }
            Value::Mapping(entries) => {
                self.no_tag(node);
                let mut table = Table::new();
                for entry in entries {
                    if let Some(value) = self.argument(&entry.value) {
                        self.insert(&mut table, &entry.key, entry.key_span, value);
                    }
                }
                Some(Argument::Table(table))
            }
        }
    }

    fn plain_argument(&mut self, node: &Node) -> Option<Argument> {
        Some(match node.plain()? {
            Plain::Null => Argument::Void,
            Plain::Bool(value) => Argument::Bool(value),
            Plain::Int(value) => Argument::I64(value),
            Plain::Float(value) => Argument::F64(value),
            Plain::Text(text) => Argument::LongString(text.as_bytes().to_vec()),
            Plain::HugeInt => {
                let cause = format!("{} does not fit into 64 bits", node.description());
                self.error(node.span, cause, "put it into quotes if it is meant as text");
                return None;
            }
        })
    }

    fn tagged(&mut self, node: &Node, tag: &TypeTag, text: &str) -> Option<Argument> {
        let Some((name, convert)) = TAGS.iter().find(|(known, _)| *known == tag.name) else {
            let known = || TAGS.iter().map(|(known, _)| *known);
            let help = match nearest(&tag.name, known()) {
                Some(meant) => format!("did you mean '!{meant}'?"),
                None => format!("known: !{}", known().collect::<Vec<_>>().join(", !")),
            };
            self.error(tag.span, format!("unknown type '!{}'", shorten(&tag.name)), help);
            return None;
        };
        let value = convert(text);
        if value.is_none() {
            let help = match *name {
                "bytes" => "give the bytes as base64",
                "decimal" => "give up to nine digits with a point, such as 1.25",
                "timestamp" => "give seconds since 1970",
                _ => "give a number in the range of this type",
            };
            self.error(node.span, format!("'{}' is not a value of type {name}", shorten(text)), help);
        }
        value
    }

    fn insert(&mut self, table: &mut Table, key: &str, span: Span, value: Argument) {
        if key.len() > TABLE_KEY_BYTES_MAX {
            let cause = format!("argument name is longer than {TABLE_KEY_BYTES_MAX} bytes");
            self.error(span, cause, format!("this one has {}", key.len()));
        } else {
            table.insert(key, value);
        }
    }
}

/// `12.50` is 1250 with a scale of 2.
fn decimal(text: &str) -> Option<Argument> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.chars().all(|char| char.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let value = format!("{whole}{fraction}").parse().ok()?;
    Some(Argument::Decimal { scale: u8::try_from(fraction.len()).ok()?, value })
}
