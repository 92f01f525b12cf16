//! A frame: what one commit writes.
//!
//! ```text
//! magic u32 | checksum of the header u32 | payload length u32 | checksum of the payload u32
//! segment u64 | batch u64 | all batches below this were durable u64 | records u32 | 0 u32 | payload | zeros up to 8
//! ```
//!
//! The checksum of the header starts from the segment's salt: neither a frame of the file's former life nor bytes that a
//! publisher has put into a body can pass for a frame of this segment.

use super::Reader;

pub(crate) const FRAME_HEADER_BYTES: usize = 48;

/// Frames begin at multiples of this, which a search for frames behind a damaged one relies on.
pub(crate) const ALIGNMENT: usize = 8;

const MAGIC: u32 = u32::from_le_bytes(*b"FrAm");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    pub(crate) segment: u64,
    pub(crate) batch: u64,
    /// All batches below this one were durable when the frame was written.
    pub(crate) synced: u64,
    pub(crate) records: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, salt: u64) -> [u8; FRAME_HEADER_BYTES] {
        let mut rest = Vec::with_capacity(FRAME_HEADER_BYTES);
        rest.extend_from_slice(&self.payload_bytes.to_le_bytes());
        rest.extend_from_slice(&self.payload_crc.to_le_bytes());
        rest.extend_from_slice(&self.segment.to_le_bytes());
        rest.extend_from_slice(&self.batch.to_le_bytes());
        rest.extend_from_slice(&self.synced.to_le_bytes());
        rest.extend_from_slice(&self.records.to_le_bytes());
        rest.extend_from_slice(&[0; 4]);
        let crc = salted(salt, &rest);
        let mut out = [0; FRAME_HEADER_BYTES];
        let all = MAGIC.to_le_bytes().into_iter().chain(crc.to_le_bytes()).chain(rest);
        out.iter_mut().zip(all).for_each(|(place, byte)| *place = byte);
        out
    }

    /// The header at the start of `bytes`, if it is one of this segment.
    pub(crate) fn decode(bytes: &[u8], salt: u64, segment: u64, verify: bool) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.u32()? != MAGIC {
            return None;
        }
        let crc = reader.u32()?;
        let is_sound = !verify || salted(salt, reader.0.get(..FRAME_HEADER_BYTES - 8)?) == crc;
        let header = Self {
            payload_bytes: reader.u32()?,
            payload_crc: reader.u32()?,
            segment: reader.u64()?,
            batch: reader.u64()?,
            synced: reader.u64()?,
            records: reader.u32()?,
        };
        (is_sound && header.segment == segment).then_some(header)
    }

    /// The whole frame's length in the file.
    pub(crate) const fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_bytes as u64)
    }
}

/// The length of a frame with so much payload.
pub(crate) const fn frame_bytes(payload_bytes: u64) -> u64 {
    (FRAME_HEADER_BYTES as u64 + payload_bytes).next_multiple_of(ALIGNMENT as u64)
}

/// Whether a frame might begin here; cheap, for searching.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    bytes.first_chunk::<4>().is_some_and(|head| u32::from_le_bytes(*head) == MAGIC)
}

fn salted(salt: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_header_is_believed_with_its_salt_and_segment_only() {
        let header = FrameHeader { payload_bytes: 5, payload_crc: 6, segment: 7, batch: 8, synced: 8, records: 1 };
        let bytes = header.encode(99);
        assert_eq!(FrameHeader::decode(&bytes, 99, 7, true), Some(header));
        assert_eq!(FrameHeader::decode(&bytes, 98, 7, true), None);
        assert_eq!(FrameHeader::decode(&bytes, 99, 6, true), None);
        assert_eq!((header.frame_bytes(), frame_bytes(0), frame_bytes(8)), (56, 48, 56));
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&flipped, 99, 7, true), None, "bit {bit}");
        }
    }
}
