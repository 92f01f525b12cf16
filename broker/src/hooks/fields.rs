//! The fourteen basic properties as bytes: where each one stands, and how the block is put together again when one changes.
//!
//! A hook that sets the priority must not change a single byte of the other properties. So nothing is decoded here:
//! what stays is copied as it came.

use std::ops::Range;

/// One property. Its index in [`FIELDS`] is its flag, from bit 15 down (AMQP 0-9-1, section 4.2.6.1).
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Why a script cannot write it; `None` if it can.
    pub(super) fixed: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Up to 255 bytes.
    Short,
    /// The headers.
    Table,
    Octet,
    /// Seconds since 1970.
    Timestamp,
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, fixed: None }
}

const fn fixed(name: &'static str, kind: Kind, why: &'static str) -> Field {
    Field { name, kind, fixed: Some(why) }
}

pub(super) const FIELDS: [Field; 14] = [
    field("content_type", Kind::Short),
    field("content_encoding", Kind::Short),
    fixed("headers", Kind::Table, "set single headers: msg.headers[\"name\"] = value"),
    field("delivery_mode", Kind::Octet),
    field("priority", Kind::Octet),
    field("correlation_id", Kind::Short),
    field("reply_to", Kind::Short),
    field("expiration", Kind::Short),
    field("message_id", Kind::Short),
    field("timestamp", Kind::Timestamp),
    field("type", Kind::Short),
    fixed("user_id", Kind::Short, "it names the publisher, and the broker has checked it"),
    field("app_id", Kind::Short),
    fixed("cluster_id", Kind::Short, "AMQP 0-9-1 reserves it"),
];

pub(super) const HEADERS: usize = 2;
pub(super) const DELIVERY_MODE: usize = 3;
pub(super) const EXPIRATION: usize = 7;

/// Where each property stands in a raw block, without its length prefix.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout([Option<Range<usize>>; FIELDS.len()]);

impl Layout {
    /// `None` if the block is malformed.
    pub(super) fn of(raw: &[u8]) -> Option<Self> {
        let flags = u16::from_be_bytes(*raw.first_chunk::<2>()?);
        let mut at = 2;
        let mut layout = Self::default();
        for ((index, field), slot) in FIELDS.iter().enumerate().zip(&mut layout.0) {
            if flags & bit(index) != 0 {
                let value = field.kind.range(raw, at)?;
                at = value.end;
                *slot = Some(value);
            }
        }
        Some(layout)
    }

    /// The range of one property's value.
    pub(super) fn get(&self, index: usize) -> Option<Range<usize>> {
        self.0.get(index).cloned().flatten()
    }
}

/// Writes a block again: `change(index)` answers `Some(Some(value))` for a property that is to be set, `Some(None)` for one
/// that is to go, and `None` for one that stays. Values come without length prefix.
pub(super) fn rebuild<'a>(
    raw: &'a [u8],
    layout: &Layout,
    change: impl Fn(usize) -> Option<Option<&'a [u8]>>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 64);
    out.extend_from_slice(&[0, 0]);
    let mut flags = 0;
    for (index, field) in FIELDS.iter().enumerate() {
        let kept = || layout.get(index).and_then(|range| raw.get(range));
        if let Some(value) = change(index).unwrap_or_else(kept) {
            flags |= bit(index);
            field.kind.write(value, &mut out);
        }
    }
    if let Some(place) = out.first_chunk_mut::<2>() {
        *place = flags.to_be_bytes();
    }
    out
}

impl Kind {
    /// The value that starts, with its length prefix, at `at`.
    fn range(self, raw: &[u8], at: usize) -> Option<Range<usize>> {
        let rest = raw.get(at..)?;
        let (prefix, length) = match self {
            Self::Short => (1, usize::from(*rest.first()?)),
            Self::Table => (4, usize::try_from(u32::from_be_bytes(*rest.first_chunk::<4>()?)).ok()?),
            Self::Octet => (0, 1),
            Self::Timestamp => (0, 8),
        };
        let start = at + prefix;
        let end = start.checked_add(length)?;
        (end <= raw.len()).then_some(start..end)
    }

    fn write(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            // Whoever sets a short string has checked its length, and kept ones had a prefix of one byte.
            Self::Short => out.push(u8::try_from(value.len()).unwrap_or(u8::MAX)),
            Self::Table => out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes()),
            Self::Octet | Self::Timestamp => {}
        }
        out.extend_from_slice(value);
    }
}

const fn bit(index: usize) -> u16 {
    0x8000 >> index
}

#[cfg(test)]
mod tests {
    use plugin_api::message::{Properties, PropertiesBuf};
    use plugin_api::value::Table;

    use super::*;

    fn full() -> PropertiesBuf {
        PropertiesBuf {
            content_type: Some(b"text/plain".to_vec()),
            content_encoding: Some(Vec::new()),
            headers: Some(Table::new().with("x", 1i64)),
            delivery_mode: Some(2),
            priority: Some(7),
            correlation_id: Some(b"c".to_vec()),
            reply_to: Some(b"r".to_vec()),
            expiration: Some(b"60000".to_vec()),
            message_id: Some(b"m".to_vec()),
            timestamp: Some(1),
            kind: Some(b"t".to_vec()),
            user_id: Some(b"guest".to_vec()),
            app_id: Some(vec![0xff; 255]),
            cluster_id: Some(b"x".to_vec()),
        }
    }

    #[test]
    fn properties_that_nothing_changes_come_out_byte_for_byte() {
        for raw in [full().encode(), Properties::EMPTY.raw().to_vec()] {
            let layout = Layout::of(&raw).expect("well-formed");
            assert_eq!(rebuild(&raw, &layout, |_| None), raw);
        }
    }

    #[test]
    fn one_property_is_set_or_removed_beside_the_others() {
        let raw = full().encode();
        let layout = Layout::of(&raw).expect("well-formed");
        let set = rebuild(&raw, &layout, |index| (index == DELIVERY_MODE).then_some(Some(&[1])));
        assert_eq!(set, PropertiesBuf { delivery_mode: Some(1), ..full() }.encode());
        let removed = rebuild(&raw, &layout, |index| (index == EXPIRATION).then_some(None));
        assert_eq!(removed, PropertiesBuf { expiration: None, ..full() }.encode());
        let nothing = rebuild(&raw, &layout, |_| Some(None));
        assert_eq!(nothing, Properties::EMPTY.raw());
    }

    #[test]
    fn malformed_properties_have_no_layout() {
        let raw = full().encode();
        for length in 0..raw.len() {
            let _ = Layout::of(&raw[..length]);
        }
        for raw in [&[][..], &[0x80], &[0x80, 0, 5, b'a'], &[0x20, 0, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(Layout::of(raw), None, "{raw:?}");
        }
    }
}
