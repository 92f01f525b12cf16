//! The raw basic properties, read in place.

use std::fmt;

use super::PropertiesBuf;
use crate::value::{TABLE_DEPTH_MAX, TableError, TableRef};

/// Raw basic properties as on the wire: the property flags (two bytes, big-endian), then the values in the order of the
/// flags (AMQP 0-9-1, section 4.2.6.1). Any bytes may be inside; accessors answer `None` for what is absent or malformed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// No properties at all.
    pub const EMPTY: Properties<'static> = Properties(&[0, 0]);

    /// Takes the bytes from the flags onward, without a look at them.
    #[must_use]
    pub const fn from_raw(raw: &'a [u8]) -> Self {
        Self(raw)
    }

    /// The bytes that [`Properties::from_raw`] took.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Walks all properties and the header table, and requires that nothing is left over.
    ///
    /// # Errors
    /// The first thing that is wrong.
    #[inline]
    pub fn check(self) -> Result<(), PropertiesError> {
        if self.0 == Self::EMPTY.0 { Ok(()) } else { self.check_all() }
    }

    fn check_all(self) -> Result<(), PropertiesError> {
        let (flags, mut rest) = self.split().ok_or(PropertiesError::Truncated)?;
        if flags & FLAGS_UNUSED != 0 {
            return Err(PropertiesError::UnknownFlags(flags & FLAGS_UNUSED));
        }
        for field in Field::of(flags) {
            let value = field.take(&mut rest).ok_or(PropertiesError::Truncated)?;
            if field == Field::Headers {
                TableRef::new(value).check(TABLE_DEPTH_MAX).map_err(PropertiesError::Headers)?;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(PropertiesError::LeftOver(rest.len())) }
    }

    /// Copies everything into a form that can be changed.
    ///
    /// # Errors
    /// As [`Properties::check`].
    pub fn to_owned(&self) -> Result<PropertiesBuf, PropertiesError> {
        self.check()?;
        let bytes = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        Ok(PropertiesBuf {
            content_type: bytes(self.content_type()),
            content_encoding: bytes(self.content_encoding()),
            headers: self.headers().map(|headers| headers.to_owned()).transpose().map_err(PropertiesError::Headers)?,
            delivery_mode: self.delivery_mode(),
            priority: self.priority(),
            correlation_id: bytes(self.correlation_id()),
            reply_to: bytes(self.reply_to()),
            expiration: bytes(self.expiration()),
            message_id: bytes(self.message_id()),
            timestamp: self.timestamp(),
            kind: bytes(self.kind()),
            user_id: bytes(self.user_id()),
            app_id: bytes(self.app_id()),
            cluster_id: bytes(self.cluster_id()),
        })
    }

    /// `content-type`
    #[must_use]
    pub fn content_type(self) -> Option<&'a [u8]> {
        self.find(Field::ContentType)
    }

    /// `content-encoding`
    #[must_use]
    pub fn content_encoding(self) -> Option<&'a [u8]> {
        self.find(Field::ContentEncoding)
    }

    /// `headers`
    #[must_use]
    pub fn headers(self) -> Option<TableRef<'a>> {
        self.find(Field::Headers).map(TableRef::new)
    }

    /// `delivery-mode`: 2 is persistent
    #[must_use]
    pub fn delivery_mode(self) -> Option<u8> {
        self.octet(Field::DeliveryMode)
    }

    /// `priority`
    #[must_use]
    pub fn priority(self) -> Option<u8> {
        self.octet(Field::Priority)
    }

    /// `correlation-id`
    #[must_use]
    pub fn correlation_id(self) -> Option<&'a [u8]> {
        self.find(Field::CorrelationId)
    }

    /// `reply-to`
    #[must_use]
    pub fn reply_to(self) -> Option<&'a [u8]> {
        self.find(Field::ReplyTo)
    }

    /// `expiration`: milliseconds as decimal text
    #[must_use]
    pub fn expiration(self) -> Option<&'a [u8]> {
        self.find(Field::Expiration)
    }

    /// `message-id`
    #[must_use]
    pub fn message_id(self) -> Option<&'a [u8]> {
        self.find(Field::MessageId)
    }

    /// `timestamp`: seconds since 1970
    #[must_use]
    pub fn timestamp(self) -> Option<u64> {
        let value = self.find(Field::Timestamp)?;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    }

    /// `type`
    #[must_use]
    pub fn kind(self) -> Option<&'a [u8]> {
        self.find(Field::Kind)
    }

    /// `user-id`
    #[must_use]
    pub fn user_id(self) -> Option<&'a [u8]> {
        self.find(Field::UserId)
    }

    /// `app-id`
    #[must_use]
    pub fn app_id(self) -> Option<&'a [u8]> {
        self.find(Field::AppId)
    }

    /// `cluster-id`
    #[must_use]
    pub fn cluster_id(self) -> Option<&'a [u8]> {
        self.find(Field::ClusterId)
    }

    fn octet(self, field: Field) -> Option<u8> {
        self.find(field)?.first().copied()
    }

    /// The value of `field` without its length prefix.
    fn find(self, wanted: Field) -> Option<&'a [u8]> {
        let (flags, mut rest) = self.split()?;
        if flags & wanted.bit() == 0 {
            return None;
        }
        for field in Field::of(flags) {
            let value = field.take(&mut rest)?;
            if field == wanted {
                return Some(value);
            }
        }
        None
    }

    /// Whether one of the properties is there that a broker looks at when a message is published: `headers`, `reply-to`, `expiration`,
    /// `user-id`. Most messages have none, and one look at the flags tells.
    #[must_use]
    #[inline]
    pub fn concern_publishing(self) -> bool {
        const CONCERNED: u16 =
            Field::Headers.bit() | Field::ReplyTo.bit() | Field::Expiration.bit() | Field::UserId.bit();
        self.split().is_some_and(|(flags, _)| flags & CONCERNED != 0)
    }

    fn split(self) -> Option<(u16, &'a [u8])> {
        let (flags, rest) = self.0.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*flags), rest))
    }
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_owned() {
            Ok(properties) => properties.fmt(f),
            Err(error) => write!(f, "Properties({error}: {})", self.0.escape_ascii()),
        }
    }
}

