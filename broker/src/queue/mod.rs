//! One queue, as a machine without threads, clock or sockets: inputs in, effects out.
//!
//! The queue is the one truth about its messages: which are ready, who holds which unacked, who is served next. Everything that it
//! decides comes out as [`Effects`], which its shell carries away. Connections appear only as an [`Outlet`] that is passed through.
//! Where messages come from (exchanges, bindings) is none of its business.

mod attempts;
pub mod channel_limit;
mod consumers;
mod counts;
mod discarded;
mod durability;
mod dying;
mod expiry;
mod levels;
mod limits;
mod options;
mod paging;
pub mod ports;
mod ready;
mod shared_credit;
mod ttl;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;

pub use self::channel_limit::ChannelLimit;
use self::consumers::{Consumers, Handed, Overdue};
use self::counts::Counts;
pub use self::counts::{Capacity, Report};
pub use self::discarded::Discarded;
pub use self::durability::Durability;
use self::dying::DyingLine;
use self::levels::Levels;
pub use self::options::{Options, Overflow, Priorities};
use self::paging::{Loading, WaitingGet};
pub use self::ports::*;
use self::ready::{Entry, Hot};
pub use self::shared_credit::SharedCredit;
use crate::message::Message;
use crate::metrics::Stat;

/// A message that the store must keep.
#[derive(Debug)]
pub struct Append {
    /// Its place in the queue.
    pub place: Place,
    /// What.
    pub message: Arc<Message>,
    /// Lasting, or only out of memory.
    pub stored: Stored,
    /// When it came to the queue, in milliseconds since the epoch.
    pub came_ms: u64,
    /// Its confirm waits for the disk, not only for the operating system.
    pub is_synced: bool,
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
    pub settled: Vec<SeqRange>,
    /// Messages that died, in order. The store is told of them only when whoever gets them has them, so that a crash leaves
    /// a message in one place at least.
    pub dead: Vec<Dead>,
    /// Lasting messages up to these places of their levels may be in somebody's hands now; no level twice (semantics 13.21).
    pub marks: Vec<Place>,
    /// Stored messages that are needed in memory.
    pub load: Option<Load>,
    /// Publishers whose bytes are processed.
    pub processed: Vec<(Arc<dyn Outlet>, usize)>,
    /// How many messages died that nobody wanted elsewhere, in the order of [`DeathReason`].
    pub dropped: [u32; 4],
    /// Messages to be dropped, which may take long.
    pub discarded: Discarded,
    /// The queue has ended: take it out of all tables before the notices go out.
    pub has_ended: bool,
}

/// What an earlier run left of a queue.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// New messages get places from here on, which is above all that were ever used.
    pub first_seq: u64,
    /// Its levels of priority; one, 0, where it has no others.
    pub levels: Vec<RestoredLevel>,
}

/// What an earlier run left in one level of a queue.
#[derive(Clone, Debug, Default)]
pub struct RestoredLevel {
    /// Which.
    pub level: u8,
    /// Lasting messages: runs of places, both ends inclusive, ascending.
    pub ranges: Vec<(u64, u64)>,
    /// The last place that may have been handed out; 0 for none.
    pub marked: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    options: Options,
    ready: Levels,
    consumers: Consumers,
    budget_bytes: usize,
    /// Of the bodies of unacked messages.
    unacked_bytes: usize,
    loading: Option<Loading>,
    /// A shrink came while a load was under way.
    is_shrink_due: bool,
    next_load: u64,
    /// The last load was for messages that died.
    has_loaded_dying: bool,
    waiting_gets: VecDeque<WaitingGet>,
    dying: DyingLine,
    /// When somebody last used it, in milliseconds since the epoch, where it has no consumers; none before the first look at the clock.
    used_ms: Option<u64>,
    lost: usize,
    has_ended: bool,
    counts: Counts,
    /// The time of the input that is being handled, in milliseconds since the epoch.
    now_ms: u64,
}

impl Queue {
    /// An empty queue.
    pub fn new(options: Options) -> Self {
        Self::restore(options, &Restored { first_seq: 1, ..Restored::default() })
    }

