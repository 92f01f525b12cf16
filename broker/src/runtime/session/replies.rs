//! What queues answer and send, turned into frames.

use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashSet;
use plugin_api::value::Table;

use super::Session;
use crate::amqp::connection::Delivery;
use crate::amqp::method::*;
use crate::amqp::{ChannelId, Outcome, Outstanding, ProtocolError, ReplyCode, SourceId};
use crate::message::Message;
use crate::metrics::Stat;
use crate::metrics::connections::ConsumerFacts;
use crate::queue::{self, HolderId, Input, Notice, Reply};
use crate::vhost::declare::QueueSpec;
use crate::vhost::error::Kind;
use crate::vhost::{Changed, Error, QueueRecord};

/// A consumer that is about to be one.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) tag: String,
    pub(super) no_ack: bool,
    pub(super) is_exclusive: bool,
    pub(super) nowait: bool,
    pub(super) priority: i64,
    /// Set when it subscribes.
    pub(super) prefetch_count: u16,
    pub(super) arguments: Table,
    pub(super) source: SourceId,
}

/// The method of a channel that a queue has yet to answer.
#[derive(Debug)]
pub(super) enum Pending {
    Declare {
        queue: Arc<QueueRecord>,
        spec: QueueSpec,
        is_passive: bool,
    },
    Purge {
        name: Arc<str>,
        nowait: bool,
    },
    Delete {
        queue: Arc<QueueRecord>,
        nowait: bool,
    },
    Consume(Subscription),
    Cancel {
        source: SourceId,
        tag: String,
        nowait: bool,
    },
    Get {
        source: SourceId,
        name: Arc<str>,
        /// Whether the client does without an ack.
        no_ack: bool,
    },
    /// The store has yet to keep what was changed.
    Stored {
        answer: Vec<u8>,
        method: MethodId,
    },
}

impl Pending {
    fn method(&self) -> MethodId {
        match self {
            Self::Declare { .. } => QueueDeclare::ID,
            Self::Purge { .. } => QueuePurge::ID,
            Self::Delete { .. } => QueueDelete::ID,
            Self::Consume(_) => BasicConsume::ID,
            Self::Cancel { .. } => BasicCancel::ID,
            Self::Get { .. } => BasicGet::ID,
            Self::Stored { method, .. } => *method,
        }
    }
}

