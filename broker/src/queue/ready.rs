//! Messages that wait for a consumer, in publication order: those in memory, and those that only the store has.
//!
//! Three parts, one behind the other. *Returned*: what was handed out and came back takes its old place (semantics 13.20); everything that was
//! ever handed out stood before everything that was not. *Head*: in memory, next in line. *Cold*: only in the store, kept as runs
//! of neighbours, so that a backlog costs next to nothing; once there is one, new messages join behind it. Loading moves
//! cold messages to the head. What decides about memory is `paging.rs`. A queue with priorities has one of these for each level
//! that is in use, see `levels.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::ports::{Place, SeqRange, Stored};
use crate::message::Message;

/// A message in memory.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    /// Its place: ascending in publication order.
    pub(super) seq: u64,
    /// The level that it has this place in.
    pub(super) level: u8,
    /// What.
    pub(super) message: Arc<Message>,
    /// It was handed out before (semantics 13.21).
    pub(super) redelivered: bool,
    /// Where the store has it.
    pub(super) stored: Stored,
}

impl Hot {
    /// Where it stands.
    #[inline]
    pub(super) fn place(&self) -> Place {
        Place { level: self.level, seq: self.seq }
    }
}

/// A message that is or was in somebody's hands. Without a body it can be loaded again.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) level: u8,
    pub(super) message: Option<Arc<Message>>,
    pub(super) redelivered: bool,
    pub(super) stored: Stored,
}

impl From<Hot> for Entry {
    #[inline]
    fn from(hot: Hot) -> Self {
        let Hot { seq, level, message, redelivered, stored } = hot;
        Self { seq, level, message: Some(message), redelivered, stored }
    }
}

/// Neighbours that only the store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) range: SeqRange,
    /// They may have been handed out before the last restart.
    pub(super) redelivered: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ready {
    level: u8,
    /// The place of the next new message.
    next_seq: u64,
    /// Lasting messages up to this place may have been handed out (semantics 13.21).
    marked: u64,
    returned: BTreeMap<u64, Entry>,
    head: VecDeque<Hot>,
    cold: VecDeque<Run>,
    cold_count: usize,
    /// Of the bodies in `returned` and `head`.
    hot_bytes: usize,
}

impl Ready {
    /// Nothing waits, and places begin at `first_seq`.
    pub(super) fn new(level: u8, first_seq: u64) -> Self {
        Self {
            level,
            next_seq: first_seq,
            marked: 0,
            returned: BTreeMap::new(),
            head: VecDeque::new(),
            cold: VecDeque::new(),
            cold_count: 0,
            hot_bytes: 0,
        }
    }

    /// A place for a new message.
    #[inline]
    pub(super) fn next_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// A lasting message is handed out and may come back; true if that says more than what is known already.
    #[inline]
    pub(super) fn mark(&mut self, seq: u64) -> bool {
        let is_news = seq > self.marked;
        self.marked = self.marked.max(seq);
        is_news
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.head.len() + self.cold_count
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty() && self.returned.is_empty() && self.cold.is_empty()
    }

    /// Whether the next one is in memory.
    #[inline]
    pub(super) fn has_hot(&self) -> bool {
        match self.returned.is_empty() {
            true => !self.head.is_empty(),
            false => self.returned.first_key_value().is_some_and(|(_, entry)| entry.message.is_some()),
        }
    }

    /// Bytes of what waits in memory, as [`Message::weight`] counts.
    pub(super) fn hot_bytes(&self) -> usize {
        self.hot_bytes
    }

    /// Whether new messages must join messages that only the store has.
    #[inline]
    pub(super) fn has_cold(&self) -> bool {
        !self.cold.is_empty()
    }

    /// A new message in memory, at the tail; only while nothing is cold.
    #[inline]
    pub(super) fn push(&mut self, hot: Hot) {
        self.hot_bytes += hot.message.weight();
        self.head.push_back(hot);
    }

    /// A message at the tail that only the store has, or will have when a load is answered.
    pub(super) fn push_cold(&mut self, seq: u64, stored: Stored) {
        self.cold_count += 1;
        if let Some(run) = self.cold.back_mut()
            && run.range.stored == stored
            && run.range.last + 1 == seq
            && !run.redelivered
        {
            run.range.last = seq;
            return;
        }
        self.cold.push_back(Run { range: SeqRange::one(self.level, seq, stored), redelivered: false });
    }

    /// Adds messages of an earlier run, both ends inclusive, at the tail; `marked` is the last that may have been handed out.
    pub(super) fn restore_run(&mut self, first: u64, last: u64, marked: u64) {
        self.marked = self.marked.max(marked);
        for (first, last, redelivered) in [(first, last.min(marked), true), (first.max(marked + 1), last, false)] {
            if first <= last {
                let range = SeqRange { level: self.level, first, last, stored: Stored::Lasting };
                self.cold_count += range.len();
                self.cold.push_back(Run { range, redelivered });
            }
        }
    }

