//! Hooks of a connection: what they do to deliveries, and whether the client may come in.
//!
//! A delivery that a hook takes away is settled in the consumer's name as soon as it comes, so its queue counts it no longer against the
//! prefetch and sends the next; tags are given only to what is written. A consumer without acks, on a queue with hooks, is one with acks to its queue: the
//! session acks what it has written. So a hook's dead letters are there to be sent on.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::amqp::{Outcome as Settled, Outstanding, ProtocolError, ReplyCode, SourceId};
use crate::hooks::{Connecting, HookChain, Origin, Outcome, Point, Publish, Refusal, Site};
use crate::message::Message;
use crate::queue::Delivery;
use crate::vhost::publish::rewritten;
use crate::vhost::reply_to::is_reply_name;
use crate::vhost::{QueueRecord, Vhost};

/// What a source has to do with hooks.
#[derive(Debug, Default)]
pub(super) struct SourceHooks {
    pub(super) chain: Option<Arc<HookChain>>,
    /// The client does not ack, its queue waits for acks.
    pub(super) acks_for_client: bool,
}

/// What the session knows of hooks.
#[derive(Debug, Default)]
pub(super) struct SessionHooks {
    /// That of the chains.
    generation: u64,
    /// A source has something to do with hooks, or had.
    is_any: bool,
}

/// What is to become of a delivery.
enum Delivered {
    Goes(Arc<Message>),
    Settled(Settled),
    /// The channel fails.
    Failed(ProtocolError),
}

impl Session {
    /// Asks the hooks of the vhost whether the client may come in.
    pub(super) fn ask_connect_hooks(&self, vhost: &Vhost) -> Result<(), Refusal> {
        let Some(actor) = &self.actor else { return Ok(()) };
        let Some(hooks) = self.broker.hooks.chain_at(Point::Connect, &vhost.name, Site::Vhost) else { return Ok(()) };
        hooks.on_connect(&Connecting {
            vhost: &vhost.name,
            user: actor.name(),
            peer: self.peer,
            mechanism: &self.mechanism,
            properties: &self.conn.client().properties,
        })
    }

    /// The hooks of a new source. `client_acks` says whether the client settles what it gets.
    pub(super) fn source_hooks(&mut self, queue: &QueueRecord, client_acks: bool) -> SourceHooks {
        let chain = self.deliver_chain(queue);
        self.hooks.is_any |= chain.is_some();
        // Before the first source nobody has looked.
        if self.sources.is_empty() {
            self.hooks.generation = self.broker.hooks.generation();
        }
        SourceHooks { acks_for_client: chain.is_some() && !client_acks, chain }
    }

    fn deliver_chain(&self, queue: &QueueRecord) -> Option<Arc<HookChain>> {
        let vhost = self.vhost.as_ref()?;
        // Answers to requests come out of no queue that anybody could have named.
        if is_reply_name(&queue.name) {
            return None;
        }
        self.broker.hooks.chain_at(Point::Deliver, &vhost.name, Site::Queue(&queue.name))
    }

    /// Whether deliveries have to be looked at one by one. Almost always it is two comparisons.
    #[inline]
    pub(super) fn has_deliver_hooks(&mut self) -> bool {
        if self.hooks.generation != self.broker.hooks.generation() {
            self.find_deliver_hooks();
        }
        self.hooks.is_any
    }

    #[cold]
    fn find_deliver_hooks(&mut self) {
        self.hooks.generation = self.broker.hooks.generation();
        let chains: Vec<_> = self.sources.iter().map(|(id, source)| (*id, self.deliver_chain(&source.queue))).collect();
        self.hooks.is_any = false;
        for (id, chain) in chains {
            let Some(source) = self.sources.get_mut(&id) else { continue };
            source.hooks.chain = chain;
            self.hooks.is_any |= source.hooks.chain.is_some() || source.hooks.acks_for_client;
        }
    }

