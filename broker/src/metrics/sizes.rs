//! How large published messages are, counted by one task without looking for the class of each.

use super::stats::{SIZE_BOUNDS, SIZES, size_class};

/// Sizes that have not been added to anything yet. Most publishers stay within one class.
#[derive(Clone, Debug)]
pub struct BodySizes {
    class: usize,
    /// The last class has sizes above this …
    above: u64,
    /// … and up to this.
    up_to: u64,
    counts: [u64; SIZES],
    bytes: u64,
    is_empty: bool,
}

impl Default for BodySizes {
    fn default() -> Self {
        // A range that nothing is in, so that the first size finds its class.
        Self { class: 0, above: u64::MAX, up_to: 0, counts: [0; SIZES], bytes: 0, is_empty: true }
    }
}

impl BodySizes {
    /// Counts a message.
    #[inline]
    pub fn note(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes <= self.above || bytes > self.up_to {
            self.class = size_class(bytes);
            // 0 is in the first class, but above nothing.
            self.above = self.class.checked_sub(1).and_then(|before| SIZE_BOUNDS.get(before)).copied().unwrap_or(0);
            self.up_to = SIZE_BOUNDS.get(self.class).copied().unwrap_or(u64::MAX);
        }
        if let Some(count) = self.counts.get_mut(self.class) {
            *count += 1;
        }
        self.bytes += bytes;
        self.is_empty = false;
    }

    /// Hands out what was counted since the last time: each class that is not empty with its count, and the bytes of all.
    #[inline]
    pub fn take(&mut self, mut each: impl FnMut(usize, u64)) -> u64 {
        if self.is_empty {
            return 0;
        }
        for (class, count) in self.counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            each(class, std::mem::take(count));
        }
        self.is_empty = true;
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_is_counted_in_its_class() {
        let mut sizes = BodySizes::default();
        [0, 0, 100, 101, 1000, 5, 200_000_000].iter().for_each(|&bytes| sizes.note(bytes));
        let mut seen = Vec::new();
        assert_eq!(sizes.take(|class, count| seen.push((class, count))), 200_001_206);
        assert_eq!(seen, [(0, 4), (1, 2), (8, 1)]);
        assert_eq!(sizes.take(|_, _| panic!("nothing is left")), 0);
    }
}
