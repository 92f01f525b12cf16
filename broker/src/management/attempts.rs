//! Login attempts over HTTP: counted for operators, and slowed where they fail again and again.
//!
//! Who has failed [`FREE_FAILURES`] times in a row, as one user from one address, waits before the next attempt is looked at, twice as long each time; and these
//! attempts are looked at one after the other. An address that fails with many names is slowed, too. Failures are forgotten after [`FORGET_AFTER`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Failures that cost nothing: people mistype.
const FREE_FAILURES: u32 = 5;
/// Failures of an address with any names that cost nothing: many users may share it.
const FREE_FAILURES_OF_ADDRESS: u32 = 50;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// So many pairs are remembered; then those are forgotten that failed longest ago.
const ENTRIES_MAX: usize = 10_000;
/// Sources that are counted by name for operators.
const SOURCES_MAX: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failing: HashMap<(IpAddr, Option<String>), Failing>,
    total: Counts,
    by_source: BTreeMap<(String, String), Counts>,
}

#[derive(Debug)]
struct Failing {
    failures: u32,
    last: Instant,
    turn: Arc<Turn<()>>,
}

/// How many attempts there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
}

/// Permission to look at credentials now.
#[derive(Debug)]
pub(super) struct Admission(#[expect(dead_code, reason = "held until the attempt is judged")] Vec<OwnedMutexGuard<()>>);

impl Attempts {
    /// Waits as long as earlier failures say.
    pub(super) async fn admit(&self, address: IpAddr, user: &str) -> Admission {
        let mut delay = Duration::ZERO;
        let mut turns = Vec::new();
        {
            let inner = self.inner.lock();
            for (key, free) in keys(address, user) {
                if let Some(failing) = inner.failing.get(&key).filter(|failing| failing.last.elapsed() < FORGET_AFTER)
                    && failing.failures >= free
                {
                    delay = delay.max(delay_of(failing.failures - free));
                    turns.push(Arc::clone(&failing.turn));
                }
            }
        }
        let mut held = Vec::new();
        // Always in the order of keys, so that nobody waits for each other.
        for turn in turns {
            held.push(turn.lock_owned().await);
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Admission(held)
    }

    /// Counts an attempt that was judged.
    pub(super) fn judged(&self, address: IpAddr, user: &str, has_succeeded: bool) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let source = (address.to_string(), user.to_owned());
        if inner.by_source.len() < SOURCES_MAX || inner.by_source.contains_key(&source) {
            inner.by_source.entry(source).or_default().add(has_succeeded);
        }
        inner.total.add(has_succeeded);
        if has_succeeded {
            inner.failing.remove(&(address, Some(user.to_owned())));
            return;
        }
        for (key, _) in keys(address, user) {
            let now = Instant::now();
            let failing =
                inner.failing.entry(key).or_insert_with(|| Failing { failures: 0, last: now, turn: Arc::default() });
            if failing.last.elapsed() >= FORGET_AFTER {
                failing.failures = 0;
            }
            failing.failures = failing.failures.saturating_add(1);
            failing.last = now;
        }
        if inner.failing.len() > ENTRIES_MAX {
            inner.failing.retain(|_, failing| failing.last.elapsed() < FORGET_AFTER / 4);
        }
        if inner.failing.len() > ENTRIES_MAX {
            // Whoever fails with so many names at once is slowed by the address, whose entry is made anew at once.
            inner.failing.clear();
        }
    }

    /// All attempts since the start or the last reset.
    pub(super) fn total(&self) -> Counts {
        self.inner.lock().total
    }

    /// By address and user.
    pub(super) fn by_source(&self) -> BTreeMap<(String, String), Counts> {
        self.inner.lock().by_source.clone()
    }

    /// Counts from zero again. Who is slowed stays so.
    pub(super) fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.total = Counts::default();
        inner.by_source.clear();
    }
}

impl Counts {
    fn add(&mut self, has_succeeded: bool) {
        if has_succeeded {
            self.succeeded += 1;
        } else {
            self.failed += 1;
        }
    }
}

fn keys(address: IpAddr, user: &str) -> [((IpAddr, Option<String>), u32); 2] {
    [((address, None), FREE_FAILURES_OF_ADDRESS), ((address, Some(user.to_owned())), FREE_FAILURES)]
}

fn delay_of(failures_too_many: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures_too_many.min(10)).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_and_again_waits_longer_and_longer() {
        let attempts = Attempts::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let before = tokio::time::Instant::now();
            drop(attempts.admit(HERE, "bob").await);
            waits.push(before.elapsed().as_millis());
            attempts.judged(HERE, "bob", false);
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400]);
        let before = tokio::time::Instant::now();
        drop(attempts.admit(HERE, "alice").await);
        assert!(before.elapsed().is_zero(), "others are not slowed by it");
        attempts.judged(HERE, "bob", true);
        drop(attempts.admit(HERE, "bob").await);
        assert!(before.elapsed().is_zero(), "a success ends it");
        assert_eq!(attempts.total(), Counts { succeeded: 1, failed: 8 });
    }

    #[tokio::test(start_paused = true)]
    async fn many_names_from_one_address_are_slowed_together() {
        let attempts = Attempts::default();
        for number in 0..FREE_FAILURES_OF_ADDRESS {
            attempts.judged(HERE, &number.to_string(), false);
        }
        let before = tokio::time::Instant::now();
        drop(attempts.admit(HERE, "another").await);
        assert_eq!(before.elapsed(), FIRST_DELAY);
    }
}
