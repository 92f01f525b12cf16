//! What reading statistics of 10,000 queues costs: `cargo bench -p broker --bench metrics`.
//!
//! Each queue has had messages from one exchange and has some left. For each reader: milliseconds and the bytes of its answer. Two have a limit, which is
//! promised to those who poll: whoever is above it ends this with exit code 1.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use broker::management::{self, Management, NodeFacts};
use broker::message::{Message, Parts};
use broker::metrics::history::LOOK_MS;
use broker::metrics::prometheus::{self, Scope};
use broker::metrics::read::{Ranges, Reader};
use broker::plugin_host::Registry;
use broker::queue::{Incoming, Input};
use broker::runtime::{Broker, Clock, sampler};
use broker::store::Committer;
use broker::store::recovery::recover;
use broker::topology::schema::{ManagementDecl, Topology};
use broker::vhost::authority::Operator;
use broker::vhost::declare::QueueSpec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUEUES: usize = 10_000;
const ROUNDS: usize = 5;

/// Milliseconds for a page of 500 of the queues over HTTP, and for the page of metrics with a series for each object.
const LIST_MS_MAX: f64 = 20.0;
const PER_OBJECT_MS_MAX: f64 = 200.0;

fn main() -> ExitCode {
    let broker = start();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{:<44}{:>10}{:>12}", format!("{QUEUES} queues"), "ms", "bytes");
    let mut is_slow = false;
    let mut show = |what: &str, limit_ms: Option<f64>, read: &mut dyn FnMut() -> usize| {
        let (mut best, mut bytes) = (Duration::MAX, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            bytes = read();
            best = best.min(start.elapsed());
        }
        let best_ms = best.as_secs_f64() * 1_000.0;
        let verdict = match limit_ms {
            Some(limit_ms) if best_ms > limit_ms => {
                is_slow = true;
                format!("  above the limit of {limit_ms} ms")
            }
            Some(limit_ms) => format!("  of {limit_ms} ms"),
            None => String::new(),
        };
        let _ = writeln!(out, "{what:<44}{best_ms:>10.2}{bytes:>12}{verdict}");
    };
    show("/metrics", None, &mut || prometheus::page(&broker, &Scope::Aggregated).len());
    show("/metrics/per-object", Some(PER_OBJECT_MS_MAX), &mut || prometheus::page(&broker, &Scope::PerObject).len());
    let mut client = Client::of(&broker);
    show("/api/queues?page=1&page_size=500", Some(LIST_MS_MAX), &mut || client.get("/api/queues?page=1&page_size=500"));
    let mut now_ms = broker.clock.wall_ms();
    show("a look at everything, all quiet", None, &mut || {
        now_ms += LOOK_MS;
        block_on(sampler::look(&broker, now_ms));
        0
    });
    show("a look at everything, all busy", None, &mut || {
        publish(&broker);
        now_ms += LOOK_MS;
        block_on(sampler::look(&broker, now_ms));
        0
    });
    show("the same without the look", None, &mut || {
        publish(&broker);
        0
    });
    show("facts of all queues", None, &mut || {
        let reader = Reader::new(&broker, Ranges::default());
        let vhost = broker.vhost("/").expect("there is a vhost");
        vhost.queues().iter().filter_map(|queue| reader.queue(queue)).count()
    });
    if is_slow { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A connection to the broker's API, which stays open as that of a program that polls.
struct Client {
    connection: BufReader<TcpStream>,
    _runtime: tokio::runtime::Runtime,
}

impl Client {
    fn of(broker: &Arc<Broker>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let listener = runtime.block_on(listener).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let api = Management::new(Arc::clone(broker), ManagementDecl::default(), NodeFacts::default());
        runtime.spawn(management::serve(api, listener, None));
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("a socket has that");
        Self { connection: BufReader::new(stream), _runtime: runtime }
    }

    /// The bytes of the answer, all of which has been read.
    fn get(&mut self, path: &str) -> usize {
        // guest:guest
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n");
        self.connection.get_mut().write_all(head.as_bytes()).expect("it is read");
        let mut length = None;
        loop {
            let mut line = String::new();
            self.connection.read_line(&mut line).expect("an answer");
            let line = line.trim_end().to_ascii_lowercase();
            assert!(!line.starts_with("http/1.1 ") || line.starts_with("http/1.1 200"), "{line}");
            match line.strip_prefix("content-length: ") {
                Some(bytes) => length = bytes.parse().ok(),
                None if line.is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length.expect("an answer says how long it is")];
        self.connection.read_exact(&mut body).expect("all of it");
        body.len()
    }
}

/// A broker on the storage in memory, with queues that have had something.
fn start() -> Arc<Broker> {
    let registry = Arc::new(Registry::builtin().expect("built-in plugins work"));
    let storage = registry.storage("memory", &serde_json::Value::Null, None).expect("it is built in");
    let recovery = block_on(recover(&*storage)).expect("it is empty");
    let committer = Committer::new(storage);
    let broker = broker::node::build(&Topology::default(), registry, &committer, recovery, Clock::default());
    let broker = broker.expect("the default topology works");
    let vhost = broker.vhost("/").expect("there is a vhost");
    for number in 0..QUEUES {
        let spec = QueueSpec { name: format!("queue{number}"), durable: true, ..QueueSpec::default() };
        vhost.declare_queue(&mut Operator, spec, || unreachable!("it has a name")).expect("it is new");
    }
    publish(&broker);
    let exchange = vhost.exchange("").expect("it is predeclared");
    vhost.queues().iter().for_each(|queue| exchange.stats.pair(queue.number).add(1));
    broker
}

fn publish(broker: &Broker) {
    let vhost = broker.vhost("/").expect("there is a vhost");
    let message = Message::new(Parts { exchange: "", routing_key: "queue", properties: &[0, 0] }, b"0123456789abcdef");
    for queue in vhost.queues() {
        let messages = vec![Incoming { message: Arc::clone(&message), channel: 1, number: 0 }];
        queue.handle.post(Input::Publish { origin: None, messages: messages.into() });
    }
}

/// Nothing here waits for anything but the storage in memory, which answers at once, and for its turn.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}
