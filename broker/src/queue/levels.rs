//! Ready messages by priority: the highest level that has any is served first (semantics 21.2).
//!
//! A queue without priorities has one [`Ready`] and pays nothing for the rest. One with `x-max-priority` has a [`Ready`] for each level
//! that was ever used, each with places, cold runs and marks of its own, and in the store a key of its own: so a restart knows a
//! message's level without reading it, and neighbours in a level are neighbours in the store, whatever came between them.

use std::sync::Arc;

use super::counts::Kept;
use super::discarded::Discarded;
use super::options::Priorities;
use super::ports::{LoadedMessage, Place, SeqRange};
use super::ready::{Entry, Front, Hot, Ready, Wanted};
use super::ttl;
use crate::message::Message;

/// See the module.
#[derive(Debug)]
pub(super) struct Levels {
    /// Everything, unless there are levels.
    only: Ready,
    several: Option<Box<Several>>,
    /// How long messages that come now may wait.
    ttl_ms: u64,
}

#[derive(Debug)]
struct Several {
    priorities: Priorities,
    first_seq: u64,
    /// By level; made when the level is first used, and kept then, because it counts its places.
    ready: Vec<Option<Box<Ready>>>,
    /// A bit for each level in which messages wait.
    waiting: [u64; 4],
    ttl_ms: u64,
    sums: Sums,
}

/// Of all levels.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    len: usize,
    hot_bytes: usize,
    body_bytes: u64,
    unsized_count: usize,
    kept: Kept,
}

impl Sums {
    fn of(ready: &Ready) -> Self {
        Self {
            len: ready.len(),
            hot_bytes: ready.hot_bytes(),
            body_bytes: ready.body_bytes(),
            unsized_count: ready.unsized_count(),
            kept: ready.kept(),
        }
    }

    /// These with one level's share replaced.
    fn with(self, old: Self, new: Self) -> Self {
        Self {
            len: self.len - old.len + new.len,
            hot_bytes: self.hot_bytes - old.hot_bytes + new.hot_bytes,
            body_bytes: self.body_bytes - old.body_bytes + new.body_bytes,
            unsized_count: self.unsized_count - old.unsized_count + new.unsized_count,
            kept: self.kept.without(old.kept).and(new.kept),
        }
    }
}

impl Levels {
    /// Nothing waits, and the places of each level begin at `first_seq`; messages may wait `ttl_ms`. Without priorities there is one level.
    pub(super) fn new(priorities: Option<Priorities>, first_seq: u64, ttl_ms: u64) -> Self {
        let several = priorities.map(|priorities| Several {
            priorities,
            first_seq,
            ttl_ms,
            ready: Vec::new(),
            waiting: [0; 4],
            sums: Sums::default(),
        });
        Self { only: Ready::new(0, first_seq, ttl_ms), several: several.map(Box::new), ttl_ms }
    }

    /// Messages that come from now on may wait so long.
    pub(super) fn set_ttl(&mut self, ttl_ms: u64) {
        self.ttl_ms = ttl_ms;
        match &mut self.several {
            None => self.only.set_ttl(ttl_ms),
            Some(several) => {
                several.ttl_ms = ttl_ms;
                several.ready.iter_mut().flatten().for_each(|ready| ready.set_ttl(ttl_ms));
            }
        }
    }

    /// The deadline of a message that comes now.
    #[inline]
    pub(super) fn deadline_from(&self, now_ms: u64, message: &Message) -> u64 {
        ttl::deadline(self.ttl_ms, now_ms, message)
    }

    /// The deadline of a message that the store has, see [`Ready::deadline`].
    pub(super) fn deadline(&self, place: Place, came_ms: u64, now_ms: u64, message: &Message) -> u64 {
        let ready = self.level(place.level);
        ready.map_or(ttl::NEVER, |ready| ready.deadline(place.seq, came_ms, now_ms, message))
    }

    /// See [`Ready::came`].
    pub(super) fn came(&self, place: Place, deadline_ms: u64, message: &Message) -> u64 {
        self.level(place.level).map_or(deadline_ms, |ready| ready.came(place.seq, deadline_ms, message))
    }

    /// What is next in line.
    #[inline]
    pub(super) fn front(&self) -> Option<Front> {
        match &self.several {
            None => self.only.front(),
            Some(several) => several.next()?.front(),
        }
    }

    /// The next in line, if it is cold and only known not to have a deadline before some time.
    pub(super) fn unknown_front(&self) -> Option<SeqRange> {
        match &self.several {
            None => self.only.unknown_front(),
            Some(several) => several.next()?.unknown_front(),
        }
    }

