//! What is live and where, in memory: a piece per run of messages, nothing per message of a sealed segment.
//!
//! The log is the truth; this is what replaying it gives. It knows no files.

mod packed;
pub(crate) mod pieces;

use std::collections::BTreeMap;

use plugin_api::hash::Map;
use plugin_api::storage::{MessageSeq, QueueKey, Recovered, RecoveredQueue};

use self::pieces::{Freed, Piece, Pieces, Place, SegmentId};

/// The state that the log describes.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// One that is empty stays until the queue is deleted: its next message most likely comes soon.
    pub(crate) queues: Map<u64, Pieces>,
    pub(crate) meta: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The highest mark of each queue, until the queue is deleted or found empty at a start.
    pub(crate) marks: Map<u64, u64>,
    pub(crate) segments: BTreeMap<SegmentId, Segment>,
    freed: Vec<Freed>,
    /// What has died since somebody asked.
    freed_bytes: u64,
}

/// A segment as the index sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    pub(crate) salt: u64,
    pub(crate) first_batch: u64,
    /// The batch after its last one.
    pub(crate) next_batch: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
    pub(crate) live_count: u64,
    pub(crate) live_bytes: u64,
    /// Batches that a crash has caught half written, with later ones behind them: from the first to before the second.
    pub(crate) torn: Vec<(u64, u64)>,
    /// Something in it cannot be read: its file is kept, whatever becomes of the rest of it.
    pub(crate) is_damaged: bool,
    /// Reads that are under way. The file stays as it is meanwhile.
    pub(crate) readers: u32,
    /// The entries of a segment whose index file is not written yet, in the order of the log.
    pub(crate) resident: Option<Map<u64, Vec<Entry>>>,
}

/// Where one message is within a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// A message that has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) queue: u64,
    pub(crate) entry: Entry,
    /// Its share of the record, which may have several targets.
    pub(crate) bytes: u64,
}

impl Index {
    /// A message is in `segment`, whose entries are resident.
    pub(crate) fn add(&mut self, segment: SegmentId, added: &Added, is_live: bool) {
        let Some(state) = self.segments.get_mut(&segment) else { return };
        let Some(resident) = &mut state.resident else { return };
        let entries = resident.entry(added.queue).or_default();
        let entry = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        entries.push(added.entry);
        if !is_live {
            return;
        }
        state.live_count += 1;
        state.live_bytes += added.bytes;
        let place = Place { segment, entry, bytes: added.bytes };
        self.queues.entry(added.queue).or_default().insert(added.entry.seq, place, &mut self.freed);
        self.account();
    }

    /// Queues with live messages.
    pub(crate) fn live_queues(&self) -> impl Iterator<Item = u64> {
        self.queues.iter().filter(|(_, pieces)| !pieces.is_empty()).map(|(queue, _)| *queue)
    }

    /// Positions are settled.
    pub(crate) fn settle(&mut self, queue: u64, first: u64, last: u64) {
        let Some(pieces) = self.queues.get_mut(&queue) else { return };
        pieces.remove(first, last, &mut self.freed);
        self.account();
    }

    /// A queue is gone.
    pub(crate) fn delete(&mut self, queue: u64) {
        self.settle(queue, 0, u64::MAX);
        self.queues.remove(&queue);
        self.marks.remove(&queue);
    }

    /// Messages up to `last` may have been handed out. They may come later than this.
    pub(crate) fn mark(&mut self, queue: u64, last: u64) {
        let marked = self.marks.entry(queue).or_insert(last);
        *marked = (*marked).max(last);
    }

    /// Forgets marks beyond the last live message, since nothing is on its way any more; tells whether there were any.
    pub(crate) fn trim_marks(&mut self) -> bool {
        let mut is_changed = false;
        self.marks.retain(|queue, marked| {
            let last = self.queues.get(queue).and_then(Pieces::last);
            is_changed |= last.is_none_or(|last| last < *marked);
            *marked = (*marked).min(last.unwrap_or(0));
            last.is_some()
        });
        is_changed
    }

