//! Messages that wait for a consumer, in publication order.
//!
//! New messages join at the tail. One that comes back takes its old place (semantics 13.20): everything that was ever handed out
//! stood before everything that was not, so what came back is a sorted set in front of the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::message::Message;

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its place: ascending in publication order.
    pub(super) seq: u64,
    /// What.
    pub(super) message: Arc<Message>,
    /// It was handed out before (semantics 13.21).
    pub(super) redelivered: bool,
    /// The store has it.
    pub(super) is_stored: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ready {
    returned: BTreeMap<u64, Entry>,
    fresh: VecDeque<Entry>,
}

impl Ready {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty()
    }

    /// A new message, at the tail.
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        self.fresh.push_back(entry);
    }

    /// A message that had been handed out comes back to its place.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.returned.insert(entry.seq, entry);
    }

    /// The next to be handed out.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if !self.returned.is_empty() {
            return self.returned.pop_first().map(|(_, entry)| entry);
        }
        let entry = self.fresh.pop_front();
        // A queue that was long gives its memory back when it has become short.
        if self.fresh.is_empty() && self.fresh.capacity() > KEEP_ENTRIES_MAX {
            self.fresh = VecDeque::new();
        }
        entry
    }

    /// Takes everything out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry> {
        std::mem::take(&mut self.returned).into_values().chain(std::mem::take(&mut self.fresh))
    }
}

/// An empty queue keeps room for so many entries.
const KEEP_ENTRIES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;

    #[test]
    fn a_returned_message_keeps_its_place() {
        let message = Message::new(Parts { exchange: "", routing_key: "", properties: &[0, 0] }, b"");
        let mut ready = Ready::default();
        for seq in 1..=5 {
            ready.push(Entry { seq, message: Arc::clone(&message), redelivered: false, is_stored: false });
        }
        let mut taken: Vec<Entry> = (0..3).filter_map(|_| ready.pop()).collect();
        taken.reverse();
        for entry in taken.drain(..) {
            ready.put_back(entry);
        }
        let order: Vec<u64> = std::iter::from_fn(|| ready.pop()).map(|entry| entry.seq).collect();
        assert_eq!(order, [1, 2, 3, 4, 5]);
    }
}
