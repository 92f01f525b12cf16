//! One queue, as a machine without threads, clock or sockets: inputs in, effects out.
//!
//! The queue is the one truth about its messages: which are ready, who holds which unacked, who is served next. Everything that it
//! decides comes out as [`Effects`], which its shell carries away. Connections appear only as an [`Outlet`] that is passed through.
//! Where messages come from (exchanges, bindings) is none of its business.

pub mod channel_limit;
mod consumers;
mod durability;
pub mod ports;
mod ready;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;

use std::sync::Arc;

pub use self::channel_limit::ChannelLimit;
use self::consumers::{Consumers, Handed};
pub use self::durability::Durability;
pub use self::ports::*;
use self::ready::{Entry, Ready};
use crate::message::Message;

/// What a queue was declared with, as far as the machine cares.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Persistent messages go to the store.
    pub durable: bool,
    /// It is deleted when its last consumer goes (semantics 9.16).
    pub auto_delete: bool,
    /// What the confirms of persistent messages wait for.
    pub durability: Durability,
}

/// A message that the store must keep.
#[derive(Debug)]
pub struct Append {
    /// Its place in the queue.
    pub seq: u64,
    /// What.
    pub message: Arc<Message>,
    /// Who gets the confirm, and whose credit it uses.
    pub origin: Option<Arc<dyn Outlet>>,
    /// The channel that published it.
    pub channel: u16,
    /// Its number for the confirm; 0 when none is wanted.
    pub number: u64,
}

/// What a queue wants done.
#[derive(Debug, Default)]
pub struct Effects {
    /// Notices in order.
    pub notices: Vec<(Arc<dyn Outlet>, Notice)>,
    /// Messages for the store, in order.
    pub appends: Vec<Append>,
    /// Places of stored messages that are done with.
    pub settled: Vec<u64>,
    /// Publishers whose bytes are processed.
    pub processed: Vec<(Arc<dyn Outlet>, usize)>,
    /// The queue has ended: take it out of all tables before the notices go out.
    pub has_ended: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    options: Options,
    ready: Ready,
    consumers: Consumers,
    next_seq: u64,
    has_ended: bool,
}

impl Queue {
    /// An empty queue.
    pub fn new(options: Options) -> Self {
        Self::restore(options, 1, Vec::new())
    }

    /// A queue with stored messages of an earlier run, in order. New ones get places from `first_seq` on, which is above all of theirs.
    pub fn restore(options: Options, first_seq: u64, messages: Vec<(u64, Arc<Message>)>) -> Self {
        let mut ready = Ready::default();
        for (seq, message) in messages {
            ready.push(Entry { seq, message, redelivered: false, is_stored: true });
        }
        Self { options, ready, consumers: Consumers::default(), next_seq: first_seq, has_ended: false }
    }

    /// Ready messages.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Messages that were delivered and not settled.
    pub fn unacked_count(&self) -> usize {
        self.consumers.unacked_count()
    }

    /// Consumers.
    pub fn consumer_count(&self) -> usize {
        self.consumers.consumer_count()
    }

    /// Handles one input. Deliveries gather until [`Self::flush`], so that a run of inputs makes one batch per consumer.
    pub fn handle(&mut self, input: Input, effects: &mut Effects) {
        if self.has_ended {
            return refuse_as_gone(input, effects);
        }
        match input {
            Input::Publish { origin, messages } => return self.on_publish(origin, messages, effects),
            Input::Settle { holder, tickets, settlement } => {
                return self.on_settle(holder, &tickets, settlement, effects);
            }
            Input::Credit { holder, bytes } => {
                if let Some(slot) = self.consumers.slot_of(holder) {
                    self.consumers.add_credit(slot, bytes);
                    self.dispatch(effects);
                }
                return;
            }
            _ => {}
        }
        // Answers must not overtake what was delivered before.
        self.flush(effects);
        match input {
            Input::Consume(new) => self.on_consume(new, effects),
            Input::Cancel { holder, reply_to } => self.on_cancel(holder, &reply_to, effects),
            Input::Get { holder, no_ack, reply_to } => self.on_get(holder, no_ack, &reply_to, effects),
            Input::Detach { holder, reply_to } => self.on_detach(holder, &reply_to, effects),
            Input::SetLimit { holder, limit } => {
                if let Some(slot) = self.consumers.slot_of(holder) {
                    self.consumers.set_limit(slot, limit);
                    self.dispatch(effects);
                }
            }
            Input::LimitLifted { holder } => {
                if let Some(slot) = self.consumers.slot_of(holder) {
                    self.consumers.join_ring_with_channel(slot);
                    self.dispatch(effects);
                }
            }
            Input::Status(reply_to) => {
                let status = Reply::Status { ready: self.ready.len(), consumers: self.consumers.consumer_count() };
                answer(&reply_to, status, effects);
            }
            Input::Purge(reply_to) => {
                let count = self.ready.len();
                effects.settled.extend(self.ready.drain().filter(|entry| entry.is_stored).map(|entry| entry.seq));
                answer(&reply_to, Reply::Purged(count), effects);
            }
            Input::Delete { if_unused, if_empty, reply_to } => {
                self.on_delete(if_unused, if_empty, reply_to.as_ref(), effects);
            }
            // Handled above.
            Input::Publish { .. } | Input::Settle { .. } | Input::Credit { .. } => {}
        }
    }

