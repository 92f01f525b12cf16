//! The bytes on the disk, format 2. The readme of this crate draws them.
//!
//! Format 1 had neither stamps nor marks; it is read as if all stamps were 0.
//!
//! All numbers are little endian. Every file begins with a [`FileHeader`] of 64 bytes whose shape is the same in every
//! format, so that a newer one is recognised. Nothing here reads or writes files.

pub(crate) mod frame;
pub(crate) mod record;

/// The format that this version writes.
pub const FORMAT_VERSION: u32 = 2;

/// The length of a [`FileHeader`].
pub(crate) const HEADER_BYTES: usize = 64;

/// Where the second copy of a segment's header is: in another sector, since without its salt no frame can be believed.
pub(crate) const HEADER_COPY_OFFSET: u64 = 512;

/// Where the frames of a segment begin.
pub(crate) const DATA_START: u64 = 1024;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Segment,
    Index,
    Checkpoint,
}

impl FileKind {
    const fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => *b"BRKRSEG\n",
            Self::Index => *b"BRKRIDX\n",
            Self::Checkpoint => *b"BRKRCKP\n",
        }
    }
}

/// The first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Of the folder, so that a file of another folder is noticed.
    pub(crate) store: u64,
    /// The number in the file's name.
    pub(crate) number: u64,
    /// A segment: first batch, salt, the batch below which all were durable when it was made. An index: runs, entries, checksum of the rest, end of the frames. A checkpoint:
    /// length and checksum of the rest.
    pub(crate) fields: [u64; 4],
}

/// Why the first bytes of a file are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self, kind: FileKind) -> [u8; HEADER_BYTES] {
        self.encode_version(kind, FORMAT_VERSION)
    }

    fn encode_version(&self, kind: FileKind, version: u32) -> [u8; HEADER_BYTES] {
        let mut rest = Vec::with_capacity(HEADER_BYTES);
        rest.extend_from_slice(&self.store.to_le_bytes());
        rest.extend_from_slice(&self.number.to_le_bytes());
        self.fields.iter().for_each(|field| rest.extend_from_slice(&field.to_le_bytes()));
        let mut head = kind.magic().to_vec();
        head.extend_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &rest);
        head.extend_from_slice(&crc.to_le_bytes());
        head.extend_from_slice(&rest);
        let mut out = [0; HEADER_BYTES];
        out.iter_mut().zip(head).for_each(|(place, byte)| *place = byte);
        out
    }

    /// The format of a file whose header has been decoded.
    pub(crate) fn version(bytes: &[u8]) -> Option<u32> {
        Reader(bytes.get(8..)?).u32()
    }

    /// `verify` is false in one test only, which shows that others notice.
    pub(crate) fn decode(bytes: &[u8], kind: FileKind, verify: bool) -> Result<Self, HeaderError> {
        let mut reader = Reader(bytes);
        let mut decode = || {
            let magic = reader.take(8)?;
            let (version, crc) = (reader.u32()?, reader.u32()?);
            let rest = reader.0.get(..HEADER_BYTES - 16)?;
            let found = crc32c::crc32c_append(crc32c::crc32c(bytes.get(..12)?), rest);
            let (store, number) = (reader.u64()?, reader.u64()?);
            let fields = [reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?];
            let is_sound = (found == crc || !verify) && magic == kind.magic();
            is_sound.then_some((version, Self { store, number, fields }))
        };
        match decode() {
            None => Err(HeaderError::Damaged),
            Some((version, _)) if version > FORMAT_VERSION => Err(HeaderError::Newer(version)),
            Some((_, header)) => Ok(header),
        }
    }
}

/// Takes numbers off the front of bytes; `None` when they have ended.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(u32::from_le_bytes(*head))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(u64::from_le_bytes(*head))
    }

    /// A length that is then taken.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.take(count as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FileHeader = FileHeader { store: 7, number: 9, fields: [1, 2, 3, 4] };

    #[test]
    fn header_reads_back_and_every_flipped_bit_is_noticed() {
        let bytes = HEADER.encode(FileKind::Segment);
        assert_eq!(FileHeader::decode(&bytes, FileKind::Segment, true), Ok(HEADER));
        assert_eq!(FileHeader::decode(&bytes, FileKind::Index, true), Err(HeaderError::Damaged));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&flipped, FileKind::Segment, true), Err(HeaderError::Damaged), "bit {bit}");
        }
        for length in 0..HEADER_BYTES {
            assert_eq!(FileHeader::decode(&bytes[..length], FileKind::Segment, true), Err(HeaderError::Damaged));
        }
    }

    #[test]
    fn newer_format_is_told_from_damage() {
        let bytes = HEADER.encode_version(FileKind::Checkpoint, FORMAT_VERSION + 1);
        assert_eq!(FileHeader::decode(&bytes, FileKind::Checkpoint, true), Err(HeaderError::Newer(FORMAT_VERSION + 1)));
    }
}
