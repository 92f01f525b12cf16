//! Bodies of requests: JSON objects, with booleans and numbers also as text, as RabbitMQ's own tools send them.

use plugin_api::value::Table;
use serde_json::{Map, Value as Json};

use super::errors::ApiError;
use crate::vhost::json_table::table_from_json;

/// The fields of a body. Unknown ones are nobody's business.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(pub(super) Map<String, Json>);

impl Fields {
    /// Nothing, `null` and `undefined` are an empty object.
    ///
    /// # Errors
    /// 400 for what is no JSON, or no object.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        if matches!(body, b"" | b"null" | b"undefined") {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Json::Object(fields)) => Ok(Self(fields)),
            Ok(Json::String(_)) => Err(ApiError::bad_request(
                "invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?",
            )),
            Ok(_) | Err(_) => Err(ApiError::bad_request("not_json")),
        }
    }

    /// A field that is there and not `null`.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Fields that must all be there; a `null` is there.
    ///
    /// # Errors
    /// 400 with those that are not.
    pub(super) fn require<const N: usize>(&self, keys: [&'static str; N]) -> Result<[&Json; N], ApiError> {
        let missing: Vec<&str> = keys.into_iter().filter(|key| !self.0.contains_key(*key)).collect();
        if missing.is_empty() { Ok(keys.map(|key| &self.0[key])) } else { Err(ApiError::keys_missing(&missing)) }
    }

    /// A text.
    ///
    /// # Errors
    /// 400 for something else.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(key, "a string", other)),
        }
    }

    /// A boolean, or the text of one.
    ///
    /// # Errors
    /// 400 for something else.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Bool(value)) => Ok(Some(*value)),
            Some(Json::String(text)) if text == "true" => Ok(Some(true)),
            Some(Json::String(text)) if text == "false" => Ok(Some(false)),
            Some(Json::String(text)) if text == "undefined" => Ok(None),
            Some(other) => Err(wrong(key, "true or false", other)),
        }
    }

    /// A whole number, or the text of one.
    ///
    /// # Errors
    /// 400 for something else.
    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        self.get(key).map(|value| integer(key, value)).transpose()
    }

    /// Arguments of a declaration; an empty list counts as none.
    ///
    /// # Errors
    /// 400 for something else, and for what no table can hold.
    pub(super) fn arguments(&self, key: &str) -> Result<Table, ApiError> {
        match self.get(key) {
            None => Ok(Table::new()),
            Some(Json::Array(items)) if items.is_empty() => Ok(Table::new()),
            Some(Json::Object(object)) => {
                table_from_json(object).map_err(|error| ApiError::bad_request(format!("{key}: {error}")))
            }
            Some(other) => Err(wrong(key, "an object", other)),
        }
    }

    /// Tags in a list, or in one text with commas.
    ///
    /// # Errors
    /// 400 for something else.
    pub(super) fn tags(&self, key: &str) -> Result<Option<Vec<String>>, ApiError> {
        let cut = |text: &str| -> Vec<String> {
            text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
        };
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(cut(text))),
            Some(Json::Array(items)) => {
                let tag = |item: &Json| {
                    item.as_str().map(|tag| tag.trim().to_owned()).ok_or_else(|| wrong(key, "strings", item))
                };
                items.iter().map(tag).collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(wrong(key, "a list of strings", other)),
        }
    }
}

/// A whole number, or the text of one.
///
/// # Errors
/// 400 for something else.
pub(super) fn integer(key: &str, value: &Json) -> Result<i64, ApiError> {
    let read = match value {
        Json::Number(number) => number.as_i64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| wrong(key, "a whole number", value))
}

/// A text that was required.
///
/// # Errors
/// 400 for something else.
pub(super) fn text<'v>(key: &str, value: &'v Json) -> Result<&'v str, ApiError> {
    value.as_str().ok_or_else(|| wrong(key, "a string", value))
}

/// 400 for a field of the wrong type.
pub(super) fn wrong(key: &str, expected: &str, found: &Json) -> ApiError {
    let shown: String = found.to_string().chars().take(SHOWN_CHARS_MAX).collect();
    ApiError::bad_request(format!("{key} should be {expected}, actually was {shown}"))
}

/// Enough of a value to recognise it.
const SHOWN_CHARS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn nothing_is_an_empty_object() {
        for text in ["", "null", "undefined", "{}"] {
            assert!(fields(text).0.is_empty());
        }
        for text in ["[]", "1", "{", "\"{}\"", "nul"] {
            assert!(Fields::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn scalars_may_be_text() {
        let fields = fields(r#"{"a": "true", "b": false, "c": "12", "d": 7, "e": null, "f": "x", "g": 1.5}"#);
        assert_eq!((fields.flag("a"), fields.flag("b"), fields.flag("e")), (Ok(Some(true)), Ok(Some(false)), Ok(None)));
        assert_eq!(
            (fields.integer("c"), fields.integer("d"), fields.integer("z")),
            (Ok(Some(12)), Ok(Some(7)), Ok(None))
        );
        assert!(fields.flag("f").is_err() && fields.integer("f").is_err() && fields.integer("g").is_err());
    }

    #[test]
    fn tags_are_a_list_or_a_text() {
        let fields = fields(r#"{"a": "x, y,", "b": ["x", "y"], "c": "", "d": 1, "e": [1]}"#);
        let xy = Ok(Some(vec!["x".to_owned(), "y".to_owned()]));
        assert_eq!((fields.tags("a"), fields.tags("b")), (xy.clone(), xy));
        assert_eq!(fields.tags("c"), Ok(Some(vec![])));
        assert!(fields.tags("d").is_err() && fields.tags("e").is_err());
    }

    #[test]
    fn missing_keys_are_named_together() {
        let error = fields(r#"{"b": 1}"#).require(["a", "b", "c"]).unwrap_err();
        assert_eq!(error, ApiError::bad_request("[{key_missing,a},{key_missing,c}]"));
    }
}
