//! What is there and how much is done, for whoever shows figures of the broker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// One kind of work: how often, how many bytes, how long.
#[derive(Debug, Default)]
pub(crate) struct Work {
    count: AtomicU64,
    bytes: AtomicU64,
    nanos: AtomicU64,
}

impl Work {
    /// Counts what began at `start` and is done now.
    pub(crate) fn done(&self, start: Instant, bytes: usize) {
        self.count.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.nanos.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// All since the database was opened; what is live since it was recovered.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) reads: Work,
    pub(crate) writes: Work,
    /// Commits with a sync. SQLite does not tell what part of a commit the sync was, so these have the time of the whole.
    pub(crate) syncs: Work,
    live_count: AtomicU64,
    live_bytes: AtomicU64,
}

impl Figures {
    pub(crate) fn set_live(&self, count: u64, bytes: u64) {
        self.live_count.store(count, Relaxed);
        self.live_bytes.store(bytes, Relaxed);
    }

    pub(crate) fn add_live(&self, count: u64, bytes: u64) {
        self.set_live(self.live().0.saturating_add(count), self.live().1.saturating_add(bytes));
    }

    pub(crate) fn remove_live(&self, count: u64, bytes: u64) {
        self.set_live(self.live().0.saturating_sub(count), self.live().1.saturating_sub(bytes));
    }

    /// Count and bytes; only whoever writes changes them, so nothing gets lost in between.
    pub(crate) fn live(&self) -> (u64, u64) {
        (self.live_count.load(Relaxed), self.live_bytes.load(Relaxed))
    }

    /// By name, as a status has them.
    pub(crate) fn all(&self) -> Vec<(String, u64)> {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let figures = [
            ("reads", of(&self.reads.count)),
            ("read_bytes", of(&self.reads.bytes)),
            ("read_nanos", of(&self.reads.nanos)),
            ("writes", of(&self.writes.count)),
            ("written_bytes", of(&self.writes.bytes)),
            ("write_nanos", of(&self.writes.nanos)),
            ("syncs", of(&self.syncs.count)),
            ("sync_nanos", of(&self.syncs.nanos)),
        ];
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
