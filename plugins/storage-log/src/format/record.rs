//! A record: one message, some settled ranges or marks, a deleted queue, or a metadata entry.
//!
//! ```text
//! checksum of the rest u32 | length of the rest u32 (not in itself) | kind u32 | …
//! 1 message   targets u32, exchange u32, routing key u32, properties u32 (counts and lengths),
//!             targets (queue u64, seq u64), exchange, routing key, properties, body to the end (format 1 alone)
//! 2 settle    ranges (queue u64, first u64, last u64)
//! 3 delete    queue u64
//! 4 put meta  key length u32, key, value to the end
//! 5 drop meta key
//! 6 message   stamp u64, the rest as kind 1
//! 7 mark      marks (queue u64, last u64)
//! ```

use plugin_api::storage::{Append, Mark, MessageSeq, Meta, QueueKey, Settle, StoredMessage};

use super::Reader;

const PREFIX_BYTES: usize = 8;

/// What a message takes beside its texts, with one target.
pub(crate) const OVERHEAD_BYTES: usize = PREFIX_BYTES + 28 + 16;

/// What a metadata entry takes beside key and value.
pub(crate) const META_BYTES: usize = PREFIX_BYTES + 8;

const MESSAGE_WITHOUT_STAMP: u32 = 1;
const SETTLE: u32 = 2;
const DELETE: u32 = 3;
const PUT_META: u32 = 4;
const DROP_META: u32 = 5;
const MESSAGE: u32 = 6;
const MARK: u32 = 7;

