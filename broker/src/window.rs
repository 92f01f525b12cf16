//! A map whose keys are numbered in order and leave mostly in order: delivery tags, publish numbers, tickets.
//!
//! Entries stand in a ring at `key - base`, so that insert and remove cost no hashing. An entry that stays while a great many
//! later ones come and go would make the ring long and empty; such stragglers move to a tree, so that memory follows
//! the number of live entries.

use std::collections::{BTreeMap, VecDeque};

/// A sparse ring is tidied only from this length on; below, moving costs more than it saves.
const TIDY_LEN_MIN: usize = 1024;
/// A ring in which fewer than one in so many places is live is tidied.
const TIDY_SPARSENESS: usize = 4;
/// An empty ring keeps room for so many entries; a longer one gives its memory back.
const KEEP_LEN_MAX: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Window<T> {
    base: u64,
    ring: VecDeque<Option<T>>,
    live_in_ring: usize,
    stragglers: BTreeMap<u64, T>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { base: 0, ring: VecDeque::new(), live_in_ring: 0, stragglers: BTreeMap::new() }
    }
}

impl<T> Window<T> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.live_in_ring + self.stragglers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an entry. Keys must ascend; gaps are allowed.
    pub fn insert(&mut self, key: u64, value: T) {
        if self.live_in_ring == 0 {
            self.ring.clear();
            self.base = key;
        }
        let next = self.base + self.ring.len() as u64;
        assert!(key >= next, "keys ascend");
        if key - next > TIDY_LEN_MIN as u64 {
            self.retire(self.ring.len());
            self.base = key;
        } else {
            self.ring.extend((next..key).map(|_| None));
        }
        self.ring.push_back(Some(value));
        self.live_in_ring += 1;
        if self.ring.len() >= TIDY_LEN_MIN && self.live_in_ring * TIDY_SPARSENESS < self.ring.len() {
            self.retire(self.ring.len() / 2);
        }
    }

    /// Moves what is live in the first `count` places to the tree.
    fn retire(&mut self, count: usize) {
        for place in self.ring.drain(..count) {
            if let Some(value) = place {
                self.stragglers.insert(self.base, value);
                self.live_in_ring -= 1;
            }
            self.base += 1;
        }
        self.skip_empty();
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        if key < self.base {
            return self.stragglers.remove(&key);
        }
        let place = usize::try_from(key - self.base).ok()?;
        let value = self.ring.get_mut(place)?.take()?;
        self.live_in_ring -= 1;
        if place == 0 {
            self.skip_empty();
        }
        Some(value)
    }

    /// Puts an entry back that was taken out.
    pub fn restore(&mut self, key: u64, value: T) {
        if key < self.base {
            self.stragglers.insert(key, value);
            return;
        }
        let place = usize::try_from(key - self.base).ok().and_then(|place| self.ring.get_mut(place));
        let place = place.expect("the key was inserted, so the ring reaches beyond it");
        if place.replace(value).is_none() {
            self.live_in_ring += 1;
        }
    }

    fn skip_empty(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
        if self.ring.is_empty() && self.ring.capacity() > KEEP_LEN_MAX {
            self.ring = VecDeque::new();
        }
    }

    /// An entry, to be changed in place.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        if key < self.base {
            return self.stragglers.get_mut(&key);
        }
        self.ring.get_mut(usize::try_from(key - self.base).ok()?)?.as_mut()
    }

    /// Whether there is such an entry.
    pub fn contains(&self, key: u64) -> bool {
        if key < self.base {
            return self.stragglers.contains_key(&key);
        }
        usize::try_from(key - self.base).ok().and_then(|place| self.ring.get(place)).is_some_and(Option::is_some)
    }

    /// The lowest key and its entry.
    pub fn first(&self) -> Option<(u64, &T)> {
        if let Some((&key, value)) = self.stragglers.first_key_value() {
            return Some((key, value));
        }
        // Every removal skips what it leaves empty at the front, so the first place is live.
        self.ring.front()?.as_ref().map(|value| (self.base, value))
    }

    /// Takes out the lowest entry.
    pub fn pop_first(&mut self) -> Option<(u64, T)> {
        if let Some(entry) = self.stragglers.pop_first() {
            return Some(entry);
        }
        self.skip_empty();
        let value = self.ring.pop_front()??;
        let key = self.base;
        self.base += 1;
        self.live_in_ring -= 1;
        self.skip_empty();
        Some((key, value))
    }

    /// Takes out every entry up to and with `key`, in order.
    pub fn drain_up_to(&mut self, key: u64, mut each: impl FnMut(u64, T)) {
        while self.first().is_some_and(|(first, _)| first <= key) {
            if let Some((key, value)) = self.pop_first() {
                each(key, value);
            }
        }
    }

    /// All entries in order, to be changed in place.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.stragglers.values_mut().chain(self.ring.iter_mut().flatten())
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let ring =
            self.ring.iter().zip(self.base..).filter_map(|(place, key)| place.as_ref().map(|value| (key, value)));
        self.stragglers.iter().map(|(&key, value)| (key, value)).chain(ring)
    }

    /// Places held in the ring, live or not.
    #[cfg(test)]
    fn ring_len(&self) -> usize {
        self.ring.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_old_entry_does_not_keep_the_ring_long() {
        let mut window = Window::default();
        for key in 1..1_000_000 {
            window.insert(key, key);
            if key != 1 {
                assert_eq!(window.remove(key), Some(key));
            }
        }
        assert_eq!(window.len(), 1);
        assert!(window.ring_len() <= TIDY_LEN_MIN);
        assert_eq!(window.remove(1), Some(1));
        assert!(window.is_empty());
    }

    #[test]
    fn a_window_that_was_long_gives_its_memory_back() {
        let mut window = Window::default();
        for key in 1..=1_000_000 {
            window.insert(key, key);
        }
        window.drain_up_to(u64::MAX, |_, _| {});
        assert!(window.ring.capacity() <= KEEP_LEN_MAX);
        window.insert(1_000_001, 0);
        assert_eq!(window.first(), Some((1_000_001, &0)));
    }

    #[test]
    fn gaps_hold_nothing() {
        let mut window = Window::default();
        for key in [1, 5, 9, 1 << 40] {
            window.insert(key, key);
        }
        assert!(!window.contains(2) && window.contains(5) && window.contains(1 << 40));
        assert_eq!(window.remove(3), None);
        let mut seen = Vec::new();
        window.drain_up_to(9, |key, _| seen.push(key));
        assert_eq!(seen, [1, 5, 9]);
        assert_eq!(window.first(), Some((1 << 40, &(1 << 40))));
    }

    #[test]
    fn agrees_with_a_tree_over_random_operations() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut window, mut model, mut next) = (Window::default(), BTreeMap::new(), 1_u64);
        let mut taken = Vec::new();
        for _ in 0..200_000 {
            match random(12) {
                0..=4 => {
                    next += if random(50) == 0 { 1 + random(3000) } else { 1 };
                    window.insert(next, next);
                    model.insert(next, next);
                }
                5..=7 => {
                    let key = random(next + 2);
                    let removed = window.remove(key);
                    assert_eq!(removed, model.remove(&key));
                    taken.extend(removed);
                }
                10 if !taken.is_empty() => {
                    let key = taken.swap_remove(random(taken.len() as u64) as usize);
                    window.restore(key, key);
                    model.insert(key, key);
                }
                8 => assert_eq!(window.pop_first(), model.pop_first()),
                _ => assert_eq!(window.first(), model.first_key_value().map(|(k, v)| (*k, v))),
            }
            assert_eq!(window.len(), model.len());
        }
        assert!(window.iter().eq(model.iter().map(|(k, v)| (*k, v))));
    }
}
