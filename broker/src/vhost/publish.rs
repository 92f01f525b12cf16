//! Messages on their way in: permission, hooks, route, and one batch per queue (semantics 12).
//!
//! A [`Publisher`] belongs to one connection. It remembers what a publish to an exchange needs (the exchange, the permission, its hooks,
//! the queues behind each key) until something changes, so that the common publish is two comparisons and a push. Batches leave
//! by [`Publisher::flush`], one post per queue.

use std::sync::Arc;

use hashbrown::HashMap;
use plugin_api::exchange::Hold;
use plugin_api::message::Properties;
use plugin_api::value::ValueRef;

use super::declare::Authority;
use super::error::{Error, Kind};
use super::held::{Held, Holder};
use super::{QueueRecord, Vhost};
use crate::access::Permission;
use crate::hooks::{HookChain, HookSet, Outcome, Publish};
use crate::message::{Message, Parts};
use crate::queue::{Incoming, Input, Outlet};
use crate::routing::{self, Exchange};

/// An exchange remembers so many keys; then it forgets all and begins again.
const ROUTES_MAX: usize = 4096;
/// What all routes of a connection may take in memory, about; then all are forgotten.
const ROUTES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a remembered route takes beside its key and its queues, about.
const ROUTE_OVERHEAD_BYTES: usize = 128;
/// So many exchanges are remembered.
const EXCHANGES_MAX: usize = 256;
/// The longest expiration: ten years in milliseconds (semantics 12.5).
const EXPIRATION_MAX_MS: u64 = 315_360_000_000;

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is in the batches of so many queues, or kept for later by so many exchanges, and each will answer for it.
    Routed(u32),
    /// No queue takes it (semantics 11.16).
    Unroutable,
    /// A hook dropped it: the publisher hears that all is well.
    Dropped,
    /// A hook rejected it: a publisher with confirms hears of it (as of semantics 19.4).
    Rejected,
}

/// What stays the same while a connection publishes.
#[derive(Debug)]
pub struct Context<'a> {
    /// Where.
    pub vhost: &'a Vhost,
    /// The hooks in force.
    pub hooks: &'a HookSet,
    /// Changes when permissions do.
    pub access_generation: u64,
}

/// An exchange that was published to.
#[derive(Debug)]
struct Target {
    exchange: Arc<Exchange>,
    hooks: Option<Arc<HookChain>>,
    routes: HashMap<Box<str>, Arc<[usize]>>,
    /// The key of the last publish and where it led; most publishers stay with one.
    last: Option<(Box<str>, Arc<[usize]>)>,
}

impl Target {
    fn forget_routes(&mut self) {
        self.routes = HashMap::new();
        self.last = None;
    }

    /// Where a key led before.
    #[inline]
    fn remembered(&mut self, routing_key: &str) -> Option<Arc<[usize]>> {
        match &self.last {
            Some((key, places)) if **key == *routing_key => Some(Arc::clone(places)),
            _ => self.routes.get(routing_key).map(Arc::clone),
        }
    }
}

#[derive(Debug)]
struct Batch {
    queue: Arc<QueueRecord>,
    messages: Vec<Incoming>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Publisher {
    vhost_generation: u64,
    access_generation: u64,
    targets: Vec<Target>,
    target_of: HashMap<Arc<str>, usize>,
    last_target: usize,
    /// What the targets' routes have taken since all were forgotten.
    routes_bytes: usize,
    /// Queues by the place that routes name.
    batches: Vec<Batch>,
    place_of: HashMap<u64, usize>,
    /// Places whose batch is not empty.
    filled: Vec<usize>,
    /// Messages that were put off, and who will keep them.
    held: Option<(Arc<dyn Holder>, Vec<Held>)>,
    /// Queues that nobody may publish to any more are still among the batches.
    is_stale: bool,
}

impl Publisher {
    /// Whether something waits for [`Self::flush`].
    pub fn is_filled(&self) -> bool {
        !self.filled.is_empty() || self.held.is_some()
    }

