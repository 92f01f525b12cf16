//! Messages from publishers through queues to consumers: what is declared, who is connected, and when it is over.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use plugin_api::value::{Table, Value};

use super::client::{Client, QueueKind};
use super::consumer::{Arrivals, Consumer, Expected};
use super::error::BenchError;
use super::ledger::Faults;
use super::link::Link;
use super::pace::Pace;
use super::publisher::{Publisher, Sending};
use super::target::Target;
use super::template::{DIGITS, HEADER, NUMBERS_MAX, STAMP_BYTES, Shape};
use super::usage::{Processes, Usage};
use super::worker::{Figures, Found, Shared, Worker};
use super::{interrupted, unique};
use crate::cli::progress::Progress;

/// What flows, and how.
#[derive(Args, Clone, Debug)]
pub(super) struct FlowArgs {
    /// Publishers, each with a connection
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) publishers: u16,
    /// Consumers, each with a connection and one queue, in turn [default: one for each queue]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) consumers: Option<u16>,
    /// Queues
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) queues: u16,
    /// Bytes of a body; from 16 on each message is stamped, and loss and order are checked
    #[arg(short, long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=128 * 1024 * 1024))]
    pub(super) size: u32,
    /// Send persistent messages
    #[arg(long)]
    pub(super) persistent: bool,
    /// Declare queues that do not survive a restart
    #[arg(long)]
    pub(super) transient_queues: bool,
    /// Ask for confirms, and have at most so many messages of a publisher unconfirmed; 0: do not ask
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub(super) confirm_window: u64,
    /// Ack with one ack for so many deliveries; 1: each by itself; 0: consume without acks
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub(super) ack_every: u64,
    /// Deliveries that a consumer may have unacked; 0: as many as there are
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) prefetch: u16,
    /// Publish for so long, in seconds
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    pub(super) duration: f64,
    /// Publish so many messages in all instead
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Have at most so many deliveries under way, so that queues stay short; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) inflight: u64,
    /// An argument of the queues, such as x-queue-type=quorum; may be given several times
    #[arg(long = "argument", value_name = "NAME=VALUE", value_parser = argument)]
    pub(super) arguments: Vec<(String, Value)>,
    /// Threads of the generator; the queues are shared out among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) threads: u16,
    /// Bytes that a publisher gathers for a write
    #[arg(long, value_name = "BYTES", default_value_t = 32 * 1024, value_parser = clap::value_parser!(u32).range(1..=16 * 1024 * 1024), hide_short_help = true)]
    pub(super) batch_bytes: u32,
    /// Take what has not come for lost when nothing has come for so long, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0, value_parser = seconds, hide_short_help = true)]
    pub(super) drain_timeout: f64,
}

impl FlowArgs {
    pub(super) fn consumers(&self) -> usize {
        usize::from(self.consumers.unwrap_or(self.queues))
    }
}

/// How messages find their queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExchangeKind {
    /// Each binding has a key of its own
    Direct,
    /// Each message goes to every queue
    Fanout,
    /// Literal patterns, and ones with * and #, of each a third
    Topic,
    /// Each binding matches another value of a header
    Headers,
}

impl ExchangeKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// An exchange between publishers and queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routing {
    pub(super) kind: ExchangeKind,
    /// In all. A message matches one of them, and with a fanout those of all queues.
    pub(super) bindings: u32,
}

/// A flow with everything that it needs declared in the broker.
pub(super) struct Flow {
    args: FlowArgs,
    routing: Option<Routing>,
    target: Target,
    processes: Processes,
    control: Client,
    name: String,
    tag: u16,
    /// How long bindings took.
    pub(super) binding_secs: f64,
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Both,
    Publishers,
    Consumers,
}

/// One run of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) part: Part,
    /// Messages a second in all; latencies are taken if there is one.
    pub(super) per_sec: Option<f64>,
    /// Deliveries that are expected of what was published before.
    pub(super) expected: u64,
}

