//! The rules of a queue, by event. A script of inputs goes in; what each connection is told comes out as short text.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::message::Parts;

mod consumers;
mod dead_letters;
mod expiry;
mod levels;
mod limits;
mod timeout;

/// A connection that writes down what it is told.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    processed_bytes: Mutex<usize>,
}

impl Outlet for Log {
    fn post(&self, notice: Notice) {
        let line = match notice {
            Notice::Delivered { source, deliveries, .. } => {
                for delivery in deliveries {
                    let body = String::from_utf8_lossy(delivery.message.body()).into_owned();
                    let again = if delivery.redelivered { "!" } else { "" };
                    self.lines.lock().push(format!("{source}<{body}{again}#{}", delivery.ticket));
                }
                return;
            }
            Notice::Confirmed { numbers, is_taken } => {
                let ranges: Vec<String> = numbers.iter().map(|n| format!("{}-{}", n.first, n.last)).collect();
                format!("{} {}", if is_taken { "confirmed" } else { "refused" }, ranges.join(","))
            }
            Notice::Reply { reply: Reply::Got { message, redelivered, remaining, .. }, .. } => {
                let body = String::from_utf8_lossy(message.body()).into_owned();
                format!("got {body}{} remaining {remaining}", if redelivered { "!" } else { "" })
            }
            Notice::Reply { reply, .. } => format!("{reply:?}"),
            Notice::DeliveryTimedOut { source, timeout_ms } => format!("{source} timed out after {timeout_ms}"),
            Notice::ConsumerCancelled { source, .. } => format!("cancelled {source}"),
            Notice::QueueEnded { source } => format!("ended for {source}"),
            Notice::LimitLifted { .. } => "limit lifted".into(),
            Notice::CloseConnection { reason } => reason,
            Notice::AlarmsCleared => "alarms cleared".into(),
            Notice::Judged => "judged".into(),
        };
        self.lines.lock().push(line);
    }

    fn publishes_processed(&self, bytes: usize) {
        *self.processed_bytes.lock() += bytes;
    }
}

struct Bench {
    queue: Queue,
    log: Arc<Log>,
    effects: Effects,
    stored: Vec<u64>,
    settled: Vec<u64>,
    loads: Vec<Load>,
    published: u64,
    has_ended: bool,
    now_ms: u64,
    /// What died and is not buried yet.
    unburied: Vec<Dead>,
}

fn bench(options: Options) -> Bench {
    Bench {
        queue: Queue::new(options),
        log: Arc::default(),
        effects: Effects::default(),
        stored: Vec::new(),
        settled: Vec::new(),
        loads: Vec::new(),
        published: 0,
        has_ended: false,
        now_ms: 1_000_000,
        unburied: Vec::new(),
    }
}

fn holder(source: u32) -> HolderId {
    HolderId { connection: 1, source }
}

/// Properties with delivery mode 2 and 1.
const PERSISTENT: [u8; 3] = [0x10, 0, 2];
const TRANSIENT: [u8; 3] = [0x10, 0, 1];

impl Bench {
    fn input(&mut self, input: Input) -> &mut Self {
        self.queue.handle(self.now_ms, input, &mut self.effects);
        self.queue.flush(&mut self.effects);
        self.has_ended |= std::mem::take(&mut self.effects.has_ended);
        self.stored.extend(self.effects.appends.drain(..).map(|append| append.place.seq));
        self.settled.extend(self.effects.settled.drain(..).flat_map(|range| range.first..=range.last));
        self.loads.extend(self.effects.load.take());
        for (outlet, bytes) in self.effects.processed.drain(..) {
            outlet.publishes_processed(bytes);
        }
        for (outlet, notice) in self.effects.notices.drain(..) {
            outlet.post(notice);
        }
        for dead in self.effects.dead.drain(..) {
            let body = String::from_utf8_lossy(dead.message.body()).into_owned();
            self.log.lines.lock().push(format!("{} {body}", dead.reason.name()));
            self.unburied.push(dead);
        }
        self
    }

    /// So many milliseconds after the start. The queue is woken if it asked for it.
    fn at(&mut self, ms: u64) -> &mut Self {
        self.now_ms = 1_000_000 + ms;
        match self.queue.next_deadline() {
            Some(due_ms) if due_ms <= self.now_ms => self.input(Input::Tick),
            _ => self,
        }
    }

