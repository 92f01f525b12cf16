//! What a message costs between the bytes that come and the bytes that go: `cargo bench -p broker --bench path`.
//!
//! Two sessions in one thread, without sockets, tasks and disk: one publishes, one consumes, in turns of as many messages as a
//! read of a busy socket brings. So the same work is done in each run, and a count of instructions is steady where times are not:
//! `broker/benches/instructions` counts them under callgrind and compares them with what is written down. Without arguments it prints nanoseconds,
//! the best of some rounds; `CASE MESSAGES` behind `--` carries out one case, for callgrind and profilers.

use std::fmt::Write as _;
use std::future::Future;
use std::hint::black_box;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use broker::access::{Mechanism, Peer};
use broker::amqp::frame::{self, FrameKind};
use broker::amqp::handshake::PROTOCOL_HEADER;
use broker::amqp::method::*;
use broker::node;
use broker::plugin_host::Registry;
use broker::runtime::buffers;
use broker::runtime::session::LoginRefused;
use broker::runtime::{Broker, Clock, Session};
use broker::store::{Committer, Recovery};
use plugin_api::value::TableRef;

/// As in the broker's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MESSAGES: u64 = 256_000;
const ROUNDS: usize = 7;

/// One way for messages to take.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Messages in a turn.
    burst: u64,
    body_bytes: usize,
    is_persistent: bool,
    /// Confirms, and an ack for each turn.
    is_safe: bool,
    /// The default exchange sends to the queues in turn, others send to all.
    exchange: &'static str,
    queue_count: usize,
    /// Bindings of the exchange that match nothing that is published.
    other_bindings: usize,
    /// Different keys that are published, one after the other.
    key_count: usize,
}

impl Case {
    /// In a turn.
    fn deliveries(&self) -> u64 {
        self.burst * if self.exchange.is_empty() { 1 } else { self.queue_count as u64 }
    }
}

const PLAIN: Case = Case {
    name: "transient 16 B",
    burst: 256,
    body_bytes: 16,
    is_persistent: false,
    is_safe: false,
    exchange: "",
    queue_count: 1,
    other_bindings: 0,
    key_count: 1,
};

const CASES: [Case; 10] = [
    PLAIN,
    Case { name: "transient 1 KiB", body_bytes: 1024, ..PLAIN },
    Case { name: "transient 16 KiB", burst: 16, body_bytes: 16 * 1024, ..PLAIN },
    Case { name: "transient 16 B, confirms and acks", is_safe: true, ..PLAIN },
    Case { name: "persistent 1 KiB, confirms and acks", body_bytes: 1024, is_persistent: true, is_safe: true, ..PLAIN },
    Case { name: "16 B to 10,000 queues in turn", queue_count: 10_000, ..PLAIN },
    Case {
        name: "persistent 1 KiB to 10,000 queues in turn",
        body_bytes: 1024,
        is_persistent: true,
        is_safe: true,
        queue_count: 10_000,
        ..PLAIN
    },
    Case { name: "fanout to 10 queues, 16 B", exchange: "amq.fanout", queue_count: 10, ..PLAIN },
    Case { name: "topic, 1,000 bindings, one key", exchange: "amq.topic", other_bindings: 1000, ..PLAIN },
    Case {
        name: "topic, 1,000 bindings, new keys",
        exchange: "amq.topic",
        other_bindings: 1000,
        key_count: 100_000,
        ..PLAIN
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [] => {
            for case in CASES {
                let mut bench = Bench::new(case);
                bench.warm_up();
                let best = (0..ROUNDS).map(|_| {
                    let start = Instant::now();
                    measured_turns(&mut bench, MESSAGES / case.burst);
                    start.elapsed().as_nanos() as u64 / MESSAGES
                });
                println!("{:38} {:6} ns a message", case.name, best.min().unwrap_or_default());
            }
        }
        [list] if list == "list" => CASES.iter().for_each(|case| println!("{}", case.name)),
        [name, messages] => {
            let case = CASES.into_iter().find(|case| case.name == name).expect("the name of a case");
            let mut bench = Bench::new(case);
            bench.warm_up();
            measured_turns(&mut bench, messages.parse::<u64>().expect("a number of messages") / case.burst);
        }
        _ => panic!("nothing, 'list', or a case and a number of messages"),
    }
}

