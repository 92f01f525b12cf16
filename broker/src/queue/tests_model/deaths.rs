//! Random inputs to one queue with times to live, limits, dead letters and a limit of deliveries, and what must always hold.
//!
//! Every message is in one place: ready, unacked, acked, dead, refused or purged. None is delivered after its time and none expires before it.
//! What leaves by itself leaves from the head. Where the store answers at once, limits are kept and nothing expired waits. The store
//! forgets what is done with, dead letters only when they are buried, so that a restart doubles at most those that were not.

use super::*;

/// A message of the model.
#[derive(Clone, Debug)]
struct Known {
    body_bytes: u64,
    came_ms: u64,
    expiration_ms: Option<u64>,
    deadline_ms: u64,
    returns: u32,
    message: Arc<Message>,
    is_persistent: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Publish { count: u8, body_bytes: u8, expiration_ms: Option<u64>, is_persistent: bool },
    Consume { prefetch_count: u16, no_ack: bool },
    Get { no_ack: bool },
    Settle { nth: usize, count: usize, settlement: Settlement },
    Detach(usize),
    Wait(u64),
    Budget(u8),
    Reconfigure(Limits),
    Load,
    Bury,
    Purge,
    Restart { is_later_ms: u64 },
}

/// What policies may change.
#[derive(Clone, Copy, Debug)]
struct Limits {
    ttl_ms: Option<u64>,
    max_length: Option<u64>,
    max_length_bytes: Option<u64>,
    overflow: Overflow,
    delivery_limit: Option<u32>,
}

