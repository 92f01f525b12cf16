//! One exchange: what it was declared with, and its bindings.
//!
//! The bindings stand here and the exchange's plugin knows them by slot, a small number that is used again after an unbind. A short lock
//! guards both; publishers share it for reading.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use plugin_api::exchange::{BindingSpec, DependsOn, DestinationKind, ExchangeSpec};
use plugin_api::message::Message as View;
use plugin_api::value::Value;

use crate::plugin_host::{ExchangeInstance, ExchangeTypeHandle, TypeError};
use crate::vhost::QueueRecord;

/// Where a binding leads.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A queue.
    Queue(Arc<QueueRecord>),
    /// Another exchange.
    Exchange(Arc<Exchange>),
}

impl Destination {
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Queue(queue) => &queue.name,
            Self::Exchange(exchange) => &exchange.name,
        }
    }

    /// What it is.
    pub fn kind(&self) -> DestinationKind {
        match self {
            Self::Queue(_) => DestinationKind::Queue,
            Self::Exchange(_) => DestinationKind::Exchange,
        }
    }
}

/// What tells one binding of an exchange from another (semantics 10.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Identity {
    destination_kind: DestinationKind,
    destination: Box<str>,
    routing_key: Box<str>,
    /// In an order of their own, so that the client's does not matter.
    arguments: Box<[u8]>,
}

impl Identity {
    fn of(binding: &BindingSpec) -> Self {
        Self {
            destination_kind: binding.destination_kind,
            destination: binding.destination.as_str().into(),
            routing_key: binding.routing_key.as_str().into(),
            arguments: if binding.arguments.is_empty() { Box::default() } else { binding.arguments.canonical().into() },
        }
    }
}

#[derive(Debug)]
struct Binding {
    identity: Identity,
    destination: Destination,
}

#[derive(Debug)]
struct State {
    instance: ExchangeInstance,
    slots: Vec<Option<Binding>>,
    free: Vec<u32>,
    by_identity: HashMap<Identity, u32>,
}

/// See the module.
#[derive(Debug)]
pub struct Exchange {
    /// Its name; empty for the default exchange.
    pub name: Arc<str>,
    /// Unique in the broker while it runs.
    pub number: u64,
    /// What it was declared with.
    pub spec: ExchangeSpec,
    /// What routes depend on, so that they can be remembered.
    pub depends_on: DependsOn,
    /// Where messages go that this exchange routes nowhere (semantics 11.14).
    pub alternate: Option<Box<str>>,
    state: RwLock<State>,
}

/// What a bind changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A new binding in this slot.
    New(u32),
    /// It was there already (semantics 10.2).
    Existing,
}

impl Exchange {
    /// Opens an exchange of a type.
    ///
    /// # Errors
    /// What the type says.
    pub fn open(number: u64, spec: ExchangeSpec, kind: &ExchangeTypeHandle) -> Result<Self, TypeError> {
        let instance = kind.open(&spec)?;
        let alternate = spec.arguments.get(ALTERNATE_EXCHANGE).and_then(Value::as_str).map(Into::into);
        Ok(Self {
            name: spec.name.as_str().into(),
            number,
            depends_on: kind.depends_on(),
            alternate,
            state: RwLock::new(State { instance, slots: Vec::new(), free: Vec::new(), by_identity: HashMap::new() }),
            spec,
        })
    }

    /// Whether this is the default exchange, which has no bindings of its own: its key is a queue's name (semantics 11.2).
    pub fn is_default(&self) -> bool {
        self.name.is_empty()
    }

    /// How many bindings have this exchange as their source.
    pub fn binding_count(&self) -> usize {
        self.state.read().by_identity.len()
    }

    /// Adds a binding.
    ///
    /// # Errors
    /// What the exchange's type says; nothing is changed then.
    pub fn bind(&self, binding: &BindingSpec, destination: Destination) -> Result<Bound, TypeError> {
        let identity = Identity::of(binding);
        let mut state = self.state.write();
        if state.by_identity.contains_key(&identity) {
            return Ok(Bound::Existing);
        }
        // The slots of an exchange are far fewer than its memory allows.
        let slot = state.free.last().copied().unwrap_or(state.slots.len() as u32);
        state.instance.bind(slot, binding)?;
        let place = Some(Binding { identity: identity.clone(), destination });
        match state.free.pop() {
            Some(free) => state.slots[free as usize] = place,
            None => state.slots.push(place),
        }
        state.by_identity.insert(identity, slot);
        Ok(Bound::New(slot))
    }

    /// Removes a binding; returns its slot if there was one.
    ///
    /// # Errors
    /// The type failed; the binding is gone all the same.
    pub fn unbind(&self, binding: &BindingSpec) -> (Option<u32>, Result<(), TypeError>) {
        let mut state = self.state.write();
        match state.by_identity.get(&Identity::of(binding)).copied() {
            Some(slot) => (Some(slot), state.remove(slot)),
            None => (None, Ok(())),
        }
    }

    /// Removes the binding in a slot.
    ///
    /// # Errors
    /// The type failed; the binding is gone all the same.
    pub fn unbind_slot(&self, slot: u32) -> Result<(), TypeError> {
        self.state.write().remove(slot)
    }

    /// Removes every binding; returns where they led and their slots.
    pub fn unbind_all(&self) -> Vec<(Destination, u32)> {
        let mut state = self.state.write();
        state.by_identity.clear();
        state.free.clear();
        let slots = std::mem::take(&mut state.slots);
        (0..).zip(slots).filter_map(|(slot, binding)| Some((binding?.destination, slot))).collect()
    }

    /// Adds the destinations that a message reaches by this exchange alone. `slots` is scratch.
    ///
    /// # Errors
    /// The exchange's type has failed.
    pub fn destinations(
        &self,
        message: &View<'_>,
        slots: &mut Vec<u32>,
        mut each: impl FnMut(&Destination),
    ) -> Result<(), TypeError> {
        slots.clear();
        let state = self.state.read();
        state.instance.route(message, slots)?;
        for &slot in slots.iter() {
            if let Some(Some(binding)) = state.slots.get(slot as usize) {
                each(&binding.destination);
            }
        }
        Ok(())
    }
}

impl State {
    fn remove(&mut self, slot: u32) -> Result<(), TypeError> {
        let Some(binding) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return Ok(()) };
        self.by_identity.remove(&binding.identity);
        self.free.push(slot);
        self.instance.unbind(slot)
    }
}

/// The argument that names an alternate exchange.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";
