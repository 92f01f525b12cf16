//! Messages on their way in: permission, hooks, route, and one batch per queue (semantics 12).
//!
//! A [`Publisher`] belongs to one connection. It remembers what a publish to an exchange needs (the exchange, the permission, its hooks,
//! the queues behind each key) until something changes, so that the common publish is two comparisons and a push. Batches leave
//! by [`Publisher::flush`], one post per queue. A publish of a transaction is checked and routed when it comes ([`Publisher::hold`]) and
//! put into the batches when the transaction is committed ([`Publisher::publish_held`]).

use std::sync::Arc;

use hashbrown::HashMap;
use plugin_api::exchange::Wish;
use plugin_api::message::Properties;
use plugin_api::value::ValueRef;

use super::declare::{Authority, TOPIC};
use super::error::{Error, Kind};
use super::held::{Held, Holder, Why};
use super::{QueueRecord, Vhost, reply_to};
use crate::access::{Permission, Resource, TopicPermission};
use crate::hooks::{HookChain, HookSet, Outcome, Publish};
use crate::message::{Marks, Message, Parts};
use crate::metrics::exchanges::Pair;
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

impl Published {
    /// Adds the exchanges that keep the message for later: they answer for it as queues do.
    fn and_held(self, held_count: u32) -> Self {
        match self {
            Self::Unroutable if held_count > 0 => Self::Routed(held_count),
            Self::Routed(queue_count) => Self::Routed(queue_count + held_count),
            published => published,
        }
    }
}

/// What stays the same while a connection publishes.
pub struct Context<'a> {
    /// Where.
    pub vhost: &'a Vhost,
    /// The hooks in force.
    pub hooks: &'a HookSet,
    /// Changes when permissions do.
    pub access_generation: u64,
    /// The name that stands for a channel's reply consumer (semantics 22.4).
    pub reply_name: &'a dyn Fn(u16) -> Option<Arc<str>>,
}

/// A publish that waits for its transaction (semantics 15.2): checked and routed.
#[derive(Debug)]
pub struct HeldPublish {
    exchange: Arc<Exchange>,
    number: u64,
    queues: Vec<Arc<QueueRecord>>,
    held: Vec<Held>,
    message: Arc<Message>,
}

impl HeldPublish {
    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.queues) + size_of_val(&*self.held) + self.message.weight()
    }

    /// Where it was published to.
    pub fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Nobody takes it (semantics 11.16).
    pub fn is_unroutable(&self) -> bool {
        self.queues.is_empty() && !self.held.iter().any(|held| matches!(held.why, Why::Later { .. }))
    }
}

/// Where a publish goes, or that it ends here.
enum Resolved {
    Goes(Routed),
    Ends(Published),
}

struct Routed {
    places: Arc<[usize]>,
    held: Vec<Held>,
    message: Arc<Message>,
}

/// An exchange that was published to.
#[derive(Debug)]
struct Target {
    exchange: Arc<Exchange>,
    /// What the user may publish to it; none where every key is allowed.
    topics: Option<Arc<TopicPermission>>,
    hooks: Option<Arc<HookChain>>,
    routes: HashMap<Box<str>, Arc<[usize]>>,
    /// The key of the last publish and where it led; most publishers stay with one.
    last: Option<(Box<str>, Arc<[usize]>)>,
    /// Publishes that nobody has counted yet, all of one channel.
    spent: Counts,
}

/// Publishes of one channel to one exchange, for its statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Where they came from.
    pub channel: u16,
    /// How many.
    pub received: u64,
    /// Of these, those that want a confirm.
    pub confirming: u64,
    /// Copies that went to queues.
    pub copies: u64,
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
    /// Where its messages come from; the last one first looked at.
    sources: Vec<BatchSource>,
    last_source: usize,
}

/// An exchange that sends messages to a queue.
#[derive(Debug)]
struct BatchSource {
    exchange: u64,
    pair: Arc<Pair>,
    /// Not added to the pair yet.
    count: u64,
}

impl Batch {
    fn new(queue: Arc<QueueRecord>) -> Self {
        Self { queue, messages: Vec::new(), sources: Vec::new(), last_source: 0 }
    }

    /// A message comes from this exchange.
    #[inline]
    fn count(&mut self, exchange: &Exchange) {
        match self.sources.get_mut(self.last_source) {
            Some(source) if source.exchange == exchange.number => source.count += 1,
            _ => self.count_other(exchange),
        }
    }

