//! How long deliveries have been unacked (semantics 13.29).
//!
//! Only in queues with a timeout. A holder's deliveries are timed in runs, not one by one: those that follow each other within a
//! small part of the timeout count as made when the last of them was. So nobody is timed out early, at most that part late, and a holder
//! needs a few dozen runs however many deliveries it has.

use std::collections::VecDeque;

/// A run covers this part of the timeout.
const RUNS_IN_TIMEOUT: u64 = 64;

/// What applies to the whole queue.
#[derive(Debug)]
pub(super) struct AckTimeout {
    pub(super) timeout_ms: u64,
    /// When holders must be looked at again; none while nobody holds anything.
    pub(super) next_check_ms: Option<u64>,
}

impl AckTimeout {
    pub(super) fn new(timeout_ms: u64) -> Self {
        Self { timeout_ms, next_check_ms: None }
    }

    fn run_ms(&self) -> u64 {
        (self.timeout_ms / RUNS_IN_TIMEOUT).max(1)
    }

    /// A delivery is made; holders are looked at when it may be overdue, if not before.
    #[inline]
    pub(super) fn on_delivery(&mut self, times: &mut AckTimes, ticket: u64, now_ms: u64) {
        times.add(ticket, now_ms, self.run_ms());
        if self.next_check_ms.is_none() {
            self.next_check_ms = Some(now_ms.saturating_add(self.timeout_ms));
        }
    }

    /// Holders have been looked at: the next look is at the earliest deadline that was found, but not all the time.
    pub(super) fn checked(&mut self, now_ms: u64, earliest_ms: Option<u64>) {
        let soonest_ms = now_ms.saturating_add(self.run_ms());
        self.next_check_ms = earliest_ms.map(|earliest_ms| earliest_ms.max(soonest_ms));
    }
}

/// The times of one holder's deliveries.
#[derive(Debug, Default)]
pub(super) struct AckTimes {
    runs: VecDeque<Run>,
    /// The holder's connection was told that it is overdue, once.
    pub(super) is_told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    first_ticket: u64,
    first_ms: u64,
    last_ms: u64,
}

impl AckTimes {
    /// Everything from `ticket` on counts as delivered now.
    pub(super) fn since(ticket: u64, now_ms: u64) -> Self {
        let run = Run { first_ticket: ticket, first_ms: now_ms, last_ms: now_ms };
        Self { runs: VecDeque::from([run]), is_told: false }
    }

    #[inline]
    fn add(&mut self, ticket: u64, now_ms: u64, run_ms: u64) {
        match self.runs.back_mut() {
            // A clock that was set back must not make runs longer.
            Some(run) if now_ms < run.first_ms.saturating_add(run_ms) => run.last_ms = run.last_ms.max(now_ms),
            _ => self.runs.push_back(Run { first_ticket: ticket, first_ms: now_ms, last_ms: now_ms }),
        }
    }

    /// When the oldest unacked delivery was made; what was made before it is forgotten.
    pub(super) fn oldest_ms(&mut self, oldest_ticket: Option<u64>) -> Option<u64> {
        let Some(oldest) = oldest_ticket else {
            self.runs.clear();
            return None;
        };
        while self.runs.get(1).is_some_and(|next| next.first_ticket <= oldest) {
            self.runs.pop_front();
        }
        self.runs.front().map(|run| run.last_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unacked_delivery_is_never_taken_for_older_and_hardly_for_younger() {
        let mut timeout = AckTimeout::new(6400);
        let mut times = AckTimes::default();
        for ticket in 1..=1000 {
            timeout.on_delivery(&mut times, ticket, 1000 + ticket * 10);
        }
        assert_eq!(timeout.next_check_ms, Some(1010 + 6400));
        assert_eq!(times.runs.len(), 100, "a hundred milliseconds each");
        for oldest in 1..=1000 {
            let (known, real) = (times.oldest_ms(Some(oldest)).unwrap(), 1000 + oldest * 10);
            assert!((real..real + 100).contains(&known), "{oldest}: {known} for {real}");
        }
        assert_eq!((times.oldest_ms(None), times.runs.len()), (None, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_starts_no_endless_run() {
        let (mut timeout, mut times) = (AckTimeout::new(64), AckTimes::default());
        for (ticket, now_ms) in [(1, 1_000), (2, 10), (3, 2_000)] {
            timeout.on_delivery(&mut times, ticket, now_ms);
        }
        assert_eq!([Some(1), Some(3)].map(|oldest| times.oldest_ms(oldest)), [Some(1_000), Some(2_000)]);
    }

    #[test]
    fn holders_are_looked_at_in_time_but_not_all_the_time() {
        let mut timeout = AckTimeout::new(6400);
        timeout.checked(1000, Some(1001));
        assert_eq!(timeout.next_check_ms, Some(1100));
        timeout.checked(1000, Some(5000));
        assert_eq!(timeout.next_check_ms, Some(5000));
        timeout.checked(1000, None);
        assert_eq!(timeout.next_check_ms, None);
    }
}
