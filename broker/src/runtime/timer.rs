//! When queues must look at the clock again: one timer for all of them.
//!
//! A queue says when its next deadline is; here stands one time for each queue that has any. When it has come, the queue is woken
//! and asked again. Whoever drives the broker asks [`Timer::next_due`] and calls [`Timer::fire`]; [`run`] does so for a node. The time is
//! the wall clock in milliseconds since the epoch, since deadlines of messages go on while the broker is down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::clock::Clock;

/// Somebody who wants to be woken.
pub trait Sleeper: fmt::Debug + Send + Sync {
    /// Unique among all who use a timer.
    fn number(&self) -> u64;
    /// Where the timer writes down what stands for it.
    fn appointment(&self) -> &Appointment;
    /// Its time has come.
    fn wake(&self);
}

/// When somebody will be woken. Only the timer changes it.
#[derive(Debug)]
pub struct Appointment(AtomicU64);

impl Default for Appointment {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

const NEVER: u64 = u64::MAX;

/// See the module.
#[derive(Default)]
pub struct Timer {
    /// By time and number, one entry each.
    due: Mutex<BTreeMap<(u64, u64), Weak<dyn Sleeper>>>,
    is_sooner: Notify,
    clock: Clock,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}

impl Timer {
    /// A timer that goes by this clock's wall time.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Milliseconds since the epoch.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Wakes `sleeper` at `due_ms`, or earlier if that was said before.
    #[inline]
    pub fn wake_at(&self, due_ms: u64, sleeper: &dyn Sleeper, this: impl FnOnce() -> Weak<dyn Sleeper>) {
        // Whoever is being woken is asked again after this was cleared, so an old value here does no harm.
        if due_ms < sleeper.appointment().0.load(Ordering::Relaxed) {
            self.make_appointment(due_ms, sleeper, this());
        }
    }

    fn make_appointment(&self, due_ms: u64, sleeper: &dyn Sleeper, this: Weak<dyn Sleeper>) {
        let mut due = self.due.lock();
        let current = sleeper.appointment().0.load(Ordering::Relaxed);
        if due_ms >= current {
            return;
        }
        due.remove(&(current, sleeper.number()));
        let is_first = due.first_key_value().is_none_or(|(&(first, _), _)| due_ms < first);
        due.insert((due_ms, sleeper.number()), this);
        sleeper.appointment().0.store(due_ms, Ordering::Relaxed);
        drop(due);
        if is_first {
            self.is_sooner.notify_one();
        }
    }

    /// Nobody needs to be woken any more.
    pub fn forget(&self, sleeper: &dyn Sleeper) {
        let current = sleeper.appointment().0.load(Ordering::Relaxed);
        if current != NEVER {
            self.due.lock().remove(&(current, sleeper.number()));
        }
    }

    /// When somebody is to be woken next.
    pub fn next_due(&self) -> Option<u64> {
        self.due.lock().first_key_value().map(|(&(due, _), _)| due)
    }

    /// Wakes who is due, but not everybody at once if they are many; returns when somebody is to be woken next.
    pub fn fire(&self, now_ms: u64) -> Option<u64> {
        let mut awake = Vec::new();
        {
            let mut due = self.due.lock();
            while awake.len() < WAKE_COUNT_MAX
                && let Some(entry) = due.first_entry().filter(|entry| entry.key().0 <= now_ms)
            {
                // Not dropped before the lock is: it may be the last reference.
                let Some(sleeper) = entry.remove().upgrade() else { continue };
                sleeper.appointment().0.store(NEVER, Ordering::Relaxed);
                awake.push(sleeper);
            }
        }
        for sleeper in awake {
            sleeper.wake();
        }
        self.next_due()
    }
}

/// Wakes who is due, for ever.
pub async fn run(timer: Arc<Timer>) {
    loop {
        let sooner = timer.is_sooner.notified();
        match timer.fire(timer.now_ms()) {
            None => sooner.await,
            Some(due_ms) => {
                let wait = Duration::from_millis(due_ms.saturating_sub(timer.now_ms())).min(LOOK_EVERY);
                let _ = tokio::time::timeout(wait, sooner).await;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// So many are woken at a time; then others may work.
const WAKE_COUNT_MAX: usize = 256;
/// A wall clock that was set forward is noticed after so long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Someone {
        number: u64,
        appointment: Appointment,
        woken: AtomicU64,
    }

    impl Sleeper for Someone {
        fn number(&self) -> u64 {
            self.number
        }

        fn appointment(&self) -> &Appointment {
            &self.appointment
        }

        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(timer: &Timer, due_ms: u64, someone: &Arc<Someone>) {
        let weak = Arc::downgrade(someone);
        timer.wake_at(due_ms, &**someone, || weak);
    }

    #[test]
    fn each_is_woken_once_at_the_earliest_time_that_it_asked_for() {
        let timer = Timer::default();
        let [one, other] = [1, 2].map(|number| Arc::new(Someone { number, ..Someone::default() }));
        for due in [50, 40, 60] {
            ask(&timer, due, &one);
        }
        ask(&timer, 45, &other);
        let woken = || [&one, &other].map(|someone| someone.woken.load(Ordering::Relaxed));
        assert_eq!((timer.fire(39), woken()), (Some(40), [0, 0]));
        assert_eq!((timer.fire(44), woken()), (Some(45), [1, 0]));
        ask(&timer, 70, &one);
        assert_eq!((timer.fire(69), woken()), (Some(70), [1, 1]));
        assert_eq!((timer.fire(70), woken()), (None, [2, 1]));
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let timer = Timer::default();
        let someone = Arc::new(Someone::default());
        ask(&timer, 50, &someone);
        timer.forget(&*someone);
        assert_eq!(timer.next_due(), None);
    }
}
