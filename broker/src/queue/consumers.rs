//! Whose turn it is, and who holds what (semantics 13.8 to 13.15).
//!
//! Consumers that may get a message stand in a ring per priority and take turns. One that cannot take a message (prefetch reached, its
//! connection behind, its channel's limit reached) leaves the ring until something is settled or written for it, so that it costs
//! nothing meanwhile. Where only one is to be served, only that one ever joins. What was delivered stays with its holder until it is
//! settled.

mod ack_times;
mod single_active;
mod turns;

use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use self::ack_times::{AckTimeout, AckTimes};
use self::single_active::{Rank, SingleActive};
use self::turns::Turns;
use super::Options;
use super::channel_limit::ChannelLimit;
use super::ports::{Burst, Delivery, HolderId, NewConsumer, Outlet};
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
    is_short_of_shared_credit: bool,
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
    /// Where deliveries must be acked in time.
    times: Option<Box<AckTimes>>,
    pub(super) consumer: Option<Consumer>,
    pub(super) limit: Option<Arc<ChannelLimit>>,
    pub(super) shared_credit: Option<Arc<SharedCredit>>,
    /// Deliveries that have not been handed to the outlet yet.
    pub(super) batch: Burst<Delivery>,
}

impl Holder {
    fn new(id: HolderId, outlet: Arc<dyn Outlet>, channel: u16, is_timed: bool) -> Self {
        Self {
            id,
            outlet,
            channel,
            unacked: Window::default(),
            next_ticket: 1,
            times: is_timed.then(Box::default),
            consumer: None,
            limit: None,
            shared_credit: None,
            batch: Burst::new(),
        }
    }

    /// Keeps a delivery until it is settled; returns its ticket.
    #[inline]
    fn hold(&mut self, entry: Entry, now_ms: u64, timeout: Option<&mut Box<AckTimeout>>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.unacked.insert(ticket, entry);
        if let (Some(timeout), Some(times)) = (timeout, &mut self.times) {
            timeout.on_delivery(times, ticket, now_ms);
        }
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
            && !shared.has_room(self.id.source, &mut consumer.is_short_of_shared_credit)
        {
            return false;
        }
        match consumer.no_ack {
            true => self.limit.as_ref().is_none_or(|limit| !limit.is_full()),
            false => self.limit.as_ref().is_none_or(|limit| limit.try_take()),
        }
    }
}

/// Among so few the one who is meant is found sooner by looking than by hashing; most queues have one consumer.
const SCAN_MAX: usize = 4;

/// Somebody who has held a delivery for too long (semantics 13.29).
pub(super) struct Overdue {
    pub(super) outlet: Arc<dyn Outlet>,
    /// Its source number.
    pub(super) source: u32,
    /// The time that it had.
    pub(super) timeout_ms: u64,
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
    slots: SmallVec<[Option<Holder>; 1]>,
    free: Vec<usize>,
    by_id: HashMap<HolderId, usize>,
    turns: Turns,
    /// Where only one is served.
    single: Option<Box<SingleActive>>,
    consumer_count: usize,
    /// One of them has the queue for itself.
    has_exclusive: bool,
    unacked_count: usize,
    now_ms: u64,
    /// Where deliveries must be acked in time.
    timeout: Option<Box<AckTimeout>>,
    /// Slots whose batch is not empty.
    pub(super) touched: SmallVec<[usize; 2]>,
}

impl Consumers {
    /// Nobody is there.
    pub(super) fn new(options: &Options) -> Self {
        let timeout = options.consumer_timeout_ms.map(|timeout_ms| Box::new(AckTimeout::new(timeout_ms)));
        Self { single: options.single_active_consumer.then(Box::default), timeout, ..Self::default() }
    }

    /// The time in milliseconds since the epoch, for what follows.
    #[inline]
    pub(super) fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// When [`Self::take_overdue`] must be asked.
    #[inline]
    pub(super) fn next_check_ms(&self) -> Option<u64> {
        self.timeout.as_ref()?.next_check_ms
    }

    /// Deliveries must be acked in this time from now on, or in any. What is unacked and was not timed yet counts from now.
    pub(super) fn set_timeout(&mut self, timeout_ms: Option<u64>) {
        if timeout_ms == self.timeout.as_ref().map(|timeout| timeout.timeout_ms) {
            return;
        }
        let now_ms = self.now_ms;
        self.timeout = timeout_ms.map(|timeout_ms| Box::new(AckTimeout::new(timeout_ms)));
        for holder in self.slots.iter_mut().flatten() {
            match timeout_ms {
                None => holder.times = None,
                Some(_) if holder.times.is_some() => {}
                Some(_) => {
                    let oldest = holder.unacked.first().map(|(ticket, _)| AckTimes::since(ticket, now_ms));
                    holder.times = Some(Box::new(oldest.unwrap_or_default()));
                }
            }
        }
        if let Some(timeout) = &mut self.timeout
            && self.unacked_count > 0
        {
            timeout.next_check_ms = Some(now_ms);
        }
    }

    /// Whose oldest delivery has been unacked for too long; each is named once.
    pub(super) fn take_overdue(&mut self) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        let Some(timeout) = &mut self.timeout else { return overdue };
        if timeout.next_check_ms.is_none_or(|check_ms| self.now_ms < check_ms) {
            return overdue;
        }
        let mut earliest_ms = None;
        for holder in self.slots.iter_mut().flatten() {
            let oldest = holder.unacked.first().map(|(ticket, _)| ticket);
            let Some(times) = holder.times.as_mut().filter(|times| !times.is_told) else { continue };
            let Some(since_ms) = times.oldest_ms(oldest) else { continue };
            let due_ms = since_ms.saturating_add(timeout.timeout_ms);
            if due_ms <= self.now_ms {
                times.is_told = true;
                let (outlet, source) = (Arc::clone(&holder.outlet), holder.id.source);
                overdue.push(Overdue { outlet, source, timeout_ms: timeout.timeout_ms });
            } else {
                earliest_ms = Some(earliest_ms.map_or(due_ms, |earliest: u64| earliest.min(due_ms)));
            }
        }
        timeout.checked(self.now_ms, earliest_ms);
        overdue
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

    #[inline]
    pub(super) fn slot_of(&self, id: HolderId) -> Option<usize> {
        if self.slots.len() > SCAN_MAX {
            return self.by_id.get(&id).copied();
        }
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(|holder| holder.id == id))
    }

    pub(super) fn holder_mut(&mut self, slot: usize) -> Option<&mut Holder> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The holder's slot, made if it is not there.
    pub(super) fn slot_or_new(&mut self, id: HolderId, outlet: &Arc<dyn Outlet>, channel: u16) -> usize {
        if let Some(slot) = self.slot_of(id) {
            return slot;
        }
        let holder = Holder::new(id, Arc::clone(outlet), channel, self.timeout.is_some());
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
            is_short_of_shared_credit: false,
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
            consumer.is_short_of_shared_credit = false;
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
        let ticket = holder.hold(entry, self.now_ms, self.timeout.as_mut());
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

    /// A getter holds a message; returns its ticket.
    pub(super) fn hold(&mut self, slot: usize, entry: Entry) -> u64 {
        let Some(Some(holder)) = self.slots.get_mut(slot) else { return 0 };
        self.unacked_count += 1;
        holder.hold(entry, self.now_ms, self.timeout.as_mut())
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
