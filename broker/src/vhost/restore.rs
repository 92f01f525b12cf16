//! Bringing back what the store knows of a vhost, before anybody else can see it (semantics 27.1, 27.7).
//!
//! Nothing is judged again: what was declared once is there, also an exchange whose plugin is missing today.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::policy::Policy;
use super::queue_settings::Declared;
use super::{Change, QueueRecord, Vhost};
use crate::origin::Origin;
use crate::queue;
use crate::routing::Exchange;
use crate::store::definitions::{ExchangeDefinition, VhostDefinitions};
use crate::store::recovery::Backlog;

impl Vhost {
    /// Sets what the store knows of the vhost itself; before queues and exchanges, which get their policies when they are made.
    pub fn restore_settings(&self, definitions: &mut VhostDefinitions) {
        let mut tables = self.tables.write();
        let settings = &mut tables.settings;
        settings.metadata = definitions.metadata.take().map(|metadata| (metadata, Origin::Runtime));
        settings.limits = definitions.limits.take().map(|limits| (limits, Origin::Runtime));
        settings.parameters = definitions.parameters.drain(..).collect();
        for (kind, spec) in definitions.policies.drain(..) {
            let name = spec.name.clone();
            match Policy::new(kind, spec, Origin::Runtime) {
                Ok(policy) => settings.policies.put(kind, Arc::new(policy)),
                // It stays in the store, for a version that knows it.
                Err(error) => {
                    tracing::error!(vhost = %self.name, "{kind} '{name}' of the data folder does not apply: {error}");
                }
            }
        }
    }

    /// Adds durable exchanges, queues with what the store has for them, and bindings. What
    /// queues and exchanges have in the store is taken out of `backlogs` by their number.
    pub fn restore(self: &Arc<Self>, definitions: VhostDefinitions, backlogs: &mut HashMap<u64, Backlog>) {
        let mut tables = self.tables.write();
        let mut renumbered = Vec::new();
        for ExchangeDefinition { spec, number } in definitions.exchanges {
            let types = match self.registry.exchange_types(&spec) {
                Ok(Some(types)) => Some(types),
                Ok(None) => {
                    tracing::error!(vhost = %self.name, exchange = spec.name, kind = spec.kind,
                        "no plugin offers the type of this exchange; it is kept, and publishing to it is refused until the plugin is back");
                    None
                }
                Err(error) => {
                    tracing::error!(vhost = %self.name, exchange = spec.name, kind = spec.kind, error = %error,
                        "the type of this exchange cannot serve it; it is kept, and publishing to it is refused");
                    None
                }
            };
            let has_number = number.is_some();
            let number = number.unwrap_or_else(|| self.numbers.next());
            let exchange = Arc::new(Exchange::restore(number, spec, types.as_ref()));
            if let Some(left) = backlogs.remove(&number) {
                exchange.restore_kept(left.kept.iter().map(|kept| &*kept.message));
                self.holder.restore(self, &exchange, left);
            }
            if !has_number {
                renumbered.push(Arc::clone(&exchange));
            }
            tables.add_exchange(exchange);
        }
        for queue in definitions.queues {
            let name: Arc<str> = queue.name.into();
            let auto_delete = queue.auto_delete;
            let declared = Declared { durable: true, auto_delete, arguments: &queue.arguments };
            let (settings, applied) = self.queue_settings(&tables, &name, declared);
            let backlog = backlogs.remove(&queue.number).unwrap_or_default();
            let restored = queue::Restored { first_seq: self.first_seq, levels: backlog.levels };
            tables.add_queue(Arc::new(QueueRecord {
                handle: self.factory.create(self, &name, queue.number, settings.options, restored),
                name,
                number: queue.number,
                durable: true,
                auto_delete,
                settings: RwLock::new(Arc::new(settings)),
                policy: RwLock::new(applied),
                owner: None,
                deleter: Mutex::default(),
                declared_by: queue.declared_by.map(Arc::from),
                arguments: queue.arguments,
            }));
        }
        for binding in definitions.bindings {
            let exchange = tables.exchanges.get(binding.source.as_str()).cloned();
            let destination = tables.destination(binding.binding.destination_kind, &binding.binding.destination);
            let (Some(exchange), Some(destination)) = (exchange, destination) else {
                tracing::error!(vhost = %self.name, source = binding.source, destination = binding.binding.destination,
                    "a stored binding has lost one of its ends");
                continue;
            };
            if let Err(error) = tables.bind(&exchange, &binding.binding, destination, None) {
                tracing::error!(vhost = %self.name, source = binding.source, destination = binding.binding.destination,
                    error = %error, "the exchange's type does not take a stored binding");
            }
        }
        // All of this is in the store already, but for what a version wrote that did not number exchanges.
        tables.changes = renumbered.into_iter().map(Change::ExchangeAdded).collect();
        tables.happened.clear();
        self.changed(tables);
    }
}
