//! The name tables of a vhost, and which bindings lead where.
//!
//! Everything here runs under the vhost's write lock, which orders all changes of a vhost.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use plugin_api::exchange::{BindingSpec, DestinationKind};

use super::happened::{self, Happened};
use super::settings::Settings;
use super::{Change, QueueRecord};
use crate::events::Kind;
use crate::message::Message;
use crate::plugin_host::TypeError;
use crate::routing;
use crate::routing::exchange::{Bound, Destination, Exchange, Identity, Unbound};

/// A binding by its exchange's number and its slot there.
type Place = (u64, u32);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) exchanges: HashMap<Arc<str>, Arc<Exchange>>,
    pub(super) queues: HashMap<Arc<str>, Arc<QueueRecord>>,
    /// The queues behind reply consumers, which only messages find.
    pub(super) reply_queues: HashMap<Arc<str>, Arc<QueueRecord>>,
    by_number: HashMap<u64, Arc<Exchange>>,
    /// Which bindings lead to a queue or exchange, by its number.
    leading_to: HashMap<u64, HashSet<Place>>,
    /// Durable changes that the ledger has not been told of.
    pub(super) changes: Vec<Change>,
    /// What nobody has been told of.
    pub(super) happened: Happened,
    /// The numbers of exchanges that are gone and whose held messages are still to be dropped.
    pub(super) ended: Vec<u64>,
    pub(super) settings: Settings,
    /// The vhost was deleted: nothing may come in any more.
    pub(super) has_ended: bool,
}

impl routing::Tables for Tables {
    fn exchange(&self, name: &str) -> Option<&Arc<Exchange>> {
        self.exchanges.get(name)
    }

    fn queue(&self, name: &str) -> Option<&Arc<QueueRecord>> {
        self.queues.get(name).or_else(|| self.reply_queues.get(name))
    }
}

fn number_of(destination: &Destination) -> u64 {
    match destination {
        Destination::Queue(queue) => queue.number,
        Destination::Exchange(exchange) => exchange.number,
    }
}

impl Tables {
    pub(super) fn add_exchange(&mut self, exchange: Arc<Exchange>) {
        exchange.set_policy(self.settings.policies.of_exchange(&exchange.name));
        if exchange.spec.durable {
            self.changes.push(Change::ExchangeAdded(Arc::clone(&exchange)));
        }
        self.happened.note(Kind::ExchangeCreated, || happened::exchange_created(&exchange));
        self.by_number.insert(exchange.number, Arc::clone(&exchange));
        self.exchanges.insert(Arc::clone(&exchange.name), exchange);
    }

    pub(super) fn add_queue(&mut self, queue: Arc<QueueRecord>) {
        if queue.durable {
            self.changes.push(Change::QueueAdded(Arc::clone(&queue)));
        }
        self.happened.note(Kind::QueueCreated, || happened::queue_created(&queue));
        self.queues.insert(Arc::clone(&queue.name), queue);
    }

    /// The queue or exchange that a binding names.
    pub(super) fn destination(&self, kind: DestinationKind, name: &str) -> Option<Destination> {
        match kind {
            DestinationKind::Queue => self.queues.get(name).cloned().map(Destination::Queue),
            DestinationKind::Exchange => self.exchanges.get(name).cloned().map(Destination::Exchange),
        }
    }

    /// How many bindings lead to a queue or exchange.
    pub(super) fn bindings_to(&self, destination: &Destination) -> usize {
        self.leading_to.get(&number_of(destination)).map_or(0, HashSet::len)
    }

    pub(super) fn bind(
        &mut self,
        exchange: &Arc<Exchange>,
        binding: &BindingSpec,
        destination: Destination,
        handed: Option<&mut Vec<Arc<Message>>>,
    ) -> Result<Bound, TypeError> {
        let number = number_of(&destination);
        let is_durable = exchange.spec.durable && destination.is_durable();
        let bound = exchange.bind(binding, destination, handed)?;
        if let Bound::New(slot) = bound {
            self.happened.note(Kind::BindingCreated, || happened::binding(exchange, &Identity::of(binding)));
            if is_durable {
                let (source, identity) = (Arc::clone(&exchange.name), Identity::of(binding));
                self.changes.push(Change::BindingAdded { source, identity, arguments: binding.arguments.clone() });
            }
            self.leading_to.entry(number).or_default().insert((exchange.number, slot));
        }
        Ok(bound)
    }

