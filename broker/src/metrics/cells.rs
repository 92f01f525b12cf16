//! Counters with one writer and any number of readers.
//!
//! The writer adds by a load and a store, so there is no locked instruction and no cache line that others write to. Two writers
//! would lose counts; what has several is counted by [`shared`] atomics, once a batch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `N` counters that one task writes.
#[derive(Debug)]
pub struct Cells<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Cells<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Cells<N> {
    /// Adds to a counter. Only its one writer may call this.
    #[inline]
    pub fn add(&self, index: usize, amount: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    /// Sets a gauge. Only its one writer may call this.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        if let Some(cell) = self.0.get(index) {
            cell.store(value, Relaxed);
        }
    }

    /// One of them.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |cell| cell.load(Relaxed))
    }

    /// All of them, each as it is at its moment.
    pub fn all(&self) -> [u64; N] {
        std::array::from_fn(|index| self.get(index))
    }
}

/// Adds to a counter that has several writers; for what happens once a batch, or seldom.
#[inline]
pub fn shared(counter: &AtomicU64, amount: u64) {
    if amount > 0 {
        counter.fetch_add(amount, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_what_the_writer_has_added() {
        let cells = Cells::<3>::default();
        cells.add(1, 5);
        cells.add(1, 2);
        cells.set(2, 9);
        cells.set(2, 4);
        cells.add(7, 1);
        assert_eq!((cells.all(), cells.get(7)), ([0, 7, 4], 0));
    }
}
