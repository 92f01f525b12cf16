//! How much the log reads, writes and syncs, for whoever shows figures of the broker.

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
    /// Does it and counts it; `bytes` of what came of it.
    pub(crate) fn time<T>(&self, work: impl FnOnce() -> T, bytes: impl FnOnce(&T) -> usize) -> T {
        let start = Instant::now();
        let done = work();
        self.count.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes(&done) as u64, Relaxed);
        self.nanos.fetch_add(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        done
    }
}

/// See the module. All since the start.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) reads: Work,
    pub(crate) writes: Work,
    pub(crate) syncs: Work,
    pub(crate) copied_bytes: AtomicU64,
    pub(crate) removed_segments: AtomicU64,
}

impl Figures {
    /// By name, as a status has them.
    pub(crate) fn all(&self, segments: usize) -> Vec<(String, u64)> {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let figures = [
            ("segments", segments as u64),
            ("reads", of(&self.reads.count)),
            ("read_bytes", of(&self.reads.bytes)),
            ("read_nanos", of(&self.reads.nanos)),
            ("writes", of(&self.writes.count)),
            ("written_bytes", of(&self.writes.bytes)),
            ("write_nanos", of(&self.writes.nanos)),
            ("syncs", of(&self.syncs.count)),
            ("sync_nanos", of(&self.syncs.nanos)),
            ("copied_bytes", of(&self.copied_bytes)),
            ("removed_segments", of(&self.removed_segments)),
        ];
        figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_with_its_bytes() {
        let figures = Figures::default();
        assert_eq!(figures.writes.time(|| 7_usize, |bytes| *bytes), 7);
        figures.writes.time(|| 3_usize, |bytes| *bytes);
        let all = figures.all(2);
        let of = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!(
            (of("segments"), of("writes"), of("written_bytes"), of("reads")),
            (Some(2), Some(2), Some(10), Some(0))
        );
    }
}