    /// Deliveries of a source, in order. The rest of them stays with the queue when one fails the channel.
    pub(super) fn on_hooked_deliveries(&mut self, now: Instant, id: SourceId, deliveries: &[Delivery], bytes: usize) {
        let Some(source) = self.sources.get(&id) else { return };
        let (channel, is_no_ack, acks_for_client) = (source.channel, source.no_ack, source.hooks.acks_for_client);
        let mut going = Vec::with_capacity(deliveries.len());
        let mut settled = Vec::new();
        let mut failure = None;
        for delivery in deliveries {
            match self.run_deliver_hooks(id, delivery.redelivered, &delivery.message) {
                Delivered::Goes(message) => going.push(Delivery { message, ..*delivery }),
                Delivered::Settled(outcome) => settled.push((delivery.ticket, outcome)),
                Delivered::Failed(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let redelivered = going.iter().map(|delivery| u64::from(delivery.redelivered)).sum();
        self.on_delivered(id, &going, bytes, redelivered);
        if acks_for_client {
            settled.extend(going.iter().map(|delivery| (delivery.ticket, Settled::Ack)));
        }
        // To a queue without acks they are settled already.
        if acks_for_client || !is_no_ack {
            for (ticket, outcome) in settled {
                self.settle_for_client(id, ticket, outcome);
            }
        }
        // What is not written gives no credit back by being written.
        if going.len() < deliveries.len() && self.conn.unsent_bytes() < super::UNSENT_BYTES_LOW {
            self.return_credit();
        }
        if let Some(error) = failure {
            self.fail(now, channel, error);
        }
    }

    /// Settles a delivery that the client has not, or knows nothing of.
    pub(super) fn settle_for_client(&mut self, id: SourceId, ticket: u64, outcome: Settled) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.outstanding += 1;
        self.settle(Outstanding { source: id, ticket }, outcome);
    }

    fn run_deliver_hooks(&self, id: SourceId, redelivered: bool, message: &Arc<Message>) -> Delivered {
        let goes = || Delivered::Goes(Arc::clone(message));
        let Some(source) = self.sources.get(&id) else { return goes() };
        let (Some(hooks), Some(vhost), Some(actor)) = (&source.hooks.chain, &self.vhost, &self.actor) else {
            return goes();
        };
        let queue = &source.queue.name;
        let publish = Publish {
            vhost: &vhost.name,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            user: actor.name(),
            properties: message.properties(),
            body: message.body(),
        };
        let tell = |what: &str, hook: &str, reason: &str| {
            tracing::debug!(vhost = %vhost.name, %queue, hook, reason, "hook {what} a delivery");
        };
        match hooks.on_message(&publish, Some(&Origin { queue, redelivered, reason: None })) {
            Outcome::Pass => goes(),
            Outcome::Rewrite { routing_key, properties } => {
                Delivered::Goes(rewritten(message, routing_key.as_deref(), properties.as_deref()))
            }
            Outcome::Drop { hook, reason } => {
                tell("dropped", &hook, &reason);
                Delivered::Settled(Settled::Ack)
            }
            Outcome::DeadLetter { hook, reason, .. } => {
                tell("dead-lettered", &hook, &reason);
                Delivered::Settled(Settled::Discard)
            }
            Outcome::Reject { hook, reason } => Delivered::Failed(ProtocolError::new(
                ReplyCode::PreconditionFailed,
                format!("hook '{hook}' failed on a delivery from queue '{queue}' in vhost '{}': {reason}", vhost.name),
            )),
        }
    }

    /// The hooks of an answer to basic.get: the message to answer with, or how it is settled instead.
    pub(super) fn hook_got(
        &mut self,
        id: SourceId,
        redelivered: bool,
        message: Arc<Message>,
    ) -> Result<Result<Arc<Message>, Settled>, ProtocolError> {
        if !self.has_deliver_hooks() {
            return Ok(Ok(message));
        }
        match self.run_deliver_hooks(id, redelivered, &message) {
            Delivered::Goes(message) => Ok(Ok(message)),
            Delivered::Settled(outcome) => Ok(Err(outcome)),
            Delivered::Failed(error) => Err(error),
        }
    }
}
