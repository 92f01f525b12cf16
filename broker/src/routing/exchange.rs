//! One exchange: what it was declared with, and its bindings.
//!
//! The bindings stand here and the exchange's plugin knows them by slot, a small number that is used again after an unbind. A short lock
//! guards both; publishers share it for reading.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::RwLock;
use plugin_api::exchange::{BindingSpec, DependsOn, DestinationKind, ExchangeSpec, Wish};
use plugin_api::message::Message as View;

use crate::message::Message;
use crate::metrics::ExchangeStats;
use crate::plugin_host::{ExchangeLayers, ExchangeTypes, TypeError};
use crate::vhost::policy::Applied;
use crate::vhost::{PREDECLARED, QueueRecord};

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

    /// Whether it survives a restart.
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.durable,
            Self::Exchange(exchange) => exchange.spec.durable,
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
pub struct Identity {
    /// What it leads to.
    pub destination_kind: DestinationKind,
    /// The name of that.
    pub destination: Box<str>,
    /// The binding key.
    pub routing_key: Box<str>,
    /// Encoded in an order of their own, so that the client's does not matter.
    pub arguments: Box<[u8]>,
}

impl Identity {
    /// The identity of a binding.
    pub fn of(binding: &BindingSpec) -> Self {
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
    /// None while no plugin offers the exchange's type.
    instance: Option<ExchangeLayers>,
    slots: Vec<Option<Binding>>,
    free: Vec<u32>,
    by_identity: Index,
    alternate: Option<Arc<str>>,
    policy: Applied,
}

/// Finds the slot of an identity, which stands in the slot alone. Hashes are kept, so that the index grows without a look at all bindings.
#[derive(Debug, Default)]
struct Index {
    entries: HashTable<(u64, u32)>,
    hasher: DefaultHashBuilder,
}

impl Index {
    fn find(&self, slots: &[Option<Binding>], identity: &Identity) -> Option<u32> {
        let is_it = |&(_, slot): &(u64, u32)| {
            slots.get(slot as usize).and_then(Option::as_ref).is_some_and(|binding| binding.identity == *identity)
        };
        self.entries.find(self.hasher.hash_one(identity), is_it).map(|&(_, slot)| slot)
    }

    /// The identity must not be there yet.
    fn add(&mut self, identity: &Identity, slot: u32) {
        let hash = self.hasher.hash_one(identity);
        self.entries.insert_unique(hash, (hash, slot), |&(hash, _)| hash);
    }

    fn remove(&mut self, identity: &Identity, slot: u32) {
        let hash = self.hasher.hash_one(identity);
        if let Ok(entry) = self.entries.find_entry(hash, |&(_, other)| other == slot) {
            entry.remove();
        }
    }

