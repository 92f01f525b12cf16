//! The messages that one exchange has put off, in the order in which they come back.
//!
//! A line is a machine as a queue is one: it knows neither clock nor store nor threads. Its messages stand in up to four parts. *Hot* ones
//! are lasting and in memory, of *cold* ones only the store has the bodies, *transient* ones live in memory alone, and of *unread* ones, which an
//! earlier run has left, not even the due time is known. Nothing comes back before all of these have been looked at, or messages that became due
//! while the broker was down would come in the order of their publishing.
//!
//! The store has a message under the exchange's number, with its due time in place of the time at which it came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::message::{Footprint, Message};
use crate::queue::{Append, Durability, Load, LoadedMessage, Outlet, Place, SeqRange, Stored};

use super::Held;

/// A message's turn: its due time in milliseconds since the epoch, and its place in the store, which ascends in the order of publishing.
pub type Turn = (u64, u64);

/// A message whose time has come.
#[derive(Debug)]
pub struct Due {
    /// What.
    pub message: Arc<Message>,
    /// Its place, for the store to forget once whoever gets the message has it; [`Stored::Nowhere`] where the store has nothing of it.
    pub place: SeqRange,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Line {
    next_seq: u64,
    hot: BTreeMap<Turn, Arc<Message>>,
    cold: BTreeSet<Turn>,
    transient: BTreeMap<Turn, Arc<Message>>,
    /// Places, both ends inclusive, ascending.
    unread: VecDeque<(u64, u64)>,
    unread_count: u64,
    hot_bytes: usize,
    transient_bytes: usize,
    /// Of messages that are on their way and have not arrived.
    passing_bytes: usize,
    loading: Option<Loading>,
    next_load: u64,
    /// So many cold messages are asked for at a time.
    load_count: usize,
    /// Nothing comes back in this run.
    is_still: bool,
    has_held: bool,
    has_ended: bool,
    footprint: Footprint,
}

/// The load that is under way.
#[derive(Debug)]
struct Loading {
    id: u64,
    /// The cold messages that were asked for, by their places; none where unread ones were.
    turns: BTreeMap<u64, u64>,
}

/// So many messages are sent at a time; then others may work.
const LOT_COUNT_MAX: usize = 1024;
/// Messages of so many bytes may be on their way; then no more are sent until some have arrived.
const PASSING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Cold messages are fetched so long before they are due, in milliseconds: longer than a read takes on a busy disk.
const AHEAD_MS: u64 = 1_000;
/// A load asks for so many bytes.
const LOAD_BYTES: usize = 1024 * 1024;
/// A load asks for so many messages at most.
const LOAD_COUNT_MAX: usize = 8192;
/// A load names so many ranges at most.
const LOAD_RANGES_MAX: usize = 256;
/// What a cold message takes in memory, about: its turn, and its share of the tree.
const COLD_BYTES: usize = 32;

impl Line {
    /// A line with what an earlier run has left: runs of places, both ends inclusive, ascending. New messages get places from `first_seq` on,
    /// which is above all of these. While `is_still` nothing comes back, and what there is stays in the store.
    pub fn restore(first_seq: u64, left: &[(u64, u64)], is_still: bool) -> Self {
        Self {
            next_seq: first_seq,
            unread: left.iter().copied().collect(),
            unread_count: left.iter().map(|(first, last)| last - first + 1).sum(),
            load_count: LOAD_COUNT_MAX,
            is_still,
            has_held: !left.is_empty(),
            ..Self::default()
        }
    }

    /// Adds a message that is due at `due_ms`. A lasting one goes into `appends`; its publisher gets its confirm from the store.
    pub fn hold(&mut self, due_ms: u64, held: Held, origin: Option<&Arc<dyn Outlet>>, appends: &mut Vec<Append>) {
        let is_lasting = held.is_lasting();
        let Held { message, channel, number, durability, .. } = held;
        let turn = (due_ms, self.next_seq);
        self.next_seq += 1;
        self.has_held = true;
        if !is_lasting {
            self.transient_bytes += message.weight();
            self.transient.insert(turn, message);
            return;
        }
        appends.push(Append {
            place: Place { level: LEVEL, seq: turn.1 },
            message: Arc::clone(&message),
            stored: Stored::Lasting,
            came_ms: due_ms,
            is_synced: durability == Durability::Synced,
            origin: origin.cloned(),
            channel,
            number,
        });
        self.warm(turn, message);
    }

