//! What reading statistics of 10,000 queues costs: `cargo bench -p broker --bench metrics`.
//!
//! Each queue has had messages from one exchange and has some left. For each reader: milliseconds and the bytes of its answer.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use broker::message::{Message, Parts};
use broker::metrics::history::LOOK_MS;
use broker::metrics::prometheus::{self, Scope};
use broker::metrics::read::{Ranges, Reader};
use broker::plugin_host::Registry;
use broker::queue::{Incoming, Input};
use broker::runtime::{Broker, Clock, sampler};
use broker::store::Committer;
use broker::store::recovery::recover;
use broker::topology::schema::Topology;
use broker::vhost::authority::Operator;
use broker::vhost::declare::QueueSpec;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUEUES: usize = 10_000;
const ROUNDS: usize = 5;

fn main() {
    let broker = start();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{:<44}{:>10}{:>12}", format!("{QUEUES} queues"), "ms", "bytes");
    let mut show = |what: &str, read: &mut dyn FnMut() -> usize| {
        let (mut best, mut bytes) = (Duration::MAX, 0);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            bytes = read();
            best = best.min(start.elapsed());
        }
        let _ = writeln!(out, "{what:<44}{:>10.2}{bytes:>12}", best.as_secs_f64() * 1_000.0);
    };
    show("/metrics", &mut || prometheus::page(&broker, &Scope::Aggregated).len());
    show("/metrics/per-object", &mut || prometheus::page(&broker, &Scope::PerObject).len());
    let mut now_ms = broker.clock.wall_ms();
    show("a look at everything, all quiet", &mut || {
        now_ms += LOOK_MS;
        block_on(sampler::look(&broker, now_ms));
        0
    });
    show("a look at everything, all busy", &mut || {
        publish(&broker);
        now_ms += LOOK_MS;
        block_on(sampler::look(&broker, now_ms));
        0
    });
    show("the same without the look", &mut || {
        publish(&broker);
        0
    });
    show("facts of all queues", &mut || {
        let reader = Reader::new(&broker, Ranges::default());
        let vhost = broker.vhost("/").expect("there is a vhost");
        vhost.queues().iter().filter_map(|queue| reader.queue(queue)).count()
    });
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
