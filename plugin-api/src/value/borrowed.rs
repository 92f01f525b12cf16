//! Tables read in place. Nothing here allocates, and nothing is checked before it is asked for.

use super::{TABLE_DEPTH_MAX, Table, TableError, Value, letter};

/// The contents of a table (without its length prefix), read lazily.
///
/// A `TableRef` may hold any bytes: malformed ones show as an error where the walk meets them. [`TableRef::check`] walks
/// everything once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableRef<'a>(&'a [u8]);

impl<'a> TableRef<'a> {
    /// Takes the contents of a table, without length prefix and without a look at them.
    #[must_use]
    pub const fn new(contents: &'a [u8]) -> Self {
        Self(contents)
    }

    /// The bytes that [`TableRef::new`] took.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Walks everything, nested values too, and says whether all of it can be read.
    ///
    /// `depth_max` counts this table as 1 and is never more than [`TABLE_DEPTH_MAX`].
    ///
    /// # Errors
    /// The first thing that cannot be read, or [`TableError::TooDeep`].
    pub fn check(self, depth_max: usize) -> Result<(), TableError> {
        let below = depth_max.min(TABLE_DEPTH_MAX).checked_sub(1).ok_or(TableError::TooDeep)?;
        for entry in self.iter() {
            check_value(entry?.1, below)?;
        }
        Ok(())
    }

    /// The entries in their order on the wire, duplicates included. After an error there is nothing more.
    #[must_use]
    pub const fn iter(self) -> Entries<'a> {
        Entries { rest: self.0 }
    }

    /// The first value under `key`; `None` if there is none before the end or before something malformed.
    #[must_use]
    pub fn get(self, key: &str) -> Option<ValueRef<'a>> {
        self.iter().map_while(Result::ok).find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value)
    }

    /// Copies everything into a [`Table`].
    ///
    /// # Errors
    /// As [`TableRef::check`].
    pub fn to_owned(&self) -> Result<Table, TableError> {
        Table::decode(self.0)
    }
}

impl<'a> IntoIterator for TableRef<'a> {
    type Item = Result<(&'a [u8], ValueRef<'a>), TableError>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// The values of an array, read lazily.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArrayRef<'a>(&'a [u8]);

impl<'a> ArrayRef<'a> {
    /// Takes the contents of an array, without length prefix and without a look at them.
    #[must_use]
    pub const fn new(contents: &'a [u8]) -> Self {
        Self(contents)
    }

    /// The bytes that [`ArrayRef::new`] took.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// The values in order. After an error there is nothing more.
    #[must_use]
    pub const fn iter(self) -> Values<'a> {
        Values { rest: self.0 }
    }
}

impl<'a> IntoIterator for ArrayRef<'a> {
    type Item = Result<ValueRef<'a>, TableError>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

/// One value, read in place. The variants are those of [`Value`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
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
    LongString(&'a [u8]),
    /// `x`
    Bytes(&'a [u8]),
    /// `A`
    Array(ArrayRef<'a>),
    /// `T`: seconds since 1970
    Timestamp(u64),
    /// `F`
    Table(TableRef<'a>),
    /// `V`
    Void,
}

impl<'a> ValueRef<'a> {
    /// The value as a 64-bit integer, if it is an integer of any width.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self {
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
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            Self::Decimal { scale, value } => Some(f64::from(value) / 10_f64.powi(scale.into())),
            _ => self.as_i64().map(|v| v as f64),
        }
    }

    /// The value as text, if it is a long string of valid UTF-8.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::LongString(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The value as a boolean, if it is one.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// Copies the value, nested ones too.
    ///
    /// # Errors
    /// When something nested cannot be read or is nested too deep.
    pub fn to_owned(&self) -> Result<Value, TableError> {
        to_owned(*self, TABLE_DEPTH_MAX)
    }
}

/// The entries of a [`TableRef`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a [u8], ValueRef<'a>), TableError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut rest = self.rest;
        let entry = read_entry(&mut rest);
        self.rest = if entry.is_ok() { rest } else { &[] };
        Some(entry)
    }
}

impl std::iter::FusedIterator for Entries<'_> {}

/// The values of an [`ArrayRef`].
#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<ValueRef<'a>, TableError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let mut rest = self.rest;
        let value = read_value(&mut rest);
        self.rest = if value.is_ok() { rest } else { &[] };
        Some(value)
    }
}

impl std::iter::FusedIterator for Values<'_> {}

