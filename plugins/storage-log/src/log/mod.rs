//! The log itself: one writer, no threads, no waiting for anybody but the disk.
//!
//! ```text
//! commit: encode ─► write into the active segment ─► sync if asked ─► index ─► answer
//! change over (segment full): sync ─► new segment ─► index file of the old one
//! maintain (between commits): checkpoint ─► remove or recycle what is dead; copy forward what is mostly dead
//! ```
//!
//! [`crate::LogStorage`] says who runs this when; tests run it as it is. The order of syncs is data,
//! index file, checkpoint (temporary file, sync, rename, sync of the folder), removal, sync of the folder.

mod compact;
mod maintain;
mod segments;
mod start;

pub(crate) use start::lock_to_read;

use std::sync::Arc;

use plugin_api::storage::{Durability, Mark, Meta, QueueKey, Recovered, Settle, StorageError, StoredMessage, Wanted};

use crate::disk::{DiskFile, is_full};
use crate::error::Damage;
use crate::format::frame::{ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, frame_bytes};
use crate::format::record;
use crate::index::Added;
use crate::index::pieces::SegmentId;
use crate::operation::{Commit, Entry, Operation};
use crate::shared::Shared;

/// The writing side of a log.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    active: Active,
    next_batch: u64,
    /// All batches below this one are durable.
    synced_batch: u64,
    /// As the last segment's header says it: below this, nothing can be missing but by damage.
    promised_batch: u64,
    /// Written, but not in the index yet: what is not durable must not be served.
    pending: Vec<Pending>,
    since_checkpoint_bytes: u64,
    checkpoint_number: u64,
    checkpoint_bytes: u64,
    /// The checkpoint of that number was read at the start, or written since.
    is_checkpoint_sound: bool,
    /// Segments that were dead in the latest checkpoint; they go after the next one.
    dead: Vec<SegmentId>,
    recycled: Vec<(SegmentId, u64)>,
    /// Something is settled in memory alone, for want of room; the next checkpoint has it.
    has_unwritten: bool,
    has_reserve: bool,
    has_room: bool,
    /// What has come since [`Self::maintain`] looked for something to do.
    unmaintained: Unmaintained,
    salts: segments::Salts,
    buffer: Vec<u8>,
    _lock: Box<dyn Send + Sync>,
}

/// The segment that is written to.
struct Active {
    id: SegmentId,
    file: Arc<dyn DiskFile>,
    position: u64,
    capacity: u64,
    /// Up to here the file's blocks have been written to before.
    written: u64,
    salt: u64,
}

#[derive(Default, Clone, Copy)]
struct Unmaintained {
    commits: u32,
    /// Written, and died.
    bytes: u64,
    /// The last look found something, so that there may be more.
    has_more: bool,
}

/// What a written frame means.
struct Pending {
    frame_offset: u64,
    effect: Effect,
}

#[derive(Clone)]
enum Effect {
    Add(Vec<Added>),
    Settle(Vec<Settle>),
    Delete(QueueKey),
    Mark(Vec<Mark>),
    PutMeta(Vec<Entry>),
}

/// What room a frame may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Disk,
    /// The reserve, too: for what makes room in the end.
    Reserve,
}

impl Log {
    /// Does all of `operations` in their order with one sync at most, and answers each.
    pub fn commit(&mut self, operations: Vec<Operation>) -> Vec<Result<(), StorageError>> {
        self.commit_reusing(operations).0
    }

    /// As [`Self::commit`]; also gives back the buffers of the commits.
    pub(crate) fn commit_reusing(
        &mut self,
        operations: Vec<Operation>,
    ) -> (Vec<Result<(), StorageError>>, Vec<Vec<u8>>) {
        let needs_sync = |operation: &Operation| {
            matches!(operation, Operation::Append(_, Durability::Synced) | Operation::PutMeta(..))
        };
        let needs_sync = operations.iter().any(needs_sync);
        self.unmaintained.commits += 1;
        let mut buffers = Vec::new();
        let mut results: Vec<_> = operations.into_iter().map(|operation| self.write(operation, &mut buffers)).collect();
        // After a failed sync nobody knows what the disk has, so that nothing of this group may be promised.
        drop(self.flush(needs_sync));
        if let Some(failure) = self.shared.failure() {
            results.iter_mut().for_each(|result| *result = Err(failure.clone()));
        }
        (results, buffers)
    }

