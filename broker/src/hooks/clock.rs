//! What time it is for scripts.
//!
//! In tests of scripts it stands still and is moved on by hand; in the broker it is the machine's.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// The clock of one interpreter.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead: Cell<Duration>,
    /// When it was stopped: since 1970, and since the moment of [`Clock::steady_ms`].
    stopped: Cell<Option<(Duration, Duration)>>,
}

impl Clock {
    /// For `broker.now`: seconds since 1970, with a fraction.
    pub(super) fn unix_seconds(&self) -> f64 {
        let since = self.stopped.get().map_or_else(since_1970, |(since_1970, _)| since_1970);
        since.saturating_add(self.ahead.get()).as_secs_f64()
    }

    /// For what ends after a time: milliseconds since some moment before the first call, the same in all interpreters, never
    /// going back.
    pub(super) fn steady_ms(&self) -> u64 {
        let since = self.stopped.get().map_or_else(since_start, |(_, since_start)| since_start);
        u64::try_from(since.saturating_add(self.ahead.get()).as_millis()).unwrap_or(u64::MAX)
    }

    /// From now on only [`Clock::advance`] moves it, so that a slow machine is no reason for a test to fail.
    pub(super) fn stop(&self) {
        self.stopped.set(Some((since_1970(), since_start())));
    }

    /// Moves this clock on.
    pub(super) fn advance(&self, by: Duration) {
        self.ahead.set(self.ahead.get().saturating_add(by));
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn since_start() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}
