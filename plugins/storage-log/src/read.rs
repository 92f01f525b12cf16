//! Reading messages back: from the place of each to as few reads of the disk as possible.
//!
//! Nothing that is served has not been verified: a record's checksum must fit, and it must say itself that it belongs to
//! the queue and the position that was asked for. When an index leads elsewhere, the segment is searched and the index is
//! made again.

use std::collections::BTreeMap;
use std::io;

use plugin_api::storage::{StorageError, StoredMessage, Wanted};

use crate::disk::DiskFile;
use crate::error::Damage;
use crate::format::record::{self, Record};
use crate::index::pieces::SegmentId;
use crate::names;
use crate::scan::Walk;
use crate::shared::{Part, Shared};
use crate::sidecar::Sidecar;

impl Shared {
    /// See the trait's `read`.
    ///
    /// # Errors
    /// When the first of them is damaged. It is told once: the message is then no longer live.
    pub(crate) fn read(&self, wanted: &Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        let queue = wanted.queue.0;
        let mut found = Found { messages: Vec::new(), bytes_left: wanted.bytes_max, is_enough: false };
        let mut next = Some(wanted.first.0);
        // How much a message takes is known for runs together alone, so that it may take another look.
        while let Some(from) = next.filter(|from| *from <= wanted.last.0 && !found.is_enough) {
            let count_left = wanted.count_max.saturating_sub(found.messages.len());
            let (parts, segments) = self.places(queue, from, wanted.last.0, count_left, found.bytes_left);
            let read = parts.iter().try_for_each(|part| self.read_part(queue, part, &mut found));
            let mut index = self.index();
            for segment in segments {
                if let Some(state) = index.segments.get_mut(&segment) {
                    state.readers -= 1;
                }
            }
            drop(index);
            match read {
                Ok(()) => {}
                // What is in front of the damage is served first; the next read finds it again.
                Err(bad) if found.messages.is_empty() => return Err(self.give_up(queue, bad)),
                Err(_) => break,
            }
            next = parts.last().and_then(|part| part.last().checked_add(1));
        }
        Ok(found.messages)
    }

