//! Single active consumer: one is served, the others wait until it is gone (semantics 13.26).
//!
//! The first to subscribe is active and stays it, whatever the priority of those that come later. When it goes, the one with the highest
//! priority follows, the oldest of these. Being blocked is no reason to be replaced (semantics 13.27).

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SingleActive {
    active: Option<usize>,
    /// Slots by priority and age.
    waiting: BTreeMap<Rank, usize>,
    next_age: u64,
}

/// Who comes first is active next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    priority: Reverse<i64>,
    /// Counts subscriptions.
    age: u64,
}

impl SingleActive {
    /// Who is served.
    #[inline]
    pub(super) fn active(&self) -> Option<usize> {
        self.active
    }

    /// A new consumer; its rank is named when it goes.
    pub(super) fn add(&mut self, slot: usize, priority: i64) -> Rank {
        let rank = Rank { priority: Reverse(priority), age: self.next_age };
        self.next_age += 1;
        match self.active {
            None => self.active = Some(slot),
            Some(_) => drop(self.waiting.insert(rank, slot)),
        }
        rank
    }

    /// A consumer is gone. The one that is active instead, if it was the active one.
    pub(super) fn remove(&mut self, slot: usize, rank: Rank) -> Option<usize> {
        if self.active != Some(slot) {
            self.waiting.remove(&rank);
            return None;
        }
        self.active = self.waiting.pop_first().map(|(_, slot)| slot);
        self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stays_active_and_is_followed_by_priority_and_age() {
        let mut single = SingleActive::default();
        let priorities = [0, 5, -1, 9, 9];
        let ranks: Vec<Rank> =
            priorities.iter().enumerate().map(|(slot, priority)| single.add(slot, *priority)).collect();
        assert_eq!(single.active(), Some(0));
        assert_eq!(single.remove(3, ranks[3]), None, "who waits goes unnoticed");
        assert_eq!(single.remove(0, ranks[0]), Some(4));
        assert_eq!(single.remove(4, ranks[4]), Some(1));
        assert_eq!(single.remove(1, ranks[1]), Some(2));
        assert_eq!(single.remove(2, ranks[2]), None);
        assert_eq!(single.active(), None);
        single.add(7, -100);
        assert_eq!(single.active(), Some(7));
    }
}