    /// Hands gathered deliveries over.
    pub fn flush(&mut self, effects: &mut Effects) {
        while let Some(slot) = self.consumers.touched.pop() {
            let Some(holder) = self.consumers.holder_mut(slot) else { continue };
            let deliveries = std::mem::take(&mut holder.batch);
            let notice = Notice::Delivered { source: holder.id.source, deliveries };
            effects.notices.push((Arc::clone(&holder.outlet), notice));
        }
    }

    fn on_publish(&mut self, origin: Option<Arc<dyn Outlet>>, messages: Vec<Incoming>, effects: &mut Effects) {
        let mut numbers = Vec::new();
        let mut processed_bytes = 0;
        for incoming in messages {
            let seq = self.next_seq;
            self.next_seq += 1;
            let is_stored = self.options.durable && incoming.message.is_persistent();
            if is_stored {
                effects.appends.push(Append {
                    seq,
                    message: Arc::clone(&incoming.message),
                    origin: origin.clone(),
                    channel: incoming.channel,
                    number: incoming.number,
                });
            } else {
                processed_bytes += incoming.message.weight();
                if incoming.number != 0 {
                    Numbers::add(&mut numbers, incoming.channel, incoming.number);
                }
            }
            let entry = Entry { seq, message: incoming.message, redelivered: false, is_stored };
            // A message that finds the queue empty and a consumer free never stands in the queue.
            if self.ready.is_empty()
                && let Some(slot) = self.consumers.next_turn()
            {
                self.hand_over(slot, entry, effects);
            } else {
                self.ready.push(entry);
            }
        }
        if let Some(origin) = origin {
            if processed_bytes > 0 {
                effects.processed.push((Arc::clone(&origin), processed_bytes));
            }
            if !numbers.is_empty() {
                effects.notices.push((origin, Notice::Confirmed { numbers, is_taken: true }));
            }
        }
    }

    /// Hands ready messages to consumers while there are both.
    fn dispatch(&mut self, effects: &mut Effects) {
        while !self.ready.is_empty() {
            let Some(slot) = self.consumers.next_turn() else { return };
            if let Some(entry) = self.ready.pop() {
                self.hand_over(slot, entry, effects);
            }
        }
    }

    #[inline]
    fn hand_over(&mut self, slot: usize, entry: Entry, effects: &mut Effects) {
        if let Handed::Gone { seq, is_stored: true } = self.consumers.deliver(slot, entry) {
            effects.settled.push(seq);
        }
    }

    fn on_settle(&mut self, id: HolderId, tickets: &[u64], settlement: Settlement, effects: &mut Effects) {
        let Some(slot) = self.consumers.slot_of(id) else { return };
        let tell = self.limit_listener(slot);
        let ready = &mut self.ready;
        let has_room = self.consumers.settle(slot, tickets, |entry| match settlement {
            Settlement::Remove if entry.is_stored => effects.settled.push(entry.seq),
            Settlement::Remove => {}
            Settlement::Requeue => ready.put_back(Entry { redelivered: true, ..entry }),
        });
        self.tell_limit_lifted(has_room, tell, effects);
        self.dispatch(effects);
    }

    fn on_consume(&mut self, new: NewConsumer, effects: &mut Effects) {
        let reply_to = ReplyTo { outlet: Arc::clone(&new.outlet), channel: new.channel };
        let is_refused = self.consumers.has_exclusive() || new.is_exclusive && self.consumers.consumer_count() > 0;
        if is_refused {
            return answer(&reply_to, Reply::ExclusiveUse, effects);
        }
        answer(&reply_to, Reply::Consuming, effects);
        self.consumers.add_consumer(new);
        self.dispatch(effects);
    }

    fn on_cancel(&mut self, id: HolderId, reply_to: &ReplyTo, effects: &mut Effects) {
        if let Some(slot) = self.consumers.slot_of(id)
            && self.consumers.remove_consumer(slot)
        {
            self.end_if_abandoned(effects);
        }
        answer(reply_to, Reply::Cancelled, effects);
    }

    fn on_get(&mut self, id: HolderId, no_ack: bool, reply_to: &ReplyTo, effects: &mut Effects) {
        let Some(entry) = self.ready.pop() else { return answer(reply_to, Reply::Empty, effects) };
        let (redelivered, message) = (entry.redelivered, Arc::clone(&entry.message));
        let mut ticket = 0;
        if no_ack {
            effects.settled.extend(entry.is_stored.then_some(entry.seq));
        } else {
            let slot = self.consumers.slot_or_new(id, &reply_to.outlet, reply_to.channel);
            if let Some(holder) = self.consumers.holder_mut(slot) {
                ticket = holder.hold(entry);
            }
            self.consumers.count_held();
        }
        let remaining = self.ready.len();
        answer(reply_to, Reply::Got { source: id.source, ticket, redelivered, message, remaining, no_ack }, effects);
    }

