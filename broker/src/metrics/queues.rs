//! What is kept of a queue beside its machine: the last report of it, and its history.
//!
//! Whoever wants a report takes it himself when nobody is inside the queue. When somebody is, he leaves a wish, which the one inside
//! fulfils at the end of his round; he does not wait for it longer than a moment, and has the last report then.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use super::history::{BASIC, History};
use super::stats::STATS;
use crate::queue::{Capacity, Report};

/// The numbers of a queue that have a history: [`Stat::ALL`](super::Stat::ALL), then messages, ready and unacked.
pub const QUEUE_ROW: usize = STATS + 3;

/// What was seen of a queue over time.
#[derive(Debug)]
pub struct QueueHistory {
    /// Its numbers.
    pub rows: History<QUEUE_ROW>,
    capacity: Capacity,
    utilisation: f32,
}

impl Default for QueueHistory {
    fn default() -> Self {
        Self { rows: History::new(BASIC), capacity: Capacity::default(), utilisation: 0.0 }
    }
}

impl QueueHistory {
    /// Keeps what is seen now.
    pub fn push(&mut self, now_ms: u64, report: &Report) {
        self.rows.push(now_ms, row(report));
        self.utilisation = utilisation(self.capacity, report.capacity) as f32;
        self.capacity = report.capacity;
    }

    /// The share of the time with consumers in which messages could be handed out at once, 0 to 1; 0 without consumers.
    pub fn utilisation(&self, report: &Report) -> f64 {
        match report.consumers {
            0 => 0.0,
            _ if report.capacity.served_ms == self.capacity.served_ms => f64::from(self.utilisation),
            // Since the last look; before the first, all there is.
            _ => utilisation(self.capacity, report.capacity),
        }
    }
}

fn utilisation(before: Capacity, now: Capacity) -> f64 {
    match now.served_ms.saturating_sub(before.served_ms) {
        0 => 0.0,
        served_ms => (now.at_once_ms.saturating_sub(before.at_once_ms)) as f64 / served_ms as f64,
    }
}

/// A report as a row of its history.
pub fn row(report: &Report) -> [u64; QUEUE_ROW] {
    let mut row = [0; QUEUE_ROW];
    let lengths = [report.ready + report.unacked, report.ready, report.unacked];
    row.iter_mut().zip(report.stats.row().into_iter().chain(lengths)).for_each(|(to, value)| *to = value);
    row
}

/// See the module.
#[derive(Debug, Default)]
pub struct QueueStats {
    is_wanted: AtomicBool,
    last: Mutex<Report>,
    history: Mutex<QueueHistory>,
}

impl QueueStats {
    /// Whether whoever is inside should leave a report.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Relaxed)
    }

    /// Leaves a report.
    pub fn leave(&self, report: Report) {
        *self.last.lock() = report;
        self.is_wanted.store(false, Relaxed);
    }

    /// A report: taken by `take` when nobody is inside, and otherwise the one that is left meanwhile, or was last.
    pub fn report(&self, take: impl Fn() -> Option<Report>) -> Report {
        for patience in 0..PATIENCE {
            if let Some(report) = take() {
                self.leave(report);
                return report;
            }
            match patience {
                0 => self.is_wanted.store(true, Relaxed),
                _ if !self.is_wanted() => break,
                _ => std::thread::yield_now(),
            }
        }
        *self.last.lock()
    }

    /// Asks its history, or adds to it.
    pub fn history<R>(&self, ask: impl FnOnce(&mut QueueHistory) -> R) -> R {
        ask(&mut self.history.lock())
    }
}

/// So often somebody who wants a report looks whether it is there. A round takes some microseconds.
const PATIENCE: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_finds_the_queue_busy_gets_the_report_that_is_left_or_the_last() {
        let stats = QueueStats::default();
        let report = |ready| Report { ready, ..Report::default() };
        assert_eq!(stats.report(|| Some(report(3))).ready, 3);
        assert_eq!(stats.report(|| None).ready, 3, "nobody fulfils the wish");
        assert!(stats.is_wanted());
        let left = stats.report(|| {
            if stats.is_wanted() {
                stats.leave(report(4));
            }
            None
        });
        assert_eq!((left.ready, stats.is_wanted()), (4, false));
    }

    #[test]
    fn utilisation_is_that_of_the_time_since_the_last_look() {
        let report = |served_ms, at_once_ms, consumers| Report {
            capacity: Capacity { served_ms, at_once_ms },
            consumers,
            ..Report::default()
        };
        let mut history = QueueHistory::default();
        assert_eq!(history.utilisation(&report(100, 50, 1)), 0.5);
        history.push(5000, &report(1000, 1000, 1));
        assert_eq!(history.utilisation(&report(1000, 1000, 1)), 1.0);
        assert_eq!(history.utilisation(&report(3000, 1500, 1)), 0.25);
        assert_eq!(history.utilisation(&report(3000, 1500, 0)), 0.0);
    }
}
