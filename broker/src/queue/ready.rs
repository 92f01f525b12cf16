//! Messages that wait for a consumer, in publication order: those in memory, and those that only the store has.
//!
//! Three parts, one behind the other. *Returned*: what was handed out and came back takes its old place (semantics 13.20); everything that was
//! ever handed out stood before everything that was not. *Head*: in memory, next in line. *Cold*: only in the store, kept as runs
//! of neighbours, so that a backlog costs next to nothing; once there is one, new messages join behind it. Loading moves
//! cold messages to the head. What decides about memory is `paging.rs`. A queue with priorities has one of these for each level
//! that is in use, see `levels.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::counts::Kept;
use super::discarded::Discarded;
use super::ports::{LoadedMessage, Place, SeqRange, Stored};
use super::ttl::{self, NEVER, Ttls};
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
    /// When its time is up, in milliseconds since the epoch; [`NEVER`] for most.
    pub(super) deadline_ms: u64,
    /// How often it came back.
    pub(super) returns: u16,
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
    pub(super) deadline_ms: u64,
    /// Of its body.
    pub(super) body_bytes: u32,
    pub(super) returns: u16,
    pub(super) redelivered: bool,
    pub(super) stored: Stored,
}

impl From<Hot> for Entry {
    #[inline]
    fn from(hot: Hot) -> Self {
        let Hot { seq, level, message, deadline_ms, returns, redelivered, stored } = hot;
        let body_bytes = body_bytes(&message) as u32;
        Self { seq, level, message: Some(message), deadline_ms, body_bytes, returns, redelivered, stored }
    }
}

impl Entry {
    /// What it is for the sums.
    #[inline]
    pub(super) fn kept(&self) -> Kept {
        Kept::of(self.stored, self.message.is_some(), u64::from(self.body_bytes))
    }
}

/// What a message counts for in the length of a queue (semantics 19.1). A body that is announced has far less than 4 GiB.
#[inline]
fn body_bytes(message: &Message) -> u64 {
    message.body().len() as u64
}

/// What is next in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    /// When its time is up, at the earliest where that is not known exactly; [`NEVER`] for most.
    pub(super) deadline_ms: u64,
    /// Only the store has it.
    pub(super) is_cold: bool,
}

/// Neighbours that only the store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) range: SeqRange,
    /// They may have been handed out before the last restart.
    pub(super) redelivered: bool,
    /// The time of none of them is up before this. 0 where nothing is known: they are of an earlier run.
    pub(super) earliest_ms: u64,
    /// Of their bodies; not known of an earlier run.
    pub(super) body_bytes: Option<u64>,
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
    /// Of what is in memory in `returned` and `head`.
    hot_bytes: usize,
    /// Of all bodies, as far as they are known.
    body_bytes: u64,
    /// Cold messages of unknown size.
    unsized_count: usize,
    kept: Kept,
    ttls: Ttls,
    /// The first of the cold ones that was looked at, and its deadline.
    looked_at: Option<(u64, u64)>,
}

