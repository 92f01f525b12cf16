//! What time does to a queue: messages that expire, and the end of one that nobody uses (semantics 18).
//!
//! Messages expire at the head, as soon as their time is up and also where nobody looks (semantics 18.3, 18.4). A head that is out of memory
//! is fetched when its time may have come: `ready.rs` knows a time before which it has not, or, of messages of an earlier run, nothing;
//! then one message is looked at and left where it is.

use super::ports::DeathReason;
use super::ttl::NEVER;
use super::{Effects, Queue};

impl Queue {
    /// When [`Input::Tick`](super::Input::Tick) must come at the latest, in milliseconds since the epoch. It may change with every input.
    pub fn next_deadline(&self) -> Option<u64> {
        let head = match self.ready.front() {
            None => NEVER,
            // It comes back with the load, or once others are buried.
            Some(front) if front.is_cold && (self.loading.is_some() || !self.may_bury()) => NEVER,
            Some(front) => front.deadline_ms,
        };
        let next = head.min(self.lease_end()).min(self.consumers.next_check_ms().unwrap_or(NEVER));
        (next != NEVER).then_some(next)
    }

    /// Takes messages whose time is up from the head, as far as they are in memory.
    #[inline]
    pub(super) fn expire(&mut self, effects: &mut Effects) {
        while self.ready.front().is_some_and(|front| front.deadline_ms <= self.now_ms && !front.is_cold) {
            self.expire_one(effects);
        }
    }

    #[cold]
    fn expire_one(&mut self, effects: &mut Effects) {
        if let Some(entry) = self.ready.pop_entry() {
            self.die(entry, DeathReason::Expired, effects);
        }
    }

    /// Whether the head is out of memory and its time may be up.
    pub(super) fn is_cold_head_due(&self) -> bool {
        self.ready.front().is_some_and(|front| front.is_cold && front.deadline_ms <= self.now_ms)
    }

    /// Somebody used the queue (semantics 18.8).
    pub(super) fn touch(&mut self) {
        self.used_ms = Some(self.now_ms);
    }

    /// When the queue ends because nobody uses it.
    fn lease_end(&self) -> u64 {
        match (self.options.expires_ms, self.used_ms) {
            (None, _) => NEVER,
            _ if self.consumers.consumer_count() > 0 || self.has_ended => NEVER,
            // The lease begins with the first look at the clock.
            (Some(_), None) => 0,
            (Some(expires_ms), Some(used_ms)) => used_ms.saturating_add(expires_ms),
        }
    }

    /// Time has passed.
    pub(super) fn on_tick(&mut self, effects: &mut Effects) {
        if self.used_ms.is_none() {
            self.touch();
        }
        if self.lease_end() <= self.now_ms {
            return self.end(effects);
        }
        self.end_overdue(effects);
        self.trim(effects);
    }
}
