//! What flows: each stream has one way of getting lost, and a consumer that would notice.

use std::time::Duration;

use plugin_api::testing::Random;

/// Messages that go one way.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub name: &'static str,
    pub exchange: &'static str,
    pub routing_key: &'static str,
    pub is_persistent: bool,
    /// Expires after so many milliseconds, as the message says.
    pub expiration_ms: Option<u64>,
    /// Of all messages.
    pub share_percent: u32,
    /// The queue may be full.
    pub may_refuse: bool,
    /// The largest body.
    pub body_bytes_max: u32,
}

/// All of them. A stream's place is its name in messages.
pub const STREAMS: &[Stream] = &[
    Stream { name: "work", routing_key: "work", share_percent: 30, ..COMMON },
    Stream { name: "transient", exchange: "topics", routing_key: "eu.order", is_persistent: false, ..COMMON },
    Stream { name: "expiring", routing_key: "late", share_percent: 10, ..COMMON },
    Stream { name: "own expiration", routing_key: "waiting", expiration_ms: Some(300), share_percent: 5, ..COMMON },
    Stream { name: "backlog", routing_key: "backlog", share_percent: 20, body_bytes_max: 30_000, ..COMMON },
    Stream { name: "limited", routing_key: "limited", share_percent: 10, may_refuse: true, ..COMMON },
    Stream { name: "large", routing_key: "work", share_percent: 1, body_bytes_max: 900_000, ..COMMON },
    Stream { name: "limited returns", routing_key: "returning", share_percent: 4, ..COMMON },
];

const COMMON: Stream = Stream {
    name: "",
    exchange: "",
    routing_key: "",
    is_persistent: true,
    expiration_ms: None,
    share_percent: 20,
    may_refuse: false,
    body_bytes_max: 2_000,
};

/// The queues that run empty at the end of a cycle.
pub const QUEUES: &[&str] = &["work", "topic", "late", "waiting", "backlog", "limited", "returning", "dead"];

/// Small budgets and segments, so that paging, new segments and copying forward happen all the time.
pub const TOPOLOGY: &str = "
storage: {kind: log, config: {segment_bytes: 2097152}}
limits: {queue_memory_bytes: 8MiB}
vhosts:
  /:
    hooks: [{script: hook.lua}]
    exchanges:
      topics: topic
      dead: fanout
    queues:
      work: {dead_letter: {exchange: dead}}
      topic: {arguments: {x-max-priority: 3}}
      late: {ttl: 700ms, dead_letter: {exchange: dead}}
      waiting: {dead_letter: {exchange: dead}}
      backlog: {}
      limited: {max_length: 100, overflow: reject-publish}
      returning: {arguments: {x-delivery-limit: 3}, dead_letter: {exchange: dead}}
      dead: {}
    bindings:
      - topics -> topic : eu.#
      - dead -> dead
";

/// How one connection consumes.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    pub queue: &'static str,
    pub prefetch: u64,
    /// Of a thousand deliveries, so many are given back.
    pub requeued: u32,
    /// And so many rejected for good; the queue has a dead-letter exchange then.
    pub rejected: u32,
    /// And after so many of a thousand the client dies with what it holds.
    pub hang_ups: u32,
    /// Consumes nothing for so long after it has consumed for so long.
    pub pause: Option<Duration>,
    /// Acks so many together.
    pub acks_together: u32,
}

/// Who consumes.
pub const CONSUMERS: &[Habit] = &[
    Habit { queue: "work", prefetch: 50, requeued: 50, rejected: 20, hang_ups: 2, ..PLAIN },
    Habit { queue: "work", prefetch: 300, hang_ups: 1, acks_together: 20, ..PLAIN },
    Habit { queue: "topic", requeued: 10, ..PLAIN },
    Habit { queue: "backlog", pause: Some(Duration::from_secs(7)), acks_together: 50, ..PLAIN },
    Habit { queue: "limited", prefetch: 20, pause: Some(Duration::from_secs(2)), ..PLAIN },
    Habit { queue: "returning", requeued: 700, ..PLAIN },
    Habit { queue: "dead", acks_together: 10, ..PLAIN },
];

const PLAIN: Habit =
    Habit { queue: "", prefetch: 200, requeued: 0, rejected: 0, hang_ups: 0, pause: None, acks_together: 1 };

const HEAD_BYTES: usize = 9;

/// A body that says which message it is, and shows damage.
pub fn body(stream: usize, number: u64, random: &mut Random) -> Vec<u8> {
    let size = random.below(STREAMS[stream].body_bytes_max) as usize;
    let mut body = Vec::with_capacity(HEAD_BYTES + size);
    body.push(stream as u8);
    body.extend(number.to_be_bytes());
    body.resize(HEAD_BYTES + size, number as u8);
    body
}

/// Which message it is: stream and number.
///
/// # Errors
/// When it is none of ours, or damaged.
pub fn identity(body: &[u8]) -> Result<(usize, u64), String> {
    let shown = || format!("a body of {} bytes is none that was published", body.len());
    let (head, rest) = body.split_at_checked(HEAD_BYTES).ok_or_else(shown)?;
    let number = u64::from_be_bytes(head[1..].try_into().map_err(|_| shown())?);
    if rest.iter().any(|byte| *byte != number as u8) {
        return Err(format!("message {number} of stream {} is damaged", head[0]));
    }
    Ok((usize::from(head[0]), number))
}
