//! Declaring, binding, unbinding, deleting: the one entry for whoever changes a vhost (semantics 8 to 10).
//!
//! Each function checks in RabbitMQ's order, so that a client sees the same error where several apply. Parts of a queue's life that
//! depend on its messages and consumers (purge, delete) are asked of the queue by the caller; what is here only finds it and
//! judges access.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use plugin_api::value::{Table, Value};

use super::arguments;
use super::error::{Error, Kind};
use super::policy::QueueType;
use super::queue_arguments::{DEAD_LETTER_EXCHANGE, QUEUE_TYPE};
use super::queue_settings::Declared;
use super::reply_to::is_reply_name;
use super::tables::Tables;
use super::{Changed, QueueRecord, Vhost};
use crate::access::{Permission, Resource, TopicPermission};
use crate::queue;
use crate::routing::exchange::{ALTERNATE_EXCHANGE, Bound, Exchange};

/// On whose behalf something is changed.
pub trait Authority {
    /// Whether the permission is there; `name` is never the default exchange.
    fn permits(&mut self, permission: Permission, resource: Resource, name: &str) -> bool;
    /// What the user may do with a topic exchange by routing key; none where everything is allowed (semantics 25.7).
    fn topic_permission(&mut self, exchange: &str) -> Option<Arc<TopicPermission>>;
    /// For errors.
    fn user(&self) -> &str;
    /// Whether messages may carry another user's user-id (semantics 12.6).
    fn may_impersonate(&self) -> bool;
    /// Whose exclusive queues may be used.
    fn connection(&self) -> Option<u64>;
    /// Whether it is the operator himself, whom no hook has to watch.
    fn is_operator(&self) -> bool {
        false
    }
}

/// The operator: a topology file, a command.
#[derive(Clone, Copy, Debug)]
pub struct Operator;

impl Authority for Operator {
    fn permits(&mut self, _: Permission, _: Resource, _: &str) -> bool {
        true
    }

    fn topic_permission(&mut self, _: &str) -> Option<Arc<TopicPermission>> {
        None
    }

    fn user(&self) -> &str {
        "operator"
    }

    fn may_impersonate(&self) -> bool {
        true
    }

    fn connection(&self) -> Option<u64> {
        None
    }

    fn is_operator(&self) -> bool {
        true
    }
}

/// What a queue is declared with.
#[derive(Clone, Debug, Default)]
pub struct QueueSpec {
    /// Empty: the server finds a name.
    pub name: String,
    /// Survives a restart.
    pub durable: bool,
    /// Belongs to the declaring connection and ends with it.
    pub exclusive: bool,
    /// Ends with its last consumer.
    pub auto_delete: bool,
    /// As sent.
    pub arguments: Table,
}

/// Names with this prefix are the server's.
const RESERVED_PREFIX: &str = "amq.";
/// The exchange type that has topic permissions.
pub(super) const TOPIC: &str = "topic";

const fn resource(kind: Kind) -> Resource {
    match kind {
        Kind::Exchange => Resource::Exchange,
        Kind::Queue => Resource::Queue,
    }
}

impl Vhost {
    fn permit(&self, by: &mut dyn Authority, permission: Permission, kind: Kind, name: &str) -> Result<(), Error> {
        // The default exchange has a name for permissions only (semantics 25.5).
        let name = if kind == Kind::Exchange && name.is_empty() { "amq.default" } else { name };
        if by.permits(permission, resource(kind), name) {
            return Ok(());
        }
        let (name, user) = (name.to_owned(), by.user().to_owned());
        Err(Error::Refused { permission, kind, name, vhost: self.name.to_string(), user })
    }

    fn not_found(&self, kind: Kind, name: &str) -> Error {
        Error::NotFound { kind, name: name.into(), vhost: self.name.to_string() }
    }

    fn inequivalent(&self, kind: Kind, name: &str, argument: &str, received: String, current: String) -> Error {
        Error::Inequivalent {
            argument: argument.into(),
            kind,
            name: name.into(),
            vhost: self.name.to_string(),
            received,
            current,
        }
    }

