//! Random inputs against a simple model: two queues that share the limit of one channel, and what must always hold.
//!
//! Nothing is lost or doubled, messages leave in order of level and publication, requeued ones keep their place and are marked, no
//! prefetch and no limit is exceeded, nobody who could be served waits, where only one is to be active only that one is served, every
//! request is answered once, every publish is confirmed once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use self::modelled::Modelled;
use super::*;
use crate::message::Parts;

mod deaths;
mod modelled;
mod slow;

#[derive(Debug, Default)]
struct Inbox {
    notices: Mutex<Vec<Notice>>,
    processed_bytes: Mutex<usize>,
}

impl Outlet for Inbox {
    fn post(&self, notice: Notice) {
        self.notices.lock().push(notice);
    }

    fn publishes_processed(&self, bytes: usize) {
        *self.processed_bytes.lock() += bytes;
    }
}

/// What is done to one of the queues. Indices are taken modulo what is there.
#[derive(Clone, Debug)]
enum Op {
    Publish { priorities: Vec<u8>, is_persistent: bool },
    Consume { no_ack: bool, is_exclusive: bool, prefetch_count: u16, priority: i64, is_limited: bool, credit: u8 },
    Cancel(usize),
    Get { no_ack: bool },
    Settle { holder: usize, places: Vec<usize>, settlement: Settlement },
    Detach(Vec<usize>),
    Credit(usize, u8),
    SetMax(u16),
    Budget(u8),
    JoinLimit(usize),
    Status,
    Purge,
    Delete { if_unused: bool, if_empty: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let settlement = prop_oneof![Just(Settlement::Remove), Just(Settlement::Reject), Just(Settlement::Requeue)];
    let consume = (any::<bool>(), 0..20_u8, 0..4_u16, 0..3_i64, any::<bool>(), 1..6_u8);
    prop_oneof![
        8 => (prop::collection::vec(0..5_u8, 1..5), any::<bool>())
            .prop_map(|(priorities, is_persistent)| Op::Publish { priorities, is_persistent }),
        4 => consume.prop_map(|(no_ack, exclusive, prefetch_count, priority, is_limited, credit)| Op::Consume {
            no_ack,
            is_exclusive: exclusive == 0,
            prefetch_count,
            priority,
            is_limited,
            credit,
        }),
        1 => any::<usize>().prop_map(Op::Cancel),
        2 => any::<bool>().prop_map(|no_ack| Op::Get { no_ack }),
        8 => (any::<usize>(), prop::collection::vec(any::<usize>(), 1..5), settlement)
            .prop_map(|(holder, places, settlement)| Op::Settle { holder, places, settlement }),
        1 => prop::collection::vec(any::<usize>(), 1..4).prop_map(Op::Detach),
        4 => (any::<usize>(), 1..6_u8).prop_map(|(holder, credit)| Op::Credit(holder, credit)),
        1 => (0..4_u16).prop_map(Op::SetMax),
        2 => (0..8_u8).prop_map(Op::Budget),
        1 => any::<usize>().prop_map(Op::JoinLimit),
        1 => Just(Op::Status),
        1 => Just(Op::Purge),
        1 => (any::<bool>(), 0..20_u8)
            .prop_map(|(if_unused, rare)| Op::Delete { if_unused, if_empty: rare != 0 }),
    ]
}

#[derive(Debug)]
struct HolderModel {
    /// None for a getter, and once it is cancelled.
    consumer: Option<ConsumerModel>,
    is_limited: bool,
    /// Ticket to message.
    held: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct ConsumerModel {
    no_ack: bool,
    is_exclusive: bool,
    prefetch_count: u16,
    priority: i64,
    credit_bytes: i64,
}

/// When it is a message's turn: its level, and its number.
type Turn = (Reverse<u8>, u64);

struct World {
    queues: [Modelled; 2],
    limit: Arc<ChannelLimit>,
    limit_max: usize,
    inbox: Arc<Inbox>,
    next_source: u32,
    next_number: u64,
    confirmed: BTreeSet<u64>,
    published_bytes: usize,
}

const CHANNEL: u16 = 7;

fn weight() -> i64 {
    message(0, false, 0).weight() as i64
}

/// The body is the message's number in eight bytes, so all weigh the same.
fn message(number: u64, is_persistent: bool, priority: u8) -> Arc<Message> {
    let properties = [0x18, 0, if is_persistent { 2 } else { 1 }, priority];
    Message::new(Parts { exchange: "", routing_key: "q", properties: &properties }, &number.to_be_bytes())
}

fn number_of(message: &Message) -> u64 {
    u64::from_be_bytes(message.body().try_into().unwrap())
}

fn holder_id(source: u32) -> HolderId {
    HolderId { connection: 1, source }
}

impl World {
    fn new(options: [Options; 2]) -> Self {
        let queues = options.map(Modelled::new);
        Self {
            queues,
            limit: Arc::new(ChannelLimit::new(2)),
            limit_max: 2,
            inbox: Arc::default(),
            next_source: 1,
            next_number: 1,
            confirmed: BTreeSet::new(),
            published_bytes: 0,
        }
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::<Inbox>::clone(&self.inbox)
    }