    pub(crate) fn put_meta(&mut self, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.meta.insert(key.to_vec(), value.to_vec()),
            None => self.meta.remove(key),
        };
    }

    /// The entries of a segment have been written to its index file in the order of [`lay_out`].
    pub(crate) fn sealed(&mut self, segment: SegmentId) {
        let Some(resident) = self.segments.get_mut(&segment).and_then(|state| state.resident.take()) else { return };
        let mut queues: Vec<(u64, Vec<Entry>)> = resident.into_iter().collect();
        queues.sort_unstable_by_key(|(queue, _)| *queue);
        let mut base = 0_u32;
        for (queue, entries) in queues {
            let seqs = || entries.iter().map(|entry| entry.seq);
            if let (Some(pieces), Some(first), Some(last)) = (self.queues.get_mut(&queue), seqs().min(), seqs().max()) {
                pieces.shift_entries(first, last, segment, base);
            }
            base = base.saturating_add(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        }
    }

    /// The runs of a segment now have their entries at these places. Pieces of the segment that no run has are taken out
    /// and returned: their messages are lost.
    pub(crate) fn attach(&mut self, segment: SegmentId, runs: &[Run]) -> Vec<(u64, u64, u64)> {
        let mut by_queue: Map<u64, Vec<&Run>> = Map::default();
        runs.iter().for_each(|run| by_queue.entry(run.queue).or_default().push(run));
        let mut lost = Vec::new();
        let (mut live_count, mut live_bytes) = (0, 0);
        self.queues.retain(|queue, pieces| {
            let runs = by_queue.get(queue).map(Vec::as_slice).unwrap_or_default();
            for (first, piece) in pieces.take_segment(segment) {
                let mut rest = Pieces::from_iter([(first, piece)]);
                let mut kept = Vec::new();
                for run in runs.iter().filter(|run| run.first <= piece.last && run.last() >= first) {
                    let (from, to) = (run.first.max(first), run.last().min(piece.last));
                    rest.remove(from, to, &mut kept);
                    let bytes = kept.drain(..).map(|freed: Freed| freed.bytes).sum();
                    let entry = run.entry.saturating_add(u32::try_from(from - run.first).unwrap_or(u32::MAX));
                    let attached = Piece { last: to, bytes, segment, entry };
                    live_count += attached.count(from);
                    live_bytes += bytes;
                    pieces.put(from, attached);
                }
                lost.extend(rest.iter().map(|(first, piece)| (*queue, first, piece.last)));
            }
            !pieces.is_empty()
        });
        if let Some(state) = self.segments.get_mut(&segment) {
            (state.live_count, state.live_bytes) = (live_count, live_bytes);
        }
        lost
    }

    /// The pieces were read from a checkpoint: counts what is live in each segment.
    pub(crate) fn count_live(&mut self) {
        for state in self.segments.values_mut() {
            (state.live_count, state.live_bytes) = (0, 0);
        }
        for (first, piece) in self.queues.values().flat_map(Pieces::iter) {
            if let Some(state) = self.segments.get_mut(&piece.segment) {
                state.live_count += piece.count(first);
                state.live_bytes += piece.bytes;
            }
        }
    }

    pub(crate) fn live_count(&self) -> u64 {
        self.segments.values().map(|segment| segment.live_count).sum()
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.live_bytes).sum()
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.file_bytes).sum()
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let recovered = |(queue, pieces): (&u64, &Pieces)| {
            let ranges: Vec<(MessageSeq, MessageSeq)> =
                pieces.ranges().into_iter().map(|(first, last)| (MessageSeq(first), MessageSeq(last))).collect();
            let (_, last) = *ranges.last()?;
            let marked = self.marks.get(queue).map(|marked| last.min(MessageSeq(*marked)));
            Some(RecoveredQueue { queue: QueueKey(*queue), ranges, marked })
        };
        let mut queues: Vec<RecoveredQueue> = self.queues.iter().filter_map(recovered).collect();
        queues.sort_unstable_by_key(|queue| queue.queue);
        Recovered { meta: self.meta.iter().map(|(key, value)| (key.clone(), value.clone())).collect(), queues }
    }

    /// How many bytes have died since the last call.
    pub(crate) fn take_freed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.freed_bytes)
    }

    fn account(&mut self) {
        for freed in self.freed.drain(..) {
            if let Some(state) = self.segments.get_mut(&freed.segment) {
                state.live_count = state.live_count.saturating_sub(freed.count);
                state.live_bytes = state.live_bytes.saturating_sub(freed.bytes);
                self.freed_bytes += freed.bytes;
            }
        }
    }
}

/// Consecutive positions whose entries follow each other in a segment's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) queue: u64,
    pub(crate) first: u64,
    pub(crate) count: u32,
    pub(crate) entry: u32,
}

impl Run {
    pub(crate) const fn last(&self) -> u64 {
        self.first.saturating_add((self.count as u64).saturating_sub(1))
    }
}