    /// Checks a publish, runs hooks, routes, and puts it into the batches of its queues. `number` is the publish's number for
    /// confirms, 0 for none. `parts` are the message's, where they can be read without touching a message that was just written.
    ///
    /// # Errors
    /// In the order of semantics 12.1; the message goes nowhere then.
    pub fn publish(
        &mut self,
        context: &Context<'_>,
        by: &mut dyn Authority,
        channel: u16,
        number: u64,
        parts: Option<Parts<'_>>,
        message: Arc<Message>,
    ) -> Result<Published, Error> {
        self.forget_if_changed(context);
        let place = {
            let parts = parts.unwrap_or_else(|| message.parts());
            let place = self.target_place(context, by, parts.exchange)?;
            check_properties(Properties::from_raw(parts.properties), by)?;
            place
        };
        let Some(target) = self.targets.get_mut(place) else { return Err(not_found(context, message.exchange())) };
        let (parts, message) = match &target.hooks {
            None => (parts, message),
            Some(hooks) => match run_hooks(hooks, context, by, &message) {
                Hooked::Goes(message) => (None, message),
                Hooked::Ends(published) => return Ok(published),
            },
        };
        let parts = parts.unwrap_or_else(|| message.parts());
        let extra_keys = extra_keys(Properties::from_raw(parts.properties))?;
        let remembered = match &extra_keys {
            None => target.remembered(parts.routing_key),
            Some(_) => None,
        };
        match remembered {
            Some(places) => Ok(self.put(&places, channel, number, message)),
            None => self.route(context, place, channel, number, message, extra_keys),
        }
    }

    /// The exchange's place among the targets; most publishers stay with one.
    #[inline]
    fn target_place(&mut self, context: &Context<'_>, by: &mut dyn Authority, name: &str) -> Result<usize, Error> {
        if self.targets.get(self.last_target).is_some_and(|target| *target.exchange.name == *name) {
            return Ok(self.last_target);
        }
        self.last_target = match self.target_of.get(name) {
            Some(&place) => place,
            None => self.find_target(context, by, name)?,
        };
        Ok(self.last_target)
    }

    /// Posts every batch to its queue; returns how many bytes are on their way, for the publisher's credit.
    pub fn flush(&mut self, origin: &Arc<dyn Outlet>, mut on_post: impl FnMut(usize)) {
        for place in std::mem::take(&mut self.filled) {
            let batch = &mut self.batches[place];
            let messages = std::mem::take(&mut batch.messages);
            on_post(messages.iter().map(|incoming| incoming.message.weight()).sum());
            batch.queue.handle.post(Input::Publish { origin: Some(Arc::clone(origin)), messages });
        }
        if let Some((holder, messages)) = self.held.take() {
            on_post(messages.iter().map(|held| held.message.weight()).sum());
            holder.hold(Some(origin), messages);
        }
        if self.is_stale || self.batches.len() > ROUTES_MAX {
            self.forget();
        }
    }

    fn forget_if_changed(&mut self, context: &Context<'_>) {
        let generation = context.vhost.generation();
        if self.vhost_generation != generation || self.access_generation != context.access_generation {
            self.vhost_generation = generation;
            self.access_generation = context.access_generation;
            self.forget();
        }
    }

    /// Routes are forgotten; batches stay until they are flushed.
    fn forget(&mut self) {
        self.targets.clear();
        self.target_of.clear();
        self.routes_bytes = 0;
        self.is_stale = !self.filled.is_empty();
        if !self.is_stale {
            self.batches.clear();
            self.place_of.clear();
        }
    }