/// What a run has shown.
pub(super) struct Outcome {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) publish_secs: f64,
    pub(super) deliver_secs: f64,
    pub(super) figures: Figures,
    /// Of publishers, by queue.
    pub(super) sent: Vec<Vec<u64>>,
    pub(super) arrivals: Vec<Arrivals>,
    /// Of publishers.
    pub(super) faults: Faults,
    pub(super) was_blocked: bool,
    pub(super) before: Option<Usage>,
    pub(super) after: Option<Usage>,
}

impl Outcome {
    /// How long it took until the last message had left or come.
    pub(super) fn secs(&self) -> f64 {
        self.publish_secs.max(self.deliver_secs)
    }
}

impl Flow {
    /// Declares exchange, queues and bindings.
    pub(super) fn declare(
        args: &FlowArgs,
        routing: Option<Routing>,
        target: &Target,
        processes: &Processes,
    ) -> Result<Self, BenchError> {
        check(args, routing)?;
        let control = Client::open(target)?;
        let (name, tag) = unique();
        let (args, target, processes) = (args.clone(), target.clone(), processes.clone());
        let mut flow = Self { args, routing, target, processes, control, name, tag, binding_secs: 0.0 };
        match flow.declare_all() {
            Ok(()) => Ok(flow),
            Err(error) => {
                flow.delete();
                Err(error)
            }
        }
    }

    fn queue(&self, number: usize) -> String {
        format!("{}.q{number:0DIGITS$}", self.name)
    }

    fn queues(&self) -> usize {
        usize::from(self.args.queues)
    }

    /// Queues that each message goes to.
    fn copies(&self) -> usize {
        if self.is_fanout() { self.queues() } else { 1 }
    }

    fn is_fanout(&self) -> bool {
        self.routing.is_some_and(|routing| routing.kind == ExchangeKind::Fanout)
    }

    fn declare_all(&mut self) -> Result<(), BenchError> {
        let mut arguments = Table::default();
        for (name, value) in &self.args.arguments {
            arguments.insert(name, value.clone());
        }
        let kind = QueueKind { durable: !self.args.transient_queues, exclusive: false, arguments: &arguments };
        let mut progress = Progress::new("declaring queues");
        for number in 0..self.queues() {
            let queue = self.queue(number);
            self.control.declare_queue(&queue, kind)?;
            progress.set(number as u64, Some(self.queues() as u64));
        }
        let Some(routing) = self.routing else { return Ok(()) };
        drop(progress);
        let mut progress = Progress::new("binding");
        self.control.declare_exchange(&self.name, routing.kind.name(), kind.durable)?;
        let start = Instant::now();
        let shape = self.shape();
        for number in 0..routing.bindings as usize {
            let queue = self.queue(number % self.queues());
            let mut key = shape.key_of(number);
            let mut arguments = Table::default();
            match routing.kind {
                ExchangeKind::Topic if number % 3 == 1 => key.replace_range(key.len() - 1.., "*"),
                ExchangeKind::Topic if number % 3 == 2 => key.replace_range(key.len() - 1.., "#"),
                ExchangeKind::Headers => {
                    arguments.insert("x-match", "all");
                    // At most NUMBERS_MAX.
                    arguments.insert(HEADER, Value::I32(number as i32));
                }
                _ => {}
            }
            self.control.bind(&queue, &self.name, &key, &arguments)?;
            progress.set(number as u64, Some(u64::from(routing.bindings)));
            if interrupted() {
                return Err(BenchError::Timeout("ended from outside while bindings were made".into()));
            }
        }
        self.binding_secs = start.elapsed().as_secs_f64();
        Ok(())
    }