    /// See [`Ready::learn_deadline`].
    pub(super) fn learn_deadline(&mut self, place: Place, deadline_ms: u64) {
        self.change(place.level, |ready| ready.learn_deadline(place.seq, deadline_ms));
    }

    /// Of all bodies that wait, as far as their sizes are known.
    #[inline]
    pub(super) fn body_bytes(&self) -> u64 {
        self.several.as_ref().map_or_else(|| self.only.body_bytes(), |several| several.sums.body_bytes)
    }

    /// What of it is in memory, and what lasts.
    pub(super) fn kept(&self) -> Kept {
        self.several.as_ref().map_or_else(|| self.only.kept(), |several| several.sums.kept)
    }

    /// The same by looking at every message.
    #[cfg(test)]
    pub(super) fn recount(&self) -> Kept {
        let several = self.several.iter().flat_map(|several| several.ready.iter().flatten());
        several.map(|ready| ready.recount()).fold(self.only.recount(), Kept::and)
    }

    /// The next in line, if it is in memory.
    pub(super) fn head(&self) -> Option<&Message> {
        match &self.several {
            None => self.only.head(),
            Some(several) => several.next()?.head(),
        }
    }

    /// The next in line, as far as they are in memory and at most so many, each with whether it was handed out before.
    pub(super) fn peek(&self, count: usize) -> Vec<(Arc<Message>, bool)> {
        match &self.several {
            None => self.only.peek().take(count).collect(),
            // Higher levels go first; where one has a gap, nothing of lower ones is next.
            Some(several) => {
                let mut messages = Vec::new();
                for ready in several.ready.iter().rev().flatten() {
                    let before = messages.len();
                    messages.extend(ready.peek().take(count - before));
                    if messages.len() - before < ready.len() {
                        break;
                    }
                }
                messages
            }
        }
    }

    /// Messages of unknown size, to look at: at most so many of one level.
    pub(super) fn unsized_range(&self, count_max: u64) -> Option<SeqRange> {
        match &self.several {
            None => self.only.unsized_range(count_max),
            Some(several) if several.sums.unsized_count == 0 => None,
            Some(several) => several.waiting().rev().find_map(|level| several.level(level)?.unsized_range(count_max)),
        }
    }

    /// See [`Ready::learn_sizes`].
    pub(super) fn learn_sizes(&mut self, level: u8, through: u64, bodies: impl Iterator<Item = (u64, u64)>) {
        self.change(level, |ready| ready.learn_sizes(through, bodies));
    }

    fn level(&self, level: u8) -> Option<&Ready> {
        match &self.several {
            None => Some(&self.only),
            Some(several) => several.level(level),
        }
    }

    /// The level of a message: its priority; what is above the highest is the highest (semantics 21.1).
    #[inline]
    pub(super) fn level_of(&self, message: &Message) -> u8 {
        match &self.several {
            None => 0,
            Some(several) => {
                let Priorities { max, default } = several.priorities;
                message.properties().priority().unwrap_or(default).min(max)
            }
        }
    }

    /// A place for a new message of a level.
    #[inline]
    pub(super) fn next_seq(&mut self, level: u8) -> u64 {
        match &mut self.several {
            None => self.only.next_seq(),
            Some(several) => several.level_mut(level).next_seq(),
        }
    }

    /// A lasting message is handed out and may come back; true if that says more than what is known already.
    #[inline]
    pub(super) fn mark(&mut self, place: Place) -> bool {
        match &mut self.several {
            None => self.only.mark(place.seq),
            Some(several) => several.level_mut(place.level).mark(place.seq),
        }
    }