    fn find_target(&mut self, context: &Context<'_>, by: &mut dyn Authority, name: &str) -> Result<usize, Error> {
        // The default exchange has a name for permissions only (semantics 12.4).
        let permission_name = if name.is_empty() { "amq.default" } else { name };
        let vhost = context.vhost.name.to_string();
        if !by.permits(Permission::Write, permission_name) {
            return Err(Error::Refused {
                permission: Permission::Write,
                kind: Kind::Exchange,
                name: permission_name.into(),
                vhost,
                user: by.user().into(),
            });
        }
        let exchange = context.vhost.exchange(name).ok_or_else(|| not_found(context, name))?;
        if exchange.spec.internal {
            return Err(Error::InternalExchange { name: name.into(), vhost });
        }
        if self.targets.len() >= EXCHANGES_MAX {
            self.targets.clear();
            self.target_of.clear();
            self.routes_bytes = 0;
        }
        let hooks = context.hooks.chain(&vhost, name);
        let place = self.targets.len();
        self.target_of.insert(Arc::clone(&exchange.name), place);
        self.targets.push(Target { exchange, hooks, routes: HashMap::new(), last: None });
        Ok(place)
    }

    fn route(
        &mut self,
        context: &Context<'_>,
        target_place: usize,
        channel: u16,
        number: u64,
        message: Arc<Message>,
        extra_keys: Option<ExtraKeys>,
    ) -> Result<Published, Error> {
        let Some(target) = self.targets.get(target_place) else {
            return Err(not_found(context, message.exchange()));
        };
        let mut keys = vec![message.routing_key()];
        keys.extend(extra_keys.iter().flat_map(|extra| extra.keys.iter().map(String::as_str)));
        let route = {
            let tables = context.vhost.tables.read();
            routing::route(&*tables, &target.exchange, &message.view(), &keys).map_err(|(name, error)| {
                Error::RouteFailed { name: name.to_string(), vhost: context.vhost.name.to_string(), error }
            })?
        };
        let held_count = self.put_off(context, route.held, channel, number, &message);
        let places: Arc<[usize]> = route.queues.iter().map(|queue| self.place(queue)).collect();
        if route.is_cacheable
            && let Some(target) = self.targets.get_mut(target_place)
        {
            if target.routes.len() >= ROUTES_MAX {
                target.routes.clear();
            }
            self.routes_bytes += ROUTE_OVERHEAD_BYTES + message.routing_key().len() + size_of_val(&*places);
            target.routes.insert(message.routing_key().into(), Arc::clone(&places));
            target.last = Some((message.routing_key().into(), Arc::clone(&places)));
            // Each route may lead to any number of queues, so their count alone bounds nothing.
            if self.routes_bytes > ROUTES_BYTES_MAX {
                self.routes_bytes = 0;
                self.targets.iter_mut().for_each(Target::forget_routes);
            }
        }
        let message = match extra_keys {
            Some(ExtraKeys { has_bcc: true, .. }) => without_bcc(&message)?,
            _ => message,
        };
        Ok(match self.put(&places, channel, number, message) {
            // Whoever keeps a message for later answers for it, as a queue does.
            Published::Unroutable if held_count > 0 => Published::Routed(held_count),
            Published::Routed(queue_count) => Published::Routed(queue_count + held_count),
            published => published,
        })
    }

    /// Keeps a message for the holder; returns how many exchanges have put it off.
    fn put_off(
        &mut self,
        context: &Context<'_>,
        held: Vec<(Arc<Exchange>, Hold)>,
        channel: u16,
        number: u64,
        message: &Arc<Message>,
    ) -> u32 {
        if held.is_empty() {
            return 0;
        }
        let (_, messages) = self.held.get_or_insert_with(|| (Arc::clone(&context.vhost.holder), Vec::new()));
        let before = messages.len();
        for (exchange, hold) in held {
            messages.push(context.vhost.put_off(exchange, &hold, message, (channel, number)));
        }
        // No message passes so many exchanges.
        (messages.len() - before) as u32
    }

    fn place(&mut self, queue: &Arc<QueueRecord>) -> usize {
        *self.place_of.entry(queue.number).or_insert_with(|| {
            self.batches.push(Batch { queue: Arc::clone(queue), messages: Vec::new() });
            self.batches.len() - 1
        })
    }

