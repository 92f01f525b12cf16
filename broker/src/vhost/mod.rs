//! A vhost: its names, and the rules by which they change.
//!
//! [`Vhost::declare_exchange`] and its neighbours are the one entry for AMQP, the topology file and everything later, with the same checks
//! and the same errors. [`publish::Publisher`] is the way of messages in. The module holds names and handles; it knows no
//! connection, no clock and no runtime.

pub mod arguments;
pub mod authority;
mod bind;
pub mod broker_exchanges;
pub mod dead_letter;
pub mod declare;
mod declare_hooks;
mod deliver;
pub mod erlang_term;
pub mod error;
mod explain;
pub mod firehose;
mod happened;
pub mod held;
pub mod json_properties;
pub mod json_table;
mod policies;
pub mod policy;
pub mod publish;
pub mod queue_arguments;
pub mod queue_settings;
pub mod quorum;
pub mod registry;
pub mod reply_to;
mod restore;
pub mod settings;
pub mod strict;
mod tables;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use plugin_api::exchange::ExchangeSpec;
use plugin_api::value::Table;

use self::dead_letter::Cycles;
pub use self::error::Error;
use self::happened::Happened;
use self::held::Holder;
use self::policy::{Applied, Policy, PolicyKind, QueueType};
use self::queue_settings::{Declared, QueueSettings};
use self::settings::{ParameterName, VhostLimits, VhostMetadata};
use self::strict::Strict;
use self::tables::Tables;
use crate::events::Events;
use crate::hooks::Hooks;
use crate::metrics::node::QueueChurn;
use crate::plugin_host::{Registry, TypeError};
use crate::queue::{self, Durability};
use crate::routing::Exchange;
use crate::routing::exchange::Identity;

/// A queue's name, declaration and the way to reach it.
#[derive(Debug)]
pub struct QueueRecord {
    /// Unique in its vhost.
    pub name: Arc<str>,
    /// Unique in the broker; names the queue in the store.
    pub number: u64,
    /// Survives a restart. Never set for exclusive queues (semantics 9.5).
    pub durable: bool,
    /// Ends with its last consumer.
    pub auto_delete: bool,
    /// What follows from its declaration and the policies of this moment.
    pub settings: RwLock<Arc<QueueSettings>>,
    /// The policies of this moment.
    pub policy: RwLock<Applied>,
    /// The connection that owns it, for exclusive queues.
    pub owner: Option<u64>,
    /// The user who declared it; none where nobody wrote that down.
    pub declared_by: Option<Arc<str>>,
    /// The user who has asked for its end last, for whoever hears of it: at first the one who made it, where it ends with a connection.
    pub deleter: Mutex<Option<Arc<str>>>,
    /// As declared.
    pub arguments: Table,
    /// Where to post to.
    pub handle: Arc<dyn queue::Handle>,
}

/// Makes the live part of queues; the runtime's business.
pub trait QueueFactory: fmt::Debug + Send + Sync {
    /// A queue. When it ends by itself, it calls [`Vhost::forget_queue`].
    fn create(
        &self,
        vhost: &Arc<Vhost>,
        name: &Arc<str>,
        number: u64,
        options: queue::Options,
        restored: queue::Restored,
    ) -> Arc<dyn queue::Handle>;
}

/// A durable thing that came or went.
#[derive(Debug)]
pub enum Change {
    /// A durable exchange was declared.
    ExchangeAdded(Arc<Exchange>),
    /// It is gone.
    ExchangeRemoved(Arc<str>),
    /// A durable queue was declared.
    QueueAdded(Arc<QueueRecord>),
    /// It is gone.
    QueueRemoved(Arc<str>),
    /// Two durable ends were bound (semantics 27.4).
    BindingAdded {
        /// The exchange that it leads from.
        source: Arc<str>,
        /// The binding.
        identity: Identity,
        /// Its arguments as sent.
        arguments: Table,
    },
    /// It is gone.
    BindingRemoved {
        /// The exchange that it led from.
        source: Arc<str>,
        /// The binding.
        identity: Identity,
    },
    /// The vhost is there, and what is said of it.
    VhostPut(VhostMetadata),
    /// The vhost is gone; everything in it went before.
    VhostRemoved,
    /// A policy was added or changed.
    PolicyPut(PolicyKind, Arc<Policy>),
    /// It is gone.
    PolicyRemoved(PolicyKind, Arc<str>),
    /// The limits were changed or are gone.
    LimitsPut(Option<VhostLimits>),
    /// A parameter was added or changed, or is gone.
    ParameterPut(ParameterName, Option<serde_json::Value>),
}