    /// What the messages are like.
    fn shape(&self) -> Shape {
        let (exchange, key, has_header) = match self.routing.map(|routing| routing.kind) {
            None => (String::new(), (format!("{}.q", self.name), true, ""), false),
            Some(ExchangeKind::Fanout) => (self.name.clone(), (String::new(), false, ""), false),
            Some(ExchangeKind::Headers) => (self.name.clone(), (String::new(), false, ""), true),
            Some(ExchangeKind::Direct) => (self.name.clone(), ("k.".to_owned(), true, ""), false),
            Some(ExchangeKind::Topic) => (self.name.clone(), ("k.".to_owned(), true, ".x"), false),
        };
        let FlowArgs { persistent, size, .. } = self.args;
        Shape { exchange, key, has_header, is_persistent: persistent, size: size as usize, frame_max: 4096 }
    }

    /// Runs a part of the flow, or all of it.
    pub(super) fn run(&mut self, phase: Phase) -> Result<Outcome, BenchError> {
        let threads = usize::from(self.args.threads);
        let publishers = if phase.part == Part::Consumers { 0 } else { usize::from(self.args.publishers) };
        let consumers = if phase.part == Part::Publishers { 0 } else { self.args.consumers() };
        // A queue's consumers are all in one thread, which so knows all of what has come.
        let places = |queue: usize| (queue % threads, queue / threads);
        let mut all_consumers: Vec<Vec<(Link, Consumer)>> = (0..threads).map(|_| Vec::new()).collect();
        for number in 0..consumers {
            let queue = number % self.queues();
            let (thread, place) = places(queue);
            let mut client = Client::open(&self.target)?;
            if self.args.prefetch > 0 {
                client.qos(self.args.prefetch)?;
            }
            client.consume(&self.queue(queue), self.args.ack_every == 0)?;
            let expected = Expected { tag: self.tag, size: self.args.size as usize, ack_every: self.args.ack_every };
            let link = Link::new(client)?;
            let consumer = Consumer::new(place, expected, link.frame_max);
            if let Some(all) = all_consumers.get_mut(thread) {
                all.push((link, consumer));
            }
        }
        let links = (0..publishers).map(|_| self.connect_publisher()).collect::<Result<Vec<_>, _>>()?;
        let before = self.processes.usage()?;
        let copies = self.copies() as u64;
        let shared =
            Arc::new(Shared::new(publishers as u64, if consumers == 0 { 0 } else { self.args.inflight }, copies));
        let mut all_publishers: Vec<Vec<(Link, Publisher)>> = (0..threads).map(|_| Vec::new()).collect();
        for (number, link) in links.into_iter().enumerate() {
            let publisher = self.publisher(number, link.frame_max, phase, &shared);
            if let Some(all) = all_publishers.get_mut(number % threads) {
                all.push((link, publisher));
            }
        }
        let mut running = Vec::new();
        for (thread, (publishers, consumers)) in all_publishers.into_iter().zip(all_consumers).enumerate() {
            let queues = (thread..self.queues()).step_by(threads);
            let arrivals = queues.map(|_| Arrivals::new(usize::from(self.args.publishers))).collect();
            let figures = if phase.per_sec.is_some() { Figures::taken() } else { Figures::default() };
            let (done, shared) = (vec![false; publishers.len()], Arc::clone(&shared));
            let worker = Worker { shared, publishers, consumers, arrivals, figures, done };
            let builder = thread::Builder::new().name(format!("bench-{thread}"));
            let handle = builder.spawn(move || worker.run());
            running.push(handle.map_err(|error| BenchError::System(format!("no thread can be started: {error}")))?);
        }
        let after = self.watch(&shared, &running, phase);
        shared.stop.store(true, Relaxed);
        let mut found = Vec::new();
        for handle in running {
            found.push(handle.join().map_err(|_| BenchError::System("a thread of the generator panicked".into()))??);
        }
        Ok(self.outcome(&shared, found, phase, before, after?))
    }

    fn connect_publisher(&self) -> Result<Link, BenchError> {
        let mut client = Client::open(&self.target)?;
        if self.args.confirm_window > 0 {
            client.select_confirms()?;
        }
        Link::new(client)
    }