    /// When the queue wants to be woken, in milliseconds after the start.
    fn wants(&self) -> Option<u64> {
        self.queue.next_deadline().map(|due_ms| due_ms.saturating_sub(1_000_000))
    }

    /// Publishes transient messages with an expiration.
    fn publish_expiring(&mut self, expiration: &str, bodies: &[&str]) -> &mut Self {
        let properties = [&[0x11, 0, 1, expiration.len() as u8], expiration.as_bytes()].concat();
        self.publish_with(&properties, bodies);
        self.log.lines.lock().retain(|line| !line.starts_with("confirmed"));
        self
    }

    fn publish_with(&mut self, properties: &[u8], bodies: &[&str]) -> &mut Self {
        let messages = bodies
            .iter()
            .map(|body| {
                self.published += 1;
                let message = Message::new(Parts { exchange: "", routing_key: "q", properties }, body.as_bytes());
                Incoming { message, channel: 1, number: self.published }
            })
            .collect();
        let origin: Arc<dyn Outlet> = Arc::<Log>::clone(&self.log);
        self.input(Input::Publish { origin: Some(origin), messages })
    }

    /// Publishes and forgets about the confirms.
    fn publish(&mut self, bodies: &[&str]) -> &mut Self {
        self.publish_with(&TRANSIENT, bodies);
        self.log.lines.lock().retain(|line| !line.starts_with("confirmed"));
        self
    }

    fn reply_to(&self) -> ReplyTo {
        ReplyTo { outlet: Arc::<Log>::clone(&self.log), channel: 1 }
    }

    fn consumer(&self, source: u32) -> NewConsumer {
        NewConsumer {
            holder: holder(source),
            outlet: Arc::<Log>::clone(&self.log),
            channel: 1,
            no_ack: false,
            is_exclusive: false,
            prefetch_count: 0,
            priority: 0,
            credit_bytes: 1_000_000,
            shared_credit: None,
            limit: None,
        }
    }

    fn consume(&mut self, source: u32) -> &mut Self {
        let consumer = self.consumer(source);
        self.input(Input::Consume(consumer))
    }

    fn consume_prefetch(&mut self, source: u32, prefetch_count: u16) -> &mut Self {
        let consumer = NewConsumer { prefetch_count, ..self.consumer(source) };
        self.input(Input::Consume(consumer))
    }

    fn settle(&mut self, source: u32, tickets: &[u64], settlement: Settlement) -> &mut Self {
        self.input(Input::Settle { holder: holder(source), tickets: tickets.into(), settlement })
    }

    fn get(&mut self, source: u32, no_ack: bool) -> &mut Self {
        let reply_to = self.reply_to();
        self.input(Input::Get { holder: holder(source), no_ack, reply_to })
    }

    fn cancel(&mut self, source: u32) -> &mut Self {
        let reply_to = self.reply_to();
        self.input(Input::Cancel { holder: holder(source), reply_to })
    }

    fn detach(&mut self, source: u32) -> &mut Self {
        let reply_to = self.reply_to();
        self.input(Input::Detach { holders: vec![holder(source)], reply_to })
    }

    /// Answers the only load with these bodies at these places.
    fn load(&mut self, through: u64, bodies: &[(u64, &str)]) -> &mut Self {
        let load = self.loads.pop().expect("a load");
        assert!(self.loads.is_empty(), "one load at a time");
        let message = |body: &str| {
            Message::new(Parts { exchange: "", routing_key: "q", properties: &PERSISTENT }, body.as_bytes())
        };
        let messages =
            bodies.iter().map(|(seq, body)| LoadedMessage { seq: *seq, came_ms: 1, message: message(body) }).collect();
        self.input(Input::Loaded { id: load.id, through, messages })
    }

    /// As [`Self::load`], and each came so many milliseconds after the start.
    fn load_came(&mut self, through: u64, bodies: &[(u64, &str, u64)]) -> &mut Self {
        let load = self.loads.pop().expect("a load");
        let loaded = |&(seq, body, came): &(u64, &str, u64)| LoadedMessage {
            seq,
            came_ms: 1_000_000 + came,
            message: Message::new(Parts { exchange: "", routing_key: "q", properties: &PERSISTENT }, body.as_bytes()),
        };
        let messages = bodies.iter().map(loaded).collect();
        self.input(Input::Loaded { id: load.id, through, messages })
    }