impl Session {
    pub(super) fn on_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Delivered { source, deliveries, takes_shared_credit } => {
                let (mut bytes, mut redelivered) = (0, 0);
                for delivery in &deliveries {
                    bytes += delivery.message.weight();
                    redelivered += u64::from(delivery.redelivered);
                }
                if takes_shared_credit {
                    self.owed_shared_bytes += bytes;
                }
                if self.has_deliver_hooks() {
                    return self.on_hooked_deliveries(now, SourceId(source), &deliveries, bytes);
                }
                self.on_delivered(SourceId(source), &deliveries, bytes, redelivered);
            }
            Notice::Confirmed { numbers, is_taken } => {
                for range in numbers {
                    let channel = ChannelId(range.channel);
                    if let Err(error) = self.conn.confirm(channel, range.first..=range.last, is_taken) {
                        self.fail(now, channel, error);
                    }
                }
            }
            Notice::Reply { channel, reply } => self.on_reply(now, ChannelId(channel), reply),
            Notice::ConsumerCancelled { source, has_queue_ended } => {
                self.on_consumer_cancelled(SourceId(source), has_queue_ended);
            }
            Notice::QueueEnded { source } => self.leave_remains(SourceId(source)),
            Notice::DeliveryTimedOut { source, timeout_ms } => {
                self.on_delivery_timed_out(now, SourceId(source), timeout_ms);
            }
            Notice::LimitLifted { channel } => self.on_limit_lifted(ChannelId(channel)),
            Notice::Judged => self.on_judged(now),
            Notice::AlarmsCleared => self.conn.unblock(now),
            Notice::CloseConnection { reason } => self.on_forced_close(now, reason),
        }
    }

    pub(super) fn on_delivered(
        &mut self,
        id: SourceId,
        deliveries: &[queue::Delivery],
        bytes: usize,
        redelivered: u64,
    ) {
        // A source that is gone was detached: its queue has the messages back already, or will.
        let Some(source) = self.sources.get_mut(&id) else { return };
        if !source.no_ack {
            source.outstanding += deliveries.len();
        }
        let was_much = source.owes_much();
        source.owed_bytes += bytes;
        if !was_much && source.owes_much() {
            self.owing.push(id);
        }
        let frames = deliveries.iter().map(|delivery| Delivery {
            ticket: delivery.ticket,
            redelivered: delivery.redelivered,
            message: &delivery.message,
        });
        self.conn.deliver(source.channel, id, frames);
        if let Some(stats) = &source.stats {
            let stat = if source.no_ack { Stat::DeliverNoAck } else { Stat::Deliver };
            stats.add(&self.stats, stat, deliveries.len() as u64);
            stats.add(&self.stats, Stat::Redeliver, redelivered);
        }
        let channel = source.channel.0;
        if self.touched.last() != Some(&channel) {
            self.touched.push(channel);
        }
        if self.vhost.as_ref().is_some_and(|vhost| vhost.is_traced()) {
            let (channel, queue) = (source.channel.0, Arc::clone(&source.queue.name));
            for delivery in deliveries {
                self.trace_delivery(channel, &queue, delivery.redelivered, &delivery.message);
            }
        }
    }

    fn trace_delivery(&self, channel: u16, queue: &str, redelivered: bool, message: &Message) {
        if let Some((vhost, by)) = self.traced(channel) {
            vhost.trace_delivery(by, message, queue, redelivered);
        }
    }

    fn on_consumer_cancelled(&mut self, id: SourceId, has_queue_ended: bool) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let channel = source.channel;
        // Who deletes a queue that it consumes from itself hears delete-ok first, as RabbitMQ's channels do. Clients close
        // their connection when they hear of the cancellation, and would miss the answer.
        if let Some(state) = self.channels.get_mut(&channel.0)
            && has_queue_ended
            && state.pending.as_ref().is_some_and(|pending| pending.method() == QueueDelete::ID)
        {
            state.cancelled.push(id);
            return;
        }
        if std::mem::take(&mut source.is_consumer) {
            self.consumer_count -= 1;
        }
        self.remove_consumer_statistics(channel, id.0);
        if let Some(tag) = self.conn.remove_consumer(channel, id) {
            self.tell_consumer_deleted(channel, id, &tag);
            if self.conn.client().consumer_cancel_notify {
                self.conn.send(channel, BasicCancel { consumer_tag: &tag, nowait: true });
            }
        }
        if has_queue_ended {
            // What the client has of it may stay unsettled for ever.
            self.leave_remains(id);
        } else {
            self.forget_source_if_idle(id);
        }
    }

    /// Tells each queue of the channel's consumers. Whoever is told first is served first, so the first is another one each time.
    pub(super) fn on_limit_lifted(&mut self, channel: ChannelId) {
        let Some(state) = self.channels.get_mut(&channel.0) else { return };
        state.limit_turn = state.limit_turn.wrapping_add(1);
        let (before, after) = state.sources.split_at(state.limit_turn % state.sources.len().max(1));
        let mut told = HashSet::new();
        for id in after.iter().chain(before) {
            let Some(source) = self.sources.get(id).filter(|source| source.is_consumer) else { continue };
            if told.insert(source.queue.number) {
                let holder = HolderId { connection: self.number, source: id.0 };
                source.queue.handle.post(Input::LimitLifted { holder });
            }
        }
    }

    fn on_reply(&mut self, now: Instant, channel: ChannelId, reply: Reply) {
        if self.on_ending_reply(now, channel, &reply) {
            return;
        }
        let Some(pending) = self.channels.get_mut(&channel.0).and_then(|state| state.pending.take()) else { return };
        self.pending_count -= 1;
        let method = pending.method();
        self.touch(channel.0);
        let result = self.on_answer(channel, pending, reply);
        match result {
            Ok(()) => {
                let is_waiting = self.channels.get(&channel.0).is_some_and(|state| state.pending.is_some());
                if !is_waiting {
                    let state = self.channels.get_mut(&channel.0);
                    for id in state.map(|state| std::mem::take(&mut state.cancelled)).unwrap_or_default() {
                        self.on_consumer_cancelled(id, true);
                    }
                    self.conn.resume(channel);
                }
            }
            Err(error) => self.fail(now, channel, error.in_method(method)),
        }
    }

    fn on_answer(&mut self, channel: ChannelId, pending: Pending, reply: Reply) -> Result<(), ProtocolError> {
        match (pending, reply) {
            (Pending::Declare { queue, .. }, Reply::Status { ready, consumers }) => {
                let (message_count, consumer_count) = (count(ready), count(consumers));
                self.conn.send(channel, QueueDeclareOk { queue: &queue.name, message_count, consumer_count });
            }
            (Pending::Declare { queue, spec, is_passive }, Reply::Stored) => {
                self.wait(channel, Pending::Declare { queue: Arc::clone(&queue), spec, is_passive });
                queue.handle.post(Input::Status(self.reply_to(channel)));
            }
            (Pending::Stored { answer, .. }, Reply::Stored) => self.conn.out().tail().extend_from_slice(&answer),
            (_, Reply::StoreFailed) => {
                return Err(ProtocolError::new(ReplyCode::InternalError, "the store has failed"));
            }
            // The queue was deleted between its name's look-up and the question: from the beginning.
            (Pending::Declare { spec, is_passive, .. }, Reply::Gone) => {
                self.declare_queue(channel, spec, is_passive, false)?;
            }
            (Pending::Purge { nowait, .. }, Reply::Purged(ready)) => {
                if !nowait {
                    self.conn.send(channel, QueuePurgeOk { message_count: count(ready) });
                }
            }
            (Pending::Delete { queue, nowait }, Reply::Deleted(ready)) => {
                self.exclusive_queues.remove(queue.number);
                let delete_ok = QueueDeleteOk { message_count: count(ready) };
                let changed = if queue.durable { Changed::Durable } else { Changed::Transient };
                self.answer_stored(channel, changed, nowait, delete_ok)?;
            }
            // Somebody else deleted it first.
            (Pending::Delete { queue, nowait }, Reply::Gone) => {
                let changed = self.vhost.as_ref().map_or(Changed::Nothing, |vhost| vhost.unchanged(queue.durable));
                self.answer_stored(channel, changed, nowait, QueueDeleteOk { message_count: 0 })?;
            }
            (Pending::Delete { queue, .. }, Reply::InUse) => {
                let (name, vhost) = (queue.name.to_string(), self.vhost_name());
                return Err(Error::InUse { kind: Kind::Queue, name, vhost }.into());
            }
            (Pending::Delete { queue, .. }, Reply::NotEmpty) => {
                return Err(Error::NotEmpty { name: queue.name.to_string(), vhost: self.vhost_name() }.into());
            }
            (Pending::Consume(subscription), Reply::Consuming) => {
                self.conn.add_consumer(channel, subscription.source, &subscription.tag, subscription.no_ack);
                self.tell_consumer_created(channel, &subscription);
                self.show_consumer(channel, &subscription);
                if !subscription.nowait {
                    self.conn.send(channel, BasicConsumeOk { consumer_tag: &subscription.tag });
                }
            }
            (Pending::Consume(subscription), reply) => {
                let name = self.drop_consumer(subscription.source);
                return Err(match reply {
                    Reply::ExclusiveUse => Error::ExclusiveUse { name, vhost: self.vhost_name() },
                    _ => self.no_queue(name),
                }
                .into());
            }
            (Pending::Cancel { source, tag, nowait }, _) => {
                if let Some(state) = self.sources.get_mut(&source)
                    && std::mem::take(&mut state.is_consumer)
                {
                    self.consumer_count -= 1;
                }
                self.remove_consumer_statistics(channel, source.0);
                // The queue may have ended first and taken the consumer with it; the client waits for its answer all the same.
                if self.conn.remove_consumer(channel, source).is_some() {
                    self.tell_consumer_deleted(channel, source, &tag);
                }
                if !nowait {
                    self.conn.send(channel, BasicCancelOk { consumer_tag: &tag });
                }
                self.forget_source_if_idle(source);
            }
            (
                Pending::Get { source, no_ack, .. },
                Reply::Got { ticket, redelivered, message, remaining, no_ack: is_settled, .. },
            ) => {
                let message = match self.hook_got(source, redelivered, message)? {
                    Ok(message) => message,
                    Err(outcome) => return self.get_next(channel, source, (ticket, is_settled, outcome), no_ack),
                };
                if no_ack && !is_settled {
                    self.settle_for_client(source, ticket, Outcome::Ack);
                }
                let outstanding = (!no_ack).then_some(Outstanding { source, ticket });
                if let Some(state) = self.sources.get_mut(&source) {
                    state.outstanding += usize::from(!no_ack);
                    if let Some(stats) = &state.stats {
                        stats.add(&self.stats, if no_ack { Stat::GetNoAck } else { Stat::Get }, 1);
                        stats.add(&self.stats, Stat::Redeliver, u64::from(redelivered));
                    }
                    if self.vhost.as_ref().is_some_and(|vhost| vhost.is_traced()) {
                        let queue = Arc::clone(&state.queue.name);
                        self.trace_delivery(channel.0, &queue, redelivered, &message);
                    }
                }
                self.conn.get_ok(channel, outstanding, redelivered, count(remaining), &message);
                self.forget_source_if_idle(source);
            }
            (Pending::Get { source, .. }, Reply::Empty) => {
                if let Some(stats) = self.sources.get(&source).and_then(|state| state.stats.as_ref()) {
                    stats.add(&self.stats, Stat::GetEmpty, 1);
                }
                self.conn.send(channel, BasicGetEmpty { cluster_id: "" });
                self.forget_source_if_idle(source);
            }
            (Pending::Get { name, .. } | Pending::Purge { name, .. }, _) => {
                return Err(self.no_queue(name.to_string()).into());
            }
            (pending, reply) => {
                let text = format!("{pending:?} was answered with {reply:?}");
                return Err(ProtocolError::new(ReplyCode::InternalError, text));
            }
        }
        Ok(())
    }

    /// A hook has taken a message away that basic.get was to have: it gets the next one.
    fn get_next(
        &mut self,
        channel: ChannelId,
        source: SourceId,
        (ticket, is_settled, outcome): (u64, bool, Outcome),
        no_ack: bool,
    ) -> Result<(), ProtocolError> {
        let Some(queue) = self.sources.get(&source).map(|state| Arc::clone(&state.queue)) else { return Ok(()) };
        if !is_settled {
            self.settle_for_client(source, ticket, outcome);
            self.flush_settled();
        }
        self.get_from(channel, &queue, no_ack);
        Ok(())
    }

    fn show_consumer(&mut self, channel: ChannelId, subscription: &Subscription) {
        let Some(source) = self.sources.get(&subscription.source) else { return };
        let consumer = ConsumerFacts {
            source: subscription.source.0,
            tag: subscription.tag.as_str().into(),
            queue: Arc::clone(&source.queue.name),
            queue_number: source.queue.number,
            ack_required: !subscription.no_ack,
            exclusive: subscription.is_exclusive,
            prefetch_count: subscription.prefetch_count,
            arguments: subscription.arguments.clone(),
        };
        self.add_consumer_statistics(channel, consumer);
    }

    /// A consumer that did not become one.
    fn drop_consumer(&mut self, id: SourceId) -> String {
        let name = self.sources.get(&id).map(|source| source.queue.name.to_string()).unwrap_or_default();
        if let Some(source) = self.sources.get_mut(&id) {
            source.is_consumer = false;
            self.consumer_count -= 1;
        }
        self.forget_source_if_idle(id);
        name
    }

    fn no_queue(&self, name: String) -> Error {
        Error::NotFound { kind: Kind::Queue, name, vhost: self.vhost_name() }
    }

    fn vhost_name(&self) -> String {
        self.vhost.as_ref().map(|vhost| vhost.name.to_string()).unwrap_or_default()
    }
}

/// The wire has 32 bits for counts.
fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