    /// exchange.declare with passive: only looks (semantics 8.9).
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check_exchange(&self, by: &mut dyn Authority, name: &str) -> Result<Arc<Exchange>, Error> {
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        self.permit_any(by, Kind::Exchange, name)?;
        self.exchange(name).ok_or_else(|| self.not_found(Kind::Exchange, name))
    }

    /// Looking needs any one permission; the refusal speaks of configure (semantics 25.4).
    fn permit_any(&self, by: &mut dyn Authority, kind: Kind, name: &str) -> Result<(), Error> {
        let of = resource(kind);
        if by.permits(Permission::Read, of, name) || by.permits(Permission::Write, of, name) {
            return Ok(());
        }
        self.permit(by, Permission::Configure, kind, name)
    }

    /// Declares an exchange (semantics 8.4).
    ///
    /// # Errors
    /// See [`Error`]; nothing is changed then.
    pub fn declare_exchange(&self, by: &mut dyn Authority, spec: ExchangeSpec) -> Result<Changed, Error> {
        let Some(kind) = self.registry.exchange_type(&spec.kind) else {
            return self.declare_without_type(by, &spec);
        };
        if spec.name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        self.permit(by, Permission::Configure, Kind::Exchange, &spec.name)?;
        self.ask_hooks_of_exchange(by, &spec)?;
        let mut tables = self.open_tables()?;
        if let Some(existing) = tables.exchanges.get(spec.name.as_str()) {
            return self.compare_exchange(&spec, &existing.spec).map(|()| self.unchanged(existing.spec.durable));
        }
        if spec.name.starts_with(RESERVED_PREFIX) {
            return Err(Error::ReservedPrefix { kind: Kind::Exchange, name: spec.name });
        }
        match spec.arguments.get(ALTERNATE_EXCHANGE) {
            None => {}
            Some(Value::LongString(alternate)) => {
                let alternate = String::from_utf8_lossy(alternate);
                self.permit(by, Permission::Read, Kind::Exchange, &spec.name)?;
                self.permit(by, Permission::Write, Kind::Exchange, &alternate)?;
            }
            Some(other) => {
                return Err(Error::Argument(format!(
                    "invalid type '{}' for arg '{ALTERNATE_EXCHANGE}' in exchange '{}' in vhost '{}'",
                    other.type_name(),
                    spec.name,
                    self.name
                )));
            }
        }
        // The type itself first: only then can it say what it stands before.
        kind.validate(&spec)?;
        let unknown = || Error::UnknownExchangeType(spec.kind.clone());
        let types = self.registry.exchange_types(&spec)?.ok_or_else(unknown)?;
        types.validate_inner(&spec)?;
        tables.add_exchange(Arc::new(Exchange::open(self.numbers.next(), spec, &types)?));
        Ok(self.changed_by(Some(by.user()), tables))
    }

    /// No plugin offers the type. An exchange that was declared when one did is there all the same (semantics 8.6).
    fn declare_without_type(&self, by: &mut dyn Authority, spec: &ExchangeSpec) -> Result<Changed, Error> {
        let (existing, is_gone) = {
            let tables = self.tables.read();
            let existing = tables.exchanges.get(spec.name.as_str()).filter(|existing| existing.spec.kind == spec.kind);
            (existing.cloned(), tables.exchanges.values().any(|other| other.spec.kind == spec.kind))
        };
        let Some(existing) = existing else {
            let kind = spec.kind.clone();
            return Err(if is_gone { Error::ExchangeTypeIsGone(kind) } else { Error::UnknownExchangeType(kind) });
        };
        self.permit(by, Permission::Configure, Kind::Exchange, &spec.name)?;
        self.compare_exchange(spec, &existing.spec).map(|()| self.unchanged(existing.spec.durable))
    }

