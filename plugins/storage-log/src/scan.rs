//! Walks the frames of one segment, past what is damaged.
//!
//! ```text
//! frame ─valid─► frame ─bad─► search ─found a later frame─► gap, go on there
//!                                └─nothing valid behind──► end: torn, or missing if more batches are known to be there
//! ```
//!
//! A gap was durable once if a later frame says so, or the next segment or a checkpoint counts its batches: then it is
//! damage. Otherwise it is a commit that a crash caught between writing and syncing, and nothing of it was ever promised;
//! what lies behind it is served all the same, never cut.

use std::io;

use crate::disk::DiskFile;
use crate::format::DATA_START;
use crate::format::frame::{ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, may_begin};
use crate::format::record::{self, Record};
use crate::index::pieces::SegmentId;

/// A part of a segment that no frame can be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    /// The batches that stood here: from the first up to before the second.
    pub(crate) batches: (u64, u64),
}

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// Where the last valid frame ends.
    pub(crate) end: u64,
    /// The batch after the last valid one.
    pub(crate) next_batch: u64,
    pub(crate) gaps: Vec<Gap>,
    /// Bytes behind the end that look like the beginning of a commit.
    pub(crate) is_torn: bool,
    /// All batches below this one were durable, says a frame.
    pub(crate) synced: u64,
    /// Batch and offset of each valid frame.
    pub(crate) frames: Vec<(u64, u64)>,
    pub(crate) records: u64,
}

/// What a segment is walked with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) segment: SegmentId,
    pub(crate) salt: u64,
    pub(crate) first_batch: u64,
    pub(crate) verify: bool,
}

impl Walk {
    /// Walks the file; `each` gets every record of every valid frame, with its batch and its place in the file.
    pub(crate) fn run(
        &self,
        file: &dyn DiskFile,
        mut each: impl FnMut(u64, u64, &Record<'_>, usize),
    ) -> io::Result<Walked> {
        let mut window = Window::new(file)?;
        let mut walked = Walked { end: DATA_START, next_batch: self.first_batch, ..Walked::default() };
        let mut position = DATA_START;
        loop {
            if let Some(header) = self.frame_at(&mut window, position, walked.next_batch)? {
                if header.batch > walked.next_batch {
                    let batches = (walked.next_batch, header.batch);
                    walked.gaps.push(Gap { offset: walked.end, bytes: position - walked.end, batches });
                }
                let payload_start = position + FRAME_HEADER_BYTES as u64;
                let payload = window.get(payload_start, header.payload_bytes as usize)?;
                let mut offset = 0;
                for _ in 0..header.records {
                    // The payload's checksum has been verified, so that a record that cannot be read is a defect of the
                    // writer; it and the rest of its frame are left out.
                    let rest = payload.get(offset..).unwrap_or_default();
                    let Some((record, length)) = record::decode(rest, self.verify) else { break };
                    each(header.batch, payload_start + offset as u64, &record, length);
                    walked.records += 1;
                    offset += length;
                }
                walked.frames.push((header.batch, position));
                walked.synced = walked.synced.max(header.synced);
                walked.next_batch = header.batch + 1;
                position += header.frame_bytes();
                walked.end = position;
            } else if let Some(found) = self.search(&mut window, position + ALIGNMENT as u64, walked.next_batch)? {
                position = found;
            } else {
                walked.is_torn = may_begin(window.get(walked.end, FRAME_HEADER_BYTES)?);
                return Ok(walked);
            }
        }
    }

    /// A whole valid frame of this segment that is no older than `batch_min`.
    fn frame_at(&self, window: &mut Window<'_>, position: u64, batch_min: u64) -> io::Result<Option<FrameHeader>> {
        let bytes = window.get(position, FRAME_HEADER_BYTES)?;
        let header = FrameHeader::decode(bytes, self.salt, self.segment.into(), self.verify);
        let Some(header) = header.filter(|header| header.batch >= batch_min) else { return Ok(None) };
        let payload = window.get(position + FRAME_HEADER_BYTES as u64, header.payload_bytes as usize)?;
        let is_whole = payload.len() == header.payload_bytes as usize;
        let is_sound = !self.verify || crc32c::crc32c(payload) == header.payload_crc;
        Ok((is_whole && is_sound).then_some(header))
    }

    fn search(&self, window: &mut Window<'_>, from: u64, batch_min: u64) -> io::Result<Option<u64>> {
        let mut position = from;
        while position < window.length {
            let bytes = window.get(position, SEARCH_BYTES)?;
            let candidate = bytes.chunks(ALIGNMENT).position(may_begin);
            let Some(index) = candidate else {
                position += (bytes.len() as u64).max(ALIGNMENT as u64);
                continue;
            };
            position += (index * ALIGNMENT) as u64;
            if self.frame_at(window, position, batch_min)?.is_some() {
                return Ok(Some(position));
            }
            position += ALIGNMENT as u64;
        }
        Ok(None)
    }
}

/// How much of a file is looked through at once; a multiple of the alignment.
const SEARCH_BYTES: usize = 64 << 10;

/// How much of a file is read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn DiskFile,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self { file, length: file.length()?, start: 0, bytes: Vec::new() })
    }

    /// The bytes at `position`: `count` of them, or fewer at the end of the file.
    fn get(&mut self, position: u64, count: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = count.min(left);
        let has = |window: &Self| {
            position >= window.start
                && position.saturating_add(count as u64) <= window.start + window.bytes.len() as u64
        };
        if !has(self) {
            self.bytes.resize(count.max(WINDOW_BYTES).min(left), 0);
            self.start = position;
            let found = self.file.read_at(&mut self.bytes, position)?;
            self.bytes.truncate(found);
        }
        let offset = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(offset..).unwrap_or_default();
        Ok(rest.get(..count).unwrap_or(rest))
    }
}
