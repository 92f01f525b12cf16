//! The live messages of one queue, as pieces of consecutive positions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::packed::Packed;

/// Number of a segment. A disk would have to take 2^32 segments before it is used up.
pub(crate) type SegmentId = u32;

/// Consecutive positions that lie in one segment, one entry of its index after the other. 32 bytes with its first
/// position, a few when packed.
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
pub(crate) type Placed = (u64, Piece);

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

/// The live messages of one queue in the order of their positions.
///
/// The newest few pieces, which change with every message, stand as they are; those in front of them are packed, some
/// dozens together. What happens to a packed piece unpacks its neighbours for a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// By the position of the first piece.
    packed: BTreeMap<u64, Packed>,
    newest: Vec<Placed>,
}

impl Pieces {
    pub(crate) fn is_empty(&self) -> bool {
        self.packed.is_empty() && self.newest.is_empty()
    }

    /// Adds one message, or says where one now is that was elsewhere before.
    pub(crate) fn insert(&mut self, seq: u64, place: Place, freed: &mut Vec<Freed>) {
        let is_behind = self.last().is_none_or(|last| last < seq);
        if !is_behind {
            self.remove(seq, seq, freed);
        }
        let Place { segment, entry, bytes } = place;
        let piece = Piece { last: seq, bytes, segment, entry };
        if is_behind {
            join(&mut self.newest, seq, piece);
            self.pack();
        } else {
            self.put(seq, piece);
        }
    }

    /// Adds a piece at positions where nothing is.
    pub(crate) fn put(&mut self, first: u64, piece: Piece) {
        let is_newest = self.newest.first().is_some_and(|(start, _)| *start <= first);
        let around = self.packed.range(..=first).next_back().or_else(|| self.packed.first_key_value());
        match around.map(|(start, _)| *start) {
            Some(start) if !is_newest => self.edit_packed(start, |pieces| {
                join(pieces, first, piece);
                true
            }),
            _ => {
                join(&mut self.newest, first, piece);
                self.pack();
            }
        }
    }

    /// Removes the positions from `first` to `last`.
    pub(crate) fn remove(&mut self, first: u64, last: u64, freed: &mut Vec<Freed>) {
        if first <= last {
            self.edit(first, last, |pieces| cut(pieces, first, last, freed));
        }
    }

    /// The pieces of positions from `from` on, the first cut so that it begins there at the earliest.
    pub(crate) fn from(&self, from: u64) -> impl Iterator<Item = Placed> {
        let start = self.packed.range(..=from).next_back().map_or(from, |(start, _)| *start);
        let packed = self.packed.range(start..).flat_map(|(start, packed)| packed.iter(*start));
        packed.chain(self.newest.iter().copied()).filter_map(move |(start, piece)| piece.split(start, from).1)
    }

