//! What many active queues cost: `cargo bench -p broker --bench queues`.
//!
//! Persistent messages of 1 KiB go through queue machines, committer and the log on the disk, each to the next queue in turn, and are
//! settled when they are confirmed. One durable queue and 10,000 take turns in one process, since disks and neighbours change; the
//! medians are compared. It fails when many queues have less than 70 % of the rate of one. `STORE_BENCH_DIR` names a folder on the
//! disk to measure, that for temporary files unless set. A number behind `--` measures only so many queues, for profiling.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker::message::{Message, Parts};
use broker::node;
use broker::plugin_host::Registry;
use broker::queue::{Burst, Handle, HolderId, Incoming, Input, NewConsumer, Notice, Outlet, Settlement};
use broker::runtime::{Broker, Clock};
use broker::store::{Committer, recovery};
use parking_lot::{Condvar, Mutex};
use smallvec::smallvec;

/// As in the broker's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MANY: usize = 10_000;
const BODY_BYTES: usize = 1024;
/// Messages that a publisher sends at a time.
const BURST: u64 = 256;
/// Messages that may be unconfirmed.
const WINDOW: u64 = 2048;
/// Each of the many queues gets ten in a turn.
const MESSAGES: u64 = 102_400;
/// The first is for warming up.
const TURNS: usize = 12;
const RATIO_MIN: f64 = 0.7;

