//! Counters of hooks, and how much a hook may write into the log.
//!
//! Each worker thread counts into a shard of its own, which nobody else writes, so that counting costs no more than an
//! addition; whoever asks adds the shards up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::decl::{OnError, Scope};

/// What one hook has done since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookStatus {
    /// The declared name.
    pub name: String,
    /// The declared file.
    pub script: PathBuf,
    /// The declared place.
    pub scope: Scope,
    /// The declared answer to failures.
    pub on_error: OnError,
    /// The counters.
    pub counts: Counts,
    /// Worker threads that have an interpreter for it.
    pub worker_count: usize,
}

/// The counters of a hook. Every call ends in one of `passed`, `rewritten`, `dropped`, `rejected` and `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that went on as they came.
    pub passed: u64,
    /// Messages that went on with another routing key or other properties.
    pub rewritten: u64,
    /// Messages that the script dropped.
    pub dropped: u64,
    /// Messages that the script rejected.
    pub rejected: u64,
    /// Calls that failed; `on_error` decided.
    pub failed: u64,
    /// Of the failed, those whose time ran out.
    pub time_limit_reached: u64,
    /// Of the failed, those that ran out of memory.
    pub memory_limit_reached: u64,
    /// Calls whose time was measured: one in sixteen.
    pub timed: u64,
    /// What the timed calls took together.
    pub timed_nanos: u64,
}

impl Counts {
    /// All calls.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.passed + self.rewritten + self.dropped + self.rejected + self.failed
    }

    /// What a call takes on average.
    #[must_use]
    pub fn mean_time(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.timed_nanos.checked_div(self.timed)?))
    }
}

/// The counters of one hook on one worker thread.
#[derive(Debug, Default)]
pub(super) struct Shard([AtomicU64; COUNTERS]);

#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Counter {
    Passed,
    Rewritten,
    Dropped,
    Rejected,
    Failed,
    TimeLimitReached,
    MemoryLimitReached,
    Timed,
    TimedNanos,
}

const COUNTERS: usize = Counter::TimedNanos as usize + 1;

impl Shard {
    pub(super) fn add(&self, counter: Counter, amount: u64) {
        // One thread writes, so a load and a store lose nothing, and there is no locked instruction on the message path.
        if let Some(cell) = self.0.get(counter as usize) {
            cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
        }
    }

    fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).map_or(0, |cell| cell.load(Relaxed))
    }
}

/// All shards of one hook.
#[derive(Debug, Default)]
pub(super) struct Counters {
    shards: Mutex<Vec<Arc<Shard>>>,
    /// What shards of ended threads had counted.
    retired: Mutex<Counts>,
}

impl Counters {
    pub(super) fn open_shard(&self) -> Arc<Shard> {
        let shard = Arc::new(Shard::default());
        self.shards.lock().push(Arc::clone(&shard));
        shard
    }

    /// Takes a shard back; what it counted stays.
    pub(super) fn close_shard(&self, shard: &Arc<Shard>) {
        let mut shards = self.shards.lock();
        shards.retain(|open| !Arc::ptr_eq(open, shard));
        self.retired.lock().add(shard);
    }

    pub(super) fn worker_count(&self) -> usize {
        self.shards.lock().len()
    }

    pub(super) fn sum(&self) -> Counts {
        let shards = self.shards.lock();
        let mut counts = *self.retired.lock();
        shards.iter().for_each(|shard| counts.add(shard));
        counts
    }
}

impl Counts {
    fn add(&mut self, shard: &Shard) {
        self.passed += shard.get(Counter::Passed);
        self.rewritten += shard.get(Counter::Rewritten);
        self.dropped += shard.get(Counter::Dropped);
        self.rejected += shard.get(Counter::Rejected);
        self.failed += shard.get(Counter::Failed);
        self.time_limit_reached += shard.get(Counter::TimeLimitReached);
        self.memory_limit_reached += shard.get(Counter::MemoryLimitReached);
        self.timed += shard.get(Counter::Timed);
        self.timed_nanos += shard.get(Counter::TimedNanos);
    }
}

/// Lets a number of lines through in each window of time and counts the others.
#[derive(Debug)]
pub(super) struct LogGate {
    lines_max: u32,
    state: Mutex<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    window_start: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl LogGate {
    pub(super) fn new(lines_max: u32) -> Self {
        Self { lines_max, state: Mutex::default() }
    }

    /// `Some(count)` if a line may be written now; `count` lines were not since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.window_start.is_none_or(|start| now.saturating_duration_since(start) >= LOG_WINDOW) {
            state.window_start = Some(now);
            state.lines = 0;
        }
        if state.lines >= self.lines_max {
            state.suppressed += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// How long [`LogGate`] counts lines before it starts again.
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// Lines about failures of one hook in a window. The first ones tell what is wrong; a broken hook at 100,000 messages a
/// second would fill a disk with the others.
pub(super) const FAILURE_LINES_MAX: u32 = 5;

/// Lines that one script writes with `broker.log` in a window.
pub(super) const SCRIPT_LINES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_gate_lets_so_many_lines_through_and_tells_how_many_it_did_not() {
        let gate = LogGate::new(2);
        let start = Instant::now();
        let passed: Vec<_> = (0..5).map(|_| gate.pass(start)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        assert_eq!(gate.pass(start + LOG_WINDOW), Some(3));
        assert_eq!(gate.pass(start + LOG_WINDOW), Some(0));
    }

    #[test]
    fn counts_of_an_ended_worker_stay() {
        let counters = Counters::default();
        let (one, other) = (counters.open_shard(), counters.open_shard());
        one.add(Counter::Passed, 2);
        other.add(Counter::Failed, 1);
        counters.close_shard(&one);
        assert_eq!((counters.sum().passed, counters.sum().calls(), counters.worker_count()), (2, 3, 1));
    }
}
