//! Exchange types: which bindings a message takes.
//!
//! An [`ExchangeType`] is registered once and judges declarations and bindings. For each exchange of the type the broker
//! calls [`ExchangeType::open`] and then keeps the [`Exchange`] informed of its bindings, each by a number, its slot. A
//! route pushes slots. Everything else is the broker's: destinations, duplicates, alternate exchanges, exchanges bound to
//! exchanges, `CC` and `BCC` (one `route` a key, see [`AskedPer`]), `mandatory`, permissions and durability.
//!
//! Four things go beyond that, for types that need them: an exchange may hand messages to a new binding
//! ([`Exchange::bound`]), put a message off ([`Routes::hold`]), have messages kept over a restart ([`Routes::keep`]), and
//! stand before an exchange of another type ([`ExchangeType::inner`]).
//!
//! Calls are synchronous and may come from any thread. `route` runs on the thread of the publisher, many at once; it must
//! not wait for anything and should not allocate.

use crate::abi::{RawDeliveries, RawRoutes};
use crate::error::Invalid;
use crate::message::{Message, PropertiesBuf};
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

    /// The same for one exchange, where its arguments make it depend on less.
    fn depends_on_for(&self, spec: &ExchangeSpec) -> DependsOn {
        let _ = spec;
        self.depends_on()
    }

    /// How often a message with several routing keys (`CC` and `BCC`) is routed. Asked once.
    fn asked_per(&self) -> AskedPer {
        AskedPer::Key
    }

    /// Which queues may be bound. Asked once; a broker of an older ABI does not ask.
    fn takes(&self) -> Takes {
        Takes::AllQueues
    }

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

    /// The name of the type that this exchange stands before, if it does: the exchange then consists of two, both of which
    /// are told of all bindings. A message that this type's exchange neither holds drops is routed by the inner one as
    /// well, which judges declarations and bindings, too. Called after [`ExchangeType::validate`] and at recovery.
    ///
    /// # Errors
    /// The reason, which the client gets as `PRECONDITION_FAILED`.
    fn inner(&self, spec: &ExchangeSpec) -> Result<Option<String>, Invalid> {
        let _ = spec;
        Ok(None)
    }

    /// Makes the exchange, without bindings. Also called at recovery, with declarations that were accepted earlier.
    ///
    /// # Errors
    /// The reason why this declaration cannot be served; the exchange is then unavailable, not gone.
    fn open(&self, spec: &ExchangeSpec) -> Result<Box<dyn Exchange>, Invalid>;
}

/// One exchange.
///
/// `bind`, `bound`, `unbind` and `policy_changed` are called alone; `route` is called by many threads at once, never
/// together with them. After a panic in one of the others the broker no longer asks this exchange anything.
pub trait Exchange: Send + Sync {
    /// Gives a message back that the broker kept over a restart, see [`Routes::keep`]. Called at recovery for all of them,
    /// oldest first, after `open` and before any binding.
    fn restore(&mut self, message: &Message<'_>) {
        let _ = message;
    }

    /// Adds a binding under a slot that is free. Slots are small numbers, given from 0 up and used again after `unbind`.
    ///
    /// # Errors
    /// The reason, which the client gets as `PRECONDITION_FAILED`; nothing may have changed then.
    fn bind(&mut self, slot: BindingSlot, binding: &BindingSpec) -> Result<(), Invalid>;

    /// Hands messages to the binding that has just been added under `slot`, oldest first; the broker publishes them to
    /// what the binding leads to, without hooks and without confirms.
    ///
    /// Called right after `bind`, with no route in between: a message that was routed before the binding can be handed
    /// over here, and none is both handed over and routed. Not called for bindings that come back at recovery.
    fn bound(&mut self, slot: BindingSlot, deliveries: &mut Deliveries<'_>) {
        let _ = (slot, deliveries);
    }

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

/// How often a message with several routing keys is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AskedPer {
    /// Once for each key; what the calls push is taken together.
    Key = 0,
    /// Once, with the key that it was published with. For types that pick one binding of several, or that remember.
    Message = 1,
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

/// Which queues an exchange type takes, by what keeps them. A binding to any other is refused as `PRECONDITION_FAILED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Takes {
    /// All.
    AllQueues = 0,
    /// Classic queues, which one node keeps.
    ClassicQueues = 1,
}

/// The number of a binding within its exchange: dense, chosen by the broker, used again after `unbind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct BindingSlot(pub u32);

/// Where a route leaves its slots. A push is a store; memory is the broker's and grows when it must.
pub struct Routes<'a>(pub(crate) &'a mut RawRoutes);

impl Routes<'_> {
    /// Runs `route` with routes that are appended to `out`, and says what else it wants. For tests; the broker does the
    /// same across the boundary.
    pub fn append_to<R>(out: &mut Vec<u32>, route: impl FnOnce(&mut Routes<'_>) -> R) -> (R, Option<Wish>) {
        let answer = RawRoutes::append_to(out, |raw| route(&mut Routes(raw)));
        (answer.result, answer.wish)
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

    /// Puts the message off: it goes nowhere now, whatever has been pushed, and comes to this exchange's `route` again
    /// after `delay_ms` milliseconds, then with these properties in place of its own, if any. The broker keeps it
    /// meanwhile, counts it as taken for `mandatory` and the alternate exchange, and drops it with the exchange. A persistent
    /// message of a durable exchange survives a restart.
    ///
    /// A route that holds the message each time holds it for ever, so change a property or look at one.
    pub fn hold(&mut self, delay_ms: u64, properties: Option<&PropertiesBuf>) {
        let encoded = properties.map(PropertiesBuf::encode);
        self.0.hold(delay_ms, encoded.as_deref());
    }

    /// Has this message, which takes its bindings as well, kept over a restart: then it comes to [`Exchange::restore`]. The
    /// broker keeps the last `count_max` messages for which an exchange says this, as long as they have no more than `bytes_max`
    /// bytes of names, properties and bodies together, and drops them with the exchange.
    ///
    /// Only a persistent message of a durable exchange is kept; others count like it, but are gone after a restart.
    /// Nothing is handed to new bindings by this: the exchange has its messages in memory itself. A message that is held is not kept.
    pub fn keep(&mut self, count_max: u64, bytes_max: u64) {
        self.0.keep(count_max, bytes_max);
    }
}

/// What a route wants beside its bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The message is put off.
    Hold(Hold),
    /// The message is kept over a restart.
    Keep(Keep),
}

/// A message that is kept by [`Routes::keep`], with how much of an exchange's messages is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many messages.
    pub count_max: u64,
    /// So many bytes.
    pub bytes_max: u64,
}

/// A message that was put off by [`Routes::hold`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// For how long, in milliseconds; at least 1.
    pub delay_ms: u64,
    /// The properties that it comes back with, as on the wire; none means its own.
    pub properties: Option<Vec<u8>>,
}

/// Where an exchange leaves the messages for a new binding.
pub struct Deliveries<'a>(pub(crate) &'a RawDeliveries);

impl Deliveries<'_> {
    /// Runs `bound` with deliveries that go to `each`. For tests; the broker does the same across the boundary.
    pub fn pass_to<R>(each: &mut dyn FnMut(&Message<'_>), bound: impl FnOnce(&mut Deliveries<'_>) -> R) -> R {
        RawDeliveries::pass_to(each, |raw| bound(&mut Deliveries(raw)))
    }

    /// Publishes `message` to what the binding leads to. The broker copies it.
    pub fn push(&mut self, message: &Message<'_>) {
        self.0.push(message);
    }
}
