//! How long messages may wait: each until a deadline that is fixed when it comes (semantics 18.1).
//!
//! A message in memory carries its deadline. Of one that is out of memory the store keeps when it came, and [`Ttls`] knows what the queue's
//! time to live was then, so that a policy which changes it later applies to later messages alone (semantics 18.6). Nothing is kept for each
//! message.

use smallvec::{SmallVec, smallvec};

use crate::message::Message;

/// The deadline of a message that has none, the time to live of a queue that has none.
pub(super) const NEVER: u64 = u64::MAX;

/// When a message that came at `came_ms` is to be gone, in milliseconds since the epoch, where the queue's time to live was `ttl_ms`.
#[inline]
pub(super) fn deadline(ttl_ms: u64, came_ms: u64, message: &Message) -> u64 {
    let ttl_ms = message.expiration_ms().map_or(ttl_ms, |own_ms| own_ms.min(ttl_ms));
    if ttl_ms == NEVER { NEVER } else { came_ms.saturating_add(ttl_ms) }
}

/// When a message must have come to have this deadline; the inverse of [`deadline`].
pub(super) fn came(ttl_ms: u64, deadline_ms: u64, message: &Message) -> u64 {
    let ttl_ms = message.expiration_ms().map_or(ttl_ms, |own_ms| own_ms.min(ttl_ms));
    deadline_ms.saturating_sub(ttl_ms)
}

/// The time to live of a queue's level, by place. See the module.
#[derive(Debug)]
pub(super) struct Ttls {
    /// From which place on which one was in force; ascending, never empty.
    since: SmallVec<[(u64, u64); 1]>,
}

impl Ttls {
    /// One for all places.
    pub(super) fn new(ttl_ms: u64) -> Self {
        Self { since: smallvec![(0, ttl_ms)] }
    }

    /// What was in force when this place was taken.
    #[inline]
    pub(super) fn at(&self, seq: u64) -> u64 {
        let after = match self.since.len() {
            1 => 1,
            _ => self.since.partition_point(|&(first, _)| first <= seq),
        };
        self.since.get(after.max(1) - 1).map_or(NEVER, |&(_, ttl_ms)| ttl_ms)
    }

    /// From `next_seq` on it is another one.
    pub(super) fn change(&mut self, next_seq: u64, ttl_ms: u64) {
        match self.since.last_mut() {
            Some((_, last)) if *last == ttl_ms => return,
            Some((first, last)) if *first >= next_seq => *last = ttl_ms,
            _ => self.since.push((next_seq, ttl_ms)),
        }
        if self.since.len() > CHANGES_MAX {
            // The oldest messages count as those after them.
            self.since.remove(0);
        }
    }

    /// Nothing that came before `next_seq` waits any more.
    pub(super) fn forget_before(&mut self, next_seq: u64) {
        let needless = self.since.partition_point(|&(first, _)| first <= next_seq).saturating_sub(1);
        self.since.drain(..needless);
    }
}

/// So many changes of policy are told apart while messages from before them wait.
const CHANGES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;
    use std::sync::Arc;

    fn message(expiration: Option<&[u8]>) -> Arc<Message> {
        let properties = match expiration {
            None => vec![0, 0],
            Some(text) => [&[1, 0, text.len() as u8], text].concat(),
        };
        Message::new(Parts { exchange: "", routing_key: "", properties: &properties }, b"")
    }

    #[test]
    fn the_smaller_of_the_queue_and_the_message_counts() {
        let check = |ttl_ms, expiration: Option<&[u8]>, expected| {
            let message = message(expiration);
            assert_eq!(deadline(ttl_ms, 1000, &message), expected);
            if expected != NEVER {
                assert_eq!(came(ttl_ms, expected, &message), 1000);
            }
        };
        check(NEVER, None, NEVER);
        check(50, None, 1050);
        check(NEVER, Some(b"70"), 1070);
        check(50, Some(b"70"), 1050);
        check(50, Some(b"0"), 1000);
    }

    #[test]
    fn a_change_applies_to_later_places() {
        let mut ttls = Ttls::new(NEVER);
        ttls.change(10, 500);
        ttls.change(10, 600);
        ttls.change(20, 700);
        assert_eq!([0, 9, 10, 19, 20, 99].map(|seq| ttls.at(seq)), [NEVER, NEVER, 600, 600, 700, 700]);
        ttls.forget_before(19);
        assert_eq!([10, 19, 20].map(|seq| ttls.at(seq)), [600, 600, 700]);
        for change in 0..200 {
            ttls.change(100 + change, change);
        }
        assert_eq!((ttls.at(299), ttls.since.len()), (199, CHANGES_MAX));
    }
}