    /// How many wait.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.several.as_ref().map_or_else(|| self.only.len(), |several| several.sums.len)
    }

    /// Whether none waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.several.as_ref().map_or_else(|| self.only.is_empty(), |several| several.sums.len == 0)
    }

    /// Whether a new message of this level would be the next to be handed out.
    #[inline]
    pub(super) fn would_be_next(&self, level: u8) -> bool {
        match &self.several {
            None => self.only.is_empty(),
            Some(several) => several.highest().is_none_or(|highest| highest < level),
        }
    }

    /// Whether the next one is in memory.
    #[inline]
    pub(super) fn has_hot(&self) -> bool {
        match &self.several {
            None => self.only.has_hot(),
            Some(several) => several.next().is_some_and(Ready::has_hot),
        }
    }

    /// Bytes of what waits in memory, as [`Message::weight`] counts.
    #[inline]
    pub(super) fn hot_bytes(&self) -> usize {
        self.several.as_ref().map_or_else(|| self.only.hot_bytes(), |several| several.sums.hot_bytes)
    }

    /// Whether new messages of a level must join messages that only the store has.
    #[inline]
    pub(super) fn has_cold(&self, level: u8) -> bool {
        match &self.several {
            None => self.only.has_cold(),
            Some(several) => several.level(level).is_some_and(Ready::has_cold),
        }
    }

    /// Whether any waiting message may be out of memory.
    #[inline]
    pub(super) fn may_want(&self) -> bool {
        match &self.several {
            None => self.only.has_cold() || !self.only.has_hot() && !self.only.is_empty(),
            Some(several) => several.sums.len > 0,
        }
    }

    /// A new message in memory, at the tail of its level; only while nothing of that is cold.
    #[inline]
    pub(super) fn push(&mut self, hot: Hot) {
        match &mut self.several {
            None => self.only.push(hot),
            Some(several) => several.change(hot.level, |ready| ready.push(hot)),
        }
    }

    /// A message at the tail of its level that only the store has, or will have when a load is answered.
    pub(super) fn push_cold(&mut self, place: Place, stored: super::Stored, deadline_ms: u64, message: &Message) {
        self.change(place.level, |ready| ready.push_cold(place.seq, stored, deadline_ms, message));
    }

    /// Adds messages of an earlier run, ascending; `marked` is the last of the level that may have been handed out.
    pub(super) fn restore_run(&mut self, level: u8, first: u64, last: u64, marked: u64) {
        self.change(level, |ready| ready.restore_run(first, last, marked));
    }

    /// A message that had been handed out comes back to its place.
    #[inline]
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.change(entry.level, |ready| ready.put_back(entry));
    }

    /// The next to be handed out, if it is in memory.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Hot> {
        match &mut self.several {
            None => self.only.pop(),
            Some(several) => {
                let level = several.highest()?;
                several.change(level, Ready::pop)
            }
        }
    }

    /// The next in line, unless it is cold; it may be without a body.
    pub(super) fn pop_entry(&mut self) -> Option<Entry> {
        match &mut self.several {
            None => self.only.pop_entry(),
            Some(several) => {
                let level = several.highest()?;
                several.change(level, Ready::pop_entry)
            }
        }
    }

    /// Takes up to so many of the next in line out, where those are cold.
    pub(super) fn cut_cold(&mut self, count_max: u64) -> Option<SeqRange> {
        match &mut self.several {
            None => self.only.cut_cold(count_max),
            Some(several) => {
                let level = several.highest()?;
                several.change(level, |ready| ready.cut_cold(count_max))
            }
        }
    }

    /// The level whose last message in memory is needed last, below `below`.
    pub(super) fn lowest_hot(&self, below: Option<u8>) -> Option<u8> {
        match &self.several {
            None => (below.is_none() && self.only.has_head()).then_some(0),
            Some(several) => {
                let mut waiting = several.waiting().take_while(|level| below.is_none_or(|below| *level < below));
                waiting.find(|level| several.level(*level).is_some_and(Ready::has_head))
            }
        }
    }

    /// The last message of a level's head.
    pub(super) fn last_hot(&mut self, level: u8) -> Option<&mut Hot> {
        match &mut self.several {
            None => self.only.last_hot(),
            Some(several) => several.level_mut(level).last_hot(),
        }
    }

    /// Takes the last message of a level's head out of memory, to the front of what is cold.
    pub(super) fn cool_last(&mut self, level: u8) {
        self.change(level, Ready::cool_last);
    }

    /// Takes bodies of returned messages out of memory, those that are needed last first, until `excess` bytes are gone. `each` sees to it
    /// that the store has them.
    pub(super) fn cool_returned(&mut self, excess: usize, mut each: impl FnMut(&Entry, Arc<Message>)) {
        let Some(several) = &mut self.several else {
            self.only.cool_returned(excess, each);
            return;
        };
        let mut left = excess;
        for level in several.waiting().collect::<Vec<u8>>() {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(several.change(level, |ready| ready.cool_returned(left, &mut each)));
        }
    }

    /// What must be loaded next, in order: up to `runs_max` runs with `count_max` messages of one level. Empty when nothing is out of
    /// memory, and when what is needed before that takes `enough_bytes` in memory.
    pub(super) fn wanted(&self, enough_bytes: usize, runs_max: usize, count_max: u64) -> Wanted {
        let Some(several) = &self.several else {
            let is_enough = self.only.has_hot() && self.only.hot_bytes() >= enough_bytes;
            return if is_enough { Wanted::default() } else { self.only.wanted(runs_max, count_max) };
        };
        let mut hot_bytes = 0;
        for ready in several.waiting().rev().filter_map(|level| several.level(level)) {
            hot_bytes += ready.hot_bytes();
            if ready.has_hot() && hot_bytes >= enough_bytes {
                break;
            }
            let wanted = ready.wanted(runs_max, count_max);
            if !wanted.ranges.is_empty() {
                return wanted;
            }
        }
        Wanted::default()
    }

    /// See [`Ready::warm_returned`].
    pub(super) fn warm_returned(
        &mut self,
        level: u8,
        ranges: &[SeqRange],
        through: u64,
        messages: Vec<LoadedMessage>,
    ) -> usize {
        self.change(level, |ready| ready.warm_returned(ranges, through, messages))
    }

    /// See [`Ready::warm_cold`].
    pub(super) fn warm_cold(&mut self, level: u8, through: u64, now_ms: u64, messages: Vec<LoadedMessage>) -> usize {
        self.change(level, |ready| ready.warm_cold(through, now_ms, messages))
    }

    /// Takes everything out, bodies to `discarded`; `each` is told what the store must forget.
    pub(super) fn clear(&mut self, discarded: &mut Discarded, mut each: impl FnMut(SeqRange)) {
        let Some(several) = &mut self.several else { return self.only.clear(discarded, each) };
        for level in several.waiting().collect::<Vec<u8>>() {
            several.change(level, |ready| ready.clear(discarded, &mut each));
        }
    }

    #[inline]
    fn change<R>(&mut self, level: u8, change: impl FnOnce(&mut Ready) -> R) -> R {
        match &mut self.several {
            None => change(&mut self.only),
            Some(several) => several.change(level, change),
        }
    }
}