fn main() -> ExitCode {
    let base = std::env::var_os("STORE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = base.join(format!("queues-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let only = std::env::args().find_map(|argument| argument.parse::<usize>().ok());
    let counts = only.map_or_else(|| vec![1, MANY], |only| vec![only]);
    let mut benches: Vec<_> =
        counts.into_iter().map(|count| (count, Bench::new(&runtime, &folder, count), Vec::new())).collect();
    for turn in 0..=TURNS {
        for (_, bench, taken) in &mut benches {
            let (start, cpu_secs) = (Instant::now(), cpu_secs());
            bench.run();
            if turn > 0 {
                taken.push((start.elapsed().as_secs_f64(), self::cpu_secs() - cpu_secs));
            }
        }
    }
    println!(
        "persistent messages of {BODY_BYTES} bytes, settled     messages/s  us CPU each   slowest to fastest turn"
    );
    let medians = benches.iter_mut().map(|(count, _, taken)| {
        taken.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let rate = |place: usize| MESSAGES as f64 / taken.get(place).map_or(f64::NAN, |(secs, _)| *secs);
        let cpu = taken.iter().map(|(_, cpu)| cpu).sum::<f64>() / (MESSAGES * TURNS as u64) as f64 * 1e6;
        let (median, slowest, fastest) = (rate(TURNS / 2), rate(TURNS - 1), rate(0));
        println!(
            "  {count:>6} durable queues                    {median:>12.0} {cpu:>12.1}   {slowest:.0} to {fastest:.0}"
        );
        median
    });
    let medians: Vec<f64> = medians.collect();
    drop(benches);
    runtime.shutdown_timeout(Duration::from_secs(10));
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    let [one, many] = medians[..] else { return ExitCode::SUCCESS };
    println!("  {MANY} queues beside one: {:.0} %", many / one * 100.0);
    if many / one >= RATIO_MIN { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A broker without a socket, and the one client of all its queues.
struct Bench {
    queues: Vec<Arc<dyn Handle>>,
    client: Arc<Client>,
    outlet: Arc<dyn Outlet>,
    committer: Arc<Committer>,
    /// Deliveries in the order of their numbers: the place of the queue, and the ticket.
    unsettled: std::collections::VecDeque<(usize, u64)>,
    published: u64,
    settled: u64,
    _broker: Arc<Broker>,
}

impl Bench {
    fn new(runtime: &tokio::runtime::Runtime, folder: &Path, count: usize) -> Self {
        let mut text = "vhosts:\n  /:\n    queues:\n".to_owned();
        for queue in 0..count {
            writeln!(text, "      q{queue}:").expect("a string takes all");
        }
        let file = folder.join("topology.yaml");
        std::fs::write(&file, text).expect("the file can be written");
        let topology =
            broker::config::load(&file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).topology;
        let registry = Arc::new(Registry::builtin().expect("the built-in plugins work"));
        let data = folder.join(format!("data-{count}"));
        std::fs::create_dir(&data).expect("the folder can be made");
        let storage = registry.storage("log", &serde_json::Value::Null, Some(&data)).expect("the log opens");
        let recovery = runtime.block_on(recovery::recover(&*storage)).expect("a new folder can be recovered");
        let committer = Committer::new(storage);
        let run = Arc::clone(&committer).run();
        let handle = runtime.handle().clone();
        runtime.spawn_blocking(move || handle.block_on(run));
        let broker = node::build(&topology, registry, &committer, recovery, Clock::default()).expect("a broker");
        let vhost = broker.vhost("/").expect("the vhost is there");
        let client = Arc::new(Client::default());
        let outlet: Arc<dyn Outlet> = Arc::<Client>::clone(&client);
        let queues: Vec<Arc<dyn Handle>> = (0..count)
            .map(|queue| Arc::clone(&vhost.queue(&format!("q{queue}")).expect("the queue is there").handle))
            .collect();
        for (place, queue) in queues.iter().enumerate() {
            queue.post(Input::Consume(NewConsumer {
                holder: holder(place),
                outlet: Arc::clone(&outlet),
                channel: 1,
                no_ack: false,
                is_exclusive: false,
                prefetch_count: 0,
                priority: 0,
                credit_bytes: i64::MAX / 2,
                shared_credit: None,
                limit: None,
            }));
        }
        let unsettled = std::collections::VecDeque::new();
        Self { queues, client, outlet, committer, unsettled, published: 0, settled: 0, _broker: broker }
    }

    /// Publishes, and settles what is confirmed, until all of it is.
    fn run(&mut self) {
        let end = self.published + MESSAGES;
        while self.settled < end {
            if self.published < end {
                self.publish();
            }
            // As many as the window lets go on, or all.
            let wanted = if self.published < end { (self.published + BURST).saturating_sub(WINDOW) } else { end };
            let confirmed = self.client.wait_for(wanted);
            self.settle(confirmed);
        }
    }

    fn publish(&mut self) {
        let count = self.queues.len() as u64;
        let body = [7; BODY_BYTES];
        let messages = (self.published..self.published + BURST).map(|number| {
            let parts = Parts { exchange: "", routing_key: "orders.eu", properties: &[0x10, 0, 2] };
            Incoming { message: Message::new(parts, &body), channel: 1, number: number + 1 }
        });
        let mut posts: Vec<(u64, Burst<Incoming>)> = Vec::new();
        for incoming in messages {
            let queue = (incoming.number - 1) % count;
            match posts.last_mut() {
                Some((last, messages)) if *last == queue => messages.push(incoming),
                _ => posts.push((queue, smallvec![incoming])),
            }
        }
        for (queue, messages) in posts {
            let origin = Some(Arc::clone(&self.outlet));
            self.queues[queue as usize].post(Input::Publish { origin, messages });
        }
        self.published += BURST;
        self.unsettled.extend(self.client.delivered.lock().drain(..));
    }

    fn settle(&mut self, confirmed: u64) {
        let mut posts: Vec<(usize, Burst<u64>)> = Vec::new();
        while self.settled < confirmed
            && let Some((queue, ticket)) = self.unsettled.pop_front()
        {
            self.settled += 1;
            match posts.last_mut() {
                Some((last, tickets)) if *last == queue => tickets.push(ticket),
                _ => posts.push((queue, smallvec![ticket])),
            }
        }
        for (queue, tickets) in posts {
            self.queues[queue].post(Input::Settle { holder: holder(queue), tickets, settlement: Settlement::Remove });
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.committer.stop();
    }
}

fn holder(queue: usize) -> HolderId {
    HolderId { connection: 1, source: queue as u32 }
}

/// Publisher and consumer.
#[derive(Debug, Default)]
struct Client {
    delivered: Mutex<Vec<(usize, u64)>>,
    confirmed: Mutex<u64>,
    changed: Condvar,
    /// Told by nobody who confirms them: how many the waiting side wants.
    wanted: AtomicU64,
}

impl Client {
    fn wait_for(&self, wanted: u64) -> u64 {
        let mut confirmed = self.confirmed.lock();
        self.wanted.store(wanted, Ordering::Relaxed);
        while *confirmed < wanted {
            let waited = self.changed.wait_for(&mut confirmed, Duration::from_secs(60));
            assert!(!waited.timed_out(), "{wanted} messages are confirmed in time");
        }
        *confirmed
    }
}

impl Outlet for Client {
    fn post(&self, notice: Notice) {
        match notice {
            Notice::Delivered { source, deliveries, .. } => {
                self.delivered.lock().extend(deliveries.iter().map(|delivery| (source as usize, delivery.ticket)));
            }
            Notice::Confirmed { numbers, is_taken: true } => {
                let mut confirmed = self.confirmed.lock();
                *confirmed += numbers.iter().map(|numbers| numbers.last - numbers.first + 1).sum::<u64>();
                if *confirmed >= self.wanted.load(Ordering::Relaxed) {
                    self.changed.notify_one();
                }
            }
            Notice::Reply { .. } => {}
            other => panic!("nobody expects {other:?}"),
        }
    }

    fn publishes_processed(&self, _: usize) {}
}

/// Of all threads of this process, from /proc/self/stat, which counts hundredths of a second.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let (_, numbers) = stat.rsplit_once(')').expect("the name of the program is in brackets");
    // Behind the name: the state, and from the 12th on the times in user and system mode.
    numbers.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
