//! AMQP 0-9-1 bytes for tests: methods and properties by name, frames in and out.
//!
//! Made for clarity and for the freedom to send nonsense, not for speed. Nothing here knows what a frame means.

pub mod incoming;
pub mod spec;
pub mod value;

use spec::{Kind, Method, PROPERTIES};
use value::{Table, Value, decode_table, encode_table};

pub const FRAME_METHOD: u8 = 1;
pub const FRAME_HEADER: u8 = 2;
pub const FRAME_BODY: u8 = 3;
pub const FRAME_HEARTBEAT: u8 = 8;
pub const FRAME_END: u8 = 0xCE;
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// One frame, cut out of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub channel: u16,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        out.extend_from_slice(&self.channel.to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.payload.len()).expect("a test frame fits u32").to_be_bytes());
        out.extend_from_slice(&self.payload);
        out.push(FRAME_END);
    }

    /// Takes one whole frame off the front of `input`, if it is there.
    ///
    /// # Errors
    /// When the end octet is wrong or the type is unknown: a server must never send such a frame.
    pub fn take(input: &mut Vec<u8>) -> Result<Option<Self>, String> {
        if input.len() < 7 {
            return Ok(None);
        }
        let size = u32::from_be_bytes([input[3], input[4], input[5], input[6]]) as usize;
        let kind = input[0];
        if ![FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT].contains(&kind) {
            return Err(format!("the server sent a frame of type {kind}"));
        }
        if input.len() < size + 8 {
            return Ok(None);
        }
        let end = input[size + 7];
        if end != FRAME_END {
            return Err(format!("the server's frame ends with {end:#04x}"));
        }
        let frame =
            Self { kind, channel: u16::from_be_bytes([input[1], input[2]]), payload: input[7..size + 7].to_vec() };
        input.drain(..size + 8);
        Ok(Some(frame))
    }
}

/// A method argument or a property, decoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Bit(bool),
    Number(u64),
    String(Vec<u8>),
    Table(Table),
}

impl Field {
    /// What a field left out of a text line means.
    pub fn default_of(kind: Kind) -> Self {
        match kind {
            Kind::Bit => Self::Bit(false),
            Kind::Octet | Kind::Short | Kind::Long | Kind::LongLong => Self::Number(0),
            Kind::ShortString | Kind::LongString => Self::String(Vec::new()),
            Kind::Table => Self::Table(Table::new()),
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bit(bit) => write!(f, "{bit}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(&value::quote(text)),
            Self::Table(table) => write!(f, "{}", Value::Table(table.clone())),
        }
    }
}

/// The arguments of a method in wire order: those given by name, the others at their defaults.
pub fn arguments(method: &Method, given: &[(&str, Field)]) -> Vec<Field> {
    let of = |(name, kind): &(&str, Kind)| {
        let found = given.iter().find(|(given, _)| given == name);
        found.map_or_else(|| Field::default_of(*kind), |(_, field)| field.clone())
    };
    method.arguments.iter().map(of).collect()
}

/// Writes the frames of a method, its content cut into frames of at most `frame_max` bytes.
pub fn write_method(
    out: &mut Vec<u8>,
    channel: u16,
    method: &Method,
    fields: &[Field],
    content: Option<(Properties, Vec<u8>)>,
    frame_max: usize,
) {
    Frame { kind: FRAME_METHOD, channel, payload: encode_method(method, fields) }.encode(out);
    if let Some((properties, body)) = content {
        let payload = encode_header(method.class, 0, body.len() as u64, &properties);
        Frame { kind: FRAME_HEADER, channel, payload }.encode(out);
        for part in body.chunks(frame_max - 8) {
            Frame { kind: FRAME_BODY, channel, payload: part.to_vec() }.encode(out);
        }
    }
}

/// Encodes a method frame's payload: ids, then the arguments in the order of the table.
pub fn encode_method(method: &Method, fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&method.class.to_be_bytes());
    out.extend_from_slice(&method.id.to_be_bytes());
    let mut bits: Option<(usize, u8)> = None;
    for field in fields.iter().zip(&method.arguments) {
        let (field, (_, kind)) = field;
        if let Field::Bit(bit) = field {
            let (at, shift) = match bits {
                Some((at, shift)) if shift < 8 => (at, shift),
                _ => {
                    out.push(0);
                    (out.len() - 1, 0)
                }
            };
            out[at] |= u8::from(*bit) << shift;
            bits = Some((at, shift + 1));
        } else {
            bits = None;
            encode_field(&mut out, *kind, field);
        }
    }
    out
}

/// Decodes a method frame's payload.
///
/// # Errors
/// When the method is unknown, an argument is cut short, or bytes are left over.
pub fn decode_method(payload: &[u8]) -> Result<(&'static Method, Vec<Field>), String> {
    let mut input = Reader(payload);
    let (class, id) = (input.u16()?, input.u16()?);
    let method = spec::by_id(class, id).ok_or_else(|| format!("the server sent the unknown method {class}.{id}"))?;
    let mut fields = Vec::new();
    let mut bits: Option<(u8, u8)> = None;
    for (_, kind) in &method.arguments {
        if *kind == Kind::Bit {
            let (octet, shift) = match bits {
                Some((octet, shift)) if shift < 8 => (octet, shift),
                _ => (input.u8()?, 0),
            };
            fields.push(Field::Bit(octet >> shift & 1 == 1));
            bits = Some((octet, shift + 1));
        } else {
            bits = None;
            fields.push(decode_field(&mut input, *kind)?);
        }
    }
    if !input.0.is_empty() {
        return Err(format!("{} bytes are left over after {}", input.0.len(), method.name));
    }
    Ok((method, fields))
}

