//! What the single parts of the path cost, in nanoseconds an operation: `cargo bench -p broker --bench micro [WORD...]`.
//!
//! Codec, routing by each type of exchange with 10 to 100,000 bindings, the hop between two threads, the committer. The machine of a queue has a bench of
//! its own (`queue`), and so have the whole path without sockets (`path`) and the committer on a disk (`queues`). Each figure is the best of
//! some rounds, since everything that disturbs one makes it slower. Words choose figures whose names contain one of them.

use std::future::Future;
use std::hint::black_box;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use broker::amqp::connection::Delivery;
use broker::amqp::frame::{self, FrameKind};
use broker::amqp::handshake::PROTOCOL_HEADER;
use broker::amqp::method::*;
use broker::amqp::{ChannelId, Connection, Event, Identity, Limits, SourceId};
use broker::message::{Message, Parts};
use broker::node;
use broker::plugin_host::Registry;
use broker::queue::{Append, Notice, Numbers, Outlet, Place, SeqRange, Stored};
use broker::routing::{Destination, Exchange};
use broker::runtime::{Broker, Clock, Mailbox};
use broker::store::{Committer, Recovery, Submission};
use plugin_api::exchange::{BindingSpec, ExchangeSpec};
use plugin_api::message::PropertiesBuf;
use plugin_api::value::{Table, TableRef, Value};

/// As in the broker's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 12;
/// Messages that a read or a write of a busy socket has.
const BATCH: u64 = 256;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let bench = Bench { words };
    codec(&bench);
    routing(&bench);
    hop(&bench);
    committer(&bench);
}

struct Bench {
    words: Vec<String>,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    /// Prints what one of `operations` takes, of those that a call does.
    fn measure(&self, name: &str, operations: u64, mut call: impl FnMut()) {
        if !self.wants(name) {
            return;
        }
        let calls = (100_000 / operations).max(1);
        let round = |_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_secs_f64() * 1e9 / (calls * operations) as f64
        };
        let best = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
        println!("{name:44} {best:9.1} ns");
    }
}

// Codec

fn publishes(body_bytes: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    let body = vec![7; body_bytes];
    for _ in 0..BATCH {
        let (exchange, routing_key) = ("", "orders.eu");
        let publish = BasicPublish { ticket: 0, exchange, routing_key, mandatory: false, immediate: false };
        frame::write_method(&mut frames, 1, publish);
        frame::write(&mut frames, FrameKind::Header, 1, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(body_bytes as u64).to_be_bytes());
            out.extend_from_slice(&[0x10, 0, 2]);
        });
        frame::write(&mut frames, FrameKind::Body, 1, |out| out.extend_from_slice(&body));
    }
    frames
}

fn codec(bench: &Bench) {
    for size in [16, 1024] {
        let frames = publishes(size);
        bench.measure(&format!("codec: cut and decode a publish of {size} B"), BATCH, || {
            let mut input = &frames[..];
            while let Some(frame) = frame::decode(&mut input, 131_072).expect("sound frames") {
                match frame.kind {
                    FrameKind::Method => drop(black_box(Method::decode(frame.payload))),
                    _ => drop(black_box(frame)),
                }
            }
        });
        let mut connection = open();
        let now = Instant::now();
        bench.measure(&format!("codec: publish of {size} B to a message"), BATCH, || {
            let (mut input, mut count) = (&frames[..], 0);
            while let Some(event) = connection.next_event(now, &mut input) {
                let Event::Publish { message, .. } = event else { panic!("{event:?}") };
                drop(black_box(message));
                count += 1;
            }
            assert_eq!(count, BATCH);
        });
        let parts = Parts { exchange: "", routing_key: "orders.eu", properties: &[0x10, 0, 2] };
        let message = Message::new(parts, &vec![7; size]);
        connection.add_consumer(ChannelId(1), SourceId(1), "consumer-1", true);
        bench.measure(&format!("codec: encode a delivery of {size} B"), BATCH, || {
            let deliveries = (0..BATCH).map(|ticket| Delivery { ticket, redelivered: false, message: &message });
            assert!(connection.deliver(ChannelId(1), SourceId(1), deliveries), "the consumer is there");
            let out = connection.out();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 64];
                let used = out.slices(&mut slices);
                let count = black_box(&slices[..used]).iter().map(|slice| slice.len()).sum();
                out.advance(count);
            }
        });
        connection.remove_consumer(ChannelId(1), SourceId(1));
    }
}