/// What is counted: callgrind knows it by this name.
#[inline(never)]
fn measured_turns(bench: &mut Bench, turns: u64) {
    for _ in 0..turns {
        bench.turn();
    }
}

struct Bench {
    case: Case,
    publisher: Client,
    consumer: Client,
    /// Frames of a turn, one for each lot of keys.
    bursts: Vec<Vec<u8>>,
    next_burst: usize,
    delivered: u64,
    storing: Option<Pin<Box<dyn Future<Output = ()>>>>,
    _broker: Arc<Broker>,
}

impl Bench {
    fn new(case: Case) -> Self {
        let registry = Arc::new(Registry::builtin().expect("the built-in plugins work"));
        let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("the memory storage works");
        let committer = Committer::new(storage);
        let folder = std::env::temp_dir();
        let file = folder.join(format!("path-bench-{}.yaml", std::process::id()));
        let broker = build(case, registry, &committer, &file);
        std::fs::remove_file(&file).expect("the file can be removed");
        let mut publisher = Client::new(&broker);
        let mut consumer = Client::new(&broker);
        if case.is_safe {
            publisher.send(1, ConfirmSelect { nowait: true });
        }
        for queue in 0..case.queue_count {
            consumer.send(
                1,
                BasicConsume {
                    ticket: 0,
                    queue: &format!("q{queue}"),
                    consumer_tag: "",
                    no_local: false,
                    no_ack: !case.is_safe,
                    exclusive: false,
                    nowait: true,
                    arguments: TableRef::new(&[]),
                },
            );
        }
        let keys: Vec<String> = match (case.exchange, case.key_count) {
            ("", _) => (0..case.queue_count).map(|queue| format!("q{queue}")).collect(),
            (_, 1) => vec!["wanted.key".into()],
            (_, count) => (0..count).map(|n| format!("wanted.{n}")).collect(),
        };
        let body = vec![7; case.body_bytes];
        let bursts = keys.chunks(case.burst as usize).map(|keys| {
            let mut frames = Vec::new();
            for key in keys.iter().cycle().take(case.burst as usize) {
                publish(&mut frames, case, key, &body);
            }
            frames
        });
        let bursts = bursts.collect();
        // Its awaits are ready in one poll, or wait for what the next turn brings.
        let storing: Pin<Box<dyn Future<Output = ()>>> = Box::pin(committer.run());
        Self { case, publisher, consumer, bursts, next_burst: 0, delivered: 0, storing: Some(storing), _broker: broker }
    }

    /// Also a look at whether messages come at all.
    fn warm_up(&mut self) {
        for turn in 0..200 {
            self.consumer.deliveries = 0;
            self.consumer.is_watched = turn == 199;
            self.turn();
        }
        assert_eq!(self.consumer.deliveries, self.case.deliveries(), "each message comes to each queue that gets it");
        self.consumer.is_watched = false;
    }

