//! A clock that stands still until it is told to go on, for brokers that run without waiting.

use broker::runtime::clock::Time;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Where wall clocks of tests begin: some time in 2026, in milliseconds since the epoch. Any would do, but it must not change.
pub const EPOCH_MS: u64 = 1_780_000_000_000;

/// See the module. Both times go on together.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    start_ms: u64,
    now: Mutex<Instant>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::starting_after(0)
    }
}

impl ManualClock {
    /// A clock whose wall time begins so many milliseconds after [`EPOCH_MS`].
    pub fn starting_after(ms: u64) -> Self {
        let start = Instant::now();
        Self { start, start_ms: EPOCH_MS + ms, now: Mutex::new(start) }
    }

    /// Goes on to this instant, never back.
    pub fn jump(&self, to: Instant) {
        let mut now = self.lock();
        *now = to.max(*now);
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Time for ManualClock {
    fn now(&self) -> Instant {
        *self.lock()
    }

    fn wall_ms(&self) -> u64 {
        let elapsed = self.lock().saturating_duration_since(self.start);
        self.start_ms + u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX - self.start_ms)
    }
}