impl Ready {
    /// Nothing waits, and places begin at `first_seq`; messages may wait `ttl_ms`.
    pub(super) fn new(level: u8, first_seq: u64, ttl_ms: u64) -> Self {
        Self {
            level,
            ttls: Ttls::new(ttl_ms),
            body_bytes: 0,
            unsized_count: 0,
            kept: Kept::default(),
            looked_at: None,
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

    /// Messages that come from now on may wait so long.
    pub(super) fn set_ttl(&mut self, ttl_ms: u64) {
        self.ttls.change(self.next_seq, ttl_ms);
    }

    /// The deadline of a message of this level. A store that does not know when it came has it begin now.
    pub(super) fn deadline(&self, seq: u64, came_ms: u64, now_ms: u64, message: &Message) -> u64 {
        ttl::deadline(self.ttls.at(seq), if came_ms == 0 { now_ms } else { came_ms }, message)
    }

    /// When a message of this level must have come to have its deadline.
    pub(super) fn came(&self, seq: u64, deadline_ms: u64, message: &Message) -> u64 {
        ttl::came(self.ttls.at(seq), deadline_ms, message)
    }

    /// What is next in line.
    #[inline]
    pub(super) fn front(&self) -> Option<Front> {
        if let Some((_, entry)) = self.returned.first_key_value() {
            return Some(Front { deadline_ms: entry.deadline_ms, is_cold: false });
        }
        match self.head.front() {
            Some(hot) => Some(Front { deadline_ms: hot.deadline_ms, is_cold: false }),
            None => self.cold_front(),
        }
    }

    fn cold_front(&self) -> Option<Front> {
        let run = self.cold.front()?;
        let known = self.looked_at.filter(|(seq, _)| *seq == run.range.first);
        Some(Front { deadline_ms: known.map_or(run.earliest_ms, |(_, deadline_ms)| deadline_ms), is_cold: true })
    }

    /// The first of the cold ones, if its deadline is only known to be not before some time.
    pub(super) fn unknown_front(&self) -> Option<SeqRange> {
        let first = SeqRange { last: self.cold.front()?.range.first, ..self.cold.front()?.range };
        self.looked_at.is_none_or(|(seq, _)| seq != first.first).then_some(first)
    }

    /// The first of the cold ones was looked at.
    pub(super) fn learn_deadline(&mut self, seq: u64, deadline_ms: u64) {
        self.looked_at = Some((seq, deadline_ms));
    }

    /// Of all bodies, as far as they are known.
    #[inline]
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Messages whose size is not known.
    pub(super) fn unsized_count(&self) -> usize {
        self.unsized_count
    }

    /// Messages of unknown size, to look at: at most so many of one run.
    pub(super) fn unsized_range(&self, count_max: u64) -> Option<SeqRange> {
        let range = self.cold.iter().find(|run| run.body_bytes.is_none())?.range;
        Some(SeqRange { last: range.last.min(range.first.saturating_add(count_max - 1)), ..range })
    }

    /// Messages of unknown size were looked at, from the first of them `through` some place; `bodies` has each with its size.
    pub(super) fn learn_sizes(&mut self, through: u64, bodies: impl Iterator<Item = (u64, u64)>) {
        let Some(place) = self.cold.iter().position(|run| run.body_bytes.is_none()) else { return };
        let Some(run) = self.cold.get_mut(place) else { return };
        let known = SeqRange { last: run.range.last.min(through), ..run.range };
        if known.is_empty() {
            return;
        }
        let bytes = bodies.filter(|(seq, _)| (known.first..=known.last).contains(seq)).map(|(_, bytes)| bytes).sum();
        let rest = SeqRange { first: known.last + 1, ..run.range };
        let unknown = *run;
        *run = Run { range: known, body_bytes: Some(bytes), ..unknown };
        if !rest.is_empty() {
            self.cold.insert(place + 1, Run { range: rest, ..unknown });
        }
        self.body_bytes += bytes;
        self.kept.add(Kept::run(known.stored, 0, bytes));
        self.unsized_count -= known.len();
        // What was one run becomes one again.
        if let Some(before) = place.checked_sub(1)
            && let (Some(&last), Some(&this)) = (self.cold.get(before), self.cold.get(place))
            && let Some(joined) = last.joined(&this)
        {
            self.cold[before] = joined;
            self.cold.remove(place);
        }
    }

    /// Bytes of what waits in memory, as [`Message::weight`] counts.
    pub(super) fn hot_bytes(&self) -> usize {
        self.hot_bytes
    }

    /// What of it is in memory, and what lasts.
    pub(super) fn kept(&self) -> Kept {
        self.kept
    }

    /// The same by looking at every message.
    #[cfg(test)]
    pub(super) fn recount(&self) -> Kept {
        let returned = self.returned.values().map(Entry::kept);
        let head = self.head.iter().map(|hot| Kept::of(hot.stored, true, body_bytes(&hot.message)));
        let cold =
            self.cold.iter().map(|run| Kept::run(run.range.stored, run.range.len(), run.body_bytes.unwrap_or(0)));
        returned.chain(head).chain(cold).fold(Kept::default(), Kept::and)
    }

    /// The next in line, if it is in memory.
    pub(super) fn head(&self) -> Option<&Message> {
        match self.returned.first_key_value() {
            Some((_, entry)) => entry.message.as_deref(),
            None => self.head.front().map(|hot| &*hot.message),
        }
    }

    /// The next in line up to the first that is not in memory, each with whether it was handed out before.
    pub(super) fn peek(&self) -> impl Iterator<Item = (Arc<Message>, bool)> {
        let returned = self.returned.values().map(|entry| (entry.message.clone(), entry.redelivered));
        let head = self.head.iter().map(|hot| (Some(Arc::clone(&hot.message)), hot.redelivered));
        returned.chain(head).map_while(|(message, redelivered)| Some((message?, redelivered)))
    }

    /// Whether new messages must join messages that only the store has.
    #[inline]
    pub(super) fn has_cold(&self) -> bool {
        !self.cold.is_empty()
    }

    /// A new message in memory, at the tail; only while nothing is cold.
    #[inline]
    pub(super) fn push(&mut self, hot: Hot) {
        let bytes = body_bytes(&hot.message);
        self.hot_bytes += hot.message.weight();
        self.body_bytes += bytes;
        self.kept.add(Kept::of(hot.stored, true, bytes));
        self.head.push_back(hot);
    }

    /// A message at the tail that only the store has, or will have when a load is answered.
    pub(super) fn push_cold(&mut self, seq: u64, stored: Stored, deadline_ms: u64, message: &Message) {
        self.cold_count += 1;
        let bytes = body_bytes(message);
        self.body_bytes += bytes;
        self.kept.add(Kept::of(stored, false, bytes));
        let run = Run {
            range: SeqRange::one(self.level, seq, stored),
            redelivered: false,
            earliest_ms: deadline_ms,
            body_bytes: Some(bytes),
        };
        match self.cold.back_mut() {
            Some(last) if let Some(joined) = last.joined(&run) => *last = joined,
            _ => self.cold.push_back(run),
        }
    }

    /// Adds messages of an earlier run, both ends inclusive, at the tail; `marked` is the last that may have been handed out.
    pub(super) fn restore_run(&mut self, first: u64, last: u64, marked: u64) {
        self.marked = self.marked.max(marked);
        for (first, last, redelivered) in [(first, last.min(marked), true), (first.max(marked + 1), last, false)] {
            if first <= last {
                let range = SeqRange { level: self.level, first, last, stored: Stored::Lasting };
                self.cold_count += range.len();
                self.unsized_count += range.len();
                self.kept.add(Kept::run(range.stored, range.len(), 0));
                self.cold.push_back(Run { range, redelivered, earliest_ms: 0, body_bytes: None });
            }
        }
    }

    /// A message that had been handed out comes back to its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.hot_bytes += entry.message.as_ref().map_or(0, |message| message.weight());
        self.body_bytes += u64::from(entry.body_bytes);
        self.kept.add(entry.kept());
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
                let Entry { seq, level, deadline_ms, returns, redelivered, stored, .. } = first.remove();
                Hot { seq, level, message, deadline_ms, returns, redelivered, stored }
            }
        };
        let bytes = body_bytes(&hot.message);
        self.hot_bytes -= hot.message.weight();
        self.body_bytes -= bytes;
        self.kept.sub(Kept::of(hot.stored, true, bytes));
        Some(hot)
    }

    /// The next in line, unless it is cold; it may be without a body.
    pub(super) fn pop_entry(&mut self) -> Option<Entry> {
        if self.has_hot() {
            return self.pop().map(Entry::from);
        }
        let (_, entry) = self.returned.pop_first()?;
        self.body_bytes -= u64::from(entry.body_bytes);
        self.kept.sub(entry.kept());
        Some(entry)
    }

    /// Takes up to so many of the next in line out, where those are cold: of one run. What is left of the run is of unknown size then.
    pub(super) fn cut_cold(&mut self, count_max: u64) -> Option<SeqRange> {
        if !self.returned.is_empty() || !self.head.is_empty() || count_max == 0 {
            return None;
        }
        let run = self.cold.front_mut()?;
        let cut = SeqRange { last: run.range.last.min(run.range.first.saturating_add(count_max - 1)), ..run.range };
        let bytes = run.body_bytes.take();
        self.kept.sub(Kept::run(cut.stored, cut.len(), bytes.unwrap_or(0)));
        match bytes {
            Some(bytes) => {
                self.body_bytes -= bytes;
                self.unsized_count += run.range.len() - cut.len();
            }
            None => self.unsized_count -= cut.len(),
        }
        self.cold_count -= cut.len();
        match cut.last == run.range.last {
            true => drop(self.cold.pop_front()),
            false => run.range.first = cut.last + 1,
        }
        Some(cut)
    }

    /// Takes the last message of the head out of memory, to the front of what is cold; false when there is none.
    pub(super) fn cool_last(&mut self) -> bool {
        let Some(hot) = self.head.pop_back() else { return false };
        self.hot_bytes -= hot.message.weight();
        self.kept.sub(Kept::hot(body_bytes(&hot.message)));
        self.cold_count += 1;
        let run = Run {
            range: SeqRange::one(self.level, hot.seq, hot.stored),
            redelivered: hot.redelivered,
            earliest_ms: hot.deadline_ms,
            body_bytes: Some(body_bytes(&hot.message)),
        };
        match self.cold.front_mut() {
            Some(first) if let Some(joined) = run.joined(first) => *first = joined,
            _ => self.cold.push_front(run),
        }
        self.looked_at = Some((hot.seq, hot.deadline_ms));
        true
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
    pub(super) fn cool_returned(&mut self, excess: usize, mut each: impl FnMut(&Entry, Arc<Message>)) -> usize {
        let mut freed = 0;
        for entry in self.returned.values_mut().rev() {
            if freed >= excess {
                break;
            }
            if let Some(message) = entry.message.take() {
                freed += message.weight();
                self.kept.sub(Kept::hot(u64::from(entry.body_bytes)));
                each(entry, message);
                // It is in the store from now on.
                entry.stored = if entry.stored == Stored::Nowhere { Stored::Paged } else { entry.stored };
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
    pub(super) fn warm_returned(&mut self, ranges: &[SeqRange], through: u64, messages: Vec<LoadedMessage>) -> usize {
        for LoadedMessage { seq, message, .. } in messages {
            if let Some(entry) = self.returned.get_mut(&seq)
                && entry.message.is_none()
            {
                self.hot_bytes += message.weight();
                self.kept.add(Kept::hot(u64::from(entry.body_bytes)));
                entry.message = Some(message);
            }
        }
        let mut lost = Vec::new();
        for range in ranges.iter().filter(|range| range.first <= through) {
            let covered = self.returned.range(range.first..=range.last.min(through));
            lost.extend(covered.filter(|(_, entry)| entry.message.is_none()).map(|(&seq, _)| seq));
        }
        for entry in lost.iter().filter_map(|seq| self.returned.remove(seq)) {
            self.body_bytes -= u64::from(entry.body_bytes);
            self.kept.sub(entry.kept());
        }
        lost.len()
    }

    /// Loaded cold messages, which cover everything cold up to `through`. What the store does not have is given up; returns how many
    /// that were.
    pub(super) fn warm_cold(&mut self, through: u64, now_ms: u64, messages: Vec<LoadedMessage>) -> usize {
        let before = self.cold_count;
        let mut messages = messages.into_iter().peekable();
        let mut found = 0;
        while let Some(mut run) = self.cold.pop_front_if(|run| run.range.first <= through) {
            let last = run.range.last.min(through);
            let found_before = found;
            while let Some(LoadedMessage { seq, came_ms, message }) = messages.next_if(|loaded| loaded.seq <= last) {
                if seq >= run.range.first {
                    found += 1;
                    self.hot_bytes += message.weight();
                    let bytes = body_bytes(&message);
                    self.kept.add(Kept::hot(bytes));
                    match &mut run.body_bytes {
                        Some(known) => *known -= bytes.min(*known),
                        None => {
                            self.body_bytes += bytes;
                            self.kept.add(Kept::run(run.range.stored, 0, bytes));
                        }
                    }
                    let deadline_ms = self.deadline(seq, came_ms, now_ms, &message);
                    let Run { range, redelivered, .. } = run;
                    let (level, stored) = (range.level, range.stored);
                    self.head.push_back(Hot { seq, level, message, deadline_ms, returns: 0, redelivered, stored });
                }
            }
            let done = SeqRange { last, ..run.range }.len();
            self.cold_count -= done;
            self.kept.sub(Kept::run(run.range.stored, done - (found - found_before), 0));
            if run.body_bytes.is_none() {
                self.unsized_count -= done;
            }
            if last < run.range.last {
                run.range.first = last + 1;
                self.cold.push_front(run);
                break;
            }
            // Of those that were lost.
            let lost_bytes = run.body_bytes.unwrap_or(0);
            self.body_bytes -= lost_bytes;
            self.kept.sub(Kept::run(run.range.stored, 0, lost_bytes));
        }
        before - self.cold_count - found
    }

    /// Takes everything out, bodies to `discarded`; `each` is told what the store must forget. Places go on where they were.
    pub(super) fn clear(&mut self, discarded: &mut Discarded, mut each: impl FnMut(SeqRange)) {
        let mut ttls = std::mem::replace(&mut self.ttls, Ttls::new(NEVER));
        ttls.forget_before(self.next_seq);
        let empty = Self { marked: self.marked, ttls, ..Self::new(self.level, self.next_seq, NEVER) };
        let Self { level, returned, head, cold, .. } = std::mem::replace(self, empty);
        let stored_returned = returned.values().map(|entry| (entry.seq, entry.stored));
        let stored_head = head.iter().map(|hot| (hot.seq, hot.stored));
        for (seq, stored) in stored_returned.chain(stored_head) {
            each(SeqRange::one(level, seq, stored));
        }
        for run in cold {
            each(run.range);
        }
        discarded.add(head, returned);
    }
}

impl Run {
    /// Both as one, where `next` follows this one and nothing is known of either that is not known of the other.
    #[inline]
    fn joined(&self, next: &Self) -> Option<Self> {
        let follows = self.range.last + 1 == next.range.first && self.range.stored == next.range.stored;
        if !follows || self.redelivered != next.redelivered || self.body_bytes.is_none() != next.body_bytes.is_none() {
            return None;
        }
        Some(Self {
            range: SeqRange { last: next.range.last, ..self.range },
            redelivered: self.redelivered,
            earliest_ms: self.earliest_ms.min(next.earliest_ms),
            body_bytes: self.body_bytes.zip(next.body_bytes).map(|(these, those)| these + those),
        })
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
        let (deadline_ms, stored) = (NEVER, Stored::Paged);
        Hot { seq, level: 0, message, deadline_ms, returns: 0, redelivered: false, stored }
    }

    fn loaded<const N: usize>(seqs: [u64; N]) -> Vec<LoadedMessage> {
        seqs.map(|seq| LoadedMessage { seq, came_ms: 1, message: hot(seq).message }).to_vec()
    }

    fn order(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop()).map(|hot| hot.seq).collect()
    }

    #[test]
    fn a_returned_message_keeps_its_place() {
        let mut ready = Ready::new(0, 1, NEVER);
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
        let mut ready = Ready::new(0, 1, NEVER);
        for seq in 1..=3 {
            ready.push(hot(seq));
        }
        ready.cool_last();
        ready.cool_last();
        for seq in 4..=9 {
            ready.push_cold(seq, Stored::Paged, NEVER, &hot(seq).message);
        }
        assert_eq!((ready.len(), ready.wanted(8, 100).ranges.len()), (9, 1));
        assert_eq!(ready.warm_cold(6, 1, loaded([2, 3, 4, 6])), 1, "five is gone");
        assert_eq!(ready.len(), 8);
        assert_eq!(order(&mut ready), [1, 2, 3, 4, 6]);
        let wanted = ready.wanted(8, 2).ranges;
        assert_eq!((wanted[0].first, wanted[0].last), (7, 8));
        assert_eq!(ready.hot_bytes(), 0);
    }

    #[test]
    fn a_returned_message_without_body_stops_the_line_until_it_is_loaded() {
        let mut ready = Ready::new(0, 1, NEVER);
        ready.push(hot(9));
        for seq in [3, 4, 6] {
            let entry = Entry::from(Hot { stored: Stored::Lasting, redelivered: true, ..hot(seq) });
            ready.put_back(Entry { message: None, ..entry });
        }
        assert!(ready.pop().is_none() && !ready.has_hot());
        let wanted = ready.wanted(8, 100);
        let ranges: Vec<(u64, u64)> = wanted.ranges.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!((wanted.is_returned, ranges), (true, vec![(3, 4), (6, 6)]));
        let lost = ready.warm_returned(&wanted.ranges, 6, loaded([3, 6]));
        assert_eq!(lost, 1);
        assert_eq!(order(&mut ready), [3, 6, 9]);
    }
}
