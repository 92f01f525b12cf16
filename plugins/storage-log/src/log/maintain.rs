//! What is done between commits: checkpoints, removal of what is dead, room for a full disk.

use std::io;
use std::sync::Arc;

use plugin_api::storage::StorageError;

use super::{Log, Unmaintained, segments};
use crate::checkpoint::{self, Head};
use crate::disk::is_full;
use crate::index::pieces::SegmentId;
use crate::names;
use crate::shared::{Part, Shared};

impl Log {
    /// Does at most one piece of work; call it after each commit, and while it says so and nobody waits: what the last commit has left to do
    /// may be the room that the next one needs. Tells whether there was something to do.
    ///
    /// # Errors
    /// When the disk fails, which [`Self::commit`] then answers, too.
    pub fn maintain(&mut self) -> Result<bool, StorageError> {
        self.unmaintained = Unmaintained::default();
        let has_worked = self.maintain_once()?;
        self.unmaintained.has_more = has_worked;
        Ok(has_worked)
    }

    /// Whether to call [`Self::maintain`] now. Looking for something to do costs as much as a small commit, and is worth it
    /// after so many only.
    pub(crate) fn is_maintenance_due(&self) -> bool {
        let Unmaintained { commits, bytes, has_more } = self.unmaintained;
        let bytes_max = UNMAINTAINED_BYTES_MAX.min(self.shared.options.segment_bytes);
        has_more || self.is_full() || commits >= UNMAINTAINED_COMMITS_MAX || bytes >= bytes_max
    }