    /// A queue with stored messages of an earlier run.
    pub fn restore(options: Options, restored: &Restored) -> Self {
        let mut queue = Self {
            ready: Levels::new(options.priorities, restored.first_seq, options.message_ttl_ms.unwrap_or(ttl::NEVER)),
            consumers: Consumers::new(&options),
            options,
            budget_bytes: usize::MAX,
            unacked_bytes: 0,
            loading: None,
            is_shrink_due: false,
            next_load: 0,
            has_loaded_dying: false,
            waiting_gets: VecDeque::new(),
            dying: DyingLine::default(),
            used_ms: None,
            lost: 0,
            has_ended: false,
            counts: Counts::default(),
            now_ms: 0,
        };
        for level in &restored.levels {
            for &(first, last) in &level.ranges {
                queue.ready.restore_run(level.level, first, last, level.marked);
            }
        }
        queue
    }

    /// Messages that the store should have had and did not, since the start.
    pub fn lost_count(&self) -> usize {
        self.lost
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

    /// The consumer that is served, where only one is (semantics 13.26).
    pub fn active_consumer(&self) -> Option<HolderId> {
        self.consumers.active()
    }

    /// Handles one input at a time in milliseconds since the epoch. Deliveries gather until [`Self::flush`], so that a run of inputs makes
    /// one batch per consumer.
    pub fn handle(&mut self, now_ms: u64, input: Input, effects: &mut Effects) {
        self.now_ms = now_ms;
        self.consumers.set_now(now_ms);
        if self.has_ended {
            return refuse_as_gone(input, effects);
        }
        self.expire(effects);
        self.take(input, effects);
        if self.ready.may_want() || !self.dying.is_empty() {
            self.read_ahead(effects);
        }
    }

    fn take(&mut self, input: Input, effects: &mut Effects) {
        if !matches!(input, Input::Tick | Input::Shrink | Input::Reconfigure(_) | Input::Loaded { .. }) {
            self.counts.use_at(self.now_ms);
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
            Input::Detach { holders, reply_to } => self.on_detach(&holders, &reply_to, effects),
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
                // Every declaration asks for it that wants an answer, and nobody else does (semantics 18.8).
                self.touch();
                answer(&reply_to, status, effects);
            }
            Input::Browse { count, reply_to } => {
                let messages = self.ready.peek(count);
                answer(&reply_to, Reply::Browsed { messages, ready: self.ready.len() }, effects);
            }
            Input::Purge(reply_to) => {
                let count = self.ready.len();
                let mut discarded = std::mem::take(&mut effects.discarded);
                self.forget_ready(&mut discarded, |range| settle(range, effects));
                effects.discarded = discarded;
                answer(&reply_to, Reply::Purged(count), effects);
                self.serve_gets(effects);
            }
            Input::Loaded { id, through, messages } => self.on_loaded(id, through, messages, effects),
            Input::Shrink => self.shrink(effects),
            Input::Reconfigure(options) => self.reconfigure(options, effects),
            Input::Tick => self.on_tick(effects),
            Input::Buried { bytes } => self.on_buried(bytes, effects),
            Input::Delete { if_unused, if_empty, reply_to } => {
                self.on_delete(if_unused, if_empty, reply_to.as_ref(), effects);
            }
            // Handled above.
            Input::Publish { .. } | Input::Settle { .. } | Input::Credit { .. } => {}
        }
    }

    /// Policies have changed (semantics 23.8). What a queue is made with stays.
    fn reconfigure(&mut self, options: Options, effects: &mut Effects) {
        let Options { durable, auto_delete, priorities, single_active_consumer, .. } = self.options;
        let old = std::mem::replace(
            &mut self.options,
            Options { durable, auto_delete, priorities, single_active_consumer, ..options },
        );
        if old.message_ttl_ms != options.message_ttl_ms {
            self.ready.set_ttl(options.message_ttl_ms.unwrap_or(ttl::NEVER));
        }
        self.consumers.set_timeout(options.consumer_timeout_ms);
        if old.expires_ms != options.expires_ms {
            self.touch();
        }
        self.trim(effects);
    }

    /// Hands gathered deliveries over.
    pub fn flush(&mut self, effects: &mut Effects) {
        while let Some(slot) = self.consumers.touched.pop() {
            // Who was detached meanwhile gets nothing.
            let Some(holder) = self.consumers.holder_mut(slot).filter(|holder| !holder.batch.is_empty()) else {
                continue;
            };
            let deliveries = std::mem::take(&mut holder.batch);
            let takes_shared_credit = holder.shared_credit.is_some();
            let notice = Notice::Delivered { source: holder.id.source, deliveries, takes_shared_credit };
            effects.notices.push((Arc::clone(&holder.outlet), notice));
        }
        self.note_serving();
    }