    /// What the only load asks for.
    fn wanted(&self) -> Vec<(u64, u64)> {
        let [load] = self.loads.as_slice() else { return Vec::new() };
        load.ranges.iter().map(|range| (range.first, range.last)).collect()
    }

    /// What was told since the last look.
    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut *self.log.lines.lock())
    }

    fn expect(&mut self, lines: &[&str]) -> &mut Self {
        assert_eq!(self.told(), lines);
        self
    }
}

#[test]
fn equal_consumers_take_turns() {
    bench(Options::default()).consume(1).consume(2).publish(&["a", "b", "c", "d"]).expect(&[
        "Consuming",
        "Consuming",
        "2<b#1",
        "2<d#2",
        "1<a#1",
        "1<c#2",
    ]);
}

#[test]
fn a_blocked_consumer_holds_nobody_back() {
    bench(Options::default())
        .consume_prefetch(1, 1)
        .consume_prefetch(2, 0)
        .publish(&["a", "b", "c"])
        .expect(&["Consuming", "Consuming", "2<b#1", "2<c#2", "1<a#1"])
        .settle(1, &[1], Settlement::Remove)
        .publish(&["d", "e"])
        .expect(&["1<e#2", "2<d#3"]);
}

#[test]
fn a_higher_priority_is_served_until_it_is_full() {
    let mut bench = bench(Options::default());
    let high = NewConsumer { priority: 5, prefetch_count: 2, ..bench.consumer(2) };
    bench.consume(1).input(Input::Consume(high)).publish(&["a", "b", "c"]).expect(&[
        "Consuming",
        "Consuming",
        "1<c#1",
        "2<a#1",
        "2<b#2",
    ]);
}

#[test]
fn requeued_message_keeps_its_place_and_is_marked() {
    bench(Options::default())
        .publish(&["a", "b", "c", "d"])
        .get(1, false)
        .get(1, false)
        .get(1, false)
        .expect(&["got a remaining 3", "got b remaining 2", "got c remaining 1"])
        .settle(1, &[3], Settlement::Requeue)
        .settle(1, &[1], Settlement::Requeue)
        .settle(1, &[2], Settlement::Remove)
        .get(2, true)
        .get(2, true)
        .get(2, true)
        .get(2, true)
        .expect(&["got a! remaining 2", "got c! remaining 1", "got d remaining 0", "Empty"]);
}

#[test]
fn what_a_dead_consumer_held_goes_to_the_next_in_order() {
    bench(Options::default())
        .consume(1)
        .publish(&["a", "b"])
        .expect(&["Consuming", "1<a#1", "1<b#2"])
        .detach(1)
        .expect(&["Detached"])
        .publish(&["c"])
        .consume(2)
        .expect(&["Consuming", "2<a!#1", "2<b!#2", "2<c#3"]);
}

#[test]
fn cancelling_leaves_unacked_messages_with_their_consumer() {
    let mut bench = bench(Options::default());
    bench.consume(1).publish(&["a"]).cancel(1).expect(&["Consuming", "1<a#1", "Cancelled"]);
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count()), (0, 1));
    bench.settle(1, &[1], Settlement::Requeue).get(2, true).expect(&["got a! remaining 0"]);
}

#[test]
fn a_consumer_without_acks_settles_by_delivery() {
    let mut bench = bench(Options { durable: true, ..Options::default() });
    let consumer = NewConsumer { no_ack: true, prefetch_count: 1, ..bench.consumer(1) };
    bench.input(Input::Consume(consumer)).publish_with(&PERSISTENT, &["a", "b"]);
    bench.expect(&["Consuming", "1<a#0", "1<b#0"]);
    assert_eq!((bench.stored.as_slice(), bench.settled.as_slice()), (&[1, 2][..], &[1, 2][..]));
    assert_eq!(bench.queue.unacked_count(), 0);
}

