//! Messages that no client publishes now: what an exchange has for a new binding, held messages that are due, and the broker's own.
//!
//! They run no hooks and nobody waits for their confirms; everything else is as for any message. Queues are posted to when no lock is
//! held any more.

use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use plugin_api::exchange::{Hold, Wish};

use super::held::line::Due;
use super::held::{Held, Why};
use super::publish::{extra_keys, hiding_bcc};
use super::{QueueRecord, Vhost};
use crate::message::{Marks, Message, Parts};
use crate::queue::{Burst, Incoming, Input, Outlet};
use crate::routing::{self, Destination, Exchange};

/// Messages by queue, in their order.
#[derive(Default)]
pub(super) struct Batches {
    place_of: HashMap<u64, usize>,
    batches: Vec<(Arc<QueueRecord>, Burst<Incoming>)>,
}

impl Batches {
    /// `number` is for the confirm; 0 when none is wanted.
    pub(super) fn add(&mut self, queue: &Arc<QueueRecord>, message: &Arc<Message>, number: u64) {
        let place = *self.place_of.entry(queue.number).or_insert_with(|| {
            self.batches.push((Arc::clone(queue), Burst::new()));
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

/// What goes out together: to queues, and to whoever keeps what exchanges on the way put off.
#[derive(Default)]
struct Sending {
    batches: Batches,
    held: Vec<Held>,
}

/// Why a message is not routed.
enum Unroutable {
    /// An exchange's type failed, or is not there.
    ForNow,
    /// The message cannot be read.
    ForGood,
}

impl Vhost {
    /// Publishes messages to what a new binding leads to.
    pub(super) fn hand_over(&self, destination: &Destination, messages: &[Arc<Message>]) {
        let mut sending = Sending::default();
        for message in messages {
            match destination {
                Destination::Queue(queue) => sending.batches.add(queue, &hiding_bcc(message), 0),
                Destination::Exchange(exchange) => {
                    // What cannot be routed is told there.
                    let _ = self.route_again(exchange, message, 0, &mut sending);
                }
            }
        }
        self.send(sending, None);
    }

    /// Routes messages that an exchange held, in order. `expect` is told how many confirms `origin` will get, before the first, and the places
    /// among `due` of messages that could not be routed, because a plugin failed; those of an exchange that has ended go nowhere.
    pub fn release(
        &self,
        exchange: &Arc<Exchange>,
        due: &[Due],
        origin: &Arc<dyn Outlet>,
        expect: impl FnOnce(usize, &[usize]),
    ) {
        let mut sending = Sending::default();
        let mut failed = Vec::new();
        if !exchange.has_ended() {
            for (place, Due { message, .. }) in due.iter().enumerate() {
                // The number only says that a confirm is wanted.
                if let Err(Unroutable::ForNow) = self.route_again(exchange, message, 1 + place as u64, &mut sending) {
                    failed.push(place);
                }
            }
        }
        expect(sending.batches.message_count() + sending.held.len(), &failed);
        self.send(sending, Some(origin));
    }

    /// Publishes a message of the broker's own to an exchange.
    pub(super) fn publish_inside(&self, exchange: &Arc<Exchange>, message: &Arc<Message>) {
        let mut sending = Sending::default();
        let _ = self.route_again(exchange, message, 0, &mut sending);
        self.send(sending, None);
    }

    fn send(&self, sending: Sending, origin: Option<&Arc<dyn Outlet>>) {
        let Sending { batches, held } = sending;
        if !held.is_empty() {
            self.holder.hold(origin, held);
        }
        batches.post(origin);
    }

    fn route_again(
        &self,
        start: &Arc<Exchange>,
        message: &Arc<Message>,
        number: u64,
        sending: &mut Sending,
    ) -> Result<(), Unroutable> {
        let lost = |error: &dyn std::fmt::Display| {
            tracing::error!(vhost = %self.name, exchange = %start.name, error = %error, "message is not routed");
        };
        let extra = match extra_keys(message.properties()) {
            _ if message.marks().has(Marks::SOLE_KEY) => None,
            Ok(extra) => extra,
            Err(error) => {
                lost(&error);
                return Err(Unroutable::ForGood);
            }
        };
        let mut keys = vec![message.routing_key()];
        keys.extend(extra.iter().flat_map(|extra| extra.keys.iter().map(String::as_str)));
        let routed = routing::route(&*self.tables.read(), start, &message.view(), &keys);
        let route = match routed {
            Ok(route) => route,
            Err((_, error)) => {
                lost(&error);
                return Err(Unroutable::ForNow);
            }
        };
        let put_off = |(exchange, wish): (_, Wish)| self.put_off(exchange, &wish, message, (0, number));
        sending.held.extend(route.wishes.into_iter().map(put_off));
        let message = hiding_bcc(message);
        route.queues.iter().for_each(|queue| sending.batches.add(queue, &message, number));
        Ok(())
    }

    /// What the holder is given for a message that `exchange` puts off or has kept; `(channel, number)` are the publisher's.
    pub(super) fn put_off(
        &self,
        exchange: Arc<Exchange>,
        wish: &Wish,
        message: &Arc<Message>,
        (channel, number): (u16, u64),
    ) -> Held {
        let (why, message) = match wish {
            Wish::Keep(keep) => (Why::Keep(*keep), Arc::clone(message)),
            Wish::Hold(Hold { delay_ms, properties }) => {
                let message = match properties {
                    Some(properties) => {
                        Message::marked(Parts { properties, ..message.parts() }, message.body(), message.marks())
                    }
                    None => Arc::clone(message),
                };
                (Why::Later { delay_ms: (*delay_ms).min(DELAY_MS_MAX) }, message)
            }
        };
        let (vhost, durability) = (Weak::clone(&self.this), self.durability);
        Held { vhost, exchange, why, message, channel, number, durability }
    }
}

/// The longest delay: ten years, as of every other time (semantics 12.5).
const DELAY_MS_MAX: u64 = 315_360_000_000;
