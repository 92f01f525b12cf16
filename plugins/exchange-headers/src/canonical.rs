//! Values as bytes that are equal exactly when the headers exchange calls the values equal.
//!
//! Integers of all widths are one class, floats of both widths another, text and byte arrays a third; a class never equals
//! another. Arrays compare item by item, tables without regard to order. Timestamps compare as seconds: RabbitMQ 4 scales
//! those of messages to milliseconds first, so that they never match, which nobody can want.

use plugin_api::value::{TABLE_DEPTH_MAX, TableError, ValueRef};

/// Appends the canonical bytes of `value`.
///
/// # Errors
/// When something nested cannot be read.
pub(crate) fn write(value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), TableError> {
    write_nested(value, TABLE_DEPTH_MAX, out)
}

fn write_nested(value: ValueRef<'_>, depth_max: usize, out: &mut Vec<u8>) -> Result<(), TableError> {
    match value {
        ValueRef::I8(_)
        | ValueRef::U8(_)
        | ValueRef::I16(_)
        | ValueRef::U16(_)
        | ValueRef::I32(_)
        | ValueRef::U32(_)
        | ValueRef::I64(_) => fixed(b'i', &value.as_i64().unwrap_or_default().to_be_bytes(), out),
        ValueRef::F32(v) => float(v.into(), out),
        ValueRef::F64(v) => float(v, out),
        ValueRef::Bool(v) => fixed(b't', &[u8::from(v)], out),
        ValueRef::Decimal { scale, value } => {
            fixed(b'D', &[scale], out);
            out.extend_from_slice(&value.to_be_bytes());
        }
        ValueRef::LongString(v) | ValueRef::Bytes(v) => bytes(b's', v, out),
        ValueRef::Timestamp(v) => fixed(b'T', &v.to_be_bytes(), out),
        ValueRef::Void => out.push(b'V'),
        ValueRef::Array(array) => {
            let below = depth_max.checked_sub(1).ok_or(TableError::TooDeep)?;
            out.push(b'A');
            for item in array {
                out.push(b',');
                write_nested(item?, below, out)?;
            }
            out.push(b';');
        }
        ValueRef::Table(table) => {
            let below = depth_max.checked_sub(1).ok_or(TableError::TooDeep)?;
            let mut entries = Vec::new();
            for entry in table {
                let (key, value) = entry?;
                let mut entry = Vec::new();
                bytes(b',', key, &mut entry);
                write_nested(value, below, &mut entry)?;
                entries.push(entry);
            }
            entries.sort_unstable();
            out.push(b'F');
            out.extend(entries.into_iter().flatten());
            out.push(b';');
        }
    }
    Ok(())
}

fn fixed(class: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(class);
    out.extend_from_slice(value);
}

fn float(value: f64, out: &mut Vec<u8>) {
    // Both zeros are one value.
    let value = if value == 0.0 { 0.0 } else { value };
    fixed(b'd', &value.to_be_bytes(), out);
}

/// With the length in front, so that nothing that follows can be mistaken for it.
fn bytes(class: u8, value: &[u8], out: &mut Vec<u8>) {
    fixed(class, &value.len().to_be_bytes(), out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use plugin_api::value::{Table, Value};

    use super::*;

    fn canonical(value: impl Into<Value>) -> Vec<u8> {
        let mut contents = Vec::new();
        Table::new().with("k", value).encode(&mut contents);
        let mut out = Vec::new();
        write(plugin_api::value::TableRef::new(&contents).get("k").unwrap(), &mut out).unwrap();
        out
    }

    #[test]
    fn values_of_one_class_are_equal_by_value() {
        let classes: [Vec<Value>; 9] = [
            vec![Value::I8(5), Value::U8(5), Value::I16(5), Value::U16(5), Value::I32(5), Value::U32(5), Value::I64(5)],
            vec![Value::I8(-5), Value::I64(-5)],
            vec![Value::F32(5.0), Value::F64(5.0)],
            vec![Value::from("5"), Value::Bytes(b"5".to_vec())],
            vec![Value::F64(0.0), Value::F32(-0.0)],
            vec![Value::Timestamp(5)],
            vec![Value::Decimal { scale: 0, value: 5 }],
            vec![Value::Bool(true)],
            vec![Value::Void],
        ];
        for (class, values) in classes.iter().enumerate() {
            for (other_class, others) in classes.iter().enumerate() {
                for (value, other) in values.iter().flat_map(|value| others.iter().map(move |other| (value, other))) {
                    let is_equal = canonical(value.clone()) == canonical(other.clone());
                    assert_eq!(is_equal, class == other_class, "{value:?} and {other:?}");
                }
            }
        }
    }

    #[test]
    fn nested_values_compare_by_structure() {
        let table = |entries: &[(&str, i32)]| Value::Table(entries.iter().copied().collect());
        assert_eq!(canonical(table(&[("a", 1), ("b", 2)])), canonical(table(&[("b", 2), ("a", 1)])));
        assert_ne!(canonical(table(&[("a", 1)])), canonical(table(&[("a", 2)])));
        let array = |items: &[i64]| Value::Array(items.iter().map(|item| Value::I64(*item)).collect());
        assert_eq!(canonical(array(&[1, 2])), canonical(vec![Value::I8(1), Value::U16(2)]));
        assert_ne!(canonical(array(&[1, 2])), canonical(array(&[2, 1])));
        let nested = |inner: &[&[&str]]| {
            let text = |texts: &&[&str]| Value::Array(texts.iter().map(|text| Value::from(*text)).collect());
            Value::Array(inner.iter().map(text).collect())
        };
        assert_ne!(canonical(nested(&[&["a"], &["b"]])), canonical(nested(&[&["a", "b"]])));
    }
}
