//! The index file beside a sealed segment: its runs, and where each message is.
//!
//! ```text
//! header | runs: queue u64, first u64, count u32, entry u32, 0 u64 | entries: offset u32, length u32
//! ```
//!
//! It can always be made again from its segment. A read takes a few entries out of it without its checksum, which is for
//! `check`: a record says itself which queues and positions it belongs to, so that a wrong entry is noticed.

use std::io;

use crate::disk::{Access, Disk, DiskFile, read_whole};
use crate::format::{FileHeader, FileKind, HEADER_BYTES, HeaderError, Reader};
use crate::index::pieces::SegmentId;
use crate::index::{Entry, Run};
use crate::names;

const RUN_BYTES: usize = 32;
const ENTRY_BYTES: usize = 8;

pub(crate) fn encode(store: u64, segment: SegmentId, end: u64, runs: &[Run], entries: &[Entry]) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    out.reserve(runs.len() * RUN_BYTES + entries.len() * ENTRY_BYTES);
    for run in runs {
        out.extend_from_slice(&run.queue.to_le_bytes());
        out.extend_from_slice(&run.first.to_le_bytes());
        out.extend_from_slice(&run.count.to_le_bytes());
        out.extend_from_slice(&run.entry.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
    }
    for entry in entries {
        out.extend_from_slice(&entry.offset.to_le_bytes());
        out.extend_from_slice(&entry.length.to_le_bytes());
    }
    let crc = crc32c::crc32c(out.get(HEADER_BYTES..).unwrap_or_default());
    let fields = [runs.len() as u64, entries.len() as u64, crc.into(), end];
    let header = FileHeader { store, number: segment.into(), fields }.encode(FileKind::Index);
    out.iter_mut().zip(header).for_each(|(place, byte)| *place = byte);
    out
}

/// Writes an index under its own name. Its name is durable after the next sync of the folder; nothing relies on it.
pub(crate) fn write(
    disk: &dyn Disk,
    segment: SegmentId,
    bytes: &[u8],
    sync: impl Fn(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<()> {
    let name = names::index(segment);
    let temporary = names::temporary(&name);
    let written = disk.create(&temporary).and_then(|file| {
        file.write_at(bytes, 0)?;
        sync(&*file)
    });
    match written {
        Ok(()) => disk.rename(&temporary, &name),
        Err(error) => {
            // What is left is removed at the next start.
            drop(disk.remove(&temporary));
            Err(error)
        }
    }
}

/// Offset and length of a record.
type Place = (u32, u32);

/// An index file whose header is sound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sidecar {
    header: FileHeader,
}

/// Why an index file cannot be used.
#[derive(Debug)]
pub(crate) enum SidecarError {
    Io(io::Error),
    Damaged,
    Newer(u32),
}

impl Sidecar {
    pub(crate) fn open(
        file: &dyn DiskFile,
        store: u64,
        segment: SegmentId,
        verify: bool,
    ) -> Result<Self, SidecarError> {
        let mut bytes = [0; HEADER_BYTES];
        let count = file.read_at(&mut bytes, 0).map_err(SidecarError::Io)?;
        let bytes = bytes.get(..count).unwrap_or_default();
        let header = FileHeader::decode(bytes, FileKind::Index, verify).map_err(|error| match error {
            HeaderError::Damaged => SidecarError::Damaged,
            HeaderError::Newer(version) => SidecarError::Newer(version),
        })?;
        if header.store != store || header.number != u64::from(segment) {
            return Err(SidecarError::Damaged);
        }
        Ok(Self { header })
    }

    /// `count` entries from `first` on, with offset and length of each.
    pub(crate) fn entries(&self, file: &dyn DiskFile, first: u32, count: usize) -> io::Result<Vec<(u32, u32)>> {
        let [runs, ..] = self.header.fields;
        let start = HEADER_BYTES as u64 + runs * RUN_BYTES as u64 + u64::from(first) * ENTRY_BYTES as u64;
        let mut bytes = vec![0; count * ENTRY_BYTES];
        let found = file.read_at(&mut bytes, start)?;
        bytes.truncate(found);
        let mut reader = Reader(&bytes);
        Ok(std::iter::from_fn(|| Some((reader.u32()?, reader.u32()?))).collect())
    }
}

/// Reads the runs of a whole index and checks all of it.
pub(crate) fn load(
    disk: &dyn Disk,
    store: u64,
    segment: SegmentId,
    verify: bool,
) -> Result<(Vec<Run>, Vec<Place>), SidecarError> {
    let file = disk.open(&names::index(segment), Access::Read).map_err(SidecarError::Io)?;
    let header = Sidecar::open(&*file, store, segment, verify)?.header;
    let bytes = read_whole(&*file).map_err(SidecarError::Io)?;
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let [runs_count, entries_count, crc, _] = header.fields;
    let runs_bytes = usize::try_from(runs_count).ok().and_then(|count| count.checked_mul(RUN_BYTES));
    let entries_bytes = usize::try_from(entries_count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES));
    let (Some(runs_bytes), Some(entries_bytes)) = (runs_bytes, entries_bytes) else {
        return Err(SidecarError::Damaged);
    };
    if runs_bytes.checked_add(entries_bytes) != Some(body.len()) || (verify && u64::from(crc32c::crc32c(body)) != crc) {
        return Err(SidecarError::Damaged);
    }
    let (runs, entries) = body.split_at_checked(runs_bytes).ok_or(SidecarError::Damaged)?;
    let mut reader = Reader(runs);
    let runs = std::iter::from_fn(|| {
        let run = Run { queue: reader.u64()?, first: reader.u64()?, count: reader.u32()?, entry: reader.u32()? };
        reader.u64()?;
        Some(run)
    });
    let runs = runs.collect();
    let mut reader = Reader(entries);
    Ok((runs, std::iter::from_fn(|| Some((reader.u32()?, reader.u32()?))).collect()))
}