    /// A message that had been handed out comes back to its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.hot_bytes += entry.message.as_ref().map_or(0, |message| message.weight());
        self.returned.insert(entry.seq, entry);
    }

    /// The next to be handed out, if it is in memory.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Hot> {
        let hot = match self.returned.is_empty() {
            true => {
                let hot = self.head.pop_front();
                // A queue that was long gives its memory back when it has become short.
                if self.head.is_empty() && self.head.capacity() > KEEP_ENTRIES_MAX {
                    self.head = VecDeque::new();
                }
                hot?
            }
            false => {
                let first = self.returned.first_entry()?;
                let message = first.get().message.clone()?;
                let Entry { seq, level, redelivered, stored, .. } = first.remove();
                Hot { seq, level, message, redelivered, stored }
            }
        };
        self.hot_bytes -= hot.message.weight();
        Some(hot)
    }

    /// Takes the last message of the head out of memory, to the front of what is cold. `None` when there is none.
    pub(super) fn cool_last(&mut self) -> Option<&mut Run> {
        let hot = self.head.back()?;
        self.hot_bytes -= hot.message.weight();
        let Hot { seq, stored, redelivered, .. } = *hot;
        self.head.pop_back();
        self.cold_count += 1;
        let joins = self.cold.front().is_some_and(|run| {
            run.range.stored == stored && run.range.first == seq + 1 && run.redelivered == redelivered
        });
        if !joins {
            self.cold.push_front(Run { range: SeqRange::one(self.level, seq, stored), redelivered });
        }
        let run = self.cold.front_mut()?;
        run.range.first = seq;
        Some(run)
    }

    /// Whether a message that was never handed out is in memory.
    pub(super) fn has_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// The last message of the head.
    pub(super) fn last_hot(&mut self) -> Option<&mut Hot> {
        self.head.back_mut()
    }

    /// Takes bodies of returned messages out of memory, last first, until `excess` bytes are gone; `each` sees to it that the store has
    /// them. Returns the bytes.
    pub(super) fn cool_returned(
        &mut self,
        excess: usize,
        mut each: impl FnMut(&Arc<Message>, Place, &mut Stored),
    ) -> usize {
        let mut freed = 0;
        for entry in self.returned.values_mut().rev() {
            if freed >= excess {
                break;
            }
            if let Some(message) = entry.message.take() {
                each(&message, Place { level: entry.level, seq: entry.seq }, &mut entry.stored);
                freed += message.weight();
            }
        }
        self.hot_bytes -= freed;
        freed
    }

    /// What must be loaded next, in order: up to `runs_max` runs with `count_max` messages. Empty when the next message is in memory and
    /// nothing is cold.
    pub(super) fn wanted(&self, runs_max: usize, count_max: u64) -> Wanted {
        let mut wanted = Wanted { is_returned: false, ranges: Vec::new() };
        if self.returned.first_key_value().is_some_and(|(_, entry)| entry.message.is_none()) {
            wanted.is_returned = true;
            let bodiless = self.returned.values().take_while(|entry| entry.message.is_none());
            for entry in bodiless.take(usize::try_from(count_max).unwrap_or(usize::MAX)) {
                SeqRange::add(&mut wanted.ranges, self.level, entry.seq, entry.stored);
                if wanted.ranges.len() > runs_max {
                    wanted.ranges.pop();
                    break;
                }
            }
            return wanted;
        }
        let mut left = count_max;
        for run in self.cold.iter().take(runs_max) {
            let count = (run.range.last - run.range.first + 1).min(left);
            wanted.ranges.push(SeqRange { last: run.range.first + count - 1, ..run.range });
            left -= count;
            if left == 0 {
                break;
            }
        }
        wanted
    }

    /// Loaded bodies for returned messages. What the store no longer has is given up; returns how many that were.
    pub(super) fn warm_returned(
        &mut self,
        ranges: &[SeqRange],
        through: u64,
        messages: Vec<(u64, Arc<Message>)>,
    ) -> usize {
        for (seq, message) in messages {
            if let Some(entry) = self.returned.get_mut(&seq)
                && entry.message.is_none()
            {
                self.hot_bytes += message.weight();
                entry.message = Some(message);
            }
        }
        let mut lost = Vec::new();
        for range in ranges.iter().filter(|range| range.first <= through) {
            let covered = self.returned.range(range.first..=range.last.min(through));
            lost.extend(covered.filter(|(_, entry)| entry.message.is_none()).map(|(&seq, _)| seq));
        }
        for seq in &lost {
            self.returned.remove(seq);
        }
        lost.len()
    }

    /// Loaded cold messages, which cover everything cold up to `through`. What the store does not have is given up; returns how many
    /// that were.
    pub(super) fn warm_cold(&mut self, through: u64, messages: Vec<(u64, Arc<Message>)>) -> usize {
        let before = self.cold_count;
        let mut messages = messages.into_iter().peekable();
        let mut found = 0;
        while let Some(run) = self.cold.front_mut()
            && run.range.first <= through
        {
            let Run { range, redelivered } = *run;
            let last = range.last.min(through);
            while let Some((seq, message)) = messages.next_if(|(seq, _)| *seq <= last) {
                if seq >= range.first {
                    found += 1;
                    self.hot_bytes += message.weight();
                    self.head.push_back(Hot { seq, level: range.level, message, redelivered, stored: range.stored });
                }
            }
            self.cold_count -= SeqRange { last, ..range }.len();
            match last == range.last {
                true => drop(self.cold.pop_front()),
                false => run.range.first = last + 1,
            }
        }
        before - self.cold_count - found
    }

    /// Takes everything out; `each` is told what the store must forget. Places go on where they were.
    pub(super) fn clear(&mut self, mut each: impl FnMut(SeqRange)) {
        let empty = Self { marked: self.marked, ..Self::new(self.level, self.next_seq) };
        let Self { level, returned, head, cold, .. } = std::mem::replace(self, empty);
        let returned = returned.into_values().map(|entry| (entry.seq, entry.stored));
        let head = head.into_iter().map(|hot| (hot.seq, hot.stored));
        for (seq, stored) in returned.chain(head) {
            each(SeqRange::one(level, seq, stored));
        }
        for run in cold {
            each(run.range);
        }
    }
}

