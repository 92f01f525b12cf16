//! One prefetch limit for all consumers of a channel: basic.qos with global (semantics 13.15).
//!
//! Several queues feed the channel, so the count is shared. Only queues count: a delivery takes a place, its settlement gives it
//! back. A queue that finds no place marks the limit; the queue that gives a place back next sees the mark and has the channel
//! tell all its consumers.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct ChannelLimit {
    /// 0 is no limit.
    max: AtomicU32,
    held: AtomicU32,
    has_waiting: AtomicBool,
}

impl ChannelLimit {
    /// A limit of `max` unacked deliveries; 0 is none.
    pub fn new(max: u16) -> Self {
        Self { max: AtomicU32::new(u32::from(max)), ..Self::default() }
    }

    /// Changes the limit. The caller tells the channel's consumers when it was raised.
    pub fn set_max(&self, max: u16) {
        self.max.store(u32::from(max), Ordering::SeqCst);
    }

    /// How many; 0 is no limit.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed) as usize
    }

    /// Whether there is a limit now.
    pub fn is_limiting(&self) -> bool {
        self.max.load(Ordering::SeqCst) != 0
    }

    /// Takes a place for one delivery, unless all are taken.
    pub(super) fn try_take(&self) -> bool {
        self.try_take_once() || {
            // A place may have come back before the mark was set, and nobody would tell.
            self.has_waiting.store(true, Ordering::SeqCst);
            self.try_take_once()
        }
    }

    fn try_take_once(&self) -> bool {
        let max = self.max.load(Ordering::SeqCst);
        self.held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |held| (max == 0 || held < max).then_some(held + 1))
            .is_ok()
    }

    /// Whether deliveries that take no place must wait, too.
    pub(super) fn is_full(&self) -> bool {
        let is_full = || {
            let max = self.max.load(Ordering::SeqCst);
            max != 0 && self.held.load(Ordering::SeqCst) >= max
        };
        is_full() && {
            self.has_waiting.store(true, Ordering::SeqCst);
            is_full()
        }
    }

    /// Counts deliveries that were made before the channel had a limit.
    pub(super) fn take_unconditionally(&self, count: usize) {
        self.held.fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    /// Gives places back; true when the channel's consumers should be told.
    pub(super) fn give_back(&self, count: usize) -> bool {
        self.held.fetch_sub(u32::try_from(count).unwrap_or(u32::MAX), Ordering::SeqCst);
        self.has_waiting.swap(false, Ordering::SeqCst)
    }
}
