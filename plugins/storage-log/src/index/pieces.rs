//! The live messages of one queue, as pieces of consecutive positions.

use std::collections::BTreeMap;

/// Number of a segment. A disk would have to take 2^32 segments before it is used up.
pub(crate) type SegmentId = u32;

/// Consecutive positions that lie in one segment, one entry of its index after the other. 32 bytes with its first
/// position, which is its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) last: u64,
    /// Share of the segment that the messages take.
    pub(crate) bytes: u64,
    pub(crate) segment: SegmentId,
    /// The place of the first position's entry in the segment's index.
    pub(crate) entry: u32,
}

/// A piece with its first position.
type Placed = (u64, Piece);

/// What left a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) segment: SegmentId,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// Where one message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    pub(crate) entry: u32,
    pub(crate) bytes: u64,
}

/// The live messages of one queue by first position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pieces(pub(crate) BTreeMap<u64, Piece>);

impl Pieces {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one message, or says where one now is that was elsewhere before.
    pub(crate) fn insert(&mut self, seq: u64, place: Place, freed: &mut Vec<Freed>) {
        let is_behind = self.0.last_key_value().is_none_or(|(_, piece)| piece.last < seq);
        if !is_behind {
            self.remove(seq, seq, freed);
        }
        if let Some((first, before)) = self.0.range_mut(..seq).next_back()
            && before.last.checked_add(1) == Some(seq)
            && before.segment == place.segment
            && u64::from(before.entry) + (seq - first) == u64::from(place.entry)
        {
            before.last = seq;
            before.bytes += place.bytes;
            return;
        }
        let Place { segment, entry, bytes } = place;
        self.0.insert(seq, Piece { last: seq, bytes, segment, entry });
    }

    /// Removes the positions from `first` to `last`.
    pub(crate) fn remove(&mut self, first: u64, last: u64, freed: &mut Vec<Freed>) {
        while let Some((start, piece)) = self.overlapping(first, last) {
            self.0.remove(&start);
            let (before, rest) = piece.split(start, first.max(start));
            let Some((rest_start, rest)) = rest else { continue };
            let cut = last.min(rest.last);
            let (gone, after) = match cut.checked_add(1) {
                Some(next) => rest.split(rest_start, next),
                None => (Some((rest_start, rest)), None),
            };
            for (start, piece) in [before, after].into_iter().flatten() {
                self.0.insert(start, piece);
            }
            if let Some((start, gone)) = gone {
                freed.push(Freed { segment: gone.segment, count: gone.count(start), bytes: gone.bytes });
            }
        }
    }

    /// The pieces of positions from `from` on, the first cut so that it begins there at the earliest.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = (u64, Piece)> {
        let around = self.0.range(..from).next_back().and_then(|(start, piece)| piece.split(*start, from).1);
        around.into_iter().chain(self.0.range(from..).map(|(start, piece)| (*start, *piece)))
    }

    /// The last position.
    pub(crate) fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, piece)| piece.last)
    }

    /// The segment that the message at this position is in.
    pub(crate) fn segment_of(&self, seq: u64) -> Option<SegmentId> {
        let (_, piece) = self.0.range(..=seq).next_back()?;
        (piece.last >= seq).then_some(piece.segment)
    }

    /// Positions as runs that do not touch.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (first, piece) in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(*first) => *last = piece.last,
                _ => ranges.push((*first, piece.last)),
            }
        }
        ranges
    }

    fn overlapping(&self, first: u64, last: u64) -> Option<(u64, Piece)> {
        if first > last {
            return None;
        }
        let (start, piece) = self.0.range(..=last).next_back()?;
        // Pieces do not overlap, so that the last one that begins in or before the range is the only one to ask.
        (piece.last >= first).then_some((*start, *piece))
    }
}

impl Piece {
    pub(crate) const fn count(&self, start: u64) -> u64 {
        (self.last - start).saturating_add(1)
    }