#[test]
fn credit_in_bytes_stops_and_resumes_a_consumer() {
    let mut bench = bench(Options::default());
    let consumer = NewConsumer { credit_bytes: 1, ..bench.consumer(1) };
    bench.input(Input::Consume(consumer)).publish(&["a", "b"]).expect(&["Consuming", "1<a#1"]);
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &TRANSIENT }, b"a").weight() as i64;
    bench.input(Input::Credit { holder: holder(1), bytes: weight }).expect(&["1<b#2"]);
}

#[test]
fn transient_messages_are_confirmed_at_once_and_persistent_ones_by_the_store() {
    let mut bench = bench(Options { durable: true, ..Options::default() });
    bench.publish_with(&TRANSIENT, &["a", "b"]).expect(&["confirmed 1-2"]);
    assert!(*bench.log.processed_bytes.lock() > 0);
    *bench.log.processed_bytes.lock() = 0;
    bench.publish_with(&PERSISTENT, &["c"]).expect(&[]);
    assert_eq!(bench.stored, [3]);
    assert_eq!(*bench.log.processed_bytes.lock(), 0, "the store gives this credit back");
}

#[test]
fn persistent_messages_of_a_transient_queue_are_not_stored() {
    let mut bench = bench(Options::default());
    bench.publish_with(&PERSISTENT, &["a"]).expect(&["confirmed 1-1"]);
    assert!(bench.stored.is_empty());
}

/// To free them takes long where they are many; that is done elsewhere.
#[test]
fn bodies_of_a_purge_and_of_a_delete_are_handed_over_whole() {
    for delete in [false, true] {
        let mut bench = bench(Options::default());
        bench.publish(&["a", "b", "c"]).get(7, false).settle(7, &[1], Settlement::Requeue).publish(&["d"]);
        let reply_to = bench.reply_to();
        let input = match delete {
            false => Input::Purge(reply_to),
            true => Input::Delete { if_unused: false, if_empty: false, reply_to: Some(reply_to) },
        };
        bench.input(input);
        let discarded = &mut bench.effects.discarded;
        assert_eq!(discarded.len(), 4);
        assert!(discarded.drop_some(2), "two are left");
        assert_eq!(discarded.len(), 2);
        assert!(!discarded.drop_some(2) && discarded.is_empty());
    }
}

#[test]
fn purge_counts_ready_messages_and_leaves_unacked_ones() {
    let mut bench = bench(Options { durable: true, ..Options::default() });
    bench.publish_with(&PERSISTENT, &["a", "b", "c"]).get(1, false);
    let reply_to = bench.reply_to();
    bench.input(Input::Purge(reply_to)).expect(&["got a remaining 2", "Purged(2)"]);
    assert_eq!(bench.settled, [2, 3]);
    assert_eq!(bench.queue.unacked_count(), 1);
}

#[test]
fn exclusive_use_excludes_both_ways() {
    let mut bench = bench(Options::default());
    let exclusive = |bench: &Bench, source| NewConsumer { is_exclusive: true, ..bench.consumer(source) };
    let first = exclusive(&bench, 1);
    bench.input(Input::Consume(first)).consume(2).expect(&["Consuming", "ExclusiveUse"]);
    bench.cancel(1).consume(2);
    let late = exclusive(&bench, 3);
    bench.input(Input::Consume(late)).expect(&["Cancelled", "Consuming", "ExclusiveUse"]);
}

#[test]
fn an_auto_delete_queue_ends_with_its_last_consumer_only() {
    let mut bench = bench(Options { auto_delete: true, ..Options::default() });
    bench.get(9, true).consume(1).consume(2).cancel(1);
    assert!(!bench.has_ended);
    bench.detach(2).expect(&["Empty", "Consuming", "Consuming", "Cancelled", "Detached"]);
    assert!(bench.has_ended);
    bench.consume(3).get(3, true).expect(&["Gone", "Gone"]);
}