    fn on_detach(&mut self, id: HolderId, reply_to: &ReplyTo, effects: &mut Effects) {
        if let Some(slot) = self.consumers.slot_of(id) {
            let had_consumers = self.consumers.consumer_count();
            let tell = self.limit_listener(slot);
            let ready = &mut self.ready;
            let has_room = self.consumers.detach(slot, |entry| ready.put_back(Entry { redelivered: true, ..entry }));
            self.tell_limit_lifted(has_room, tell, effects);
            if self.consumers.consumer_count() < had_consumers {
                self.end_if_abandoned(effects);
            }
            if !self.has_ended {
                self.dispatch(effects);
                self.flush(effects);
            }
        }
        answer(reply_to, Reply::Detached, effects);
    }

    fn on_delete(&mut self, if_unused: bool, if_empty: bool, reply_to: Option<&ReplyTo>, effects: &mut Effects) {
        // if-empty is looked at first (semantics 9.19).
        let reply = if if_empty && !self.ready.is_empty() {
            Reply::NotEmpty
        } else if if_unused && self.consumers.consumer_count() > 0 {
            Reply::InUse
        } else {
            let count = self.ready.len();
            self.end(effects);
            Reply::Deleted(count)
        };
        if let Some(reply_to) = reply_to {
            answer(reply_to, reply, effects);
        }
    }

    /// The last consumer has gone from an auto-delete queue (semantics 9.16).
    fn end_if_abandoned(&mut self, effects: &mut Effects) {
        if self.options.auto_delete && self.consumers.consumer_count() == 0 {
            self.end(effects);
        }
    }

    fn end(&mut self, effects: &mut Effects) {
        for holder in self.consumers.holders().filter(|holder| holder.consumer.is_some()) {
            let notice = Notice::ConsumerCancelled { source: holder.id.source };
            effects.notices.push((Arc::clone(&holder.outlet), notice));
        }
        for holder in self.consumers.holders() {
            // Deliveries of this queue no longer count for their channels.
            if holder.limit.as_ref().is_some_and(|limit| limit.give_back(holder.unacked.len())) {
                let notice = Notice::LimitLifted { channel: holder.channel };
                effects.notices.push((Arc::clone(&holder.outlet), notice));
            }
        }
        self.ready = Ready::default();
        self.consumers = Consumers::default();
        self.has_ended = true;
        effects.has_ended = true;
    }

    /// Whom to tell when a holder's limit has room; only asked for where there is a limit.
    fn limit_listener(&mut self, slot: usize) -> Option<(Arc<dyn Outlet>, u16)> {
        let holder = self.consumers.holder_mut(slot)?;
        holder.limit.as_ref()?;
        Some((Arc::clone(&holder.outlet), holder.channel))
    }

    fn tell_limit_lifted(&mut self, has_room: bool, listener: Option<(Arc<dyn Outlet>, u16)>, effects: &mut Effects) {
        if has_room && let Some((outlet, channel)) = listener {
            effects.notices.push((outlet, Notice::LimitLifted { channel }));
        }
    }
}

fn answer(reply_to: &ReplyTo, reply: Reply, effects: &mut Effects) {
    effects.notices.push((Arc::clone(&reply_to.outlet), Notice::Reply { channel: reply_to.channel, reply }));
}

/// Answers what reaches a queue that has ended. Messages that were routed to it count as taken (semantics 14.6).
fn refuse_as_gone(input: Input, effects: &mut Effects) {
    match input {
        Input::Publish { origin: Some(origin), messages } => {
            let mut numbers = Vec::new();
            for incoming in messages.iter().filter(|incoming| incoming.number != 0) {
                Numbers::add(&mut numbers, incoming.channel, incoming.number);
            }
            let bytes = messages.iter().map(|incoming| incoming.message.weight()).sum();
            effects.processed.push((Arc::clone(&origin), bytes));
            if !numbers.is_empty() {
                effects.notices.push((origin, Notice::Confirmed { numbers, is_taken: true }));
            }
        }
        Input::Consume(NewConsumer { outlet, channel, .. }) => {
            answer(&ReplyTo { outlet, channel }, Reply::Gone, effects);
        }
        Input::Cancel { reply_to, .. } => answer(&reply_to, Reply::Cancelled, effects),
        Input::Detach { reply_to, .. } => answer(&reply_to, Reply::Detached, effects),
        Input::Get { reply_to, .. }
        | Input::Status(reply_to)
        | Input::Purge(reply_to)
        | Input::Delete { reply_to: Some(reply_to), .. } => answer(&reply_to, Reply::Gone, effects),
        Input::Publish { origin: None, .. }
        | Input::Delete { reply_to: None, .. }
        | Input::Settle { .. }
        | Input::Credit { .. }
        | Input::SetLimit { .. }
        | Input::LimitLifted { .. } => {}
    }
}
