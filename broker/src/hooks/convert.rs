//! Header values between the wire and Lua.
//!
//! To Lua: booleans, strings (`S` and `x`) and numbers as one expects; an integer that a Lua number cannot hold exactly
//! (beyond 2^53, as message ids often are) becomes its decimal text; a decimal becomes a number; void becomes nil; arrays
//! and tables become read-only tables, because a change inside them would go nowhere.
//!
//! From Lua: boolean `t`, string `S`, whole number `l`, other number `d`, list `A`, table with string keys `F`.

use mlua::{Lua, Table, Value};
use plugin_api::value::{TABLE_DEPTH_MAX, TABLE_KEY_BYTES_MAX, TableRef, ValueRef};

/// One value for a script.
pub(super) fn to_lua(lua: &Lua, value: ValueRef<'_>) -> mlua::Result<Value> {
    to_lua_within(lua, value, TABLE_DEPTH_MAX)
}

fn to_lua_within(lua: &Lua, value: ValueRef<'_>, depth_max: usize) -> mlua::Result<Value> {
    let below = || depth_max.checked_sub(1).ok_or_else(|| mlua::Error::runtime("header is nested too deep"));
    Ok(match value {
        ValueRef::Bool(v) => Value::Boolean(v),
        ValueRef::I8(v) => Value::Number(v.into()),
        ValueRef::U8(v) => Value::Number(v.into()),
        ValueRef::I16(v) => Value::Number(v.into()),
        ValueRef::U16(v) => Value::Number(v.into()),
        ValueRef::I32(v) => Value::Number(v.into()),
        ValueRef::U32(v) => Value::Number(v.into()),
        ValueRef::I64(v) if v.unsigned_abs() <= EXACT_MAX => Value::Number(v as f64),
        ValueRef::I64(v) => Value::String(lua.create_string(v.to_string())?),
        ValueRef::Timestamp(v) if v <= EXACT_MAX => Value::Number(v as f64),
        ValueRef::Timestamp(v) => Value::String(lua.create_string(v.to_string())?),
        ValueRef::F32(v) => Value::Number(v.into()),
        ValueRef::F64(v) => Value::Number(v),
        ValueRef::Decimal { scale, value } => Value::Number(f64::from(value) / 10f64.powi(scale.into())),
        ValueRef::LongString(v) | ValueRef::Bytes(v) => Value::String(lua.create_string(v)?),
        ValueRef::Void => Value::Nil,
        ValueRef::Array(array) => {
            let below = below()?;
            let list = lua.create_table()?;
            for (index, value) in (1i64..).zip(array.iter()) {
                list.raw_set(index, to_lua_within(lua, value.map_err(malformed)?, below)?)?;
            }
            list.set_readonly(true);
            Value::Table(list)
        }
        ValueRef::Table(table) => {
            let below = below()?;
            let fields = lua.create_table()?;
            for entry in table.iter() {
                let (name, value) = entry.map_err(malformed)?;
                fields.raw_set(lua.create_string(name)?, to_lua_within(lua, value, below)?)?;
            }
            fields.set_readonly(true);
            Value::Table(fields)
        }
    })
}

/// Appends type letter and value. Stops with an error once `out` is longer than `bytes_max`: a small Lua table can hold
/// itself, or itself twice at every level.
pub(super) fn encode(value: &Value, out: &mut Vec<u8>, bytes_max: usize) -> mlua::Result<()> {
    // The headers are the outermost table, and a value in them the next level.
    encode_within(value, out, bytes_max, TABLE_DEPTH_MAX - 1)
}

fn encode_within(value: &Value, out: &mut Vec<u8>, bytes_max: usize, depth_max: usize) -> mlua::Result<()> {
    match value {
        Value::Boolean(v) => out.extend_from_slice(&[b't', u8::from(*v)]),
        Value::Integer(v) => put(out, b'l', &v.to_be_bytes()),
        Value::Number(v) => match whole(*v) {
            Some(v) => put(out, b'l', &v.to_be_bytes()),
            None => put(out, b'd', &v.to_be_bytes()),
        },
        Value::String(v) => {
            let text = v.as_bytes();
            if out.len() + text.len() > bytes_max {
                return Err(too_long(bytes_max));
            }
            with_length(out, b'S', |out| {
                out.extend_from_slice(&text);
                Ok(())
            })?;
        }
        Value::Table(table) => {
            let below = depth_max.checked_sub(1).ok_or_else(|| mlua::Error::runtime("header is nested too deep"))?;
            encode_table(table, out, bytes_max, below)?;
        }
        other => {
            return Err(mlua::Error::runtime(format!(
                "a header holds a string, number, boolean or table of them, not a {}",
                other.type_name()
            )));
        }
    }
    if out.len() > bytes_max { Err(too_long(bytes_max)) } else { Ok(()) }
}

