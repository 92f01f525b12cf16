//! How long the routes of a plugin take, of a few of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One route in so many is timed. Two looks at the clock cost as much as a route. A prime, because a thread counts the calls of all plugins together: where
/// exchanges take turns, a number that their count divides would always meet the same one.
pub const ROUTES_PER_TIMED_ROUTE: u64 = 1021;

/// The upper bounds of the buckets in seconds, as they stand on a page: from a hash look-up to what nobody should wait for.
pub const ROUTE_TIME_BOUNDS: [&str; 10] =
    ["0.0000001", "0.00000025", "0.0000005", "0.000001", "0.0000025", "0.000005", "0.00001", "0.0001", "0.001", "0.01"];

/// The same in nanoseconds.
const BOUNDS_NANOS: [u64; ROUTE_TIME_BOUNDS.len()] =
    [100, 250, 500, 1000, 2500, 5000, 10_000, 100_000, 1_000_000, 10_000_000];

/// See the module. Written now and then, by any thread.
#[derive(Debug, Default)]
pub(super) struct RouteTimes {
    buckets: [AtomicU64; BOUNDS_NANOS.len() + 1],
    nanos: AtomicU64,
}

/// A reading of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteTimesRead {
    /// How many took so long: up to each bound, and longer than all of them.
    pub buckets: [u64; BOUNDS_NANOS.len() + 1],
    /// All timed ones together.
    pub nanos: u64,
}

impl RouteTimes {
    #[cold]
    pub(super) fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> RouteTimesRead {
        let buckets = std::array::from_fn(|at| self.buckets.get(at).map_or(0, |bucket| bucket.load(Ordering::Relaxed)));
        RouteTimesRead { buckets, nanos: self.nanos.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_they_are_compared() {
        let written = ROUTE_TIME_BOUNDS.map(|bound| (bound.parse::<f64>().unwrap() * 1e9).round() as u64);
        assert_eq!(written, BOUNDS_NANOS);
        let times = RouteTimes::default();
        [100, 101, 20_000_000].into_iter().for_each(|nanos| times.add(Duration::from_nanos(nanos)));
        let RouteTimesRead { buckets, nanos } = times.read();
        assert_eq!((buckets[0], buckets[1], buckets[BOUNDS_NANOS.len()], nanos), (1, 1, 1, 20_000_201));
    }
}
