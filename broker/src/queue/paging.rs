//! What stays in memory, what leaves it, and when it is fetched back.
//!
//! A queue has a budget of bytes. While it is kept, messages wait in memory. Beyond it, new messages join the cold part of [`Ready`]: they
//! go to the store (a persistent one goes there anyway) and only their places are kept. What is needed again is read ahead, one
//! load at a time, while there are consumers or somebody waits with basic.get. Bodies of unacked messages leave memory by the same
//! rule. The store keeps the order of what a queue hands it, so a load sees everything that went out before it.

use std::sync::Arc;

use super::counts::Kept;
use super::discarded::Discarded;
use super::levels::Levels;
use super::ports::{HolderId, Load, LoadedMessage, Place, Reply, ReplyTo, SeqRange, Stored};
use super::ready::Entry;
use super::{Append, Effects, Queue, answer};
use crate::message::Message;
use crate::metrics::Stat;

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
    what: Fetched,
    ranges: Vec<SeqRange>,
}

/// What a load is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetched {
    /// Bodies of returned messages.
    Returned,
    /// Cold messages, to become the head.
    Cold,
    /// Messages that died, to be buried.
    Dying,
    /// The first cold message, for its deadline; it stays cold.
    Deadline,
    /// Cold messages, for their sizes; they stay cold.
    Sizes,
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
    pub(super) fn page_out(
        ready: &Levels,
        place: Place,
        message: &Arc<Message>,
        stored: &mut Stored,
        deadline_ms: u64,
        effects: &mut Effects,
    ) {
        if *stored == Stored::Nowhere {
            *stored = Stored::Paged;
            effects.appends.push(Append {
                place,
                message: Arc::clone(message),
                stored: *stored,
                came_ms: ready.came(place, deadline_ms, message),
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
            let mut cooled = Vec::new();
            self.ready
                .cool_returned(excess, |entry, message| cooled.push((Entry { message: None, ..*entry }, message)));
            for (mut entry, message) in cooled {
                let place = Place { level: entry.level, seq: entry.seq };
                Self::page_out(&self.ready, place, &message, &mut entry.stored, entry.deadline_ms, effects);
            }
        }
        let mut excess = self.memory_bytes().saturating_sub(self.budget_bytes);
        // What somebody has is needed last, but to put a transient one out of memory costs a write that may be for nothing.
        let Self { ready, consumers, unacked_bytes, counts, .. } = self;
        for entry in consumers.unacked_bodies() {
            if excess == 0 {
                break;
            }
            if let Some(message) = entry.message.take() {
                let place = Place { level: entry.level, seq: entry.seq };
                Self::page_out(ready, place, &message, &mut entry.stored, entry.deadline_ms, effects);
                *unacked_bytes -= message.weight();
                counts.unacked.sub(Kept::hot(u64::from(entry.body_bytes)));
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
            && let Some(hot) = self.ready.last_hot(level)
        {
            let (place, message, deadline_ms, mut stored) =
                (hot.place(), Arc::clone(&hot.message), hot.deadline_ms, hot.stored);
            // It is in the store from now on.
            hot.stored = if stored == Stored::Nowhere { Stored::Paged } else { stored };
            Self::page_out(&self.ready, place, &message, &mut stored, deadline_ms, effects);
            self.ready.cool_last(level);
        }
    }

    /// Asks for what will be needed next, unless it is in memory or under way.
    pub(super) fn read_ahead(&mut self, effects: &mut Effects) {
        if self.loading.is_some() {
            return;
        }
        let Some((what, ranges)) = self.wanted() else { return };
        let Some(&SeqRange { level, .. }) = ranges.first() else { return };
        self.has_loaded_dying = what == Fetched::Dying;
        self.next_load += 1;
        let id = self.next_load;
        effects.load = Some(Load { id, ranges: ranges.clone(), bytes_max: self.load_bytes() });
        self.loading = Some(Loading { id, level, what, ranges });
    }

    /// What to load next. Messages that died and those that are needed take turns, so that many of the first do not keep consumers waiting.
    fn wanted(&self) -> Option<(Fetched, Vec<SeqRange>)> {
        let dying = || {
            let ranges = if self.may_bury() { self.dying.wanted(LOAD_RANGES_MAX, LOAD_COUNT_MAX) } else { Vec::new() };
            (!ranges.is_empty()).then_some((Fetched::Dying, ranges))
        };
        let first = if self.has_loaded_dying { None } else { dying() };
        first.or_else(|| self.needed()).or_else(dying).or_else(|| {
            // Only where bytes are counted somebody needs to know them (semantics 19.1).
            self.options.max_length_bytes?;
            Some((Fetched::Sizes, vec![self.ready.unsized_range(LOAD_COUNT_MAX)?]))
        })
    }

    /// What of the ready messages must come into memory, or be looked at.
    fn needed(&self) -> Option<(Fetched, Vec<SeqRange>)> {
        let is_served = !self.waiting_gets.is_empty() || self.consumers.consumer_count() > 0;
        let is_cold = self.ready.front().is_some_and(|front| front.is_cold);
        let is_over = is_cold && self.may_bury() && (self.is_trim_due() || self.is_cold_head_due());
        if !is_served && !is_over {
            return None;
        }
        if !is_served
            && !self.is_trim_due()
            && let Some(first) = self.ready.unknown_front()
        {
            return Some((Fetched::Deadline, vec![first]));
        }
        let wanted = self.ready.wanted(self.load_bytes(), LOAD_RANGES_MAX, LOAD_COUNT_MAX);
        let what = if wanted.is_returned { Fetched::Returned } else { Fetched::Cold };
        (!wanted.ranges.is_empty()).then_some((what, wanted.ranges))
    }

    pub(super) fn on_loaded(&mut self, id: u64, through: u64, messages: Vec<LoadedMessage>, effects: &mut Effects) {
        // A purge has made the answer stale.
        let Some(loading) = self.loading.take_if(|loading| loading.id == id) else { return };
        let level = loading.level;
        let now_ms = self.now_ms;
        match loading.what {
            Fetched::Returned => self.lost += self.ready.warm_returned(level, &loading.ranges, through, messages),
            Fetched::Cold => self.lost += self.ready.warm_cold(level, through, now_ms, messages),
            Fetched::Dying => self.lost += self.on_dying_loaded(level, through, messages, effects),
            Fetched::Deadline => match messages.first() {
                Some(LoadedMessage { seq, came_ms, message }) => {
                    let place = Place { level, seq: *seq };
                    let deadline_ms = self.ready.deadline(place, *came_ms, now_ms, message);
                    self.ready.learn_deadline(place, deadline_ms);
                }
                None => self.lost += self.ready.warm_cold(level, through, now_ms, messages),
            },
            Fetched::Sizes => {
                let sizes = messages.iter().map(|loaded| (loaded.seq, loaded.message.body().len() as u64));
                self.ready.learn_sizes(level, through, sizes);
            }
        }
        self.trim(effects);
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
        while !self.waiting_gets.is_empty() {
            self.expire(effects);
            if !self.ready.has_hot() && !self.ready.is_empty() {
                return;
            }
            let Some(get) = self.waiting_gets.pop_front() else { return };
            match self.ready.pop() {
                Some(hot) => self.answer_get(&get, hot, effects),
                None => {
                    self.counts.add(Stat::GetEmpty, 1);
                    answer(&get.reply_to, Reply::Empty, effects);
                }
            }
        }
    }

    /// Forgets everything that waits; the store is told by the caller or knows already.
    pub(super) fn forget_ready(&mut self, discarded: &mut Discarded, each: impl FnMut(SeqRange)) {
        self.ready.clear(discarded, each);
        self.loading.take_if(|loading| loading.what != Fetched::Dying);
    }
}