/// The machine of a connection with one channel.
fn open() -> Connection {
    let [product, version, cluster_name, mechanisms] = ["b", "1", "c", "PLAIN"].map(Into::into);
    let limits = Limits {
        frame_max_bytes: 131_072,
        channel_max: 2047,
        heartbeat_secs: 60,
        handshake_timeout: Duration::from_secs(3600),
        message_bytes_max: 1 << 20,
    };
    let now = Instant::now();
    let identity = Identity { product, version, cluster_name, mechanisms };
    let mut connection = Connection::new(Arc::new(identity), Arc::new(limits), now);
    let feed = |connection: &mut Connection, mut bytes: &[u8]| {
        while let Some(event) = connection.next_event(now, &mut bytes) {
            if let Event::ChannelOpen { channel } = event {
                connection.channel_opened(channel);
            }
        }
    };
    let method = |channel: u16, method: Method<'_>| {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        bytes
    };
    let client_properties = TableRef::new(&[]);
    feed(&mut connection, &PROTOCOL_HEADER);
    let start_ok = ConnectionStartOk { client_properties, mechanism: "PLAIN", response: b"", locale: "en_US" };
    feed(&mut connection, &method(0, start_ok.into()));
    connection.authenticated();
    let tune_ok = ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
    feed(&mut connection, &method(0, tune_ok.into()));
    feed(&mut connection, &method(0, ConnectionOpen { virtual_host: "/", capabilities: "", insist: false }.into()));
    connection.opened(now);
    feed(&mut connection, &method(1, ChannelOpen { out_of_band: "" }.into()));
    connection.out().take_all();
    connection
}

// Routing

fn routing(bench: &Bench) {
    let registry = Arc::new(Registry::builtin().expect("the built-in plugins work"));
    let broker = broker_with_a_queue(&registry);
    let queue = broker.vhost("/").and_then(|vhost| vhost.queue("q")).expect("the queue is there");
    for kind in ["direct", "fanout", "topic", "headers"] {
        for count in [10, 1_000, 100_000] {
            // A fanout has as many destinations as bindings, so there one destination is the operation.
            let (name, per) = match kind {
                "fanout" => (format!("routing: fanout, {count} bindings, each"), count),
                _ => (format!("routing: {kind}, {count} bindings"), 1),
            };
            if !bench.wants(&name) {
                continue;
            }
            let spec = ExchangeSpec { kind: kind.into(), name: "x".into(), ..ExchangeSpec::default() };
            let types = registry.exchange_types(&spec).expect("a sound type").expect("a built-in type");
            let exchange = Exchange::open(9, spec, &types).expect("it opens");
            for number in 0..count {
                let binding = binding(kind, number);
                exchange.bind(&binding, Destination::Queue(Arc::clone(&queue)), None).expect("it is bound");
            }
            let messages: Vec<Arc<Message>> = (0..1024).map(|turn| message(kind, turn * 7919 % count)).collect();
            let (mut slots, mut next) = (Vec::new(), 0);
            bench.measure(&name, per, || {
                let message = &messages[next % messages.len()];
                next += 1;
                let mut found = 0;
                let keys = [message.routing_key()];
                let each = |destination: &Destination| {
                    black_box(destination);
                    found += 1;
                };
                exchange.destinations(&message.view(), &keys, &mut slots, each).expect("it routes");
                assert_eq!(found, per, "{name}");
            });
        }
    }
}

/// Literal words, `*` and `#` in turn, as in `broker bench routing`.
fn binding(kind: &str, number: u64) -> BindingSpec {
    let key = match (kind, number % 3) {
        ("topic", 1) => format!("k.{number:06}.*"),
        ("topic", 2) => format!("k.{number:06}.#"),
        _ => format!("k.{number:06}.x"),
    };
    let mut binding = BindingSpec::to_queue("q", key);
    if kind == "headers" {
        binding.arguments = Table::new().with("x-match", "all").with("n", Value::I32(number as i32));
    }
    binding
}

fn message(kind: &str, number: u64) -> Arc<Message> {
    let mut properties = PropertiesBuf::default();
    if kind == "headers" {
        properties.headers = Some(Table::new().with("n", Value::I32(number as i32)));
    }
    let key = format!("k.{number:06}.x");
    Message::new(Parts { exchange: "x", routing_key: &key, properties: &properties.encode() }, b"0123456789abcdef")
}

