//! What time it is, for everything in the runtime that asks: the machine's clocks, or those that a test or simulation brings.
//!
//! Two times, because they answer different questions: the instant says how long something takes and never goes back; wall-clock time goes on while
//! the broker is down, so deadlines that outlive it count in that.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock of somebody's own.
pub trait Time: Send + Sync {
    /// For how long something takes.
    fn now(&self) -> Instant;

    /// Milliseconds since the epoch.
    fn wall_ms(&self) -> u64;
}

/// See the module. The default is the machine's.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Time>>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Clock(own)" } else { "Clock(machine)" })
    }
}

impl Clock {
    /// Goes by another clock than the machine's.
    pub fn by(time: Arc<dyn Time>) -> Self {
        Self(Some(time))
    }

    /// For how long something takes.
    #[inline]
    pub fn now(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |time| time.now())
    }

    /// Milliseconds since the epoch.
    #[inline]
    pub fn wall_ms(&self) -> u64 {
        self.0.as_ref().map_or_else(machine_ms, |time| time.wall_ms())
    }
}

fn machine_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
