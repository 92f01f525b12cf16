//! Between the queues and the storage plugin.
//!
//! [`Committer`] gathers what all queues want stored and hands it over in batches; it is the only source of confirms for persistent
//! messages. [`batch`] shapes a batch, [`pager`] brings messages back into memory, [`definitions`] says how durable exchanges, queues and bindings
//! are written down.

mod batch;
mod committer;
pub mod counters;
pub mod definitions;
mod gathered;
mod ledger;
pub mod owners;
mod pager;
pub mod recovery;
mod room;
mod stamp;
#[cfg(test)]
mod tests;
mod turns;

use plugin_api::storage::QueueKey;

pub use committer::{Committer, Failure, Submission};
pub use gathered::Barrier;
pub use ledger::StoreLedger;
pub use recovery::{RecoverError, Recovery};
pub use turns::{Storing, Turns, has_woken};

use crate::queue::Stored;

/// A queue has two keys in the store: its number for lasting messages, and one with this bit for those that are only out of memory. What
/// stands under the second is forgotten at a start.
const PAGED_BIT: u64 = 1 << 63;
/// A queue with priorities has these two for each level, which stands in the eight bits from here on: so a restart knows the levels of
/// messages without reading them (semantics 27.6).
const LEVEL_SHIFT: u32 = 55;
const NUMBER_MASK: u64 = (1 << LEVEL_SHIFT) - 1;

/// Under which key messages of a queue's level stand.
fn key(number: u64, level: u8, stored: Stored) -> QueueKey {
    let paged = if stored == Stored::Paged { PAGED_BIT } else { 0 };
    QueueKey(number | u64::from(level) << LEVEL_SHIFT | paged)
}

pub(crate) fn is_paged(key: QueueKey) -> bool {
    key.0 & PAGED_BIT != 0
}

fn level_of(key: QueueKey) -> u8 {
    // Eight bits are left.
    (key.0 >> LEVEL_SHIFT & 0xff) as u8
}

pub(crate) fn number_of(key: QueueKey) -> u64 {
    key.0 & NUMBER_MASK
}

/// The keys under which the store may have something of one queue.
#[derive(Debug, Default)]
pub struct KeysInUse {
    lasting: LevelSet,
    paged: LevelSet,
}

/// A bit for each level.
type LevelSet = [u64; 4];

impl KeysInUse {
    /// Something is handed to the store.
    #[inline]
    pub fn add(&mut self, level: u8, stored: Stored) {
        let set = match stored {
            Stored::Nowhere => return,
            Stored::Lasting => &mut self.lasting,
            Stored::Paged => &mut self.paged,
        };
        set[usize::from(level / 64)] |= 1 << (level % 64);
    }

    fn of(&self, number: u64) -> impl Iterator<Item = QueueKey> {
        let has = |set: LevelSet, level: u8| set[usize::from(level / 64)] & 1 << (level % 64) != 0;
        let of = move |set: LevelSet, stored| {
            (0..=u8::MAX).filter(move |level| has(set, *level)).map(move |level| key(number, level, stored))
        };
        of(self.lasting, Stored::Lasting).chain(of(self.paged, Stored::Paged))
    }
}

#[cfg(test)]
mod key_tests {
    use super::*;

    #[test]
    fn each_level_has_two_keys_of_its_own_and_level_0_those_of_a_queue_without_levels() {
        assert_eq!(key(7, 0, Stored::Lasting), QueueKey(7));
        assert_eq!(key(7, 0, Stored::Paged), QueueKey(7 | 1 << 63));
        for (number, level, stored) in
            [(1, 0, Stored::Lasting), (NUMBER_MASK, 255, Stored::Paged), (NUMBER_MASK, 1, Stored::Lasting)]
        {
            let key = key(number, level, stored);
            let expected = (number, level, stored == Stored::Paged);
            assert_eq!((number_of(key), level_of(key), is_paged(key)), expected);
        }
    }

    #[test]
    fn keys_in_use_are_those_that_were_added() {
        let mut keys = KeysInUse::default();
        keys.add(0, Stored::Nowhere);
        assert_eq!(keys.of(1).count(), 0);
        for (level, stored) in [(0, Stored::Lasting), (255, Stored::Paged), (64, Stored::Lasting), (0, Stored::Lasting)]
        {
            keys.add(level, stored);
        }
        let expected = [key(1, 0, Stored::Lasting), key(1, 64, Stored::Lasting), key(1, 255, Stored::Paged)];
        assert_eq!(keys.of(1).collect::<Vec<_>>(), expected);
    }
}