    fn len(&self) -> usize {
        self.entries.len()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Exchange {
    /// Its name; empty for the default exchange.
    pub name: Arc<str>,
    /// Unique in the broker; names in the store what it keeps there.
    pub number: u64,
    /// What it was declared with.
    pub spec: ExchangeSpec,
    /// The store has its definition with its number, so it may keep messages there. Every vhost has the predeclared ones without.
    pub is_stored: bool,
    /// What routes depend on, so that they can be remembered.
    pub depends_on: DependsOn,
    has_ended: AtomicBool,
    /// What it counts.
    pub stats: ExchangeStats,
    state: RwLock<State>,
}

/// A binding that is gone.
#[derive(Debug)]
pub struct Unbound {
    /// Where it was.
    pub slot: u32,
    /// What it was.
    pub identity: Identity,
    /// Where it led.
    pub destination: Destination,
    /// The exchange's type may have failed to forget it; it is gone all the same.
    pub result: Result<(), TypeError>,
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
    pub fn open(number: u64, spec: ExchangeSpec, types: &ExchangeTypes) -> Result<Self, TypeError> {
        let instance = types.open(&spec)?;
        Ok(Self::with_instance(number, spec, Some(instance)))
    }

    /// An exchange that was declared in an earlier run. Without its type, or when that does not take it any more, it is kept and routes
    /// nothing (semantics 8.6).
    pub fn restore(number: u64, spec: ExchangeSpec, types: Option<&ExchangeTypes>) -> Self {
        let instance = types.and_then(|types| match types.open(&spec) {
            Ok(instance) => Some(instance),
            Err(error) => {
                tracing::error!(exchange = spec.name, error = %error, "the exchange's type does not take it any more");
                None
            }
        });
        Self::with_instance(number, spec, instance)
    }

    fn with_instance(number: u64, spec: ExchangeSpec, instance: Option<ExchangeLayers>) -> Self {
        let depends_on = instance.as_ref().map_or(DependsOn::State, ExchangeLayers::depends_on);
        let (slots, free, by_identity) = (Vec::new(), Vec::new(), Index::default());
        let alternate = alternate(&spec, &Applied::default());
        let state = State { instance, slots, free, by_identity, alternate, policy: Applied::default() };
        let is_stored = spec.durable && PREDECLARED.iter().all(|(name, ..)| *name != spec.name);
        Self {
            name: spec.name.as_str().into(),
            number,
            is_stored,
            depends_on,
            has_ended: AtomicBool::new(false),
            stats: ExchangeStats::default(),
            state: RwLock::new(state),
            spec,
        }
    }

    /// It has been deleted: nothing may be kept for it any more.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    /// Whether it has been deleted.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Whether a plugin offers its type and has taken it.
    pub fn is_available(&self) -> bool {
        self.state.read().instance.is_some()
    }

    /// Whether this is the default exchange, which has no bindings of its own: its key is a queue's name (semantics 11.2).
    pub fn is_default(&self) -> bool {
        self.name.is_empty()
    }

    /// Where messages go that this exchange routes nowhere (semantics 11.14).
    pub fn alternate(&self) -> Option<Arc<str>> {
        self.state.read().alternate.clone()
    }

    /// The policy that applies to it.
    pub fn policy(&self) -> Applied {
        self.state.read().policy.clone()
    }

    /// A policy applies from now on, another one, or none any more. The exchange's type is told; what it does not take is logged.
    pub fn set_policy(&self, policy: Applied) {
        let mut state = self.state.write();
        if state.policy.is_same(&policy) {
            return;
        }
        state.alternate = alternate(&self.spec, &policy);
        let told = state.instance.as_mut().map_or(Ok(()), |instance| instance.policy_changed(&policy.as_table()));
        state.policy = policy;
        drop(state);
        if let Err(error) = told {
            tracing::warn!(vhost = self.spec.vhost, exchange = %self.name, error = %error, "the exchange's type does not take its policy");
        }
    }

    /// Whether there is such a binding already.
    pub fn has_binding(&self, binding: &BindingSpec) -> bool {
        self.state.read().slot_of(&Identity::of(binding)).is_some()
    }

    /// How many bindings have this exchange as their source.
    pub fn binding_count(&self) -> usize {
        self.state.read().by_identity.len()
    }

    /// All bindings with this exchange as their source, in no order.
    pub fn bindings(&self) -> Vec<Identity> {
        self.state.read().slots.iter().flatten().map(|binding| binding.identity.clone()).collect()
    }

    /// Adds a binding. Messages that the exchange's type has for it go to `handed`, if they are wanted: they were routed before the
    /// binding was there.
    ///
    /// # Errors
    /// What the exchange's type says; nothing is changed then.
    pub fn bind(
        &self,
        binding: &BindingSpec,
        destination: Destination,
        handed: Option<&mut Vec<Arc<Message>>>,
    ) -> Result<Bound, TypeError> {
        let identity = Identity::of(binding);
        let mut state = self.state.write();
        if state.slot_of(&identity).is_some() {
            return Ok(Bound::Existing);
        }
        // The slots of an exchange are far fewer than its memory allows.
        let slot = state.free.last().copied().unwrap_or(state.slots.len() as u32);
        if let Some(instance) = &mut state.instance {
            match handed {
                None => instance.bind(slot, binding, None)?,
                Some(handed) => {
                    let mut keep = |message: &View<'_>| handed.extend(Message::of_view(message));
                    instance.bind(slot, binding, Some(&mut keep))?;
                }
            }
        }
        state.by_identity.add(&identity, slot);
        let place = Some(Binding { identity, destination });
        match state.free.pop() {
            Some(free) => state.slots[free as usize] = place,
            None => state.slots.push(place),
        }
        Ok(Bound::New(slot))
    }

    /// Removes a binding; returns it if there was one.
    pub fn unbind(&self, binding: &BindingSpec) -> Option<Unbound> {
        let mut state = self.state.write();
        let slot = state.slot_of(&Identity::of(binding))?;
        state.remove(slot)
    }

    /// Removes the binding in a slot; returns it if there was one.
    pub fn unbind_slot(&self, slot: u32) -> Option<Unbound> {
        self.state.write().remove(slot)
    }

    /// Removes every binding, because the exchange ends.
    pub fn unbind_all(&self) -> Vec<Unbound> {
        let mut state = self.state.write();
        state.by_identity = Index::default();
        state.free.clear();
        let slots = std::mem::take(&mut state.slots);
        let unbound = |(slot, binding): (u32, Option<Binding>)| {
            let Binding { identity, destination } = binding?;
            Some(Unbound { slot, identity, destination, result: Ok(()) })
        };
        (0..).zip(slots).filter_map(unbound).collect()
    }

    /// Adds the destinations that a message reaches with any of `keys` by this exchange alone, unless it is to be held; returns what its
    /// type wants beside. `slots` is scratch.
    ///
    /// # Errors
    /// The exchange's type has failed.
    pub fn destinations(
        &self,
        message: &View<'_>,
        keys: &[&str],
        slots: &mut Vec<u32>,
        mut each: impl FnMut(&Destination),
    ) -> Result<Option<Wish>, TypeError> {
        slots.clear();
        let state = self.state.read();
        let Some(instance) = &state.instance else {
            return Err(TypeError::Refused(format!("exchange type {} not found", self.spec.kind)));
        };
        let wish = instance.route(message, keys, slots)?;
        for &slot in slots.iter() {
            if let Some(Some(binding)) = state.slots.get(slot as usize) {
                each(&binding.destination);
            }
        }
        Ok(wish)
    }

    /// All bindings, each with whether its slot is one of `slots`, which the type has chosen. For people who ask: it goes through all of them.
    pub fn judged(&self, slots: &[u32]) -> Vec<(Identity, bool)> {
        let slots: hashbrown::HashSet<u32> = slots.iter().copied().collect();
        let state = self.state.read();
        let judged = (0..).zip(&state.slots);
        judged.filter_map(|(slot, binding)| Some((binding.as_ref()?.identity.clone(), slots.contains(&slot)))).collect()
    }

    /// Gives the exchange's type messages back that were kept over a restart, oldest first.
    pub fn restore_kept<'a>(&self, messages: impl Iterator<Item = &'a Message>) {
        let mut state = self.state.write();
        let Some(instance) = &mut state.instance else { return };
        for message in messages {
            if let Err(error) = instance.restore(&message.view()) {
                tracing::error!(vhost = self.spec.vhost, exchange = %self.name, error = %error,
                    "the exchange's type failed to take back what was kept for it");
                return;
            }
        }
    }
}

impl State {
    fn slot_of(&self, identity: &Identity) -> Option<u32> {
        self.by_identity.find(&self.slots, identity)
    }

