//! The arguments of a binding, compiled when it is made.

use plugin_api::error::{Invalid, as_erlang, value_as_erlang};
use plugin_api::value::{Table, TableRef, Value};

use crate::canonical;

/// What a binding asks of a message's headers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matching {
    pub(crate) mode: Mode,
    pub(crate) conditions: Vec<Condition>,
}

/// How many of the conditions must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All, which is also true of none at all.
    All,
    /// At least one.
    Any,
}

/// A header and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) header: Vec<u8>,
    /// The canonical bytes of the value; `None` when being there is enough.
    pub(crate) value: Option<Vec<u8>>,
}

impl Matching {
    /// Compiles the arguments of a binding.
    ///
    /// # Errors
    /// An `x-match` that is none of the four.
    pub(crate) fn of(arguments: &Table) -> Result<Self, Invalid> {
        let (mode, with_x) = match arguments.get("x-match") {
            None => (Mode::All, false),
            Some(Value::LongString(text)) => match text.as_slice() {
                b"all" => (Mode::All, false),
                b"any" => (Mode::Any, false),
                b"all-with-x" => (Mode::All, true),
                b"any-with-x" => (Mode::Any, true),
                other => return Err(unknown_mode(other)),
            },
            Some(other) => {
                return Err(Invalid::new(format!(
                    "Invalid x-match field type {} (value {}); expected longstr",
                    other.type_name(),
                    value_as_erlang(other)
                )));
            }
        };
        let is_compared = |header: &[u8]| if with_x { header != b"x-match" } else { !header.starts_with(b"x-") };
        let mut contents = Vec::new();
        arguments.encode(&mut contents);
        let mut conditions = Vec::new();
        for entry in TableRef::new(&contents) {
            let (header, value) = entry.map_err(|error| Invalid::new(error.to_string()))?;
            if is_compared(header) {
                conditions.push(Condition { header: header.to_vec(), value: wanted(value)? });
            }
        }
        Ok(Self { mode, conditions })
    }
}

fn wanted(value: plugin_api::value::ValueRef<'_>) -> Result<Option<Vec<u8>>, Invalid> {
    if value == plugin_api::value::ValueRef::Void {
        return Ok(None);
    }
    let mut out = Vec::new();
    canonical::write(value, &mut out).map_err(|error| Invalid::new(error.to_string()))?;
    Ok(Some(out))
}

fn unknown_mode(text: &[u8]) -> Invalid {
    let text = as_erlang(text);
    Invalid::new(format!("Invalid x-match field value {text}; expected all, any, all-with-x, or any-with-x"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(arguments: &Table) -> Vec<String> {
        let matching = Matching::of(arguments).unwrap();
        matching.conditions.into_iter().map(|condition| String::from_utf8(condition.header).unwrap()).collect()
    }

    #[test]
    fn x_match_is_one_of_four() {
        for (text, mode) in
            [("all", Mode::All), ("any", Mode::Any), ("all-with-x", Mode::All), ("any-with-x", Mode::Any)]
        {
            assert_eq!(Matching::of(&Table::new().with("x-match", text)).unwrap().mode, mode);
        }
        assert_eq!(Matching::of(&Table::new()).unwrap().mode, Mode::All);
        let error = Matching::of(&Table::new().with("x-match", "ALL")).unwrap_err();
        assert_eq!(
            error.text,
            r#"Invalid x-match field value <<"ALL">>; expected all, any, all-with-x, or any-with-x"#
        );
        let error = Matching::of(&Table::new().with("x-match", true)).unwrap_err();
        assert_eq!(error.text, "Invalid x-match field type bool (value true); expected longstr");
        assert!(Matching::of(&Table::new().with("x-match", Value::Bytes(b"all".to_vec()))).is_err());
    }

    #[test]
    fn arguments_with_x_count_only_when_asked_for() {
        let table = |mode: &str| Table::new().with("x-match", mode).with("x-a", 1).with("b", 2).with("X-c", 3);
        assert_eq!(headers(&table("all")), ["b", "X-c"]);
        assert_eq!(headers(&table("any-with-x")), ["x-a", "b", "X-c"]);
    }

    #[test]
    fn void_asks_for_presence() {
        let matching = Matching::of(&Table::new().with("a", Value::Void)).unwrap();
        assert_eq!(matching.conditions, [Condition { header: b"a".to_vec(), value: None }]);
    }
}
