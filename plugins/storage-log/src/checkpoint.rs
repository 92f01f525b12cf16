//! A checkpoint: the state at one place of the log, so that only what follows is replayed.
//!
//! ```text
//! header | next batch u64, segment u64, first segment after all u64
//! segments u64: id u64, first batch u64, next batch u64, end u64, file bytes u64, salt u64, damaged u64,
//!                torn u64: from u64, to u64
//! meta u64: key length u32, key, value length u32, value
//! queues u64: queue u64, pieces u64: first u64, last u64, bytes u64, segment u32, entry u32
//! marks u64: queue u64, last u64                                                             (not in format 1)
//! ```
//!
//! Two are kept. Segments are removed only when they are dead in both, so that the older one can stand in for the newer.

use crate::format::{FileHeader, FileKind, HEADER_BYTES, HeaderError, Reader};
use crate::index::pieces::{Piece, Pieces, SegmentId};
use crate::index::{Index, Segment};

/// What a checkpoint says.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) store: u64,
    pub(crate) number: u64,
    /// The first batch that is not part of it.
    pub(crate) next_batch: u64,
    /// The segment that this batch goes to, or would have gone to.
    pub(crate) segment: SegmentId,
    pub(crate) index: Index,
}

pub(crate) fn encode(store: u64, number: u64, next_batch: u64, segment: SegmentId, index: &Index) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    let u64s = |out: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    };
    u64s(&mut out, &[next_batch, segment.into(), index.segments.len() as u64]);
    for (id, state) in &index.segments {
        let damaged = u64::from(state.is_damaged);
        u64s(
            &mut out,
            &[(*id).into(), state.first_batch, state.next_batch, state.end, state.file_bytes, state.salt, damaged],
        );
        u64s(&mut out, &[state.torn.len() as u64]);
        state.torn.iter().for_each(|(from, to)| u64s(&mut out, &[*from, *to]));
    }
    u64s(&mut out, &[index.meta.len() as u64]);
    for part in index.meta.iter().flat_map(|(key, value)| [key, value]) {
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(part);
    }
    u64s(&mut out, &[index.queues.len() as u64]);
    for (queue, pieces) in &index.queues {
        u64s(&mut out, &[*queue, pieces.0.len() as u64]);
        for (first, piece) in &pieces.0 {
            u64s(&mut out, &[*first, piece.last, piece.bytes]);
            out.extend_from_slice(&piece.segment.to_le_bytes());
            out.extend_from_slice(&piece.entry.to_le_bytes());
        }
    }
    u64s(&mut out, &[index.marks.len() as u64]);
    index.marks.iter().for_each(|(queue, last)| u64s(&mut out, &[*queue, *last]));
    let body = out.get(HEADER_BYTES..).unwrap_or_default();
    let fields = [body.len() as u64, crc32c::crc32c(body).into(), 0, 0];
    let header = FileHeader { store, number, fields }.encode(FileKind::Checkpoint);
    out.iter_mut().zip(header).for_each(|(place, byte)| *place = byte);
    out
}

pub(crate) fn decode(bytes: &[u8], verify: bool) -> Result<Checkpoint, HeaderError> {
    let header = FileHeader::decode(bytes, FileKind::Checkpoint, verify)?;
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let [length, crc, ..] = header.fields;
    if verify && (length != body.len() as u64 || crc != u64::from(crc32c::crc32c(body))) {
        return Err(HeaderError::Damaged);
    }
    let version = FileHeader::version(bytes).unwrap_or_default();
    decode_body(&header, version, body).ok_or(HeaderError::Damaged)
}

fn decode_body(header: &FileHeader, version: u32, body: &[u8]) -> Option<Checkpoint> {
    let mut reader = Reader(body);
    let (next_batch, segment) = (reader.u64()?, SegmentId::try_from(reader.u64()?).ok()?);
    let mut index = Index::default();
    for _ in 0..reader.u64()? {
        let id = SegmentId::try_from(reader.u64()?).ok()?;
        let (first_batch, next_batch, end) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (file_bytes, salt, is_damaged) = (reader.u64()?, reader.u64()?, reader.u64()? != 0);
        let torn = (0..reader.u64()?).map_while(|_| Some((reader.u64()?, reader.u64()?))).collect();
        let state = Segment { salt, first_batch, next_batch, end, file_bytes, torn, is_damaged, ..Segment::default() };
        index.segments.insert(id, state);
    }
    for _ in 0..reader.u64()? {
        let (key, value) = (reader.counted()?.to_vec(), reader.counted()?.to_vec());
        index.meta.insert(key, value);
    }
    for _ in 0..reader.u64()? {
        let queue = reader.u64()?;
        let count = reader.u64()?;
        let pieces = (0..count).map_while(|_| {
            let (first, last, bytes) = (reader.u64()?, reader.u64()?, reader.u64()?);
            Some((first, Piece { last, bytes, segment: reader.u32()?, entry: reader.u32()? }))
        });
        let pieces: Pieces = Pieces(pieces.collect());
        if pieces.0.len() as u64 != count || pieces.0.iter().any(|(first, piece)| piece.last < *first) {
            return None;
        }
        index.queues.insert(queue, pieces);
    }
    if version > 1 {
        for _ in 0..reader.u64()? {
            let (queue, last) = (reader.u64()?, reader.u64()?);
            index.marks.insert(queue, last);
        }
    }
    index.count_live();
    Some(Checkpoint { store: header.store, number: header.number, next_batch, segment, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_reads_back_and_every_flipped_bit_is_noticed() {
        let mut index = Index::default();
        index.put_meta(b"k", Some(b"v"));
        index.segments.insert(3, Segment { salt: 1, end: 99, next_batch: 8, ..Segment::default() });
        let piece = Piece { last: 9, bytes: 100, segment: 3, entry: 4 };
        index.queues.insert(7, Pieces([(5, piece)].into()));
        index.mark(7, 6);
        index.mark(8, 1);
        let bytes = encode(11, 12, 8, 3, &index);
        let found = decode(&bytes, true).unwrap();
        assert_eq!((found.store, found.number, found.next_batch, found.segment), (11, 12, 8, 3));
        assert_eq!((found.index.meta, found.index.queues[&7].0[&5]), (index.meta, piece));
        assert_eq!(found.index.marks, index.marks);
        assert_eq!((found.index.segments[&3].live_count, found.index.segments[&3].salt), (5, 1));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&flipped, true), Err(HeaderError::Damaged)), "bit {bit}");
        }
        assert!((0..bytes.len()).all(|length| decode(&bytes[..length], true).is_err()));
    }
}
