//! The field tables of AMQP 0-9-1 as RabbitMQ's clients write them: headers and arguments.
//!
//! [`Table`] and [`Value`] own their contents and are what declarations, bindings and configuration use. [`TableRef`] and
//! [`ValueRef`] read the same bytes in place, without allocating, and are what a message's headers are seen through. Every
//! type survives a round trip with its type letter, except that `L` (a second letter for a 64-bit integer, which RabbitMQ
//! reads but never writes) comes out as `l` (RabbitMQ: "AMQP 0-9-1 Errata", field types).
//!
//! Nothing here compares values the way an exchange or a queue declaration does; those rules belong to whoever needs them.

mod borrowed;
mod owned;

use std::fmt;

pub use borrowed::{ArrayRef, Entries, TableRef, ValueRef, Values};
pub use owned::{Table, Value};

/// How deep tables and arrays may nest; the outermost table is level 1.
///
/// RabbitMQ has no limit. Sixty-four is far beyond what any client writes and keeps decoding, which recurses once a level,
/// well inside the smallest thread stack.
pub const TABLE_DEPTH_MAX: usize = 64;

/// The longest key of a table entry, in bytes: keys are short strings.
pub const TABLE_KEY_BYTES_MAX: usize = 255;

/// Why bytes are no field table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// A length points past the end, or the bytes stop within an entry.
    Truncated,
    /// A type letter that AMQP 0-9-1 clients do not use.
    UnknownType(u8),
    /// Nested deeper than [`TABLE_DEPTH_MAX`], or than the caller allowed.
    TooDeep,
    /// A key of more than [`TABLE_KEY_BYTES_MAX`] bytes.
    KeyTooLong,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("field table ends within an entry"),
            Self::UnknownType(letter) => write!(f, "unknown field type '{}'", letter.escape_ascii()),
            Self::TooDeep => write!(f, "field table is nested too deep (at most {TABLE_DEPTH_MAX} levels)"),
            Self::KeyTooLong => write!(f, "field name is longer than {TABLE_KEY_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for TableError {}

/// The type letters, in the order of the variants of [`Value`].
pub(crate) mod letter {
    pub(crate) const BOOL: u8 = b't';
    pub(crate) const I8: u8 = b'b';
    pub(crate) const U8: u8 = b'B';
    pub(crate) const I16: u8 = b's';
    pub(crate) const U16: u8 = b'u';
    pub(crate) const I32: u8 = b'I';
    pub(crate) const U32: u8 = b'i';
    pub(crate) const I64: u8 = b'l';
    /// Read as [`I64`], never written.
    pub(crate) const I64_OTHER: u8 = b'L';
    pub(crate) const F32: u8 = b'f';
    pub(crate) const F64: u8 = b'd';
    pub(crate) const DECIMAL: u8 = b'D';
    pub(crate) const LONG_STRING: u8 = b'S';
    pub(crate) const BYTES: u8 = b'x';
    pub(crate) const ARRAY: u8 = b'A';
    pub(crate) const TIMESTAMP: u8 = b'T';
    pub(crate) const TABLE: u8 = b'F';
    pub(crate) const VOID: u8 = b'V';
}

#[cfg(test)]
mod tests;