    /// Where about so many messages and bytes are, and the segments that are held for it.
    fn places(
        &self,
        queue: u64,
        from: u64,
        to: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> (Vec<Places>, Vec<SegmentId>) {
        let mut index = self.index();
        let index = &mut *index;
        let mut parts: Vec<Places> = Vec::new();
        let (mut count_left, mut bytes_left) = (count_max.min(LOOK_COUNT_MAX) as u64, (bytes_max as u64).max(1));
        let pieces = index.queues.get(&queue);
        for (first, piece) in pieces.into_iter().flat_map(|pieces| pieces.from(from)) {
            if count_left == 0 || bytes_left == 0 || first > to || parts.len() >= PARTS_MAX {
                break;
            }
            let share = piece.bytes / piece.count(first).max(1);
            // A message for many queues has less than a record's overhead as its share.
            let average = share.saturating_sub(record::OVERHEAD_BYTES as u64).max(share / 4).max(1);
            let wanted = (to - first).saturating_add(1).min(count_left).min((bytes_left / average).saturating_add(1));
            let count = piece.count(first).min(wanted);
            count_left -= count;
            bytes_left = bytes_left.saturating_sub(count.saturating_mul(average));
            let wanted = usize::try_from(count).unwrap_or(usize::MAX);
            let state = index.segments.get(&piece.segment);
            let entries = state
                .and_then(|state| state.resident.as_ref())
                .and_then(|resident| resident.get(&queue))
                .map(|entries| {
                    let mine = entries.iter().skip(piece.entry as usize).take(wanted);
                    mine.map(|entry| (entry.offset, entry.length)).collect()
                });
            parts.push(Places { segment: piece.segment, first, count: wanted, entry: piece.entry, entries });
        }
        let mut segments: Vec<SegmentId> = parts.iter().map(|part| part.segment).collect();
        segments.dedup();
        for segment in &segments {
            if let Some(state) = index.segments.get_mut(segment) {
                state.readers += 1;
            }
        }
        (parts, segments)
    }

    fn read_part(&self, queue: u64, part: &Places, found: &mut Found) -> Result<(), Bad> {
        if found.is_enough {
            return Ok(());
        }
        let bad = |seq, offset, what: String| Bad { segment: part.segment, seq, offset, what };
        let file = self
            .file(part.segment, Part::Log)
            .map_err(|error| bad(part.first, 0, format!("the segment cannot be opened: {error}")))?;
        let entries = match &part.entries {
            Some(entries) => entries.clone(),
            None => self.entries(part).unwrap_or_default(),
        };
        let mut done = 0;
        let mut chunk = Chunk::default();
        for (place, (offset, length)) in entries.iter().enumerate() {
            let seq = part.first.saturating_add(place as u64);
            let ahead = entries.get(place..).unwrap_or_default();
            let bytes = chunk.get(&*file, *offset, *length, ahead);
            match bytes.ok().flatten().and_then(|bytes| self.message(bytes, queue, seq)) {
                Some(message) => found.push(message),
                None => break,
            }
            if found.is_enough {
                return Ok(());
            }
            done += 1;
        }
        if done == part.count {
            return Ok(());
        }
        // The index is wrong, or the message is damaged: only reading the segment can tell.
        let missing = part.first.saturating_add(done as u64);
        let last = part.last();
        let mut others = self
            .search(queue, part.segment, &*file, missing, last)
            .map_err(|error| bad(missing, 0, format!("the segment cannot be read: {error}")))?;
        if part.entries.is_none() && others.contains_key(&missing) {
            self.report(Damage {
                file: names::index(part.segment),
                offset: 0,
                bytes: 0,
                what: "the index led to other messages; it is made again".to_owned(),
            });
            self.ask_repair(part.segment);
        }
        for seq in missing..=last {
            let offset =
                entries.get(usize::try_from(seq - part.first).unwrap_or(usize::MAX)).map_or(0, |entry| entry.0);
            let message = others.remove(&seq).ok_or_else(|| bad(seq, offset, "its record is damaged".to_owned()))?;
            found.push(message);
            if found.is_enough {
                break;
            }
        }
        Ok(())
    }

    fn entries(&self, part: &Places) -> Option<Vec<(u32, u32)>> {
        let file = self.file(part.segment, Part::Index).ok()?;
        let sidecar = Sidecar::open(&*file, self.store, part.segment, self.options.verifies()).ok()?;
        sidecar.entries(&*file, part.entry, part.count).ok()
    }

    /// The message of a record, if the record is sound and belongs there.
    fn message(&self, bytes: &[u8], queue: u64, seq: u64) -> Option<StoredMessage> {
        match record::decode(bytes, self.options.verifies())? {
            (Record::Message(message), _) if message.has_target(queue, seq) || !self.options.verifies() => {
                Some(message.to_stored(seq))
            }
            _ => None,
        }
    }

    /// All messages of the queue between two positions that the segment has, whatever its index says.
    fn search(
        &self,
        queue: u64,
        segment: SegmentId,
        file: &dyn DiskFile,
        first: u64,
        last: u64,
    ) -> io::Result<BTreeMap<u64, StoredMessage>> {
        let Some((salt, first_batch)) =
            self.index().segments.get(&segment).map(|state| (state.salt, state.first_batch))
        else {
            return Ok(BTreeMap::new());
        };
        let mut found = BTreeMap::new();
        let walk = Walk { segment, salt, first_batch, verify: self.options.verifies() };
        walk.run(file, |_, _, record, _| {
            let Record::Message(message) = record else { return };
            let mine = message.targets().filter(|(of, seq)| *of == queue && (first..=last).contains(seq));
            mine.for_each(|(_, seq)| drop(found.insert(seq, message.to_stored(seq))));
        })?;
        Ok(found)
    }

    /// Takes a damaged message out of what is live, and says so. Its segment is kept for ever.
    fn give_up(&self, queue: u64, bad: Bad) -> StorageError {
        let Bad { segment, seq, offset, what } = bad;
        {
            let mut index = self.index();
            // It may have been settled, or copied elsewhere, while it was read.
            if index.queues.get(&queue).and_then(|pieces| pieces.segment_of(seq)) == Some(segment) {
                index.settle(queue, seq, seq);
            }
            if let Some(state) = index.segments.get_mut(&segment) {
                state.is_damaged = true;
            }
        }
        let what = format!("message {seq} of queue {queue} is lost: {what}");
        let damage = Damage { file: names::segment(segment), offset: offset.into(), bytes: 0, what };
        let text = damage.to_string();
        self.report(damage);
        StorageError::Damaged(text)
    }
}

/// What a read has so far.
struct Found {
    messages: Vec<StoredMessage>,
    bytes_left: usize,
    /// The next message would have been too much.
    is_enough: bool,
}

impl Found {
    /// Takes the message if there is room for it, or if it is the first.
    fn push(&mut self, message: StoredMessage) {
        match self.bytes_left.checked_sub(message.bytes()) {
            Some(left) => self.bytes_left = left,
            None if self.messages.is_empty() => self.bytes_left = 0,
            None => {
                self.is_enough = true;
                return;
            }
        }
        self.messages.push(message);
    }
}

/// Consecutive messages in one segment.
struct Places {
    segment: SegmentId,
    first: u64,
    count: usize,
    entry: u32,
    /// Known already when they are resident.
    entries: Option<Vec<(u32, u32)>>,
}

impl Places {
    const fn last(&self) -> u64 {
        self.first.saturating_add((self.count as u64).saturating_sub(1))
    }
}

/// A message that cannot be read.
struct Bad {
    segment: SegmentId,
    seq: u64,
    offset: u32,
    what: String,
}

/// The part of a file that was read last.
#[derive(Default)]
struct Chunk {
    start: u64,
    bytes: Vec<u8>,
}

impl Chunk {
    /// The bytes of a record. Reads on as far as the following records of the row lie close by.
    fn get(
        &mut self,
        file: &dyn DiskFile,
        offset: u32,
        length: u32,
        ahead: &[(u32, u32)],
    ) -> io::Result<Option<&[u8]>> {
        let (start, length) = (u64::from(offset), u64::from(length));
        let end = start + length;
        if start < self.start || end > self.start + self.bytes.len() as u64 {
            let mut until = end;
            for (offset, length) in ahead {
                let (next, next_end) = (u64::from(*offset), u64::from(*offset) + u64::from(*length));
                if next > until + GAP_BYTES_MAX || next < start || next_end - start > CHUNK_BYTES_MAX {
                    break;
                }
                until = until.max(next_end);
            }
            // An entry that leads astray asks for no more than the file has.
            until = until.min(file.length()?);
            self.bytes.clear();
            self.bytes.resize(usize::try_from(until.saturating_sub(start)).unwrap_or_default(), 0);
            let count = file.read_at(&mut self.bytes, start)?;
            self.bytes.truncate(count);
            self.start = start;
        }
        let from = usize::try_from(start - self.start).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..).and_then(|rest| rest.get(..length)))
    }
}

/// One read of the disk covers so much at most, unless a single record is longer.
const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// So many messages, and runs of them, are looked up at once.
const LOOK_COUNT_MAX: usize = 16 << 10;
const PARTS_MAX: usize = 256;

/// Records this close together are read with what lies between them: shorter than a second read would take.
const GAP_BYTES_MAX: u64 = 16 << 10;