/// What a load asks for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Bodies of returned messages rather than cold ones.
    pub(super) is_returned: bool,
    pub(super) ranges: Vec<SeqRange>,
}

/// An empty queue keeps room for so many entries.
const KEEP_ENTRIES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;

    fn hot(seq: u64) -> Hot {
        let message = Message::new(Parts { exchange: "", routing_key: "", properties: &[0, 0] }, b"");
        Hot { seq, level: 0, message, redelivered: false, stored: Stored::Paged }
    }

    fn order(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop()).map(|hot| hot.seq).collect()
    }

    #[test]
    fn a_returned_message_keeps_its_place() {
        let mut ready = Ready::new(0, 1);
        for seq in 1..=5 {
            ready.push(hot(seq));
        }
        let mut taken: Vec<Hot> = (0..3).filter_map(|_| ready.pop()).collect();
        taken.reverse();
        for hot in taken.drain(..) {
            ready.put_back(hot.into());
        }
        assert_eq!(order(&mut ready), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_cold_comes_back_in_order_and_what_is_missing_is_given_up() {
        let mut ready = Ready::new(0, 1);
        for seq in 1..=3 {
            ready.push(hot(seq));
        }
        ready.cool_last();
        ready.cool_last();
        for seq in 4..=9 {
            ready.push_cold(seq, Stored::Paged);
        }
        assert_eq!((ready.len(), ready.wanted(8, 100).ranges.len()), (9, 1));
        let loaded = [2, 3, 4, 6].map(|seq| (seq, hot(seq).message));
        assert_eq!(ready.warm_cold(6, loaded.to_vec()), 1, "five is gone");
        assert_eq!(ready.len(), 8);
        assert_eq!(order(&mut ready), [1, 2, 3, 4, 6]);
        let wanted = ready.wanted(8, 2).ranges;
        assert_eq!((wanted[0].first, wanted[0].last), (7, 8));
        assert_eq!(ready.hot_bytes(), 0);
    }

    #[test]
    fn a_returned_message_without_body_stops_the_line_until_it_is_loaded() {
        let mut ready = Ready::new(0, 1);
        ready.push(hot(9));
        for seq in [3, 4, 6] {
            ready.put_back(Entry { seq, level: 0, message: None, redelivered: true, stored: Stored::Lasting });
        }
        assert!(ready.pop().is_none() && !ready.has_hot());
        let wanted = ready.wanted(8, 100);
        let ranges: Vec<(u64, u64)> = wanted.ranges.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!((wanted.is_returned, ranges), (true, vec![(3, 4), (6, 6)]));
        let lost = ready.warm_returned(&wanted.ranges, 6, vec![(3, hot(3).message), (6, hot(6).message)]);
        assert_eq!(lost, 1);
        assert_eq!(order(&mut ready), [3, 6, 9]);
    }
}
