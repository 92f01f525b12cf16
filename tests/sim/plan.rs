//! What a seed decides before anything runs: queues and routes, clients and their habits, which faults may come.

use plugin_api::testing::Random;
use tests::wire::value::{Table, Value};

use crate::message::BODY_BYTES_MIN;
use crate::network::Habits;

/// An index into [`Plan::queues`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIndex(pub(crate) usize);

/// A queue that every client declares, the same way.
#[derive(Debug, Clone)]
pub(crate) struct QueuePlan {
    pub(crate) name: String,
    pub(crate) durable: bool,
    /// Its confirms wait for the operating system only.
    pub(crate) is_os: bool,
    /// Somebody purges it now and then.
    pub(crate) is_purged: bool,
    /// Somebody deletes it now and then.
    pub(crate) is_deleted: bool,
    /// Somebody wants to consume from it exclusively.
    pub(crate) is_exclusive: bool,
    pub(crate) message_ttl_ms: Option<u32>,
    pub(crate) max_length: Option<u32>,
    /// Of bodies.
    pub(crate) max_length_bytes: Option<u32>,
    pub(crate) overflow: Overflow,
    /// What dies here goes to the queue of the dead, which is the first.
    pub(crate) dead_letters: Option<DeadLetters>,
    pub(crate) is_single_active: bool,
    pub(crate) max_priority: Option<u8>,
    pub(crate) delivery_limit: Option<u32>,
}

/// What a queue does beyond its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    DropHead,
    Reject,
    RejectDlx,
}

/// The way to the queue of the dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadLetters {
    /// By the default exchange and its name.
    Named,
    /// By an exchange, with the key that messages have.
    Exchange,
}

/// Where messages go that die.
pub(crate) const DEAD: QueueIndex = QueueIndex(0);
const DEAD_NAME: &str = "dead";

impl QueuePlan {
    /// The arguments of its declaration.
    pub(crate) fn arguments(&self) -> Table {
        let mut arguments = Table::new();
        if self.is_os {
            arguments.push((b"x-durability".to_vec(), Value::Text(b"os".to_vec())));
        }
        let numbers = [
            ("x-message-ttl", self.message_ttl_ms),
            ("x-max-length", self.max_length),
            ("x-max-length-bytes", self.max_length_bytes),
            ("x-max-priority", self.max_priority.map(u32::from)),
            ("x-delivery-limit", self.delivery_limit),
        ];
        for (name, number) in numbers {
            arguments.extend(number.map(|number| (name.as_bytes().to_vec(), Value::I64(i64::from(number)))));
        }
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        match self.overflow {
            Overflow::DropHead => {}
            Overflow::Reject => arguments.push((b"x-overflow".to_vec(), text("reject-publish"))),
            Overflow::RejectDlx => arguments.push((b"x-overflow".to_vec(), text("reject-publish-dlx"))),
        }
        match self.dead_letters {
            None => {}
            Some(DeadLetters::Named) => {
                arguments.push((b"x-dead-letter-exchange".to_vec(), text("")));
                arguments.push((b"x-dead-letter-routing-key".to_vec(), text(DEAD_NAME)));
            }
            Some(DeadLetters::Exchange) => arguments.push((b"x-dead-letter-exchange".to_vec(), text(MORGUE))),
        }
        if self.is_single_active {
            arguments.push((b"x-single-active-consumer".to_vec(), Value::Bool(true)));
        }
        arguments
    }

    /// What its dead letters are delivered as: exchange and key, where the key is not the message's own.
    pub(crate) fn route_of_dead(&self, routing_key: &str) -> (String, String) {
        match self.dead_letters {
            Some(DeadLetters::Named) => (String::new(), DEAD_NAME.to_owned()),
            Some(DeadLetters::Exchange) | None => (MORGUE.to_owned(), routing_key.to_owned()),
        }
    }

    /// The level at which a message of that priority waits.
    pub(crate) fn level(&self, priority: Option<u8>) -> u8 {
        self.max_priority.map_or(0, |max| priority.unwrap_or(0).min(max))
    }

    /// Whether its length has a limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.max_length.is_some() || self.max_length_bytes.is_some()
    }

    /// How many messages it may have at most.
    pub(crate) fn length_limit(&self) -> Option<u64> {
        let by_bytes = self.max_length_bytes.map(|bytes| u64::from(bytes) / BODY_BYTES_MIN as u64);
        [self.max_length.map(u64::from), by_bytes].into_iter().flatten().min()
    }

    /// Whether it may refuse a publish.
    pub(crate) fn may_refuse(&self) -> bool {
        self.is_limited() && self.overflow != Overflow::DropHead
    }
}