    fn count_other(&mut self, exchange: &Exchange) {
        let known = self.sources.iter().position(|source| source.exchange == exchange.number);
        self.last_source = known.unwrap_or_else(|| {
            if self.sources.len() >= BATCH_SOURCES_MAX {
                self.spend();
                self.sources.clear();
            }
            let pair = exchange.stats.pair(self.queue.number);
            self.sources.push(BatchSource { exchange: exchange.number, pair, count: 0 });
            self.sources.len() - 1
        });
        if let Some(source) = self.sources.get_mut(self.last_source) {
            source.count += 1;
        }
    }

    fn spend(&mut self) {
        for source in &mut self.sources {
            source.pair.add(std::mem::take(&mut source.count));
        }
    }
}

/// A queue's batch remembers so many exchanges.
const BATCH_SOURCES_MAX: usize = 16;

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
    /// Targets with publishes that nobody has counted yet.
    counting: Vec<usize>,
    /// What was spent since somebody last took it.
    spent: Vec<(Arc<Exchange>, Counts)>,
    /// Messages that were put off, and who will keep them.
    held: Option<(Arc<dyn Holder>, Vec<Held>)>,
    /// Queues that nobody may publish to any more are still among the batches.
    is_stale: bool,
    is_traced: bool,
    traces: Vec<Trace>,
}

/// A publish that the firehose wants to know of.
#[derive(Debug)]
pub struct Trace {
    /// Its channel.
    pub channel: u16,
    /// As it was routed.
    pub message: Arc<Message>,
    /// Where it went.
    pub queues: Vec<Arc<str>>,
}

impl Publisher {
    /// Whether something waits for [`Self::flush`].
    pub fn is_filled(&self) -> bool {
        !self.filled.is_empty()
            || !self.counting.is_empty()
            || self.held.is_some()
            || !self.traces.is_empty()
            || !self.spent.is_empty()
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
        Ok(match self.resolve(context, by, channel, number, parts, message)? {
            Resolved::Goes(Routed { places, held, message }) => {
                self.count(channel, number, places.len());
                let held_count = self.put_off(context.vhost, held, !places.is_empty());
                self.put(&places, channel, number, message).and_held(held_count)
            }
            Resolved::Ends(published) => {
                self.count(channel, number, 0);
                published
            }
        })
    }

    /// Does the same except that the message stays out of the batches, until [`Self::publish_held`].
    ///
    /// # Errors
    /// As of [`Self::publish`]: those of a transaction's publishes are told at once (semantics 15.3). What a hook ended is none, but there is
    /// nothing to hold then.
    pub fn hold(
        &mut self,
        context: &Context<'_>,
        by: &mut dyn Authority,
        channel: u16,
        number: u64,
        parts: Option<Parts<'_>>,
        message: Arc<Message>,
    ) -> Result<Result<HeldPublish, Published>, Error> {
        Ok(match self.resolve(context, by, channel, number, parts, message)? {
            Resolved::Goes(Routed { places, held, message }) => {
                self.trace(&places, channel, &message);
                let queue = |&place: &usize| self.batches.get(place).map(|batch| Arc::clone(&batch.queue));
                let Some(target) = self.targets.get(self.last_target) else {
                    return Err(not_found(context, message.exchange()));
                };
                let exchange = Arc::clone(&target.exchange);
                Ok(HeldPublish { exchange, number, queues: places.iter().filter_map(queue).collect(), held, message })
            }
            Resolved::Ends(published) => Err(published),
        })
    }

    /// Puts a message that was held into the batches of its queues.
    pub fn publish_held(&mut self, vhost: &Vhost, channel: u16, publish: HeldPublish) -> Published {
        let HeldPublish { exchange, number, queues, held, message } = publish;
        let held_count = self.put_off(vhost, held, !queues.is_empty());
        self.spend(&exchange, Counts { channel, received: 1, confirming: 0, copies: queues.len() as u64 });
        for queue in &queues {
            let place = self.place(queue);
            self.put_one(place, &exchange, Incoming { message: Arc::clone(&message), channel, number });
        }
        // A message reaches far fewer queues than that.
        let published = if queues.is_empty() { Published::Unroutable } else { Published::Routed(queues.len() as u32) };
        published.and_held(held_count)
    }

