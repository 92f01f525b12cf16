//! Carrying out the methods of a channel.
//!
//! What only changes names is done and answered at once; what a queue must answer is posted, and the channel waits
//! (`replies` goes on from there).

use std::sync::Arc;

use plugin_api::exchange::{BindingSpec, DestinationKind, ExchangeSpec};
use plugin_api::value::{Table, TableRef, Value};

use super::replies::{Pending, Subscription};
use super::{Session, reply_to};
use crate::amqp::method::*;
use crate::amqp::{ChannelId, Outcome, ProtocolError, ReplyCode, SourceId, frame};
use crate::queue::{ChannelLimit, HolderId, Input, NewConsumer};
use crate::runtime::entropy::generated_name;
use crate::store::Barrier;
use crate::vhost::declare::QueueSpec;
use crate::vhost::policy::QueueType;
use crate::vhost::queue_arguments::{PRIORITY, wrong_consumer_arguments};
use crate::vhost::reply_to::REPLY_TO;
use crate::vhost::{Changed, Error, QueueRecord};

type Done = Result<(), ProtocolError>;

impl Session {
    pub(super) fn on_command(&mut self, channel: ChannelId, method: &Method<'_>) -> Done {
        self.channels.entry(channel.0).or_default();
        match method {
            Method::ExchangeDeclare(declare) => self.on_exchange_declare(channel, declare),
            Method::ExchangeDelete(delete) => self.on_exchange_delete(channel, delete),
            Method::ExchangeBind(bind) => {
                let destination = Destination { kind: DestinationKind::Exchange, name: bind.destination };
                let changed = self.bind(destination, bind.source, bind.routing_key, bind.arguments)?;
                self.answer_stored(channel, changed, bind.nowait, ExchangeBindOk {})
            }
            Method::ExchangeUnbind(unbind) => {
                let destination = Destination { kind: DestinationKind::Exchange, name: unbind.destination };
                let changed = self.unbind(destination, unbind.source, unbind.routing_key, unbind.arguments)?;
                self.answer_stored(channel, changed, unbind.nowait, ExchangeUnbindOk {})
            }
            Method::QueueDeclare(declare) => self.on_queue_declare(channel, declare),
            Method::QueueBind(bind) => {
                let (queue, key) = self.named_queue_and_key(channel, bind.queue, bind.routing_key)?;
                let destination = Destination { kind: DestinationKind::Queue, name: &queue };
                let changed = self.bind(destination, bind.exchange, &key, bind.arguments)?;
                self.answer_stored(channel, changed, bind.nowait, QueueBindOk {})
            }
            Method::QueueUnbind(unbind) => {
                let (queue, key) = self.named_queue_and_key(channel, unbind.queue, unbind.routing_key)?;
                let destination = Destination { kind: DestinationKind::Queue, name: &queue };
                let changed = self.unbind(destination, unbind.exchange, &key, unbind.arguments)?;
                self.answer_stored(channel, changed, false, QueueUnbindOk {})
            }
            Method::QueuePurge(purge) => self.on_queue_purge(channel, purge),
            Method::QueueDelete(delete) => self.on_queue_delete(channel, delete),
            Method::BasicQos(qos) => self.on_qos(channel, qos),
            Method::BasicConsume(consume) => self.on_consume(channel, consume),
            Method::BasicCancel(cancel) => self.on_cancel(channel, cancel.consumer_tag, cancel.nowait),
            // A client that answers a cancel notification where none was due (semantics 13.31).
            Method::BasicCancelOk(cancel_ok) => self.on_cancel(channel, cancel_ok.consumer_tag, true),
            Method::BasicGet(get) => self.on_get(channel, get),
            Method::BasicRecover(recover) => {
                self.recover(channel, recover.requeue)?;
                self.answer(channel, false, BasicRecoverOk {})
            }
            Method::BasicRecoverAsync(recover) => self.recover(channel, recover.requeue),
            // The machine passes on no others.
            _ => Err(ProtocolError::new(ReplyCode::CommandInvalid, "unimplemented method")),
        }
    }