impl Several {
    fn level(&self, level: u8) -> Option<&Ready> {
        self.ready.get(usize::from(level))?.as_deref()
    }

    fn level_mut(&mut self, level: u8) -> &mut Ready {
        let place = usize::from(level);
        if place >= self.ready.len() {
            self.ready.resize_with(place + 1, || None);
        }
        self.ready[place].get_or_insert_with(|| Box::new(Ready::new(level, self.first_seq, self.ttl_ms)))
    }

    /// Changes a level, and keeps the sums right.
    fn change<R>(&mut self, level: u8, change: impl FnOnce(&mut Ready) -> R) -> R {
        let ready = self.level_mut(level);
        let old = Sums::of(ready);
        let result = change(ready);
        let new = Sums::of(ready);
        self.sums = self.sums.with(old, new);
        let word = &mut self.waiting[usize::from(level / 64)];
        let bit = 1 << (level % 64);
        *word = if new.len > 0 { *word | bit } else { *word & !bit };
        result
    }

    /// The highest level in which messages wait.
    #[inline]
    fn highest(&self) -> Option<u8> {
        let (place, word) = (0_u8..4).zip(self.waiting).rfind(|(_, word)| *word != 0)?;
        // A word has 64 bits.
        Some(place * 64 + 63 - word.leading_zeros() as u8)
    }

    fn next(&self) -> Option<&Ready> {
        self.level(self.highest()?)
    }