#[test]
fn deleting_judges_messages_before_consumers_and_tells_consumers() {
    let mut bench = bench(Options::default());
    let delete =
        |bench: &Bench, if_unused, if_empty| Input::Delete { if_unused, if_empty, reply_to: Some(bench.reply_to()) };
    bench.consume_prefetch(1, 1).publish(&["a", "b"]).told();
    let input = delete(&bench, true, true);
    bench.input(input).expect(&["NotEmpty"]);
    let input = delete(&bench, true, false);
    bench.input(input).expect(&["InUse"]);
    let input = delete(&bench, false, false);
    bench.input(input).expect(&["cancelled 1", "Deleted(1)"]);
    assert!(bench.has_ended);
    bench.publish_with(&TRANSIENT, &["late"]).expect(&["confirmed 3-3"]);
}

#[test]
fn a_channels_limit_holds_over_all_its_consumers() {
    let mut bench = bench(Options::default());
    let limit = Arc::new(ChannelLimit::new(2));
    for source in [1, 2] {
        let consumer = NewConsumer { limit: Some(Arc::clone(&limit)), ..bench.consumer(source) };
        bench.input(Input::Consume(consumer));
    }
    bench.publish(&["a", "b", "c"]).expect(&["Consuming", "Consuming", "2<b#1", "1<a#1"]);
    // The channel tells its consumers in turn; whoever settled has no right of its own to the place.
    bench.settle(1, &[1], Settlement::Remove).expect(&["limit lifted"]);
    bench.input(Input::LimitLifted { holder: holder(2) }).expect(&["2<c#2"]);
    bench.input(Input::LimitLifted { holder: holder(1) }).expect(&[]);
}

#[test]
fn a_limit_that_comes_later_counts_what_is_unacked_now() {
    let mut bench = bench(Options::default());
    bench.consume(1).publish(&["a", "b"]).told();
    let limit = Some(Arc::new(ChannelLimit::new(2)));
    bench.input(Input::SetLimit { holder: holder(1), limit }).publish(&["c"]).expect(&[]);
    bench.settle(1, &[1], Settlement::Remove).expect(&["limit lifted"]);
    bench.input(Input::LimitLifted { holder: holder(1) }).expect(&["1<c#3"]);
}

#[test]
fn an_ended_queue_gives_publishers_their_credit_and_confirm() {
    let mut bench = bench(Options { durable: true, ..Options::default() });
    bench.input(Input::Delete { if_unused: false, if_empty: false, reply_to: None });
    bench.publish_with(&PERSISTENT, &["a"]).expect(&["confirmed 1-1"]);
    assert!(*bench.log.processed_bytes.lock() > 0);
}

fn durable() -> Options {
    Options { durable: true, ..Options::default() }
}

#[test]
fn beyond_the_budget_messages_wait_in_the_store_and_keep_their_order() {
    let mut bench = bench(durable());
    bench.queue.set_budget(1);
    bench.publish_with(&PERSISTENT, &["a", "b", "c"]).get(1, true).expect(&["got a remaining 2"]);
    assert!(bench.loads.is_empty(), "nobody waits");
    bench.get(1, true).get(2, true).expect(&[]);
    assert_eq!(bench.wanted(), [(2, 3)]);
    bench.load(2, &[(2, "b")]).expect(&["got b remaining 1"]);
    bench.load(3, &[(3, "c")]).expect(&["got c remaining 0"]);
    assert_eq!((bench.settled.as_slice(), bench.queue.memory_bytes()), (&[1, 2, 3][..], 0));
}

#[test]
fn transient_messages_leave_memory_too_and_are_confirmed_at_once() {
    let mut bench = bench(Options::default());
    bench.queue.set_budget(1);
    bench.publish_with(&TRANSIENT, &["a", "b"]).expect(&["confirmed 1-2"]);
    assert_eq!(bench.stored, [2]);
    bench.consume(1).load(2, &[(2, "b")]).expect(&["Consuming", "1<a#1", "1<b#2"]);
    bench.settle(1, &[1, 2], Settlement::Remove);
    assert_eq!(bench.settled, [2]);
}

#[test]
fn what_the_store_has_lost_is_skipped() {
    let mut bench = bench(durable());
    bench.queue.set_budget(1);
    bench.publish_with(&PERSISTENT, &["a", "b", "c", "d"]).consume(1).expect(&["Consuming", "1<a#1"]);
    bench.load(4, &[(3, "c")]).expect(&["1<c#2"]);
    assert_eq!((bench.queue.ready_count(), bench.queue.lost_count()), (0, 2));
    bench.get(2, true).expect(&["Empty"]);
}