    /// All pieces.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Placed> {
        self.from(0)
    }

    /// The last position.
    pub(crate) fn last(&self) -> Option<u64> {
        let packed = || self.packed.last_key_value().and_then(|(start, packed)| packed.iter(*start).last());
        self.newest.last().copied().or_else(packed).map(|(_, piece)| piece.last)
    }

    /// The segment that the message at this position is in.
    pub(crate) fn segment_of(&self, seq: u64) -> Option<SegmentId> {
        let (first, piece) = self.from(seq).next()?;
        (first == seq).then_some(piece.segment)
    }

    /// Positions as runs that do not touch.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (first, piece) in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(first) => *last = piece.last,
                _ => ranges.push((first, piece.last)),
            }
        }
        ranges
    }

    /// The entries of a segment's pieces between two positions now stand behind `base` others.
    pub(crate) fn shift_entries(&mut self, first: u64, last: u64, segment: SegmentId, base: u32) {
        self.edit(first, last, |pieces| {
            let mut mine = pieces.iter_mut().filter(|(_, piece)| piece.segment == segment).peekable();
            let is_changed = base > 0 && mine.peek().is_some();
            mine.for_each(|(_, piece)| piece.entry = piece.entry.saturating_add(base));
            is_changed
        });
    }

    /// Takes the pieces of a segment out.
    pub(crate) fn take_segment(&mut self, segment: SegmentId) -> Vec<Placed> {
        let mut taken = Vec::new();
        self.edit(0, u64::MAX, |pieces| {
            let before = taken.len();
            taken.extend(pieces.extract_if(.., |(_, piece)| piece.segment == segment));
            taken.len() > before
        });
        taken
    }

    /// The pieces as they are written down: some dozens together, with the first position and their number.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (u64, usize, Cow<'_, Packed>)> {
        let packed =
            self.packed.iter().map(|(first, packed)| (*first, packed.iter(*first).count(), Cow::Borrowed(packed)));
        let newest =
            self.newest.first().map(|(first, _)| (*first, self.newest.len(), Cow::Owned(Packed::new(&self.newest))));
        packed.chain(newest)
    }

    /// Adds a group as it was written down, behind the one whose last position is `before`. Answers its last position, if
    /// it is sound.
    pub(crate) fn push_group(&mut self, before: Option<u64>, first: u64, count: usize, bytes: &[u8]) -> Option<u64> {
        let (packed, last) = Packed::parse(first, count, bytes).filter(|_| before.is_none_or(|last| last < first))?;
        self.packed.insert(first, packed);
        Some(last)
    }

    /// Lets `change` change the pieces around these positions, a group at a time. It tells whether it did.
    fn edit(&mut self, first: u64, last: u64, mut change: impl FnMut(&mut Vec<Placed>) -> bool) {
        let start = self.packed.range(..=first).next_back().map_or(first, |(start, _)| *start);
        let starts: Vec<u64> = self.packed.range(start..=last).map(|(start, _)| *start).collect();
        for start in starts {
            self.edit_packed(start, &mut change);
        }
        if self.newest.first().is_some_and(|(start, _)| *start <= last) && change(&mut self.newest) {
            self.pack();
        }
    }

    fn edit_packed(&mut self, start: u64, change: impl FnOnce(&mut Vec<Placed>) -> bool) {
        let Some(packed) = self.packed.get(&start) else { return };
        let mut pieces: Vec<Placed> = packed.iter(start).collect();
        if !change(&mut pieces) {
            return;
        }
        self.packed.remove(&start);
        for group in pieces.chunks(GROUP_MAX) {
            self.add_group(group);
        }
    }

    fn add_group(&mut self, pieces: &[Placed]) {
        if let Some((first, _)) = pieces.first() {
            self.packed.insert(*first, Packed::new(pieces));
        }
    }

    /// Packs the older ones of the newest pieces when they have become many.
    fn pack(&mut self) {
        while self.newest.len() > NEWEST_MAX {
            let mut group: Vec<Placed> = self.newest.drain(..PACKED_AT_ONCE).collect();
            if let Some(entry) = self.packed.last_entry() {
                let before: Vec<Placed> = entry.get().iter(*entry.key()).collect();
                if before.len() + group.len() <= GROUP_MAX {
                    entry.remove();
                    group.splice(..0, before);
                }
            }
            self.add_group(&group);
        }
    }
}

impl FromIterator<Placed> for Pieces {
    fn from_iter<T: IntoIterator<Item = Placed>>(pieces: T) -> Self {
        let mut all = Self::default();
        pieces.into_iter().for_each(|(first, piece)| all.put(first, piece));
        all
    }
}

/// Puts a piece among others, or makes the one in front of it longer.
fn join(pieces: &mut Vec<Placed>, first: u64, piece: Piece) {
    let place = pieces.partition_point(|(start, _)| *start < first);
    if let Some((start, before)) = place.checked_sub(1).and_then(|place| pieces.get_mut(place))
        && before.last.checked_add(1) == Some(first)
        && before.segment == piece.segment
        && u64::from(before.entry) + (first - *start) == u64::from(piece.entry)
    {
        before.last = piece.last;
        before.bytes += piece.bytes;
        return;
    }
    pieces.insert(place, (first, piece));
}

/// Cuts the positions from `first` to `last` out; tells whether there were any.
fn cut(pieces: &mut Vec<Placed>, first: u64, last: u64, freed: &mut Vec<Freed>) -> bool {
    let from = pieces.partition_point(|(_, piece)| piece.last < first);
    let to = pieces.partition_point(|(start, _)| *start <= last);
    let Some(touched) = pieces.get(from..to).filter(|touched| !touched.is_empty()) else { return false };
    let (mut before_all, mut after_all) = (None, None);
    for (start, piece) in touched.iter().copied() {
        let (before, rest) = piece.split(start, first.max(start));
        let Some((rest_start, rest)) = rest else { continue };
        let (gone, after) = match last.min(rest.last).checked_add(1) {
            Some(next) => rest.split(rest_start, next),
            None => (Some((rest_start, rest)), None),
        };
        // Only the first of them reaches in front of the range, and only the last behind it.
        before_all = before_all.or(before);
        after_all = after;
        if let Some((start, gone)) = gone {
            freed.push(Freed { segment: gone.segment, count: gone.count(start), bytes: gone.bytes });
        }
    }
    pieces.splice(from..to, [before_all, after_all].into_iter().flatten());
    true
}

