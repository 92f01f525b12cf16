//! Rings of consumers that take turns, one for each priority (semantics 13.8).
//!
//! A ring is a circle of slots linked both ways, so that joining, leaving and taking a turn cost the same however many consumers a queue has.
//! Who may take a message is not known here.

use smallvec::SmallVec;

/// See the module. Most queues have one consumer, whose turns are kept in place.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Highest priority first.
    rings: SmallVec<[Ring; 1]>,
    /// By slot; who is in no ring has [`Link::NONE`].
    links: SmallVec<[Link; 1]>,
}

#[derive(Debug)]
struct Ring {
    priority: i64,
    /// Consumers of this priority, in the ring or not.
    members: usize,
    /// Whose turn it is.
    first: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    before: usize,
    after: usize,
}

impl Link {
    /// No slot has this number.
    const NONE: Self = Self { before: usize::MAX, after: usize::MAX };
}

impl Turns {
    /// A consumer of this priority is there now; it is in no ring yet.
    pub(super) fn add(&mut self, priority: i64) {
        let place = self.rings.partition_point(|ring| ring.priority > priority);
        match self.rings.get_mut(place).filter(|ring| ring.priority == priority) {
            Some(ring) => ring.members += 1,
            None => self.rings.insert(place, Ring { priority, members: 1, first: None }),
        }
    }

    /// A consumer is gone.
    pub(super) fn remove(&mut self, slot: usize, priority: i64) {
        let Some(place) = self.place_of(priority) else { return };
        self.leave_ring(place, slot);
        let Some(ring) = self.rings.get_mut(place) else { return };
        ring.members -= 1;
        if ring.members == 0 {
            self.rings.remove(place);
        }
    }

    /// A consumer takes part, behind all others of its priority. One that does already stays where it is.
    #[inline]
    pub(super) fn join(&mut self, slot: usize, priority: i64) {
        if slot >= self.links.len() {
            self.links.resize(slot + 1, Link::NONE);
        }
        if self.links[slot] != Link::NONE {
            return;
        }
        let Some(place) = self.place_of(priority) else { return };
        let ring = &mut self.rings[place];
        match ring.first {
            None => {
                ring.first = Some(slot);
                self.links[slot] = Link { before: slot, after: slot };
            }
            Some(first) => {
                let before = std::mem::replace(&mut self.links[first].before, slot);
                self.links[before].after = slot;
                self.links[slot] = Link { before, after: first };
            }
        }
    }

    /// The first, by priority and turn, that `accepts` says yes to; it is last of its ring then. Who is asked and says no leaves.
    #[inline]
    pub(super) fn next(&mut self, mut accepts: impl FnMut(usize) -> bool) -> Option<usize> {
        for place in 0..self.rings.len() {
            while let Some(slot) = self.rings[place].first {
                if accepts(slot) {
                    self.rings[place].first = Some(self.links[slot].after);
                    return Some(slot);
                }
                self.leave_ring(place, slot);
            }
        }
        None
    }

    fn place_of(&self, priority: i64) -> Option<usize> {
        let place = self.rings.partition_point(|ring| ring.priority > priority);
        self.rings.get(place).is_some_and(|ring| ring.priority == priority).then_some(place)
    }

    fn leave_ring(&mut self, place: usize, slot: usize) {
        let Some(&link) = self.links.get(slot).filter(|link| **link != Link::NONE) else { return };
        self.links[slot] = Link::NONE;
        let ring = &mut self.rings[place];
        if link.after == slot {
            ring.first = None;
            return;
        }
        self.links[link.before].after = link.after;
        self.links[link.after].before = link.before;
        if ring.first == Some(slot) {
            ring.first = Some(link.after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(consumers: &[(usize, i64)]) -> Turns {
        let mut turns = Turns::default();
        for &(slot, priority) in consumers {
            turns.add(priority);
            turns.join(slot, priority);
        }
        turns
    }

    fn order(turns: &mut Turns, count: usize, accepts: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..count).filter_map(|_| turns.next(&accepts)).collect()
    }

    #[test]
    fn equals_take_turns_and_the_highest_priority_has_them_all() {
        let mut turns = of(&[(0, -5), (1, 3), (2, 3), (3, 0), (4, 3)]);
        assert_eq!(order(&mut turns, 4, |_| true), [1, 2, 4, 1]);
        assert_eq!(order(&mut turns, 2, |slot| slot == 3 || slot == 0), [3, 3], "who says no is passed over");
        assert_eq!(order(&mut turns, 1, |slot| slot == 0), [0]);
        assert_eq!(order(&mut turns, 1, |_| true), [0], "and stays out until it joins again");
        turns.join(2, 3);
        assert_eq!(order(&mut turns, 2, |_| true), [2, 2]);
    }

    #[test]
    fn who_joins_again_is_last_and_joining_twice_is_joining_once() {
        let mut turns = of(&[(0, 0), (1, 0), (2, 0)]);
        assert_eq!(order(&mut turns, 1, |slot| slot != 0), [1]);
        turns.join(0, 0);
        turns.join(2, 0);
        assert_eq!(order(&mut turns, 4, |_| true), [2, 1, 0, 2]);
    }

    #[test]
    fn who_is_gone_leaves_no_gap() {
        let mut turns = of(&[(0, 1), (1, 0), (2, 0), (3, 0)]);
        turns.remove(0, 1);
        turns.remove(2, 0);
        assert_eq!(order(&mut turns, 3, |_| true), [1, 3, 1]);
        turns.remove(3, 0);
        turns.remove(1, 0);
        assert_eq!(turns.next(|_| true), None);
        assert!(turns.rings.is_empty(), "no priority stays without consumers");
        turns.add(7);
        turns.join(2, 7);
        assert_eq!(order(&mut turns, 2, |_| true), [2, 2], "a slot is used again");
    }
}