    fn reply_to(&self) -> ReplyTo {
        ReplyTo { outlet: self.outlet(), channel: CHANNEL }
    }

    fn limit_held(&self) -> usize {
        let holders = self.queues.iter().filter(|q| !q.has_ended).flat_map(|q| q.holders.values());
        holders.filter(|holder| holder.is_limited).map(|holder| holder.held.len()).sum()
    }

    fn limit_is_full(&self) -> bool {
        self.limit_max != 0 && self.limit_held() >= self.limit_max
    }

    fn accepts(&self, at: usize, source: u32, holder: &HolderModel) -> bool {
        let modelled = &self.queues[at];
        let may_be_served = !modelled.options.single_active_consumer || modelled.active == Some(source);
        holder.consumer.as_ref().is_some_and(|consumer| {
            may_be_served
                && consumer.credit_bytes > 0
                && (consumer.no_ack
                    || consumer.prefetch_count == 0
                    || holder.held.len() < usize::from(consumer.prefetch_count))
                && !(holder.is_limited && self.limit_is_full())
        })
    }

    fn nth_holder(&self, at: usize, nth: usize) -> Option<u32> {
        let holders = &self.queues[at].holders;
        holders.keys().nth(nth % holders.len().max(1)).copied()
    }

    /// Gives an input to a queue, and carries on what follows from it. Returns the replies.
    fn input(&mut self, at: usize, input: Input) -> Vec<Reply> {
        let mut effects = Effects::default();
        let modelled = &mut self.queues[at];
        modelled.queue.handle(0, input, &mut effects);
        modelled.queue.flush(&mut effects);
        // A store that answers at once; portions are small.
        while let Some(load) = modelled.carry_out(&mut effects, &mut self.confirmed, &self.inbox) {
            let loaded = modelled.read(&load, 2);
            modelled.queue.handle(0, loaded, &mut effects);
            modelled.queue.flush(&mut effects);
        }
        modelled.has_ended |= effects.has_ended;
        let ended_now = effects.has_ended;
        for (outlet, bytes) in effects.processed {
            outlet.publishes_processed(bytes);
        }
        for (outlet, notice) in effects.notices {
            outlet.post(notice);
        }
        self.take_notices(at, ended_now)
    }