    /// Levels in which messages wait, ascending.
    fn waiting(&self) -> impl DoubleEndedIterator<Item = u8> + use<> {
        let words = self.waiting;
        (0..=u8::MAX).filter(move |level| words[usize::from(level / 64)] & (1 << (level % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;
    use crate::queue::Stored;

    fn message(priority: u8) -> Arc<Message> {
        Message::new(Parts { exchange: "", routing_key: "", properties: &[0x08, 0, priority] }, b"")
    }

    fn push(levels: &mut Levels, priority: u8) -> Place {
        let message = message(priority);
        let level = levels.level_of(&message);
        let seq = levels.next_seq(level);
        let (deadline_ms, stored) = (ttl::NEVER, Stored::Nowhere);
        levels.push(Hot { seq, level, message, deadline_ms, returns: 0, redelivered: false, stored });
        Place { level, seq }
    }

    fn order(levels: &mut Levels) -> Vec<(u8, u64)> {
        std::iter::from_fn(|| levels.pop()).map(|hot| (hot.level, hot.seq)).collect()
    }

    #[test]
    fn a_priority_above_the_highest_is_the_highest_and_none_is_the_lowest() {
        let levels = Levels::new(Some(Priorities { max: 5, default: 0 }), 1, ttl::NEVER);
        let without = Message::new(Parts { exchange: "", routing_key: "", properties: &[0, 0] }, b"");
        assert_eq!(
            [levels.level_of(&without), levels.level_of(&message(5)), levels.level_of(&message(255))],
            [0, 5, 5]
        );
        assert_eq!(Levels::new(None, 1, ttl::NEVER).level_of(&message(9)), 0);
        assert_eq!(Levels::new(Some(Priorities { max: 255, default: 0 }), 1, ttl::NEVER).level_of(&message(255)), 255);
    }

    #[test]
    fn the_highest_level_goes_first_and_each_is_in_order() {
        let mut levels = Levels::new(Some(Priorities { max: 255, default: 0 }), 10, ttl::NEVER);
        for priority in [0, 64, 255, 0, 63, 255, 128] {
            push(&mut levels, priority);
        }
        assert_eq!((levels.len(), levels.has_hot()), (7, true));
        assert_eq!(order(&mut levels), [(255, 10), (255, 11), (128, 10), (64, 10), (63, 10), (0, 10), (0, 11)]);
        assert_eq!((levels.len(), levels.hot_bytes(), levels.is_empty()), (0, 0, true));
    }

    #[test]
    fn without_levels_priorities_mean_nothing() {
        let mut levels = Levels::new(None, 1, ttl::NEVER);
        for priority in [1, 9, 4] {
            push(&mut levels, priority);
        }
        assert_eq!(order(&mut levels), [(0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn a_returned_message_comes_back_to_its_level_and_place() {
        let mut levels = Levels::new(Some(Priorities { max: 9, default: 0 }), 1, ttl::NEVER);
        for priority in [3, 3, 7, 3] {
            push(&mut levels, priority);
        }
        let taken: Vec<Hot> = (0..2).filter_map(|_| levels.pop()).collect();
        assert_eq!(taken.iter().map(|hot| (hot.level, hot.seq)).collect::<Vec<_>>(), [(7, 1), (3, 1)]);
        for hot in taken {
            levels.put_back(hot.into());
        }
        assert_eq!(order(&mut levels), [(7, 1), (3, 1), (3, 2), (3, 3)]);
    }

    #[test]
    fn a_new_message_is_next_only_above_all_that_wait() {
        let mut levels = Levels::new(Some(Priorities { max: 9, default: 0 }), 1, ttl::NEVER);
        assert!(levels.would_be_next(0));
        push(&mut levels, 4);
        assert_eq!([3, 4, 5].map(|level| levels.would_be_next(level)), [false, false, true]);
    }

    #[test]
    fn what_is_needed_last_leaves_memory_first_and_what_is_needed_first_is_loaded_first() {
        let mut levels = Levels::new(Some(Priorities { max: 9, default: 0 }), 1, ttl::NEVER);
        for priority in [9, 2, 9, 2, 5] {
            push(&mut levels, priority);
        }
        let mut cooled = Vec::new();
        while let Some(level) = levels.lowest_hot(None) {
            cooled.extend(levels.last_hot(level).map(|hot| (hot.level, hot.seq)));
            if let Some(hot) = levels.last_hot(level) {
                hot.stored = Stored::Paged;
            }
            levels.cool_last(level);
        }
        assert_eq!(cooled, [(2, 2), (2, 1), (5, 1), (9, 2), (9, 1)]);
        assert_eq!((levels.len(), levels.hot_bytes(), levels.has_hot()), (5, 0, false));
        let wanted = levels.wanted(1, 8, 100);
        assert_eq!(wanted.ranges, [SeqRange { level: 9, first: 1, last: 2, stored: Stored::Paged }]);
        let loaded = [1, 2].map(|seq| LoadedMessage { seq, came_ms: 1, message: message(9) });
        assert_eq!(levels.warm_cold(9, 2, 1, loaded.to_vec()), 0);
        assert!(levels.wanted(1, 8, 100).ranges.is_empty(), "enough for now");
        let wanted = levels.wanted(10_000, 8, 100);
        assert_eq!(wanted.ranges, [SeqRange { level: 5, first: 1, last: 1, stored: Stored::Paged }]);
        assert_eq!(levels.lowest_hot(Some(9)), None);
        let mut cleared = Vec::new();
        levels.clear(&mut Discarded::default(), |range| cleared.push((range.level, range.first, range.last)));
        assert_eq!(cleared, [(2, 1, 2), (5, 1, 1), (9, 1, 1), (9, 2, 2)]);
        assert_eq!(push(&mut levels, 2).seq, 3, "places are used once");
    }
}