/// Where a publish may go, and which queues it reaches then.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) exchange: &'static str,
    pub(crate) routing_key: String,
    pub(crate) queues: Vec<QueueIndex>,
}

/// A binding that every client makes.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) exchange: &'static str,
    pub(crate) routing_key: String,
    pub(crate) queue: QueueIndex,
}

/// The exchanges that every client declares: name and type.
pub(crate) const EXCHANGES: [(&str, &str); 3] = [(DIRECT, "direct"), (FANOUT, "fanout"), (MORGUE, "fanout")];
const MORGUE: &str = "x.morgue";
const DIRECT: &str = "x.direct";
const FANOUT: &str = "x.fanout";

/// What a publisher wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    None,
    Confirms,
    Transactions,
}

/// What one channel does.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    Publish(PublishPlan),
    Consume(ConsumePlan),
    /// Fetches with basic.get.
    Get(Vec<QueueIndex>),
    /// Purges and deletes what may be purged and deleted, and makes mistakes.
    Disturb,
}

#[derive(Debug, Clone)]
pub(crate) struct PublishPlan {
    pub(crate) answers: Answers,
    pub(crate) mandatory_percent: u32,
    pub(crate) persistent_percent: u32,
    pub(crate) body_bytes_max: u32,
    pub(crate) expiration_percent: u32,
    pub(crate) priority_percent: u32,
    /// Unconfirmed publishes at most.
    pub(crate) unconfirmed_max: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct ConsumePlan {
    pub(crate) queues: Vec<QueueIndex>,
    pub(crate) prefetch_count: u16,
    /// A limit of the whole channel, too.
    pub(crate) global_prefetch_count: u16,
    pub(crate) no_ack: bool,
    pub(crate) is_exclusive: bool,
    pub(crate) is_transactional: bool,
    pub(crate) priority: Option<i32>,
}

#[derive(Debug, Clone)]
pub(crate) struct ClientPlan {
    /// In seconds; 0 is off.
    pub(crate) heartbeat_secs: u16,
    pub(crate) frame_max: u32,
    /// Between two steps of a channel, in milliseconds at most.
    pub(crate) think_ms_max: u32,
    pub(crate) network: Habits,
    pub(crate) work: Vec<Work>,
}

/// How often something goes wrong: after so many milliseconds on average, or never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FaultPlan {
    pub(crate) reset_ms: Option<u32>,
    pub(crate) silence_ms: Option<u32>,
    pub(crate) stall_ms: Option<u32>,
    pub(crate) kill_ms: Option<u32>,
    pub(crate) power_cut_ms: Option<u32>,
    pub(crate) stop_ms: Option<u32>,
    pub(crate) sync_error_ms: Option<u32>,
    pub(crate) disk_full_ms: Option<u32>,
    pub(crate) slow_disk_ms: Option<u32>,
    pub(crate) alarm_ms: Option<u32>,
    pub(crate) shrink_ms: Option<u32>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) queues: Vec<QueuePlan>,
    pub(crate) bindings: Vec<Binding>,
    pub(crate) routes: Vec<Route>,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) faults: FaultPlan,
    pub(crate) rounds: u32,
    pub(crate) round_ms: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) queue_memory_bytes: u64,
    /// How long calls of the store take on a good day, in milliseconds at most.
    pub(crate) store_wait_ms_max: u32,
}

impl Plan {
    /// What this seed decides.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7061_6e6e);
        let random = &mut random;
        let mut queues = vec![QueuePlan::plain(DEAD_NAME, true)];
        queues.extend((1..3 + random.below(4)).map(|number| queue(number, random)));
        let (bindings, routes) = routing(&queues, random);
        let clients: Vec<ClientPlan> =
            (0..2 + random.below(4)).map(|number| client(number, queues.len(), random)).collect();
        for work in clients.iter().flat_map(|client| &client.work) {
            if let Work::Consume(ConsumePlan { is_exclusive: true, queues: wanted, .. }) = work {
                wanted.iter().for_each(|queue| queues[queue.0].is_exclusive = true);
            }
        }
        Self {
            seed,
            queues,
            bindings,
            routes,
            clients,
            faults: faults(random),
            rounds: 1 + random.below(3),
            round_ms: 500 + random.below(6000),
            segment_bytes: *random.pick(&[4096, 20_000, 100_000]),
            queue_memory_bytes: *random.pick(&[8 << 10, 64 << 10, 1 << 20]),
            store_wait_ms_max: *random.pick(&[0, 3, 20]),
        }
    }
}