#[test]
fn unacked_bodies_leave_memory_and_come_back_when_they_are_requeued() {
    let mut bench = bench(durable());
    bench.consume(1).publish_with(&PERSISTENT, &["a", "b"]);
    bench.queue.set_budget(0);
    bench.publish_with(&PERSISTENT, &["c"]).expect(&["Consuming", "1<a#1", "1<b#2", "1<c#3"]);
    bench.settle(1, &[1, 2], Settlement::Remove);
    assert_eq!(bench.queue.memory_bytes(), 0, "the third is unacked and only in the store");
    bench.detach(1).get(2, true).expect(&["Detached"]);
    assert_eq!(bench.wanted(), [(3, 3)]);
    bench.load(3, &[(3, "c")]).expect(&["got c! remaining 0"]);
}

#[test]
fn a_smaller_budget_takes_the_last_messages_out_of_memory_first() {
    let mut bench = bench(durable());
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &PERSISTENT }, b"a").weight();
    bench.publish_with(&PERSISTENT, &["a", "b", "c", "d"]).queue.set_budget(weight);
    bench.input(Input::Shrink);
    assert_eq!(bench.queue.memory_bytes(), weight);
    bench.get(1, true).expect(&["got a remaining 3"]);
    assert_eq!(bench.loads.len(), 0, "nobody waits");
    bench.get(1, true).expect(&[]);
    assert_eq!(bench.wanted(), [(2, 4)]);
}

#[test]
fn a_smaller_budget_takes_bodies_that_somebody_has_out_of_memory_too() {
    let mut bench = bench(Options::default());
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &TRANSIENT }, b"a").weight();
    bench.consume(1).publish(&["a", "b", "c"]).expect(&["Consuming", "1<a#1", "1<b#2", "1<c#3"]);
    assert_eq!(bench.queue.memory_bytes(), 3 * weight);
    bench.queue.set_budget(weight);
    bench.input(Input::Shrink);
    assert_eq!((bench.stored.as_slice(), bench.queue.memory_bytes()), (&[1, 2][..], weight));
    bench.settle(1, &[1], Settlement::Remove).detach(1).get(2, true).expect(&["Detached"]);
    assert_eq!((bench.wanted(), bench.settled.as_slice()), (vec![(2, 2)], &[1][..]));
    bench.load(2, &[(2, "b")]).expect(&["got b! remaining 1"]);
}

#[test]
fn unacked_bodies_of_getters_leave_memory_too() {
    let mut bench = bench(Options::default());
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &TRANSIENT }, b"a").weight();
    bench.publish(&["a", "b", "c"]).queue.set_budget(0);
    bench.get(1, false).get(1, false).get(1, false);
    bench.expect(&["got a remaining 2", "got b remaining 1", "got c remaining 0"]);
    assert_eq!((bench.stored.as_slice(), bench.queue.memory_bytes()), (&[1, 2][..], weight));
    bench.settle(1, &[1], Settlement::Remove).detach(1).get(2, true).expect(&["Detached"]);
    assert_eq!((bench.wanted(), bench.settled.as_slice()), (vec![(2, 2)], &[1][..]));
    bench.load(2, &[(2, "b")]).expect(&["got b! remaining 1"]);
    bench.get(2, true).expect(&["got c! remaining 0"]);
    assert_eq!((bench.settled.as_slice(), bench.queue.memory_bytes()), (&[1, 2][..], 0));
}

#[test]
fn a_smaller_budget_is_kept_when_the_load_under_way_is_there() {
    let mut bench = bench(durable());
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &PERSISTENT }, b"a").weight();
    bench.queue.set_budget(3 * weight);
    bench.publish_with(&PERSISTENT, &["a", "b", "c", "d", "e"]).consume_prefetch(1, 1).queue.set_budget(weight);
    assert_eq!(bench.wanted(), [(5, 5)]);
    bench.input(Input::Shrink);
    assert_eq!(bench.queue.memory_bytes(), 4 * weight, "the head must stay as it is");
    bench.load(5, &[(5, "e")]).expect(&["Consuming", "1<a#1"]);
    assert_eq!(bench.queue.memory_bytes(), weight);
    bench.load(5, &[(2, "b"), (3, "c"), (4, "d"), (5, "e")]).settle(1, &[1], Settlement::Remove).expect(&["1<b#2"]);
}