    fn maintain_once(&mut self) -> Result<bool, StorageError> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        if let Some(id) = self.shared.next_repair() {
            self.repair(id)?;
            return Ok(true);
        }
        let dead = self.dead_segments();
        if self.is_full() && !dead.is_empty() {
            return self.regain_room();
        }
        // The checkpoint stays a small part of what is written, however large it is.
        let due_bytes = self.shared.options.segment_bytes.max(self.checkpoint_bytes.saturating_mul(CHECKPOINT_SHARE));
        if self.since_checkpoint_bytes >= due_bytes || dead.len() >= DEAD_SEGMENTS_MAX {
            self.checkpoint()?;
            return Ok(true);
        }
        if self.is_full() { Ok(false) } else { self.copy_forward() }
    }

    /// Writes a checkpoint and removes what was dead at the one before; the newest two are kept. Without room for it, nothing
    /// changes.
    pub fn checkpoint(&mut self) -> Result<bool, StorageError> {
        self.flush(true)?;
        let waiting: Vec<SegmentId> = {
            let index = self.shared.index();
            let sealed = index.segments.iter().filter(|(id, state)| state.resident.is_some() && **id != self.active.id);
            sealed.map(|(id, _)| *id).collect()
        };
        for id in waiting {
            self.seal(id)?;
        }
        let number = self.checkpoint_number + 1;
        let (store, next_batch, segment) = (self.shared.store, self.next_batch, self.active.id);
        let head = Head { store, number, next_batch, segment };
        let mut written = write_checkpoint(&self.shared, &head);
        // Without a checkpoint nothing is ever freed, so that it may have all the room that was set aside.
        for name in [names::ROOM, names::RESERVE] {
            let is_there = if name == names::ROOM { &mut self.has_room } else { &mut self.has_reserve };
            if !written.as_ref().is_err_and(is_full) || !std::mem::take(is_there) {
                continue;
            }
            // What is left of it is not for messages: they would take the room of the next checkpoint.
            self.shared.set_full(true);
            let given_back = self.shared.disk.remove(name);
            given_back.map_err(|error| self.shared.fail("giving room back", &error))?;
            written = write_checkpoint(&self.shared, &head);
        }
        // With many segments it is larger than the reserves. One checkpoint is enough to start from, so the older one makes
        // way when the newer one is known to be sound.
        if written.as_ref().is_err_and(is_full) && self.is_checkpoint_sound {
            let removed = self.remove_checkpoints(self.checkpoint_number);
            removed.map_err(|error| self.shared.fail("removing old files", &error))?;
            written = write_checkpoint(&self.shared, &head);
        }
        let bytes = match written {
            Ok(bytes) => bytes,
            Err(error) if is_full(&error) => {
                self.shared.set_full(true);
                return Ok(false);
            }
            Err(error) => return Err(self.shared.fail("writing a checkpoint", &error)),
        };
        self.checkpoint_number = number;
        self.is_checkpoint_sound = true;
        self.checkpoint_bytes = bytes;
        self.since_checkpoint_bytes = 0;
        self.has_unwritten = false;
        let removed = self.remove_dead().and_then(|()| self.remove_checkpoints(number.saturating_sub(1)));
        removed.map_err(|error| self.shared.fail("removing old files", &error))?;
        self.dead = self.dead_segments();
        Ok(true)
    }

    /// Tries to have room again after the disk was full: frees what is dead, and sets the reserves aside anew.
    pub fn regain_room(&mut self) -> Result<bool, StorageError> {
        // The second checkpoint removes what the first found dead.
        for _ in 0..2 {
            let has_to = self.has_unwritten || !self.dead_segments().is_empty();
            if has_to && !self.checkpoint()? {
                break;
            }
        }
        let has_room = self.make_reserves()? && self.has_spare_segment()?;
        self.shared.set_full(!has_room);
        Ok(has_room)
    }

    /// Whether the next segment has a file; makes it one if there is room.
    pub(super) fn has_spare_segment(&mut self) -> Result<bool, StorageError> {
        let bytes = self.shared.options.segment_bytes;
        if self.recycled.iter().any(|(_, recycled)| *recycled >= bytes) {
            return Ok(true);
        }
        // No segment has the number 0, so that the name is free.
        match segments::allocate(&self.shared, &names::recycled(0), bytes) {
            Ok(()) => self.recycled.push((0, bytes)),
            Err(error) if is_full(&error) => return Ok(false),
            Err(error) => return Err(self.shared.fail("making a segment", &error)),
        }
        Ok(true)
    }

    /// Sets room aside for settling and for a checkpoint on a full disk.
    pub(super) fn make_reserves(&mut self) -> Result<bool, StorageError> {
        let mut has_all = true;
        let bytes = self.shared.options.reserve_bytes();
        for (name, is_there) in [(names::RESERVE, &mut self.has_reserve), (names::ROOM, &mut self.has_room)] {
            if *is_there {
                continue;
            }
            match segments::allocate(&self.shared, name, bytes) {
                Ok(()) => *is_there = true,
                Err(error) if is_full(&error) => has_all = false,
                Err(error) => return Err(self.shared.fail("setting room aside", &error)),
            }
        }
        Ok(has_all)
    }

    /// Keeps some files for use again and removes the others.
    pub(super) fn keep_recycled(&mut self, files: Vec<(SegmentId, u64)>) -> Result<(), StorageError> {
        for (id, bytes) in files {
            let is_useful = bytes == self.shared.options.segment_bytes;
            if is_useful && self.recycled.len() < self.shared.options.recycled_max {
                self.recycled.push((id, bytes));
            } else {
                let removed = self.shared.disk.remove(&names::recycled(id));
                removed.map_err(|error| self.shared.fail("removing old files", &error))?;
            }
        }
        Ok(())
    }

    fn dead_segments(&self) -> Vec<SegmentId> {
        let index = self.shared.index();
        let is_dead =
            |id: &SegmentId| index.segments.get(id).is_some_and(|state| state.live_count == 0 && !state.is_damaged);
        index.segments.keys().copied().filter(|id| *id < self.active.id && is_dead(id)).collect()
    }

    fn remove_dead(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut is_changed = false;
        for id in std::mem::take(&mut self.dead) {
            {
                let mut index = shared.index();
                // A read that is under way goes by places it was told before; the file goes at a later checkpoint.
                if index.segments.get(&id).is_none_or(|state| state.readers > 0) {
                    continue;
                }
                index.segments.remove(&id);
            }
            shared.forget_files(id);
            shared.figures.removed_segments.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            is_changed = true;
            match shared.disk.remove(&names::index(id)) {
                // Its index may never have been written.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let bytes = shared.file(id, Part::Log)?.length()?;
            shared.forget_files(id);
            let is_useful = bytes == shared.options.segment_bytes && self.recycled.len() < shared.options.recycled_max;
            // On a full disk others need the room, too.
            if is_useful && !self.is_full() {
                shared.disk.rename(&names::segment(id), &names::recycled(id))?;
                self.recycled.push((id, bytes));
            } else {
                shared.disk.remove(&names::segment(id))?;
            }
        }
        if is_changed { shared.sync_folder() } else { Ok(()) }
    }

    fn remove_checkpoints(&self, oldest_kept: u64) -> io::Result<()> {
        for (name, _) in self.shared.disk.list()? {
            if matches!(names::parse(&name), names::Named::Checkpoint(number) if number < oldest_kept) {
                self.shared.disk.remove(&name)?;
            }
        }
        Ok(())
    }
}

fn write_checkpoint(shared: &Shared, head: &Head) -> io::Result<u64> {
    let name = names::checkpoint(head.number);
    let temporary = names::temporary(&name);
    let written = shared.disk.create(&temporary).and_then(|file| {
        let bytes = checkpoint::write(&*file, head, || shared.index())?;
        shared.sync_data(&*file)?;
        Ok(bytes)
    });
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            // What is left of it is removed at the next start.
            drop(shared.disk.remove(&temporary));
            return Err(error);
        }
    };
    shared.disk.rename(&temporary, &name)?;
    shared.sync_folder()?;
    Ok(bytes)
}

/// A checkpoint comes after so many times its own length of log.
const CHECKPOINT_SHARE: u64 = 4;

/// So many dead segments are removed without waiting for a checkpoint to be due.
const DEAD_SEGMENTS_MAX: usize = 4;

/// A part of what a segment has, so that nothing is due for long before it is noticed.
const UNMAINTAINED_COMMITS_MAX: u32 = 64;
const UNMAINTAINED_BYTES_MAX: u64 = 1 << 20;