fn broker_with_a_queue(registry: &Arc<Registry>) -> Arc<Broker> {
    let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("the memory storage works");
    let file = std::env::temp_dir().join(format!("micro-bench-{}.yaml", std::process::id()));
    std::fs::write(&file, "vhosts: { /: { queues: [q] } }\n").expect("the file can be written");
    let topology = broker::config::load(&file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).topology;
    std::fs::remove_file(&file).expect("the file can be removed");
    let committer = Committer::new(storage);
    node::build(&topology, Arc::clone(registry), &committer, Recovery::default(), Clock::default()).expect("a broker")
}

// The hop between threads

/// Wakes a thread that parks.
struct Parked(Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for mail as a task does, and takes it.
fn receive(mailbox: &Mailbox, cx: &mut Context<'_>, notices: &mut Vec<Notice>) -> usize {
    while mailbox.poll(cx).is_pending() {
        thread::park();
    }
    mailbox.take(notices);
    mailbox.stay_awake();
    let count = notices.len();
    notices.clear();
    count
}

fn notice(number: u64) -> Notice {
    Notice::Confirmed { numbers: vec![Numbers { channel: 1, first: number, last: number }], is_taken: true }
}

fn hop(bench: &Bench) {
    let alone = Mailbox::default();
    let mut notices = Vec::new();
    bench.measure("mailbox: post and take on one thread", BATCH, || {
        (0..BATCH).for_each(|number| alone.post(notice(number)));
        alone.take(&mut notices);
        notices.clear();
    });
    let name = "mailbox: hop to a sleeping thread";
    if !bench.wants(name) {
        return;
    }
    // There and back, so that the other always sleeps.
    let (there, back) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
    let received = Arc::new(AtomicU64::new(0));
    let other = {
        let (there, back, received) = (Arc::clone(&there), Arc::clone(&back), Arc::clone(&received));
        thread::spawn(move || {
            let waker = Waker::from(Arc::new(Parked(thread::current())));
            let (mut cx, mut notices) = (Context::from_waker(&waker), Vec::new());
            while received.load(Ordering::Relaxed) != u64::MAX {
                receive(&there, &mut cx, &mut notices);
                back.post(notice(1));
            }
        })
    };
    let waker = Waker::from(Arc::new(Parked(thread::current())));
    let mut cx = Context::from_waker(&waker);
    bench.measure(name, 2 * 1000, || {
        for _ in 0..1000 {
            there.post(notice(1));
            receive(&back, &mut cx, &mut notices);
        }
    });
    received.store(u64::MAX, Ordering::Relaxed);
    there.post(notice(1));
    other.join().expect("the other thread ends");
}

// The committer

/// A publisher that counts its confirms.
#[derive(Debug, Default)]
struct Publisher {
    confirmed: AtomicU64,
}

impl Outlet for Publisher {
    fn post(&self, notice: Notice) {
        if let Notice::Confirmed { numbers, is_taken: true } = notice {
            let count = numbers.iter().map(|numbers| numbers.last - numbers.first + 1).sum();
            self.confirmed.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn publishes_processed(&self, _: usize) {}
}

fn committer(bench: &Bench) {
    let registry = Registry::builtin().expect("the built-in plugins work");
    let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("the memory storage works");
    let committer = Committer::new(storage);
    let mut storing: Pin<Box<dyn Future<Output = ()>>> = Box::pin(Arc::clone(&committer).run());
    let publisher = Arc::new(Publisher::default());
    let parts = Parts { exchange: "", routing_key: "q", properties: &[0x10, 0, 2] };
    let message = Message::new(parts, &[7; 1024]);
    let mut next = 0;
    bench.measure("committer: store, confirm, forget, in memory", BATCH, || {
        let confirmed = publisher.confirmed.load(Ordering::Relaxed);
        let first = next;
        next += BATCH;
        let appends = (first..next).map(|seq| Append {
            place: Place { level: 0, seq },
            message: Arc::clone(&message),
            stored: Stored::Lasting,
            came_ms: 1,
            is_synced: true,
            origin: Some(Arc::clone(&publisher) as Arc<dyn Outlet>),
            channel: 1,
            number: seq + 1,
        });
        // As a queue does: the one before is settled when this one comes.
        let settled = SeqRange {
            level: 0,
            stored: Stored::Lasting,
            first: first.saturating_sub(BATCH),
            last: first.saturating_sub(1),
        };
        let settled = if first == 0 { &[][..] } else { std::slice::from_ref(&settled) };
        committer.submit(Submission { queue: 1, appends, settled, marks: &[], load: None });
        let polled = storing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending(), "it never ends");
        assert_eq!(publisher.confirmed.load(Ordering::Relaxed) - confirmed, BATCH, "all are confirmed");
    });
}
