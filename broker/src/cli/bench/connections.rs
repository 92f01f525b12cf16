//! Many connections that do nothing, and few that come and go.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use plugin_api::value::Table;

use super::client::{Client, QueueKind};
use super::consumer::latencies;
use super::error::BenchError;
use super::flow::seconds;
use super::report::Report;
use super::{Setting, interrupted, unique};
use crate::cli::progress::Progress;

#[derive(Args, Clone, Debug)]
pub(super) struct ConnectionsArgs {
    /// Connections to open, each with a channel
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// What each consumes from
    #[arg(long, value_name = "WHAT", value_enum, default_value = "own-queue")]
    consume: Consume,
    /// Leave them open for so long, in seconds, and look what that takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    hold: f64,
    /// Threads that open connections side by side
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Consume {
    /// An exclusive queue of its own
    OwnQueue,
    /// One queue for all of them
    SharedQueue,
    /// Nothing
    Nothing,
}

#[derive(Args, Clone, Debug)]
pub(super) struct ChurnArgs {
    /// What comes and goes
    #[arg(value_name = "WHAT", value_enum, default_value = "session")]
    what: What,
    /// For so long, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// So many times in all instead
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Clients side by side
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Open a connection and a channel, declare a queue, close
    Session,
    /// Open and close a connection
    Connection,
    /// Open and close a channel
    Channel,
    /// Declare and delete an exclusive queue
    Queue,
    /// Declare and delete a durable queue
    DurableQueue,
    /// Bind and unbind a durable queue
    Binding,
}

/// Opens many, and looks what they take.
pub(super) fn connections(setting: &Setting, args: &ConnectionsArgs) -> Result<Report, BenchError> {
    raise_open_files(u64::from(args.count) + 100);
    let mut report = setting.report("connections");
    report.put("connections", args.count);
    report.put("consume", args.consume.to_possible_value().map(|value| value.get_name().to_owned()));
    let (name, _) = unique();
    let mut control = Client::open(&setting.target)?;
    let table = Table::default();
    if args.consume == Consume::SharedQueue {
        control.declare_queue(&name, QueueKind { durable: true, exclusive: false, arguments: &table })?;
    }
    let (before, memory_before) = (setting.processes.usage()?, setting.memory()?);
    let start = Instant::now();
    let opened = open_all(setting, args, &name);
    let secs = start.elapsed().as_secs_f64();
    let result = opened.and_then(|(clients, times)| {
        let (after, memory_after) = (setting.processes.usage()?, setting.memory()?);
        report.rate("opened_per_sec", u64::from(args.count), secs);
        report.quantiles(["open_p50_us", "open_p95_us", "open_p99_us", "open_p999_us", "open_max_us"], Some(&times));
        report.cpu(("broker_cpu_us_per_connection", "broker_cpu_cores"), (before, after), u64::from(args.count), secs);
        if let (Some(before), Some(after)) = (before, after) {
            let bytes = after.private_bytes as f64 - before.private_bytes as f64;
            report.measured("broker_memory_kib_per_connection", bytes / 1024.0 / f64::from(args.count));
        }
        if let (Some(before), Some(after)) = (memory_before, memory_after) {
            let kib = (after - before) / 1024.0;
            report.measured("management_memory_kib_per_connection", kib / f64::from(args.count));
        }
        let held = Instant::now();
        let mut progress = Progress::new("holding, in ms");
        while held.elapsed().as_secs_f64() < args.hold && !interrupted() {
            thread::sleep(Duration::from_millis(20));
            progress.set(held.elapsed().as_millis() as u64, Some((args.hold * 1000.0) as u64));
        }
        drop(progress);
        let idle = setting.processes.usage()?;
        if let (Some(after), Some(idle)) = (after, idle) {
            report.measured("broker_idle_cpu_cores", (idle.cpu_secs - after.cpu_secs) / held.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        for client in clients {
            client.close()?;
        }
        report.rate("closed_per_sec", u64::from(args.count), start.elapsed().as_secs_f64());
        Ok(())
    });
    if args.consume == Consume::SharedQueue {
        control.delete_queue(&name)?;
    }
    control.close()?;
    result.map(|()| report)
}

/// As many files as the hard limit allows; what is missing shows when a connection cannot be opened.
fn raise_open_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    }
}

fn open_all(
    setting: &Setting,
    args: &ConnectionsArgs,
    name: &str,
) -> Result<(Vec<Client>, Histogram<u64>), BenchError> {
    let table = Table::default();
    let (opened, all) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let one = || -> Result<(), BenchError> {
        let start = Instant::now();
        let mut client = Client::open(&setting.target)?;
        match args.consume {
            Consume::OwnQueue => {
                let kind = QueueKind { durable: false, exclusive: true, arguments: &table };
                let queue = client.declare_queue("", kind)?;
                client.consume(&queue, true)?;
            }
            Consume::SharedQueue => client.consume(name, true)?,
            Consume::Nothing => {}
        }
        let taken = start.elapsed().as_nanos() as u64;
        lock(&all).push((client, taken));
        Ok(())
    };
    let is_left = || opened.fetch_add(1, Relaxed) < u64::from(args.count) && !interrupted();
    let mut progress = Progress::new("opening connections");
    side_by_side(
        usize::from(args.threads),
        &|_| {
            while is_left() {
                one()?;
            }
            Ok(())
        },
        &mut || progress.set(opened.load(Relaxed).min(u64::from(args.count)), Some(u64::from(args.count))),
    )?;
    let mut times = times()?;
    let opened = std::mem::take(&mut *lock(&all));
    opened.iter().for_each(|(_, taken)| times.saturating_record((*taken).max(1)));
    Ok((opened.into_iter().map(|(client, _)| client).collect(), times))
}

/// Opens and closes over and over.
pub(super) fn churn(setting: &Setting, args: &ChurnArgs) -> Result<Report, BenchError> {
    let mut report = setting.report("churn");
    report.put("what", args.what.to_possible_value().map(|value| value.get_name().to_owned()));
    report.put("clients", args.clients);
    let (name, _) = unique();
    let (begun, ended, all) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(times()?));
    let before = setting.processes.usage()?;
    let start = Instant::now();
    let is_left = || match args.count {
        Some(count) => begun.fetch_add(1, Relaxed) < count && !interrupted(),
        None => start.elapsed().as_secs_f64() < args.duration && !interrupted(),
    };
    let one_client = |number: usize| -> Result<(), BenchError> {
        let mut cycle = Cycle::new(setting, args.what, format!("{name}.{number}"))?;
        let mut times = times()?;
        while is_left() {
            let start = Instant::now();
            cycle.run()?;
            times.saturating_record((start.elapsed().as_nanos() as u64).max(1));
            ended.fetch_add(1, Relaxed);
        }
        let _ = lock(&all).add(&times);
        cycle.end()
    };
    let mut progress = Progress::new("coming and going");
    side_by_side(usize::from(args.clients), &one_client, &mut || progress.set(ended.load(Relaxed), args.count))?;
    drop(progress);
    let secs = start.elapsed().as_secs_f64();
    let after = setting.processes.usage()?;
    let count = ended.load(Relaxed);
    report.put("cycles", count);
    report.rate("cycles_per_sec", count, secs);
    report.quantiles(
        ["cycle_p50_us", "cycle_p95_us", "cycle_p99_us", "cycle_p999_us", "cycle_max_us"],
        Some(&lock(&all)),
    );
    report.cpu(("broker_cpu_us_per_cycle", "broker_cpu_cores"), (before, after), count, secs);
    report.memory("broker_memory_mib", after);
    Ok(report)
}

