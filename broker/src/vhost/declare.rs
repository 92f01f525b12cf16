//! Declaring and deleting; with [`super::bind`] the one entry for whoever changes a vhost (semantics 8 to 10).
//!
//! Each function checks in RabbitMQ's order, so that a client sees the same error where several apply. Parts of a queue's life that
//! depend on its messages and consumers (purge, delete) are asked of the queue by the caller; what is here only finds it and
//! judges access.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use plugin_api::exchange::ExchangeSpec;
use plugin_api::value::{Table, Value};

use super::arguments;
use super::authority::Authority;
use super::error::{Error, Kind};
use super::policy::QueueType;
use super::queue_arguments::{DEAD_LETTER_EXCHANGE, QUEUE_TYPE};
use super::queue_settings::Declared;
use super::tables::Tables;
use super::{Changed, QueueRecord, Vhost};
use crate::access::{Permission, Resource};
use crate::queue;
use crate::routing::exchange::{ALTERNATE_EXCHANGE, Exchange};

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
    pub(super) fn permit(
        &self,
        by: &mut dyn Authority,
        permission: Permission,
        kind: Kind,
        name: &str,
    ) -> Result<(), Error> {
        // The default exchange has a name for permissions only (semantics 25.5).
        let name = if kind == Kind::Exchange && name.is_empty() { "amq.default" } else { name };
        if by.permits(permission, resource(kind), name) {
            return Ok(());
        }
        let (name, user) = (name.to_owned(), by.user().to_owned());
        Err(Error::Refused { permission, kind, name, vhost: self.name.to_string(), user })
    }

    pub(super) fn not_found(&self, kind: Kind, name: &str) -> Error {
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
        Ok(self.changed_by(Some(&by.doer()), tables))
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
        Ok(self.changed_by(Some(&by.doer()), tables))
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

    pub(super) fn check_owner(&self, by: &dyn Authority, queue: &QueueRecord) -> Result<(), Error> {
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
                *queue.deleter.lock() = Some(by.doer());
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
        self.check_transient(&spec)?;
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
            deleter: Mutex::new(owner.map(|_| by.doer())),
            declared_by: Some(by.doer()),
            arguments: spec.arguments,
        });
        self.numbers.queues.declared();
        self.numbers.queues.created();
        tables.add_queue(Arc::clone(&record));
        Ok((record, self.changed_by(Some(&by.doer()), tables)))
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
    pub(super) fn open_tables(&self) -> Result<RwLockWriteGuard<'_, Tables>, Error> {
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
}

#[cfg(test)]
mod tests;
