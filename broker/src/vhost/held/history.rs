//! Which messages an exchange has kept over a restart: the last ones, limited in number and in bytes.
//!
//! The bodies are in the store and with the exchange's type, not here. A message that does not last takes its place among the others, so that
//! after a restart nobody gets messages that had been pushed out before.

use std::collections::VecDeque;

use plugin_api::exchange::Keep;

use crate::message::Message;
use crate::queue::{SeqRange, Stored};

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    next_seq: u64,
    entries: VecDeque<Entry>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u64,
    bytes: u64,
    stored: Stored,
}

impl History {
    /// A history with what an earlier run has left: places with the messages, ascending. New messages get places from `first_seq` on.
    pub fn restore<'a>(first_seq: u64, left: impl Iterator<Item = (u64, &'a Message)>) -> Self {
        let mut history = Self { next_seq: first_seq, ..Self::default() };
        for (seq, message) in left {
            history.push(Entry { seq, bytes: bytes(message), stored: Stored::Lasting });
        }
        history
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
    }

    /// Adds a message; returns its place in the store, if it is to be there. Places of what there is no room for any more go into
    /// `settled`.
    pub fn keep(
        &mut self,
        message: &Message,
        is_lasting: bool,
        keep: Keep,
        settled: &mut Vec<SeqRange>,
    ) -> Option<u64> {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.push(Entry {
            seq,
            bytes: bytes(message),
            stored: if is_lasting { Stored::Lasting } else { Stored::Nowhere },
        });
        while (self.entries.len() as u64 > keep.count_max || self.bytes > keep.bytes_max)
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes;
            // What was too large by itself was never stored.
            if oldest.stored == Stored::Lasting && oldest.seq != seq {
                SeqRange::add(settled, LEVEL, oldest.seq, oldest.stored);
            }
        }
        (is_lasting && !self.entries.is_empty()).then_some(seq)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = 0;
    }
}

/// What a message counts for.
fn bytes(message: &Message) -> u64 {
    let parts = message.parts();
    (parts.exchange.len() + parts.routing_key.len() + parts.properties.len() + message.body().len()) as u64
}

/// The level in the store under which an exchange has what it keeps.
pub const LEVEL: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Parts;

    fn keep(history: &mut History, body_bytes: usize, is_lasting: bool) -> (Option<u64>, Vec<(u64, u64)>) {
        let parts = Parts { exchange: "", routing_key: "", properties: &[0, 0] };
        let message = Message::new(parts, &vec![0; body_bytes]);
        let mut settled = Vec::new();
        let seq = history.keep(&message, is_lasting, Keep { count_max: 3, bytes_max: 1_000 }, &mut settled);
        (seq, settled.into_iter().map(|range| (range.first, range.last)).collect())
    }

    #[test]
    fn the_last_are_kept_and_transient_ones_count() {
        let mut history = History::restore(10, std::iter::empty());
        assert_eq!(keep(&mut history, 1, true), (Some(10), vec![]));
        assert_eq!(keep(&mut history, 1, false), (None, vec![]));
        assert_eq!(keep(&mut history, 1, true), (Some(12), vec![]));
        assert_eq!(keep(&mut history, 1, true), (Some(13), vec![(10, 10)]));
        assert_eq!(keep(&mut history, 1, true), (Some(14), vec![]), "the transient one goes");
    }

    #[test]
    fn the_oldest_go_when_all_together_are_too_large() {
        let mut history = History::restore(1, std::iter::empty());
        keep(&mut history, 400, true);
        keep(&mut history, 400, true);
        assert_eq!(keep(&mut history, 900, true), (Some(3), vec![(1, 2)]));
        assert_eq!(keep(&mut history, 2_000, true), (None, vec![(3, 3)]), "what is too large by itself is not stored");
        assert_eq!((history.bytes, history.entries.len()), (0, 0));
    }

    #[test]
    fn what_an_earlier_run_has_left_is_the_oldest() {
        let parts = Parts { exchange: "", routing_key: "", properties: &[0, 0] };
        let message = Message::new(parts, b"m");
        let mut history = History::restore(100, [(5, &*message), (7, &*message)].into_iter());
        assert_eq!(keep(&mut history, 1, true), (Some(100), vec![]));
        assert_eq!(keep(&mut history, 1, true), (Some(101), vec![(5, 5)]));
    }
}