/// A record as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Message(MessageRecord<'a>),
    Settle(Ranges<'a>),
    Delete(u64),
    Mark(Pairs<'a>),
    PutMeta { key: &'a [u8], value: &'a [u8] },
    DropMeta { key: &'a [u8] },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageRecord<'a> {
    stamp: u64,
    targets: Pairs<'a>,
    exchange: &'a [u8],
    routing_key: &'a [u8],
    properties: &'a [u8],
    body: &'a [u8],
}

impl<'a> MessageRecord<'a> {
    /// Queue and position of each target.
    pub(crate) fn targets(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + use<'a> {
        self.targets.iter()
    }

    pub(crate) fn has_target(&self, queue: u64, seq: u64) -> bool {
        self.targets().any(|target| target == (queue, seq))
    }

    pub(crate) fn to_stored(self, seq: u64) -> StoredMessage {
        StoredMessage {
            seq: MessageSeq(seq),
            stamp: self.stamp,
            exchange: String::from_utf8_lossy(self.exchange).into_owned(),
            routing_key: String::from_utf8_lossy(self.routing_key).into_owned(),
            properties: self.properties.to_vec(),
            body: self.body.to_vec(),
        }
    }

    /// Writes the message again, for these targets alone.
    pub(crate) fn encode_for(&self, targets: &[(QueueKey, MessageSeq)], out: &mut Vec<u8>) {
        let parts = [self.exchange, self.routing_key, self.properties, self.body];
        encode_parts(targets, self.stamp, parts, out);
    }
}

/// Queues with a position each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    /// Queue and position.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + use<'a> {
        let (pairs, _) = self.0.as_chunks::<16>();
        pairs.iter().map(|pair| {
            let mut reader = Reader(pair);
            (reader.u64().unwrap_or_default(), reader.u64().unwrap_or_default())
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranges<'a>(&'a [u8]);

impl<'a> Ranges<'a> {
    /// Queue, first and last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64, u64)> + use<'a> {
        let (ranges, _) = self.0.as_chunks::<24>();
        ranges.iter().map(|range| {
            let mut reader = Reader(range);
            let mut next = || reader.u64().unwrap_or_default();
            (next(), next(), next())
        })
    }
}

/// The record at the start of `bytes` and its length; `None` when it is none or its checksum does not fit.
pub(crate) fn decode(bytes: &[u8], verify: bool) -> Option<(Record<'_>, usize)> {
    let mut reader = Reader(bytes);
    let crc = reader.u32()?;
    let counted = reader.0;
    let rest = reader.counted()?;
    if verify && crc32c::crc32c(counted.get(..4 + rest.len())?) != crc {
        return None;
    }
    let mut reader = Reader(rest);
    let record = match reader.u32()? {
        kind @ (MESSAGE | MESSAGE_WITHOUT_STAMP) => {
            let stamp = if kind == MESSAGE { reader.u64()? } else { 0 };
            let targets = (reader.u32()? as usize).checked_mul(16)?;
            let lengths = [reader.u32()?, reader.u32()?, reader.u32()?];
            let targets = Pairs(reader.take(targets)?);
            let [exchange, routing_key, properties] = lengths.map(|length| reader.take(length as usize));
            let (exchange, routing_key, properties) = (exchange?, routing_key?, properties?);
            Record::Message(MessageRecord { stamp, targets, exchange, routing_key, properties, body: reader.0 })
        }
        SETTLE => Record::Settle(Ranges(reader.0)),
        DELETE => Record::Delete(reader.u64()?),
        MARK => Record::Mark(Pairs(reader.0)),
        PUT_META => Record::PutMeta { key: reader.counted()?, value: reader.0 },
        DROP_META => Record::DropMeta { key: reader.0 },
        _ => return None,
    };
    Some((record, PREFIX_BYTES + rest.len()))
}

pub(crate) fn encode_message(message: &Append<'_>, out: &mut Vec<u8>) {
    let names = [message.exchange.as_bytes(), message.routing_key.as_bytes()];
    let [exchange, routing_key] = names;
    encode_parts(message.targets, message.stamp, [exchange, routing_key, message.properties, message.body], out);
}

pub(crate) fn encode_settle(ranges: &[Settle], out: &mut Vec<u8>) {
    encode(out, SETTLE, |out| {
        for range in ranges.iter().filter(|range| range.first <= range.last) {
            for number in [range.queue.0, range.first.0, range.last.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    });
}

pub(crate) fn encode_delete(queue: QueueKey, out: &mut Vec<u8>) {
    encode(out, DELETE, |out| out.extend_from_slice(&queue.0.to_le_bytes()));
}

pub(crate) fn encode_marks(marks: &[Mark], out: &mut Vec<u8>) {
    encode(out, MARK, |out| {
        for number in marks.iter().flat_map(|mark| [mark.queue.0, mark.last.0]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    });
}

pub(crate) fn encode_meta(Meta { key, value }: &Meta<'_>, out: &mut Vec<u8>) {
    match value {
        Some(value) => encode(out, PUT_META, |out| {
            out.extend_from_slice(&length(key));
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }),
        None => encode(out, DROP_META, |out| out.extend_from_slice(key)),
    }
}

/// The length of the record of such a message.
pub(crate) fn message_bytes(message: &Append<'_>) -> usize {
    let texts = message.exchange.len() + message.routing_key.len() + message.properties.len() + message.body.len();
    OVERHEAD_BYTES + 16 * message.targets.len() - 16 + texts
}

fn encode_parts(targets: &[(QueueKey, MessageSeq)], stamp: u64, parts: [&[u8]; 4], out: &mut Vec<u8>) {
    let [exchange, routing_key, properties, body] = parts;
    encode(out, MESSAGE, |out| {
        out.extend_from_slice(&stamp.to_le_bytes());
        out.extend_from_slice(&u32::try_from(targets.len()).unwrap_or(u32::MAX).to_le_bytes());
        [exchange, routing_key, properties].iter().for_each(|part| out.extend_from_slice(&length(part)));
        for (queue, seq) in targets {
            out.extend_from_slice(&queue.0.to_le_bytes());
            out.extend_from_slice(&seq.0.to_le_bytes());
        }
        [exchange, routing_key, properties, body].iter().for_each(|part| out.extend_from_slice(part));
    });
}

fn encode(out: &mut Vec<u8>, kind: u32, contents: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.extend_from_slice(&kind.to_le_bytes());
    contents(out);
    let Some(record) = out.get_mut(start..) else { return };
    let rest = u32::try_from(record.len() - PREFIX_BYTES).unwrap_or(u32::MAX).to_le_bytes();
    let Some((crc, counted)) = record.split_at_mut_checked(4) else { return };
    counted.iter_mut().zip(rest).for_each(|(place, byte)| *place = byte);
    crc.copy_from_slice(&crc32c::crc32c(counted).to_le_bytes());
}

/// Callers keep batches below [`crate::PART_BYTES_MAX`], so that every length fits.
fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_every_flipped_bit_is_noticed() {
        let targets = [(QueueKey(1), MessageSeq(2)), (QueueKey(3), MessageSeq(4))];
        let message = Append {
            targets: &targets,
            stamp: 7 << 40,
            exchange: "x",
            routing_key: "key",
            properties: &[0, 0],
            body: b"b",
        };
        let mut bytes = Vec::new();
        encode_message(&message, &mut bytes);
        assert_eq!(bytes.len(), message_bytes(&message));
        let (Record::Message(found), length) = decode(&bytes, true).unwrap() else { panic!() };
        assert_eq!((length, found.targets().collect::<Vec<_>>()), (bytes.len(), vec![(1, 2), (3, 4)]));
        let stored = found.to_stored(2);
        assert_eq!((stored.seq, stored.stamp), (MessageSeq(2), 7 << 40));
        assert_eq!(
            (stored.exchange.as_str(), stored.routing_key.as_str(), stored.body.as_slice()),
            ("x", "key", &b"b"[..])
        );
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, true), None, "bit {bit}");
        }
    }

    #[test]
    fn small_records_read_back() {
        let mut bytes = Vec::new();
        let range = |first, last| Settle { queue: QueueKey(1), first: MessageSeq(first), last: MessageSeq(last) };
        encode_settle(&[range(2, 3), range(9, 8)], &mut bytes);
        let (Record::Settle(ranges), _) = decode(&bytes, true).unwrap() else { panic!() };
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(1, 2, 3)], "empty ranges are left out");
        for (value, expected) in [
            (Some(&b"v"[..]), Record::PutMeta { key: b"k", value: b"v" }),
            (Some(b""), Record::PutMeta { key: b"k", value: b"" }),
            (None, Record::DropMeta { key: b"k" }),
        ] {
            bytes.clear();
            encode_meta(&Meta { key: b"k", value }, &mut bytes);
            assert_eq!(decode(&bytes, true), Some((expected, bytes.len())));
        }
        bytes.clear();
        encode_delete(QueueKey(5), &mut bytes);
        assert_eq!(decode(&bytes, true), Some((Record::Delete(5), bytes.len())));
        bytes.clear();
        let mark = |queue, last| Mark { queue: QueueKey(queue), last: MessageSeq(last) };
        encode_marks(&[mark(5, 6), mark(7, u64::MAX)], &mut bytes);
        let (Record::Mark(marks), _) = decode(&bytes, true).unwrap() else { panic!() };
        assert_eq!(marks.iter().collect::<Vec<_>>(), [(5, 6), (7, u64::MAX)]);
    }
}