    fn on_publish(&mut self, origin: Option<Arc<dyn Outlet>>, messages: Burst<Incoming>, effects: &mut Effects) {
        let mut numbers = Vec::new();
        let mut refused = Vec::new();
        let mut processed_bytes = 0;
        self.counts.add(Stat::Publish, messages.len() as u64);
        for incoming in messages {
            let Incoming { message, channel, number } = incoming;
            if self.refuses(&message) {
                processed_bytes += message.weight();
                if number != 0 {
                    Numbers::add(&mut refused, channel, number);
                }
                self.on_refused(message, effects);
                continue;
            }
            let level = self.ready.level_of(&message);
            let seq = self.ready.next_seq(level);
            let place = Place { level, seq };
            let is_lasting = self.options.durable && message.is_persistent();
            // A message that finds nothing before it and a consumer free never stands in the queue.
            let is_next = self.ready.would_be_next(level) && self.waiting_gets.is_empty();
            let turn = if is_next { self.consumers.next_turn() } else { None };
            let is_cold = turn.is_none() && (self.ready.has_cold(level) || self.is_over_budget());
            // Its body is not kept while its consumer has it.
            let is_paged = is_cold || turn.is_some_and(|slot| self.is_over_budget() && !self.consumers.is_no_ack(slot));
            if !is_lasting && number != 0 {
                Numbers::add(&mut numbers, channel, number);
            }
            let stored = match (is_lasting, is_paged) {
                (true, _) => Stored::Lasting,
                (false, true) => Stored::Paged,
                (false, false) => Stored::Nowhere,
            };
            if stored == Stored::Nowhere {
                processed_bytes += message.weight();
            } else {
                // The publisher's credit comes back from the store, so that a slow disk stops it.
                let number = if is_lasting { number } else { 0 };
                let message = Arc::clone(&message);
                effects.appends.push(Append {
                    place,
                    message,
                    stored,
                    came_ms: self.now_ms,
                    is_synced: is_lasting && self.options.durability == Durability::Synced,
                    origin: origin.clone(),
                    channel,
                    number,
                });
            }
            let deadline_ms = self.ready.deadline_from(self.now_ms, &message);
            if is_cold {
                self.ready.push_cold(place, stored, deadline_ms, &message);
            } else {
                let hot = Hot { seq, level, message, deadline_ms, returns: 0, redelivered: false, stored };
                match turn {
                    Some(slot) => {
                        self.hand_over(slot, hot, effects);
                        continue;
                    }
                    None => self.ready.push(hot),
                }
            }
            self.trim(effects);
        }
        // Nobody could take those at once that may not wait at all (semantics 18.2).
        self.expire(effects);
        // Something of a higher level may have come before what is being loaded for them.
        if !self.waiting_gets.is_empty() {
            self.dispatch(effects);
        }
        if let Some(origin) = origin {
            if processed_bytes > 0 {
                self.processed(Arc::clone(&origin), processed_bytes, effects);
            }
            if !refused.is_empty() {
                effects.notices.push((Arc::clone(&origin), Notice::Confirmed { numbers: refused, is_taken: false }));
            }
            if !numbers.is_empty() {
                effects.notices.push((origin, Notice::Confirmed { numbers, is_taken: true }));
            }
        }
    }

    /// Hands ready messages to consumers while there are both.
    fn dispatch(&mut self, effects: &mut Effects) {
        self.serve_gets(effects);
        loop {
            self.expire(effects);
            if !self.ready.has_hot() {
                return;
            }
            let Some(slot) = self.consumers.next_turn() else { return };
            if let Some(hot) = self.ready.pop() {
                self.hand_over(slot, hot, effects);
            }
        }
    }

