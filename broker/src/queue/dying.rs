//! Messages on their way out of the queue to where dead letters are wanted (semantics 20).
//!
//! One that is in memory leaves at once. Others are fetched first, in the line that they died in, so that dead letters keep their order
//! (semantics 20.14). They are no longer ready, nor anybody's. Until what has left is buried, which is when whoever gets it has it, no
//! more than [`UNBURIED_BYTES_MAX`] are fetched, and publishers wait for their credit: so neither an old backlog nor a fast publisher
//! fills the memory with dead letters that a slow disk has not taken yet.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ports::{Dead, DeathReason, LoadedMessage, Outlet, SeqRange};
use super::ready::Entry;
use super::{Effects, Queue, settle};
use crate::message::Message;

/// Above this, nothing more is fetched to be buried.
const UNBURIED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Messages that died. Without a body they must be fetched; then they may be several neighbours.
#[derive(Debug)]
struct Dying {
    range: SeqRange,
    message: Option<Arc<Message>>,
    reason: DeathReason,
    died_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct DyingLine {
    line: VecDeque<Dying>,
    unburied_bytes: usize,
    /// Credit of publishers whose messages made others leave.
    owed: Vec<(Arc<dyn Outlet>, usize)>,
}

impl DyingLine {
    /// Whether none waits to be fetched.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Whether a message is still to be fetched.
    #[cfg(test)]
    pub(super) fn contains(&self, seq: u64) -> bool {
        self.line.iter().any(|dying| (dying.range.first..=dying.range.last).contains(&seq))
    }

    /// What must be fetched first: up to `runs_max` ranges of one level, ascending, with `count_max` messages.
    pub(super) fn wanted(&self, runs_max: usize, count_max: u64) -> Vec<SeqRange> {
        let mut ranges: Vec<SeqRange> = Vec::new();
        let mut left = count_max;
        for Dying { range, message, .. } in &self.line {
            let follows = ranges.last().is_none_or(|last| last.level == range.level && last.last < range.first);
            if message.is_some() || !follows || left == 0 || ranges.len() == runs_max {
                break;
            }
            let last = range.last.min(range.first.saturating_add(left - 1));
            left -= last - range.first + 1;
            SeqRange::join(&mut ranges, SeqRange { last, ..*range });
        }
        ranges
    }

    fn push(&mut self, dying: Dying) {
        if let Some(last) = self.line.back_mut()
            && last.message.is_none()
            && dying.message.is_none()
            && (last.reason, last.range.level, last.range.stored)
                == (dying.reason, dying.range.level, dying.range.stored)
            && last.range.last + 1 == dying.range.first
        {
            last.range.last = dying.range.last;
            return;
        }
        self.line.push_back(dying);
    }
}

impl Queue {
    /// Whether more may be fetched to be buried.
    pub(super) fn may_bury(&self) -> bool {
        self.dying.unburied_bytes <= UNBURIED_BYTES_MAX
    }

    /// A message that is neither ready nor unacked any more has died.
    pub(super) fn die(&mut self, entry: Entry, reason: DeathReason, effects: &mut Effects) {
        let range = SeqRange::one(entry.level, entry.seq, entry.stored);
        if !self.options.dead_letters {
            drop_dead(1, reason, effects);
            return settle(range, effects);
        }
        let died_ms = self.now_ms;
        match entry.message {
            Some(message) if self.dying.is_empty() => {
                self.send(Dead { message, reason, died_ms, place: range }, effects);
            }
            message => self.dying.push(Dying { range, message, reason, died_ms }),
        }
    }

    /// Messages that are out of memory have died.
    pub(super) fn die_unread(&mut self, range: SeqRange, reason: DeathReason, effects: &mut Effects) {
        match self.options.dead_letters {
            true => self.dying.push(Dying { range, message: None, reason, died_ms: self.now_ms }),
            false => {
                drop_dead(range.len(), reason, effects);
                settle(range, effects);
            }
        }
    }

    /// A message goes to where it is wanted.
    pub(super) fn send(&mut self, dead: Dead, effects: &mut Effects) {
        self.dying.unburied_bytes += dead.message.weight();
        effects.dead.push(dead);
    }

    /// The first of the line have been fetched, as far as `through` of their level. Returns how many the store did not have.
    pub(super) fn on_dying_loaded(
        &mut self,
        level: u8,
        through: u64,
        messages: Vec<LoadedMessage>,
        effects: &mut Effects,
    ) -> usize {
        let mut messages = messages.into_iter().peekable();
        let mut lost = 0;
        let mut before = None;
        while let Some(&mut Dying { ref mut range, message: None, reason, died_ms }) = self.dying.line.front_mut()
            && range.level == level
            && range.first <= through
            && before.is_none_or(|before| before < range.first)
        {
            let now = SeqRange { last: range.last.min(through), ..*range };
            let is_all = now.last == range.last;
            range.first = now.last + 1;
            before = Some(now.last);
            lost += now.len();
            while let Some(LoadedMessage { seq, message, .. }) = messages.next_if(|loaded| loaded.seq <= now.last) {
                if seq >= now.first {
                    lost -= 1;
                    let place = SeqRange::one(level, seq, now.stored);
                    self.send(Dead { message, reason, died_ms, place }, effects);
                }
            }
            if !is_all {
                break;
            }
            self.dying.line.pop_front();
        }
        while self.dying.line.front().is_some_and(|dying| dying.message.is_some())
            && let Some(Dying { range, message: Some(message), reason, died_ms }) = self.dying.line.pop_front()
        {
            self.send(Dead { message, reason, died_ms, place: range }, effects);
        }
        lost
    }

    /// Gives publishers their credit back, now or when enough dead letters are buried.
    pub(super) fn processed(&mut self, origin: Arc<dyn Outlet>, bytes: usize, effects: &mut Effects) {
        match self.may_bury() {
            true => effects.processed.push((origin, bytes)),
            false => self.dying.owed.push((origin, bytes)),
        }
    }

    /// Dead letters have arrived.
    pub(super) fn on_buried(&mut self, bytes: usize, effects: &mut Effects) {
        self.dying.unburied_bytes = self.dying.unburied_bytes.saturating_sub(bytes);
        if self.may_bury() {
            effects.processed.append(&mut self.dying.owed);
        }
    }

    /// The queue ends: nothing is fetched any more, and nobody waits for it.
    pub(super) fn forget_dying(&mut self, effects: &mut Effects) {
        effects.processed.append(&mut std::mem::take(&mut self.dying).owed);
    }
}

/// Counts messages that died and that nobody wants.
fn drop_dead(count: usize, reason: DeathReason, effects: &mut Effects) {
    let dropped = &mut effects.dropped[reason as usize];
    *dropped = dropped.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
}
