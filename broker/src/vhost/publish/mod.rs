//! Messages on their way in: permission, hooks, route, and one batch per queue (semantics 12).
//!
//! A [`Publisher`] belongs to one connection. It remembers what a publish to an exchange needs (the exchange, the permission, its hooks,
//! the queues behind each key) until something changes, so that the common publish is two comparisons and a push. Batches leave
//! by [`Publisher::flush`], one post per queue. A publish of a transaction is checked and routed when it comes ([`Publisher::hold`]) and
//! put into the batches when the transaction is committed ([`Publisher::publish_held`]).

mod batch;
mod hooked;
mod properties;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::HashMap;
use plugin_api::exchange::Wish;
use plugin_api::message::Properties;

use self::batch::{Batch, put_one};
pub use self::hooked::{Hooked, rewritten, run as run_hooks};
pub(super) use self::properties::{ExtraKeys, extra_keys, hiding_bcc};
use self::properties::{check_expiration, check_user_id};
pub use self::properties::{extra_keys_of, without_bcc};
pub use self::target::Counts;
use self::target::Target;
use super::authority::Authority;
use super::error::{Error, Kind};
use super::held::{Held, Holder, Why};
use super::{QueueRecord, Vhost, reply_to};
use crate::access::Permission;
use crate::hooks::Hooks;
use crate::message::{Message, Parts};
use crate::queue::{Incoming, Input, Outlet};
use crate::routing::{self, Exchange};

/// An exchange remembers so many keys, a connection so many queues; then it forgets all and begins again. Whoever serves that many in turn would route
/// each message anew with a smaller number.
const ROUTES_MAX: usize = 32 * 1024;
/// What all routes of a connection may take in memory, about; then all are forgotten.
const ROUTES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a remembered route takes beside its key and its queues, about.
const ROUTE_OVERHEAD_BYTES: usize = 128;

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
    pub hooks: &'a Hooks,
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
        let message = match parts {
            Some(parts) if self.goes_as_before(context, parts) => match self.put_as_before(channel, number, message) {
                Ok(published) => return Ok(published),
                Err(message) => message,
            },
            _ => message,
        };
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

    /// Whether nothing has changed since the publish before, and this one has the same exchange and key and nothing else to look at.
    #[inline]
    fn goes_as_before(&self, context: &Context<'_>, parts: Parts<'_>) -> bool {
        self.vhost_generation == context.vhost.generation()
            && self.access_generation == context.access_generation
            && !self.is_traced
            && !Properties::from_raw(parts.properties).concern_publishing()
            && self.targets.get(self.last_target).is_some_and(|target| target.would_lead_as_before(parts))
    }

    /// Puts a message where the one before went; gives it back if that cannot be done at once.
    #[inline]
    fn put_as_before(&mut self, channel: u16, number: u64, message: Arc<Message>) -> Result<Published, Arc<Message>> {
        let Self { targets, batches, filled, last_target, .. } = self;
        let Some(Target { exchange, last: Some((_, places)), spent, .. }) = targets.get_mut(*last_target) else {
            return Err(message);
        };
        let Some((&place, others)) = places.split_last() else { return Err(message) };
        if !spent.add(channel, number, places.len()) {
            return Err(message);
        }
        for &place in others {
            put_one(batches, filled, place, exchange, Incoming { message: Arc::clone(&message), channel, number });
        }
        put_one(batches, filled, place, exchange, Incoming { message, channel, number });
        // A message reaches far fewer queues than that.
        Ok(Published::Routed(places.len() as u32))
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
            Some(hooks) => match hooked::run(hooks, &context.vhost.name, by.user(), &message, None) {
                Hooked::Passes => (parts, message, extra_keys),
                Hooked::Rewritten(message) => {
                    let extra_keys = self::extra_keys(message.properties())?;
                    (None, message, extra_keys)
                }
                Hooked::DeadLettered(exchange, message) => {
                    return self.route_dead_letter(context, (channel, number), &exchange, &message);
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

fn not_found(context: &Context<'_>, name: &str) -> Error {
    Error::NotFound { kind: Kind::Exchange, name: name.into(), vhost: context.vhost.name.to_string() }
}
