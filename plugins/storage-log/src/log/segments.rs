//! Changing over from one segment to the next.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;

use plugin_api::hash::Map;
use plugin_api::storage::StorageError;

use super::{Active, Log, Room, full};
use crate::disk::{Access, DiskFile, is_full};
use crate::format::{DATA_START, FileHeader, FileKind, HEADER_COPY_OFFSET};
use crate::index::pieces::SegmentId;
use crate::index::{Segment, lay_out};
use crate::names;
use crate::shared::Shared;
use crate::sidecar;

impl Log {
    /// Ends the active segment and begins one that has room for a frame of `frame_bytes`. When there is no room for it,
    /// the active segment stays.
    pub(super) fn change_over(&mut self, frame_bytes: u64, room: Room) -> Result<(), StorageError> {
        // All of a segment is durable before there is a next one: only the last can have a torn tail.
        self.flush(true)?;
        let old = self.active.id;
        self.promised_batch = self.next_batch;
        let id = old.checked_add(1).ok_or_else(|| full(&self.shared))?;
        self.active = self.make_segment(id, frame_bytes, room)?;
        self.seal(old)
    }

    /// Makes the file of segment `id` and adds it to the index.
    pub(super) fn make_segment(&mut self, id: SegmentId, frame_bytes: u64, room: Room) -> Result<Active, StorageError> {
        let salt = self.salts.next();
        let header = FileHeader {
            store: self.shared.store,
            number: id.into(),
            fields: [self.next_batch, salt, self.promised_batch, 0],
        };
        let needed = DATA_START + frame_bytes;
        let (file, capacity, is_used) = match self.file_for(id, needed, room, &header) {
            Ok(made) => made,
            Err(error)
                if is_full(&error) && needed > self.shared.options.segment_bytes && self.has_spare_segment()? =>
            {
                return Err(too_large(&self.shared, frame_bytes));
            }
            Err(error) => return Err(self.no_room_or_failed("making a segment", &error)),
        };
        let state = Segment {
            salt,
            first_batch: self.next_batch,
            next_batch: self.next_batch,
            end: DATA_START,
            file_bytes: capacity,
            ..Segment::default()
        };
        {
            let mut index = self.shared.index();
            // As many queues as the segment before has, for a start.
            let before =
                index.segments.values().next_back().and_then(|state| state.resident.as_ref()).map_or(0, Map::len);
            let resident = Map::with_capacity_and_hasher(before, Default::default());
            index.segments.insert(id, Segment { resident: Some(resident), ..state });
        }
        let written = if is_used { capacity } else { 0 };
        Ok(Active { id, file, position: DATA_START, capacity, written, salt })
    }

    /// A recycled file, a new one, or the reserve, under the segment's name and with its header; its length, and whether it was written
    /// to before.
    fn file_for(
        &mut self,
        id: SegmentId,
        needed: u64,
        room: Room,
        header: &FileHeader,
    ) -> io::Result<(Arc<dyn DiskFile>, u64, bool)> {
        if let Some(place) = self.recycled.iter().position(|(_, bytes)| *bytes >= needed) {
            let (former, bytes) = self.recycled.remove(place);
            return name_segment(&self.shared, id, &names::recycled(former), header).map(|file| (file, bytes, true));
        }
        let bytes = needed.max(self.shared.options.segment_bytes);
        let temporary = names::temporary(&names::segment(id));
        match allocate(&self.shared, &temporary, bytes) {
            Ok(()) => name_segment(&self.shared, id, &temporary, header).map(|file| (file, bytes, false)),
            Err(error) if is_full(&error) => {
                let reserve = self.shared.options.reserve_bytes();
                if room == Room::Disk || !self.has_reserve || needed > reserve {
                    return Err(error);
                }
                self.shared.set_full(true);
                self.has_reserve = false;
                name_segment(&self.shared, id, names::RESERVE, header).map(|file| (file, reserve, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the index file of a segment that gets no more frames. Without room for it the entries stay in memory.
    pub(super) fn seal(&mut self, id: SegmentId) -> Result<(), StorageError> {
        let bytes = {
            let index = self.shared.index();
            let Some(state) = index.segments.get(&id) else { return Ok(()) };
            let Some(resident) = &state.resident else { return Ok(()) };
            let (runs, entries) = lay_out(resident);
            sidecar::encode(self.shared.store, id, state.end, &runs, &entries)
        };
        let shared = &self.shared;
        match sidecar::write(&*shared.disk, id, &bytes, |file| shared.sync_data(file)) {
            Ok(()) => {
                shared.forget_files(id);
                shared.index().sealed(id);
                Ok(())
            }
            Err(error) if is_full(&error) => Ok(()),
            Err(error) => Err(shared.fail("writing an index", &error)),
        }
    }
}

/// There is no room for this one, but for others: the disk is not full.
fn too_large(shared: &Shared, bytes: u64) -> StorageError {
    let folder = shared.disk.title();
    StorageError::Full(format!("a commit of {bytes} bytes is too large for the room on the disk of '{folder}'"))
}

/// Sets a file of `bytes` aside; leaves none when there is no room.
pub(super) fn allocate(shared: &Shared, name: &str, bytes: u64) -> io::Result<()> {
    let allocated = shared.disk.create(name).and_then(|file| file.allocate(bytes));
    if allocated.is_err() {
        // What is left of it is removed at the next start.
        drop(shared.disk.remove(name));
    }
    allocated
}

/// Turns a file into a segment. It gets the name when the header is durable, so that a segment always has one.
fn name_segment(shared: &Shared, id: SegmentId, former: &str, header: &FileHeader) -> io::Result<Arc<dyn DiskFile>> {
    let file = shared.disk.open(former, Access::Write)?;
    let bytes = header.encode(FileKind::Segment);
    file.write_at(&bytes, 0)?;
    file.write_at(&bytes, HEADER_COPY_OFFSET)?;
    shared.sync_data(&*file)?;
    shared.disk.rename(former, &names::segment(id))?;
    shared.sync_folder()?;
    Ok(file)
}

/// Where salts and the number of a folder come from.
pub(super) struct Salts {
    seed: Option<u64>,
}

impl Salts {
    pub(super) const fn new(seed: Option<u64>) -> Self {
        Self { seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        match &mut self.seed {
            Some(seed) => {
                // An odd step visits every number, so that no two segments of a run get the same salt.
                *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                *seed ^ (*seed >> 29)
            }
            // The standard library's keys are random in each process; publishers cannot know what comes of them.
            None => RandomState::new().build_hasher().finish(),
        }
    }
}