    fn take_notices(&mut self, at: usize, ended_now: bool) -> Vec<Reply> {
        let notices = std::mem::take(&mut *self.inbox.notices.lock());
        let mut replies = Vec::new();
        let mut delivered = Vec::new();
        let mut lifted = false;
        for notice in notices {
            match notice {
                Notice::Delivered { source, deliveries, .. } => {
                    assert!(!deliveries.is_empty());
                    let turns: Vec<Turn> =
                        deliveries.iter().map(|delivery| self.queues[at].turn(number_of(&delivery.message))).collect();
                    assert!(turns.is_sorted(), "one consumer's batch is in order: {turns:?}");
                    delivered.extend(deliveries.into_iter().map(|delivery| (source, delivery)));
                }
                Notice::Confirmed { numbers, is_taken } => {
                    assert!(is_taken);
                    for number in numbers.iter().flat_map(|range| range.first..=range.last) {
                        assert!(self.confirmed.insert(number), "confirmed twice");
                    }
                }
                Notice::Reply { channel, reply } => {
                    assert_eq!(channel, CHANNEL);
                    replies.push(reply);
                }
                Notice::ConsumerCancelled { source, .. } => {
                    assert!(ended_now);
                    let consumer = self.queues[at].holders.get_mut(&source).and_then(|holder| holder.consumer.take());
                    assert!(consumer.is_some(), "only a consumer is cancelled, and once");
                }
                Notice::QueueEnded { source } => {
                    assert!(ended_now);
                    let holder = self.queues[at].holders.remove(&source);
                    assert!(
                        holder.is_some_and(|holder| holder.consumer.is_none()),
                        "each holder hears of the end once"
                    );
                }
                Notice::LimitLifted { channel } => {
                    assert_eq!(channel, CHANNEL);
                    lifted = true;
                }
                Notice::DeliveryTimedOut { .. }
                | Notice::CloseConnection { .. }
                | Notice::AlarmsCleared
                | Notice::Judged => {
                    panic!("no queue says that")
                }
            }
        }
        if ended_now {
            let modelled = &mut self.queues[at];
            assert!(
                modelled.holders.values().all(|holder| holder.consumer.is_none()),
                "every consumer hears of the end"
            );
            modelled.ready.clear();
            modelled.holders.clear();
            modelled.active = None;
        }
        self.check_delivered(at, delivered, lifted);
        if lifted {
            self.tell_limited();
        }
        replies
    }

    /// Deliveries of one step are the lowest ready messages, whoever got them.
    fn check_delivered(&mut self, at: usize, mut delivered: Vec<(u32, Delivery)>, is_limit_lifted: bool) {
        delivered.sort_by_key(|(_, delivery)| self.queues[at].turn(number_of(&delivery.message)));
        let mut lowest_priority = None;
        for (source, delivery) in delivered {
            let modelled = &mut self.queues[at];
            let ((_, first), redelivered) = modelled.ready.pop_first().expect("what is delivered was ready");
            assert_eq!(number_of(&delivery.message), first, "the first ready message goes first");
            assert_eq!(delivery.redelivered, redelivered, "message {first}");
            let may_be_served = !modelled.options.single_active_consumer || modelled.active == Some(source);
            assert!(may_be_served, "{source} is served, and {:?} is active", modelled.active);
            let holder = modelled.holders.get_mut(&source).expect("deliveries have a consumer");
            let consumer = holder.consumer.as_mut().expect("only consumers get deliveries");
            assert!(consumer.credit_bytes > 0, "delivered without credit");
            consumer.credit_bytes -= delivery.message.weight() as i64;
            lowest_priority = Some(lowest_priority.map_or(consumer.priority, |p: i64| p.min(consumer.priority)));
            if consumer.no_ack {
                modelled.check_gone(first);
                continue;
            }
            let prefetch_count = usize::from(consumer.prefetch_count);
            assert!(holder.held.insert(delivery.ticket, first).is_none(), "a ticket is used once");
            assert!(prefetch_count == 0 || holder.held.len() <= prefetch_count, "prefetch exceeded");
            let is_limited = holder.is_limited;
            assert!(!is_limited || self.limit_max == 0 || self.limit_held() <= self.limit_max, "limit exceeded");
        }
        if let Some(lowest) = lowest_priority {
            // Who waits for the limit that was just lifted is told by the channel.
            let passed_over = self.queues[at].holders.iter().any(|(&source, holder)| {
                holder.consumer.as_ref().is_some_and(|consumer| consumer.priority > lowest)
                    && self.accepts(at, source, holder)
                    && !(holder.is_limited && is_limit_lifted)
            });
            assert!(!passed_over, "a higher priority is served first");
        }
    }

    /// What a connection does when its channel's limit has room.
    fn tell_limited(&mut self) {
        for at in 0..2 {
            let limited: Vec<u32> = self.queues[at]
                .holders
                .iter()
                .filter(|(_, holder)| holder.is_limited && holder.consumer.is_some())
                .map(|(&source, _)| source)
                .collect();
            for source in limited {
                let replies = self.input(at, Input::LimitLifted { holder: holder_id(source) });
                assert!(replies.is_empty());
            }
        }
    }

