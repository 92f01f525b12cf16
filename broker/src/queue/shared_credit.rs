//! Bytes that may be on their way to many consumers of one connection together.
//!
//! Each of a connection's first consumers has credit of its own, in shares that become smaller. Those that come after them take from
//! one account, or else a connection with ten thousand consumers could be owed ten thousand shares. Queues take from it when they hand a
//! message over, the connection gives back what it has written. A consumer that finds the account empty is noted, and
//! the connection tells those that were noted when there is room, the first first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub struct SharedCredit {
    bytes_max: usize,
    taken: AtomicUsize,
    /// Source numbers of the connection.
    waiting: Mutex<VecDeque<u32>>,
}

impl SharedCredit {
    /// An account of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, taken: AtomicUsize::new(0), waiting: Mutex::default() }
    }

    /// Whether the consumer may be handed a message; one that may not is noted, unless it is already.
    pub(super) fn has_room(&self, source: u32, is_noted: &mut bool) -> bool {
        self.is_open() || {
            if !std::mem::replace(is_noted, true) {
                self.waiting.lock().push_back(source);
            }
            // Room may have come before it was noted, and nobody would tell.
            self.is_open()
        }
    }

    fn is_open(&self) -> bool {
        self.taken.load(Ordering::SeqCst) < self.bytes_max
    }

    /// A message is on its way. A large one may overdraw the account.
    #[inline]
    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::SeqCst);
    }

    /// So many bytes were written.
    pub fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Bytes on their way.
    pub fn taken_bytes(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Who waits longest, if half of the account is free. To be told by [`Input::Credit`](super::Input::Credit) of 0 bytes.
    pub fn next_waiting(&self) -> Option<u32> {
        if self.taken.load(Ordering::SeqCst) > self.bytes_max / 2 {
            return None;
        }
        self.waiting.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_it_empty_is_noted_once_and_told_when_half_is_free() {
        let credit = SharedCredit::new(100);
        let mut noted = [false; 3];
        assert!(credit.has_room(0, &mut noted[0]));
        credit.take(150);
        for _ in 0..2 {
            assert!(!credit.has_room(2, &mut noted[2]) && !credit.has_room(1, &mut noted[1]));
        }
        credit.give_back(60);
        assert_eq!((credit.next_waiting(), credit.taken_bytes()), (None, 90), "there is room, but not much");
        credit.give_back(90);
        assert_eq!([(); 3].map(|()| credit.next_waiting()), [Some(2), Some(1), None]);
    }
}