    /// Finds out what becomes of a publish, without doing it.
    #[inline]
    fn resolve(
        &mut self,
        context: &Context<'_>,
        by: &mut dyn Authority,
        channel: u16,
        number: u64,
        parts: Option<Parts<'_>>,
        message: Arc<Message>,
    ) -> Result<Resolved, Error> {
        self.forget_if_changed(context);
        let (place, with_reply_name, extra_keys) = {
            let parts = parts.unwrap_or_else(|| message.parts());
            let place = self.target_place(context, by, parts.exchange)?;
            let properties = Properties::from_raw(parts.properties);
            let with_reply_name = reply_to::with_reply_name(properties, &message, || (context.reply_name)(channel))?;
            if let Some(expiration) = properties.expiration() {
                check_expiration(&String::from_utf8_lossy(expiration))?;
            }
            let extra_keys = extra_keys(properties)?;
            self.check_topics(context, &*by, place, parts.routing_key, extra_keys.as_ref())?;
            check_user_id(properties, by)?;
            (place, with_reply_name, extra_keys)
        };
        let (parts, message) = match with_reply_name {
            None => (parts, message),
            Some(message) => (None, message),
        };
        let Some(target) = self.targets.get_mut(place) else { return Err(not_found(context, message.exchange())) };
        let (parts, message, extra_keys) = match &target.hooks {
            None => (parts, message, extra_keys),
            // What a hook makes of the keys is the operator's business and not judged again (semantics 12.12).
            Some(hooks) => match run_hooks(hooks, context, by, &message) {
                Hooked::Passes => (parts, message, extra_keys),
                Hooked::Rewritten(message) => {
                    let extra_keys = self::extra_keys(message.properties())?;
                    (None, message, extra_keys)
                }
                Hooked::Ends(published) => return Ok(Resolved::Ends(published)),
            },
        };
        let parts = parts.unwrap_or_else(|| message.parts());
        let remembered = match &extra_keys {
            None => target.remembered(parts.routing_key),
            Some(_) => None,
        };
        Ok(Resolved::Goes(match remembered {
            Some(places) => Routed { places, held: Vec::new(), message },
            None => self.route(context, place, channel, number, message, extra_keys)?,
        }))
    }

