//! Binding and unbinding, with the checks of [`super::declare`] in RabbitMQ's order (semantics 10).

use plugin_api::exchange::{BindingSpec, DestinationKind};

use super::authority::Authority;
use super::declare::TOPIC;
use super::error::{Error, Kind};
use super::policy::QueueType;
use super::quorum::check_taken;
use super::reply_to::{REPLY_TO, is_reply_name};
use super::{Changed, Vhost};
use crate::access::Permission;
use crate::routing::Destination;
use crate::routing::exchange::{Bound, Exchange};

impl Vhost {
    /// Binds a queue or an exchange to an exchange (semantics 10.3).
    ///
    /// # Errors
    /// See [`Error`]; nothing is changed then.
    pub fn bind(&self, by: &mut dyn Authority, source: &str, binding: &BindingSpec) -> Result<Changed, Error> {
        self.permit_binding(by, source, binding)?;
        self.ask_hooks_of_binding(by, source, binding)?;
        let mut tables = self.open_tables()?;
        let exchange = tables.exchanges.get(source).cloned().ok_or_else(|| self.not_found(Kind::Exchange, source))?;
        let destination = tables
            .destination(binding.destination_kind, &binding.destination)
            .ok_or_else(|| self.not_found(kind_of(binding.destination_kind), &binding.destination))?;
        if let Some(types) = self.registry.exchange_types(&exchange.spec)? {
            types.validate_binding(&exchange.spec, binding)?;
            if let Destination::Queue(queue) = &destination {
                check_taken(types.takes(), QueueType::of(&queue.arguments))?;
            }
        }
        if let Destination::Queue(queue) = &destination {
            self.check_owner(by, queue)?;
        }
        if tables.bindings_to(&destination) >= self.bindings_per_queue_max && !exchange.has_binding(binding) {
            return Err(Error::BindingLimit {
                kind: kind_of(binding.destination_kind),
                name: binding.destination.clone(),
                vhost: self.name.to_string(),
                max: self.bindings_per_queue_max,
            });
        }
        let is_durable = exchange.spec.durable && destination.is_durable();
        let mut handed = Vec::new();
        let bound = tables.bind(&exchange, binding, destination.clone(), Some(&mut handed))?;
        match bound {
            Bound::New(_) => {
                let changed = self.changed_by(Some(&by.doer()), tables);
                self.hand_over(&destination, &handed);
                Ok(changed)
            }
            Bound::Existing => Ok(self.unchanged(is_durable)),
        }
    }

    /// Unbinds; a binding, queue or exchange that is not there is no error (semantics 10.5).
    ///
    /// # Errors
    /// 403, and 405 for a locked queue.
    pub fn unbind(&self, by: &mut dyn Authority, source: &str, binding: &BindingSpec) -> Result<Changed, Error> {
        self.permit_binding(by, source, binding)?;
        let mut tables = self.tables.write();
        if binding.destination_kind == DestinationKind::Queue
            && let Some(queue) = tables.queues.get(binding.destination.as_str())
        {
            self.check_owner(by, queue)?;
        }
        let Some(exchange) = tables.exchanges.get(source).cloned() else { return Ok(self.unchanged(true)) };
        tables.unbind(&exchange, binding);
        if tables.changes.is_empty() {
            self.changed_by(Some(&by.doer()), tables);
            return Ok(self.unchanged(exchange.spec.durable));
        }
        Ok(self.changed_by(Some(&by.doer()), tables))
    }

    fn permit_binding(&self, by: &mut dyn Authority, source: &str, binding: &BindingSpec) -> Result<(), Error> {
        let kind = kind_of(binding.destination_kind);
        if kind == Kind::Queue && (binding.destination == REPLY_TO || is_reply_name(&binding.destination)) {
            return Err(Error::ReplyQueueBinding);
        }
        let is_default_destination = kind == Kind::Exchange && binding.destination.is_empty();
        self.permit(by, Permission::Write, kind, &binding.destination)?;
        if source.is_empty() || is_default_destination {
            return Err(Error::DefaultExchange);
        }
        self.permit(by, Permission::Read, Kind::Exchange, source)?;
        match self.exchange(source) {
            Some(exchange) => self.permit_topics(by, Permission::Read, &exchange, [binding.routing_key.as_str()]),
            None => Ok(()),
        }
    }

    /// Topic permissions are asked for topic exchanges alone, whatever else routes by topics (semantics 25.7).
    fn permit_topics<'k>(
        &self,
        by: &mut dyn Authority,
        permission: Permission,
        exchange: &Exchange,
        routing_keys: impl IntoIterator<Item = &'k str>,
    ) -> Result<(), Error> {
        if exchange.spec.kind != TOPIC {
            return Ok(());
        }
        let Some(topics) = by.topic_permission(&exchange.name) else { return Ok(()) };
        match routing_keys.into_iter().find(|routing_key| !topics.permits(permission, routing_key)) {
            None => Ok(()),
            Some(routing_key) => Err(self.topic_refused(by, permission, exchange, routing_key)),
        }
    }

    pub(super) fn topic_refused(
        &self,
        by: &dyn Authority,
        permission: Permission,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Error {
        Error::TopicRefused {
            permission,
            routing_key: routing_key.to_owned(),
            exchange: exchange.name.to_string(),
            vhost: self.name.to_string(),
            user: by.user().to_owned(),
        }
    }
}

fn kind_of(kind: DestinationKind) -> Kind {
    match kind {
        DestinationKind::Queue => Kind::Queue,
        DestinationKind::Exchange => Kind::Exchange,
    }
}
