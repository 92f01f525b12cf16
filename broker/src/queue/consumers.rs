//! Whose turn it is, and who holds what (semantics 13.8 to 13.15).
//!
//! Consumers that may get a message stand in a ring per priority and take turns. One that cannot take a message (prefetch reached, its
//! connection behind, its channel's limit reached) leaves the ring until something is settled or written for it, so that it costs
//! nothing meanwhile. Where only one is to be served, only that one ever joins. What was delivered stays with its holder until it is
//! settled.

mod single_active;
mod turns;

use std::sync::Arc;

use hashbrown::HashMap;

use self::single_active::{Rank, SingleActive};
use self::turns::Turns;
use super::channel_limit::ChannelLimit;
use super::ports::{Delivery, HolderId, NewConsumer, Outlet};
use super::ready::{Entry, Hot};
use super::shared_credit::SharedCredit;
use crate::message::Message;
use crate::window::Window;

/// The subscribing half of a holder.
#[derive(Debug)]
pub(super) struct Consumer {
    no_ack: bool,
    is_exclusive: bool,
    prefetch_count: usize,
    priority: i64,
    credit_bytes: i64,
    /// It will be told when there is room in what it shares with others.
    awaits_shared_credit: bool,
    /// Where only one is served.
    rank: Option<Rank>,
}

/// A consumer or getter with the deliveries that it has not settled.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) id: HolderId,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) channel: u16,
    pub(super) unacked: Window<Entry>,
    next_ticket: u64,
    pub(super) consumer: Option<Consumer>,
    pub(super) limit: Option<Arc<ChannelLimit>>,
    pub(super) shared_credit: Option<Arc<SharedCredit>>,
    /// Deliveries that have not been handed to the outlet yet.
    pub(super) batch: Vec<Delivery>,
}

impl Holder {
    fn new(id: HolderId, outlet: Arc<dyn Outlet>, channel: u16) -> Self {
        Self {
            id,
            outlet,
            channel,
            unacked: Window::default(),
            next_ticket: 1,
            consumer: None,
            limit: None,
            shared_credit: None,
            batch: Vec::new(),
        }
    }

    /// Keeps a delivery until it is settled; returns its ticket.
    #[inline]
    pub(super) fn hold(&mut self, entry: Entry) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.unacked.insert(ticket, entry);
        ticket
    }

    /// Whether the consumer can take a message now; takes a place of its channel's limit if so.
    #[inline]
    fn accepts(&mut self) -> bool {
        let Some(consumer) = &mut self.consumer else { return false };
        if consumer.credit_bytes <= 0 {
            return false;
        }
        let is_full = !consumer.no_ack && consumer.prefetch_count != 0 && self.unacked.len() >= consumer.prefetch_count;
        if is_full {
            return false;
        }
        if let Some(shared) = &self.shared_credit
            && !shared.has_room(self.id.source, &mut consumer.awaits_shared_credit)
        {
            return false;
        }
        match consumer.no_ack {
            true => self.limit.as_ref().is_none_or(|limit| !limit.is_full()),
            false => self.limit.as_ref().is_none_or(|limit| limit.try_take()),
        }
    }
}

/// What became of a message that was offered to the consumers.
pub(super) enum Handed {
    /// Delivered; the consumer will settle it.
    Held,
    /// Delivered and settled by that.
    Gone,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    slots: Vec<Option<Holder>>,
    free: Vec<usize>,
    by_id: HashMap<HolderId, usize>,
    turns: Turns,
    /// Where only one is served.
    single: Option<Box<SingleActive>>,
    consumer_count: usize,
    /// One of them has the queue for itself.
    has_exclusive: bool,
    unacked_count: usize,
    /// Slots whose batch is not empty.
    pub(super) touched: Vec<usize>,
}

impl Consumers {
    /// Nobody is there. With `single_active` only one consumer at a time is served (semantics 13.26).
    pub(super) fn new(single_active: bool) -> Self {
        Self { single: single_active.then(Box::default), ..Self::default() }
    }

    /// Whether only one consumer at a time is served.
    pub(super) fn is_single_active(&self) -> bool {
        self.single.is_some()
    }

    /// The one that is served, where only one is.
    pub(super) fn active(&self) -> Option<HolderId> {
        let slot = self.single.as_ref()?.active()?;
        self.slots.get(slot)?.as_ref().map(|holder| holder.id)
    }

    pub(super) fn consumer_count(&self) -> usize {
        self.consumer_count
    }

    pub(super) fn unacked_count(&self) -> usize {
        self.unacked_count
    }