/// Puts the entries of a segment into one row, queue after queue, and finds their runs. The same segment always gives the
/// same row, which pieces in a checkpoint rely on when an index must be made again.
pub(crate) fn lay_out(resident: &Map<u64, Vec<Entry>>) -> (Vec<Run>, Vec<Entry>) {
    let mut queues: Vec<(&u64, &Vec<Entry>)> = resident.iter().collect();
    queues.sort_unstable_by_key(|(queue, _)| **queue);
    let mut runs: Vec<Run> = Vec::new();
    let mut row = Vec::with_capacity(queues.iter().map(|(_, entries)| entries.len()).sum());
    for (queue, entries) in queues {
        let mut previous = None;
        for entry in entries {
            let place = u32::try_from(row.len()).unwrap_or(u32::MAX);
            row.push(*entry);
            match runs.last_mut() {
                Some(run) if previous.is_some_and(|seq: u64| seq.checked_add(1) == Some(entry.seq)) => run.count += 1,
                _ => runs.push(Run { queue: *queue, first: entry.seq, count: 1, entry: place }),
            }
            previous = Some(entry.seq);
        }
    }
    (runs, row)
}

/// The runs of resident entries, each queue's entries counted from its own first.
pub(crate) fn local_runs(resident: &Map<u64, Vec<Entry>>) -> Vec<Run> {
    let (mut runs, _) = lay_out(resident);
    let mut base = (0, 0);
    for run in &mut runs {
        if base.0 != run.queue || run.entry == 0 {
            base = (run.queue, run.entry);
        }
        run.entry -= base.1;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(queue: u64, seq: u64, offset: u32) -> Added {
        Added { queue, entry: Entry { seq, offset, length: 10 }, bytes: 10 }
    }

    fn index() -> Index {
        let mut index = Index::default();
        index.segments.insert(1, Segment { resident: Some(Map::default()), ..Segment::default() });
        index
    }

    #[test]
    fn entries_are_laid_out_queue_after_queue() {
        let mut index = index();
        for (offset, (queue, seq)) in [(2, 1), (1, 5), (2, 2), (2, 9), (1, 6)].into_iter().enumerate() {
            index.add(1, &added(queue, seq, u32::try_from(offset).unwrap()), true);
        }
        let (runs, row) = lay_out(index.segments[&1].resident.as_ref().unwrap());
        let runs_expected = [(1, 5, 2, 0), (2, 1, 2, 2), (2, 9, 1, 4)].map(|(queue, first, count, entry)| Run {
            queue,
            first,
            count,
            entry,
        });
        assert_eq!(runs, runs_expected);
        assert_eq!(row.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [1, 4, 0, 2, 3]);
        index.sealed(1);
        let (_, piece) = index.queues[&2].from(2).next().unwrap();
        assert_eq!((piece.entry, index.live_count(), index.live_bytes()), (3, 5, 50));
    }

    #[test]
    fn attaching_tells_what_is_lost() {
        let mut index = index();
        (0..10).for_each(|seq| index.add(1, &added(1, seq, 0), true));
        let runs = [Run { queue: 1, first: 0, count: 3, entry: 0 }, Run { queue: 1, first: 6, count: 4, entry: 3 }];
        assert_eq!(index.attach(1, &runs), [(1, 3, 5)]);
        assert_eq!(index.queues[&1].ranges(), [(0, 2), (6, 9)]);
        assert_eq!((index.live_count(), index.live_bytes()), (7, 70));
    }

    #[test]
    fn marks_rise_and_are_kept_for_what_is_live() {
        let mut index = index();
        (0..10).for_each(|seq| index.add(1, &added(seq % 2, seq, 0), true));
        let marked = |index: &Index| -> Vec<(u64, Option<u64>)> {
            let queues = index.recovered().queues;
            queues.into_iter().map(|queue| (queue.queue.0, queue.marked.map(|seq| seq.0))).collect()
        };
        [(0, 4), (0, 2), (1, 99), (7, 1)].into_iter().for_each(|(queue, last)| index.mark(queue, last));
        assert_eq!(marked(&index), [(0, Some(4)), (1, Some(9))]);
        assert_eq!(index.marks[&1], 99, "its messages may still come");
        assert!(index.trim_marks() && !index.trim_marks());
        assert_eq!((index.marks[&1], index.marks.get(&7)), (9, None));
        index.delete(1);
        index.add(1, &added(1, 11, 0), true);
        assert_eq!(marked(&index), [(0, Some(4)), (1, None)]);
    }

    #[test]
    fn settling_empties_segments() {
        let mut index = index();
        (0..10).for_each(|seq| index.add(1, &added(seq % 2, seq, 0), true));
        index.settle(0, 0, 9);
        assert_eq!((index.segments[&1].live_count, index.live_queues().count()), (5, 1));
        index.delete(1);
        assert_eq!((index.segments[&1].live_count, index.live_bytes(), index.live_queues().count()), (0, 0, 0));
    }
}