/// Basic properties that are present, by name, in flag order.
pub type Properties = Vec<(&'static str, Field)>;

/// Encodes a content header's payload.
pub fn encode_header(class: u16, weight: u16, body_size: u64, properties: &Properties) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&body_size.to_be_bytes());
    let mut flags = 0_u16;
    let mut values = Vec::new();
    for (index, (name, kind)) in PROPERTIES.iter().enumerate() {
        if let Some((_, field)) = properties.iter().find(|(present, _)| present == name) {
            flags |= 1 << (15 - index);
            encode_field(&mut values, *kind, field);
        }
    }
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&values);
    out
}

/// Decodes a content header's payload to the body size and the properties.
///
/// # Errors
/// When it is cut short, has bytes left over, or a weight other than 0.
pub fn decode_header(payload: &[u8]) -> Result<(u64, Properties), String> {
    let mut input = Reader(payload);
    let (class, weight, body_size, flags) = (input.u16()?, input.u16()?, input.u64()?, input.u16()?);
    if class != 60 || weight != 0 {
        return Err(format!("the server sent a content header of class {class} and weight {weight}"));
    }
    let mut properties = Properties::new();
    for (index, (name, kind)) in PROPERTIES.iter().enumerate() {
        if flags >> (15 - index) & 1 == 1 {
            properties.push((name, decode_field(&mut input, *kind)?));
        }
    }
    if !input.0.is_empty() || flags & 3 != 0 {
        return Err(format!("content header with flags {flags:#06x} and {} bytes left over", input.0.len()));
    }
    Ok((body_size, properties))
}

fn encode_field(out: &mut Vec<u8>, kind: Kind, field: &Field) {
    match (kind, field) {
        (Kind::Octet, Field::Number(n)) => out.push(*n as u8),
        (Kind::Short, Field::Number(n)) => out.extend_from_slice(&(*n as u16).to_be_bytes()),
        (Kind::Long, Field::Number(n)) => out.extend_from_slice(&(*n as u32).to_be_bytes()),
        (Kind::LongLong, Field::Number(n)) => out.extend_from_slice(&n.to_be_bytes()),
        (Kind::ShortString, Field::String(text)) => {
            out.push(u8::try_from(text.len()).expect("a short string has at most 255 bytes"));
            out.extend_from_slice(text);
        }
        (Kind::LongString, Field::String(text)) => {
            out.extend_from_slice(&u32::try_from(text.len()).expect("a test string fits u32").to_be_bytes());
            out.extend_from_slice(text);
        }
        (Kind::Table, Field::Table(table)) => encode_table(out, table),
        (kind, field) => panic!("{field} is no {kind:?}"),
    }
}

fn decode_field(input: &mut Reader<'_>, kind: Kind) -> Result<Field, String> {
    Ok(match kind {
        Kind::Bit => unreachable!("bits are packed by the caller"),
        Kind::Octet => Field::Number(u64::from(input.u8()?)),
        Kind::Short => Field::Number(u64::from(input.u16()?)),
        Kind::Long => Field::Number(u64::from(input.u32()?)),
        Kind::LongLong => Field::Number(input.u64()?),
        Kind::ShortString => {
            let size = usize::from(input.u8()?);
            Field::String(input.take(size)?.to_vec())
        }
        Kind::LongString => {
            let size = input.u32()? as usize;
            Field::String(input.take(size)?.to_vec())
        }
        Kind::Table => {
            let size = input.u32()? as usize;
            Field::Table(decode_table(input.take(size)?)?)
        }
    })
}

/// Big-endian reads with an error instead of a panic, because the bytes come from the broker under test.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| format!("{count} bytes are wanted where {} are left", self.0.len()))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("take returns exactly N bytes"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_packed_from_the_lowest_until_another_type_comes() {
        let declare = spec::by_name("queue.declare").unwrap();
        let fields = [
            Field::Number(0),
            Field::String(b"q".to_vec()),
            Field::Bit(false),
            Field::Bit(true),
            Field::Bit(false),
            Field::Bit(true),
            Field::Bit(false),
            Field::Table(Table::new()),
        ];
        let bytes = encode_method(declare, &fields);
        assert_eq!(bytes, [0, 50, 0, 10, 0, 0, 1, b'q', 0b01010, 0, 0, 0, 0]);
        let (method, decoded) = decode_method(&bytes).unwrap();
        assert_eq!((method.name, decoded.as_slice()), ("queue.declare", fields.as_slice()));
    }

    #[test]
    fn properties_follow_the_flags_from_bit_15_down() {
        let properties: Properties = vec![
            ("content-type", Field::String(b"text/plain".to_vec())),
            ("delivery-mode", Field::Number(2)),
            ("cluster-id", Field::String(b"c".to_vec())),
        ];
        let bytes = encode_header(60, 0, 5, &properties);
        assert_eq!(bytes[12..14], [0b1001_0000, 0b0000_0100]);
        assert_eq!(decode_header(&bytes).unwrap(), (5, properties));
    }

    #[test]
    fn every_method_decodes_what_it_encodes() {
        for (class, id) in (0..100).flat_map(|class| (0..130).map(move |id| (class, id))) {
            let Some(method) = spec::by_id(class, id) else { continue };
            let fields: Vec<Field> = method.arguments.iter().map(|(_, kind)| Field::default_of(*kind)).collect();
            let (decoded, decoded_fields) = decode_method(&encode_method(method, &fields)).unwrap();
            assert_eq!((decoded.name, decoded_fields), (method.name, fields));
        }
    }
}