/// What one client does over and over.
struct Cycle<'a> {
    setting: &'a Setting,
    what: What,
    name: String,
    arguments: Table,
    client: Option<Client>,
}

impl<'a> Cycle<'a> {
    fn new(setting: &'a Setting, what: What, name: String) -> Result<Self, BenchError> {
        let mut client = match what {
            What::Session | What::Connection => None,
            What::Channel => Some(Client::connect(&setting.target)?),
            What::Queue | What::DurableQueue | What::Binding => Some(Client::open(&setting.target)?),
        };
        let arguments = Table::default();
        if let (What::Binding, Some(client)) = (what, &mut client) {
            client.declare_queue(&name, QueueKind { durable: true, exclusive: false, arguments: &arguments })?;
        }
        Ok(Self { setting, what, name, arguments, client })
    }

    fn run(&mut self) -> Result<(), BenchError> {
        let queue =
            |is_durable: bool| QueueKind { durable: is_durable, exclusive: !is_durable, arguments: &self.arguments };
        let Some(client) = &mut self.client else {
            let mut client = Client::connect(&self.setting.target)?;
            if self.what == What::Session {
                client.open_channel()?;
                client.declare_queue("", queue(false))?;
            }
            return client.close();
        };
        match self.what {
            What::Channel => client.open_channel().and_then(|()| client.close_channel()),
            What::Queue | What::DurableQueue => {
                client.declare_queue(&self.name, queue(self.what == What::DurableQueue))?;
                client.delete_queue(&self.name)
            }
            What::Binding => {
                client.bind(&self.name, "amq.direct", "k", &self.arguments)?;
                client.unbind(&self.name, "amq.direct", "k")
            }
            What::Session | What::Connection => Ok(()),
        }
    }

    fn end(self) -> Result<(), BenchError> {
        let Some(mut client) = self.client else { return Ok(()) };
        if self.what == What::Binding {
            client.delete_queue(&self.name)?;
        }
        client.close()
    }
}

/// Runs `work` in so many threads with their numbers, and `watch` now and then; the first mistake is what is wrong.
fn side_by_side(
    threads: usize,
    work: &(impl Fn(usize) -> Result<(), BenchError> + Sync),
    watch: &mut dyn FnMut(),
) -> Result<(), BenchError> {
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        while !running.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
            watch();
        }
        running.into_iter().try_for_each(|handle| {
            handle.join().unwrap_or_else(|_| Err(BenchError::System("a thread of the generator panicked".into())))
        })
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Whoever panicked is told of anyway.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn times() -> Result<Histogram<u64>, BenchError> {
    latencies().ok_or_else(|| BenchError::System("no room for a histogram".into()))
}
