//! The same queue on a store that takes its time: loads are answered when they are, and everything else goes on meanwhile.
//!
//! Nothing is lost or doubled, levels and their order are kept, what was handed out is marked, every basic.get is answered, and nothing stays in memory or in the store.

use super::*;

/// What is done to a queue whose store takes its time.
#[derive(Clone, Debug)]
enum SlowOp {
    Publish { priorities: Vec<u8>, is_persistent: bool },
    Consume { prefetch_count: u16 },
    Get { no_ack: bool },
    Settle { place: usize, settlement: Settlement },
    Detach(usize),
    Budget(u8),
    Load(usize),
    Purge,
}

fn slow_op() -> impl Strategy<Value = SlowOp> {
    let settlement = prop_oneof![Just(Settlement::Remove), Just(Settlement::Requeue)];
    prop_oneof![
        8 => (prop::collection::vec(0..5_u8, 1..5), any::<bool>())
            .prop_map(|(priorities, is_persistent)| SlowOp::Publish { priorities, is_persistent }),
        2 => (1..4_u16).prop_map(|prefetch_count| SlowOp::Consume { prefetch_count }),
        3 => any::<bool>().prop_map(|no_ack| SlowOp::Get { no_ack }),
        6 => (any::<usize>(), settlement).prop_map(|(place, settlement)| SlowOp::Settle { place, settlement }),
        1 => any::<usize>().prop_map(SlowOp::Detach),
        3 => (0..6_u8).prop_map(SlowOp::Budget),
        5 => (1..4_usize).prop_map(SlowOp::Load),
        1 => Just(SlowOp::Purge),
    ]
}

/// A queue, everything that it has done, and the load that is not answered yet.
struct Slow {
    modelled: Modelled,
    inbox: Arc<Inbox>,
    confirmed: BTreeSet<u64>,
    load: Option<Load>,
    sources: Vec<u32>,
    next_source: u32,
    /// Who holds what: source and ticket to message.
    held: BTreeMap<(u32, u64), u64>,
    handed: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    /// Gets that have no answer.
    waiting: BTreeMap<u32, bool>,
}

impl Slow {
    fn input(&mut self, input: Input) -> Vec<Reply> {
        let mut effects = Effects::default();
        self.modelled.queue.handle(0, input, &mut effects);
        self.modelled.queue.flush(&mut effects);
        if let Some(load) = self.modelled.carry_out(&mut effects, &mut self.confirmed, &self.inbox) {
            // One that a purge has made stale needs no answer.
            self.load = Some(load);
        }
        let mut others = Vec::new();
        for (_, notice) in effects.notices {
            match notice {
                Notice::Delivered { source, deliveries, .. } => {
                    for delivery in deliveries {
                        self.hand(source, delivery.ticket, &delivery.message, delivery.redelivered);
                    }
                }
                Notice::Reply { reply: Reply::Got { source, ticket, redelivered, message, no_ack, .. }, .. } => {
                    assert_eq!(self.waiting.remove(&source), Some(no_ack));
                    self.hand(source, ticket, &message, redelivered);
                    if no_ack {
                        let message = self.held.remove(&(source, ticket)).unwrap();
                        self.gone.insert(message);
                    } else {
                        self.sources.push(source);
                    }
                }
                Notice::Reply { reply, .. } => others.push(reply),
                Notice::Confirmed { numbers, .. } => {
                    self.confirmed.extend(numbers.iter().flat_map(|range| range.first..=range.last));
                }
                other => panic!("{other:?}"),
            }
        }
        others
    }

    fn hand(&mut self, source: u32, ticket: u64, message: &Message, redelivered: bool) {
        let number = number_of(message);
        assert!(!self.gone.contains(&number) && !self.held.values().any(|held| *held == number), "{number} twice");
        assert_eq!(redelivered, !self.handed.insert(number), "message {number}");
        self.held.insert((source, ticket), number);
    }

    fn reply_to(&self) -> ReplyTo {
        ReplyTo { outlet: Arc::<Inbox>::clone(&self.inbox), channel: CHANNEL }
    }

    fn answer_load(&mut self, count_max: usize) -> bool {
        let Some(load) = self.load.take() else { return false };
        let loaded = self.modelled.read(&load, count_max);
        let replies = self.input(loaded);
        self.empty(&replies);
        true
    }