    /// The topic permission for every key that the client sent (semantics 25.7). A key that is remembered was judged when it was routed; with hooks,
    /// what is remembered may be another one.
    #[inline]
    fn check_topics(
        &mut self,
        context: &Context<'_>,
        by: &dyn Authority,
        place: usize,
        routing_key: &str,
        extra_keys: Option<&ExtraKeys>,
    ) -> Result<(), Error> {
        let Some(target) = self.targets.get_mut(place) else { return Ok(()) };
        let Some(topics) = &target.topics else { return Ok(()) };
        let topics = Arc::clone(topics);
        if extra_keys.is_none() && target.hooks.is_none() && target.remembered(routing_key).is_some() {
            return Ok(());
        }
        let extra_keys = extra_keys.iter().flat_map(|extra| extra.keys.iter().map(String::as_str));
        let mut keys = std::iter::once(routing_key).chain(extra_keys);
        match keys.find(|key| !topics.permits(Permission::Write, key)) {
            None => Ok(()),
            Some(key) => Err(context.vhost.topic_refused(by, Permission::Write, &target.exchange, key)),
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

    /// Publishes since the last call, while the vhost is traced.
    pub fn take_traces(&mut self) -> Vec<Trace> {
        std::mem::take(&mut self.traces)
    }

    /// Posts every batch to its queue; returns how many bytes are on their way, for the publisher's credit.
    pub fn flush(&mut self, origin: &Arc<dyn Outlet>, mut on_post: impl FnMut(usize)) {
        for place in std::mem::take(&mut self.filled) {
            let batch = &mut self.batches[place];
            let messages = std::mem::take(&mut batch.messages);
            batch.spend();
            on_post(messages.iter().map(|incoming| incoming.message.weight()).sum());
            batch.queue.handle.post(Input::Publish { origin: Some(Arc::clone(origin)), messages });
        }
        if let Some((holder, messages)) = self.held.take() {
            on_post(messages.iter().map(|held| held.message.weight()).sum());
            holder.hold(Some(origin), messages);
        }
        self.spend_targets();
        if self.is_stale || self.batches.len() > ROUTES_MAX {
            self.forget();
        }
    }

    /// What was published since the last call, by exchange and channel; complete after [`Self::flush`].
    pub fn take_counts(&mut self) -> Vec<(Arc<Exchange>, Counts)> {
        std::mem::take(&mut self.spent)
    }

    /// Where the last publish went.
    #[inline]
    pub fn last_exchange(&self) -> Option<&Arc<Exchange>> {
        self.targets.get(self.last_target).map(|target| &target.exchange)
    }

    /// Counts a publish to the target that was found last.
    #[inline]
    fn count(&mut self, channel: u16, number: u64, copies: usize) {
        let Some(target) = self.targets.get_mut(self.last_target) else { return };
        if target.spent.received == 0 {
            self.counting.push(self.last_target);
            target.spent.channel = channel;
        } else if target.spent.channel != channel {
            let spent = std::mem::replace(&mut target.spent, Counts { channel, ..Counts::default() });
            let exchange = Arc::clone(&target.exchange);
            self.spend(&exchange, spent);
            // The borrow ended with the call.
            return self.count_more(number, copies);
        }
        target.spent.received += 1;
        target.spent.confirming += u64::from(number != 0);
        target.spent.copies += copies as u64;
    }

    fn count_more(&mut self, number: u64, copies: usize) {
        if let Some(Target { spent, .. }) = self.targets.get_mut(self.last_target) {
            spent.received += 1;
            spent.confirming += u64::from(number != 0);
            spent.copies += copies as u64;
        }
    }

    fn spend(&mut self, exchange: &Arc<Exchange>, counts: Counts) {
        match self.spent.last_mut() {
            Some((last, sum)) if last.number == exchange.number && sum.channel == counts.channel => {
                sum.received += counts.received;
                sum.confirming += counts.confirming;
                sum.copies += counts.copies;
            }
            _ => self.spent.push((Arc::clone(exchange), counts)),
        }
    }

    fn spend_targets(&mut self) {
        for place in std::mem::take(&mut self.counting) {
            let Some(target) = self.targets.get_mut(place) else { continue };
            let counts = std::mem::take(&mut target.spent);
            let exchange = Arc::clone(&target.exchange);
            self.spend(&exchange, counts);
        }
    }

    fn forget_if_changed(&mut self, context: &Context<'_>) {
        let generation = context.vhost.generation();
        if self.vhost_generation != generation || self.access_generation != context.access_generation {
            self.vhost_generation = generation;
            self.access_generation = context.access_generation;
            self.is_traced = context.vhost.is_traced();
            self.forget();
        }
    }

    /// Routes are forgotten; batches stay until they are flushed.
    fn forget(&mut self) {
        self.spend_targets();
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
        if !by.permits(Permission::Write, Resource::Exchange, permission_name) {
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
            self.spend_targets();
            self.targets.clear();
            self.target_of.clear();
            self.routes_bytes = 0;
        }
        let topics = if exchange.spec.kind == TOPIC { by.topic_permission(name) } else { None };
        let hooks = context.hooks.chain(&vhost, name);
        let place = self.targets.len();
        self.target_of.insert(Arc::clone(&exchange.name), place);
        self.targets.push(Target {
            exchange,
            topics,
            hooks,
            routes: HashMap::new(),
            last: None,
            spent: Counts::default(),
        });
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
    ) -> Result<Routed, Error> {
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
        let is_taken = !route.queues.is_empty() || route.wishes.iter().any(|(_, wish)| matches!(wish, Wish::Hold(_)));
        // Nobody waits for what is only kept of a message that nobody takes: its publisher hears that at once.
        let number = if is_taken { number } else { 0 };
        let put_off = |(exchange, wish): (_, Wish)| context.vhost.put_off(exchange, &wish, &message, (channel, number));
        let held = route.wishes.into_iter().map(put_off).collect();
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
            Some(ExtraKeys { has_bcc: true, .. }) => hiding_bcc(&message),
            _ => message,
        };
        Ok(Routed { places, held, message })
    }

    /// Keeps messages for the holder; returns how many exchanges will answer for them.
    fn put_off(&mut self, vhost: &Vhost, held: Vec<Held>, has_queues: bool) -> u32 {
        if held.is_empty() {
            return 0;
        }
        let is_taken = has_queues || held.iter().any(|held| matches!(held.why, Why::Later { .. }));
        // No message passes so many exchanges.
        let count = if is_taken { held.len() as u32 } else { 0 };
        let (_, messages) = self.held.get_or_insert_with(|| (Arc::clone(&vhost.holder), Vec::new()));
        messages.extend(held);
        count
    }

    fn place(&mut self, queue: &Arc<QueueRecord>) -> usize {
        *self.place_of.entry(queue.number).or_insert_with(|| {
            self.batches.push(Batch::new(Arc::clone(queue)));
            self.batches.len() - 1
        })
    }

    /// Notes a publish down for the firehose; one of a transaction when it is routed, as RabbitMQ does (semantics 29.1).
    #[inline]
    fn trace(&mut self, places: &[usize], channel: u16, message: &Arc<Message>) {
        if self.is_traced {
            let queues = places.iter().filter_map(|&place| Some(Arc::clone(&self.batches.get(place)?.queue.name)));
            self.traces.push(Trace { channel, message: Arc::clone(message), queues: queues.collect() });
        }
    }

    fn put(&mut self, places: &[usize], channel: u16, number: u64, message: Arc<Message>) -> Published {
        self.trace(places, channel, &message);
        let Some((&last, others)) = places.split_last() else { return Published::Unroutable };
        let Self { targets, batches, filled, last_target, .. } = self;
        let Some(Target { exchange, .. }) = targets.get(*last_target) else { return Published::Unroutable };
        for &place in others {
            put_one(batches, filled, place, exchange, Incoming { message: Arc::clone(&message), channel, number });
        }
        put_one(batches, filled, last, exchange, Incoming { message, channel, number });
        // A message reaches far fewer queues than that.
        Published::Routed(places.len() as u32)
    }

    fn put_one(&mut self, place: usize, exchange: &Exchange, incoming: Incoming) {
        put_one(&mut self.batches, &mut self.filled, place, exchange, incoming);
    }
}

#[inline]
fn put_one(batches: &mut [Batch], filled: &mut Vec<usize>, place: usize, exchange: &Exchange, incoming: Incoming) {
    let batch = &mut batches[place];
    if batch.messages.is_empty() {
        filled.push(place);
    }
    batch.count(exchange);
    batch.messages.push(incoming);
}

fn not_found(context: &Context<'_>, name: &str) -> Error {
    Error::NotFound { kind: Kind::Exchange, name: name.into(), vhost: context.vhost.name.to_string() }
}

/// Semantics 12.6.
fn check_user_id(properties: Properties<'_>, by: &dyn Authority) -> Result<(), Error> {
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

/// Digits for at most ten years in milliseconds. The reasons are RabbitMQ's terms for what is wrong.
fn check_expiration(text: &str) -> Result<(), Error> {
    let digits_end = text.bytes().skip(1).position(|byte| !byte.is_ascii_digit()).map_or(text.len(), |end| end + 1);
    let (number, rest) = text.split_at_checked(digits_end).unwrap_or((text, ""));
    let digits = number.strip_prefix('-').unwrap_or(number);
    let reason = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        "no_integer".to_owned()
    } else if !rest.is_empty() {
        format!("{{leftover_string,\"{rest}\"}}")
    } else if number != digits {
        format!("{{value_negative,{number}}}")
    } else if digits.parse::<u64>().is_ok_and(|ms| ms <= EXPIRATION_MAX_MS) {
        return Ok(());
    } else {
        format!("{{value_too_large,{number}}}")
    };
    Err(Error::Message(format!("invalid expiration '{text}': {reason}")))
}

enum Hooked {
    Passes,
    Rewritten(Arc<Message>),
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
        Outcome::Pass => Hooked::Passes,
        Outcome::Rewrite { routing_key, properties } => {
            let old = message.parts();
            let parts = Parts {
                routing_key: routing_key.as_deref().unwrap_or(old.routing_key),
                properties: properties.as_deref().unwrap_or(old.properties),
                ..old
            };
            Hooked::Rewritten(Message::new(parts, message.body()))
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

/// The routing keys that a message has beside its own, in the headers CC and BCC (semantics 11.12).
///
/// # Errors
/// A header that is no list.
pub fn extra_keys_of(message: &Message) -> Result<Vec<String>, Error> {
    Ok(extra_keys(message.properties())?.map(|extra| extra.keys).unwrap_or_default())
}

/// The message as queues keep it: one with a BCC header is marked, so that whoever hands it out takes the header away. Until then dead
/// letters go by it (semantics 20.3).
pub(super) fn hiding_bcc(message: &Arc<Message>) -> Arc<Message> {
    if message.properties().headers().is_none_or(|headers| headers.get("BCC").is_none()) {
        return Arc::clone(message);
    }
    Message::marked(message.parts(), message.body(), message.marks().and(Marks::HIDES_BCC))
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
    let marks = message.marks().without(Marks::HIDES_BCC);
    Ok(Message::marked(Parts { properties: &encoded, ..message.parts() }, message.body(), marks))
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
            bindings_per_queue_max: usize::MAX,
            quorum_queues: crate::vhost::quorum::QuorumQueues::Local,
            events: crate::events::Events::default(),
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
        let context = Context { vhost: &vhost, hooks: &hooks, access_generation: 1, reply_name: &|_| None };
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
