//! How long a queue may become, and what happens beyond that (semantics 19).
//!
//! Only ready messages count, and of them only the bodies. What is unacked may come back and push the queue over its limits again.

use std::sync::Arc;

use super::options::Overflow;
use super::ports::{Dead, DeathReason, SeqRange, Stored};
use super::{Effects, Queue};
use crate::message::Message;

impl Queue {
    /// Whether a new message is refused, whoever might take it (semantics 19.4).
    #[inline]
    pub(super) fn refuses(&self, message: &Message) -> bool {
        self.options.overflow != Overflow::DropHead && self.would_be_too_long(message)
    }

    #[cold]
    fn would_be_too_long(&self, message: &Message) -> bool {
        let (count, bytes) = (self.ready.len() as u64 + 1, self.ready.body_bytes() + message.body().len() as u64);
        self.options.max_length.is_some_and(|max| count > max)
            || self.options.max_length_bytes.is_some_and(|max| bytes > max)
    }

    /// A new message was refused; it may be wanted elsewhere (semantics 19.5).
    #[cold]
    pub(super) fn on_refused(&mut self, message: Arc<Message>, effects: &mut Effects) {
        if self.options.overflow == Overflow::RejectPublishDlx && self.options.dead_letters {
            // It has no place, and the store nothing of it.
            let place = SeqRange::one(0, 0, Stored::Nowhere);
            let died_ms = self.now_ms;
            self.send(Dead { message, reason: DeathReason::MaxLength, died_ms, place }, effects);
        }
    }

    fn excess_count(&self) -> u64 {
        self.options.max_length.map_or(0, |max| (self.ready.len() as u64).saturating_sub(max))
    }

    fn is_too_large(&self) -> bool {
        self.options.max_length_bytes.is_some_and(|max| self.ready.body_bytes() > max)
    }

    /// Whether messages must go from the head that are out of memory.
    pub(super) fn is_trim_due(&self) -> bool {
        self.options.overflow == Overflow::DropHead && (self.excess_count() > 0 || self.is_too_large())
    }

    /// Drops messages from the head until the limits are kept (semantics 19.2), as far as they can be judged without fetching them.
    #[inline]
    pub(super) fn trim(&mut self, effects: &mut Effects) {
        if self.options.max_length.is_some() || self.options.max_length_bytes.is_some() {
            self.drop_head(effects);
        }
    }

    fn drop_head(&mut self, effects: &mut Effects) {
        while self.is_trim_due() {
            if let Some(entry) = self.ready.pop_entry() {
                self.die(entry, DeathReason::MaxLength, effects);
                continue;
            }
            // Where bytes are counted, too, the size of each must be known: they are fetched. See `read_ahead`.
            if self.options.max_length_bytes.is_some() {
                return;
            }
            let Some(range) = self.ready.cut_cold(self.excess_count()) else { return };
            self.die_unread(range, DeathReason::MaxLength, effects);
        }
    }
}
