//! Messages that an exchange put off ([`plugin_api::exchange::Routes::hold`]), and those that it has kept over a restart
//! ([`plugin_api::exchange::Routes::keep`]).
//!
//! [`Holder`] is who keeps them; the runtime's knows the time and the store, which a vhost does not. A [`line::Line`] has those of one exchange, in
//! the order in which they come back: by due time, and in the order of their publishing where that is the same. A message comes back to the
//! exchange that put it off by [`Vhost::release`], which routes it anew. A [`history::History`] knows which messages are kept.
//!
//! Persistent messages of durable exchanges survive the broker; others end with the process.

pub mod history;
pub mod line;

use std::fmt;
use std::sync::{Arc, Weak};

use plugin_api::exchange::Keep;

use super::Vhost;
use crate::message::Message;
use crate::queue::{Durability, Outlet};
use crate::routing::Exchange;
use crate::store::recovery::Backlog;

/// A message that was put off.
#[derive(Clone, Debug)]
pub struct Held {
    /// The vhost.
    pub vhost: Weak<Vhost>,
    /// Where it comes back to.
    pub exchange: Arc<Exchange>,
    /// Why it is here.
    pub why: Why,
    /// What comes back.
    pub message: Arc<Message>,
    /// The channel that published it.
    pub channel: u16,
    /// Its number for the confirm; 0 when none is wanted.
    pub number: u64,
    /// What its confirm waits for, where the store keeps it.
    pub durability: Durability,
}

/// What the exchange's type wants of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It comes back after so many milliseconds.
    Later {
        /// How many.
        delay_ms: u64,
    },
    /// It goes its way, and the exchange gets it back after a restart, if it is among its last.
    Keep(Keep),
}

impl Held {
    /// Whether it survives the broker.
    pub fn is_lasting(&self) -> bool {
        self.exchange.is_stored && self.message.is_persistent()
    }
}

/// Who keeps messages until they are due. Calls never wait; they come with the vhost's lock held, or without.
pub trait Holder: fmt::Debug + Send + Sync {
    /// Takes messages of one publisher, in order. `origin` hears of each when it is as safe as it gets, for a lasting one when the store has it: the
    /// publishes are processed, and those with a number confirmed.
    fn hold(&self, origin: Option<&Arc<dyn Outlet>>, messages: Vec<Held>);

    /// Takes over what an earlier run has left of an exchange.
    fn restore(&self, vhost: &Arc<Vhost>, exchange: &Arc<Exchange>, left: Backlog);

    /// Drops all messages of an exchange that has ended, by its number, also from the store.
    fn forget(&self, exchange: u64);

    /// How many messages an exchange has put off and not sent yet, by its number; none if it never put anything off.
    fn count(&self, exchange: u64) -> Option<usize>;
}

impl Vhost {
    /// How many messages an exchange has put off and not sent yet: what RabbitMQ's plugin shows as `messages_delayed`. None if it put nothing off
    /// since the start, and an earlier run left nothing.
    pub fn held_count(&self, exchange: &Exchange) -> Option<usize> {
        self.holder.count(exchange.number)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Keeps nothing, for tests in which nothing is put off.
    #[derive(Debug)]
    pub(crate) struct NoHolder;

    impl Holder for NoHolder {
        fn hold(&self, _: Option<&Arc<dyn Outlet>>, _: Vec<Held>) {
            unreachable!("nothing is put off here")
        }

        fn restore(&self, _: &Arc<Vhost>, _: &Arc<Exchange>, _: Backlog) {}

        fn forget(&self, _: u64) {}

        fn count(&self, _: u64) -> Option<usize> {
            None
        }
    }
}
