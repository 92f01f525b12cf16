//! What stays in memory, what leaves it, and when it is fetched back.
//!
//! A queue has a budget of bytes. While it is kept, messages wait in memory. Beyond it, new messages join the cold part of [`Ready`]: they
//! go to the store (a persistent one goes there anyway) and only their places are kept. What is needed again is read ahead, one
//! load at a time, while there are consumers or somebody waits with basic.get. Bodies of unacked messages leave memory by the same
//! rule. The store keeps the order of what a queue hands it, so a load sees everything that went out before it.

use std::sync::Arc;

use super::ports::{HolderId, Load, Place, Reply, ReplyTo, SeqRange, Stored};
use super::ready::Hot;
use super::{Append, Effects, Queue, answer};
use crate::message::Message;

/// A load asks for a quarter of the budget, within these bounds.
const LOAD_BYTES: std::ops::RangeInclusive<usize> = 16 * 1024..=1024 * 1024;
/// A load asks for so many messages at most.
const LOAD_COUNT_MAX: u64 = 8192;
/// A load names so many ranges at most.
const LOAD_RANGES_MAX: usize = 256;

/// A basic.get that waits for its message to be loaded.
#[derive(Debug)]
pub(super) struct WaitingGet {
    pub(super) holder: HolderId,
    pub(super) no_ack: bool,
    pub(super) reply_to: ReplyTo,
}

/// The load that is under way.
#[derive(Debug)]
pub(super) struct Loading {
    id: u64,
    level: u8,
    is_returned: bool,
    ranges: Vec<SeqRange>,
}

impl Queue {
    /// Bytes that its messages may take in memory, as [`Message::weight`] counts; `usize::MAX` when nothing is to leave it.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget_bytes = bytes;
    }

    /// Bytes of its messages in memory.
    pub fn memory_bytes(&self) -> usize {
        self.ready.hot_bytes() + self.unacked_bytes
    }

    #[inline]
    pub(super) fn is_over_budget(&self) -> bool {
        self.memory_bytes() > self.budget_bytes
    }

    fn load_bytes(&self) -> usize {
        (self.budget_bytes / 4).clamp(*LOAD_BYTES.start(), *LOAD_BYTES.end())
    }

    /// Makes sure that the store has a message, so that it can leave memory.
    pub(super) fn page_out(place: Place, message: &Arc<Message>, stored: &mut Stored, effects: &mut Effects) {
        if *stored == Stored::Nowhere {
            *stored = Stored::Paged;
            effects.appends.push(Append {
                place,
                message: Arc::clone(message),
                stored: *stored,
                is_synced: false,
                origin: None,
                channel: 0,
                number: 0,
            });
        }
    }

    /// Takes messages out of memory until the budget is kept, those that are needed last first.
    pub(super) fn shrink(&mut self, effects: &mut Effects) {
        // What is loaded now goes behind the head, so the head must stay as it is until then.
        self.is_shrink_due = self.loading.is_some();
        if self.is_shrink_due {
            return;
        }
        let others = effects.appends.len();
        self.cool_heads(None, effects);
        let excess = self.memory_bytes().saturating_sub(self.budget_bytes);
        if excess > 0 {
            self.ready.cool_returned(excess, |message, place, stored| {
                Self::page_out(place, message, stored, effects);
            });
        }
        let mut excess = self.memory_bytes().saturating_sub(self.budget_bytes);
        // What somebody has is needed last, but to put a transient one out of memory costs a write that may be for nothing.
        for entry in self.consumers.unacked_bodies() {
            if excess == 0 {
                break;
            }
            if let Some(message) = entry.message.take() {
                let place = Place { level: entry.level, seq: entry.seq };
                Self::page_out(place, &message, &mut entry.stored, effects);
                self.unacked_bytes -= message.weight();
                excess = excess.saturating_sub(message.weight());
            }
        }
        // Then all places of a level ascend: to the store they are one run, to write and to read.
        if let Some(paged) = effects.appends.get_mut(others..) {
            paged.sort_unstable_by_key(|append| (append.place.level, append.place.seq));
        }
    }

    /// Takes messages that were never handed out out of memory, in levels below `below` or in all.
    fn cool_heads(&mut self, below: Option<u8>, effects: &mut Effects) {
        while self.is_over_budget()
            && let Some(level) = self.ready.lowest_hot(below)
            && let Some(Hot { seq, message, stored, .. }) = self.ready.last_hot(level)
        {
            Self::page_out(Place { level, seq: *seq }, message, stored, effects);
            self.ready.cool_last(level);
        }
    }

    /// Asks for what will be needed next, unless it is in memory or under way.
    pub(super) fn read_ahead(&mut self, effects: &mut Effects) {
        let is_needed = !self.waiting_gets.is_empty() || self.consumers.consumer_count() > 0;
        if !is_needed || self.loading.is_some() {
            return;
        }
        let wanted = self.ready.wanted(self.load_bytes(), LOAD_RANGES_MAX, LOAD_COUNT_MAX);
        let Some(&SeqRange { level, .. }) = wanted.ranges.first() else { return };
        self.next_load += 1;
        let id = self.next_load;
        effects.load = Some(Load { id, ranges: wanted.ranges.clone(), bytes_max: self.load_bytes() });
        self.loading = Some(Loading { id, level, is_returned: wanted.is_returned, ranges: wanted.ranges });
    }

    pub(super) fn on_loaded(
        &mut self,
        id: u64,
        through: u64,
        messages: Vec<(u64, Arc<Message>)>,
        effects: &mut Effects,
    ) {
        // A purge has made the answer stale.
        let Some(loading) = self.loading.take_if(|loading| loading.id == id) else { return };
        let level = loading.level;
        self.lost += match loading.is_returned {
            true => self.ready.warm_returned(level, &loading.ranges, through, messages),
            false => self.ready.warm_cold(level, through, messages),
        };
        self.dispatch(effects);
        // What is loaded for a high level takes the room of what stands in lower ones, or each level would add its own.
        let others = effects.appends.len();
        self.cool_heads(Some(level), effects);
        if let Some(paged) = effects.appends.get_mut(others..) {
            paged.reverse();
        }
        // Nobody says it again once queues have the smallest budget.
        if self.is_shrink_due {
            self.shrink(effects);
        }
    }

    /// Answers who waits with basic.get, as far as messages are in memory.
    pub(super) fn serve_gets(&mut self, effects: &mut Effects) {
        while !self.waiting_gets.is_empty() && (self.ready.has_hot() || self.ready.is_empty()) {
            let Some(get) = self.waiting_gets.pop_front() else { return };
            match self.ready.pop() {
                Some(hot) => self.answer_get(&get, hot, effects),
                None => answer(&get.reply_to, Reply::Empty, effects),
            }
        }
    }

    /// Forgets everything that waits; the store is told by the caller or knows already.
    pub(super) fn forget_ready(&mut self, each: impl FnMut(SeqRange)) {
        self.ready.clear(each);
        self.loading = None;
    }
}