impl Limits {
    fn options(self) -> Options {
        Options {
            durable: true,
            message_ttl_ms: self.ttl_ms,
            max_length: self.max_length,
            max_length_bytes: self.max_length_bytes,
            overflow: self.overflow,
            delivery_limit: self.delivery_limit,
            counts_deliveries: self.delivery_limit.is_some(),
            dead_letters: true,
            ..Options::default()
        }
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let overflow = prop_oneof![
        3 => Just(Overflow::DropHead),
        1 => Just(Overflow::RejectPublish),
        1 => Just(Overflow::RejectPublishDlx),
    ];
    let parts = (
        prop::option::of(0..40_u64),
        prop::option::of(0..8_u64),
        prop::option::weighted(0.3, 0..60_u64),
        overflow,
        prop::option::of(0..3_u32),
    );
    parts.prop_map(|(ttl_ms, max_length, max_length_bytes, overflow, delivery_limit)| Limits {
        ttl_ms,
        max_length,
        max_length_bytes,
        overflow,
        delivery_limit,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let settlement = prop_oneof![Just(Settlement::Remove), Just(Settlement::Reject), Just(Settlement::Requeue)];
    prop_oneof![
        8 => (1..5_u8, 8..20_u8, prop::option::weighted(0.3, 0..40_u64), any::<bool>()).prop_map(
            |(count, body_bytes, expiration_ms, is_persistent)| Step::Publish { count, body_bytes, expiration_ms, is_persistent }
        ),
        2 => (0..4_u16, any::<bool>()).prop_map(|(prefetch_count, no_ack)| Step::Consume { prefetch_count, no_ack }),
        3 => any::<bool>().prop_map(|no_ack| Step::Get { no_ack }),
        8 => (any::<usize>(), 1..5_usize, settlement)
            .prop_map(|(nth, count, settlement)| Step::Settle { nth, count, settlement }),
        2 => any::<usize>().prop_map(Step::Detach),
        6 => (0..30_u64).prop_map(Step::Wait),
        2 => (0..8_u8).prop_map(Step::Budget),
        1 => limits().prop_map(Step::Reconfigure),
        4 => Just(Step::Load),
        3 => Just(Step::Bury),
        1 => Just(Step::Purge),
        1 => (0..50_u64).prop_map(|is_later_ms| Step::Restart { is_later_ms }),
    ]
}

struct Bench {
    queue: Queue,
    limits: Limits,
    inbox: Arc<Inbox>,
    now_ms: u64,
    is_slow: bool,
    /// Every message that was taken, by number. A message's number is its place.
    known: BTreeMap<u64, Known>,
    ready: BTreeSet<u64>,
    /// Source and ticket of what somebody has.
    held: BTreeMap<(u32, u64), u64>,
    /// Dead and not buried.
    unburied: BTreeMap<u64, (SeqRange, usize)>,
    /// What the store has.
    kept: BTreeMap<(bool, u64), (u64, Arc<Message>)>,
    load: Option<Load>,
    no_ack_sources: BTreeSet<u32>,
    next_source: u32,
    next_message: u64,
    /// Publish numbers that were answered.
    answered: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// Dead before they were in.
    unburied_refused: Vec<usize>,
    published_bytes: usize,
}

const FIRST_MS: u64 = 1_000_000;

impl Bench {
    fn new(limits: Limits, is_slow: bool) -> Self {
        Self {
            queue: Queue::new(limits.options()),
            limits,
            inbox: Arc::default(),
            now_ms: FIRST_MS,
            is_slow,
            known: BTreeMap::new(),
            ready: BTreeSet::new(),
            held: BTreeMap::new(),
            unburied: BTreeMap::new(),
            kept: BTreeMap::new(),
            load: None,
            no_ack_sources: BTreeSet::new(),
            next_source: 1,
            next_message: 1,
            answered: BTreeSet::new(),
            refused: BTreeSet::new(),
            unburied_refused: Vec::new(),
            published_bytes: 0,
        }
    }

    fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::<Inbox>::clone(&self.inbox)
    }

    fn reply_to(&self) -> ReplyTo {
        ReplyTo { outlet: self.outlet(), channel: CHANNEL }
    }

    fn input(&mut self, input: Input) {
        let is_publish = matches!(input, Input::Publish { .. });
        self.handle(input, is_publish);
        while !self.is_slow
            && let Some(load) = self.load.take()
        {
            let loaded = self.read(&load);
            self.handle(loaded, false);
        }
    }

    fn handle(&mut self, input: Input, is_publish: bool) {
        let mut effects = Effects::default();
        self.queue.handle(self.now_ms, input, &mut effects);
        self.queue.flush(&mut effects);
        for append in effects.appends.drain(..) {
            assert_ne!(append.stored, Stored::Nowhere);
            let key = (append.stored == Stored::Paged, append.place.seq);
            assert!(self.kept.insert(key, (append.came_ms, append.message)).is_none(), "stored twice");
            if append.number != 0 {
                assert!(self.answered.insert(append.number), "confirmed twice");
            }
            if append.origin.is_some() {
                let bytes = self.known[&append.place.seq].message.weight();
                *self.inbox.processed_bytes.lock() += bytes;
            }
        }
        for (outlet, bytes) in effects.processed.drain(..) {
            outlet.publishes_processed(bytes);
        }
        for (outlet, notice) in effects.notices.drain(..) {
            outlet.post(notice);
        }
        for range in effects.settled.drain(..) {
            for seq in range.first..=range.last {
                self.forget(seq, range.stored);
            }
        }
        let mut left = BTreeSet::new();
        for dead in effects.dead.drain(..) {
            self.on_dead(dead, &mut left);
        }
        let notices = std::mem::take(&mut *self.inbox.notices.lock());
        for notice in notices {
            self.on_notice(notice, is_publish, &mut left);
        }
        // What left by itself or to somebody stood before all that stays. What has left and is still to be fetched shows later.
        let stays = self.ready.iter().find(|number| !self.queue.dying.contains(**number));
        if let (Some(last), Some(first)) = (left.last(), stays) {
            assert!(last < first, "{last} left although {first} stood before it");
        }
        assert!(self.load.is_none() || effects.load.is_none(), "one load at a time");
        self.load = self.load.take().or(effects.load);
    }

    fn forget(&mut self, seq: u64, stored: Stored) {
        assert!(self.kept.remove(&(stored == Stored::Paged, seq)).is_some(), "{seq} is settled and not stored");
    }

    fn on_dead(&mut self, dead: Dead, left: &mut BTreeSet<u64>) {
        if dead.place.first == 0 {
            assert!(self.limits.overflow == Overflow::RejectPublishDlx && dead.reason == DeathReason::MaxLength);
            self.unburied_refused.push(dead.message.weight());
            return;
        }
        let number = dead.place.first;
        assert_eq!((number, number_of(&dead.message)), (dead.place.last, number));
        let known = &self.known[&number];
        match dead.reason {
            DeathReason::Expired => {
                assert!(self.now_ms >= known.deadline_ms, "{number} expires early");
                assert!(self.ready.remove(&number), "{number} expires and is not ready");
                left.insert(number);
            }
            DeathReason::MaxLength => {
                // What has to be fetched first died when it was taken out of the line.
                if self.ready.remove(&number) {
                    left.insert(number);
                } else {
                    panic!("{number} is dropped and not ready");
                }
            }
            // The model took these out when it settled them.
            DeathReason::Rejected | DeathReason::DeliveryLimit => {}
        }
        let weight = dead.message.weight();
        assert!(self.unburied.insert(number, (dead.place, weight)).is_none(), "{number} dies twice");
    }

    fn on_notice(&mut self, notice: Notice, is_publish: bool, left: &mut BTreeSet<u64>) {
        match notice {
            Notice::Delivered { source, deliveries, .. } => {
                for Delivery { ticket, redelivered, message } in deliveries {
                    self.on_delivered(source, ticket, redelivered, &message, is_publish);
                    left.insert(number_of(&message));
                }
            }
            Notice::Reply { reply: Reply::Got { source, ticket, redelivered, message, no_ack, .. }, .. } => {
                if no_ack {
                    self.no_ack_sources.insert(source);
                }
                self.on_delivered(source, ticket, redelivered, &message, false);
                left.insert(number_of(&message));
            }
            Notice::Confirmed { numbers, is_taken } => {
                for number in numbers.iter().flat_map(|range| range.first..=range.last) {
                    assert!(self.answered.insert(number), "answered twice");
                    if !is_taken {
                        assert_ne!(self.limits.overflow, Overflow::DropHead);
                        self.refused.insert(number);
                    }
                }
            }
            Notice::Reply { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn on_delivered(&mut self, source: u32, ticket: u64, redelivered: bool, message: &Message, is_publish: bool) {
        let number = number_of(message);
        assert!(self.ready.remove(&number), "{number} is delivered and not ready");
        let known = &self.known[&number];
        assert!(self.now_ms < known.deadline_ms || is_publish, "{number} is delivered after its time");
        assert!(known.returns == 0 || redelivered);
        let headers = message.properties().headers();
        let count = headers.and_then(|headers| headers.get("x-delivery-count")?.as_i64()).unwrap_or(0);
        let expected = if self.limits.delivery_limit.is_some() { i64::from(known.returns) } else { 0 };
        assert_eq!(count, expected, "{number}");
        if !self.no_ack_sources.contains(&source) {
            assert!(self.held.insert((source, ticket), number).is_none());
        }
    }

    /// What a load brings; a slow store brings little at a time.
    fn read(&self, load: &Load) -> Input {
        let (mut messages, mut through) = (Vec::new(), 0);
        for range in &load.ranges {
            let is_paged = range.stored == Stored::Paged;
            for (&(_, seq), (came_ms, message)) in self.kept.range((is_paged, range.first)..=(is_paged, range.last)) {
                if messages.len() == 2 {
                    return Input::Loaded { id: load.id, through, messages };
                }
                messages.push(LoadedMessage { seq, came_ms: *came_ms, message: Arc::clone(message) });
                through = seq;
            }
            through = range.last;
        }
        Input::Loaded { id: load.id, through, messages }
    }

    fn tick(&mut self) {
        // Somebody wakes the queue when it asked for it, again and again.
        for _ in 0..100 {
            match self.queue.next_deadline() {
                Some(due_ms) if due_ms <= self.now_ms => self.input(Input::Tick),
                _ => return,
            }
        }
        panic!("the queue wants to be woken for ever");
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { count, body_bytes, expiration_ms, is_persistent } => {
                self.publish(count, body_bytes, expiration_ms, is_persistent);
            }
            Step::Consume { prefetch_count, no_ack } => {
                let source = self.new_source(no_ack);
                self.input(Input::Consume(NewConsumer {
                    holder: holder_id(source),
                    outlet: self.outlet(),
                    channel: CHANNEL,
                    no_ack,
                    is_exclusive: false,
                    prefetch_count,
                    priority: 0,
                    credit_bytes: 1_000_000_000,
                    shared_credit: None,
                    limit: None,
                }));
            }
            Step::Get { no_ack } => {
                let (source, reply_to) = (self.new_source(no_ack), self.reply_to());
                self.input(Input::Get { holder: holder_id(source), no_ack, reply_to });
            }
            Step::Settle { nth, count, settlement } => {
                // What is due goes before anything comes back.
                self.tick();
                self.settle(nth, count, settlement);
            }
            Step::Detach(nth) => {
                self.tick();
                let Some(&(source, _)) = self.held.keys().nth(nth % self.held.len().max(1)) else { return };
                let tickets: Vec<u64> =
                    self.held.range((source, 0)..=(source, u64::MAX)).map(|(&(_, ticket), _)| ticket).collect();
                for ticket in tickets {
                    self.take_back(source, ticket);
                }
                let reply_to = self.reply_to();
                self.input(Input::Detach { holders: vec![holder_id(source)], reply_to });
            }
            Step::Wait(ms) => {
                self.now_ms += ms;
                self.tick();
            }
            Step::Budget(messages) => {
                let bytes = if messages == 7 { usize::MAX } else { usize::from(messages) * 200 };
                self.queue.set_budget(bytes);
                self.input(Input::Shrink);
            }
            Step::Reconfigure(limits) => {
                self.limits = limits;
                self.input(Input::Reconfigure(limits.options()));
                self.tick();
            }
            Step::Load => {
                if let Some(load) = self.load.take() {
                    let loaded = self.read(&load);
                    self.input(loaded);
                }
            }
            Step::Bury => self.bury(),
            Step::Purge => {
                // What is on its way out has left already.
                self.tick();
                let reply_to = self.reply_to();
                if !self.is_slow {
                    self.ready.clear();
                    self.input(Input::Purge(reply_to));
                    self.forget_gone();
                }
            }
            Step::Restart { is_later_ms } => self.restart(is_later_ms),
        }
    }

    /// After a purge the store has nothing of what was ready; what was never stored is simply gone.
    fn forget_gone(&mut self) {
        let held: BTreeSet<u64> = self.held.values().copied().chain(self.unburied.keys().copied()).collect();
        assert!(self.kept.keys().all(|(_, seq)| held.contains(seq)), "what is purged stays in the store");
    }

    fn new_source(&mut self, no_ack: bool) -> u32 {
        let source = self.next_source;
        self.next_source += 1;
        if no_ack {
            self.no_ack_sources.insert(source);
        }
        source
    }

    fn publish(&mut self, count: u8, body_bytes: u8, expiration_ms: Option<u64>, is_persistent: bool) {
        for _ in 0..count {
            self.tick();
            let number = self.next_message;
            let message = message_of(number, body_bytes, expiration_ms, is_persistent);
            let ttl_ms = self.limits.ttl_ms.into_iter().chain(expiration_ms).min();
            let known = Known {
                body_bytes: u64::from(body_bytes),
                came_ms: self.now_ms,
                expiration_ms,
                deadline_ms: ttl_ms.map_or(u64::MAX, |ttl_ms| self.now_ms + ttl_ms),
                returns: 0,
                message: Arc::clone(&message),
                is_persistent,
            };
            self.published_bytes += message.weight();
            // Whether it is refused shows in its answer; only what is taken uses a place.
            self.known.insert(number, known);
            self.ready.insert(number);
            self.next_message += 1;
            let origin = Some(self.outlet());
            // The number of the publish is not that of the message, since refused messages have none.
            let publish = self.answered.len() as u64 + 1;
            let messages = vec![Incoming { message, channel: CHANNEL, number: publish }];
            self.handle_publish(number, publish, Input::Publish { origin, messages: messages.into() });
        }
    }

    fn handle_publish(&mut self, number: u64, publish: u64, input: Input) {
        // A refused message was never there.
        let is_refused = self.limits.overflow != Overflow::DropHead && self.would_overflow(number);
        if is_refused {
            self.known.remove(&number);
            self.ready.remove(&number);
            self.next_message -= 1;
        }
        self.input(input);
        assert_eq!(self.refused.contains(&publish), is_refused, "publish {publish}");
        assert!(self.answered.contains(&publish));
    }

    /// By the model's own count, which is the queue's where the store answers at once.
    fn would_overflow(&self, number: u64) -> bool {
        let options = self.limits.options();
        let count = self.queue.ready_count() as u64 + 1;
        let bytes = self.queue.ready.body_bytes() + self.known[&number].body_bytes;
        options.max_length.is_some_and(|max| count > max) || options.max_length_bytes.is_some_and(|max| bytes > max)
    }

    fn settle(&mut self, nth: usize, count: usize, settlement: Settlement) {
        let Some(&(source, _)) = self.held.keys().nth(nth % self.held.len().max(1)) else { return };
        let tickets: Vec<u64> =
            self.held.range((source, 0)..=(source, u64::MAX)).map(|(&(_, ticket), _)| ticket).take(count).collect();
        for &ticket in &tickets {
            match settlement {
                Settlement::Requeue => self.take_back(source, ticket),
                Settlement::Remove | Settlement::Reject => drop(self.held.remove(&(source, ticket))),
            }
        }
        self.input(Input::Settle { holder: holder_id(source), tickets: tickets.into(), settlement });
    }

    fn take_back(&mut self, source: u32, ticket: u64) {
        let Some(number) = self.held.remove(&(source, ticket)) else { return };
        let known = self.known.get_mut(&number).unwrap();
        known.returns += 1;
        if self.limits.delivery_limit.is_none_or(|limit| known.returns <= limit) {
            self.ready.insert(number);
        }
    }

    fn bury(&mut self) {
        for (place, bytes) in std::mem::take(&mut self.unburied).into_values() {
            if place.stored != Stored::Nowhere {
                self.forget(place.first, place.stored);
            }
            self.input(Input::Buried { bytes });
        }
        for bytes in std::mem::take(&mut self.unburied_refused) {
            self.input(Input::Buried { bytes });
        }
    }

    /// The broker ends and starts again; what is in memory only is lost.
    fn restart(&mut self, is_later_ms: u64) {
        self.now_ms += is_later_ms;
        self.kept.retain(|(is_paged, _), _| !is_paged);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &(_, seq) in self.kept.keys() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == seq => *last = seq,
                _ => ranges.push((seq, seq)),
            }
        }
        let levels = vec![RestoredLevel { level: 0, ranges, marked: self.next_message }];
        let restored = Restored { first_seq: self.next_message, levels };
        self.queue = Queue::restore(self.limits.options(), &restored);
        self.inbox = Arc::default();
        *self.inbox.processed_bytes.lock() = self.published_bytes;
        self.load = None;
        self.held.clear();
        // Their dead letters may be somewhere else already; here they are not done with.
        self.unburied.clear();
        self.unburied_refused.clear();
        self.ready = self.kept.keys().map(|&(_, seq)| seq).collect();
        for number in &self.ready {
            let known = self.known.get_mut(number).unwrap();
            assert!(known.is_persistent);
            let ttl_ms = self.limits.ttl_ms.into_iter().chain(known.expiration_ms).min();
            known.returns = 0;
            known.deadline_ms = ttl_ms.map_or(u64::MAX, |ttl_ms| known.came_ms + ttl_ms);
        }
        self.input(Input::Tick);
        self.tick();
    }

    fn check(&self) {
        if self.is_slow {
            return;
        }
        assert_eq!(self.queue.ready_count(), self.ready.len());
        let held: BTreeSet<u64> = self.held.values().copied().collect();
        assert_eq!(self.queue.unacked_count(), held.len());
        let bytes: u64 = self.ready.iter().map(|number| self.known[number].body_bytes).sum();
        match self.queue.ready.unsized_range(1) {
            None => assert_eq!(self.queue.ready.body_bytes(), bytes),
            // Nobody asks for them.
            Some(_) => assert!(self.limits.max_length_bytes.is_none() && self.queue.ready.body_bytes() <= bytes),
        }
        if self.limits.overflow == Overflow::DropHead {
            assert!(self.limits.max_length.is_none_or(|max| self.ready.len() as u64 <= max));
            assert!(self.limits.max_length_bytes.is_none_or(|max| self.queue.ready.body_bytes() <= max));
        }
        if let Some(first) = self.ready.first() {
            let deadline_ms = self.known[first].deadline_ms;
            let next = self.queue.next_deadline().unwrap_or(u64::MAX);
            assert!(next <= deadline_ms, "nobody looks when {first} is due: {next} > {deadline_ms}");
        }
    }

    /// Lets everything come to its end; then nothing may be left anywhere.
    fn finish(mut self) {
        self.limits = Limits { ttl_ms: None, max_length: None, max_length_bytes: None, ..self.limits };
        self.input(Input::Reconfigure(self.limits.options()));
        self.queue.set_budget(usize::MAX);
        let source = self.new_source(true);
        self.input(Input::Consume(NewConsumer {
            holder: holder_id(source),
            outlet: self.outlet(),
            channel: CHANNEL,
            no_ack: true,
            is_exclusive: false,
            prefetch_count: 0,
            priority: 0,
            credit_bytes: 1_000_000_000,
            shared_credit: None,
            limit: None,
        }));
        let held: Vec<(u32, u64)> = self.held.keys().copied().collect();
        for (source, ticket) in held {
            self.held.remove(&(source, ticket));
            self.input(Input::Settle {
                holder: holder_id(source),
                tickets: vec![ticket].into(),
                settlement: Settlement::Remove,
            });
        }
        for _ in 0..10_000 {
            self.tick();
            self.bury();
            match self.load.take() {
                Some(load) => {
                    let loaded = self.read(&load);
                    self.input(loaded);
                }
                None => break,
            }
        }
        self.bury();
        assert!(self.ready.is_empty(), "{:?} are left", self.ready);
        assert_eq!((self.queue.ready_count(), self.queue.unacked_count()), (0, 0));
        assert!(self.kept.is_empty(), "{:?} stay in the store", self.kept.keys());
        assert_eq!(self.queue.lost_count(), 0);
        assert_eq!(*self.inbox.processed_bytes.lock(), self.published_bytes, "every publisher gets its credit back");
    }
}

/// The first eight bytes of the body are the message's number.
fn message_of(number: u64, body_bytes: u8, expiration_ms: Option<u64>, is_persistent: bool) -> Arc<Message> {
    let mode = if is_persistent { 2 } else { 1 };
    let properties = match expiration_ms {
        None => vec![0x10, 0, mode],
        Some(ms) => {
            let text = ms.to_string();
            [&[0x11, 0, mode, text.len() as u8], text.as_bytes()].concat()
        }
    };
    let mut body = number.to_be_bytes().to_vec();
    body.resize(usize::from(body_bytes), 0);
    Message::new(Parts { exchange: "", routing_key: "q", properties: &properties }, &body)
}

/// As of the models beside, for bodies that are longer.
fn number_of(message: &Message) -> u64 {
    u64::from_be_bytes(message.body()[..8].try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_early_or_late(limits in limits(), steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = Bench::new(limits, false);
        for step in steps {
            bench.step(step);
            bench.check();
        }
        bench.finish();
    }
}