/// What an operation changed, so that its caller knows what to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Everything was as it should be, and nothing of it has to be waited for.
    Nothing,
    /// Only what a restart forgets anyway.
    Transient,
    /// Something that must survive, by this operation or by an earlier one: it may be answered when it is stored.
    Durable,
}

/// Who writes down what must survive. Recording never waits; whoever needs to know that it is safe asks the store.
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Changes of one vhost, in order.
    fn record(&self, vhost: &str, changes: Vec<Change>);

    /// A parameter of the broker as a whole was added or changed, or is gone.
    fn record_parameter(&self, name: &str, value: Option<&serde_json::Value>) {
        let _ = (name, value);
    }

    /// Whether everything that was recorded is stored. One that does not know says no; then everybody waits.
    fn is_stored(&self) -> bool {
        false
    }
}

/// Numbers for queues and exchanges, unique in the broker.
#[derive(Debug)]
pub struct Numbers {
    next: AtomicU64,
    /// What became of queues.
    pub queues: QueueChurn,
}

impl Numbers {
    /// Begins with `first`.
    pub fn starting_at(first: u64) -> Self {
        Self { next: AtomicU64::new(first), queues: QueueChurn::default() }
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// What all vhosts of a broker share.
#[derive(Clone)]
pub struct Shared {
    /// Exchange types.
    pub registry: Arc<Registry>,
    /// Makes queues.
    pub factory: Arc<dyn QueueFactory>,
    /// Writes down what must survive.
    pub ledger: Arc<dyn Ledger>,
    /// Keeps messages that exchanges put off.
    pub holder: Arc<dyn Holder>,
    /// Numbers queues and exchanges.
    pub numbers: Arc<Numbers>,
    /// The place of the first message of every queue: above all places of earlier runs.
    pub first_seq: u64,
    /// Bindings that may lead to one queue, or to one exchange.
    pub bindings_per_queue_max: usize,
    /// What is refused on request.
    pub strict: Strict,
    /// Where what happens is told.
    pub events: Events,
    /// The hooks in force.
    pub hooks: Arc<Hooks>,
}

/// See the module.
pub struct Vhost {
    /// Its name.
    pub name: Arc<str>,
    this: Weak<Self>,
    registry: Arc<Registry>,
    factory: Arc<dyn QueueFactory>,
    ledger: Arc<dyn Ledger>,
    holder: Arc<dyn Holder>,
    numbers: Arc<Numbers>,
    /// The place of the first message of every queue: above all places of earlier runs.
    first_seq: u64,
    bindings_per_queue_max: usize,
    strict: Strict,
    /// That of queues which were declared without one.
    durability: Durability,
    tables: RwLock<Tables>,
    /// Held while policies change, until all queues have been told.
    changing: Mutex<()>,
    generation: AtomicU64,
    cycles: Cycles,
    is_traced: AtomicBool,
    hooks: Arc<Hooks>,
}

impl fmt::Debug for Vhost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vhost").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The exchanges that every vhost has (semantics 8.1): name, type, whether it is internal. All are durable.
pub const PREDECLARED: [(&str, &str, bool); 7] = [
    ("", "direct", false),
    ("amq.direct", "direct", false),
    ("amq.fanout", "fanout", false),
    ("amq.topic", "topic", false),
    ("amq.headers", "headers", false),
    ("amq.match", "headers", false),
    ("amq.rabbitmq.trace", "topic", true),
];

impl Vhost {
    /// A vhost with its predeclared exchanges. `durability` is that of queues which are declared without one.
    ///
    /// # Errors
    /// A built-in exchange type cannot be opened.
    pub fn new(name: &str, shared: Shared, durability: Durability) -> Result<Arc<Self>, TypeError> {
        let Shared {
            registry,
            factory,
            ledger,
            holder,
            numbers,
            first_seq,
            bindings_per_queue_max,
            strict,
            events,
            hooks,
        } = shared;
        let mut tables = Tables::default();
        tables.happened = Happened::new(events);
        for (exchange, kind, internal) in PREDECLARED {
            let spec = ExchangeSpec {
                vhost: name.into(),
                name: exchange.into(),
                kind: kind.into(),
                durable: true,
                internal,
                ..ExchangeSpec::default()
            };
            let types = registry
                .exchange_types(&spec)?
                .ok_or_else(|| TypeError::Faulted(format!("the built-in exchange type '{kind}' is missing")))?;
            tables.add_exchange(Arc::new(Exchange::open(numbers.next(), spec, &types)?));
        }
        // Every vhost has these; nobody needs to write them down.
        tables.changes.clear();
        tables.happened.clear();
        Ok(Arc::new_cyclic(|this| Self {
            name: name.into(),
            this: Weak::clone(this),
            registry,
            factory,
            ledger,
            holder,
            numbers,
            first_seq,
            bindings_per_queue_max,
            strict,
            durability,
            tables: RwLock::new(tables),
            changing: Mutex::new(()),
            generation: AtomicU64::new(1),
            cycles: Cycles::default(),
            is_traced: AtomicBool::new(false),
            hooks,
        }))
    }

    /// Changes whenever a route may have changed.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Ends a change of nobody's in particular.
    fn changed(&self, tables: RwLockWriteGuard<'_, Tables>) -> Changed {
        self.changed_by(None, tables)
    }

    /// Ends a change that `user` made: the ledger hears of it before the lock is gone, so that it hears of changes in their order.
    fn changed_by(&self, user: Option<&str>, mut tables: RwLockWriteGuard<'_, Tables>) -> Changed {
        let changes = std::mem::take(&mut tables.changes);
        let changed = if changes.is_empty() { Changed::Transient } else { Changed::Durable };
        if changed == Changed::Durable {
            self.ledger.record(&self.name, changes);
        }
        // Behind the ledger: after a crash in between what is left has no definition any more, and a start drops it.
        for exchange in std::mem::take(&mut tables.ended) {
            self.holder.forget(exchange);
        }
        tables.happened.tell(&self.name, user);
        drop(tables);
        self.forget_routes();
        changed
    }

    /// The hooks in force are others now: publishers ask again which are theirs, between two messages.
    pub fn on_hooks_changed(&self) {
        self.forget_routes();
    }

    fn forget_routes(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// What an operation has to wait for that found everything as it should be. Whoever made it so may still be waiting for the store, and
    /// after a crash it would not be so.
    pub fn unchanged(&self, is_durable: bool) -> Changed {
        if is_durable && !self.ledger.is_stored() { Changed::Durable } else { Changed::Nothing }
    }

    /// What the live part of a new queue needs to know of its declaration and its policies. A durability of the queue's own that promises less than
    /// the sync is logged, so that nobody has it unknowingly.
    fn queue_settings(&self, tables: &Tables, name: &str, declared: Declared<'_>) -> (QueueSettings, Applied) {
        let applied = tables.settings.policies.of_queue(name, QueueType::of(declared.arguments));
        let settings = QueueSettings::resolve(declared, &applied.of_queue(), self.durability);
        let is_own = declared.arguments.get(queue_arguments::DURABILITY).is_some();
        if declared.durable && is_own && settings.options.durability == Durability::Os {
            tracing::info!("queue '{name}' in vhost '{}' confirms before the sync: durability os", self.name);
        }
        (settings, applied)
    }

    /// What confirms wait for in queues that were declared without a durability of their own.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// The exchange of that name.
    pub fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.tables.read().exchanges.get(name).cloned()
    }

    /// The queue of that name.
    pub fn queue(&self, name: &str) -> Option<Arc<QueueRecord>> {
        self.tables.read().queues.get(name).cloned()
    }

    /// All exchanges at this moment, in no order.
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.tables.read().exchanges.values().cloned().collect()
    }

    /// All queues at this moment, in the order in which they were made.
    pub fn queues(&self) -> Vec<Arc<QueueRecord>> {
        let mut queues: Vec<Arc<QueueRecord>> = self.tables.read().queues.values().cloned().collect();
        queues.sort_unstable_by_key(|queue| queue.number);
        queues
    }

    /// How many exchanges and queues there are.
    pub fn counts(&self) -> (usize, usize) {
        let tables = self.tables.read();
        (tables.exchanges.len(), tables.queues.len())
    }

    /// Takes a queue that has ended out of all tables, with its bindings (semantics 9.19). The queue itself calls this before
    /// anybody hears of its end.
    pub fn forget_queue(&self, name: &str, number: u64) {
        let mut tables = self.tables.write();
        if let Some(queue) = tables.queues.get(name).filter(|queue| queue.number == number) {
            let deleter = queue.deleter.lock().clone();
            tables.remove_queue(name);
            self.numbers.queues.deleted();
            self.changed_by(deleter.as_deref(), tables);
        }
    }
}
