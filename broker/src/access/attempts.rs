//! Failed logins slow the next ones down, over AMQP and HTTP together, so that nobody can try passwords as fast as the network carries them.
//!
//! Who has failed [`FREE_FAILURES`] times in a row, as one user from one address, waits before the next attempt is looked at, twice as long each time,
//! and these attempts are looked at one after the other, so that many connections are no faster than one. Somebody else at the same address, and the
//! same user from elsewhere, wait for nobody. Whoever tries many names is slowed by the address: [`FREE_NAMES`] names may fail there.
//! A network of IPv6 counts as one address, since its owner has them all. Failures are forgotten after [`FORGET_AFTER`].

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Failures that cost nothing: people mistype.
const FREE_FAILURES: u32 = 5;
/// Names that may fail at an address: many users may share it.
const FREE_NAMES: u32 = 50;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);
const FORGET_AFTER: Duration = Duration::from_secs(120);
/// So many pairs are remembered; then those are forgotten that failed longest ago.
const ENTRIES_MAX: usize = 10_000;
/// The part of an IPv6 address that names the network.
const NETWORK_BITS: u32 = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<Key, Failing>>);

/// A user at an address, or everybody there.
type Key = (IpAddr, Option<String>);

#[derive(Debug)]
struct Failing {
    failures: u32,
    last: Instant,
    turn: Arc<Turn<()>>,
}

impl Failing {
    fn is_remembered(&self) -> bool {
        self.last.elapsed() < FORGET_AFTER
    }
}

/// Permission to look at credentials now. While somebody has it who was slowed, others like him wait.
#[derive(Debug)]
#[must_use = "it has to be told how the login ended"]
pub struct Admission<'a> {
    attempts: &'a Attempts,
    address: IpAddr,
    user: String,
    _turns: Vec<OwnedMutexGuard<()>>,
}

impl Admission<'_> {
    /// How it ended; the next one may try.
    pub fn judged(self, is_let_in: bool) {
        self.attempts.judged(self.address, &self.user, is_let_in);
    }
}

impl Attempts {
    /// Waits as long as earlier failures say.
    pub(super) async fn admit(&self, address: IpAddr, user: &str) -> Admission<'_> {
        let (address, user) = (network(address), known(user));
        let mut delay = Duration::ZERO;
        let mut turns = Vec::new();
        {
            let failing = self.0.lock();
            // Always in this order, so that nobody waits for each other.
            for (key, free) in [((address, None), FREE_NAMES), ((address, Some(user.clone())), FREE_FAILURES)] {
                if let Some(failing) = failing.get(&key)
                    && failing.is_remembered()
                    && failing.failures >= free
                {
                    delay = delay.max(delay_of(failing.failures - free));
                    turns.push(Arc::clone(&failing.turn));
                }
            }
        }
        let mut held = Vec::new();
        for turn in turns {
            held.push(turn.lock_owned().await);
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Admission { attempts: self, address, user, _turns: held }
    }

    fn judged(&self, address: IpAddr, user: &str, is_let_in: bool) {
        let mut all = self.0.lock();
        if is_let_in {
            all.remove(&(address, Some(user.to_owned())));
            return;
        }
        if failed(&mut all, (address, Some(user.to_owned()))) == 1 {
            failed(&mut all, (address, None));
        }
        if all.len() > ENTRIES_MAX {
            all.retain(|_, failing| failing.last.elapsed() < FORGET_AFTER / 4);
        }
        if all.len() > ENTRIES_MAX {
            // It takes hundreds of addresses to come here. Those who tried many names stay slowed.
            all.retain(|(_, user), _| user.is_none());
        }
    }
}

/// Counts a failure and says how many there were.
fn failed(all: &mut HashMap<Key, Failing>, key: Key) -> u32 {
    let now = Instant::now();
    let failing = all.entry(key).or_insert_with(|| Failing { failures: 0, last: now, turn: Arc::default() });
    if !failing.is_remembered() {
        failing.failures = 0;
    }
    failing.failures = failing.failures.saturating_add(1);
    failing.last = now;
    failing.failures
}