    fn warm(&mut self, turn: Turn, message: Arc<Message>) {
        self.hot_bytes += message.weight();
        self.hot.insert(turn, message);
    }

    /// Takes lasting messages out of memory until no more than so many bytes are left, those that are due last first. The store has them.
    pub fn cool(&mut self, budget_bytes: usize) {
        while self.memory_bytes() > budget_bytes
            && let Some((turn, message)) = self.hot.pop_last()
        {
            self.hot_bytes -= message.weight();
            self.cold.insert(turn);
        }
        self.footprint.set(self.cold.len() * COLD_BYTES);
    }

    /// Bytes of its messages in memory, as [`Message::weight`] counts.
    pub fn memory_bytes(&self) -> usize {
        self.hot_bytes + self.transient_bytes
    }

    /// Whether there ever was a message.
    pub fn has_held(&self) -> bool {
        self.has_held
    }

    /// How many messages wait.
    pub fn count(&self) -> usize {
        let unread = usize::try_from(self.unread_count).unwrap_or(usize::MAX);
        (self.hot.len() + self.cold.len() + self.transient.len()).saturating_add(unread)
    }

    /// The first turn of those in memory.
    fn first_in_memory(&self) -> Option<Turn> {
        let first = |messages: &BTreeMap<Turn, _>| messages.first_key_value().map(|(turn, _)| *turn);
        [first(&self.hot), first(&self.transient)].into_iter().flatten().min()
    }

    /// The next turn, where its message is in memory; else it has to be loaded first.
    fn next_turn(&self) -> Option<Turn> {
        if !self.unread.is_empty() || self.is_still || self.passing_bytes >= PASSING_BYTES_MAX {
            return None;
        }
        let first = self.first_in_memory()?;
        self.cold.first().is_none_or(|cold| first < *cold).then_some(first)
    }

    /// The next cold turn, where nothing comes before it.
    fn next_cold(&self) -> Option<Turn> {
        let cold = *self.cold.first()?;
        self.first_in_memory().is_none_or(|first| cold < first).then_some(cold)
    }

    /// Takes messages that are due out, in their order; not all at once if they are many, and none while too many are on their way.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<Due> {
        let mut due = Vec::new();
        while due.len() < LOT_COUNT_MAX
            && let Some(turn) = self.next_turn().filter(|(due_ms, _)| *due_ms <= now_ms)
        {
            let (message, stored) = if let Some(message) = self.transient.remove(&turn) {
                self.transient_bytes -= message.weight();
                (message, Stored::Nowhere)
            } else if let Some(message) = self.hot.remove(&turn) {
                self.hot_bytes -= message.weight();
                (message, Stored::Lasting)
            } else {
                break;
            };
            self.passing_bytes += message.weight();
            due.push(Due { message, place: SeqRange::one(LEVEL, turn.1, stored) });
        }
        due
    }

    /// Messages of so many bytes, which were taken out, have arrived.
    pub fn arrived(&mut self, bytes: usize) {
        self.passing_bytes = self.passing_bytes.saturating_sub(bytes);
    }

    /// When it must be looked at again, in milliseconds since the epoch, unless something happens before.
    pub fn next_deadline(&self) -> Option<u64> {
        if self.has_ended || self.is_still || !self.unread.is_empty() {
            return None;
        }
        let cold = self.next_cold().filter(|_| self.loading.is_none());
        self.next_turn().map(|(due_ms, _)| due_ms).or(cold.map(|(due_ms, _)| due_ms.saturating_sub(AHEAD_MS)))
    }