    fn publisher(&self, number: usize, frame_max: u32, phase: Phase, shared: &Shared) -> Publisher {
        let publishers = u64::from(self.args.publishers);
        let share = |count: u64| count / publishers + u64::from((number as u64) < count % publishers);
        let sending = Sending {
            shape: Shape { frame_max, ..self.shape() },
            routes: match self.routing {
                None => self.queues(),
                Some(Routing { kind: ExchangeKind::Fanout, .. }) => 1,
                Some(routing) => routing.bindings as usize,
            },
            stride: usize::from(self.args.publishers),
            lanes: if self.is_fanout() { 1 } else { self.queues() },
            // At most 10,000.
            publisher: number as u16,
            tag: self.tag,
            window: self.args.confirm_window,
            count: self.args.count.map(share),
            batch_bytes: self.args.batch_bytes as usize,
        };
        let pace = phase.per_sec.map(|per_sec| {
            let phase = number as f64 / publishers as f64;
            Pace::new(shared.now() + START_NANOS, per_sec / publishers as f64, phase)
        });
        Publisher::new(sending, pace)
    }

    /// Waits until everything that can come has come.
    fn watch(
        &self,
        shared: &Shared,
        running: &[thread::JoinHandle<Result<Found, BenchError>>],
        phase: Phase,
    ) -> Result<Option<Usage>, BenchError> {
        let mut progress = Progress::new(match phase.part {
            Part::Consumers => "draining",
            _ => "publishing",
        });
        let (mut seen, mut since) = (0, Instant::now());
        let mut is_complete = false;
        loop {
            thread::sleep(WATCH);
            let (published, delivered) = (shared.published.load(Relaxed), shared.delivered.load(Relaxed));
            let elapsed = Duration::from_nanos(shared.now());
            let is_over = self.args.count.is_none() && elapsed.as_secs_f64() >= self.args.duration;
            if is_over || interrupted() {
                shared.stop_publishing.store(true, Relaxed);
            }
            let (done, all) = match (phase.part, self.args.count) {
                (Part::Consumers, _) => (delivered, phase.expected),
                (_, Some(count)) => (published, count),
                _ => (elapsed.as_millis() as u64, (self.args.duration * 1000.0) as u64),
            };
            progress.set(done.min(all), Some(all));
            let is_published = shared.publishers_left.load(Relaxed) == 0;
            let expected = match phase.part {
                Part::Publishers => 0,
                Part::Consumers => phase.expected,
                Part::Both => published * self.copies() as u64,
            };
            // A little longer than until the last one, so that one too many is seen.
            if is_published && delivered >= expected && std::mem::replace(&mut is_complete, true) {
                break;
            }
            if published + delivered != seen {
                (seen, since) = (published + delivered, Instant::now());
            } else if since.elapsed().as_secs_f64() > self.args.drain_timeout {
                break;
            }
            if running.iter().any(thread::JoinHandle::is_finished) || (interrupted() && phase.part == Part::Consumers) {
                break;
            }
        }
        self.processes.usage()
    }

    fn outcome(
        &self,
        shared: &Shared,
        found: Vec<Found>,
        phase: Phase,
        before: Option<Usage>,
        after: Option<Usage>,
    ) -> Outcome {
        let secs = |nanos: u64| nanos as f64 / 1e9;
        let mut outcome = Outcome {
            published: shared.published.load(Relaxed),
            delivered: 0,
            publish_secs: secs(shared.publish_end.load(Relaxed)),
            deliver_secs: secs(shared.last_delivery.load(Relaxed)),
            figures: if phase.per_sec.is_some() { Figures::taken() } else { Figures::default() },
            sent: vec![Vec::new(); usize::from(self.args.publishers)],
            arrivals: Vec::new(),
            faults: Faults::default(),
            was_blocked: false,
            before,
            after,
        };
        let mut by_thread = Vec::new();
        for Found { arrivals, figures, sent, faults, was_blocked } in found {
            outcome.figures.add(&figures);
            outcome.faults.add(&faults);
            outcome.was_blocked |= was_blocked;
            outcome.delivered += arrivals.iter().map(|arrivals| arrivals.count).sum::<u64>();
            for (publisher, sent) in sent {
                outcome.sent.get_mut(usize::from(publisher)).into_iter().for_each(|slot| slot.clone_from(&sent));
            }
            by_thread.push(arrivals.into_iter());
        }
        let threads = by_thread.len();
        outcome.arrivals = (0..self.queues())
            .filter_map(|queue| by_thread.get_mut(queue % threads).and_then(Iterator::next))
            .collect();
        outcome
    }