/// A table with the keys 1 to n is a list, an empty one a table.
fn encode_table(table: &Table, out: &mut Vec<u8>, bytes_max: usize, depth_max: usize) -> mlua::Result<()> {
    if table.raw_len() > 0 {
        return with_length(out, b'A', |out| {
            let mut count = 0;
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair?;
                count += 1;
                if whole_key(&key) != Some(count) {
                    return Err(mlua::Error::runtime("a table in a header is either a list or has string keys only"));
                }
                encode_within(&value, out, bytes_max, depth_max)?;
            }
            Ok(())
        });
    }
    // In the order of their names: the order of a Lua table differs from run to run. Only names are gathered, because the
    // interpreter has room for some thousand values held from outside.
    let mut names = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (Value::String(name), _) = pair? else {
            return Err(mlua::Error::runtime("a table in a header is either a list or has string keys only"));
        };
        // An entry takes two bytes at least; a table too large is refused before it is sorted.
        if names.len() > bytes_max / 2 {
            return Err(too_long(bytes_max));
        }
        names.push(name.as_bytes().to_vec());
    }
    names.sort_unstable();
    with_length(out, b'F', |out| {
        for name in &names {
            let Ok(length) = u8::try_from(name.len()) else {
                return Err(mlua::Error::runtime(format!("a header's name has at most {TABLE_KEY_BYTES_MAX} bytes")));
            };
            out.push(length);
            out.extend_from_slice(name);
            encode_within(&table.raw_get(mlua::BString::new(name.clone()))?, out, bytes_max, depth_max)?;
        }
        Ok(())
    })
}

/// Reads one value that [`encode`] wrote, or that stood in a message: type letter, then value.
pub(super) fn read_encoded(lua: &Lua, encoded: &[u8]) -> mlua::Result<Value> {
    // A table of one entry with an empty name is the value behind a zero.
    let mut entry = Vec::with_capacity(1 + encoded.len());
    entry.push(0);
    entry.extend_from_slice(encoded);
    match TableRef::new(&entry).iter().next() {
        Some(Ok((_, value))) => to_lua(lua, value),
        Some(Err(error)) => Err(malformed(error)),
        None => Ok(Value::Nil),
    }
}

pub(super) fn malformed(error: impl std::fmt::Display) -> mlua::Error {
    mlua::Error::runtime(format!("the headers of this message are malformed: {error}"))
}

/// The number as an integer, if it is one and in range.
pub(super) fn whole(number: f64) -> Option<i64> {
    // `as` saturates, so the comparison back is what decides; 2^63 itself would saturate to something that compares equal.
    let integer = number as i64;
    (integer as f64 == number && integer != i64::MAX).then_some(integer)
}

fn whole_key(key: &Value) -> Option<i64> {
    match key {
        Value::Integer(v) => Some(*v),
        Value::Number(v) => whole(*v),
        _ => None,
    }
}

fn put(out: &mut Vec<u8>, letter: u8, bytes: &[u8]) {
    out.push(letter);
    out.extend_from_slice(bytes);
}

/// Writes a letter, a length, and what `contents` appends.
fn with_length(
    out: &mut Vec<u8>,
    letter: u8,
    contents: impl FnOnce(&mut Vec<u8>) -> mlua::Result<()>,
) -> mlua::Result<()> {
    put(out, letter, &[0; 4]);
    let start = out.len();
    contents(out)?;
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start - 4..start) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn too_long(bytes_max: usize) -> mlua::Error {
    mlua::Error::runtime(format!("the headers would have more than {bytes_max} bytes"))
}

/// Up to here every integer is a Lua number, which is an f64.
const EXACT_MAX: u64 = 1 << 53;
