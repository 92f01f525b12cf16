//! How an author says no.

use std::fmt;

use crate::value::Value;

/// A refusal with its reason, as one sentence without a full stop.
///
/// The broker answers `PRECONDITION_FAILED` (406) with this text to whoever declared or bound, and shows it as it is to
/// whoever wrote the topology file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The sentence.
    pub text: String,
}

impl Invalid {
    /// A refusal for this reason.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

/// Text of a client as RabbitMQ prints it where a reason quotes it: an Erlang binary, with the letters if all can be printed.
#[must_use]
pub fn as_erlang(text: &[u8]) -> String {
    match std::str::from_utf8(text) {
        Ok(printable) if !printable.is_empty() && !printable.chars().any(char::is_control) => {
            let quoted = printable.replace('\\', "\\\\").replace('"', "\\\"");
            format!("<<\"{quoted}\"{}>>", if printable.is_ascii() { "" } else { "/utf8" })
        }
        _ => format!("<<{}>>", text.iter().map(u8::to_string).collect::<Vec<_>>().join(",")),
    }
}

/// A field value as RabbitMQ prints it where a reason quotes it; the types of a table's and an array's values stand beside them.
#[must_use]
pub fn value_as_erlang(value: &Value) -> String {
    let typed = |value: &Value| format!("{},{}", value.type_name(), value_as_erlang(value));
    match value {
        Value::LongString(text) | Value::Bytes(text) => as_erlang(text),
        Value::Bool(flag) => flag.to_string(),
        Value::F32(number) => format!("{number:?}"),
        Value::F64(number) => format!("{number:?}"),
        Value::Decimal { scale, value } => format!("{{{scale},{value}}}"),
        Value::Timestamp(seconds) => seconds.to_string(),
        Value::Void => "undefined".to_owned(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{{{}}}", typed(value))).collect();
            format!("[{}]", values.join(","))
        }
        Value::Table(table) => {
            let fields = table.iter().map(|(key, value)| format!("{{{},{}}}", as_erlang(key), typed(value)));
            format!("[{}]", fields.collect::<Vec<_>>().join(","))
        }
        integer => integer.as_i64().map_or_else(String::new, |number| number.to_string()),
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Invalid {}

impl From<String> for Invalid {
    fn from(text: String) -> Self {
        Self { text }
    }
}

impl From<&str> for Invalid {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_erlang_prints_terms() {
        use crate::value::Table;
        for (value, expected) in [
            (Value::I32(-5), "-5"),
            (Value::Bool(true), "true"),
            (Value::F64(1.5), "1.5"),
            (Value::Void, "undefined"),
            (Value::from("all"), "<<\"all\">>"),
            (Value::Array(vec![Value::I32(1), Value::from("two")]), "[{signedint,1},{longstr,<<\"two\">>}]"),
            (Value::Table(Table::new().with("k", true)), "[{<<\"k\">>,bool,true}]"),
        ] {
            assert_eq!(value_as_erlang(&value), expected);
        }
    }

    #[test]
    fn text_is_quoted_as_erlang_prints_binaries() {
        for (text, expected) in [
            (&b""[..], "<<>>"),
            (b"ten", "<<\"ten\">>"),
            (b"a\"\\", "<<\"a\\\"\\\\\">>"),
            ("\u{e9}".as_bytes(), "<<\"\u{e9}\"/utf8>>"),
            (b"a\x00\xff", "<<97,0,255>>"),
        ] {
            assert_eq!(as_erlang(text), expected);
        }
    }
}
