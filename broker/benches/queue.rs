//! What the machine of a queue costs without sockets and store: `cargo bench -p broker --bench queue`.
//!
//! First nanoseconds a message, published, delivered and acked in batches of 100, best of some rounds; then nanoseconds a consumer
//! where many end one by one, which must not depend on how many there are.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use broker::message::{Message, Parts};
use broker::queue::{
    Effects, HolderId, Incoming, Input, NewConsumer, Notice, Options, Outlet, Priorities, Queue, ReplyTo, Settlement,
};

const BATCH: u64 = 100;
const BATCHES: u64 = 2_000;
const ROUNDS: usize = 10;

#[derive(Debug)]
struct Nowhere;

impl Outlet for Nowhere {
    fn post(&self, notice: Notice) {
        drop(black_box(notice));
    }

    fn publishes_processed(&self, _: usize) {}
}

fn main() {
    let mut out = std::io::stdout().lock();
    let plain = Options::default();
    let cases = [
        ("plain", plain, 0),
        ("single active consumer", Options { single_active_consumer: true, ..plain }, 0),
        ("consumer timeout", Options { consumer_timeout_ms: Some(1_800_000), ..plain }, 0),
        ("priorities, one used", Options { priorities: Some(Priorities { max: 9, default: 0 }), ..plain }, 0),
        ("priorities, ten used", Options { priorities: Some(Priorities { max: 9, default: 0 }), ..plain }, 9),
    ];
    for (name, options, max) in cases {
        let best = (0..ROUNDS).map(|_| round(options, max)).min().unwrap_or_default();
        let _ = writeln!(out, "{name:24} {best:5} ns a message");
    }
    for count in [1_000, 10_000, 100_000] {
        let _ = writeln!(out, "{count:6} consumers end {:5} ns a consumer", end(count));
    }
}

fn holder(source: u32) -> HolderId {
    HolderId { connection: 1, source }
}

fn reply_to() -> ReplyTo {
    ReplyTo { outlet: Arc::new(Nowhere), channel: 1 }
}

fn consume(queue: &mut Queue, source: u32, effects: &mut Effects) {
    let new = NewConsumer {
        holder: holder(source),
        outlet: Arc::new(Nowhere),
        channel: 1,
        no_ack: false,
        is_exclusive: false,
        prefetch_count: 0,
        priority: 0,
        credit_bytes: i64::MAX,
        shared_credit: None,
        limit: None,
    };
    queue.handle(0, Input::Consume(new), effects);
}

fn round(options: Options, max_priority: u8) -> u64 {
    let mut queue = Queue::new(options);
    let mut effects = Effects::default();
    consume(&mut queue, 1, &mut effects);
    let messages: Vec<Arc<Message>> = (0..=max_priority)
        .map(|priority| {
            let properties = [0x18, 0, 1, priority];
            Message::new(Parts { exchange: "", routing_key: "q", properties: &properties }, b"0123456789abcdef")
        })
        .collect();
    let outlet: Arc<dyn Outlet> = Arc::new(Nowhere);
    let start = Instant::now();
    for batch in 0..BATCHES {
        let incoming = messages.iter().cycle().take(BATCH as usize);
        let messages = incoming.map(|message| Incoming { message: Arc::clone(message), channel: 1, number: 0 });
        let (messages, origin) = (messages.collect(), Some(Arc::clone(&outlet)));
        queue.handle(batch, Input::Publish { origin, messages }, &mut effects);
        queue.flush(&mut effects);
        let tickets = (batch * BATCH + 1..=(batch + 1) * BATCH).collect();
        let settlement = Settlement::Remove;
        queue.handle(batch, Input::Settle { holder: holder(1), tickets, settlement }, &mut effects);
        drop(std::mem::take(&mut effects));
    }
    let elapsed = start.elapsed();
    assert_eq!((queue.ready_count(), queue.unacked_count()), (0, 0), "everything was delivered and acked");
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX) / (BATCH * BATCHES)
}

/// The oldest first, so that each looks at as many others as it can.
fn end(count: u32) -> u64 {
    let mut queue = Queue::new(Options::default());
    let mut effects = Effects::default();
    (0..count).for_each(|source| consume(&mut queue, source, &mut effects));
    let start = Instant::now();
    for source in 0..count {
        queue.handle(0, Input::Detach { holders: vec![holder(source)], reply_to: reply_to() }, &mut effects);
        effects.notices.clear();
    }
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) / u64::from(count)
}