    /// Whether a consumer has the queue for itself.
    pub(super) fn has_exclusive(&self) -> bool {
        self.has_exclusive
    }

    pub(super) fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.slots.iter().flatten()
    }

    /// What is delivered and not settled, with its body.
    pub(super) fn unacked_bodies(&mut self) -> impl Iterator<Item = &mut Entry> {
        let entries = self.slots.iter_mut().flatten().flat_map(|holder| holder.unacked.values_mut());
        entries.filter(|entry| entry.message.is_some())
    }

    pub(super) fn slot_of(&self, id: HolderId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn holder_mut(&mut self, slot: usize) -> Option<&mut Holder> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The holder's slot, made if it is not there.
    pub(super) fn slot_or_new(&mut self, id: HolderId, outlet: &Arc<dyn Outlet>, channel: u16) -> usize {
        if let Some(&slot) = self.by_id.get(&id) {
            return slot;
        }
        let holder = Holder::new(id, Arc::clone(outlet), channel);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(holder);
                slot
            }
            None => {
                self.slots.push(Some(holder));
                self.slots.len() - 1
            }
        };
        self.by_id.insert(id, slot);
        slot
    }

    pub(super) fn add_consumer(&mut self, new: NewConsumer) {
        let slot = self.slot_or_new(new.holder, &new.outlet, new.channel);
        let rank = self.single.as_mut().map(|single| single.add(slot, new.priority));
        let Some(holder) = self.holder_mut(slot) else { return };
        holder.limit = new.limit;
        holder.shared_credit = new.shared_credit;
        holder.consumer = Some(Consumer {
            no_ack: new.no_ack,
            is_exclusive: new.is_exclusive,
            prefetch_count: usize::from(new.prefetch_count),
            priority: new.priority,
            credit_bytes: new.credit_bytes,
            awaits_shared_credit: false,
            rank,
        });
        self.consumer_count += 1;
        self.has_exclusive |= new.is_exclusive;
        self.turns.add(new.priority);
        self.join_ring(slot);
    }

    /// Ends the subscription; what the holder has not settled stays with it. True if there was one.
    pub(super) fn remove_consumer(&mut self, slot: usize) -> bool {
        let Some(consumer) = self.holder_mut(slot).and_then(|holder| holder.consumer.take()) else { return false };
        self.consumer_count -= 1;
        // Who has the queue for itself was alone.
        self.has_exclusive &= !consumer.is_exclusive;
        self.turns.remove(slot, consumer.priority);
        if let (Some(single), Some(rank)) = (&mut self.single, consumer.rank)
            && let Some(next) = single.remove(slot, rank)
        {
            self.join_ring(next);
        }
        self.forget_if_idle(slot);
        true
    }

    /// Frees a slot that neither consumes nor holds anything.
    pub(super) fn forget_if_idle(&mut self, slot: usize) {
        let is_idle =
            self.holder_mut(slot).is_some_and(|h| h.consumer.is_none() && h.unacked.is_empty() && h.batch.is_empty());
        if is_idle && let Some(holder) = self.slots[slot].take() {
            self.by_id.remove(&holder.id);
            self.free.push(slot);
        }
    }

    /// Lets a consumer take part again, if it stood aside.
    #[inline]
    pub(super) fn join_ring(&mut self, slot: usize) {
        if self.single.as_ref().is_some_and(|single| single.active() != Some(slot)) {
            return;
        }
        if let Some(Some(Holder { consumer: Some(consumer), .. })) = self.slots.get(slot) {
            self.turns.join(slot, consumer.priority);
        }
    }

    /// Lets a consumer take part again together with all that share its channel's limit, itself first among its equals.
    pub(super) fn join_ring_with_channel(&mut self, slot: usize) {
        self.join_ring(slot);
        let Some(limit) = self.holder_mut(slot).and_then(|holder| holder.limit.clone()) else { return };
        for other in (slot + 1..self.slots.len()).chain(0..slot) {
            let other_limit = self.slots[other].as_ref().and_then(|holder| holder.limit.as_ref());
            if other_limit.is_some_and(|other| Arc::ptr_eq(other, &limit)) {
                self.join_ring(other);
            }
        }
    }

    /// Bytes of the consumer's deliveries were written; it may take more.
    pub(super) fn add_credit(&mut self, slot: usize, bytes: i64) {
        if let Some(consumer) = self.holder_mut(slot).and_then(|holder| holder.consumer.as_mut()) {
            consumer.credit_bytes = consumer.credit_bytes.saturating_add(bytes);
            consumer.awaits_shared_credit = false;
            self.join_ring(slot);
        }
    }

    /// Finds the consumer whose turn it is. It has then taken its place of the channel's limit, so a message must follow.
    #[inline]
    pub(super) fn next_turn(&mut self) -> Option<usize> {
        let slots = &mut self.slots;
        self.turns.next(|slot| slots.get_mut(slot).and_then(Option::as_mut).is_some_and(Holder::accepts))
    }

    /// Whether what the consumer gets is settled by handing it over.
    #[inline]
    pub(super) fn is_no_ack(&self, slot: usize) -> bool {
        let holder = self.slots.get(slot).and_then(Option::as_ref);
        holder.and_then(|holder| holder.consumer.as_ref()).is_some_and(|consumer| consumer.no_ack)
    }

    /// Delivers to the consumer whose turn it is. What it must settle is kept with or without its body.
    #[inline]
    pub(super) fn deliver(&mut self, slot: usize, hot: Hot, keeps_body: bool) -> Handed {
        let Some(Some(holder)) = self.slots.get_mut(slot) else { return Handed::Gone };
        let Some(consumer) = &mut holder.consumer else { return Handed::Gone };
        let bytes = hot.message.weight();
        consumer.credit_bytes -= bytes as i64;
        if let Some(shared) = &holder.shared_credit {
            shared.take(bytes);
        }
        if holder.batch.is_empty() {
            self.touched.push(slot);
        }
        let redelivered = hot.redelivered;
        if consumer.no_ack {
            holder.batch.push(Delivery { ticket: 0, redelivered, message: hot.message });
            return Handed::Gone;
        }
        let message = Arc::clone(&hot.message);
        let mut entry = Entry::from(hot);
        if !keeps_body {
            entry.message = None;
        }
        let ticket = holder.hold(entry);
        holder.batch.push(Delivery { ticket, redelivered, message });
        self.unacked_count += 1;
        Handed::Held
    }

    /// What was just delivered goes to the consumer in this form.
    pub(super) fn replace_delivered(&mut self, slot: usize, message: Arc<Message>) {
        let Some(holder) = self.holder_mut(slot) else { return };
        let (Some(consumer), Some(delivery)) = (&mut holder.consumer, holder.batch.last_mut()) else { return };
        consumer.credit_bytes += delivery.message.weight() as i64 - message.weight() as i64;
        delivery.message = message;
    }

    /// Counts a message that a getter holds.
    pub(super) fn count_held(&mut self) {
        self.unacked_count += 1;
    }

    /// Takes settled deliveries from a holder; unknown tickets are skipped. Returns whether its channel must be told that its limit has room.
    pub(super) fn settle(&mut self, slot: usize, tickets: &[u64], mut each: impl FnMut(Entry)) -> bool {
        let Some(Some(holder)) = self.slots.get_mut(slot) else { return false };
        let mut count = 0;
        for &ticket in tickets {
            if let Some(entry) = holder.unacked.remove(ticket) {
                count += 1;
                each(entry);
            }
        }
        self.unacked_count -= count;
        let is_consumer = holder.consumer.is_some();
        let tell = holder.limit.as_ref().is_some_and(|limit| limit.give_back(count));
        match is_consumer {
            false => self.forget_if_idle(slot),
            // Its channel tells all consumers that wait, each in its turn. One that settles must not be before them, or it alone
            // would be served.
            true if tell => {}
            true => self.join_ring(slot),
        }
        tell
    }

    /// Takes everything from a holder, which neither consumes nor waits for anything any more, and forgets it. Returns whether its channel
    /// must be told that its limit has room.
    pub(super) fn detach(&mut self, slot: usize, mut each: impl FnMut(Entry)) -> bool {
        let Some(Some(holder)) = self.slots.get_mut(slot) else { return false };
        let count = holder.unacked.len();
        holder.unacked.drain_up_to(u64::MAX, |_, entry| each(entry));
        holder.batch.clear();
        self.unacked_count -= count;
        let tell = holder.limit.as_ref().is_some_and(|limit| limit.give_back(count));
        if !self.remove_consumer(slot) {
            self.forget_if_idle(slot);
        }
        tell
    }

    /// Gives a consumer another limit (semantics 13.15: what is unacked now counts).
    pub(super) fn set_limit(&mut self, slot: usize, limit: Option<Arc<ChannelLimit>>) {
        let Some(holder) = self.holder_mut(slot) else { return };
        if let Some(old) = holder.limit.take() {
            old.give_back(holder.unacked.len());
        }
        if let Some(limit) = &limit {
            limit.take_unconditionally(holder.unacked.len());
        }
        holder.limit = limit;
        self.join_ring(slot);
    }
}
