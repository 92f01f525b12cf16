//! Argument tables as JSON and back, as RabbitMQ's definitions and its management API write them (semantics 28.9).
//!
//! JSON has fewer types: numbers keep their value and lose their width, a time stamp becomes its number, bytes become text. What
//! RabbitMQ compares as equal stays equal.

use plugin_api::value::{TABLE_DEPTH_MAX, Table, TableError, Value};
use serde_json::{Map, Number, Value as Json};

/// An object as a table: whole numbers become 64-bit integers, other numbers doubles, text long strings.
///
/// # Errors
/// A name is too long for a table, or objects and arrays are nested too deep.
pub fn table_from_json(object: &Map<String, Json>) -> Result<Table, TableError> {
    table(object, TABLE_DEPTH_MAX)
}

fn table(object: &Map<String, Json>, depth_left: usize) -> Result<Table, TableError> {
    let depth_left = depth_left.checked_sub(1).ok_or(TableError::TooDeep)?;
    let mut table = Table::new();
    for (key, value) in object {
        table.push(key.as_bytes(), value_from_json(value, depth_left)?)?;
    }
    Ok(table)
}

pub(super) fn value_from_json(value: &Json, depth_left: usize) -> Result<Value, TableError> {
    Ok(match value {
        Json::Null => Value::Void,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::I64(value),
            None => Value::F64(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => Value::LongString(text.as_bytes().to_vec()),
        Json::Array(items) => {
            let depth_left = depth_left.checked_sub(1).ok_or(TableError::TooDeep)?;
            Value::Array(items.iter().map(|item| value_from_json(item, depth_left)).collect::<Result<_, _>>()?)
        }
        Json::Object(object) => Value::Table(table(object, depth_left)?),
    })
}

/// A table as an object. Bytes that are no UTF-8 are replaced.
pub fn table_to_json(table: &Table) -> Map<String, Json> {
    table.iter().map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), value_to_json(value))).collect()
}

fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Void => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::LongString(bytes) | Value::Bytes(bytes) => Json::String(String::from_utf8_lossy(bytes).into_owned()),
        Value::Timestamp(seconds) => Json::from(*seconds),
        Value::Array(items) => Json::Array(items.iter().map(value_to_json).collect()),
        Value::Table(table) => Json::Object(table_to_json(table)),
        other => match (other.as_i64(), other.as_f64()) {
            (Some(value), _) => Json::from(value),
            (None, Some(value)) => float(value),
            (None, None) => Json::Null,
        },
    }
}

/// JSON has no infinities.
fn float(value: f64) -> Json {
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Semantics 28.9.
    #[test]
    fn json_comes_back_as_it_was() {
        let object = json!({"i": -7, "f": 2.5, "s": "text", "b": true, "n": null, "a": [1, "x"], "t": {"k": 1}});
        let object = object.as_object().unwrap();
        let table = table_from_json(object).unwrap();
        assert_eq!(table.get("i"), Some(&Value::I64(-7)));
        assert_eq!(table.get("f"), Some(&Value::F64(2.5)));
        assert_eq!(table.get("s"), Some(&Value::from("text")));
        assert_eq!(table_to_json(&table), *object);
    }

    #[test]
    fn types_that_json_does_not_have_keep_their_value() {
        let table = Table::new()
            .with("short", Value::I16(3))
            .with("time", Value::Timestamp(1_700_000_000))
            .with("bytes", Value::Bytes(b"ab".to_vec()))
            .with("decimal", Value::Decimal { scale: 2, value: 1250 })
            .with("float", Value::F32(0.5));
        let expected = json!({"short": 3, "time": 1_700_000_000, "bytes": "ab", "decimal": 12.5, "float": 0.5});
        assert_eq!(Json::Object(table_to_json(&table)), expected);
    }

    #[test]
    fn what_no_table_can_hold_is_an_error() {
        let long = json!({"x".repeat(256): 1});
        assert_eq!(table_from_json(long.as_object().unwrap()), Err(TableError::KeyTooLong));
        let mut deep = json!(1);
        for _ in 0..TABLE_DEPTH_MAX {
            deep = json!([deep]);
        }
        let deep = json!({"k": deep});
        assert_eq!(table_from_json(deep.as_object().unwrap()), Err(TableError::TooDeep));
        let fits = table_from_json(json!({"k": deep["k"][0]}).as_object().unwrap()).unwrap();
        let mut encoded = Vec::new();
        fits.encode(&mut encoded);
        assert_eq!(Table::decode(&encoded), Ok(fits), "what is taken can be read back");
    }
}