/// What of an address is one client's.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> NETWORK_BITS << NETWORK_BITS).into(),
    }
}

/// Names are kept up to the length that users may have.
fn known(user: &str) -> String {
    user.get(..user.floor_char_boundary(super::USER_NAME_BYTES_MAX)).unwrap_or_default().to_owned()
}

fn delay_of(failures_too_many: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures_too_many.min(10)).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// How long an attempt waited that ended like this.
    async fn attempt(attempts: &Attempts, address: IpAddr, user: &str, is_let_in: bool) -> Duration {
        let before = tokio::time::Instant::now();
        attempts.admit(address, user).await.judged(is_let_in);
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_again_and_again_waits_longer_and_longer() {
        let attempts = Attempts::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(attempt(&attempts, HERE, "bob", false).await.as_millis());
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400]);
        assert!(attempt(&attempts, HERE, "alice", false).await.is_zero(), "other users are not slowed by it");
        assert!(attempt(&attempts, ELSEWHERE, "bob", false).await.is_zero(), "nor is the user elsewhere");
        assert_eq!(attempt(&attempts, HERE, "bob", true).await.as_millis(), 800);
        assert!(attempt(&attempts, HERE, "bob", false).await.is_zero(), "a success ends it");
    }

    #[tokio::test(start_paused = true)]
    async fn many_connections_are_no_faster_than_one() {
        let attempts = Arc::new(Attempts::default());
        for _ in 0..FREE_FAILURES + 10 {
            attempts.judged(HERE, "bob", false);
        }
        let before = tokio::time::Instant::now();
        let guesses: Vec<_> = (0..6)
            .map(|_| {
                let attempts = Arc::clone(&attempts);
                tokio::spawn(async move { attempts.admit(HERE, "bob").await.judged(false) })
            })
            .collect();
        for guess in guesses {
            guess.await.expect("an attempt ends");
        }
        assert_eq!(before.elapsed(), DELAY_MAX * 6);
    }

    #[tokio::test(start_paused = true)]
    async fn many_names_from_one_address_are_slowed_together() {
        let attempts = Attempts::default();
        for _ in 0..10 * FREE_NAMES {
            attempts.judged(HERE, "a program with an old password", false);
        }
        assert!(attempt(&attempts, HERE, "another", true).await.is_zero(), "one name slows nobody else");
        for number in 1..FREE_NAMES {
            attempts.judged(HERE, &number.to_string(), false);
        }
        assert_eq!(attempt(&attempts, HERE, "another", true).await, FIRST_DELAY);
        assert!(attempt(&attempts, ELSEWHERE, "another", true).await.is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_is_one_address_and_an_ipv4_address_has_one_form() {
        let attempts = Attempts::default();
        let of = |text: &str| text.parse::<IpAddr>().expect("an address");
        for host in 0..FREE_FAILURES {
            attempts.judged(network(of(&format!("2001:db8::{host}"))), "bob", false);
            attempts.judged(network(of("192.0.2.1")), "bob", false);
        }
        assert_eq!(attempt(&attempts, of("2001:db8::ffff"), "bob", false).await, FIRST_DELAY);
        assert!(attempt(&attempts, of("2001:db8:0:1::1"), "bob", false).await.is_zero());
        assert_eq!(attempt(&attempts, of("::ffff:192.0.2.1"), "bob", false).await, FIRST_DELAY);
    }

    #[test]
    fn strangers_cannot_fill_the_memory_nor_free_themselves() {
        let attempts = Attempts::default();
        for host in 0..=ENTRIES_MAX as u32 {
            attempts.judged(Ipv4Addr::from_bits(host / 100).into(), &host.to_string(), false);
        }
        let all = attempts.0.lock();
        assert!(all.len() <= ENTRIES_MAX);
        assert!(all[&(Ipv4Addr::from_bits(0).into(), None)].failures >= FREE_NAMES);
    }
}