    /// Removes a binding, and its exchange if that was auto-delete and this its last (semantics 8.13).
    pub(super) fn unbind(&mut self, exchange: &Arc<Exchange>, binding: &BindingSpec) {
        if let Some(unbound) = exchange.unbind(binding) {
            self.forget_binding(exchange, unbound);
            if is_abandoned(exchange) {
                self.remove_exchanges(vec![Arc::clone(exchange)]);
            }
        }
    }

    /// A binding is gone from its exchange: it leads nowhere any more, and the ledger hears of it if it was durable.
    fn forget_binding(&mut self, exchange: &Exchange, unbound: Unbound) {
        let Unbound { slot, identity, destination, result } = unbound;
        if let Err(error) = result {
            // The type is already marked by the plugin host; its routes answer with an error from now on.
            tracing::error!(exchange = %exchange.name, error = %error, "exchange type failed to forget a binding");
        }
        self.forget_place(number_of(&destination), (exchange.number, slot));
        self.happened.note(Kind::BindingDeleted, || happened::binding(exchange, &identity));
        if exchange.spec.durable && destination.is_durable() {
            self.changes.push(Change::BindingRemoved { source: Arc::clone(&exchange.name), identity });
        }
    }

    fn forget_place(&mut self, destination: u64, place: Place) {
        if let Some(places) = self.leading_to.get_mut(&destination) {
            places.remove(&place);
            if places.is_empty() {
                self.leading_to.remove(&destination);
            }
        }
    }

    pub(super) fn remove_queue(&mut self, name: &str) {
        if let Some(queue) = self.queues.remove(name) {
            let abandoned = self.unbind_everything_to(queue.number);
            self.remove_exchanges(abandoned);
            self.happened.note(Kind::QueueDeleted, || happened::queue_deleted(&queue));
            if queue.durable {
                self.changes.push(Change::QueueRemoved(Arc::clone(&queue.name)));
            }
        }
    }

    /// Removes an exchange with all bindings from and to it (semantics 8.15).
    pub(super) fn remove_exchange(&mut self, name: &str) {
        self.remove_exchanges(self.exchanges.get(name).cloned().into_iter().collect());
    }

    /// One exchange's end may be that of others, and theirs of more (semantics 8.13). Clients choose how long such a chain is, so it
    /// must not become a recursion.
    fn remove_exchanges(&mut self, mut going: Vec<Arc<Exchange>>) {
        while let Some(exchange) = going.pop() {
            // An exchange may be reached twice.
            if self.by_number.remove(&exchange.number).is_none() {
                continue;
            }
            self.exchanges.remove(&exchange.name);
            exchange.end();
            self.ended.push(exchange.number);
            for unbound in exchange.unbind_all() {
                self.forget_binding(&exchange, unbound);
            }
            going.extend(self.unbind_everything_to(exchange.number));
            self.happened.note(Kind::ExchangeDeleted, || happened::exchange_deleted(&exchange));
            if exchange.spec.durable {
                self.changes.push(Change::ExchangeRemoved(Arc::clone(&exchange.name)));
            }
        }
    }

    /// Returns the auto-delete exchanges that lost their last binding by it.
    fn unbind_everything_to(&mut self, number: u64) -> Vec<Arc<Exchange>> {
        let mut abandoned = Vec::new();
        for (source, slot) in self.leading_to.remove(&number).unwrap_or_default() {
            let Some(source) = self.by_number.get(&source).cloned() else { continue };
            if let Some(unbound) = source.unbind_slot(slot) {
                self.forget_binding(&source, unbound);
            }
            if is_abandoned(&source) {
                abandoned.push(source);
            }
        }
        abandoned
    }
}

/// Exchanges hold each other by their bindings, in circles and in chains of any length: neither may be left to the fields' own drop.
impl Drop for Tables {
    fn drop(&mut self) {
        for exchange in self.exchanges.values() {
            exchange.unbind_all();
        }
    }
}

fn is_abandoned(exchange: &Exchange) -> bool {
    exchange.spec.auto_delete && exchange.binding_count() == 0
}