pub(super) fn to_owned(value: ValueRef<'_>, depth_max: usize) -> Result<Value, TableError> {
    Ok(match value {
        ValueRef::Bool(v) => Value::Bool(v),
        ValueRef::I8(v) => Value::I8(v),
        ValueRef::U8(v) => Value::U8(v),
        ValueRef::I16(v) => Value::I16(v),
        ValueRef::U16(v) => Value::U16(v),
        ValueRef::I32(v) => Value::I32(v),
        ValueRef::U32(v) => Value::U32(v),
        ValueRef::I64(v) => Value::I64(v),
        ValueRef::F32(v) => Value::F32(v),
        ValueRef::F64(v) => Value::F64(v),
        ValueRef::Decimal { scale, value } => Value::Decimal { scale, value },
        ValueRef::LongString(v) => Value::LongString(v.to_vec()),
        ValueRef::Bytes(v) => Value::Bytes(v.to_vec()),
        ValueRef::Array(v) => Value::Array(array_to_owned(v, depth_max)?),
        ValueRef::Timestamp(v) => Value::Timestamp(v),
        ValueRef::Table(v) => Value::Table(table_to_owned(v, depth_max)?),
        ValueRef::Void => Value::Void,
    })
}

pub(super) fn table_to_owned(table: TableRef<'_>, depth_max: usize) -> Result<Table, TableError> {
    let below = depth_max.checked_sub(1).ok_or(TableError::TooDeep)?;
    let mut owned = Table::new();
    for entry in table {
        let (key, value) = entry?;
        owned.push(key, to_owned(value, below)?)?;
    }
    Ok(owned)
}

fn array_to_owned(array: ArrayRef<'_>, depth_max: usize) -> Result<Vec<Value>, TableError> {
    let below = depth_max.checked_sub(1).ok_or(TableError::TooDeep)?;
    array.iter().map(|value| to_owned(value?, below)).collect()
}

fn check_value(value: ValueRef<'_>, depth_max: usize) -> Result<(), TableError> {
    match value {
        ValueRef::Table(table) => table.check(depth_max),
        ValueRef::Array(array) => {
            let below = depth_max.checked_sub(1).ok_or(TableError::TooDeep)?;
            array.iter().try_for_each(|value| check_value(value?, below))
        }
        _ => Ok(()),
    }
}

#[inline]
fn read_entry<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], ValueRef<'a>), TableError> {
    let [length] = take(rest)?;
    let key = take_slice(rest, usize::from(length))?;
    Ok((key, read_value(rest)?))
}

#[inline]
fn read_value<'a>(rest: &mut &'a [u8]) -> Result<ValueRef<'a>, TableError> {
    let [kind] = take(rest)?;
    Ok(match kind {
        letter::BOOL => ValueRef::Bool(take::<1>(rest)? != [0]),
        letter::I8 => ValueRef::I8(i8::from_be_bytes(take(rest)?)),
        letter::U8 => ValueRef::U8(u8::from_be_bytes(take(rest)?)),
        letter::I16 => ValueRef::I16(i16::from_be_bytes(take(rest)?)),
        letter::U16 => ValueRef::U16(u16::from_be_bytes(take(rest)?)),
        letter::I32 => ValueRef::I32(i32::from_be_bytes(take(rest)?)),
        letter::U32 => ValueRef::U32(u32::from_be_bytes(take(rest)?)),
        letter::I64 | letter::I64_OTHER => ValueRef::I64(i64::from_be_bytes(take(rest)?)),
        letter::F32 => ValueRef::F32(f32::from_be_bytes(take(rest)?)),
        letter::F64 => ValueRef::F64(f64::from_be_bytes(take(rest)?)),
        letter::DECIMAL => {
            let [scale] = take(rest)?;
            ValueRef::Decimal { scale, value: u32::from_be_bytes(take(rest)?) }
        }
        letter::LONG_STRING => ValueRef::LongString(take_long(rest)?),
        letter::BYTES => ValueRef::Bytes(take_long(rest)?),
        letter::ARRAY => ValueRef::Array(ArrayRef(take_long(rest)?)),
        letter::TIMESTAMP => ValueRef::Timestamp(u64::from_be_bytes(take(rest)?)),
        letter::TABLE => ValueRef::Table(TableRef(take_long(rest)?)),
        letter::VOID => ValueRef::Void,
        other => return Err(TableError::UnknownType(other)),
    })
}

#[inline]
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], TableError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(TableError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

#[inline]
fn take_slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], TableError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(TableError::Truncated)?;
    *rest = tail;
    Ok(head)
}

#[inline]
fn take_long<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], TableError> {
    let length = u32::from_be_bytes(take(rest)?);
    take_slice(rest, usize::try_from(length).map_err(|_| TableError::Truncated)?)
}
