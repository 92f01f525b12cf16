//! When messages are meant to leave, whatever the broker does.
//!
//! A generator that waits for a slow broker and sends less meanwhile does not see how slow it was (coordinated omission). So each
//! message has its time by the rate alone, and its latency counts from that time, not from when it could be sent.

/// The times of one publisher, in nanoseconds since the start of the run.
#[derive(Debug)]
pub(super) struct Pace {
    start: u64,
    interval: f64,
    sent: u64,
}

impl Pace {
    /// `per_sec` messages a second, the first `phase` (0 to 1) of an interval behind `start`.
    pub(super) fn new(start: u64, per_sec: f64, phase: f64) -> Self {
        let interval = 1e9 / per_sec;
        Self { start: start + (interval * phase) as u64, interval, sent: 0 }
    }

    /// When the next message is meant to leave.
    pub(super) fn next_at(&self) -> u64 {
        self.start + (self.sent as f64 * self.interval) as u64
    }

    /// Takes the next message if its time has come, and gives that time.
    pub(super) fn take(&mut self, now: u64) -> Option<u64> {
        let at = self.next_at();
        (at <= now).then(|| {
            self.sent += 1;
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    #[test]
    fn the_rate_is_kept_without_drift() {
        // 3 a second has no interval in whole nanoseconds.
        let mut pace = Pace::new(5, 3.0, 0.0);
        let count = std::iter::from_fn(|| pace.take(5 + 1_000_000_000_000)).count();
        assert_eq!(count, 3001);
        assert_eq!(pace.take(5 + 1_000_000_000_000), None);
    }

    #[test]
    fn publishers_with_phases_take_turns() {
        let times: Vec<u64> = (0..4).map(|place| Pace::new(0, 1000.0, f64::from(place) / 4.0).next_at()).collect();
        assert_eq!(times, [0, 250_000, 500_000, 750_000]);
    }

    #[test]
    fn a_stalled_broker_cannot_hide_its_stall() {
        // One second at 1,000 a second, answered at once but for a stall from 0.2 s to 0.7 s, in which nothing can be sent.
        let mut pace = Pace::new(0, 1000.0, 0.0);
        let mut latencies = Histogram::<u64>::new(3).unwrap();
        let mut from_sending = Histogram::<u64>::new(3).unwrap();
        for now in (0..1_000_000_000_u64).step_by(100_000) {
            if (200_000_000..700_000_000).contains(&now) {
                continue;
            }
            while let Some(at) = pace.take(now) {
                latencies.record(now - at + 1).unwrap();
                from_sending.record(1).unwrap();
            }
        }
        assert_eq!(latencies.len(), 1000);
        assert!(latencies.value_at_quantile(0.99) > 480_000_000, "{}", latencies.value_at_quantile(0.99));
        // Half of all messages were meant to leave during the stall; they waited 0 to 0.5 s.
        let waited = latencies.len() - latencies.count_between(0, 1_000_000);
        assert!((495..=505).contains(&waited), "{waited}");
        assert_eq!(from_sending.value_at_quantile(0.99), 1, "what a generator sees that counts from sending");
    }
}