    /// The parts before `at` and from `at` on.
    fn split(self, start: u64, at: u64) -> (Option<Placed>, Option<Placed>) {
        if at <= start {
            return (None, Some((start, self)));
        }
        if at > self.last {
            return (Some((start, self)), None);
        }
        let before_count = at - start;
        let share = u128::from(self.bytes) * u128::from(before_count) / u128::from(self.count(start).max(1));
        let before_bytes = u64::try_from(share).unwrap_or(self.bytes);
        let before = Self { last: at - 1, bytes: before_bytes, ..self };
        let entry = self.entry.saturating_add(u32::try_from(before_count).unwrap_or(u32::MAX));
        (Some((start, before)), Some((at, Self { bytes: self.bytes - before_bytes, entry, ..self })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(seqs: &[u64]) -> Pieces {
        let mut pieces = Pieces::default();
        for (entry, seq) in seqs.iter().enumerate() {
            let entry = u32::try_from(entry).unwrap();
            pieces.insert(*seq, Place { segment: 1, entry, bytes: 10 }, &mut Vec::new());
        }
        pieces
    }

    #[test]
    fn consecutive_messages_are_one_piece() {
        let pieces = filled(&[1, 2, 3, 7, 8]);
        assert_eq!((pieces.0.len(), pieces.ranges()), (2, vec![(1, 3), (7, 8)]));
        assert_eq!(filled(&[2, 1]).0.len(), 2, "entries must be consecutive, too");
    }

    #[test]
    fn removal_splits_and_counts() {
        let mut pieces = filled(&(0..10).collect::<Vec<_>>());
        let mut freed = Vec::new();
        pieces.remove(3, 5, &mut freed);
        assert_eq!(freed, [Freed { segment: 1, count: 3, bytes: 30 }]);
        assert_eq!(pieces.ranges(), [(0, 2), (6, 9)]);
        assert_eq!(pieces.0[&6], Piece { last: 9, bytes: 40, segment: 1, entry: 6 });
        pieces.remove(9, 3, &mut freed);
        pieces.remove(0, u64::MAX, &mut freed);
        assert!(pieces.is_empty());
        assert_eq!(freed.iter().map(|freed| freed.bytes).sum::<u64>(), 100);
    }

    #[test]
    fn largest_position_can_be_removed() {
        let mut pieces = filled(&[u64::MAX - 1, u64::MAX]);
        pieces.remove(u64::MAX, u64::MAX, &mut Vec::new());
        assert_eq!(pieces.ranges(), [(u64::MAX - 1, u64::MAX - 1)]);
    }

    #[test]
    fn moved_message_leaves_its_old_segment() {
        let mut pieces = filled(&[1, 2, 3]);
        let mut freed = Vec::new();
        pieces.insert(2, Place { segment: 5, entry: 0, bytes: 11 }, &mut freed);
        assert_eq!(freed, [Freed { segment: 1, count: 1, bytes: 10 }]);
        assert_eq!((pieces.segment_of(2), pieces.segment_of(3), pieces.segment_of(4)), (Some(5), Some(1), None));
        assert_eq!(pieces.ranges(), [(1, 3)], "runs are joined across segments");
        assert_eq!(pieces.from(3).next().unwrap().1.entry, 2);
    }

    #[test]
    fn random_removals_agree_with_a_set() {
        let mut random = plugin_api::testing::Random::new(1);
        for _ in 0..200 {
            let mut pieces = filled(&(0..64).collect::<Vec<_>>());
            let mut set: std::collections::BTreeSet<u64> = (0..64).collect();
            for _ in 0..20 {
                let first = u64::from(random.below(64));
                let last = first + u64::from(random.below(8));
                let mut freed = Vec::new();
                pieces.remove(first, last, &mut freed);
                let before = set.len();
                set.retain(|seq| !(first..=last).contains(seq));
                assert_eq!(freed.iter().map(|freed| freed.count).sum::<u64>(), (before - set.len()) as u64);
            }
            let found: Vec<u64> = pieces.from(0).flat_map(|(first, piece)| first..=piece.last).collect();
            assert_eq!(found, set.into_iter().collect::<Vec<_>>());
            assert!(pieces.from(0).all(|(first, piece)| u64::from(piece.entry) == first), "entries follow positions");
        }
    }
}