    fn run(&mut self, at: usize, op: Op) {
        match op {
            Op::Publish { priorities, is_persistent } => self.publish(at, &priorities, is_persistent),
            Op::Consume { no_ack, is_exclusive, prefetch_count, priority, is_limited, credit } => {
                let consumer = ConsumerModel {
                    no_ack,
                    is_exclusive,
                    prefetch_count,
                    priority,
                    credit_bytes: i64::from(credit) * weight(),
                };
                self.consume(at, consumer, is_limited);
            }
            Op::Cancel(nth) => self.cancel(at, nth),
            Op::Get { no_ack } => self.get(at, no_ack),
            Op::Settle { holder, places, settlement } => self.settle(at, holder, &places, settlement),
            Op::Detach(nths) => self.detach(at, &nths),
            Op::Credit(nth, credit) => {
                let Some(source) = self.nth_holder(at, nth) else { return };
                let bytes = i64::from(credit) * weight();
                let holder = self.queues[at].holders.get_mut(&source).unwrap();
                if let Some(consumer) = &mut holder.consumer {
                    consumer.credit_bytes += bytes;
                }
                assert!(self.input(at, Input::Credit { holder: holder_id(source), bytes }).is_empty());
            }
            Op::SetMax(max) => {
                self.limit_max = usize::from(max);
                self.limit.set_max(max);
                self.tell_limited();
            }
            Op::JoinLimit(nth) => {
                let Some(source) = self.nth_holder(at, nth) else { return };
                let holder = self.queues[at].holders.get_mut(&source).unwrap();
                if holder.is_limited || holder.consumer.is_none() {
                    return;
                }
                holder.is_limited = true;
                let limit = Some(Arc::clone(&self.limit));
                assert!(self.input(at, Input::SetLimit { holder: holder_id(source), limit }).is_empty());
            }
            Op::Budget(messages) => {
                let bytes = usize::from(messages) * weight() as usize;
                self.queues[at].queue.set_budget(if messages == 7 { usize::MAX } else { bytes });
                assert!(self.input(at, Input::Shrink).is_empty());
                // Where somebody consumes, a little is read back at once.
                let Modelled { queue, .. } = &self.queues[at];
                assert!(queue.memory_bytes() <= bytes || queue.consumer_count() > 0 || messages == 7);
            }
            Op::Status => {
                let replies = self.input(at, Input::Status(self.reply_to()));
                let modelled = &self.queues[at];
                match replies.as_slice() {
                    [Reply::Gone] if modelled.has_ended => {}
                    [Reply::Status { ready, consumers }] => {
                        assert_eq!((*ready, *consumers), (modelled.ready.len(), modelled.consumer_count()));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Op::Purge => {
                let ready = std::mem::take(&mut self.queues[at].ready);
                let replies = self.input(at, Input::Purge(self.reply_to()));
                match replies.as_slice() {
                    [Reply::Gone] if self.queues[at].has_ended => {}
                    [Reply::Purged(count)] if *count == ready.len() => {
                        ready.keys().for_each(|&(_, message)| self.queues[at].check_gone(message));
                    }
                    other => panic!("{other:?}"),
                }
            }
            Op::Delete { if_unused, if_empty } => self.delete(at, if_unused, if_empty),
        }
    }

    fn publish(&mut self, at: usize, priorities: &[u8], is_persistent: bool) {
        let modelled = &mut self.queues[at];
        let messages: Vec<Arc<Message>> =
            priorities.iter().map(|priority| modelled.next_message(is_persistent, *priority)).collect();
        self.published_bytes += messages.iter().map(|message| message.weight()).sum::<usize>();
        // Where there are levels a message may be handed out before one of a higher level that comes with it.
        let portion = if modelled.options.priorities.is_some() { 1 } else { messages.len() };
        for portion in messages.chunks(portion) {
            let mut incoming = Vec::new();
            for message in portion {
                let modelled = &mut self.queues[at];
                if !modelled.has_ended {
                    let turn = modelled.turn(number_of(message));
                    modelled.ready.insert(turn, false);
                }
                incoming.push(Incoming { message: Arc::clone(message), channel: CHANNEL, number: self.next_number });
                self.next_number += 1;
            }
            let replies = self.input(at, Input::Publish { origin: Some(self.outlet()), messages: incoming.into() });
            assert!(replies.is_empty());
        }
        assert_eq!(self.confirmed.len() as u64, self.next_number - 1, "every publish is confirmed");
        assert_eq!(*self.inbox.processed_bytes.lock(), self.published_bytes, "every publish gives its credit back");
    }

    fn consume(&mut self, at: usize, consumer: ConsumerModel, is_limited: bool) {
        let source = self.next_source;
        self.next_source += 1;
        let new = NewConsumer {
            holder: holder_id(source),
            outlet: self.outlet(),
            channel: CHANNEL,
            no_ack: consumer.no_ack,
            is_exclusive: consumer.is_exclusive,
            prefetch_count: consumer.prefetch_count,
            priority: consumer.priority,
            credit_bytes: consumer.credit_bytes,
            shared_credit: None,
            limit: is_limited.then(|| Arc::clone(&self.limit)),
        };
        let modelled = &mut self.queues[at];
        let has_exclusive =
            modelled.holders.values().filter_map(|h| h.consumer.as_ref()).any(|consumer| consumer.is_exclusive);
        let is_shared = modelled.consumer_count() > 0 || modelled.options.single_active_consumer;
        let is_refused = has_exclusive || consumer.is_exclusive && is_shared;
        if !modelled.has_ended && !is_refused {
            modelled.active.get_or_insert(source);
            let holder = HolderModel { consumer: Some(consumer), is_limited, held: BTreeMap::new() };
            modelled.holders.insert(source, holder);
        }
        let replies = self.input(at, Input::Consume(new));
        match replies.as_slice() {
            [Reply::Gone] if self.queues[at].has_ended => {}
            [Reply::ExclusiveUse] if is_refused => {}
            [Reply::Consuming] if !is_refused => {}
            other => panic!("{other:?}"),
        }
    }

    fn cancel(&mut self, at: usize, nth: usize) {
        let Some(source) = self.nth_holder(at, nth) else { return };
        let holder = self.queues[at].holders.get_mut(&source).unwrap();
        let was_consumer = holder.consumer.take().is_some();
        if holder.held.is_empty() {
            self.queues[at].holders.remove(&source);
        }
        self.queues[at].on_gone(&[source]);
        let is_abandoned = self.queues[at].options.auto_delete && was_consumer && self.queues[at].consumer_count() == 0;
        let replies = self.input(at, Input::Cancel { holder: holder_id(source), reply_to: self.reply_to() });
        assert!(matches!(replies.as_slice(), [Reply::Cancelled]), "{replies:?}");
        assert_eq!(self.queues[at].has_ended, is_abandoned);
    }

    fn get(&mut self, at: usize, no_ack: bool) {
        let source = self.next_source;
        self.next_source += 1;
        let reply_to = self.reply_to();
        let replies = self.input(at, Input::Get { holder: holder_id(source), no_ack, reply_to });
        let modelled = &mut self.queues[at];
        match replies.as_slice() {
            [Reply::Gone] if modelled.has_ended => {}
            [Reply::Empty] => assert!(modelled.ready.is_empty()),
            [Reply::Got { source: from, ticket, redelivered, message, remaining, no_ack: is_settled }] => {
                let ((_, first), was_delivered) = modelled.ready.pop_first().expect("what is got was ready");
                assert_eq!((number_of(message), *redelivered), (first, was_delivered));
                assert_eq!((*from, *remaining, *is_settled), (source, modelled.ready.len(), no_ack));
                if no_ack {
                    modelled.check_gone(first);
                } else {
                    let held = BTreeMap::from([(*ticket, first)]);
                    modelled.holders.insert(source, HolderModel { consumer: None, is_limited: false, held });
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, at: usize, nth: usize, places: &[usize], settlement: Settlement) {
        let Some(source) = self.nth_holder(at, nth) else { return };
        let modelled = &mut self.queues[at];
        let holder = modelled.holders.get_mut(&source).unwrap();
        let mut tickets = BTreeSet::new();
        let mut messages = Vec::new();
        for place in places {
            let Some(&ticket) = holder.held.keys().nth(place % holder.held.len().max(1)) else { break };
            tickets.insert(ticket);
            messages.push(holder.held.remove(&ticket).unwrap());
        }
        if holder.held.is_empty() && holder.consumer.is_none() {
            modelled.holders.remove(&source);
        }
        let mut gone = Vec::new();
        for message in messages {
            match settlement {
                Settlement::Remove | Settlement::Reject => gone.push(message),
                Settlement::Requeue => {
                    let turn = modelled.turn(message);
                    modelled.ready.insert(turn, true);
                }
            }
        }
        let tickets = tickets.into_iter().collect();
        let replies = self.input(at, Input::Settle { holder: holder_id(source), tickets, settlement });
        assert!(replies.is_empty());
        gone.into_iter().for_each(|message| self.queues[at].check_gone(message));
    }

    fn detach(&mut self, at: usize, nths: &[usize]) {
        let sources: BTreeSet<u32> = nths.iter().filter_map(|&nth| self.nth_holder(at, nth)).collect();
        let modelled = &mut self.queues[at];
        let mut had_consumer = false;
        for source in &sources {
            let holder = modelled.holders.remove(source).unwrap();
            had_consumer |= holder.consumer.is_some();
            let turns: Vec<Turn> = holder.held.into_values().map(|message| modelled.turn(message)).collect();
            modelled.ready.extend(turns.into_iter().map(|turn| (turn, true)));
        }
        let sources: Vec<u32> = sources.into_iter().collect();
        modelled.on_gone(&sources);
        if sources.is_empty() {
            return;
        }
        let is_abandoned = modelled.options.auto_delete && had_consumer && modelled.consumer_count() == 0;
        let holders = sources.into_iter().map(holder_id).collect();
        let replies = self.input(at, Input::Detach { holders, reply_to: self.reply_to() });
        assert!(matches!(replies.as_slice(), [Reply::Detached]), "{replies:?}");
        assert_eq!(self.queues[at].has_ended, is_abandoned);
    }

    fn delete(&mut self, at: usize, if_unused: bool, if_empty: bool) {
        let (was_gone, ready) = (self.queues[at].has_ended, self.queues[at].ready.len());
        let is_used = self.queues[at].consumer_count() > 0;
        let replies = self.input(at, Input::Delete { if_unused, if_empty, reply_to: Some(self.reply_to()) });
        match replies.as_slice() {
            [Reply::Gone] if was_gone => {}
            [Reply::NotEmpty] if if_empty && ready > 0 => {}
            [Reply::InUse] if if_unused && is_used => {}
            [Reply::Deleted(count)] => assert!(*count == ready && self.queues[at].has_ended),
            other => panic!("{other:?}"),
        }
    }

    fn check(&self) {
        for (at, modelled) in self.queues.iter().enumerate() {
            let held: usize = modelled.holders.values().map(|holder| holder.held.len()).sum();
            let queue = &modelled.queue;
            assert_eq!((queue.ready_count(), queue.unacked_count()), (modelled.ready.len(), held));
            queue.check_counts();
            assert_eq!(queue.consumer_count(), modelled.consumer_count());
            let active = modelled.active.filter(|_| modelled.options.single_active_consumer);
            assert_eq!(queue.active_consumer(), active.map(holder_id));
            if !modelled.ready.is_empty() {
                let waits = modelled.holders.iter().find(|(source, holder)| self.accepts(at, **source, holder));
                assert!(waits.is_none(), "{waits:?} could be served");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn queues_agree_with_the_model(
        durable in any::<[bool; 2]>(),
        auto_delete in any::<[bool; 2]>(),
        single_active_consumer in any::<[bool; 2]>(),
        max_priority in [prop::option::of(1..5_u8), prop::option::of(1..5_u8)],
        ops in prop::collection::vec((0..2_usize, op()), 1..150),
    ) {
        let options = |at: usize| Options {
            durable: durable[at],
            auto_delete: auto_delete[at],
            single_active_consumer: single_active_consumer[at],
            priorities: max_priority[at].map(|max| Priorities { max, default: 0 }),
            ..Options::default()
        };
        let mut world = World::new([options(0), options(1)]);
        for (at, op) in ops {
            world.run(at, op);
            world.check();
        }
    }
}
