//! What time it is for scripts.
//!
//! Tests of scripts move the time on by hand; in the broker it is the machine's.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

/// The clock of one interpreter.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead: Cell<Duration>,
}

impl Clock {
    /// For `broker.now`: seconds since 1970, with a fraction.
    pub(super) fn unix_seconds(&self) -> f64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.saturating_add(self.ahead.get()).as_secs_f64()
    }

    /// For what ends after a time: milliseconds since some moment before the first call, the same in all interpreters, never
    /// going back.
    pub(super) fn steady_ms(&self) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let since = START.elapsed().saturating_add(self.ahead.get());
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Moves this clock on.
    pub(super) fn advance(&self, by: Duration) {
        self.ahead.set(self.ahead.get().saturating_add(by));
    }
}