    fn put(&mut self, places: &[usize], channel: u16, number: u64, message: Arc<Message>) -> Published {
        let Some((&last, others)) = places.split_last() else { return Published::Unroutable };
        for &place in others {
            self.put_one(place, Incoming { message: Arc::clone(&message), channel, number });
        }
        self.put_one(last, Incoming { message, channel, number });
        // A message reaches far fewer queues than that.
        Published::Routed(places.len() as u32)
    }

    #[inline]
    fn put_one(&mut self, place: usize, incoming: Incoming) {
        let batch = &mut self.batches[place];
        if batch.messages.is_empty() {
            self.filled.push(place);
        }
        batch.messages.push(incoming);
    }
}

fn not_found(context: &Context<'_>, name: &str) -> Error {
    Error::NotFound { kind: Kind::Exchange, name: name.into(), vhost: context.vhost.name.to_string() }
}

/// Expiration and user-id (semantics 12.5, 12.6). Most messages have neither, which the flags tell.
fn check_properties(properties: Properties<'_>, by: &dyn Authority) -> Result<(), Error> {
    if let Some(expiration) = properties.expiration() {
        let text = String::from_utf8_lossy(expiration);
        let is_number = !expiration.is_empty() && expiration.iter().all(u8::is_ascii_digit);
        match text.parse::<u64>() {
            Ok(ms) if is_number && ms <= EXPIRATION_MAX_MS => {}
            Ok(ms) if is_number => {
                return Err(Error::Message(format!("invalid expiration '{text}': {{value_too_big,{ms}}}")));
            }
            _ => return Err(Error::Message(format!("invalid expiration '{text}': not a number of milliseconds"))),
        }
    }
    match properties.user_id() {
        Some(user_id) if !user_id.is_empty() && user_id != by.user().as_bytes() && !by.may_impersonate() => {
            Err(Error::Message(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(user_id),
                by.user()
            )))
        }
        _ => Ok(()),
    }
}

enum Hooked {
    Goes(Arc<Message>),
    Ends(Published),
}