    fn run(&mut self, op: SlowOp) {
        match op {
            SlowOp::Publish { priorities, is_persistent } => {
                let outlet = self.reply_to().outlet;
                let messages = priorities.into_iter().map(|priority| {
                    let number = self.modelled.next_message;
                    let message = self.modelled.next_message(is_persistent, priority);
                    Incoming { message, channel: CHANNEL, number }
                });
                let messages = messages.collect();
                let input = Input::Publish { origin: Some(outlet), messages };
                assert!(self.input(input).is_empty());
            }
            SlowOp::Consume { prefetch_count } => {
                let source = self.new_source();
                self.sources.push(source);
                let ReplyTo { outlet, channel } = self.reply_to();
                let new = NewConsumer {
                    holder: holder_id(source),
                    outlet,
                    channel,
                    no_ack: false,
                    is_exclusive: false,
                    prefetch_count,
                    priority: 0,
                    credit_bytes: i64::MAX / 2,
                    shared_credit: None,
                    limit: None,
                };
                assert!(matches!(self.input(Input::Consume(new)).as_slice(), [Reply::Consuming]));
            }
            SlowOp::Get { no_ack } => {
                let source = self.new_source();
                self.waiting.insert(source, no_ack);
                let input = Input::Get { holder: holder_id(source), no_ack, reply_to: self.reply_to() };
                let replies = self.input(input);
                self.empty(&replies);
            }
            SlowOp::Settle { place, settlement } => {
                let Some((&(source, ticket), _)) = self.held.iter().nth(place % self.held.len().max(1)) else { return };
                let message = self.held.remove(&(source, ticket)).unwrap();
                if settlement == Settlement::Remove {
                    self.gone.insert(message);
                }
                let input = Input::Settle { holder: holder_id(source), tickets: vec![ticket].into(), settlement };
                let replies = self.input(input);
                self.empty(&replies);
            }
            SlowOp::Detach(place) => {
                let Some(&source) = self.sources.get(place % self.sources.len().max(1)) else { return };
                self.sources.retain(|other| *other != source);
                self.held.retain(|(holder, _), _| *holder != source);
                let input = Input::Detach { holders: vec![holder_id(source)], reply_to: self.reply_to() };
                assert!(matches!(self.input(input).as_slice(), [Reply::Detached]));
            }
            SlowOp::Budget(messages) => {
                self.modelled.queue.set_budget(usize::from(messages) * weight() as usize);
                assert!(self.input(Input::Shrink).is_empty());
            }
            SlowOp::Load(count_max) => {
                self.answer_load(count_max);
            }
            SlowOp::Purge => {
                let held: BTreeSet<u64> = self.held.values().copied().collect();
                self.gone.extend((1..self.modelled.next_message).filter(|number| !held.contains(number)));
                let replies = self.input(Input::Purge(self.reply_to()));
                assert!(matches!(replies.first(), Some(Reply::Purged(_))));
                self.empty(&replies[1..]);
            }
        }
    }

    /// Gets that were told that the queue is empty; the oldest wait longest.
    fn empty(&mut self, replies: &[Reply]) {
        for reply in replies {
            assert!(matches!(reply, Reply::Empty), "{reply:?}");
            assert!(self.waiting.pop_first().is_some());
            assert_eq!(self.modelled.queue.ready_count(), 0);
        }
    }

    fn new_source(&mut self) -> u32 {
        self.next_source += 1;
        self.next_source
    }

    /// Takes everything out that is left, and returns it.
    fn drain(&mut self) -> Vec<u64> {
        while self.answer_load(2) {}
        assert!(self.waiting.is_empty(), "a get has no answer");
        for source in std::mem::take(&mut self.sources) {
            self.held.retain(|(holder, _), _| *holder != source);
            let input = Input::Detach { holders: vec![holder_id(source)], reply_to: self.reply_to() };
            assert!(matches!(self.input(input).as_slice(), [Reply::Detached]));
        }
        let mut order = Vec::new();
        loop {
            while self.answer_load(2) {}
            let before = self.gone.clone();
            self.run(SlowOp::Get { no_ack: true });
            while self.answer_load(1) {}
            assert!(self.waiting.is_empty(), "a get has no answer");
            match self.gone.difference(&before).next() {
                Some(&message) => order.push(message),
                None => return order,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slow_store_changes_nothing_but_time(
        durable in any::<bool>(),
        max_priority in prop::option::of(1..5_u8),
        ops in prop::collection::vec(slow_op(), 1..150),
    ) {
        let priorities = max_priority.map(|max| Priorities { max, default: 0 });
        let options = Options { durable, priorities, ..Options::default() };
        let mut slow = Slow {
            modelled: Modelled::new(options),
            inbox: Arc::default(),
            confirmed: BTreeSet::new(),
            load: None,
            sources: Vec::new(),
            next_source: 0,
            held: BTreeMap::new(),
            handed: BTreeSet::new(),
            gone: BTreeSet::new(),
            waiting: BTreeMap::new(),
        };
        for op in ops {
            slow.run(op);
            let left = slow.modelled.next_message - 1 - slow.gone.len() as u64 - slow.held.len() as u64;
            prop_assert_eq!(slow.modelled.queue.ready_count() as u64, left);
        }
        let order = slow.drain();
        prop_assert!(order.is_sorted_by_key(|message| slow.modelled.turn(*message)), "{:?}", order);
        prop_assert_eq!(slow.gone.len() as u64, slow.modelled.next_message - 1, "nothing is lost");
        prop_assert!(slow.modelled.kept.is_empty(), "nothing stays in the store: {:?}", slow.modelled.kept.keys());
        prop_assert_eq!(slow.modelled.queue.memory_bytes(), 0);
        prop_assert_eq!(slow.confirmed.len() as u64, slow.modelled.next_message - 1);
    }
}