    fn turn(&mut self) {
        self.publisher.bytes(&self.bursts[self.next_burst]);
        self.next_burst = (self.next_burst + 1) % self.bursts.len();
        if self.case.is_persistent
            && let Some(storing) = &mut self.storing
        {
            assert!(storing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it never ends");
        }
        // Credit that comes back with what was written may bring more.
        while self.consumer.read() > 0 {}
        // Each copy of a message is counted where it is delivered.
        self.delivered += self.case.deliveries();
        if self.case.is_safe {
            self.consumer.send(1, BasicAck { delivery_tag: self.delivered, multiple: true });
        }
        self.publisher.read();
    }
}

fn build(case: Case, registry: Arc<Registry>, committer: &Arc<Committer>, file: &PathBuf) -> Arc<Broker> {
    let mut text = "vhosts:\n  /:\n    queues:\n".to_owned();
    let put = "a string takes all";
    for queue in 0..case.queue_count {
        writeln!(text, "      q{queue}:").expect(put);
    }
    if !case.exchange.is_empty() {
        writeln!(text, "    bindings:").expect(put);
        for queue in 0..case.queue_count {
            let key = if case.exchange == "amq.topic" { "wanted.*" } else { "" };
            writeln!(text, "      - {} -> q{queue} : '{key}'", case.exchange).expect(put);
        }
        for other in 0..case.other_bindings {
            let pattern = match other % 3 {
                0 => format!("other.{other}.*"),
                1 => format!("other.*.{other}.#"),
                _ => format!("other.{other}"),
            };
            writeln!(text, "      - {} -> q0 : '{pattern}'", case.exchange).expect(put);
        }
    }
    std::fs::write(file, text).expect("the file can be written");
    let topology = broker::config::load(file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).topology;
    node::build(&topology, registry, committer, Recovery::default(), Clock::default()).expect("a broker")
}

fn publish(frames: &mut Vec<u8>, case: Case, routing_key: &str, body: &[u8]) {
    let (exchange, mandatory, immediate) = (case.exchange, false, false);
    frame::write_method(frames, 1, BasicPublish { ticket: 0, exchange, routing_key, mandatory, immediate });
    frame::write(frames, FrameKind::Header, 1, |out| {
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        out.extend_from_slice(if case.is_persistent { &[0x10, 0, 2] } else { &[0, 0] });
    });
    frame::write(frames, FrameKind::Body, 1, |out| out.extend_from_slice(body));
}

/// A session and the client that it believes in.
struct Client {
    session: Session,
    now: Instant,
    /// Whether its deliveries are counted.
    is_watched: bool,
    seen: Vec<u8>,
    deliveries: u64,
}

impl Client {
    fn new(broker: &Arc<Broker>) -> Self {
        let now = Instant::now();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let session = Session::new(Arc::clone(broker), peer, now);
        let mut client = Self { session, now, is_watched: false, seen: Vec::new(), deliveries: 0 };
        client.bytes(&PROTOCOL_HEADER);
        let start_ok = ConnectionStartOk {
            client_properties: TableRef::new(&[]),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        client.send(0, start_ok);
        let login = client.session.take_login().expect("start-ok brings a login");
        let user = broker.access.login(Mechanism::Plain, &login.response, Peer::LOOPBACK);
        let user = now_or_never(user).map_err(LoginRefused::from);
        client.session.on_login(now, "PLAIN", user);
        client.send(0, ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 });
        client.send(0, ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
        client.send(1, ChannelOpen { out_of_band: "" });
        client
    }

    fn send<'m>(&mut self, channel: u16, method: impl Into<Method<'m>>) {
        let mut frames = Vec::new();
        frame::write_method(&mut frames, channel, method);
        self.bytes(&frames);
    }

    /// One turn of a connection's task, with a socket that takes everything.
    fn bytes(&mut self, frames: &[u8]) {
        self.session.out().lend(buffers::take_write);
        assert_eq!(self.session.on_bytes(self.now, frames), frames.len(), "the session takes all of it");
        self.write();
    }

    /// How many bytes it sends for what has come.
    fn read(&mut self) -> usize {
        self.session.out().lend(buffers::take_write);
        self.session.on_mail(self.now);
        self.write()
    }

    fn write(&mut self) -> usize {
        let mut written = 0;
        while !self.session.out().is_empty() {
            let mut slices = [IoSlice::new(&[]); 64];
            let used = self.session.out().slices(&mut slices);
            let count = black_box(&slices[..used]).iter().map(|slice| slice.len()).sum();
            written += count;
            if self.is_watched {
                self.seen.extend(slices[..used].iter().flat_map(|slice| slice.iter()));
            }
            self.session.out().advance(count);
            self.session.on_written(self.now);
        }
        if self.is_watched {
            let mut input = &self.seen[..];
            while let Some(frame) = frame::decode(&mut input, 0).expect("the broker frames well") {
                let is_method = frame.kind == FrameKind::Method;
                let is_delivery = is_method && matches!(Method::decode(frame.payload), Ok(Method::BasicDeliver(_)));
                self.deliveries += u64::from(is_delivery);
            }
            self.seen.clear();
        }
        if let Some(buffer) = self.session.out().release() {
            buffers::give_write(buffer);
        }
        written
    }
}

fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("nothing here waits"),
    }
}