    fn remove(&mut self, slot: u32) -> Option<Unbound> {
        let Binding { identity, destination } = self.slots.get_mut(slot as usize).and_then(Option::take)?;
        self.by_identity.remove(&identity, slot);
        self.free.push(slot);
        let result = self.instance.as_mut().map_or(Ok(()), |instance| instance.unbind(slot));
        Some(Unbound { slot, identity, destination, result })
    }
}

/// The argument wins over the policy (semantics 23.5). The default exchange has none.
fn alternate(spec: &ExchangeSpec, policy: &Applied) -> Option<Arc<str>> {
    match spec.arguments.get(ALTERNATE_EXCHANGE) {
        _ if spec.name.is_empty() => None,
        Some(argument) => argument.as_str().map(Arc::from),
        None => policy.alternate_exchange().map(Arc::from),
    }
}

/// The argument that names an alternate exchange.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::plugin_host::Registry;

    #[test]
    fn a_binding_is_found_by_what_it_is_whatever_slot_it_has() {
        let registry = Registry::builtin().unwrap();
        let spec = ExchangeSpec { name: "x".into(), kind: "direct".into(), ..ExchangeSpec::default() };
        let exchange = Exchange::open(1, spec.clone(), &registry.exchange_types(&spec).unwrap().unwrap()).unwrap();
        let target = Arc::new(Exchange::restore(2, ExchangeSpec::default(), None));
        let binding = |number: u32| BindingSpec::to_queue("q", format!("key {number}"));
        let bind = |number| exchange.bind(&binding(number), Destination::Exchange(Arc::clone(&target)), None).unwrap();
        assert!((0..1000).all(|number| bind(number) == Bound::New(number)));
        assert!((0..1000).all(|number| bind(number) == Bound::Existing));
        for number in (0..1000).filter(|number| number % 3 == 0) {
            assert_eq!(exchange.unbind(&binding(number)).map(|unbound| unbound.slot), Some(number));
            assert!(exchange.unbind(&binding(number)).is_none());
        }
        assert!((0..1000).all(|number| exchange.has_binding(&binding(number)) == (number % 3 != 0)));
        // Slots are used again, for others.
        let reused: Vec<Bound> = (2000..2334).map(bind).collect();
        assert!(reused.iter().all(|bound| matches!(bound, Bound::New(slot) if slot % 3 == 0)));
        assert_eq!((exchange.binding_count(), exchange.bindings().len()), (1000, 1000));
        assert_eq!(exchange.unbind_all().len(), 1000);
        assert_eq!((exchange.binding_count(), exchange.has_binding(&binding(1))), (0, false));
    }

