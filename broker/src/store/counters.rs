//! What the committer counts: batches, their size and time. One batch is one addition of each.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::metrics::cells::shared;

/// Upper bounds of the time of a batch, in seconds, as they are shown.
pub const TIME_BOUNDS: [&str; 9] = ["0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1", "0.3", "1.0"];
const TIME_BOUNDS_MICROS: [u128; 9] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000];
/// Upper bounds of the messages of a batch, as they are shown.
pub const GROUP_BOUNDS: [&str; 6] = ["1.0", "3.0", "10.0", "100.0", "1000.0", "10000.0"];
const GROUP_BOUNDS_COUNT: [usize; 6] = [1, 3, 10, 100, 1_000, 10_000];

/// See the module.
#[derive(Debug, Default)]
pub struct Counters {
    times: [AtomicU64; TIME_BOUNDS.len() + 1],
    nanos: AtomicU64,
    groups: [AtomicU64; GROUP_BOUNDS.len() + 1],
    stored: AtomicU64,
    /// Messages read back for queues.
    pub loaded: AtomicU64,
}

impl Counters {
    /// So many messages were stored together, in this time.
    pub fn batch(&self, messages: usize, time: Duration) {
        let micros = time.as_micros();
        let class = TIME_BOUNDS_MICROS.partition_point(|&bound| bound < micros);
        self.times.get(class).into_iter().for_each(|counter| shared(counter, 1));
        shared(&self.nanos, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        let class = GROUP_BOUNDS_COUNT.partition_point(|&bound| bound < messages);
        self.groups.get(class).into_iter().for_each(|counter| shared(counter, 1));
        shared(&self.stored, messages as u64);
    }

    /// Batches by the time that they took.
    pub fn times(&self) -> Vec<u64> {
        self.times.iter().map(|counter| counter.load(Relaxed)).collect()
    }

    /// Seconds that all batches together took.
    pub fn append_seconds(&self) -> f64 {
        self.nanos.load(Relaxed) as f64 / 1e9
    }

    /// Batches by their messages.
    pub fn groups(&self) -> Vec<u64> {
        self.groups.iter().map(|counter| counter.load(Relaxed)).collect()
    }

    /// Messages that were stored, counted for each queue.
    pub fn stored(&self) -> u64 {
        self.stored.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_by_its_time_and_by_its_messages() {
        let counters = Counters::default();
        counters.batch(1, Duration::from_micros(100));
        counters.batch(4, Duration::from_millis(2));
        counters.batch(20_000, Duration::from_secs(2));
        assert_eq!(counters.times(), [1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(counters.groups(), [1, 0, 1, 0, 0, 0, 1]);
        assert_eq!((counters.stored(), counters.append_seconds()), (20_005, 2.0021));
    }

    #[test]
    fn bounds_are_shown_as_they_are_counted() {
        let micros = TIME_BOUNDS.map(|text| (text.parse::<f64>().expect("a number") * 1e6).round() as u128);
        let counts = GROUP_BOUNDS.map(|text| text.parse::<f64>().expect("a number") as usize);
        assert_eq!((micros, counts), (TIME_BOUNDS_MICROS, GROUP_BOUNDS_COUNT));
    }
}