    /// What is live; see the trait's `recover`.
    #[must_use]
    pub fn recovered(&self) -> Recovered {
        self.shared.index().recovered()
    }

    /// Reads messages; see the trait's `read`.
    ///
    /// # Errors
    /// When the first message is damaged, once.
    pub fn read(&self, wanted: &Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.shared.read(wanted)
    }

    /// What has been found damaged since the folder was opened, and while it was.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.damage()
    }

    /// Whether messages are refused for want of room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.is_full.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn write(&mut self, operation: Operation, buffers: &mut Vec<Vec<u8>>) -> Result<(), StorageError> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        match operation {
            Operation::Append(commit, _) => {
                if commit.records == 0 {
                    return Ok(());
                }
                if self.is_full() && !self.regain_room()? {
                    return Err(full(&self.shared));
                }
                let Commit { mut bytes, records, added } = commit;
                let written = self.write_frame(&mut bytes, records, Room::Disk, Effect::Add(added));
                buffers.push(bytes);
                written
            }
            Operation::Settle(ranges) => {
                self.write_small(|out| record::encode_settle(&ranges, out), &Effect::Settle(ranges.clone()))
            }
            Operation::Delete(queue) => {
                self.write_small(|out| record::encode_delete(queue, out), &Effect::Delete(queue))
            }
            Operation::Mark(marks) => {
                self.write_small(|out| record::encode_marks(&marks, out), &Effect::Mark(marks.clone()))
            }
            Operation::PutMeta(entries) => {
                let records = u32::try_from(entries.len()).unwrap_or(u32::MAX);
                if records == 0 {
                    return Ok(());
                }
                let mut bytes = self.small_frame(|out| {
                    for (key, value) in &entries {
                        record::encode_meta(&Meta { key, value: value.as_deref() }, out);
                    }
                });
                let written = self.write_frame(&mut bytes, records, Room::Reserve, Effect::PutMeta(entries));
                self.keep_buffer(bytes);
                written
            }
        }
    }

    /// What may be forgotten in a crash is done in memory even if there is no room at all.
    fn write_small(&mut self, encode: impl FnOnce(&mut Vec<u8>), effect: &Effect) -> Result<(), StorageError> {
        let mut bytes = self.small_frame(encode);
        let written = self.write_frame(&mut bytes, 1, Room::Reserve, effect.clone());
        self.keep_buffer(bytes);
        match written {
            Err(StorageError::Full(_)) => {
                self.pending.push(Pending { frame_offset: 0, effect: effect.clone() });
                self.has_unwritten = true;
                Ok(())
            }
            other => other,
        }
    }

    /// A batch of definitions may have made it large.
    fn keep_buffer(&mut self, bytes: Vec<u8>) {
        self.buffer = if bytes.capacity() <= BUFFER_BYTES_MAX { bytes } else { Vec::new() };
    }

    fn small_frame(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.buffer);
        bytes.clear();
        bytes.resize(FRAME_HEADER_BYTES, 0);
        encode(&mut bytes);
        bytes
    }

    /// Writes a frame whose payload stands behind the room for its header.
    fn write_frame(
        &mut self,
        bytes: &mut Vec<u8>,
        records: u32,
        room: Room,
        effect: Effect,
    ) -> Result<(), StorageError> {
        let payload = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let Some(payload_bytes) = u32::try_from(payload.len()).ok().filter(|bytes| *bytes <= FRAME_BYTES_MAX) else {
            return Err(StorageError::Full(format!("a commit of {} bytes is too large", payload.len())));
        };
        let payload_crc = crc32c::crc32c(payload);
        let total = frame_bytes(payload_bytes.into());
        if self.active.position + total > self.active.capacity {
            self.change_over(total, room)?;
        }
        let header = FrameHeader {
            payload_bytes,
            payload_crc,
            segment: self.active.id.into(),
            batch: self.next_batch,
            synced: self.synced_batch,
            records,
        };
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes.iter_mut().zip(header.encode(self.active.salt)).for_each(|(place, byte)| *place = byte);
        let written = self.active.written;
        if room == Room::Disk {
            self.write_ahead(bytes, total);
        }
        let write = || self.active.file.write_at(bytes, self.active.position);
        if let Err(error) = self.shared.figures.writes.time(write, |_| bytes.len()) {
            // Where the next frame will begin has not moved, so that it overwrites whatever part of this one is there.
            self.active.written = written;
            return Err(self.no_room_or_failed("writing the log", &error));
        }
        self.pending.push(Pending { frame_offset: self.active.position, effect });
        self.active.position += total;
        self.since_checkpoint_bytes += total;
        self.unmaintained.bytes += total;
        self.next_batch += 1;
        Ok(())
    }

    /// Puts zeros behind a small frame that reaches blocks which were never written to. The first sync of such blocks also changes the
    /// file system's books, which takes longer than the sync of a small frame, and waits for others; so many small frames share it.
    fn write_ahead(&mut self, bytes: &mut Vec<u8>, frame_bytes: u64) {
        let end = self.active.position + frame_bytes;
        if end <= self.active.written || frame_bytes > SMALL_FRAME_BYTES_MAX {
            return;
        }
        let until = (end + WRITE_AHEAD_BYTES).min(self.active.capacity);
        bytes.resize(bytes.len() + usize::try_from(until.saturating_sub(end)).unwrap_or(0), 0);
        self.active.written = until;
    }

    /// Makes what was written durable if asked to, and then visible.
    fn flush(&mut self, sync: bool) -> Result<(), StorageError> {
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        if sync && self.synced_batch < self.next_batch {
            let synced = self.shared.sync_data(&*self.active.file);
            synced.map_err(|error| self.shared.fail("syncing the log", &error))?;
            self.synced_batch = self.next_batch;
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut index = self.shared.index();
        for Pending { frame_offset, effect } in self.pending.drain(..) {
            match effect {
                Effect::Add(added) => {
                    let offset = u32::try_from(frame_offset).unwrap_or(u32::MAX);
                    for mut added in added {
                        added.entry.offset = added.entry.offset.saturating_add(offset);
                        index.add(self.active.id, &added, true);
                    }
                }
                Effect::Settle(ranges) => {
                    for range in ranges.iter().filter(|range| range.first <= range.last) {
                        index.settle(range.queue.0, range.first.0, range.last.0);
                    }
                }
                Effect::Delete(queue) => index.delete(queue.0),
                Effect::Mark(marks) => marks.iter().for_each(|mark| index.mark(mark.queue.0, mark.last.0)),
                Effect::PutMeta(entries) => {
                    entries.iter().for_each(|(key, value)| index.put_meta(key, value.as_deref()));
                }
            }
        }
        if let Some(state) = index.segments.get_mut(&self.active.id) {
            state.end = self.active.position;
            state.next_batch = self.next_batch;
        }
        self.unmaintained.bytes += index.take_freed_bytes();
        Ok(())
    }

    /// No room is no failure; anything else that the disk says to a write is.
    fn no_room_or_failed(&self, doing: &str, error: &std::io::Error) -> StorageError {
        if !is_full(error) {
            return self.shared.fail(doing, error);
        }
        self.shared.set_full(true);
        full(&self.shared)
    }
}

fn full(shared: &Shared) -> StorageError {
    StorageError::Full(format!("no room on the disk of '{}'", shared.disk.title()))
}

/// Positions within a segment are 32 bits wide; callers split batches long before.
const FRAME_BYTES_MAX: u32 = 3 << 30;

/// Larger frames cost so much themselves that they need not be helped.
const SMALL_FRAME_BYTES_MAX: u64 = 16 << 10;

/// Costs a disk less than one of the changes of its books that it saves.
const WRITE_AHEAD_BYTES: u64 = 256 << 10;

/// A longer buffer is not kept for the next frame.
const BUFFER_BYTES_MAX: usize = 4 << 20;
