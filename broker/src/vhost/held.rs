//! Messages that an exchange put off ([`plugin_api::exchange::Routes::hold`]).
//!
//! [`Holder`] is who keeps them; the runtime's knows the time, which a vhost does not. [`HeldMessages`] is the order in which they come back: by
//! due time, and in the order of their publishing where that is the same. A message comes back to the exchange that put it off by
//! [`Vhost::release`], which routes it anew.
//!
//! What is here lives in memory and ends with the process, also for durable exchanges and persistent messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Vhost;
use crate::message::Message;
use crate::queue::Outlet;
use crate::routing::Exchange;

/// A message that was put off.
#[derive(Clone, Debug)]
pub struct Held {
    /// The vhost's name.
    pub vhost: Arc<str>,
    /// Where it comes back to.
    pub exchange: Arc<Exchange>,
    /// After how long.
    pub delay: Duration,
    /// What comes back.
    pub message: Arc<Message>,
    /// The channel that published it.
    pub channel: u16,
    /// Its number for the confirm; 0 when none is wanted.
    pub number: u64,
}

/// Who keeps messages until they are due. Calls never wait; they come with the vhost's lock held, or without.
pub trait Holder: fmt::Debug + Send + Sync {
    /// Takes messages of one publisher, in order. `origin` hears of it when they are as safe as they get: the publishes are processed,
    /// and those with a number confirmed.
    fn hold(&self, origin: Option<&Arc<dyn Outlet>>, messages: Vec<Held>);

    /// Drops all messages of an exchange that has ended, by its number.
    fn forget(&self, exchange: u64);

    /// How many messages an exchange has put off, by its number.
    fn count(&self, exchange: u64) -> usize;
}

/// A message's turn: its due time, and how many were held before it.
pub type Turn = (Instant, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct HeldMessages {
    /// Every turn, with the number of the exchange.
    turns: BTreeSet<(Turn, u64)>,
    by_exchange: HashMap<u64, BTreeMap<Turn, Held>>,
    next: u64,
}

impl HeldMessages {
    /// Adds a message that is due at `due`.
    pub fn insert(&mut self, due: Instant, held: Held) {
        let (turn, exchange) = ((due, self.next), held.exchange.number);
        self.next += 1;
        self.turns.insert((turn, exchange));
        self.by_exchange.entry(exchange).or_default().insert(turn, held);
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.turns.first().map(|((due, _), _)| *due)
    }

    /// Takes out at most `count_max` messages that are due, in their order.
    pub fn take_due(&mut self, now: Instant, count_max: usize) -> Vec<Held> {
        let mut due = Vec::new();
        while due.len() < count_max
            && let Some(&((at, number), exchange)) = self.turns.first()
            && at <= now
        {
            self.turns.pop_first();
            let Some(messages) = self.by_exchange.get_mut(&exchange) else { continue };
            due.extend(messages.remove(&(at, number)));
            if messages.is_empty() {
                self.by_exchange.remove(&exchange);
            }
        }
        due
    }

    /// Takes the messages of an exchange out.
    pub fn forget(&mut self, exchange: u64) -> BTreeMap<Turn, Held> {
        let messages = self.by_exchange.remove(&exchange).unwrap_or_default();
        for &turn in messages.keys() {
            self.turns.remove(&(turn, exchange));
        }
        messages
    }

    /// How many messages of an exchange there are.
    pub fn count(&self, exchange: u64) -> usize {
        self.by_exchange.get(&exchange).map_or(0, BTreeMap::len)
    }
}

impl Vhost {
    /// How many messages an exchange has put off.
    pub fn held_count(&self, exchange: &Exchange) -> usize {
        self.holder.count(exchange.number)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use plugin_api::exchange::ExchangeSpec;

    use super::*;
    use crate::message::Parts;

    /// Keeps nothing, for tests in which nothing is put off.
    #[derive(Debug)]
    pub(crate) struct NoHolder;

    impl Holder for NoHolder {
        fn hold(&self, _: Option<&Arc<dyn Outlet>>, _: Vec<Held>) {
            unreachable!("nothing is put off here")
        }

        fn forget(&self, _: u64) {}

        fn count(&self, _: u64) -> usize {
            0
        }
    }

    fn held(exchange: &Arc<Exchange>, key: &str) -> Held {
        let parts = Parts { exchange: "x", routing_key: key, properties: &[0, 0] };
        Held {
            vhost: "/".into(),
            exchange: Arc::clone(exchange),
            delay: Duration::ZERO,
            message: Message::new(parts, b""),
            channel: 0,
            number: 0,
        }
    }

    fn keys(due: &[Held]) -> Vec<&str> {
        due.iter().map(|held| held.message.routing_key()).collect()
    }

    #[test]
    fn messages_come_back_by_due_time_and_then_in_their_order() {
        let exchange = Arc::new(Exchange::restore(1, ExchangeSpec::default(), None));
        let (start, mut messages) = (Instant::now(), HeldMessages::default());
        for (ms, key) in [(30, "d"), (10, "a"), (20, "b"), (20, "c"), (40, "e")] {
            messages.insert(start + Duration::from_millis(ms), held(&exchange, key));
        }
        assert_eq!(messages.next_due(), Some(start + Duration::from_millis(10)));
        assert_eq!(keys(&messages.take_due(start + Duration::from_millis(9), 9)), [""; 0]);
        assert_eq!(keys(&messages.take_due(start + Duration::from_millis(30), 3)), ["a", "b", "c"]);
        assert_eq!(keys(&messages.take_due(start + Duration::from_millis(30), 3)), ["d"]);
        assert_eq!((messages.count(1), messages.next_due()), (1, Some(start + Duration::from_millis(40))));
    }

    #[test]
    fn messages_of_an_exchange_that_ended_are_dropped_and_others_stay() {
        let exchanges = [1, 2].map(|number| Arc::new(Exchange::restore(number, ExchangeSpec::default(), None)));
        let (now, mut messages) = (Instant::now(), HeldMessages::default());
        for (index, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
            messages.insert(now, held(&exchanges[index % 2], key));
        }
        assert_eq!(messages.forget(1).len(), 2);
        assert_eq!((messages.count(1), messages.count(2)), (0, 2));
        assert_eq!(keys(&messages.take_due(now, 9)), ["b", "d"]);
        assert_eq!((messages.next_due(), messages.count(2)), (None, 0));
    }
}
