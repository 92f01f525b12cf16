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
use super::error::HookError;
use super::point::Point;
use super::record::{RESULTS, Record};

/// What one hook has done at one point since it was first loaded; reloads do not begin anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookStatus {
    /// The declared name.
    pub name: String,
    /// Where it is called. A script with several functions has a status for each.
    pub point: Point,
    /// The declared file.
    pub script: PathBuf,
    /// The declared place.
    pub scope: Scope,
    /// The declared answer to failures.
    pub on_error: OnError,
    /// Whether nothing comes of what it decides.
    pub shadow: bool,
    /// The counters.
    pub counts: Counts,
    /// How long calls took: the timed ones, by [`TIME_BOUNDS`] and above.
    pub times: [u64; TIME_BOUNDS_SECS.len() + 1],
    /// Worker threads that call it.
    pub worker_count: usize,
    /// The last failure since it was loaded.
    pub last_error: Option<HookError>,
    /// The last calls, a sample, latest first.
    pub records: Vec<Arc<Record>>,
}

/// The counters of a hook. Every call ends in one of `passed`, `rewritten`, `dropped`, `rejected`, `dead_lettered` and `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that went on as they came.
    pub passed: u64,
    /// Messages that went on with another routing key or other properties.
    pub rewritten: u64,
    /// Messages that the script dropped.
    pub dropped: u64,
    /// What the script rejected.
    pub rejected: u64,
    /// Messages that the script sent to the dead letters.
    pub dead_lettered: u64,
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
        self.passed + self.rewritten + self.dropped + self.rejected + self.dead_lettered + self.failed
    }

    /// What a call takes on average.
    #[must_use]
    pub fn mean_time(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.timed_nanos.checked_div(self.timed)?))
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Ended {
    Passed,
    Rewritten,
    Dropped,
    Rejected,
    DeadLettered,
    Failed,
}

impl Ended {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Rewritten => "rewritten",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::DeadLettered => "dead_lettered",
            Self::Failed => "failed",
        }
    }
}

/// The counters of one hook on one worker thread.
#[derive(Debug, Default)]
pub(super) struct Shard {
    ended: [AtomicU64; RESULTS],
    time_limit_reached: AtomicU64,
    memory_limit_reached: AtomicU64,
    timed: AtomicU64,
    timed_nanos: AtomicU64,
    times: [AtomicU64; TIME_BOUNDS_SECS.len() + 1],
}

impl Shard {
    #[inline]
    pub(super) fn count(&self, ended: Ended) {
        if let Some(cell) = self.ended.get(ended as usize) {
            add(cell, 1);
        }
    }

    pub(super) fn count_limit(&self, is_time: bool) {
        add(if is_time { &self.time_limit_reached } else { &self.memory_limit_reached }, 1);
    }

    pub(super) fn time(&self, took: Duration) {
        add(&self.timed, 1);
        add(&self.timed_nanos, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let seconds = took.as_secs_f64();
        let place = TIME_BOUNDS_SECS.iter().position(|bound| seconds <= *bound).unwrap_or(TIME_BOUNDS_SECS.len());
        if let Some(cell) = self.times.get(place) {
            add(cell, 1);
        }
    }
}

/// One thread writes, so a load and a store lose nothing, and there is no locked instruction on the message path.
#[inline]
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// All shards of one hook at one point. They stay when the hook is loaded anew.
#[derive(Debug, Default)]
pub(super) struct Counters {
    shards: Mutex<Vec<Arc<Shard>>>,
    /// What shards of ended threads and of earlier loads had counted.
    retired: Mutex<Sums>,
}

/// Everything that a hook counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) counts: Counts,
    pub(super) times: [u64; TIME_BOUNDS_SECS.len() + 1],
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

    pub(super) fn sum(&self) -> Sums {
        let shards = self.shards.lock();
        let mut sums = *self.retired.lock();
        shards.iter().for_each(|shard| sums.add(shard));
        sums
    }
}

impl Sums {
    fn add(&mut self, shard: &Shard) {
        let [passed, rewritten, dropped, rejected, dead_lettered, failed] = &shard.ended;
        let counts = &mut self.counts;
        for (sum, cell) in [
            (&mut counts.passed, passed),
            (&mut counts.rewritten, rewritten),
            (&mut counts.dropped, dropped),
            (&mut counts.rejected, rejected),
            (&mut counts.dead_lettered, dead_lettered),
            (&mut counts.failed, failed),
            (&mut counts.time_limit_reached, &shard.time_limit_reached),
            (&mut counts.memory_limit_reached, &shard.memory_limit_reached),
            (&mut counts.timed, &shard.timed),
            (&mut counts.timed_nanos, &shard.timed_nanos),
        ] {
            *sum += cell.load(Relaxed);
        }
        for (sum, cell) in self.times.iter_mut().zip(&shard.times) {
            *sum += cell.load(Relaxed);
        }
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

/// The same as Prometheus' text has them.
pub const TIME_BOUNDS: [&str; TIME_BOUNDS_SECS.len()] = [
    "1e-07", "2.5e-07", "5e-07", "1e-06", "2.5e-06", "5e-06", "1e-05", "2.5e-05", "5e-05", "0.0001", "0.0005", "0.001",
    "0.005", "0.05",
];

/// Upper bounds of the histogram of call times, in seconds: from what an empty hook takes to beyond the default limit.
pub(super) const TIME_BOUNDS_SECS: [f64; 14] = [
    0.000_000_1,
    0.000_000_25,
    0.000_000_5,
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_5,
    0.001,
    0.005,
    0.05,
];

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
    fn bounds_are_the_same_as_numbers_and_as_text() {
        assert_eq!(TIME_BOUNDS.map(|bound| bound.parse().ok()), TIME_BOUNDS_SECS.map(Some));
    }

    #[test]
    fn counts_of_an_ended_worker_stay() {
        let counters = Counters::default();
        let (one, other) = (counters.open_shard(), counters.open_shard());
        one.count(Ended::Passed);
        one.count(Ended::Passed);
        other.count(Ended::Failed);
        one.time(Duration::from_nanos(200));
        other.time(Duration::from_secs(1));
        counters.close_shard(&one);
        let Sums { counts, times } = counters.sum();
        assert_eq!((counts.passed, counts.calls(), counters.worker_count()), (2, 3, 1));
        assert_eq!((counts.timed, times[1], times[TIME_BOUNDS_SECS.len()]), (2, 1, 1));
    }
}