    /// An exchange that remembers everything, with publishers and a binder at once: the new binding gets every message once, from the
    /// history or by its route.
    #[test]
    fn message_is_handed_to_a_new_binding_or_routed_to_it_and_never_both() {
        const PUBLISHERS: u32 = 2;
        const COUNT: u32 = 2_000;
        let registry = Registry::builtin().unwrap();
        let arguments = plugin_api::value::Table::new().with("x-recent-history-length", 100_000_i32);
        let spec =
            ExchangeSpec { name: "x".into(), kind: "x-recent-history".into(), arguments, ..ExchangeSpec::default() };
        let types = registry.exchange_types(&spec).unwrap().unwrap();
        let exchange = Exchange::open(1, spec, &types).unwrap();
        let target = Arc::new(Exchange::restore(2, ExchangeSpec::default(), None));
        let has_started = AtomicBool::new(false);
        let (routed, handed) = std::thread::scope(|scope| {
            let publish = |publisher: u32| {
                let mut routed = Vec::new();
                for number in 0..COUNT {
                    let key = format!("{publisher}.{number}");
                    let each = |_: &Destination| routed.push(key.clone());
                    exchange.destinations(&View::with_key(&key), &[&key], &mut Vec::new(), each).unwrap();
                    if number == COUNT / 10 {
                        has_started.store(true, Ordering::Relaxed);
                    }
                }
                routed
            };
            let publishers: Vec<_> = (0..PUBLISHERS).map(|publisher| scope.spawn(move || publish(publisher))).collect();
            while !has_started.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let binding = BindingSpec { destination_kind: DestinationKind::Exchange, ..BindingSpec::to_queue("y", "") };
            let mut handed = Vec::new();
            exchange.bind(&binding, Destination::Exchange(Arc::clone(&target)), Some(&mut handed)).unwrap();
            let routed: Vec<String> =
                publishers.into_iter().flat_map(|publisher| publisher.join().expect("no publisher panics")).collect();
            (routed, handed)
        });
        let all: BTreeSet<&str> =
            routed.iter().map(String::as_str).chain(handed.iter().map(|message| message.routing_key())).collect();
        assert_eq!((all.len(), routed.len() + handed.len()), (4_000, 4_000), "each message once, and none missing");
        assert!(!handed.is_empty(), "some were there before");
    }
}
