//! Tables that own their contents, and how they are written.

use std::fmt;

use super::{TABLE_DEPTH_MAX, TABLE_KEY_BYTES_MAX, TableError, TableRef, borrowed, letter};

/// One value of a table or an array. The comment of each variant is its type letter on the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, and `L` when read
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: `value` divided by ten to the power of `scale`
    Decimal {
        /// How many digits stand behind the point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// `S`: text by convention, any bytes in fact
    LongString(Vec<u8>),
    /// `x`
    Bytes(Vec<u8>),
    /// `A`
    Array(Vec<Self>),
    /// `T`: seconds since 1970
    Timestamp(u64),
    /// `F`
    Table(Table),
    /// `V`
    Void,
}

impl Value {
    /// RabbitMQ's name of the type, as its error texts print it.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Bytes(_) => "binary",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }

    /// The value as a 64-bit integer, if it is an integer of any width.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(v) => Some(v.into()),
            Self::U8(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I64(v) => Some(v),
            _ => None,
        }
    }

    /// The value as a float, if it is a number of any type; large integers lose their last digits.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            Self::Decimal { scale, value } => Some(f64::from(value) / 10_f64.powi(scale.into())),
            _ => self.as_i64().map(|v| v as f64),
        }
    }

    /// The value as text, if it is a long string of valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value as a boolean, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// Appends the type letter and the value.
    fn encode(&self, out: &mut Vec<u8>, order: Order) {
        out.push(self.letter());
        match self {
            Self::Bool(v) => out.push(u8::from(*v)),
            Self::I8(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::U8(v) => out.push(*v),
            Self::I16(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::U16(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::I32(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::U32(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::I64(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::F32(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::F64(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::Decimal { scale, value } => {
                out.push(*scale);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::LongString(v) | Self::Bytes(v) => with_length(out, |out| out.extend_from_slice(v)),
            Self::Array(values) => with_length(out, |out| values.iter().for_each(|value| value.encode(out, order))),
            Self::Timestamp(v) => out.extend_from_slice(&v.to_be_bytes()),
            Self::Table(table) => with_length(out, |out| table.encode_in(out, order)),
            Self::Void => {}
        }
    }

    const fn letter(&self) -> u8 {
        match self {
            Self::Bool(_) => letter::BOOL,
            Self::I8(_) => letter::I8,
            Self::U8(_) => letter::U8,
            Self::I16(_) => letter::I16,
            Self::U16(_) => letter::U16,
            Self::I32(_) => letter::I32,
            Self::U32(_) => letter::U32,
            Self::I64(_) => letter::I64,
            Self::F32(_) => letter::F32,
            Self::F64(_) => letter::F64,
            Self::Decimal { .. } => letter::DECIMAL,
            Self::LongString(_) => letter::LONG_STRING,
            Self::Bytes(_) => letter::BYTES,
            Self::Array(_) => letter::ARRAY,
            Self::Timestamp(_) => letter::TIMESTAMP,
            Self::Table(_) => letter::TABLE,
            Self::Void => letter::VOID,
        }
    }
}

/// An ordered list of named values. Names are bytes, and may occur twice when they came from the wire.
#[derive(Clone, PartialEq, Default)]
pub struct Table(Vec<(Box<[u8]>, Value)>);

impl Table {
    /// A table without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The first value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| **name == *key.as_bytes()).map(|(_, value)| value)
    }

    /// Sets `key`: the first entry of that name takes the value and others of that name go; a new one goes to the end.
    ///
    /// A key longer than [`TABLE_KEY_BYTES_MAX`] is cut there, since the wire could not carry it; who takes keys from
    /// outside checks first, or uses [`Table::push`].
    pub fn insert(&mut self, key: &str, value: impl Into<Value>) {
        let key = key.get(..key.floor_char_boundary(TABLE_KEY_BYTES_MAX)).unwrap_or_default().as_bytes();
        let Some(first) = self.0.iter().position(|(name, _)| **name == *key) else {
            self.0.push((key.into(), value.into()));
            return;
        };
        let mut index = 0;
        self.0.retain(|(name, _)| {
            index += 1;
            index <= first + 1 || **name != *key
        });
        if let Some((_, old)) = self.0.get_mut(first) {
            *old = value.into();
        }
    }

    /// [`Table::insert`] in a chain.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// Appends an entry, also if there is one of that name.
    ///
    /// # Errors
    /// [`TableError::KeyTooLong`].
    pub fn push(&mut self, key: &[u8], value: impl Into<Value>) -> Result<(), TableError> {
        if key.len() > TABLE_KEY_BYTES_MAX {
            return Err(TableError::KeyTooLong);
        }
        self.0.push((key.into(), value.into()));
        Ok(())
    }

    /// Removes all entries under `key` and returns the first value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let first = self.0.iter().position(|(name, _)| **name == *key.as_bytes())?;
        let (_, value) = self.0.remove(first);
        self.0.retain(|(name, _)| **name != *key.as_bytes());
        Some(value)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Value)> + Clone {
        self.0.iter().map(|(key, value)| (&**key, value))
    }

    /// How many entries there are, duplicates counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the contents, without a length prefix.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_in(out, Order::AsIs);
    }

    /// Appends the contents with their length in front, as a method argument or a property has them.
    pub fn encode_with_length(&self, out: &mut Vec<u8>) {
        with_length(out, |out| self.encode(out));
    }

    /// The contents with entries sorted by name at every level: equal bytes for [equivalent](Self::equivalent) tables,
    /// and so good as a key of a map.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_in(&mut out, Order::ByKey);
        out
    }

    /// Reads the contents of a table, without its length prefix.
    ///
    /// # Errors
    /// When the bytes are no table, or nested deeper than [`TABLE_DEPTH_MAX`].
    pub fn decode(contents: &[u8]) -> Result<Self, TableError> {
        borrowed::table_to_owned(TableRef::new(contents), TABLE_DEPTH_MAX)
    }

    /// Whether both hold the same names with the same values of the same types, in whatever order.
    ///
    /// Floats are the same when their bits are. Entries of the same name keep their order among themselves.
    #[must_use]
    pub fn equivalent(&self, other: &Self) -> bool {
        // Sorting, and not looking each name up in the other table: a peer can send tens of thousands of entries.
        self.len() == other.len() && self.canonical() == other.canonical()
    }

    fn encode_in(&self, out: &mut Vec<u8>, order: Order) {
        match order {
            Order::AsIs => self.0.iter().for_each(|entry| encode_entry(entry, out, order)),
            Order::ByKey => {
                let mut entries: Vec<_> = self.0.iter().collect();
                entries.sort_by_key(|entry| &entry.0);
                entries.into_iter().for_each(|entry| encode_entry(entry, out, order));
            }
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, value)| (String::from_utf8_lossy(key), value))).finish()
    }
}

impl<K: AsRef<str>, V: Into<Value>> FromIterator<(K, V)> for Table {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        entries.into_iter().fold(Self::new(), |table, (key, value)| table.with(key.as_ref(), value))
    }
}

/// In which order the entries of a table are written.
#[derive(Clone, Copy)]
enum Order {
    AsIs,
    ByKey,
}

fn encode_entry((key, value): &(Box<[u8]>, Value), out: &mut Vec<u8>, order: Order) {
    out.push(u8::try_from(key.len()).expect("no way to make a table lets a longer key in"));
    out.extend_from_slice(key);
    value.encode(out, order);
}

/// Writes what `contents` writes, with its length in front.
fn with_length(out: &mut Vec<u8>, contents: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    contents(out);
    let length = out.len().saturating_sub(start + 4);
    let length = u32::try_from(length).expect("values come from frames and files, far below 4 GiB");
    if let Some(prefix) = out.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

value_from! {
    bool => Bool,
    i8 => I8,
    u8 => U8,
    i16 => I16,
    u16 => U16,
    i32 => I32,
    u32 => U32,
    i64 => I64,
    f32 => F32,
    f64 => F64,
    Vec<Self> => Array,
    Table => Table,
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::LongString(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::LongString(value.into_bytes())
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::from(value.as_str())
    }
}