    #[inline]
    fn hand_over(&mut self, slot: usize, mut hot: Hot, effects: &mut Effects) {
        let (bytes, body_bytes) = (hot.message.weight(), hot.message.body().len() as u64);
        let (place, stored) = (hot.place(), hot.stored);
        self.counts.add(Stat::Redeliver, u64::from(hot.redelivered));
        let keeps_body = !self.is_over_budget() || self.consumers.is_no_ack(slot);
        if !keeps_body {
            Self::page_out(&self.ready, place, &hot.message, &mut hot.stored, hot.deadline_ms, effects);
        }
        let delivered = self.as_delivered(&hot);
        let kept_as = hot.stored;
        let handed = self.consumers.deliver(slot, hot, keeps_body);
        if let Some(delivered) = delivered {
            self.consumers.replace_delivered(slot, delivered);
        }
        match handed {
            Handed::Held => {
                self.unacked_bytes += if keeps_body { bytes } else { 0 };
                self.counts.add(Stat::Deliver, 1);
                self.counts.hold(kept_as, keeps_body, body_bytes);
                self.mark(place, stored, effects);
            }
            Handed::Gone => {
                self.counts.add(Stat::DeliverNoAck, 1);
                settle(SeqRange::one(place.level, place.seq, stored), effects);
            }
        }
    }

    /// A message is in somebody's hands and may come back.
    #[inline]
    fn mark(&mut self, place: Place, stored: Stored, effects: &mut Effects) {
        if stored == Stored::Lasting && self.ready.mark(place) {
            match effects.marks.iter_mut().find(|mark| mark.level == place.level) {
                Some(mark) => *mark = place,
                None => effects.marks.push(place),
            }
        }
    }

    fn on_settle(&mut self, id: HolderId, tickets: &[u64], settlement: Settlement, effects: &mut Effects) {
        let Some(slot) = self.consumers.slot_of(id) else { return };
        let tell = self.limit_listener(slot);
        let Self { consumers, unacked_bytes, counts, .. } = self;
        let mut others = Vec::new();
        let has_room = consumers.settle(slot, tickets, |entry| {
            *unacked_bytes -= entry.message.as_ref().map_or(0, |message| message.weight());
            counts.let_go(entry.stored, entry.message.is_some(), u64::from(entry.body_bytes));
            match settlement {
                Settlement::Remove => {
                    counts.add(Stat::Ack, 1);
                    settle(SeqRange::one(entry.level, entry.seq, entry.stored), effects);
                }
                Settlement::Reject | Settlement::Requeue => others.push(entry),
            }
        });
        match settlement {
            Settlement::Remove => {}
            Settlement::Reject => others.into_iter().for_each(|entry| self.die(entry, DeathReason::Rejected, effects)),
            Settlement::Requeue => self.take_back(others, effects),
        }
        self.tell_limit_lifted(has_room, tell, effects);
        self.dispatch(effects);
    }

