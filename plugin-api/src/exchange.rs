//! Exchange types: which bindings a message takes.
//!
//! An [`ExchangeType`] is registered once and judges declarations and bindings. For each exchange of the type the broker
//! calls [`ExchangeType::open`] and then keeps the [`Exchange`] informed of its bindings, each by a number, its slot. A
//! route pushes slots. Everything else is the broker's: destinations, duplicates, alternate exchanges, exchanges bound to
//! exchanges, `CC` and `BCC` (one `route` a key), `mandatory`, permissions and durability.
//!
//! Calls are synchronous and may come from any thread. `route` runs on the thread of the publisher, many at once; it must
//! not wait for anything and should not allocate.

use crate::abi::RawRoutes;
use crate::error::Invalid;
use crate::message::Message;
use crate::value::Table;

/// A kind of exchange, as clients name it in `exchange.declare`.
///
/// The methods are called seldom: at start, at declarations and at bindings. A panic in any of them is caught and the
/// call refused.
pub trait ExchangeType: Send + Sync + 'static {
    /// The name in `exchange.declare`, `x-` in front by custom. Asked once.
    fn name(&self) -> &str;

    /// One line for operators. Asked once.
    fn description(&self) -> &str;

    /// What a route depends on beside the bindings. Asked once.
    fn depends_on(&self) -> DependsOn;

    /// Judges a declaration of an exchange that does not exist yet.
    ///
    /// # Errors
    /// The reason, which the client gets as `PRECONDITION_FAILED`.
    fn validate(&self, spec: &ExchangeSpec) -> Result<(), Invalid> {
        let _ = spec;
        Ok(())
    }

    /// Judges a new binding before it is stored; [`Exchange::bind`] with the same binding follows.
    ///
    /// # Errors
    /// The reason, which the client gets as `PRECONDITION_FAILED`.
    fn validate_binding(&self, spec: &ExchangeSpec, binding: &BindingSpec) -> Result<(), Invalid> {
        let _ = (spec, binding);
        Ok(())
    }

    /// Makes the exchange, without bindings. Also called at recovery, with declarations that were accepted earlier.
    ///
    /// # Errors
    /// The reason why this declaration cannot be served; the exchange is then unavailable, not gone.
    fn open(&self, spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid>;
}

/// One exchange.
///
/// `bind`, `unbind` and `policy_changed` are called alone; `route` is called by many threads at once, never together with
/// them. After a panic in one of the first three the broker no longer asks this exchange anything.
pub trait Exchange: Send + Sync {
    /// Adds a binding under a slot that is free. Slots are small numbers, given from 0 up and used again after `unbind`.
    ///
    /// # Errors
    /// The reason, which the client gets as `PRECONDITION_FAILED`; nothing may have changed then.
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid>;

    /// Removes the binding under `slot`.
    fn unbind(&mut self, slot: BindingSlot);

    /// Pushes the slots of all bindings that this message takes; the order does not matter, and a slot may come twice.
    ///
    /// Called for each message that is not answered from a cache (see [`DependsOn`]).
    fn route(&self, message: &Message<'_>, routes: &mut Routes<'_>);

    /// A policy matches this exchange, another one than before, or none any more (an empty table). Called after `open`
    /// and at each change.
    ///
    /// # Errors
    /// The reason, which is logged; the exchange keeps what it had.
    fn policy_changed(&mut self, policy: &Table) -> Result<(), Invalid> {
        let _ = policy;
        Ok(())
    }
}

/// What a route depends on beside the bindings. The broker uses it to answer repeated routes itself: say no more than
/// is true, and no less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DependsOn {
    /// On the bindings alone (fanout).
    Nothing = 0,
    /// On the routing key.
    Key = 1,
    /// On the routing key and the headers table.
    KeyAndHeaders = 2,
    /// On anything else, such as other properties, the body, the time or chance: never cached.
    State = 3,
}

/// A declared exchange.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ExchangeSpec {
    /// The vhost it belongs to.
    pub vhost: String,
    /// Its name there.
    pub name: String,
    /// The name of its type, which is [`ExchangeType::name`].
    pub kind: String,
    /// Whether it outlives the broker.
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// The arguments of the declaration.
    pub arguments: Table,
}

/// A binding from an exchange to a queue or another exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct BindingSpec {
    /// The name of the queue or exchange that messages go to.
    pub destination: String,
    /// Which of the two it is.
    pub destination_kind: DestinationKind,
    /// The binding key.
    pub routing_key: String,
    /// The arguments of the binding.
    pub arguments: Table,
}

impl BindingSpec {
    /// A binding to a queue, without arguments.
    pub fn to_queue(queue: impl Into<String>, routing_key: impl Into<String>) -> Self {
        Self {
            destination: queue.into(),
            destination_kind: DestinationKind::Queue,
            routing_key: routing_key.into(),
            arguments: Table::new(),
        }
    }
}

/// What a binding leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestinationKind {
    /// A queue.
    Queue,
    /// An exchange, which routes the message further.
    Exchange,
}

/// The number of a binding within its exchange: dense, chosen by the broker, used again after `unbind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct BindingSlot(pub u32);

/// Where a route leaves its slots. A push is a store; memory is the broker's and grows when it must.
pub struct Routes<'a>(pub(crate) &'a mut RawRoutes);

impl Routes<'_> {
    /// Runs `route` with routes that are appended to `out`. For tests; the broker does the same across the boundary.
    pub fn append_to<R>(out: &mut Vec<u32>, route: impl FnOnce(&mut Routes<'_>) -> R) -> R {
        RawRoutes::append_to(out, |raw| route(&mut Routes(raw))).0
    }

    /// The message takes the binding under `slot`.
    #[inline]
    pub fn push(&mut self, slot: BindingSlot) {
        self.0.push(slot.0);
    }

    /// The message takes the bindings under all of `slots`.
    #[inline]
    pub fn extend(&mut self, slots: &[BindingSlot]) {
        self.0.extend(slots);
    }
}
