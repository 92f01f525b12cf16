//! The exchanges that a connection publishes to: what is remembered of each, and what was published to it.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::authority::Authority;
use super::super::declare::TOPIC;
use super::super::error::{Error, Kind};
use super::{Context, Publisher, not_found};
use crate::access::{Permission, Resource, TopicPermission};
use crate::hooks::HookChain;
use crate::message::Parts;
use crate::routing::Exchange;

/// So many exchanges are remembered.
const EXCHANGES_MAX: usize = 256;

/// An exchange that was published to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) exchange: Arc<Exchange>,
    /// What the user may publish to it; none where every key is allowed.
    pub(super) topics: Option<Arc<TopicPermission>>,
    pub(super) hooks: Option<Arc<HookChain>>,
    pub(super) routes: HashMap<Box<str>, Arc<[usize]>>,
    /// The key of the last publish and where it led; most publishers stay with one.
    pub(super) last: Option<(Box<str>, Arc<[usize]>)>,
    /// Publishes that nobody has counted yet, all of one channel.
    pub(super) spent: Counts,
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

impl Counts {
    /// One more of the same channel; false if there is none of it yet.
    #[inline]
    pub(super) fn add(&mut self, channel: u16, number: u64, copies: usize) -> bool {
        if self.received == 0 || self.channel != channel {
            return false;
        }
        self.received += 1;
        self.confirming += u64::from(number != 0);
        self.copies += copies as u64;
        true
    }
}

impl Target {
    pub(super) fn forget_routes(&mut self) {
        self.routes = HashMap::new();
        self.last = None;
    }

    /// Whether a publish is one more of those that came last. With hooks, none is: they may do something else each time.
    #[inline]
    pub(super) fn would_lead_as_before(&self, parts: Parts<'_>) -> bool {
        *self.exchange.name == *parts.exchange
            && self.hooks.is_none()
            && self.last.as_ref().is_some_and(|(key, _)| **key == *parts.routing_key)
    }

    /// Where a key led before.
    #[inline]
    pub(super) fn remembered(&mut self, routing_key: &str) -> Option<Arc<[usize]>> {
        match &self.last {
            Some((key, places)) if **key == *routing_key => Some(Arc::clone(places)),
            _ => self.routes.get(routing_key).map(Arc::clone),
        }
    }
}

impl Publisher {
    /// The exchange's place among the targets; most publishers stay with one.
    #[inline]
    pub(super) fn target_place(
        &mut self,
        context: &Context<'_>,
        by: &mut dyn Authority,
        name: &str,
    ) -> Result<usize, Error> {
        if self.targets.get(self.last_target).is_some_and(|target| *target.exchange.name == *name) {
            return Ok(self.last_target);
        }
        self.last_target = match self.target_of.get(name) {
            Some(&place) => place,
            None => self.find_target(context, by, name)?,
        };
        Ok(self.last_target)
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
    pub(super) fn count(&mut self, channel: u16, number: u64, copies: usize) {
        let Some(Target { exchange, spent, .. }) = self.targets.get_mut(self.last_target) else { return };
        if spent.add(channel, number, copies) {
            return;
        }
        let more = Counts { channel, received: 1, confirming: u64::from(number != 0), copies: copies as u64 };
        let before = std::mem::replace(spent, more);
        if before.received == 0 {
            self.counting.push(self.last_target);
        } else {
            let exchange = Arc::clone(exchange);
            self.spend(&exchange, before);
        }
    }

    pub(super) fn spend(&mut self, exchange: &Arc<Exchange>, counts: Counts) {
        match self.spent.last_mut() {
            Some((last, sum)) if last.number == exchange.number && sum.channel == counts.channel => {
                sum.received += counts.received;
                sum.confirming += counts.confirming;
                sum.copies += counts.copies;
            }
            _ => self.spent.push((Arc::clone(exchange), counts)),
        }
    }

    pub(super) fn spend_targets(&mut self) {
        for place in std::mem::take(&mut self.counting) {
            let Some(target) = self.targets.get_mut(place) else { continue };
            let counts = std::mem::take(&mut target.spent);
            let exchange = Arc::clone(&target.exchange);
            self.spend(&exchange, counts);
        }
    }

    pub(super) fn forget_if_changed(&mut self, context: &Context<'_>) {
        let generation = context.vhost.generation();
        if self.vhost_generation != generation || self.access_generation != context.access_generation {
            self.vhost_generation = generation;
            self.access_generation = context.access_generation;
            self.is_traced = context.vhost.is_traced();
            self.forget();
        }
    }

    /// Routes are forgotten; batches stay until they are flushed.
    pub(super) fn forget(&mut self) {
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
}