    fn compare_exchange(&self, received: &ExchangeSpec, current: &ExchangeSpec) -> Result<(), Error> {
        let quoted = |value: &dyn std::fmt::Display| format!("'{value}'");
        let name = current.name.as_str();
        let differ = |argument: &str, received: String, current: String| {
            Err(self.inequivalent(Kind::Exchange, name, argument, received, current))
        };
        if received.kind != current.kind {
            return differ("type", quoted(&received.kind), quoted(&current.kind));
        }
        for (flag, received, current) in [
            ("durable", received.durable, current.durable),
            ("auto_delete", received.auto_delete, current.auto_delete),
            ("internal", received.internal, current.internal),
        ] {
            if received != current {
                return differ(flag, quoted(&received), quoted(&current));
            }
        }
        let (received, current) =
            (received.arguments.get(ALTERNATE_EXCHANGE), current.arguments.get(ALTERNATE_EXCHANGE));
        if received != current {
            let (received, current) = arguments::print_difference(received, current);
            return differ(ALTERNATE_EXCHANGE, received, current);
        }
        Ok(())
    }

    /// Deletes an exchange; one that is not there is no error (semantics 8.14).
    ///
    /// # Errors
    /// See [`Error`]; nothing is changed then.
    pub fn delete_exchange(&self, by: &mut dyn Authority, name: &str, if_unused: bool) -> Result<Changed, Error> {
        if name.is_empty() {
            return Err(Error::DefaultExchange);
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(Error::SystemExchange { name: name.into(), vhost: self.name.to_string() });
        }
        self.permit(by, Permission::Configure, Kind::Exchange, name)?;
        let mut tables = self.tables.write();
        let Some(exchange) = tables.exchanges.get(name) else { return Ok(self.unchanged(true)) };
        if if_unused && exchange.binding_count() > 0 {
            return Err(Error::InUse { kind: Kind::Exchange, name: name.into(), vhost: self.name.to_string() });
        }
        tables.remove_exchange(name);
        Ok(self.changed_by(Some(by.user()), tables))
    }

    /// Finds a queue that `by` may use: another connection's exclusive queue is locked (semantics 9.6).
    ///
    /// # Errors
    /// 404 and 405.
    pub fn usable_queue(&self, by: &dyn Authority, name: &str) -> Result<Arc<QueueRecord>, Error> {
        let queue = self.queue(name).ok_or_else(|| self.not_found(Kind::Queue, name))?;
        self.check_owner(by, &queue)?;
        Ok(queue)
    }

    fn check_owner(&self, by: &dyn Authority, queue: &QueueRecord) -> Result<(), Error> {
        if queue.owner.is_some() && queue.owner != by.connection() {
            return Err(self.locked(&queue.name));
        }
        Ok(())
    }

    fn locked(&self, name: &str) -> Error {
        Error::Locked { name: name.into(), vhost: self.name.to_string() }
    }

    /// Finds a queue for purge, get or consume: read permission (semantics 25.3).
    ///
    /// # Errors
    /// 403, 404 and 405.
    pub fn readable_queue(&self, by: &mut dyn Authority, name: &str) -> Result<Arc<QueueRecord>, Error> {
        self.permit(by, Permission::Read, Kind::Queue, name)?;
        self.usable_queue(by, name)
    }

    /// Finds a queue to delete: configure permission. None when it is not there, which is no error (semantics 9.19).
    ///
    /// # Errors
    /// 403 and 405.
    pub fn deletable_queue(&self, by: &mut dyn Authority, name: &str) -> Result<Option<Arc<QueueRecord>>, Error> {
        self.permit(by, Permission::Configure, Kind::Queue, name)?;
        match self.queue(name) {
            Some(queue) => {
                self.check_owner(by, &queue)?;
                *queue.deleter.lock() = Some(by.user().into());
                Ok(Some(queue))
            }
            None => Ok(None),
        }
    }

    /// queue.declare with passive: only looks (semantics 9.17).
    ///
    /// # Errors
    /// 403, 404 and 405.
    pub fn check_queue(&self, by: &mut dyn Authority, name: &str) -> Result<Arc<QueueRecord>, Error> {
        self.permit_any(by, Kind::Queue, name)?;
        self.usable_queue(by, name)
    }