    /// What must be loaded now, if anything.
    pub fn wanted(&mut self, now_ms: u64) -> Option<Load> {
        if self.loading.is_some() || self.has_ended || self.is_still {
            return None;
        }
        let mut turns = BTreeMap::new();
        let mut ranges = Vec::new();
        if self.unread.is_empty() {
            self.next_cold()?;
            let near = self.cold.iter().take_while(|(due_ms, _)| *due_ms <= now_ms.saturating_add(AHEAD_MS));
            turns.extend(near.take(self.load_count).map(|(due_ms, seq)| (*seq, *due_ms)));
            for seq in turns.keys() {
                SeqRange::add(&mut ranges, LEVEL, *seq, Stored::Lasting);
            }
            if ranges.len() > LOAD_RANGES_MAX {
                // Those that are due first, and not those with the lowest places.
                let near: BTreeSet<Turn> = turns.iter().map(|(seq, due_ms)| (*due_ms, *seq)).collect();
                turns = near.into_iter().take(LOAD_RANGES_MAX).map(|(due_ms, seq)| (seq, due_ms)).collect();
                ranges.clear();
                turns.keys().for_each(|seq| SeqRange::add(&mut ranges, LEVEL, *seq, Stored::Lasting));
            }
        } else {
            let mut count = 0;
            for &(first, last) in self.unread.iter().take(LOAD_RANGES_MAX) {
                let last = last.min(first + (LOAD_COUNT_MAX - count) as u64 - 1);
                ranges.push(SeqRange { level: LEVEL, first, last, stored: Stored::Lasting });
                count += usize::try_from(last - first + 1).unwrap_or(LOAD_COUNT_MAX);
                if count >= LOAD_COUNT_MAX {
                    break;
                }
            }
        }
        if ranges.is_empty() {
            return None;
        }
        self.next_load += 1;
        self.loading = Some(Loading { id: self.next_load, turns });
        Some(Load { id: self.next_load, ranges, bytes_max: LOAD_BYTES })
    }

    /// Takes what was loaded: of what was asked for, everything up to the place `through`. Returns how many messages the store should have had
    /// and did not.
    pub fn loaded(&mut self, id: u64, through: u64, messages: Vec<LoadedMessage>, budget_bytes: usize) -> u64 {
        let Some(Loading { turns, .. }) = self.loading.take_if(|loading| loading.id == id) else { return 0 };
        if self.has_ended {
            return 0;
        }
        let found = messages.len() as u64;
        if turns.is_empty() {
            for LoadedMessage { seq, came_ms, message } in messages {
                self.warm((came_ms, seq), message);
            }
            // There may be far more of them than memory has room for.
            self.cool(budget_bytes);
            return self.forget_unread(through).saturating_sub(found);
        }
        let first = turns.iter().map(|(seq, due_ms)| (*due_ms, *seq)).min();
        for LoadedMessage { seq, message, .. } in messages {
            let Some(due_ms) = turns.get(&seq) else { continue };
            if self.cold.remove(&(*due_ms, seq)) {
                self.warm((*due_ms, seq), message);
            }
        }
        let mut lost = 0;
        for (&seq, &due_ms) in turns.range(..=through) {
            // What was there has been taken out above.
            lost += u64::from(self.cold.remove(&(due_ms, seq)));
        }
        // Places ascend in a load, so the one that is needed first may be behind others that take all the room.
        let has_first = first.is_none_or(|first| !self.cold.contains(&first));
        self.load_count = if has_first { LOAD_COUNT_MAX } else { (self.load_count.min(turns.len()) / 2).max(1) };
        self.footprint.set(self.cold.len() * COLD_BYTES);
        lost
    }

    /// Places up to `through` have been read; returns how many.
    fn forget_unread(&mut self, through: u64) -> u64 {
        let mut count = 0;
        while let Some((first, last)) = self.unread.front_mut().filter(|(first, _)| *first <= through) {
            if *last > through {
                count += through - *first + 1;
                *first = through + 1;
                break;
            }
            count += *last - *first + 1;
            self.unread.pop_front();
        }
        self.unread_count -= count;
        count
    }

    /// Ends it; what it had comes out, so that it can be dropped elsewhere.
    pub fn end(&mut self) -> Self {
        let ended = std::mem::take(self);
        self.has_ended = true;
        ended
    }

    /// Whether its exchange has ended: nothing may come in any more.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// The level in the store under which an exchange has what it put off. What it keeps stands under [`super::history::LEVEL`].
pub const LEVEL: u8 = 0;

#[cfg(test)]
mod tests;
