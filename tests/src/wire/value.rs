//! Field tables for tests: every value type RabbitMQ knows (semantics 1.10), with a text form for scenario files.

use super::Reader;
use std::fmt;

/// A field table: entries in wire order, duplicates kept.
pub type Table = Vec<(Vec<u8>, Value)>;

/// One value of a field table; the type letter is part of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal(u8, u32),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Array(Vec<Self>),
    Timestamp(u64),
    Table(Table),
    Void,
}

/// Writes a table with its length in front.
pub fn encode_table(out: &mut Vec<u8>, table: &Table) {
    sized(out, |out| {
        for (key, value) in table {
            out.push(u8::try_from(key.len()).expect("a table key has at most 255 bytes"));
            out.extend_from_slice(key);
            encode_value(out, value);
        }
    });
}

fn encode_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(v) => out.extend_from_slice(&[b't', u8::from(*v)]),
        Value::I8(v) => put(out, b'b', &v.to_be_bytes()),
        Value::U8(v) => put(out, b'B', &v.to_be_bytes()),
        Value::I16(v) => put(out, b's', &v.to_be_bytes()),
        Value::U16(v) => put(out, b'u', &v.to_be_bytes()),
        Value::I32(v) => put(out, b'I', &v.to_be_bytes()),
        Value::U32(v) => put(out, b'i', &v.to_be_bytes()),
        Value::I64(v) => put(out, b'l', &v.to_be_bytes()),
        Value::F32(v) => put(out, b'f', &v.to_be_bytes()),
        Value::F64(v) => put(out, b'd', &v.to_be_bytes()),
        Value::Decimal(scale, digits) => {
            put(out, b'D', &[*scale]);
            out.extend_from_slice(&digits.to_be_bytes());
        }
        Value::Timestamp(v) => put(out, b'T', &v.to_be_bytes()),
        Value::Void => out.push(b'V'),
        Value::Text(v) => {
            out.push(b'S');
            sized(out, |out| out.extend_from_slice(v));
        }
        Value::Bytes(v) => {
            out.push(b'x');
            sized(out, |out| out.extend_from_slice(v));
        }
        Value::Array(values) => {
            out.push(b'A');
            sized(out, |out| values.iter().for_each(|value| encode_value(out, value)));
        }
        Value::Table(table) => {
            out.push(b'F');
            encode_table(out, table);
        }
    }
}

fn put(out: &mut Vec<u8>, letter: u8, bytes: &[u8]) {
    out.push(letter);
    out.extend_from_slice(bytes);
}

fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    out.extend_from_slice(&u32::try_from(inner.len()).expect("a test table fits u32").to_be_bytes());
    out.append(&mut inner);
}

/// Reads the contents of a table (without the length).
///
/// # Errors
/// When it is cut short or has an unknown type letter.
pub fn decode_table(bytes: &[u8]) -> Result<Table, String> {
    let mut input = Reader(bytes);
    let mut table = Table::new();
    while !input.0.is_empty() {
        let size = usize::from(input.u8()?);
        let key = input.take(size)?.to_vec();
        table.push((key, decode_value(&mut input)?));
    }
    Ok(table)
}

fn decode_value(input: &mut Reader<'_>) -> Result<Value, String> {
    Ok(match input.u8()? {
        b't' => Value::Bool(input.u8()? != 0),
        b'b' => Value::I8(input.u8()? as i8),
        b'B' => Value::U8(input.u8()?),
        b's' => Value::I16(input.u16()? as i16),
        b'u' => Value::U16(input.u16()?),
        b'I' => Value::I32(input.u32()? as i32),
        b'i' => Value::U32(input.u32()?),
        b'l' | b'L' => Value::I64(input.u64()? as i64),
        b'f' => Value::F32(f32::from_bits(input.u32()?)),
        b'd' => Value::F64(f64::from_bits(input.u64()?)),
        b'D' => Value::Decimal(input.u8()?, input.u32()?),
        b'T' => Value::Timestamp(input.u64()?),
        b'V' => Value::Void,
        b'S' => Value::Text(long_bytes(input)?.to_vec()),
        b'x' => Value::Bytes(long_bytes(input)?.to_vec()),
        b'F' => Value::Table(decode_table(long_bytes(input)?)?),
        b'A' => {
            let mut inner = Reader(long_bytes(input)?);
            let mut values = Vec::new();
            while !inner.0.is_empty() {
                values.push(decode_value(&mut inner)?);
            }
            Value::Array(values)
        }
        letter => return Err(format!("unknown field value type {:?}", letter as char)),
    })
}

fn long_bytes<'a>(input: &mut Reader<'a>) -> Result<&'a [u8], String> {
    let size = input.u32()? as usize;
    input.take(size)
}

/// Text as scenario files write it; what is not printable ASCII is escaped.
pub fn quote(text: &[u8]) -> String {
    let mut quoted = String::from("\"");
    for byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', *byte as char]),
            0x20..0x7F => quoted.push(*byte as char),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => write!(f, "{v}"),
            Self::I8(v) => write!(f, "{v}b"),
            Self::U8(v) => write!(f, "{v}B"),
            Self::I16(v) => write!(f, "{v}s"),
            Self::U16(v) => write!(f, "{v}u"),
            Self::I32(v) => write!(f, "{v}"),
            Self::U32(v) => write!(f, "{v}i"),
            Self::I64(v) => write!(f, "{v}l"),
            Self::F32(v) => write!(f, "{v:?}f"),
            Self::F64(v) => write!(f, "{v:?}"),
            Self::Decimal(scale, digits) => write!(f, "D({scale},{digits})"),
            Self::Text(v) => f.write_str(&quote(v)),
            Self::Bytes(v) => {
                f.write_str("x(")?;
                v.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                f.write_str(")")
            }
            Self::Timestamp(v) => write!(f, "T({v})"),
            Self::Void => f.write_str("void"),
            Self::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Table(table) => {
                f.write_str("{")?;
                for (index, (key, value)) in table.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{}:{value}", String::from_utf8_lossy(key))?;
                }
                f.write_str("}")
            }
        }
    }
}