    /// Declares a queue. `generated_name` is used when the client sent none (semantics 9.2).
    ///
    /// # Errors
    /// See [`Error`]; nothing is changed then.
    pub fn declare_queue(
        self: &Arc<Self>,
        by: &mut dyn Authority,
        mut spec: QueueSpec,
        generated_name: impl FnOnce() -> String,
    ) -> Result<(Arc<QueueRecord>, Changed), Error> {
        self.set_default_type(&mut spec);
        if spec.name.is_empty() {
            Self::check_generated_name(&spec)?;
            spec.name = generated_name();
        } else if spec.name.starts_with(RESERVED_PREFIX) {
            return Err(Error::ReservedPrefix { kind: Kind::Queue, name: spec.name });
        }
        self.permit(by, Permission::Configure, Kind::Queue, &spec.name)?;
        // An exclusive queue is never durable, whatever the client says (semantics 9.5).
        spec.durable &= !spec.exclusive;
        self.ask_hooks_of_queue(by, &spec)?;
        let owner = if spec.exclusive { by.connection() } else { None };
        let mut tables = self.open_tables()?;
        if let Some(existing) = tables.queues.get(spec.name.as_str()) {
            self.check_owner(by, existing)?;
            self.compare_queue(&spec, owner, existing)?;
            self.numbers.queues.declared();
            return Ok((Arc::clone(existing), self.unchanged(existing.durable)));
        }
        self.permit_dead_letters(by, &spec)?;
        arguments::check_queue(&spec.arguments, &spec.name, &self.name).map_err(Error::Argument)?;
        self.check_quorum(&spec)?;
        let limits = tables.settings.limits.map(|(limits, _)| limits).unwrap_or_default();
        if let Some(limit) = limits.queues_reached(tables.queues.len()) {
            return Err(Error::QueueLimit { name: spec.name, vhost: self.name.to_string(), limit });
        }
        let number = self.numbers.next();
        let name: Arc<str> = spec.name.into();
        let QueueSpec { durable, auto_delete, .. } = spec;
        let declared = Declared { durable, auto_delete, arguments: &spec.arguments };
        let (settings, applied) = self.queue_settings(&tables, &name, declared);
        let restored = queue::Restored { first_seq: self.first_seq, ..queue::Restored::default() };
        let record = Arc::new(QueueRecord {
            handle: self.factory.create(self, &name, number, settings.options, restored),
            name,
            number,
            durable,
            auto_delete,
            settings: RwLock::new(Arc::new(settings)),
            policy: RwLock::new(applied),
            owner,
            deleter: Mutex::new(owner.map(|_| by.user().into())),
            arguments: spec.arguments,
        });
        self.numbers.queues.declared();
        self.numbers.queues.created();
        tables.add_queue(Arc::clone(&record));
        Ok((record, self.changed_by(Some(by.user()), tables)))
    }

    /// A queue that is declared without a type gets the vhost's default, as an argument of its own; where that cannot be of its type, it is classic
    /// (semantics 9.12). A vhost without a default adds nothing.
    fn set_default_type(&self, spec: &mut QueueSpec) {
        if spec.arguments.get(QUEUE_TYPE).is_some() {
            return;
        }
        let default =
            self.tables.read().settings.metadata.as_ref().and_then(|(metadata, _)| metadata.default_queue_type);
        if let Some(kind) = default {
            let is_lasting = spec.durable && !spec.exclusive && !spec.auto_delete;
            let kind = if kind == QueueType::Classic || is_lasting { kind } else { QueueType::Classic };
            spec.arguments.insert(QUEUE_TYPE, kind.name());
        }
    }

    /// Who lets a queue's messages go elsewhere must be able to read them here and write them there (semantics 25.3).
    fn permit_dead_letters(&self, by: &mut dyn Authority, spec: &QueueSpec) -> Result<(), Error> {
        match spec.arguments.get(DEAD_LETTER_EXCHANGE) {
            None => Ok(()),
            Some(Value::LongString(exchange)) => {
                self.permit(by, Permission::Read, Kind::Queue, &spec.name)?;
                self.permit(by, Permission::Write, Kind::Exchange, &String::from_utf8_lossy(exchange))
            }
            Some(other) => Err(Error::Argument(format!(
                "invalid type '{}' for arg '{DEAD_LETTER_EXCHANGE}' in queue '{}' in vhost '{}'",
                other.type_name(),
                spec.name,
                self.name
            ))),
        }
    }