impl Plan {
    /// The plan for people, a line for each thing.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("seed {}: {} rounds of {} ms", self.seed, self.rounds, self.round_ms)];
        let sizes = (self.segment_bytes, self.queue_memory_bytes, self.store_wait_ms_max);
        lines.push(format!(
            "segments of {} bytes, {} bytes of memory for queues, store waits {} ms",
            sizes.0, sizes.1, sizes.2
        ));
        lines.extend(self.queues.iter().map(QueuePlan::line));
        for Route { exchange, routing_key, queues } in &self.routes {
            let names: Vec<&str> = queues.iter().map(|queue| self.queues[queue.0].name.as_str()).collect();
            lines.push(format!("'{exchange}' with '{routing_key}' goes to {}", names.join(", ")));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let ClientPlan { heartbeat_secs, frame_max, think_ms_max, network, work } = client;
            lines.push(format!(
                "client {index}: heartbeat {heartbeat_secs} s, frames of {frame_max}, thinks {think_ms_max} ms, {network:?}"
            ));
            lines.extend(work.iter().map(|work| format!("  {work:?}")));
        }
        lines.push(format!("{:?}", self.faults));
        lines
    }
}

impl QueuePlan {
    fn line(&self) -> String {
        let flags = [
            ("durable", self.durable),
            ("os", self.is_os),
            ("purged", self.is_purged),
            ("deleted", self.is_deleted),
            ("exclusive consumers", self.is_exclusive),
        ];
        let flags: Vec<&str> = flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
        let arguments = self.arguments();
        let arguments: Vec<String> =
            arguments.iter().map(|(name, value)| format!("{}={value}", String::from_utf8_lossy(name))).collect();
        format!("queue {}: {} {}", self.name, flags.join(", "), arguments.join(" "))
    }

    fn plain(name: &str, durable: bool) -> Self {
        Self {
            name: name.to_owned(),
            durable,
            is_os: false,
            is_purged: false,
            is_deleted: false,
            is_exclusive: false,
            message_ttl_ms: None,
            max_length: None,
            max_length_bytes: None,
            overflow: Overflow::DropHead,
            dead_letters: None,
            is_single_active: false,
            max_priority: None,
            delivery_limit: None,
        }
    }
}

fn queue(number: u32, random: &mut Random) -> QueuePlan {
    let durable = random.below(4) > 0;
    let mut queue = QueuePlan::plain(&format!("q{number}"), durable);
    queue.is_os = durable && random.below(8) == 0;
    queue.is_purged = random.below(6) == 0;
    queue.is_deleted = random.below(8) == 0;
    // Half of the queues have nothing of this, so that what is said of them is sharp.
    if random.below(2) == 0 {
        return queue;
    }
    let maybe = |random: &mut Random| random.below(4) == 0;
    queue.message_ttl_ms = maybe(random).then(|| *random.pick(&[60, 500, 5_000, 60_000]));
    queue.max_length = maybe(random).then(|| *random.pick(&[1, 5, 20]));
    queue.max_length_bytes = (random.below(8) == 0).then(|| *random.pick(&[100, 2000, 20_000]));
    if queue.is_limited() {
        queue.overflow = *random.pick(&[Overflow::DropHead, Overflow::Reject, Overflow::RejectDlx]);
    }
    queue.dead_letters = (random.below(2) == 0).then(|| *random.pick(&[DeadLetters::Named, DeadLetters::Exchange]));
    queue.is_single_active = maybe(random);
    queue.max_priority = maybe(random).then(|| *random.pick(&[1, 3, 10]));
    queue.delivery_limit = (random.below(6) == 0).then(|| *random.pick(&[1, 3]));
    queue
}

