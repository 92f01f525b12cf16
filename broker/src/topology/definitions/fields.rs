//! Reads the fields of one entry, and notes each one that does not fit.
//!
//! A method that returns `None` has noted why; callers go on, so that one run reports every mistake.

use plugin_api::value::Table;
use serde_json::{Map, Value as Json};

use super::{MISTAKES_MAX, Mistake};
use crate::vhost::json_table::table_from_json;

/// One object of the file.
pub(super) struct Fields<'a> {
    pub(super) path: String,
    object: &'a Map<String, Json>,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Fields<'a> {
    /// None, with a mistake, for what is no object.
    pub(super) fn new(path: String, value: &'a Json, mistakes: &'a mut Vec<Mistake>) -> Option<Self> {
        match value {
            Json::Object(object) => Some(Self { path, object, mistakes }),
            other => {
                note(mistakes, Mistake::new(path, format!("expected an object, found {}", kind(other)), ""));
                None
            }
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Json> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn mistake(&mut self, key: &str, cause: impl Into<String>, help: impl Into<String>) {
        let path = if key.is_empty() { self.path.clone() } else { format!("{}.{key}", self.path) };
        note(self.mistakes, Mistake::new(path, cause, help));
    }

    /// A mistake that was found by somebody else.
    pub(super) fn note(&mut self, mistake: Mistake) {
        note(self.mistakes, mistake);
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.get(key) {
            None => {
                self.mistake("", format!("'{key}' is missing"), format!("add \"{key}\": \"…\""));
                None
            }
            Some(_) => self.optional_text(key),
        }
    }

    /// A text that may be left out.
    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Json::String(text) => Some(text.clone()),
            other => {
                self.mistake(key, format!("expected text, found {}", kind(other)), "put it into quotes");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(Json::Bool(value)) => *value,
            Some(other) => {
                self.mistake(key, format!("expected true or false, found {}", kind(other)), "");
                default
            }
        }
    }

    /// An object. RabbitMQ's command line writes some as lists of pairs: `[["max-queues", 10]]`.
    pub(super) fn object(&mut self, key: &str) -> Option<Map<String, Json>> {
        let value = self.get(key)?;
        if let Json::Array(items) = value
            && let Some(object) = items.iter().map(pair).collect()
        {
            return Some(object);
        }
        match value {
            Json::Object(object) => Some(object.clone()),
            other => {
                self.mistake(key, format!("expected an object, found {}", kind(other)), "");
                None
            }
        }
    }

    /// Arguments, which may be left out.
    pub(super) fn arguments(&mut self) -> Table {
        let Some(object) = self.object("arguments") else { return Table::new() };
        table_from_json(&object).unwrap_or_else(|error| {
            self.mistake("arguments", error.to_string(), "AMQP has no such arguments");
            Table::new()
        })
    }

    /// Texts in a list, or one text with commas as releases before 3.9 wrote it.
    pub(super) fn tags(&mut self) -> Option<Vec<String>> {
        let trimmed = |tag: &str| tag.trim().to_owned();
        match self.get("tags")? {
            Json::String(tags) => Some(tags.split(',').map(trimmed).filter(|tag| !tag.is_empty()).collect()),
            Json::Array(items) => {
                let mut tags = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    match item {
                        Json::String(tag) => tags.push(trimmed(tag)),
                        other => {
                            self.mistake(
                                &format!("tags[{index}]"),
                                format!("expected text, found {}", kind(other)),
                                "",
                            );
                        }
                    }
                }
                Some(tags)
            }
            other => {
                self.mistake("tags", format!("expected a list of texts, found {}", kind(other)), "");
                None
            }
        }
    }
}

fn pair(item: &Json) -> Option<(String, Json)> {
    match item.as_array()?.as_slice() {
        [Json::String(key), value] => Some((key.clone(), value.clone())),
        _ => None,
    }
}

/// A file in which everything is wrong is not worth a line for each entry.
pub(super) fn note(mistakes: &mut Vec<Mistake>, mistake: Mistake) {
    match mistakes.len() {
        MISTAKES_MAX => {
            let cause = format!("more than {MISTAKES_MAX} mistakes");
            mistakes.push(Mistake::new("", cause, "mend these first, the rest is not shown"));
        }
        count if count < MISTAKES_MAX => mistakes.push(mistake),
        _ => {}
    }
}

/// What stands in the file, for mistakes.
pub(super) fn kind(value: &Json) -> String {
    match value {
        Json::Null => "null".into(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => format!("the number {number}"),
        Json::String(_) => "text".into(),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
    }
}