    fn on_consume(&mut self, new: NewConsumer, effects: &mut Effects) {
        let reply_to = ReplyTo { outlet: Arc::clone(&new.outlet), channel: new.channel };
        let is_shared = self.consumers.consumer_count() > 0 || self.consumers.is_single_active();
        let is_refused = self.consumers.has_exclusive() || new.is_exclusive && is_shared;
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
            self.touch();
            self.end_if_abandoned(effects);
            // Where only one is served, it may be the turn of the next.
            if !self.has_ended {
                self.dispatch(effects);
            }
        }
        answer(reply_to, Reply::Cancelled, effects);
    }

    fn on_get(&mut self, holder: HolderId, no_ack: bool, reply_to: &ReplyTo, effects: &mut Effects) {
        self.touch();
        self.waiting_gets.push_back(WaitingGet { holder, no_ack, reply_to: reply_to.clone() });
        self.serve_gets(effects);
    }

    fn answer_get(&mut self, get: &WaitingGet, hot: Hot, effects: &mut Effects) {
        let &WaitingGet { holder: id, no_ack, ref reply_to } = get;
        let (redelivered, message) = (hot.redelivered, Arc::clone(&hot.message));
        let delivered = self.as_delivered(&hot);
        let mut ticket = 0;
        self.counts.add(if no_ack { Stat::GetNoAck } else { Stat::Get }, 1);
        self.counts.add(Stat::Redeliver, u64::from(redelivered));
        if no_ack {
            settle(SeqRange::one(hot.level, hot.seq, hot.stored), effects);
        } else {
            let place = hot.place();
            self.mark(place, hot.stored, effects);
            let mut entry = Entry::from(hot);
            if self.is_over_budget() {
                Self::page_out(&self.ready, place, &message, &mut entry.stored, entry.deadline_ms, effects);
                entry.message = None;
            } else {
                self.unacked_bytes += message.weight();
            }
            self.counts.hold(entry.stored, entry.message.is_some(), u64::from(entry.body_bytes));
            let slot = self.consumers.slot_or_new(id, &reply_to.outlet, reply_to.channel);
            ticket = self.consumers.hold(slot, entry);
        }
        // What has expired behind it is gone with it, and not counted (semantics 18.4, 21.3).
        self.expire(effects);
        let remaining = self.ready.len();
        let message = delivered.unwrap_or(message);
        answer(reply_to, Reply::Got { source: id.source, ticket, redelivered, message, remaining, no_ack }, effects);
    }

    fn on_detach(&mut self, ids: &[HolderId], reply_to: &ReplyTo, effects: &mut Effects) {
        if !self.waiting_gets.is_empty() {
            let gone: HashSet<HolderId> = ids.iter().copied().collect();
            self.waiting_gets.retain(|get| !gone.contains(&get.holder));
        }
        let had_consumers = self.consumers.consumer_count();
        let mut returned = Vec::new();
        // All of them first: what one of them held must not go to the next of those that go with it.
        for &id in ids {
            let Some(slot) = self.consumers.slot_of(id) else { continue };
            let tell = self.limit_listener(slot);
            let Self { consumers, unacked_bytes, counts, .. } = self;
            let has_room = consumers.detach(slot, |entry| {
                *unacked_bytes -= entry.message.as_ref().map_or(0, |message| message.weight());
                counts.let_go(entry.stored, entry.message.is_some(), u64::from(entry.body_bytes));
                returned.push(entry);
            });
            self.tell_limit_lifted(has_room, tell, effects);
        }
        if self.consumers.consumer_count() < had_consumers {
            self.touch();
            self.end_if_abandoned(effects);
        }
        if !self.has_ended {
            self.take_back(returned, effects);
            self.dispatch(effects);
            self.flush(effects);
        }
        answer(reply_to, Reply::Detached, effects);
    }

    /// Whoever holds a delivery for too long loses its channel, and all comes back (semantics 13.29).
    pub(super) fn end_overdue(&mut self, effects: &mut Effects) {
        for Overdue { outlet, source, timeout_ms } in self.consumers.take_overdue() {
            effects.notices.push((outlet, Notice::DeliveryTimedOut { source, timeout_ms }));
        }
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
        for holder in self.consumers.holders() {
            let source = holder.id.source;
            let notice = match holder.consumer {
                Some(_) => Notice::ConsumerCancelled { source, has_queue_ended: true },
                None => Notice::QueueEnded { source },
            };
            effects.notices.push((Arc::clone(&holder.outlet), notice));
        }
        for holder in self.consumers.holders() {
            // Deliveries of this queue no longer count for their channels.
            if holder.limit.as_ref().is_some_and(|limit| limit.give_back(holder.unacked.len())) {
                let notice = Notice::LimitLifted { channel: holder.channel };
                effects.notices.push((Arc::clone(&holder.outlet), notice));
            }
        }
        for get in std::mem::take(&mut self.waiting_gets) {
            answer(&get.reply_to, Reply::Gone, effects);
        }
        self.forget_ready(&mut effects.discarded, |_| {});
        self.forget_dying(effects);
        self.consumers = Consumers::default();
        self.unacked_bytes = 0;
        (self.counts.unacked, self.counts.unacked_body_bytes) = Default::default();
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

/// The store may forget these, if it knows them.
#[inline]
fn settle(range: SeqRange, effects: &mut Effects) {
    if range.stored != Stored::Nowhere {
        SeqRange::join(&mut effects.settled, range);
    }
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
        | Input::Browse { reply_to, .. }
        | Input::Purge(reply_to)
        | Input::Delete { reply_to: Some(reply_to), .. } => answer(&reply_to, Reply::Gone, effects),
        Input::Publish { origin: None, .. }
        | Input::Delete { reply_to: None, .. }
        | Input::Settle { .. }
        | Input::Credit { .. }
        | Input::SetLimit { .. }
        | Input::LimitLifted { .. }
        | Input::Loaded { .. }
        | Input::Shrink
        | Input::Reconfigure(_)
        | Input::Tick
        | Input::Buried { .. } => {}
    }
}