    fn answer<'m>(&mut self, channel: ChannelId, nowait: bool, method: impl Into<Method<'m>>) -> Done {
        if !nowait {
            self.conn.send(channel, method);
        }
        Ok(())
    }

    /// What changed something durable is answered when it is stored; the channel waits until then.
    pub(super) fn answer_stored<'m>(
        &mut self,
        channel: ChannelId,
        changed: Changed,
        nowait: bool,
        method: impl Into<Method<'m>>,
    ) -> Done {
        if changed != Changed::Durable || nowait {
            return self.answer(channel, nowait, method);
        }
        let method = method.into();
        let mut answer = Vec::new();
        frame::write_method(&mut answer, channel.0, method);
        self.wait_for_store(channel, answer, method.id());
        Ok(())
    }

    /// Sends an encoded answer when everything that was changed so far is stored.
    pub(super) fn wait_for_store(&mut self, channel: ChannelId, answer: Vec<u8>, method: MethodId) {
        self.wait(channel, Pending::Stored { answer, method });
        self.broker.committer.barrier(Barrier::Definitions, self.reply_to(channel));
    }

    // Exchanges and bindings

    fn on_exchange_declare(&mut self, channel: ChannelId, declare: &ExchangeDeclare<'_>) -> Done {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        let name = without_line_ends(declare.exchange);
        let changed = if declare.passive {
            vhost.check_exchange(actor, &name)?;
            Changed::Nothing
        } else {
            let spec = ExchangeSpec {
                vhost: vhost.name.to_string(),
                name,
                kind: declare.kind.to_owned(),
                durable: declare.durable,
                auto_delete: declare.auto_delete,
                internal: declare.internal,
                arguments: owned(declare.arguments)?,
            };
            vhost.declare_exchange(actor, spec)?
        };
        self.answer_stored(channel, changed, declare.nowait, ExchangeDeclareOk {})
    }

    fn on_exchange_delete(&mut self, channel: ChannelId, delete: &ExchangeDelete<'_>) -> Done {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        let changed = vhost.delete_exchange(actor, &without_line_ends(delete.exchange), delete.if_unused)?;
        self.answer_stored(channel, changed, delete.nowait, ExchangeDeleteOk {})
    }

    fn bind(
        &mut self,
        to: Destination<'_>,
        source: &str,
        key: &str,
        arguments: TableRef<'_>,
    ) -> Result<Changed, ProtocolError> {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(Changed::Nothing) };
        Ok(vhost.bind(actor, &without_line_ends(source), &to.binding(key, owned(arguments)?))?)
    }

    fn unbind(
        &mut self,
        to: Destination<'_>,
        source: &str,
        key: &str,
        arguments: TableRef<'_>,
    ) -> Result<Changed, ProtocolError> {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(Changed::Nothing) };
        Ok(vhost.unbind(actor, &without_line_ends(source), &to.binding(key, owned(arguments)?))?)
    }

    // Queues

    /// An empty name means the queue that was declared last on the channel (semantics 9.4).
    fn named_queue(&self, channel: ChannelId, name: &str) -> Result<String, ProtocolError> {
        if !name.is_empty() {
            return Ok(name.to_owned());
        }
        match self.channels.get(&channel.0) {
            Some(state) if !state.last_queue.is_empty() => Ok(state.last_queue.clone()),
            _ => Err(ProtocolError::new(ReplyCode::NotFound, "no previously declared queue")),
        }
    }

    /// In bind and unbind, where both are empty the key is the queue's name, too.
    fn named_queue_and_key(
        &self,
        channel: ChannelId,
        queue: &str,
        key: &str,
    ) -> Result<(String, String), ProtocolError> {
        let name = self.named_queue(channel, &without_line_ends(queue))?;
        let key = if queue.is_empty() && key.is_empty() { name.clone() } else { key.to_owned() };
        Ok((name, key))
    }

    fn on_queue_declare(&mut self, channel: ChannelId, declare: &QueueDeclare<'_>) -> Done {
        let name = without_line_ends(declare.queue);
        if reply_to::is_declared_specially(&name) {
            return self.declare_reply_name(channel, declare, &name);
        }
        let spec = QueueSpec {
            name,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: owned(declare.arguments)?,
        };
        self.declare_queue(channel, spec, declare.passive, declare.nowait)
    }

    /// Declares, and asks the queue how full it is for the answer. Comes again when the queue was deleted meanwhile.
    pub(super) fn declare_queue(
        &mut self,
        channel: ChannelId,
        spec: QueueSpec,
        is_passive: bool,
        nowait: bool,
    ) -> Done {
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        let (queue, changed) = if is_passive {
            (vhost.check_queue(actor, &spec.name)?, Changed::Nothing)
        } else {
            let spec = spec.clone();
            let (queue, changed) = vhost.declare_queue(actor, spec, || generated_name("amq.gen-"))?;
            if queue.owner.is_some() {
                self.exclusive_queues.add(&queue, vhost);
            }
            (queue, changed)
        };
        if let Some(state) = self.channels.get_mut(&channel.0) {
            queue.name.as_ref().clone_into(&mut state.last_queue);
        }
        if nowait {
            return Ok(());
        }
        let reply_to = self.reply_to(channel);
        self.wait(channel, Pending::Declare { queue: Arc::clone(&queue), spec, is_passive });
        if changed == Changed::Durable {
            self.broker.committer.barrier(Barrier::Definitions, reply_to);
        } else {
            queue.handle.post(Input::Status(reply_to));
        }
        Ok(())
    }

    fn on_queue_purge(&mut self, channel: ChannelId, purge: &QueuePurge<'_>) -> Done {
        let queue = self.readable_queue(channel, purge.queue)?;
        self.wait(channel, Pending::Purge { name: Arc::clone(&queue.name), nowait: purge.nowait });
        queue.handle.post(Input::Purge(self.reply_to(channel)));
        Ok(())
    }

    fn on_queue_delete(&mut self, channel: ChannelId, delete: &QueueDelete<'_>) -> Done {
        let name = self.named_queue(channel, &without_line_ends(delete.queue))?;
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else { return Ok(()) };
        let Some(queue) = vhost.deletable_queue(actor, &name)? else {
            let changed = vhost.unchanged(true);
            return self.answer_stored(channel, changed, delete.nowait, QueueDeleteOk { message_count: 0 });
        };
        let (if_unused, if_empty) = (delete.if_unused, delete.if_empty);
        vhost.check_delete(&queue, if_unused, if_empty)?;
        let pending = Pending::Delete { queue: Arc::clone(&queue), nowait: delete.nowait };
        self.wait(channel, pending);
        queue.handle.post(Input::Delete { if_unused, if_empty, reply_to: Some(self.reply_to(channel)) });
        Ok(())
    }

    fn readable_queue(&mut self, channel: ChannelId, name: &str) -> Result<Arc<QueueRecord>, ProtocolError> {
        let name = self.named_queue(channel, name)?;
        let (Some(vhost), Some(actor)) = (&self.vhost, &mut self.actor) else {
            return Err(ProtocolError::new(ReplyCode::ChannelError, "connection is not open"));
        };
        Ok(vhost.readable_queue(actor, &name)?)
    }

    // Consuming

    fn on_qos(&mut self, channel: ChannelId, qos: &BasicQos) -> Done {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(ProtocolError::new(ReplyCode::NotImplemented, text));
        }
        if qos.global {
            self.limit_channel(channel, qos.prefetch_count);
        } else if let Some(state) = self.channels.get_mut(&channel.0) {
            state.prefetch_count = qos.prefetch_count;
        }
        self.answer(channel, false, BasicQosOk {})
    }

    /// The limit that all consumers of the channel share, those that are there included (semantics 13.15).
    fn limit_channel(&mut self, channel: ChannelId, max: u16) {
        let Some(state) = self.channels.get_mut(&channel.0) else { return };
        if let Some(limit) = &state.limit {
            limit.set_max(max);
            return self.on_limit_lifted(channel);
        }
        let limit = state.limit.insert(Arc::new(ChannelLimit::new(max)));
        for &id in &state.sources {
            // Consumers that were cancelled may still hold deliveries, and those count; a getter's do not.
            let Some(source) = self.sources.get(&id) else { continue };
            if state.getters.get(&source.queue.number) != Some(&id) {
                let holder = HolderId { connection: self.number, source: id.0 };
                source.queue.handle.post(Input::SetLimit { holder, limit: Some(Arc::clone(limit)) });
            }
        }
    }

    fn on_consume(&mut self, channel: ChannelId, consume: &BasicConsume<'_>) -> Done {
        if self.conn.has_consumer(channel, consume.consumer_tag) {
            let text = format!("attempt to reuse consumer tag '{}'", consume.consumer_tag);
            return Err(ProtocolError::new(ReplyCode::NotAllowed, text));
        }
        let max = self.broker.consumer_max_per_channel;
        if self.conn.consumer_count(channel) >= max as usize {
            let text = format!("reached maximum ({max}) of consumers per channel");
            return Err(ProtocolError::new(ReplyCode::NotAllowed, text));
        }
        let tag = match consume.consumer_tag {
            "" => generated_name("amq.ctag-"),
            tag => tag.to_owned(),
        };
        if consume.queue == REPLY_TO {
            return self.consume_replies(channel, consume, tag);
        }
        let queue = self.readable_queue(channel, consume.queue)?;
        let arguments = owned(consume.arguments)?;
        let priority = self.consumer_priority(&queue, &arguments)?;
        let limit = self.channels.get(&channel.0).and_then(|state| state.limit.as_ref());
        if let Some(vhost) = &self.vhost
            && limit.is_some_and(|limit| limit.is_limiting())
        {
            vhost.check_channel_limit(&queue)?;
        }
        self.subscribe(
            channel,
            queue,
            Subscription {
                tag,
                no_ack: consume.no_ack,
                is_exclusive: consume.exclusive,
                nowait: consume.nowait,
                priority,
                prefetch_count: 0,
                arguments,
                source: SourceId(0),
            },
        );
        Ok(())
    }

    pub(super) fn subscribe(
        &mut self,
        channel: ChannelId,
        queue: Arc<QueueRecord>,
        mut subscription: Subscription,
    ) -> SourceId {
        let shares_credit = self.next_share_bytes() < super::sources::CONSUMER_CREDIT_BYTES_MIN;
        let shared_credit = shares_credit.then(|| Arc::clone(&self.shared_credit));
        let source = self.new_source(channel, Arc::clone(&queue), true, subscription.no_ack);
        subscription.source = source;
        self.consumer_count += 1;
        let state = self.channels.entry(channel.0).or_default();
        let (prefetch_count, limit) = (state.prefetch_count, state.limit.clone());
        subscription.prefetch_count = prefetch_count;
        let state = self.sources.get(&source);
        let credit_bytes = state.map_or(0, |source| source.credit_bytes as i64);
        // What the session acks is limited by credit alone, as it would be without acks.
        let acks_for_client = state.is_some_and(|source| source.hooks.acks_for_client);
        let consumer = NewConsumer {
            holder: self.holder(source),
            outlet: Arc::clone(&self.outlet),
            channel: channel.0,
            no_ack: subscription.no_ack && !acks_for_client,
            is_exclusive: subscription.is_exclusive,
            prefetch_count: if acks_for_client { 0 } else { prefetch_count },
            priority: subscription.priority,
            credit_bytes,
            shared_credit,
            limit: limit.filter(|_| !acks_for_client),
        };
        self.wait(channel, Pending::Consume(subscription));
        queue.handle.post(Input::Consume(consumer));
        source
    }

    /// Judges the arguments, too (semantics 13.6).
    fn consumer_priority(&self, queue: &QueueRecord, arguments: &Table) -> Result<i64, ProtocolError> {
        if let Some((name, error)) = wrong_consumer_arguments(QueueType::of(&queue.arguments), arguments).next() {
            let vhost = self.vhost.as_ref().map(|vhost| vhost.name.to_string()).unwrap_or_default();
            let queue = format!("queue '{}' in vhost '{vhost}'", queue.name);
            return Err(Error::Argument(error.reply_text(name, &queue)).into());
        }
        Ok(arguments.get(PRIORITY).and_then(Value::as_i64).unwrap_or(0))
    }

    fn on_cancel(&mut self, channel: ChannelId, tag: &str, nowait: bool) -> Done {
        let Some(id) = self.conn.consumer_source(channel, tag) else {
            return self.answer(channel, nowait, BasicCancelOk { consumer_tag: tag });
        };
        let Some(queue) = self.sources.get(&id).map(|source| Arc::clone(&source.queue)) else {
            return self.answer(channel, nowait, BasicCancelOk { consumer_tag: tag });
        };
        self.forget_reply_consumer(channel, id);
        self.wait(channel, Pending::Cancel { source: id, tag: tag.to_owned(), nowait });
        queue.handle.post(Input::Cancel { holder: self.holder(id), reply_to: self.reply_to(channel) });
        Ok(())
    }

    fn on_get(&mut self, channel: ChannelId, get: &BasicGet<'_>) -> Done {
        let queue = self.readable_queue(channel, get.queue)?;
        if let Some(vhost) = &self.vhost {
            vhost.check_get(&queue)?;
        }
        self.get_from(channel, &queue, get.no_ack);
        Ok(())
    }

    /// Asks a queue for one message.
    pub(super) fn get_from(&mut self, channel: ChannelId, queue: &Arc<QueueRecord>, no_ack: bool) {
        let known = self.channels.get(&channel.0).and_then(|state| state.getters.get(&queue.number).copied());
        let source = known.unwrap_or_else(|| {
            let id = self.new_source(channel, Arc::clone(queue), false, false);
            if let Some(state) = self.channels.get_mut(&channel.0) {
                state.getters.insert(queue.number, id);
            }
            id
        });
        self.wait(channel, Pending::Get { source, name: Arc::clone(&queue.name), no_ack });
        // What hooks may have to send on must not be forgotten when it is handed out.
        let has_hooks =
            self.has_deliver_hooks() && self.sources.get(&source).is_some_and(|source| source.hooks.chain.is_some());
        let (holder, reply_to) = (self.holder(source), self.reply_to(channel));
        queue.handle.post(Input::Get { holder, no_ack: no_ack && !has_hooks, reply_to });
    }

    fn recover(&mut self, channel: ChannelId, requeue: bool) -> Done {
        if !requeue {
            return Err(ProtocolError::new(ReplyCode::NotImplemented, "requeue=false"));
        }
        self.conn.recover(channel);
        self.on_settle(Outcome::Requeue);
        self.flush_settled();
        Ok(())
    }

    /// The channel's next frames wait until the queue has answered.
    pub(super) fn wait(&mut self, channel: ChannelId, pending: Pending) {
        self.conn.wait(channel);
        if let Some(state) = self.channels.get_mut(&channel.0)
            && state.pending.replace(pending).is_none()
        {
            self.pending_count += 1;
        }
    }
}

/// What a binding leads to.
struct Destination<'a> {
    kind: DestinationKind,
    name: &'a str,
}

impl Destination<'_> {
    fn binding(&self, key: &str, arguments: Table) -> BindingSpec {
        BindingSpec {
            destination: without_line_ends(self.name),
            destination_kind: self.kind,
            routing_key: key.to_owned(),
            arguments,
        }
    }
}

/// Carriage returns and line feeds are removed from names in declare, delete and bind (semantics 7.9).
fn without_line_ends(name: &str) -> String {
    name.replace(['\r', '\n'], "")
}

fn owned(table: TableRef<'_>) -> Result<Table, ProtocolError> {
    table.to_owned().map_err(|error| ProtocolError::new(ReplyCode::SyntaxError, error.to_string()))
}
