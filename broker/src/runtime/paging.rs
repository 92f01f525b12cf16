//! How much memory the messages of one queue may take, from what all messages take.
//!
//! One queue alone may use half of the broker's budget. When all queues together use more than all of it, a queue's share becomes half of
//! what the largest one has, again and again, and queues put messages out of memory until they keep to it; when there is room, it
//! grows slowly. So ten long queues and ten thousand end up with what fits, without anybody counting queues.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of messages that all queues may keep in memory, unless the topology says otherwise.
pub const DEFAULT_BYTES: u64 = 128 * 1024 * 1024;
/// A queue may always keep so many bytes.
const QUEUE_BYTES_MIN: usize = 4 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Paging {
    total_bytes: usize,
    queue_bytes: AtomicUsize,
    /// What the largest queue that was busy since the last look has in memory.
    largest: AtomicUsize,
}

impl Paging {
    /// For queues that may keep so many bytes in memory all together; `None` keeps everything there.
    pub fn new(total_bytes: Option<u64>) -> Self {
        let total_bytes = total_bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let queue_bytes = if total_bytes == usize::MAX { total_bytes } else { total_bytes / 2 };
        Self { total_bytes, queue_bytes: AtomicUsize::new(queue_bytes), largest: AtomicUsize::new(0) }
    }

    /// What one queue may keep in memory, in bytes.
    #[inline]
    pub fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Ordering::Relaxed)
    }

    /// A queue has so many bytes in memory.
    #[inline]
    pub fn note(&self, queue_bytes: usize) {
        if queue_bytes > self.largest.load(Ordering::Relaxed) {
            self.largest.store(queue_bytes, Ordering::Relaxed);
        }
    }

    /// Whether a queue may keep as much as ever, so that looking again changes nothing while the messages stay the same.
    pub fn is_at_rest(&self) -> bool {
        self.queue_bytes() >= self.total_bytes / 2
    }

    /// Judges what all messages take; true when queues must put messages out of memory.
    pub fn on_memory(&self, used_bytes: u64) -> bool {
        if self.total_bytes == usize::MAX {
            return false;
        }
        let used = usize::try_from(used_bytes).unwrap_or(usize::MAX);
        let share = self.queue_bytes();
        let most = self.total_bytes / 2;
        let largest = match self.largest.swap(0, Ordering::Relaxed) {
            // Nobody was busy, so nothing is known.
            0 => share,
            largest => largest,
        };
        let next = match used {
            _ if used > self.total_bytes => (share.min(largest) / 2).max(QUEUE_BYTES_MIN).min(share),
            _ if used < self.total_bytes / 4 * 3 => share.saturating_add(share / 4 + 1).min(most),
            _ => share,
        };
        self.queue_bytes.store(next, Ordering::Relaxed);
        next < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_halved_while_all_use_too_much_and_grow_again() {
        let mib = 1024 * 1024;
        let paging = Paging::new(Some(128 * mib));
        assert_eq!(paging.queue_bytes() as u64, 64 * mib);
        let seen: Vec<(bool, u64)> = [127, 129, 200, 100, 10, 10, 10, 10, 10, 10, 10]
            .into_iter()
            .map(|used| (paging.on_memory(used * mib), paging.queue_bytes() as u64 / mib))
            .collect();
        let shrunk: Vec<bool> = seen.iter().map(|(shrunk, _)| *shrunk).collect();
        assert_eq!(shrunk[..4], [false, true, true, false]);
        assert_eq!(seen[3].1, 16);
        assert_eq!(seen[10].1, 64, "it grows back to half of all");
        for _ in 0..100 {
            paging.on_memory(1024 * mib);
        }
        assert_eq!(paging.queue_bytes(), QUEUE_BYTES_MIN);
        let paging = Paging::new(Some(128 * mib));
        paging.note(40 * 1024);
        paging.note(30 * 1024);
        assert!(paging.on_memory(129 * mib));
        assert_eq!(paging.queue_bytes(), 20 * 1024, "many small queues are found at once");
        for _ in 0..100 {
            paging.on_memory(1024 * mib);
        }
        assert!(!paging.on_memory(1024 * mib), "there is nothing more to gain");
    }

    #[test]
    fn without_a_budget_nothing_leaves_memory() {
        let paging = Paging::new(None);
        assert!(!paging.on_memory(u64::MAX));
        assert_eq!(paging.queue_bytes(), usize::MAX);
    }
}