#[test]
fn publishers_wait_for_the_store_also_where_unacked_messages_fill_the_budget() {
    let mut bench = bench(Options::default());
    let weight = Message::new(Parts { exchange: "", routing_key: "q", properties: &TRANSIENT }, b"a").weight();
    bench.consume(1).queue.set_budget(0);
    bench.publish(&["a", "b", "c"]).expect(&["Consuming", "1<a#1", "1<b#2", "1<c#3"]);
    assert_eq!((bench.stored.as_slice(), bench.queue.memory_bytes()), (&[2, 3][..], weight));
    assert_eq!(*bench.log.processed_bytes.lock(), weight, "the credit of the others comes from the store");
}

#[test]
fn what_leaves_memory_together_goes_to_the_store_in_order() {
    let mut bench = bench(Options::default());
    bench.publish(&["a", "b", "c", "d", "e"]).get(1, false).get(1, false).detach(1).queue.set_budget(0);
    bench.input(Input::Shrink);
    assert_eq!(bench.stored, [1, 2, 3, 4, 5], "one run, which is read with one look");
}

#[test]
fn a_purge_makes_a_load_stale_and_answers_who_waits() {
    let mut bench = bench(durable());
    bench.queue.set_budget(0);
    bench.publish_with(&PERSISTENT, &["a", "b"]).get(1, true).get(2, true).expect(&["got a remaining 1"]);
    let reply_to = bench.reply_to();
    bench.input(Input::Purge(reply_to)).expect(&["Purged(1)", "Empty"]);
    bench.publish_with(&PERSISTENT, &["c"]).load(2, &[(2, "b")]).expect(&[]);
    bench.get(1, true).expect(&["got c remaining 0"]);
}

#[test]
fn the_end_answers_who_waits_for_a_load() {
    let mut bench = bench(durable());
    bench.queue.set_budget(0);
    bench.publish_with(&PERSISTENT, &["a", "b"]).get(1, true).get(2, true).get(3, true).told();
    bench.detach(3).expect(&["Detached"]);
    bench.input(Input::Delete { if_unused: false, if_empty: false, reply_to: None }).expect(&["Gone"]);
}

#[test]
fn a_restored_queue_reads_when_somebody_asks_and_marks_what_may_have_been_delivered() {
    let restored =
        Restored { first_seq: 100, levels: vec![RestoredLevel { level: 0, ranges: vec![(1, 2), (5, 6)], marked: 5 }] };
    let mut bench = Bench { queue: Queue::restore(durable(), &restored), ..bench(durable()) };
    assert_eq!(bench.queue.ready_count(), 4);
    bench.publish_with(&PERSISTENT, &["new"]);
    assert_eq!(bench.wanted(), [(1, 1)], "it looks at the first, whose time may be up");
    bench.load(1, &[(1, "a")]);
    assert_eq!(bench.queue.next_deadline(), None);
    bench.consume(1);
    assert_eq!(bench.wanted(), [(1, 2), (5, 5), (6, 6), (100, 100)]);
    bench.load(100, &[(1, "a"), (2, "b"), (5, "c"), (6, "d"), (100, "new")]);
    bench.expect(&["Consuming", "1<a!#1", "1<b!#2", "1<c!#3", "1<d#4", "1<new#5"]);
}

#[test]
fn lasting_messages_are_marked_when_they_may_come_back() {
    let mut bench = bench(durable());
    let marked = |bench: &mut Bench| bench.effects.marks.drain(..).map(|place| place.seq).sum::<u64>();
    bench.publish_with(&PERSISTENT, &["a", "b"]).publish_with(&TRANSIENT, &["c"]).get(1, true);
    assert_eq!(marked(&mut bench), 0, "it is gone");
    bench.get(1, false);
    assert_eq!(marked(&mut bench), 2);
    bench.detach(1).get(1, false);
    assert_eq!(marked(&mut bench), 0, "that is known");
    bench.get(1, false);
    assert_eq!(marked(&mut bench), 0, "nobody sees it after a restart");
}