    /// The names, to be changed: of a vhost that is still there.
    fn open_tables(&self) -> Result<RwLockWriteGuard<'_, Tables>, Error> {
        let tables = self.tables.write();
        if tables.has_ended { Err(Error::VhostDeleted(self.name.to_string())) } else { Ok(tables) }
    }

    fn compare_queue(&self, spec: &QueueSpec, owner: Option<u64>, current: &QueueRecord) -> Result<(), Error> {
        if owner != current.owner {
            return Err(self.locked(&current.name));
        }
        for (name, received, existing) in
            [("durable", spec.durable, current.durable), ("auto_delete", spec.auto_delete, current.auto_delete)]
        {
            if received != existing {
                let (received, existing) = (format!("'{received}'"), format!("'{existing}'"));
                return Err(self.inequivalent(Kind::Queue, &current.name, name, received, existing));
            }
        }
        match arguments::difference(&spec.arguments, &current.arguments, self.durability) {
            Some((key, received, existing)) => {
                Err(self.inequivalent(Kind::Queue, &current.name, key, received, existing))
            }
            None => Ok(()),
        }
    }

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
        }
        if let crate::routing::Destination::Queue(queue) = &destination {
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
                let changed = self.changed_by(Some(by.user()), tables);
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
            self.changed_by(Some(by.user()), tables);
            return Ok(self.unchanged(exchange.spec.durable));
        }
        Ok(self.changed_by(Some(by.user()), tables))
    }

    fn permit_binding(&self, by: &mut dyn Authority, source: &str, binding: &BindingSpec) -> Result<(), Error> {
        let kind = kind_of(binding.destination_kind);
        if kind == Kind::Queue && is_reply_name(&binding.destination) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_host::Registry;
    use crate::queue::{self, Durability};
    use crate::store::definitions::{QueueDefinition, VhostDefinitions};
    use crate::vhost::Shared;
    use crate::vhost::held::tests::NoHolder;
    use crate::vhost::quorum::QuorumQueues;
    use crate::vhost::{Change, Ledger, Numbers, QueueFactory};
    use parking_lot::Mutex;

    #[derive(Debug)]
    struct NoQueues;

    #[derive(Debug)]
    struct NoLedger;

    impl Ledger for NoLedger {
        fn record(&self, _: &str, _: Vec<Change>) {}
    }

    impl QueueFactory for NoQueues {
        fn create(
            &self,
            _: &Arc<Vhost>,
            _: &Arc<str>,
            _: u64,
            _: queue::Options,
            _: queue::Restored,
        ) -> Arc<dyn queue::Handle> {
            unreachable!("no queue is declared here")
        }
    }

    /// Remembers what queues were made with.
    #[derive(Debug, Default)]
    struct Made(Mutex<Vec<queue::Options>>);

    impl QueueFactory for Made {
        fn create(
            &self,
            _: &Arc<Vhost>,
            _: &Arc<str>,
            _: u64,
            options: queue::Options,
            _: queue::Restored,
        ) -> Arc<dyn queue::Handle> {
            self.0.lock().push(options);
            Arc::new(NoQueues)
        }
    }

    impl queue::Handle for NoQueues {
        fn post(&self, _: queue::Input) {}
    }

    fn vhost(factory: Arc<dyn QueueFactory>, durability: Durability) -> Arc<Vhost> {
        let registry = Arc::new(Registry::builtin().unwrap());
        let numbers = Arc::new(Numbers::starting_at(1));
        let (ledger, holder) = (Arc::new(NoLedger), Arc::new(NoHolder));
        let shared = Shared {
            registry,
            factory,
            ledger,
            holder,
            numbers,
            first_seq: 1,
            bindings_per_queue_max: BINDINGS_MAX,
            quorum_queues: QuorumQueues::Local,
            events: crate::events::Events::default(),
            hooks: Arc::default(),
        };
        Vhost::new("/", shared, durability).unwrap()
    }

    const BINDINGS_MAX: usize = 3;

    #[test]
    fn so_many_bindings_lead_to_a_queue_and_no_more() {
        let vhost = vhost(Arc::new(Made::default()), Durability::Synced);
        let spec = QueueSpec { name: "q".into(), ..QueueSpec::default() };
        vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).unwrap();
        let binding = |key: usize| BindingSpec {
            destination: "q".into(),
            destination_kind: DestinationKind::Queue,
            routing_key: key.to_string(),
            arguments: Table::new(),
        };
        for key in 0..BINDINGS_MAX {
            // Two exchanges: it is the queue whose bindings are counted.
            let source = ["amq.direct", "amq.topic"][key % 2];
            vhost.bind(&mut Operator, source, &binding(key)).unwrap();
        }
        let error = vhost.bind(&mut Operator, "amq.direct", &binding(9)).unwrap_err();
        assert_eq!(error.to_string(), "cannot bind queue 'q' in vhost '/': binding limit (3) is reached");
        vhost.bind(&mut Operator, "amq.direct", &binding(0)).expect("this one is there already");
        vhost.unbind(&mut Operator, "amq.direct", &binding(0)).unwrap();
        vhost.bind(&mut Operator, "amq.direct", &binding(9)).expect("there is room again");
    }

    #[test]
    fn queues_have_the_durability_of_their_vhost_or_their_own() {
        let made = Arc::new(Made::default());
        let arguments = |own: Option<&str>| own.map_or_else(Table::new, |own| Table::new().with("x-durability", own));
        for of_vhost in [Durability::Synced, Durability::Os] {
            let vhost = vhost(Arc::<Made>::clone(&made), of_vhost);
            for own in [None, Some("synced"), Some("os")] {
                let name = format!("new {own:?}");
                let spec = QueueSpec { name, durable: true, arguments: arguments(own), ..QueueSpec::default() };
                let (queue, _) = vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).unwrap();
                let restored = QueueDefinition {
                    name: format!("restored {own:?}"),
                    number: 1000,
                    auto_delete: false,
                    arguments: arguments(own),
                };
                let definitions = VhostDefinitions { queues: vec![restored], ..VhostDefinitions::default() };
                vhost.restore(definitions, &mut hashbrown::HashMap::new());
                let expected = own.and_then(Durability::from_name).unwrap_or(of_vhost);
                let made: Vec<Durability> = made.0.lock().drain(..).map(|options| options.durability).collect();
                assert_eq!(
                    (queue.settings.read().options.durability, made),
                    (expected, vec![expected; 2]),
                    "{own:?} in {of_vhost}"
                );
            }
        }
    }

    #[test]
    fn a_chain_of_auto_delete_exchanges_ends_however_long_it_is() {
        let vhost = vhost(Arc::new(NoQueues), Durability::Synced);
        let before = vhost.counts();
        let name = |number: u32| format!("x{number}");
        for number in 0..20_000 {
            let kind = "fanout".into();
            let spec = ExchangeSpec { name: name(number), kind, auto_delete: true, ..ExchangeSpec::default() };
            vhost.declare_exchange(&mut Operator, spec).unwrap();
            if number > 0 {
                let binding = BindingSpec {
                    destination: name(number),
                    destination_kind: DestinationKind::Exchange,
                    routing_key: String::new(),
                    arguments: Table::new(),
                };
                vhost.bind(&mut Operator, &name(number - 1), &binding).unwrap();
            }
        }
        vhost.delete_exchange(&mut Operator, &name(19_999), false).unwrap();
        assert_eq!(vhost.counts(), before);
    }

    #[test]
    fn exchanges_in_a_circle_go_with_their_vhost() {
        let vhost = vhost(Arc::new(NoQueues), Durability::Synced);
        for (source, destination) in [("amq.fanout", "amq.topic"), ("amq.topic", "amq.fanout")] {
            let binding = BindingSpec {
                destination: destination.into(),
                destination_kind: DestinationKind::Exchange,
                routing_key: "#".into(),
                arguments: Table::new(),
            };
            vhost.bind(&mut Operator, source, &binding).unwrap();
        }
        let exchange = Arc::downgrade(&vhost.exchange("amq.topic").unwrap());
        drop(vhost);
        assert_eq!(exchange.strong_count(), 0);
    }
}