fn routing(queues: &[QueuePlan], random: &mut Random) -> (Vec<Binding>, Vec<Route>) {
    let mut bindings = Vec::new();
    let mut routes = Vec::new();
    let mut direct = Vec::new();
    let mut fanout = Vec::new();
    bindings.push(Binding { exchange: MORGUE, routing_key: String::new(), queue: DEAD });
    for (index, queue) in queues.iter().enumerate().filter(|(index, _)| QueueIndex(*index) != DEAD) {
        let queue_index = QueueIndex(index);
        routes.push(Route { exchange: "", routing_key: queue.name.clone(), queues: vec![queue_index] });
        if random.below(2) == 0 {
            bindings.push(Binding { exchange: DIRECT, routing_key: "both".into(), queue: queue_index });
            direct.push(queue_index);
        }
        if random.below(2) == 0 {
            bindings.push(Binding { exchange: FANOUT, routing_key: String::new(), queue: queue_index });
            fanout.push(queue_index);
        }
    }
    routes.push(Route { exchange: DIRECT, routing_key: "both".into(), queues: direct });
    routes.push(Route { exchange: DIRECT, routing_key: "nobody".into(), queues: Vec::new() });
    routes.push(Route { exchange: FANOUT, routing_key: "any".into(), queues: fanout });
    (bindings, routes)
}

fn client(number: u32, queue_count: usize, random: &mut Random) -> ClientPlan {
    let channels = 1 + random.below(3);
    // There is always somebody who publishes and somebody who consumes.
    let work = (0..channels)
        .map(|channel| match number {
            0 if channel == 0 => publish(random),
            1 if channel == 0 => consume(queue_count, random),
            _ => work(queue_count, random),
        })
        .collect();
    ClientPlan {
        heartbeat_secs: *random.pick(&[0, 0, 2, 10]),
        frame_max: *random.pick(&[4096, 8192, 131_072]),
        think_ms_max: *random.pick(&[2, 20, 100]),
        network: Habits {
            chunk_max: *random.pick(&[7, 60, 1000, 1000, 100_000]),
            window_bytes: *random.pick(&[500, 4000, 100_000]),
        },
        work,
    }
}

fn work(queue_count: usize, random: &mut Random) -> Work {
    match random.below(10) {
        0..4 => publish(random),
        4..8 => consume(queue_count, random),
        8 => Work::Get(some_queues(queue_count, random)),
        _ => Work::Disturb,
    }
}

fn publish(random: &mut Random) -> Work {
    Work::Publish(PublishPlan {
        answers: *random.pick(&[
            Answers::None,
            Answers::Transactions,
            Answers::Confirms,
            Answers::Confirms,
            Answers::Confirms,
        ]),
        mandatory_percent: *random.pick(&[0, 30]),
        persistent_percent: *random.pick(&[0, 60, 100, 100]),
        body_bytes_max: *random.pick(&[20, 200, 2000, 10_000]),
        expiration_percent: *random.pick(&[0, 0, 0, 20]),
        priority_percent: *random.pick(&[0, 60]),
        unconfirmed_max: *random.pick(&[1, 10, 100]),
    })
}

fn consume(queue_count: usize, random: &mut Random) -> Work {
    Work::Consume(ConsumePlan {
        queues: some_queues(queue_count, random),
        prefetch_count: *random.pick(&[0, 1, 3, 20]),
        global_prefetch_count: *random.pick(&[0, 0, 0, 2, 10]),
        no_ack: random.below(8) == 0,
        is_exclusive: random.below(12) == 0,
        is_transactional: random.below(6) == 0,
        priority: if random.below(4) == 0 { Some(random.below(5) as i32 - 2) } else { None },
    })
}

fn some_queues(queue_count: usize, random: &mut Random) -> Vec<QueueIndex> {
    let first = random.below(queue_count as u32) as usize;
    let count = 1 + random.below(2) as usize;
    (0..count.min(queue_count)).map(|step| QueueIndex((first + step) % queue_count)).collect()
}

fn faults(random: &mut Random) -> FaultPlan {
    // A seed has some kinds of faults and not others, so that each also meets the others' absence.
    let mut maybe = |often_in_ten: u32, every_ms: u32| {
        let comes = random.below(10) < often_in_ten;
        let every_ms = every_ms / 2 + random.below(every_ms * 2);
        comes.then_some(every_ms)
    };
    FaultPlan {
        reset_ms: maybe(4, 1500),
        silence_ms: maybe(2, 4000),
        stall_ms: maybe(3, 800),
        kill_ms: maybe(2, 3000),
        power_cut_ms: maybe(3, 3000),
        stop_ms: maybe(2, 4000),
        sync_error_ms: maybe(1, 4000),
        disk_full_ms: maybe(1, 3000),
        slow_disk_ms: maybe(2, 2000),
        alarm_ms: maybe(2, 2000),
        shrink_ms: maybe(2, 1000),
    }
}
