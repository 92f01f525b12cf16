//! Reading and writing the elementary types of AMQP 0-9-1 (section 4.2.5), big-endian, without copies.
//!
//! Bits are packed: consecutive bit arguments share an octet, least significant first, and any other argument ends the
//! run (semantics 1.3). Both [`Reader`] and [`Writer`] keep track of that, so that the method table reads and writes field by field.

use plugin_api::value::{TableError, TableRef};

/// Why arguments could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The payload ends inside a field.
    #[error("the payload ends inside a field")]
    Short,
    /// A short string of a method is not UTF-8 (semantics 1.9).
    #[error("Malformed UTF-8 in shortstr")]
    NotUtf8,
    /// Bytes are left after the last field.
    #[error("bytes are left after the last field")]
    TooLong,
    /// A field table is not well formed (semantics 1.15).
    #[error("malformed field table: {0}")]
    Table(TableError),
}

/// Takes fields off the front of a payload.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    bits: u8,
    bits_used: u8,
}

/// `bits_used` of a reader or writer that is not within a run of bits.
const NO_BITS: u8 = 8;

impl<'a> Reader<'a> {
    /// Reads from the start of `payload`.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, bits: 0, bits_used: NO_BITS }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        self.bits_used = NO_BITS;
        let (head, rest) = self.rest.split_at_checked(count).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.bits_used = NO_BITS;
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One octet.
    pub fn octet(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// An unsigned 16-bit integer.
    pub fn short(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// An unsigned 32-bit integer.
    pub fn long(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// An unsigned 64-bit integer.
    pub fn longlong(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next bit of a run of bits.
    pub fn bit(&mut self) -> Result<bool, WireError> {
        if self.bits_used == NO_BITS {
            self.bits = self.octet()?;
            self.bits_used = 0;
        }
        let bit = self.bits >> self.bits_used & 1 == 1;
        self.bits_used += 1;
        Ok(bit)
    }

    /// A short string, which must be UTF-8 in a method (semantics 1.9).
    pub fn shortstr(&mut self) -> Result<&'a str, WireError> {
        let length = self.octet()?;
        std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| WireError::NotUtf8)
    }

    /// A long string: any bytes.
    pub fn longstr(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.long()?;
        self.take(usize::try_from(length).map_err(|_| WireError::Short)?)
    }

    /// A field table, checked to be well formed.
    pub fn table(&mut self) -> Result<TableRef<'a>, WireError> {
        let table = TableRef::new(self.longstr()?);
        table.check(plugin_api::value::TABLE_DEPTH_MAX).map_err(WireError::Table)?;
        Ok(table)
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Says that the payload ends here.
    pub fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::TooLong) }
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    bits_used: u8,
}

impl<'a> Writer<'a> {
    /// Writes to the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, bits_used: NO_BITS }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bits_used = NO_BITS;
        self.out.extend_from_slice(bytes);
    }

    /// One octet.
    pub fn octet(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// An unsigned 16-bit integer.
    pub fn short(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// An unsigned 32-bit integer.
    pub fn long(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// An unsigned 64-bit integer.
    pub fn longlong(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// The next bit of a run of bits.
    pub fn bit(&mut self, value: bool) {
        if self.bits_used == NO_BITS {
            self.out.push(0);
            self.bits_used = 0;
        }
        if let Some(octet) = self.out.last_mut() {
            *octet |= u8::from(value) << self.bits_used;
        }
        self.bits_used += 1;
    }

    /// A short string; one that is longer than 255 bytes is cut between characters.
    pub fn shortstr(&mut self, value: &str) {
        let mut end = value.len().min(super::reply_code::SHORT_STRING_BYTES_MAX);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        // `end` is at most 255.
        self.octet(end as u8);
        self.put(&value.as_bytes()[..end]);
    }

    /// A long string. A message that long (4 GiB) is refused long before.
    pub fn longstr(&mut self, value: &[u8]) {
        self.long(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.put(value);
    }

    /// A field table.
    pub fn table(&mut self, value: TableRef<'_>) {
        self.longstr(value.raw());
    }
}