/// So many of the newest pieces stand unpacked at most, and so many are packed when they are more.
const NEWEST_MAX: usize = 12;
const PACKED_AT_ONCE: usize = 8;

/// So many pieces are packed together: enough that the map's overhead does not count, and unpacked within a microsecond.
const GROUP_MAX: usize = 64;

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
        assert_eq!((pieces.iter().count(), pieces.ranges()), (2, vec![(1, 3), (7, 8)]));
        assert_eq!(filled(&[2, 1]).iter().count(), 2, "entries must be consecutive, too");
    }

    #[test]
    fn removal_splits_and_counts() {
        let mut pieces = filled(&(0..10).collect::<Vec<_>>());
        let mut freed = Vec::new();
        pieces.remove(3, 5, &mut freed);
        assert_eq!(freed, [Freed { segment: 1, count: 3, bytes: 30 }]);
        assert_eq!(pieces.ranges(), [(0, 2), (6, 9)]);
        assert_eq!(pieces.from(6).next(), Some((6, Piece { last: 9, bytes: 40, segment: 1, entry: 6 })));
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

    /// As when messages are settled in any order and copied forward, with runs enough to be packed.
    #[test]
    fn random_changes_agree_with_a_map() {
        let mut random = plugin_api::testing::Random::new(5);
        for _ in 0..60 {
            let (mut pieces, mut map) = (Pieces::default(), BTreeMap::new());
            let (mut next, mut entry) = (0, 0);
            for step in 0..600_u32 {
                let mut freed = Vec::new();
                let before = map.len();
                match random.below(10) {
                    0..5 => {
                        next += 1 + u64::from(random.below(5)) / 4;
                        entry += 1;
                        let place = Place { segment: step / 40, entry, bytes: u64::from(random.below(3000)) };
                        pieces.insert(next, place, &mut freed);
                        assert_eq!((freed.len(), map.insert(next, place)), (0, None));
                    }
                    5..8 => {
                        let first = next.saturating_sub(u64::from(random.below(700)));
                        let last = first + u64::from(random.below(4));
                        pieces.remove(first, last, &mut freed);
                        map.retain(|seq, _| !(first..=last).contains(seq));
                        assert_eq!(freed.iter().map(|freed| freed.count).sum::<u64>(), (before - map.len()) as u64);
                    }
                    _ => {
                        let seq = u64::from(random.below(next as u32 + 1));
                        entry += 2;
                        let place = Place { segment: step / 40, entry, bytes: 7 };
                        pieces.insert(seq, place, &mut freed);
                        assert_eq!(freed.len(), usize::from(map.insert(seq, place).is_some()));
                    }
                }
                let seq = u64::from(random.below(next as u32 + 2));
                assert_eq!(pieces.segment_of(seq), map.get(&seq).map(|place| place.segment));
            }
            let places = |pieces: &Pieces, from| -> Vec<(u64, SegmentId, u32)> {
                let all = pieces.from(from).flat_map(|(first, piece)| {
                    (first..=piece.last).map(move |seq| (seq, piece.segment, piece.entry + (seq - first) as u32))
                });
                all.collect()
            };
            let mut again = Pieces::default();
            let mut last = None;
            for (first, count, packed) in pieces.groups() {
                assert_eq!(again.push_group(Some(u64::MAX), first, count, packed.bytes()), None);
                last = again.push_group(last, first, count, packed.bytes());
                assert!(last.is_some());
            }
            assert_eq!(again.last(), map.keys().next_back().copied());
            for from in [0, next / 2, next] {
                let expected: Vec<(u64, SegmentId, u32)> =
                    map.range(from..).map(|(seq, place)| (*seq, place.segment, place.entry)).collect();
                assert_eq!(places(&pieces, from), expected);
                assert_eq!(places(&again, from), expected);
            }
            let bytes: u64 = pieces.iter().map(|(_, piece)| piece.bytes).sum();
            assert!(pieces.newest.len() <= NEWEST_MAX && bytes > 0);
            pieces.shift_entries(0, u64::MAX, 3, 1000);
            let (taken, count) = (pieces.take_segment(3), map.values().filter(|place| place.segment == 3).count());
            assert_eq!(taken.iter().map(|(first, piece)| piece.count(*first)).sum::<u64>(), count as u64);
            assert!(taken.iter().all(|(_, piece)| piece.entry >= 1000));
            taken.into_iter().for_each(|(first, piece)| pieces.put(first, piece));
            let shifted = |place: &Place| if place.segment == 3 { place.entry + 1000 } else { place.entry };
            let expected: Vec<_> = map.iter().map(|(seq, place)| (*seq, place.segment, shifted(place))).collect();
            assert_eq!(places(&pieces, 0), expected);
        }
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
