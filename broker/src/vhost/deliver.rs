//! Messages that no client publishes now: what an exchange has for a new binding, held messages that are due, and the broker's own.
//!
//! They run no hooks and nobody waits for their confirms; everything else is as for any message. Queues are posted to when no lock is
//! held any more.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use plugin_api::exchange::Hold;

use super::held::Held;
use super::publish::{extra_keys, hiding_bcc};
use super::{QueueRecord, Vhost};
use crate::message::{Marks, Message, Parts};
use crate::queue::{Incoming, Input, Outlet};
use crate::routing::{self, Destination, Exchange};

/// Messages by queue, in their order.
#[derive(Default)]
pub(super) struct Batches {
    place_of: HashMap<u64, usize>,
    batches: Vec<(Arc<QueueRecord>, Vec<Incoming>)>,
}

impl Batches {
    /// `number` is for the confirm; 0 when none is wanted.
    pub(super) fn add(&mut self, queue: &Arc<QueueRecord>, message: &Arc<Message>, number: u64) {
        let place = *self.place_of.entry(queue.number).or_insert_with(|| {
            self.batches.push((Arc::clone(queue), Vec::new()));
            self.batches.len() - 1
        });
        let incoming = Incoming { message: Arc::clone(message), channel: 0, number };
        if let Some((_, messages)) = self.batches.get_mut(place) {
            messages.push(incoming);
        }
    }

    /// How many messages there are, each counted for every queue that gets it.
    pub(super) fn message_count(&self) -> usize {
        self.batches.iter().map(|(_, messages)| messages.len()).sum()
    }

    /// Hands everything over; `origin` gets the confirms.
    pub(super) fn post(self, origin: Option<&Arc<dyn Outlet>>) {
        for (queue, messages) in self.batches {
            queue.handle.post(Input::Publish { origin: origin.cloned(), messages });
        }
    }
}

impl Vhost {
    /// Publishes messages to what a new binding leads to.
    pub(super) fn hand_over(&self, destination: &Destination, messages: &[Arc<Message>]) {
        let mut batches = Batches::default();
        for message in messages {
            match destination {
                Destination::Queue(queue) => batches.add(queue, &hiding_bcc(message), 0),
                Destination::Exchange(exchange) => self.route_again(exchange, message, &mut batches),
            }
        }
        batches.post(None);
    }

    /// Routes messages that were held, each from the exchange that held it; those of exchanges that have ended are dropped.
    pub fn release(&self, due: Vec<Held>) {
        let mut batches = Batches::default();
        for held in due {
            let current = self.exchange(&held.exchange.name);
            if current.is_some_and(|current| current.number == held.exchange.number) {
                self.route_again(&held.exchange, &held.message, &mut batches);
            }
        }
        batches.post(None);
    }

    /// Publishes a message of the broker's own to an exchange.
    pub(super) fn publish_inside(&self, exchange: &Arc<Exchange>, message: &Arc<Message>) {
        let mut batches = Batches::default();
        self.route_again(exchange, message, &mut batches);
        batches.post(None);
    }

    fn route_again(&self, start: &Arc<Exchange>, message: &Arc<Message>, batches: &mut Batches) {
        let lost = |error: &dyn std::fmt::Display| {
            tracing::error!(vhost = %self.name, exchange = %start.name, error = %error, "message is lost");
        };
        let extra = match extra_keys(message.properties()) {
            _ if message.marks().has(Marks::SOLE_KEY) => None,
            Ok(extra) => extra,
            Err(error) => return lost(&error),
        };
        let mut keys = vec![message.routing_key()];
        keys.extend(extra.iter().flat_map(|extra| extra.keys.iter().map(String::as_str)));
        let routed = routing::route(&*self.tables.read(), start, &message.view(), &keys);
        let route = match routed {
            Ok(route) => route,
            Err((_, error)) => return lost(&error),
        };
        let held: Vec<Held> =
            route.held.into_iter().map(|(exchange, hold)| self.put_off(exchange, &hold, message, (0, 0))).collect();
        if !held.is_empty() {
            self.holder.hold(None, held);
        }
        let message = hiding_bcc(message);
        route.queues.iter().for_each(|queue| batches.add(queue, &message, 0));
    }

    /// What the holder is given for a message that `exchange` put off; `(channel, number)` are the publisher's.
    pub(super) fn put_off(
        &self,
        exchange: Arc<Exchange>,
        hold: &Hold,
        message: &Arc<Message>,
        (channel, number): (u16, u64),
    ) -> Held {
        let message = match &hold.properties {
            Some(properties) => {
                Message::marked(Parts { properties, ..message.parts() }, message.body(), message.marks())
            }
            None => Arc::clone(message),
        };
        let delay = Duration::from_millis(hold.delay_ms.min(DELAY_MS_MAX));
        Held { vhost: Arc::clone(&self.name), exchange, delay, message, channel, number }
    }
}

/// The longest delay: ten years, as of every other time (semantics 12.5).
const DELAY_MS_MAX: u64 = 315_360_000_000;
