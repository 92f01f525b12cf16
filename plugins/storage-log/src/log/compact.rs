//! Copying forward: what is left of mostly dead segments is written again, so that one old message cannot pin the disk.
//!
//! The copy is an ordinary message record for the targets that are still live. Replayed in order it moves them, whether or
//! not the old segment is still there.

use std::collections::BTreeSet;

use plugin_api::storage::{MessageSeq, QueueKey, StorageError};

use super::{Effect, Log, Room};
use crate::disk::DiskFile;
use crate::error::Damage;
use crate::format::record::{self, Record};
use crate::index::Index;
use crate::index::pieces::SegmentId;
use crate::names;
use crate::operation::Commit;
use crate::recovery::reindex;
use crate::shared::Part;
use crate::sidecar;

impl Log {
    /// Moves a part of one segment, if more is dead than the disk should carry. False when nothing has changed.
    pub(super) fn copy_forward(&mut self) -> Result<bool, StorageError> {
        let source = {
            let index = self.shared.index();
            pick(&index, self.active.id, self.shared.options.segment_bytes)
        };
        let Some(source) = source else { return Ok(false) };
        let (runs, entries) =
            match sidecar::load(&*self.shared.disk, self.shared.store, source, self.shared.options.verifies()) {
                Ok(loaded) => loaded,
                Err(_) => {
                    self.repair(source)?;
                    return Ok(true);
                }
            };
        let places = live_entries(&self.shared.index(), source, &runs);
        let wanted: BTreeSet<(u32, u32)> = places
            .into_iter()
            .flat_map(|(entry, count)| entries.iter().skip(entry as usize).take(count))
            .copied()
            .collect();
        self.move_records(source, &wanted)
    }

    /// False when nothing has changed: there is no room, or nothing to move.
    fn move_records(&mut self, source: SegmentId, wanted: &BTreeSet<(u32, u32)>) -> Result<bool, StorageError> {
        let file = match self.shared.file(source, Part::Log) {
            Ok(file) => file,
            Err(error) => {
                self.leave_alone(source, 0, 0, &format!("cannot be opened: {error}"));
                return Ok(true);
            }
        };
        let mut is_left_alone = false;
        let mut commit = Commit::begin(std::mem::take(&mut self.buffer));
        for (offset, length) in wanted {
            let bytes = read_record(&*file, *offset, *length);
            let decoded = bytes.as_deref().and_then(|bytes| record::decode(bytes, self.shared.options.verifies()));
            let Some((Record::Message(message), _)) = decoded else {
                // Readers will find each of its messages damaged and say so; here the segment is only left alone.
                self.leave_alone(source, (*offset).into(), (*length).into(), "a record cannot be read");
                is_left_alone = true;
                continue;
            };
            let targets: Vec<(QueueKey, MessageSeq)> = {
                let index = self.shared.index();
                let is_here = |queue: u64, seq| {
                    index.queues.get(&queue).and_then(|pieces| pieces.segment_of(seq)) == Some(source)
                };
                let live = message.targets().filter(|(queue, seq)| is_here(*queue, *seq));
                live.map(|(queue, seq)| (QueueKey(queue), MessageSeq(seq))).collect()
            };
            if !targets.is_empty() {
                commit.push(&targets, |out| message.encode_for(&targets, out));
            }
        }
        let Commit { mut bytes, records, added } = commit;
        self.shared.figures.copied_bytes.fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        let written =
            if records == 0 { Ok(()) } else { self.write_frame(&mut bytes, records, Room::Disk, Effect::Add(added)) };
        self.buffer = bytes;
        match written {
            Ok(()) => self.flush(false).map(|()| records > 0 || is_left_alone),
            Err(StorageError::Full(_)) => Ok(is_left_alone),
            Err(error) => Err(error),
        }
    }

    /// Makes the index of a segment again.
    pub(super) fn repair(&mut self, id: SegmentId) -> Result<(), StorageError> {
        if id == self.active.id || self.shared.index().segments.get(&id).is_none_or(|state| state.resident.is_some()) {
            return Ok(());
        }
        let mut damage = Vec::new();
        let read = self.shared.file(id, Part::Log).and_then(|file| {
            reindex(&mut self.shared.index(), id, &*file, self.shared.options.verifies(), &mut damage)
        });
        if let Err(error) = read {
            self.leave_alone(id, 0, 0, &format!("cannot be read: {error}"));
            return Ok(());
        }
        damage.into_iter().for_each(|damage| self.shared.report(damage));
        self.seal(id)
    }

    /// A segment with damage is neither copied nor removed.
    fn leave_alone(&self, id: SegmentId, offset: u64, bytes: u64, what: &str) {
        self.shared.report(Damage { file: names::segment(id), offset, bytes, what: what.to_owned() });
        if let Some(state) = self.shared.index().segments.get_mut(&id) {
            state.is_damaged = true;
        }
    }
}

/// The segment with the smallest live part, if more is dead in all of them than there is live, and a bit.
fn pick(index: &Index, active: SegmentId, segment_bytes: u64) -> Option<SegmentId> {
    let candidates = || {
        let all = index.segments.range(..active);
        all.filter(|(_, state)| state.live_count > 0 && !state.is_damaged && state.resident.is_none())
    };
    let (mut live, mut dead) = (0, 0);
    for (_, state) in candidates() {
        live += state.live_bytes;
        dead += state.file_bytes.saturating_sub(state.live_bytes);
    }
    if dead <= live + segment_bytes.saturating_mul(SLACK_SEGMENTS) {
        return None;
    }
    let permille = |live: u64, all: u64| live.saturating_mul(1000) / all.max(1);
    let emptiest = candidates().min_by_key(|(_, state)| permille(state.live_bytes, state.file_bytes));
    let (id, state) = emptiest?;
    (state.live_bytes < state.file_bytes / 2).then_some(*id)
}

/// Runs of entries of live messages, about as many as one step moves.
fn live_entries(index: &Index, source: SegmentId, runs: &[crate::index::Run]) -> Vec<(u32, usize)> {
    let mut places = Vec::new();
    let mut bytes = 0;
    for run in runs {
        let Some(pieces) = index.queues.get(&run.queue) else { continue };
        let mine = pieces.from(run.first).take_while(|(first, _)| *first <= run.last());
        for (first, piece) in mine.filter(|(_, piece)| piece.segment == source) {
            if bytes >= STEP_BYTES {
                return places;
            }
            let last = piece.last.min(run.last());
            let average = (piece.bytes / piece.count(first).max(1)).max(1);
            let count = (last - first).saturating_add(1).min((STEP_BYTES - bytes) / average + 1);
            bytes += count.saturating_mul(average);
            places.push((piece.entry, usize::try_from(count).unwrap_or(usize::MAX)));
        }
    }
    places
}

fn read_record(file: &dyn DiskFile, offset: u32, length: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    let count = file.read_at(&mut bytes, offset.into()).ok()?;
    (count == bytes.len()).then_some(bytes)
}

/// How much is moved between two commits: little, since commits wait for it.
const STEP_BYTES: u64 = 1 << 20;

/// So many segments may be dead in parts without anybody minding.
const SLACK_SEGMENTS: u64 = 4;
