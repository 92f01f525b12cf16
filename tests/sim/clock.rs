//! The broker's clock: tokio's, which is paused and goes on when the driver says so.

use broker::runtime::clock::Time;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tests::clock::EPOCH_MS;

/// See the module. Wall-clock time goes on while the broker is down.
#[derive(Debug)]
pub(crate) struct VirtualClock {
    start: tokio::time::Instant,
    /// How fast the broker's wall clock goes, in percent; other than 100 only as a planted defect.
    wall_percent: AtomicU64,
}

impl VirtualClock {
    /// To be called where tokio's clock is paused.
    pub(crate) fn start() -> Self {
        Self { start: tokio::time::Instant::now(), wall_percent: AtomicU64::new(100) }
    }

    /// Milliseconds since the start.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant so many milliseconds after the start.
    pub(crate) fn at(&self, ms: u64) -> tokio::time::Instant {
        self.start + std::time::Duration::from_millis(ms)
    }

    /// Makes the wall clock of the broker go wrong.
    pub(crate) fn set_wall_percent(&self, percent: u64) {
        self.wall_percent.store(percent, Ordering::Relaxed);
    }
}

impl Time for VirtualClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS + self.elapsed_ms() * self.wall_percent.load(Ordering::Relaxed) / 100
    }
}