    /// What is wrong, when this was sent and that came.
    pub(super) fn judge(&self, sent: &[Vec<u64>], arrivals: &[Arrivals], mut faults: Faults) -> Faults {
        let is_stamped = self.args.size as usize >= STAMP_BYTES;
        for (queue, arrivals) in arrivals.iter().enumerate() {
            let lane = if self.is_fanout() { 0 } else { queue };
            let sent: Vec<u64> = sent.iter().map(|sent| sent.get(lane).copied().unwrap_or(0)).collect();
            faults.add(&arrivals.judge(&sent, is_stamped));
        }
        // What was refused need not come.
        faults.lost = faults.lost.saturating_sub(faults.nacked * self.copies() as u64);
        faults
    }

    /// Messages that are ready in all queues.
    pub(super) fn ready(&mut self) -> Result<u64, BenchError> {
        (0..self.queues()).map(|number| self.control.message_count(&format!("{}.q{number:0DIGITS$}", self.name))).sum()
    }

    /// Removes everything from the broker, as far as that is possible.
    pub(super) fn delete(mut self) {
        let told = |error: BenchError| eprintln!("broker: '{}.*' is left in the broker: {error}", self.name);
        let mut result = Ok(());
        for number in 0..self.queues() {
            let queue = self.queue(number);
            result = result.and_then(|()| self.control.delete_queue(&queue));
        }
        if self.routing.is_some() {
            result = result.and_then(|()| self.control.delete_exchange(&self.name));
        }
        result.and_then(|()| self.control.close()).unwrap_or_else(told);
    }
}

/// Between the start and the first message with a time of its own, so that all threads run.
const START_NANOS: u64 = 20_000_000;
/// How often the end is looked for; times are taken by the threads themselves.
const WATCH: Duration = Duration::from_millis(10);

fn check(args: &FlowArgs, routing: Option<Routing>) -> Result<(), BenchError> {
    let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
    if args.prefetch > 0 && u64::from(args.prefetch) < args.ack_every {
        return usage("--prefetch below --ack-every stops the consumer for ever; raise the one or lower the other");
    }
    if args.consumers.is_some_and(|consumers| consumers < args.queues) {
        return usage(
            "with fewer --consumers than --queues some queues are read by nobody; raise the one or lower the other",
        );
    }
    if routing.is_some_and(|routing| routing.kind != ExchangeKind::Fanout && routing.bindings < u32::from(args.queues))
    {
        return usage("with fewer --bindings than --queues some queues get nothing; raise the one or lower the other");
    }
    if args.count.is_some_and(|count| count < u64::from(args.publishers)) {
        return usage("--count is below --publishers; each publisher sends at least one message");
    }
    debug_assert!(routing.is_none_or(|routing| (routing.bindings as usize) < NUMBERS_MAX));
    Ok(())
}

/// Seconds that make sense: from a hundredth to a month.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.01..=2_592_000.0).contains(&secs) => Ok(secs),
        _ => Err("is no number of seconds from 0.01 to 2592000".to_owned()),
    }
}

/// A number, true, false, or a text.
pub(super) fn argument(pair: &str) -> Result<(String, Value), String> {
    let (name, value) = pair.split_once('=').ok_or("is no NAME=VALUE; write for example x-queue-type=quorum")?;
    let value = match (value.parse::<i64>(), value) {
        (Ok(number), _) => Value::I64(number),
        (_, "true" | "false") => Value::Bool(value == "true"),
        _ => Value::from(value),
    };
    Ok((name.to_owned(), value))
}