/// Why bytes are no basic properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertiesError {
    /// The flags announce more than the bytes hold.
    Truncated,
    /// So many bytes follow the last property.
    LeftOver(usize),
    /// Flags that no property has; among them bit 0, which would announce more flags.
    UnknownFlags(u16),
    /// The header table is malformed.
    Headers(TableError),
}

impl fmt::Display for PropertiesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("properties end within a value"),
            Self::LeftOver(count) => write!(f, "{count} bytes are left over after the last property"),
            Self::UnknownFlags(flags) => write!(f, "unknown property flags {flags:#06x}"),
            Self::Headers(error) => write!(f, "headers: {error}"),
        }
    }
}

impl std::error::Error for PropertiesError {}

/// The fourteen properties in the order of their flags, from bit 15 down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    ContentType,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Kind,
    UserId,
    AppId,
    ClusterId,
}

/// The two lowest bits belong to no property.
const FLAGS_UNUSED: u16 = 0b11;

impl Field {
    pub(super) const ALL: [Self; 14] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::Headers,
        Self::DeliveryMode,
        Self::Priority,
        Self::CorrelationId,
        Self::ReplyTo,
        Self::Expiration,
        Self::MessageId,
        Self::Timestamp,
        Self::Kind,
        Self::UserId,
        Self::AppId,
        Self::ClusterId,
    ];

    pub(super) const fn bit(self) -> u16 {
        0x8000 >> self as u8
    }

    /// Those that flags name, in their order.
    #[inline]
    fn of(flags: u16) -> impl Iterator<Item = Self> {
        let mut left = flags & !FLAGS_UNUSED;
        std::iter::from_fn(move || {
            let field = *Self::ALL.get(left.leading_zeros() as usize)?;
            left &= !field.bit();
            Some(field)
        })
    }

    /// Cuts this property's value off the front of `rest`.
    fn take<'a>(self, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = match self {
            Self::DeliveryMode | Self::Priority => 1,
            Self::Timestamp => 8,
            Self::Headers => {
                let (length, tail) = rest.split_first_chunk::<4>()?;
                *rest = tail;
                usize::try_from(u32::from_be_bytes(*length)).ok()?
            }
            _ => {
                let (length, tail) = rest.split_first()?;
                *rest = tail;
                usize::from(*length)
            }
        };
        let (value, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        Some(value)
    }
}