fn run_hooks(hooks: &HookChain, context: &Context<'_>, by: &dyn Authority, message: &Arc<Message>) -> Hooked {
    let outcome = hooks.on_publish(&Publish {
        vhost: &context.vhost.name,
        exchange: message.exchange(),
        routing_key: message.routing_key(),
        user: by.user(),
        properties: message.properties(),
        body: message.body(),
    });
    match outcome {
        Outcome::Pass => Hooked::Goes(Arc::clone(message)),
        Outcome::Rewrite { routing_key, properties } => {
            let old = message.parts();
            let parts = Parts {
                routing_key: routing_key.as_deref().unwrap_or(old.routing_key),
                properties: properties.as_deref().unwrap_or(old.properties),
                ..old
            };
            Hooked::Goes(Message::new(parts, message.body()))
        }
        Outcome::Drop { hook, reason } => {
            tracing::debug!(vhost = %context.vhost.name, exchange = message.exchange(), hook, reason, "hook dropped a message");
            Hooked::Ends(Published::Dropped)
        }
        Outcome::Reject { hook, reason } => {
            tracing::debug!(vhost = %context.vhost.name, exchange = message.exchange(), hook, reason, "hook rejected a message");
            Hooked::Ends(Published::Rejected)
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct ExtraKeys {
    /// Those of CC, then those of BCC.
    pub(super) keys: Vec<String>,
    open_count: usize,
    has_bcc: bool,
}

impl ExtraKeys {
    /// Those that everybody may see.
    pub(super) fn open_keys(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().take(self.open_count).map(String::as_str)
    }
}

/// The routing keys in the headers CC and BCC (semantics 11.12); none for the common message.
pub(super) fn extra_keys(properties: Properties<'_>) -> Result<Option<ExtraKeys>, Error> {
    let Some(headers) = properties.headers() else { return Ok(None) };
    let mut extra: Option<ExtraKeys> = None;
    for name in ["CC", "BCC"] {
        let Some(value) = headers.get(name) else { continue };
        let ValueRef::Array(values) = value else {
            let kind = value.to_owned().map_or("unknown", |value| value.type_name());
            return Err(Error::Message(format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}")));
        };
        let extra = extra.get_or_insert_default();
        extra.has_bcc |= name == "BCC";
        for value in values.iter().flatten() {
            if let ValueRef::LongString(key) = value
                && let Ok(key) = std::str::from_utf8(key)
                && key.len() <= 255
            {
                extra.keys.push(key.to_owned());
                extra.open_count += usize::from(name == "CC");
            }
        }
    }
    Ok(extra)
}

/// The same message without its BCC header, which nobody but the broker may see.
///
/// # Errors
/// The properties cannot be read.
pub fn without_bcc(message: &Arc<Message>) -> Result<Arc<Message>, Error> {
    if message.properties().headers().is_none_or(|headers| headers.get("BCC").is_none()) {
        return Ok(Arc::clone(message));
    }
    let mut properties =
        message.properties().to_owned().map_err(|error| Error::Message(format!("invalid message: {error}")))?;
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    let encoded = properties.encode();
    Ok(Message::new(Parts { properties: &encoded, ..message.parts() }, message.body()))
}

#[cfg(test)]
mod tests {
    use plugin_api::exchange::{BindingSpec, DestinationKind};

    use super::super::declare::{Operator, QueueSpec};
    use super::super::held::tests::NoHolder;
    use super::super::{Change, Ledger, Numbers, QueueFactory, Shared};
    use super::*;
    use crate::plugin_host::Registry;
    use crate::queue::{self, Handle};

    /// Queues that keep nothing, and a ledger that does not either.
    #[derive(Debug)]
    struct Nothing;

    impl Handle for Nothing {
        fn post(&self, _: Input) {}
    }

    impl Ledger for Nothing {
        fn record(&self, _: &str, _: Vec<Change>) {}
    }

    impl QueueFactory for Nothing {
        fn create(
            &self,
            _: &Arc<Vhost>,
            _: &Arc<str>,
            _: u64,
            _: queue::Options,
            _: queue::Restored,
        ) -> Arc<dyn Handle> {
            Arc::new(Self)
        }
    }

    #[test]
    fn routes_to_many_queues_take_bounded_memory() {
        let registry = Arc::new(Registry::builtin().unwrap());
        let numbers = Arc::new(Numbers::starting_at(1));
        let shared = Shared {
            registry,
            factory: Arc::new(Nothing),
            ledger: Arc::new(Nothing),
            holder: Arc::new(NoHolder),
            numbers,
            first_seq: 1,
        };
        let vhost = Vhost::new("/", shared, queue::Durability::Synced).unwrap();
        for number in 0..1000 {
            let name = format!("q{number}");
            let spec = QueueSpec { name: name.clone(), ..QueueSpec::default() };
            vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).unwrap();
            let binding = BindingSpec {
                destination: name,
                destination_kind: DestinationKind::Queue,
                routing_key: String::new(),
                arguments: plugin_api::value::Table::new(),
            };
            vhost.bind(&mut Operator, "amq.fanout", &binding).unwrap();
        }
        let hooks = HookSet::default();
        let context = Context { vhost: &vhost, hooks: &hooks, access_generation: 1 };
        let mut publisher = Publisher::default();
        for number in 0..2000 {
            let routing_key = format!("key{number}");
            let parts = Parts { exchange: "amq.fanout", routing_key: &routing_key, properties: &[0, 0] };
            let message = Message::new(parts, b"");
            publisher.publish(&context, &mut Operator, 1, 0, None, message).unwrap();
            let remembered = publisher.targets.iter().flat_map(|target| target.routes.values());
            let bytes: usize = remembered.map(|places| size_of_val(&**places)).sum();
            assert!(bytes <= ROUTES_BYTES_MAX, "{bytes} bytes after {number} keys");
        }
    }
}
